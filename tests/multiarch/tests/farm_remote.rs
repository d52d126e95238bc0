//! A step on a worker elsewhere: what comes of it here, and whose fault it is when nothing does.
#![allow(clippy::unwrap_used)]

#[path = "farm/certificates.rs"]
mod certificates;
#[path = "farm/endpoint.rs"]
mod endpoint;

use certificates::Authority;
use crosskit_llb::{Constraints, ExecMount, LocalSource, SecretMount};
use crosskit_multiarch::{Daemon, DaemonOptions, Images, Line, Ran, Scene, processes_of, until};
use crosskit_solver::ErrorKind;
use crosskit_workers::remote::{Health, RemoteError, RemoteOptions, RemoteWorker, Tls};
use endpoint::{Endpoint, Steps, last, platform};
use rustix::process::{Pid, Signal, kill_process};
use std::time::{Duration, Instant};

fn worker(daemon: &Daemon) -> RemoteWorker {
    RemoteWorker::new(RemoteOptions::new("far", daemon.address())).unwrap()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// Runs a test with a scene, a daemon as the worker, and an endpoint that sends everything to it.
fn with_worker(test: impl AsyncFnOnce(Scene, Daemon, RemoteWorker, Endpoint)) {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let runtime = runtime();
    runtime.block_on(async {
        let remote = worker(&daemon);
        let endpoint = Endpoint::new(Some(remote.clone()));
        test(scene, daemon, remote, endpoint).await;
    });
    runtime.shutdown_timeout(Duration::from_secs(5));
}

fn pid(daemon: &Daemon) -> Pid {
    Pid::from_raw(i32::try_from(daemon.id()).unwrap()).unwrap()
}

/// Waits until a process of the daemon's steps has this in its command line.
fn runs(scene: &Scene, text: &str) {
    until("the step to run", Duration::from_secs(30), || {
        processes_of(&scene.path("daemon")).iter().any(|(_, command)| command.contains(text)).then_some(())
    });
}

/// Waits until no process of the daemon's steps has this in its command line.
fn ended(scene: &Scene, text: &str) {
    until("the step's process to be gone", Duration::from_secs(20), || {
        processes_of(&scene.path("daemon")).iter().all(|(_, command)| !command.contains(text)).then_some(())
    });
}

#[test]
fn a_step_elsewhere_leaves_what_it_leaves_here_and_prints_the_same() {
    with_worker(async |scene, _daemon, remote, there| {
        let facts = remote.probe().await.unwrap();
        assert_eq!(facts.platforms[0], crosskit_platforms::native().normalize());
        let here = Endpoint::new(None);
        let script = "i=0; while [ $i -lt 500 ]; do echo line $i; printf 'half '; echo err $i >&2; \
                      i=$((i+1)); done; printf 'no end\\r\\377'; \
                      mkdir /made && echo made > /made/file && rm /bin/yes && \
                      touch -d @1700000000 /made/file /made /bin";
        let mut steps = Steps::on(&scene.base());
        let done = steps.run(steps.base, script);
        let graph = steps.graph(done);
        let (far, near) = (there.build(&graph, &[]).await, here.build(&graph, &[]).await);
        assert_eq!(far.printed[&last(&graph)].len(), near.printed[&last(&graph)].len());
        let (far_result, near_result) = (far.result.unwrap(), near.result.unwrap());
        assert_eq!(there.read(&far_result, "made/file").await, b"made\n");
        assert_eq!(there.layers(&far_result).await, here.layers(&near_result).await);
        // Both streams in one: only what each of them holds has an order.
        let stdout = |text: &[u8]| String::from_utf8_lossy(text).matches("half ").count();
        assert_eq!(stdout(&far.printed[&last(&graph)]), 500);
        assert!(far.printed[&last(&graph)].windows(7).any(|w| w == b"no end\r"));
        here.shutdown().await;
    });
}

#[test]
fn output_comes_in_order_and_byte_for_byte() {
    with_worker(async |scene, _daemon, _remote, there| {
        let script = "i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done; printf '\\001\\377\\r'";
        let graph = Steps::script(&scene.base(), script);
        let built = there.build(&graph, &[]).await;
        built.result.unwrap();
        let mut expected: Vec<u8> = (0..3000).flat_map(|i| format!("line {i}\n").into_bytes()).collect();
        expected.extend(b"\x01\xff\r");
        assert_eq!(built.printed[&last(&graph)], expected);
    });
}

#[test]
fn a_step_that_fails_keeps_its_exit_code_and_is_not_the_workers_fault() {
    with_worker(async |scene, _daemon, _remote, there| {
        let graph = Steps::script(&scene.base(), "echo before; exit 7");
        let built = there.build(&graph, &[]).await;
        assert_eq!(built.printed[&last(&graph)], b"before\n");
        let error = built.result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::User);
        assert_eq!(error.details().exit_code, Some(7));
        let here = Endpoint::new(None);
        let own = here.build(&graph, &[]).await.result.unwrap_err();
        assert_eq!(error.to_string(), own.to_string());
        assert!(matches!(there.attempts.lock().unwrap()[0].0, Err(RemoteError::Step(_))));
        here.shutdown().await;
    });
}

