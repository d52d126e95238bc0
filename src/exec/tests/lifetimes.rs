//! Beginnings and ends: cancellation, streams, terminals, second processes, daemons that die.

mod lab;

use std::{io::Cursor, path::Path, time::Duration};

use crosskit_exec::{Error, ExecConfig, Executor, Kind, Process, Stdio, Terminal, WindowSize};
use lab::{Collected, Lab, RUNTIMES, native_rootfs, process, sh, until};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Longer than any test: whoever waits for it to end has failed.
const LONG: &str = "sleep 300 & sleep 300 & echo up; wait";

/// Whether a process of this machine has the text in its command line.
fn runs(text: &str) -> bool {
    std::fs::read_dir("/proc").expect("listed").flatten().any(|entry| {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).replace('\0', " ").contains(text)
    })
}

/// A script that runs long and can be recognised.
fn long(mark: &str) -> String {
    format!(": {mark}; {LONG}")
}

fn cgroups_named(id: &str) -> usize {
    let hierarchies = std::fs::read_dir("/sys/fs/cgroup").expect("listed").flatten();
    hierarchies.filter(|hierarchy| hierarchy.path().join("buildkit").join(id).exists()).count()
        + usize::from(Path::new("/sys/fs/cgroup/buildkit").join(id).exists())
}

#[tokio::test]
async fn cancelling_ends_everything_soon() {
    for runtime in RUNTIMES {
        // The best of some: whatever else the machine does only adds to it.
        let mut soonest = Duration::MAX;
        for _ in 0..3 {
            soonest = soonest.min(canceled_within(runtime).await);
        }
        assert!(soonest < Duration::from_secs(2), "{runtime}: {soonest:?}");
    }
}

/// How long it takes from the wish to end a step until nothing of it is left.
async fn canceled_within(runtime: &str) -> Duration {
    let (lab, rootfs, out) = (Lab::new(runtime), native_rootfs(), Collected::default());
    let cancel = CancellationToken::new();
    let io = Stdio { stdout: out.output(), ..Stdio::default() };
    let mark = format!("cancel-{runtime}-{}", std::process::id());
    let step = Process { id: mark.clone(), ..sh(&rootfs, &long(&mark)) };
    let container = lab.executor.start(step, io, cancel.clone()).await.expect("started");
    out.wait_for("up").await;
    assert!(runs(&mark));
    let began = std::time::Instant::now();
    cancel.cancel();
    let error = container.wait().await.expect_err("canceled");
    assert!(matches!(error, Error::Canceled) && error.kind() == Kind::Canceled);
    let took = began.elapsed();
    assert!(!runs(&mark), "{runtime}");
    assert_eq!(cgroups_named(&mark), 0, "{runtime}");
    lab.assert_clean();
    took
}

#[tokio::test]
async fn cancelling_at_any_moment_leaves_nothing() {
    for runtime in RUNTIMES {
        let (lab, rootfs) = (Lab::new(runtime), native_rootfs());
        lab.executor.warm().await;
        let mark = format!("moment-{runtime}-{}", std::process::id());
        for tenths in 0..30 {
            let cancel = CancellationToken::new();
            let run = lab.executor.run(sh(&rootfs, &long(&mark)), Stdio::default(), cancel.clone());
            let (outcome, ()) = tokio::join!(run, async {
                // Not to wait for something, but to come at different moments of the start.
                tokio::time::sleep(Duration::from_micros(tenths * 700)).await;
                cancel.cancel();
            });
            assert!(matches!(outcome, Err(Error::Canceled)), "{runtime}: {outcome:?}");
            lab.assert_clean();
        }
        assert!(!runs(&mark), "{runtime}");
    }
}

#[tokio::test]
async fn dropping_the_future_ends_everything() {
    for runtime in RUNTIMES {
        let (lab, rootfs, out) = (Lab::new(runtime), native_rootfs(), Collected::default());
        let mark = format!("drop-{runtime}-{}", std::process::id());
        let io = Stdio { stdout: out.output(), ..Stdio::default() };
        let mut run = Box::pin(lab.executor.run(sh(&rootfs, &long(&mark)), io, CancellationToken::new()));
        tokio::select! {
            _ = &mut run => panic!("it runs long"),
            () = out.wait_for("up") => {}
        }
        drop(run);
        until("the processes are gone", || !runs(&mark)).await;
        lab.executor.shutdown().await;
        lab.assert_clean();
    }
}