#[test]
fn every_output_of_a_step_comes_back() {
    with_worker(async |scene, _daemon, _remote, there| {
        let mut steps = Steps::on(&scene.base());
        let extra = steps.run(steps.base, "mkdir /x && echo given > /x/given");
        let mut exec = Steps::exec(steps.base, "cat /in/x/given > /out/copy; echo root > /root-file");
        exec.mounts = vec![
            ExecMount { target: "/in".into(), source: Some(extra), readonly: true, ..Default::default() },
            ExecMount { target: "/out".into(), ..Default::default() },
        ];
        let outputs = steps.builder.exec(exec, Constraints::on(platform()));
        let out = there.build(&steps.graph(outputs.mounts[1].unwrap()), &[]).await.result.unwrap();
        assert_eq!(there.read(&out, "copy").await, b"given\n");
        let root = there.build(&steps.graph(outputs.root.unwrap()), &[]).await.result.unwrap();
        assert_eq!(there.read(&root, "root-file").await, b"root\n");
    });
}

#[test]
fn secrets_reach_a_step_through_the_clients_own_session() {
    with_worker(async |scene, daemon, remote, there| {
        let client = there.client(&[("token", "swordfish-371")]).await;
        let mut steps = Steps::on(&scene.base());
        let mut exec = Steps::exec(steps.base, "sha256sum < /run/token > /seen");
        exec.secrets =
            vec![SecretMount { id: "token".into(), target: Some("/run/token".into()), ..Default::default() }];
        let done = steps.builder.exec(exec.clone(), Constraints::on(platform())).root.unwrap();
        let built = there.build(&steps.graph(done), std::slice::from_ref(&client)).await;
        let seen = there.read(&built.result.unwrap(), "seen").await;
        let expected = crosskit_multiarch::digest_of(b"swordfish-371").replace("sha256:", "");
        assert!(String::from_utf8(seen).unwrap().starts_with(&expected));

        // In the environment it goes to a daemon of ours, to others only if that is allowed.
        exec.args[2] = "echo -n $TOKEN | sha256sum > /seen".into();
        exec.secrets[0].env = Some("TOKEN".into());
        exec.secrets[0].target = None;
        let done = steps.builder.exec(exec.clone(), Constraints::on(platform())).root.unwrap();
        let built = there.build(&steps.graph(done), &[client]).await;
        match remote.probe().await.unwrap().is_crosskit {
            true => {
                let seen = there.read(&built.result.unwrap(), "seen").await;
                assert!(String::from_utf8(seen).unwrap().starts_with(&expected));
            }
            false => assert!(built.result.unwrap_err().to_string().contains("allow-secret-env")),
        }
        assert!(!anywhere(&daemon.root, b"swordfish-371"), "the secret is on the worker's disk");

        // Without a client that has it, the step is to blame.
        exec.args[2] = "true".into();
        exec.secrets[0] = SecretMount { id: "none".into(), target: Some("/x".into()), ..Default::default() };
        let done = steps.builder.exec(exec, Constraints::on(platform())).root.unwrap();
        let poor = there.client(&[]).await;
        let failed = there.build(&steps.graph(done), &[poor]).await.result.unwrap_err();
        assert!(failed.to_string().contains("secret none: not found"), "{failed}");
        assert!(matches!(there.attempts.lock().unwrap().last().unwrap().0, Err(RemoteError::Step(_))));
    });
}

/// Whether some file below a folder holds these bytes.
fn anywhere(folder: &std::path::Path, bytes: &[u8]) -> bool {
    std::fs::read_dir(folder).into_iter().flatten().flatten().any(|entry| {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            return anywhere(&entry.path(), bytes);
        }
        kind.is_file()
            && std::fs::read(entry.path()).is_ok_and(|data| data.windows(bytes.len()).any(|w| w == bytes))
    })
}

#[test]
fn only_what_the_other_side_lacks_travels() {
    with_worker(async |scene, _daemon, remote, there| {
        let mut steps = Steps::on(&scene.base());
        let first = steps.run(steps.base, "head -c 5000000 /dev/urandom > /five");
        let second = steps.run(first, "head -c 1000 /five > /piece");
        let third = steps.run(second, "wc -c < /piece > /count");
        there.build(&steps.graph(first), &[]).await.result.unwrap();
        let one = remote.traffic();
        assert!((5_000_000..5_100_000).contains(&one.received), "{one:?}");
        let result = there.build(&steps.graph(third), &[]).await.result.unwrap();
        let all = remote.traffic();
        assert_eq!(there.read(&result, "count").await, b"1000\n");
        assert!(all.received - one.received < 50_000, "{all:?}");
        assert!(all.sent - one.sent < 50_000, "{all:?}");
    });
}

#[test]
fn of_a_folder_that_a_step_looks_into_only_what_has_changed_travels() {
    with_worker(async |scene, _daemon, remote, there| {
        let context = scene.context("context", &[("small", "one\n")]);
        std::fs::write(context.join("large"), vec![7; 3 << 20]).unwrap();
        let look = async |session: String| {
            let mut steps = Steps::on(&scene.base());
            let source =
                LocalSource { name: "context".into(), session: session.clone(), ..Default::default() };
            let source = steps.builder.local(&source, Constraints::default());
            let mut exec = Steps::exec(steps.base, "wc -c < /in/large > /size; cat /in/small > /small");
            exec.mounts = vec![ExecMount {
                target: "/in".into(),
                source: Some(source),
                readonly: true,
                ..Default::default()
            }];
            let done = steps.builder.exec(exec, Constraints::on(platform())).root.unwrap();
            let result = there.build(&steps.graph(done), &[session]).await.result.unwrap();
            (there.read(&result, "size").await, there.read(&result, "small").await)
        };
        let first = look(there.client_with_context(&context).await).await;
        assert_eq!(first, (b"3145728\n".to_vec(), b"one\n".to_vec()));
        let before = remote.traffic().sent;
        assert!(before > 3 << 20, "{before}");
        std::fs::write(context.join("small"), "two\n").unwrap();
        let second = look(there.client_with_context(&context).await).await;
        assert_eq!(second, (b"3145728\n".to_vec(), b"two\n".to_vec()));
        assert!(remote.traffic().sent - before < 30_000, "{}", remote.traffic().sent - before);
    });
}

#[test]
fn a_worker_with_a_full_disk_is_at_fault_whoever_notices() {
    let scene = Scene::set();
    // A small disk of its own, in the daemon's folder so that it is taken away with it.
    let disk = scene.path("daemon/disk");
    std::fs::create_dir_all(&disk).unwrap();
    let size = std::ffi::CString::new("size=64m").unwrap();
    let flags = rustix::mount::MountFlags::empty();
    rustix::mount::mount("tmpfs", &disk, "tmpfs", flags, Some(size.as_c_str())).unwrap();
    let daemon = scene.daemon_with(DaemonOptions { root: Some(disk.join("root")), ..Default::default() });
    let runtime = runtime();
    runtime.block_on(async {
        let there = Endpoint::new(Some(worker(&daemon)));
        let base = scene.base();
        for (noticed_by, script) in [
            ("the step", "dd if=/dev/urandom of=/big bs=1M count=200"),
            ("the worker, when it makes the layer", "dd if=/dev/urandom of=/big bs=1M count=40"),
        ] {
            there.build(&Steps::script(&base, script), &[]).await.result.unwrap_err();
            let attempt = there.attempts.lock().unwrap().last().unwrap().0.clone();
            let Err(RemoteError::Worker { name, why }) = attempt else { panic!("{noticed_by}: {attempt:?}") };
            assert_eq!(name, "far");
            assert!(why.to_lowercase().contains("no space left on device"), "{noticed_by}: {why}");
        }
    });
    runtime.shutdown_timeout(Duration::from_secs(5));
}