#[tokio::test]
async fn shutdown_ends_what_runs() {
    let (lab, rootfs, out) = (Lab::with(ExecConfig::default()), native_rootfs(), Collected::default());
    let io = Stdio { stdout: out.output(), ..Stdio::default() };
    let container =
        lab.executor.start(sh(&rootfs, LONG), io, CancellationToken::new()).await.expect("started");
    out.wait_for("up").await;
    lab.executor.shutdown().await;
    lab.assert_clean();
    assert!(matches!(container.wait().await, Err(Error::Canceled)));
    let late = lab.executor.run(sh(&rootfs, "true"), Stdio::default(), CancellationToken::new()).await;
    assert!(matches!(late, Err(Error::Canceled)), "{late:?}");
}

#[tokio::test]
async fn input_reaches_the_process_and_ends() {
    for runtime in RUNTIMES {
        let (lab, rootfs, out) = (Lab::new(runtime), native_rootfs(), Collected::default());
        let stdin = Some(Box::pin(Cursor::new(b"one\ntwo\n".to_vec())) as _);
        let io = Stdio { stdin, stdout: out.output(), ..Stdio::default() };
        let exit =
            lab.executor.run(sh(&rootfs, "cat; echo end"), io, CancellationToken::new()).await.expect("ran");
        assert_eq!((exit.code, out.text().as_str()), (0, "one\ntwo\nend\n"), "{runtime}");
        // A process that reads nothing ends all the same.
        let endless = Some(Box::pin(tokio::io::repeat(b'x')) as _);
        let io = Stdio { stdin: endless, ..Stdio::default() };
        let exit = lab.executor.run(sh(&rootfs, "true"), io, CancellationToken::new()).await.expect("ran");
        assert_eq!(exit.code, 0, "{runtime}");
    }
}

#[tokio::test]
async fn signals_reach_the_process() {
    for runtime in RUNTIMES {
        let (lab, rootfs, out) = (Lab::new(runtime), native_rootfs(), Collected::default());
        let (send, signals) = mpsc::channel(1);
        let io = Stdio { stdout: out.output(), signals: Some(signals), ..Stdio::default() };
        let script = "trap 'echo got; exit 5' TERM; echo up; for i in $(seq 3000); do sleep 0.01; done";
        let container =
            lab.executor.start(sh(&rootfs, script), io, CancellationToken::new()).await.expect("started");
        out.wait_for("up").await;
        send.send(15).await.expect("taken");
        let exit = container.wait().await.expect("ran");
        assert_eq!((exit.code, out.text().as_str()), (5, "up\ngot\n"), "{runtime}");

        let (send, signals) = mpsc::channel(1);
        let out = Collected::default();
        let io = Stdio { stdout: out.output(), signals: Some(signals), ..Stdio::default() };
        let container =
            lab.executor.start(sh(&rootfs, LONG), io, CancellationToken::new()).await.expect("started");
        out.wait_for("up").await;
        send.send(9).await.expect("taken");
        assert_eq!(container.wait().await.expect("ran").code, 137, "{runtime}");
        lab.assert_clean();
    }
}

#[tokio::test]
async fn a_terminal_has_a_size_and_takes_input() {
    for runtime in RUNTIMES {
        let (lab, rootfs, out) = (Lab::new(runtime), native_rootfs(), Collected::default());
        let (resize, sizes) = mpsc::channel(1);
        let (keyboard, typed) = tokio::io::duplex(64);
        let terminal = Terminal { size: Some(WindowSize { rows: 33, cols: 77 }), resize: Some(sizes) };
        let io = Stdio {
            stdin: Some(Box::pin(typed)),
            stdout: out.output(),
            terminal: Some(terminal),
            ..Stdio::default()
        };
        // Whatever becomes of the test, this ends within a minute and leaves the processor to others.
        let script = "tty; stty size; echo ready; read line; echo \"line=$line\"; \
                      for i in $(seq 3000); do [ \"$(stty size)\" != '44 88' ] || break; sleep 0.01; done; \
                      [ \"$(stty size)\" = '44 88' ] && echo resized";
        let container =
            lab.executor.start(sh(&rootfs, script), io, CancellationToken::new()).await.expect("started");
        out.wait_for("ready").await;
        let text = out.text();
        assert!(text.contains("/dev/pts/0") || text.contains("/dev/console"), "{runtime}: {text}");
        assert!(text.contains("33 77"), "{runtime}: {text:?}");
        let mut keyboard = keyboard;
        tokio::io::AsyncWriteExt::write_all(&mut keyboard, b"hello\n").await.expect("typed");
        out.wait_for("line=hello").await;
        resize.send(WindowSize { rows: 44, cols: 88 }).await.expect("taken");
        out.wait_for("resized").await;
        assert_eq!(container.wait().await.expect("ran").code, 0, "{runtime}");
        lab.assert_clean();
    }
}

#[tokio::test]
async fn second_processes_run_in_the_same_container() {
    for runtime in RUNTIMES {
        let (lab, rootfs, out) = (Lab::new(runtime), native_rootfs(), Collected::default());
        let io = Stdio { stdout: out.output(), ..Stdio::default() };
        let step =
            Process { env: vec!["A=first".to_owned()], hostname: "shared".to_owned(), ..sh(&rootfs, LONG) };
        let cancel = CancellationToken::new();
        let container = lab.executor.start(step, io, cancel.clone()).await.expect("started");
        let access = container.access();
        assert!(access.pid().await.expect("is up") > 1);
        let second = |script: &str| process(&rootfs, &["/bin/sh", "-c", script]);
        let said = Collected::default();
        let io = Stdio { stdout: said.output(), ..Stdio::default() };
        let script = "echo $A $(hostname) $(pwd); grep -E '^(CapEff|Seccomp):' /proc/self/status; exit 3";
        let exit = access.exec(second(script), io, CancellationToken::new()).await.expect("ran");
        assert_eq!(exit.code, 3, "{runtime}: {}", said.text());
        assert_eq!(said.text(), "first shared /\nCapEff:\t00000000a80425fb\nSeccomp:\t2\n", "{runtime}");

        let said = Collected::default();
        let io = Stdio { stdout: said.output(), ..Stdio::default() };
        let asked = Process {
            env: vec!["A=own".to_owned()],
            cwd: "/tmp".to_owned(),
            user: "7:8".to_owned(),
            ..second("echo $A $(pwd) $(id -u) $(id -g)")
        };
        access.exec(asked, io, CancellationToken::new()).await.expect("ran");
        assert_eq!(said.text(), "own /tmp 7 8\n", "{runtime}");

        // Canceling the second leaves the first.
        let (said, only) = (Collected::default(), CancellationToken::new());
        let io = Stdio { stdout: said.output(), ..Stdio::default() };
        let (outcome, ()) =
            tokio::join!(access.exec(second("echo on; sleep 300"), io, only.clone()), async {
                said.wait_for("on").await;
                only.cancel();
            });
        assert!(matches!(outcome, Err(Error::Canceled)), "{runtime}: {outcome:?}");
        let exit =
            access.exec(second("true"), Stdio::default(), CancellationToken::new()).await.expect("runs on");
        assert_eq!(exit.code, 0);

        cancel.cancel();
        assert!(matches!(container.wait().await, Err(Error::Canceled)));
        let late =
            access.exec(second("true"), Stdio::default(), CancellationToken::new()).await.expect_err("gone");
        assert!(late.to_string().ends_with("is not running"), "{late}");
        lab.assert_clean();
    }
}

#[tokio::test]
async fn what_a_dead_daemon_left_is_ended_by_the_next() {
    for runtime in RUNTIMES {
        let (lab, rootfs, out) = (Lab::new(runtime), native_rootfs(), Collected::default());
        let mark = format!("left-{runtime}-{}", std::process::id());
        let io = Stdio { stdout: out.output(), ..Stdio::default() };
        let step = Process { id: mark.clone(), ..sh(&rootfs, &long(&mark)) };
        let container = lab.executor.start(step, io, CancellationToken::new()).await.expect("started");
        out.wait_for("up").await;
        // As if this daemon had been killed: another one takes its folder over.
        let next = ExecConfig {
            root: lab.root.path().into(),
            runtime: Some(runtime.into()),
            ..ExecConfig::default()
        };
        let next = Executor::new(next).expect("set up");
        until("it is gone", || !runs(&mark)).await;
        until("its cgroup is gone", || cgroups_named(&mark) == 0).await;
        // What lives on of this one tidies up as well, and is not to meet the next step of this name.
        let _ = container.wait().await;
        let step = Process { id: mark.clone(), ..sh(&rootfs, "true") };
        let exit =
            next.run(step, Stdio::default(), CancellationToken::new()).await.expect("the name is free");
        assert_eq!(exit.code, 0, "{runtime}");
    }
}

#[tokio::test]
async fn many_steps_at_once() {
    let (lab, rootfs) = (Lab::with(ExecConfig::default()), native_rootfs());
    let steps = (0..24).map(|number| {
        let step = sh(&rootfs, &format!("echo {number}; exit {number}"));
        lab.run(step)
    });
    // Started together, as parallel stages are.
    let mut running: Vec<_> = steps.map(Box::pin).collect();
    for (number, step) in running.drain(..).enumerate() {
        let said = step.await;
        assert_eq!((said.exit.code as usize, said.out), (number, format!("{number}\n")));
    }
    lab.assert_clean();
}