/// Pushes an image that is large enough for a worker to pull it itself.
fn push_large(scene: &Scene, daemon: &Daemon) -> String {
    let name = scene.registry.reference("large:latest");
    let script = "FROM BASE\nRUN head -c 40000000 /dev/urandom > /large\n";
    let context = scene.context("large", &[("Dockerfile", script)]);
    let output = format!("type=image,name={name},push=true");
    daemon.build(&context).output(&output).run().ok();
    name
}

#[test]
fn a_large_image_is_pulled_by_the_worker_itself() {
    with_worker(async |scene, _daemon, remote, there| {
        let pusher = scene.daemon_with(DaemonOptions { name: "pusher".into(), ..Default::default() });
        let large = push_large(&scene, &pusher);
        let graph = Steps::script(&large, "wc -c < /large > /count");
        let result = there.build(&graph, &[]).await.result.unwrap();
        assert!(there.stored() < 100_000, "{}", there.stored());
        assert!(remote.traffic().sent < 100_000, "{:?}", remote.traffic());
        assert!(remote.traffic().received < 100_000, "{:?}", remote.traffic());
        assert_eq!(there.read(&result, "count").await, b"40000000\n");
    });
}

#[test]
fn a_worker_without_a_way_to_the_registry_gets_images_from_here() {
    let scene = Scene::set();
    let pusher = scene.daemon_with(DaemonOptions { name: "pusher".into(), ..Default::default() });
    let large = push_large(&scene, &pusher);
    // A network of its own, with nobody else in it.
    let through = ["unshare", "--net"].map(Into::into).to_vec();
    let daemon = scene.daemon_with(DaemonOptions { through, ..Default::default() });
    let runtime = runtime();
    runtime.block_on(async {
        let remote = worker(&daemon);
        let there = Endpoint::new(Some(remote.clone()));
        let graph = Steps::script(&large, "wc -c < /large > /count");
        let result = there.build(&graph, &[]).await.result.unwrap();
        assert_eq!(there.read(&result, "count").await, b"40000000\n");
        assert!(remote.traffic().sent > 40_000_000, "{:?}", remote.traffic());
    });
    runtime.shutdown_timeout(Duration::from_secs(5));
}

#[test]
fn equal_steps_of_two_endpoints_run_once() {
    with_worker(async |scene, daemon, _remote, there| {
        let other = Endpoint::new(Some(worker(&daemon)));
        let graph = Steps::script(&scene.base(), "head -c 16 /dev/urandom > /random; sleep 0.3");
        let (one, two) = tokio::join!(there.build(&graph, &[]), other.build(&graph, &[]));
        let (one, two) = (one.result.unwrap(), two.result.unwrap());
        assert_eq!(there.read(&one, "random").await, other.read(&two, "random").await);
        other.shutdown().await;
    });
}

#[test]
fn a_killed_worker_is_noticed_at_once() {
    with_worker(async |scene, daemon, remote, there| {
        let graph = Steps::script(&scene.base(), "/bin/sleep 986");
        let (job, building) = there.start(&graph);
        runs(&scene, "986");
        let begun = Instant::now();
        daemon.kill();
        assert!(!building.await.unwrap());
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        let attempt = there.attempts.lock().unwrap()[0].0.clone();
        assert!(matches!(&attempt, Err(RemoteError::Worker { name, .. }) if name == "far"), "{attempt:?}");
        let mut health = remote.watch();
        let down = health.wait_for(|health| matches!(health, Health::Down { .. }));
        tokio::time::timeout(Duration::from_secs(5), down).await.unwrap().unwrap();
        drop(job);
        // It comes back and is used again.
        let _again = scene.daemon();
        let up = health.wait_for(|health| *health == Health::Up);
        tokio::time::timeout(Duration::from_secs(10), up).await.unwrap().unwrap();
        let graph = Steps::script(&scene.base(), "echo back");
        there.build(&graph, &[]).await.result.unwrap();
    });
}

#[test]
fn a_frozen_worker_is_noticed_within_its_time() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let runtime = runtime();
    runtime.block_on(async {
        let mut options = RemoteOptions::new("far", daemon.address());
        options.dead_after = Duration::from_secs(2);
        options.probe_interval = Duration::from_millis(500);
        let there = Endpoint::new(Some(RemoteWorker::new(options).unwrap()));
        let graph = Steps::script(&scene.base(), "/bin/sleep 985");
        let (_job, building) = there.start(&graph);
        runs(&scene, "985");
        kill_process(pid(&daemon), Signal::STOP).unwrap();
        let begun = Instant::now();
        assert!(!building.await.unwrap());
        let took = begun.elapsed();
        kill_process(pid(&daemon), Signal::CONT).unwrap();
        // When it wakes up, it learns that nobody wants the step any more.
        ended(&scene, "985");
        assert!(took < Duration::from_secs(5), "{took:?}");
        let attempt = there.attempts.lock().unwrap()[0].0.clone();
        assert!(matches!(attempt, Err(RemoteError::Worker { .. })), "{attempt:?}");
    });
    runtime.shutdown_timeout(Duration::from_secs(5));
}

#[test]
fn a_cancelled_step_leaves_nothing_at_the_worker() {
    with_worker(async |scene, daemon, _remote, there| {
        let graph = Steps::script(&scene.base(), "/bin/sleep 984");
        let (job, building) = there.start(&graph);
        runs(&scene, "984");
        let begun = Instant::now();
        drop(job);
        assert!(!building.await.unwrap());
        ended(&scene, "984");
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
        daemon.stop();
    });
}

#[test]
fn a_session_at_a_worker_lasts_as_long_as_its_build() {
    with_worker(async |scene, daemon, _remote, there| {
        let mut steps = Steps::on(&scene.base());
        let first = steps.run(steps.base, "echo one > /one");
        let second = steps.run(first, "echo two > /two");
        let built = there.build(&steps.graph(second), &[]).await;
        built.result.as_ref().unwrap();
        // As our daemon says it, or another.
        let ended =
            |log: &str| log.matches("session ended").count() + log.matches("session finished").count();
        assert_eq!(ended(&daemon.log()), 0);
        drop(built);
        until("the session to end", Duration::from_secs(60), || (ended(&daemon.log()) == 1).then_some(()));
    });
}

/// A daemon at the far end of a line, and the way to it.
fn at_the_end_of(line: &Line, scene: &Scene) -> (Daemon, RemoteWorker) {
    let address = format!("tcp://{}:1234", line.address);
    let arguments = vec![format!("--addr={address}")];
    let daemon =
        scene.daemon_with(DaemonOptions { arguments, through: line.through(), ..Default::default() });
    let options = RemoteOptions { insecure: true, ..RemoteOptions::new("far", address) };
    (daemon, RemoteWorker::new(options).unwrap())
}

/// Ten million bytes, which take ten seconds on a line of 8 Mbit/s.
const TEN_MILLION: &str = "head -c 10000000 /dev/urandom > /ten";

#[test]
fn a_step_begins_while_the_layer_below_it_is_on_its_way() {
    let (scene, line) = (Scene::set(), Line::lay());
    let (_daemon, remote) = at_the_end_of(&line, &scene);
    let runtime = runtime();
    runtime.block_on(async {
        let there = Endpoint::new(Some(remote.clone()));
        line.slow(8_000_000);
        let mut steps = Steps::on(&scene.base());
        let first = steps.run(steps.base, TEN_MILLION);
        let second = steps.run(first, "/bin/sleep 3.983; head -c 1000 /ten > /piece");
        let third = steps.run(second, "wc -c < /piece > /count");
        let (job, building) = there.start(&steps.graph(third));
        runs(&scene, "3.983");
        assert!(remote.traffic().received < 10_000_000, "{:?}", remote.traffic());
        line.slow(1_000_000_000);
        assert!(building.await.unwrap());
        // All have run once, all layers have come once, and nothing went there twice.
        assert_eq!(there.attempts.lock().unwrap().len(), 3);
        let traffic = remote.traffic();
        assert!((10_000_000..10_050_000).contains(&traffic.received), "{traffic:?}");
        let result = there.build(&steps.graph(third), &[]).await.result.unwrap();
        assert_eq!(there.read(&result, "count").await, b"1000\n");
        assert_eq!(there.attempts.lock().unwrap().len(), 3);
        assert_eq!(remote.traffic(), traffic);
        drop(job);
    });
    runtime.shutdown_timeout(Duration::from_secs(5));
}

#[test]
fn a_cancelled_build_leaves_nothing_that_was_on_its_way() {
    let (scene, line) = (Scene::set(), Line::lay());
    let (daemon, remote) = at_the_end_of(&line, &scene);
    let runtime = runtime();
    runtime.block_on(async {
        let there = Endpoint::new(Some(remote.clone()));
        line.slow(8_000_000);
        let mut steps = Steps::on(&scene.base());
        let first = steps.run(steps.base, TEN_MILLION);
        let second = steps.run(first, "/bin/sleep 982");
        let (job, building) = there.start(&steps.graph(second));
        runs(&scene, "982");
        drop(job);
        assert!(!building.await.unwrap());
        ended(&scene, "982");
        let ended = |log: &str| log.contains("session ended") || log.contains("session finished");
        until("the session to end", Duration::from_secs(60), || ended(&daemon.log()).then_some(()));
        let received = remote.traffic().received;
        assert!(received < 10_000_000, "{received}");
        daemon.stop();
    });
    runtime.shutdown_timeout(Duration::from_secs(5));
}

/// An endpoint with one worker for riscv64, which it emulates without it.
fn farm_of(scene: &Scene, line: &Line) -> (Daemon, Daemon) {
    let worker = scene.daemon_with(DaemonOptions {
        name: "riscv".into(),
        config: "[dns]\n  nameservers = [\"10.77.0.2\"]\n".into(),
        arguments: vec![
            "--oci-worker-platform=linux/riscv64".into(),
            format!("--addr=tcp://{}:1234", line.address),
        ],
        through: line.through(),
        ..Default::default()
    });
    let config = format!(
        "[dns]\n  nameservers = [\"10.77.0.1\"]\n\
         [[farm.worker]]\n  name = \"riscv-1\"\n  addr = \"tcp://{}:1234\"\n  insecure = true\n",
        line.address
    );
    (worker, scene.daemon_with(DaemonOptions { config, ..Default::default() }))
}

#[test]
fn what_had_not_arrived_from_a_killed_worker_is_run_again_and_what_had_is_not() {
    let (scene, line) = (Scene::set(), Line::lay());
    if scene.programs.are_foreign() {
        return;
    }
    let (worker, endpoint) = farm_of(&scene, &line);
    let alone = scene.daemon_with(DaemonOptions { name: "alone".into(), ..Default::default() });
    let dockerfile = "FROM BASE\n\
        RUN echo 1 > /one && printf 'one %s\\n' ran\n\
        RUN /bin/sleep 2 && /bin/head -c 10000000 /dev/zero > /two && printf 'two %s\\n' ran\n\
        RUN (/bin/grep -q 10.77.0.2 /etc/resolv.conf && /bin/sleep 98.1; echo 3 > /three)\n";
    let context = scene.context("killed", &[("Dockerfile", dockerfile)]);
    let build = |daemon: &Daemon, archive: &str| {
        let output = format!("type=oci,rewrite-timestamp=true,dest={}", scene.path(archive).display());
        let build = daemon.build(&context).platforms(&["linux/riscv64"]).output(&output);
        build.opt("build-arg:SOURCE_DATE_EPOCH", "1700000000").start()
    };
    line.slow(8_000_000);
    let building = build(&endpoint, "farm.tar");
    let folder = scene.path("riscv");
    until("the last step to run at the worker", Duration::from_secs(60), || {
        processes_of(&folder).iter().any(|(_, command)| command.contains("sleep 98.1")).then_some(())
    });
    worker.kill();
    let ran = building.finish(Duration::from_secs(120)).ok();
    for (step, times) in [("one", 1), ("two", 2)] {
        let said = ran.said().matches(&format!("{step} ran")).count();
        assert_eq!(said, times, "{step}: {ran}");
    }
    build(&alone, "alone.tar").finish(Duration::from_secs(120)).ok();
    let index = |archive: &str| Images::archive(&scene.path(archive)).index_json();
    assert_eq!(index("farm.tar"), index("alone.tar"));
}

#[test]
fn a_build_that_fails_does_not_wait_for_what_is_on_its_way_and_does_not_lose_it() {
    let (scene, line) = (Scene::set(), Line::lay());
    if scene.programs.are_foreign() {
        return;
    }
    let (_worker, endpoint) = farm_of(&scene, &line);
    let dockerfile = |last: &str| {
        format!(
            "FROM BASE\n\
             RUN /bin/head -c 10000000 /dev/urandom > /one && printf 'run %s\\n' $(/bin/cat /proc/sys/kernel/random/uuid)\n\
             RUN {last}\n"
        )
    };
    let build = |name: &str, last: &str| {
        let context = scene.context(name, &[("Dockerfile", &dockerfile(last))]);
        endpoint.build(&context).platforms(&["linux/riscv64"]).run()
    };
    // What it brings is on the way for forty seconds.
    line.slow(2_000_000);
    let failed = build("fails", "exit 7").fails().says("exit code: 7");
    assert!(failed.took < Duration::from_secs(30), "{:?}", failed.took);
    line.slow(1_000_000_000);
    let number =
        |ran: &Ran| ran.said().lines().find_map(|line| Some(line.split_once(" run ")?.1.to_string()));
    // While it is on its way it is the same run, and then it is known.
    let works = build("works", "true").ok();
    assert_eq!(number(&works), number(&failed));
    assert_eq!(number(&build("changed", "echo").ok()), None);
}

/// A daemon that listens with TLS as well, at the port that is returned.
fn tls_daemon(scene: &Scene, name: &str, own: &Tls) -> (Daemon, u16) {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let file = |file: &Option<std::path::PathBuf>| file.as_ref().unwrap().display().to_string();
    let arguments = [
        "--addr".to_string(),
        format!("tcp://127.0.0.1:{port}"),
        format!("--tlscert={}", file(&own.cert)),
        format!("--tlskey={}", file(&own.key)),
        format!("--tlscacert={}", file(&own.ca)),
    ];
    let options = DaemonOptions { name: name.into(), arguments: arguments.to_vec(), ..Default::default() };
    (scene.daemon_with(options), port)
}

#[test]
fn certificates_count_on_both_sides_and_refusals_are_said_plainly() {
    let scene = Scene::set();
    let authority = Authority::new(&scene.path("authority"));
    let stranger = Authority::new(&scene.path("stranger"));
    let (_daemon, port) = tls_daemon(&scene, "daemon", &authority.issue("worker", 2));
    let (_old, old_port) = tls_daemon(&scene, "old", &authority.issue("old", -1));
    let options = |port: u16, tls: Option<Tls>| RemoteOptions {
        tls,
        insecure: true,
        ..RemoteOptions::new("far", format!("tcp://127.0.0.1:{port}"))
    };
    let named = |tls: Tls| Some(Tls { server_name: "worker.test".into(), ..tls });
    let good = authority.issue("endpoint", 2);
    let runtime = runtime();
    runtime.block_on(async {
        let remote = RemoteWorker::new(options(port, named(good.clone()))).unwrap();
        let there = Endpoint::new(Some(remote));
        let graph = Steps::script(&scene.base(), "echo by TLS > /said");
        let result = there.build(&graph, &[]).await.result.unwrap();
        assert_eq!(there.read(&result, "said").await, b"by TLS\n");

        let other_name = Some(Tls { server_name: "else.test".into(), ..good.clone() });
        let nothing = Some(Tls { cert: None, key: None, ..named(good.clone()).unwrap() });
        let foreign = named(Tls { ca: good.ca.clone(), ..stranger.issue("spy", 2) });
        let expired = named(authority.issue("late", -1));
        let mistrusted = named(Tls { ca: stranger.issue("x", 2).ca, ..good.clone() });
        for (port, tls, words) in [
            (port, other_name, "certificate is for another name"),
            (port, nothing, "refuses our certificate"),
            (port, foreign, "refuses our certificate"),
            (port, expired, "refuses our certificate"),
            (port, mistrusted, "signed by nobody whom we trust"),
            (old_port, named(good.clone()), "its certificate has expired"),
        ] {
            let refused = RemoteWorker::new(options(port, tls)).unwrap();
            let error = refused.probe().await.unwrap_err().to_string();
            assert!(error.contains(words) && error.starts_with("worker far: "), "{error}");
            let mut health = refused.watch();
            let down = health.wait_for(|health| matches!(health, Health::Down { .. })).await.unwrap().clone();
            let Health::Down { why } = down else { panic!("not down") };
            assert!(why.contains(words), "{why}");
        }
    });
    runtime.shutdown_timeout(Duration::from_secs(5));
}
