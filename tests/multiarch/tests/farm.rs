//! Workers of other architectures behind one endpoint.

#[path = "farm/machines.rs"]
mod machines;

use crosskit_multiarch::{
    Buildx, Daemon, DaemonOptions, Images, Line, Ran, Scene, Tree, processes_of, until, workspace,
};
use machines::{LONG, WHERE, endpoint, farm, listed, ran_at, until_state, worker};
use rustix::process::Signal;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

#[test]
fn each_platform_runs_at_its_worker_and_a_native_step_once_in_the_farm() {
    let scene = Scene::set();
    let riscv = worker(&scene, "riscv", "linux/riscv64", "10.77.0.2");
    let arm = worker(&scene, "arm", "linux/arm64", "10.77.0.3");
    let daemon = endpoint(&scene, "", &[("riscv-1", &riscv), ("arm-1", &arm)]);
    let context = scene.context("where", &[("Dockerfile", WHERE)]);
    let out = scene.path("out");
    let platforms = ["linux/amd64", "linux/riscv64", "linux/arm64", "linux/s390x"];
    daemon.build(&context).platforms(&platforms).into(&out).run().ok();
    let expected = [
        ("linux_amd64", "10.77.0.1", "x86_64"),
        ("linux_riscv64", "10.77.0.2", "riscv64"),
        ("linux_arm64", "10.77.0.3", "aarch64"),
        ("linux_s390x", "10.77.0.1", "s390x"),
    ];
    let mut once = Vec::new();
    for (folder, nameserver, machine) in expected {
        assert_eq!(ran_at(&out, folder), nameserver, "{folder}");
        let tree = Tree::of_folder(&out.join(folder));
        assert_eq!(tree.text("arch").trim(), machine);
        once.push(tree.text("once"));
    }
    assert!(once.iter().all(|text| *text == once[0] && text.contains("10.77.0.1")), "{once:?}");
    let row = listed(&scene, &daemon, "riscv-1");
    assert_eq!((&row["kind"], &row["state"], &row["finished"]), (&"remote".into(), &"up".into(), &2.into()));
    daemon.buildctl(&["debug", "workers", "--verbose"]).ok().says("riscv-1").says("linux/riscv64");
    for daemon in [daemon, riscv, arm] {
        daemon.stop();
    }
}

#[test]
fn a_step_behind_the_proxy_stays_at_the_endpoint() {
    let scene = Scene::set();
    let riscv = worker(&scene, "riscv", "linux/riscv64", "10.77.0.2");
    let daemon = endpoint(&scene, "", &[("riscv-1", &riscv)]);
    let context = scene.context("behind", &[("Dockerfile", WHERE)]);
    let out = scene.path("out");
    let build = || daemon.build(&context).platforms(&["linux/riscv64"]).opt("no-cache", "").into(&out);
    build().argument("--proxy-network").run().ok();
    assert_eq!(ran_at(&out, ""), "10.77.0.1");
    assert_eq!(listed(&scene, &daemon, "riscv-1")["finished"], 0);
    build().run().ok();
    assert_eq!(ran_at(&out, ""), "10.77.0.2");
    for daemon in [daemon, riscv] {
        daemon.stop();
    }
}

#[test]
fn a_farm_and_one_machine_make_the_same_image() {
    let scene = Scene::set();
    let riscv = worker(&scene, "riscv", "linux/riscv64", "10.77.0.2");
    let daemon = endpoint(&scene, "", &[("riscv-1", &riscv)]);
    let alone = scene.daemon_with(DaemonOptions { name: "alone".into(), ..Default::default() });
    let dockerfile = "FROM BASE\nCOPY a.txt /a.txt\nRUN /bin/mkdir /d && echo one > /d/x && /bin/ln /d/x /d/y && /bin/ln -s x /d/z && /bin/rm /a.txt\n\
        RUN /bin/chmod 4711 /d/x && echo 2 > /two\n";
    let context = scene.context("same", &[("Dockerfile", dockerfile), ("a.txt", "a\n")]);
    let build = |daemon: &Daemon, archive: &str| {
        let output = format!("type=oci,rewrite-timestamp=true,dest={}", scene.path(archive).display());
        let build = daemon.build(&context).platforms(&["linux/amd64", "linux/riscv64"]);
        build.opt("build-arg:SOURCE_DATE_EPOCH", "1700000000").output(&output).run().ok();
        Images::archive(&scene.path(archive)).index_json()
    };
    assert_eq!(build(&daemon, "farm.tar"), build(&alone, "alone.tar"));
    assert_eq!(listed(&scene, &daemon, "riscv-1")["finished"], 2);
    for daemon in [daemon, alone, riscv] {
        daemon.stop();
    }
}

#[test]
fn a_worker_that_is_killed_is_replaced_and_used_again_when_it_is_back() {
    let scene = Scene::set();
    let riscv = worker(&scene, "riscv", "linux/riscv64", "10.77.0.2");
    let daemon = endpoint(&scene, "", &[("riscv-1", &riscv)]);
    // Ends by itself only where it runs the second time.
    let dockerfile = "FROM BASE\nRUN echo first > /first\n\
        RUN echo it-ru''ns && /bin/cat /etc/resolv.conf > /where && (/bin/grep 10.77.0.1 /where || /bin/sleep 987)\n";
    let context = scene.context("kill", &[("Dockerfile", dockerfile)]);
    let out = scene.path("out");
    let platforms = ["linux/amd64", "linux/riscv64"];
    let building = daemon.build(&context).platforms(&platforms).into(&out).start();
    let folder = scene.path("riscv");
    until("the step to run at the worker", LONG, || {
        processes_of(&folder).iter().any(|(_, command)| command.contains("987")).then_some(())
    });
    let killed = Instant::now();
    riscv.kill();
    building.finish(LONG).ok().says("riscv-1");
    assert!(killed.elapsed() < Duration::from_secs(20), "{:?}", killed.elapsed());
    assert_eq!(ran_at(&out, "linux_riscv64"), "10.77.0.1", "emulated, where the endpoint is");
    until_state(&scene, &daemon, "riscv-1", "down");
    let riscv = worker(&scene, "riscv", "linux/riscv64", "10.77.0.2");
    until_state(&scene, &daemon, "riscv-1", "up");
    let context = scene.context("again", &[("Dockerfile", WHERE)]);
    daemon.build(&context).platforms(&platforms).into(&out).run().ok();
    assert_eq!(ran_at(&out, "linux_riscv64"), "10.77.0.2");
    for daemon in [daemon, riscv] {
        daemon.stop();
    }
}

#[test]
fn a_frozen_worker_is_noticed_and_passed_over() {
    let scene = Scene::set();
    let riscv = worker(&scene, "riscv", "linux/riscv64", "10.77.0.2");
    let daemon =
        endpoint(&scene, "  probe-interval = \"500ms\"\n  dead-after = \"2s\"", &[("riscv-1", &riscv)]);
    until_state(&scene, &daemon, "riscv-1", "up");
    let pid = rustix::process::Pid::from_raw(riscv.id() as i32).expect("a process");
    rustix::process::kill_process(pid, Signal::STOP).expect("freeze the worker");
    let context = scene.context("frozen", &[("Dockerfile", WHERE)]);
    let out = scene.path("out");
    let platforms = ["linux/amd64", "linux/riscv64"];
    daemon.build(&context).platforms(&platforms).into(&out).run().ok();
    assert_eq!(ran_at(&out, "linux_riscv64"), "10.77.0.1");
    let row = listed(&scene, &daemon, "riscv-1");
    assert_eq!(row["state"], "down", "{row}");
    rustix::process::kill_process(pid, Signal::CONT).expect("thaw the worker");
    until_state(&scene, &daemon, "riscv-1", "up");
    for daemon in [daemon, riscv] {
        daemon.stop();
    }
}

#[test]
fn a_worker_that_is_cut_off_is_replaced_and_used_again_when_it_can_be_reached() {
    let scene = Scene::set();
    let line = Line::lay();
    let far = scene.daemon_with(DaemonOptions {
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
        "[dns]\n  nameservers = [\"10.77.0.1\"]\n[farm]\n  probe-interval = \"500ms\"\n  dead-after = \"2s\"\n\
         [[farm.worker]]\n  name = \"riscv-1\"\n  addr = \"tcp://{}:1234\"\n  insecure = true\n",
        line.address
    );
    let daemon = scene.daemon_with(DaemonOptions { config, ..Default::default() });
    let dockerfile = "FROM BASE\nRUN echo first > /first\n\
        RUN /bin/cat /etc/resolv.conf > /where && (/bin/grep 10.77.0.1 /where || /bin/sleep 987)\n";
    let context = scene.context("cut", &[("Dockerfile", dockerfile)]);
    let out = scene.path("out");
    let building = daemon.build(&context).platforms(&["linux/riscv64"]).into(&out).start();
    let folder = scene.path("riscv");
    until("the step to run at the worker", LONG, || {
        processes_of(&folder).iter().any(|(_, command)| command.contains("987")).then_some(())
    });
    line.cut();
    building.finish(LONG).ok().says("riscv-1");
    let at = |out: &Path| Tree::of_folder(out).text("where");
    assert!(at(&out).contains("10.77.0.1"), "emulated, where the endpoint is");
    until_state(&scene, &daemon, "riscv-1", "down");
    line.mend();
    until_state(&scene, &daemon, "riscv-1", "up");
    // A line that has just been mended may still stumble: the next step finds the worker then.
    let dockerfile = "FROM BASE\nARG TRY\nRUN echo $TRY && /bin/cat /etc/resolv.conf > /where\n";
    let context = scene.context("again", &[("Dockerfile", dockerfile)]);
    let mut tries = 0;
    until("a step to run at the worker again", LONG, || {
        tries += 1;
        let build = daemon.build(&context).opt("build-arg:TRY", &tries.to_string());
        build.platforms(&["linux/riscv64"]).into(&out).run().ok();
        at(&out).contains("10.77.0.2").then_some(())
    });
    // What it ran for nobody ends there too.
    until("the step at the worker to be gone", LONG, || {
        processes_of(&folder).iter().all(|(_, command)| !command.contains("987")).then_some(())
    });
    for daemon in [daemon, far] {
        daemon.stop();
    }
}

#[test]
fn a_step_that_fails_is_no_failure_of_its_worker() {
    let scene = Scene::set();
    let riscv = worker(&scene, "riscv", "linux/riscv64", "10.77.0.2");
    let daemon = endpoint(&scene, "", &[("riscv-1", &riscv)]);
    let dockerfile = "FROM BASE\nRUN echo out; echo err >&2; exit 42\n";
    let context = scene.context("fails", &[("Dockerfile", dockerfile)]);
    let ran =
        daemon.build(&context).platforms(&["linux/amd64", "linux/riscv64"]).argument("--no-cache").run();
    let ran = ran.fails().says("exit code: 42").says("Dockerfile:2").says("exit 42");
    let printed = |line: &&str| line.starts_with('#') && line.ends_with(" err");
    let times = ran.said().lines().filter(printed).count();
    assert!(times <= 2, "each platform once: {ran}");
    let riscv_alone =
        daemon.build(&context).platforms(&["linux/riscv64"]).argument("--no-cache").run().fails();
    riscv_alone.says(" out").says(" err").says("exit code: 42");
    let row = listed(&scene, &daemon, "riscv-1");
    assert_eq!((&row["state"], &row["failed"]), (&"up".into(), &0.into()), "{row}");
    for daemon in [daemon, riscv] {
        daemon.stop();
    }
}

#[test]
fn a_platform_that_nobody_can_run_names_the_worker_that_is_away() {
    let scene = Scene::set();
    let gone = scene.path("gone.sock");
    let config = format!(
        "[farm]\n[[farm.worker]]\n  name = \"mips-1\"\n  addr = \"unix://{}\"\n  platforms = [\"linux/mips64le\"]\n",
        gone.display()
    );
    let daemon = scene.daemon_with(DaemonOptions { config, ..Default::default() });
    let dockerfile =
        "FROM --platform=$BUILDPLATFORM BASE AS native\nFROM scratch\nCOPY --from=native / /\nRUN true\n";
    let context = scene.context("nowhere", &[("Dockerfile", dockerfile)]);
    let begun = Instant::now();
    daemon.build(&context).platforms(&["linux/mips64le"]).run().fails().says("linux/mips64le").says("mips-1");
    assert!(begun.elapsed() < Duration::from_secs(10));
    farm(&scene, &daemon, &["ls"]).ok().says("mips-1").says("down");
    daemon.stop();
}

#[test]
fn secrets_reach_a_worker_and_never_its_disk() {
    let scene = Scene::set();
    let riscv = worker(&scene, "riscv", "linux/riscv64", "10.77.0.2");
    let daemon = endpoint(&scene, "", &[("riscv-1", &riscv)]);
    let dockerfile = "FROM BASE\n\
        RUN --mount=type=secret,id=one --mount=type=secret,id=two,env=TWO \
        (/bin/cat /run/secrets/one; echo $TWO) | /bin/tr a-z A-Z > /shouted; /bin/cat /etc/resolv.conf > /where\n";
    let context = scene.context("secret", &[("Dockerfile", dockerfile)]);
    scene.write("secret", "one", "hush-of-the-file\n");
    let out = scene.path("out");
    let one = format!("--secret=id=one,src={}", context.join("one").display());
    let build = daemon.build(&context).platforms(&["linux/riscv64"]).argument(&one);
    let build = build.argument("--secret=id=two,env=TWO_IS").environment("TWO_IS", "hush-of-the-variable");
    build.into(&out).run().ok();
    let tree = Tree::of_folder(&out);
    assert_eq!(tree.text("shouted"), "HUSH-OF-THE-FILE\nHUSH-OF-THE-VARIABLE\n");
    assert!(tree.text("where").contains("10.77.0.2"));
    let found = Command::new("grep").args(["-rlaE", "hush-of-the"]).arg(&riscv.root).output().expect("grep");
    assert_eq!(String::from_utf8_lossy(&found.stdout), "", "nothing of it in the worker's root");
    for daemon in [daemon, riscv] {
        daemon.stop();
    }
}

#[test]
fn an_agent_of_the_client_is_there_for_a_step_at_a_worker() {
    let scene = Scene::set();
    let riscv = worker(&scene, "riscv", "linux/riscv64", "10.77.0.2");
    let daemon = endpoint(&scene, "", &[("riscv-1", &riscv)]);
    let socket = scene.path("agent.sock");
    let _agent = std::os::unix::net::UnixListener::bind(&socket).expect("an agent's socket");
    let dockerfile =
        "FROM BASE\nRUN --mount=type=ssh test -S $SSH_AUTH_SOCK && /bin/cat /etc/resolv.conf > /where\n";
    let context = scene.context("agent", &[("Dockerfile", dockerfile)]);
    let out = scene.path("out");
    let build = || daemon.build(&context).platforms(&["linux/riscv64"]);
    build().argument(&format!("--ssh=default={}", socket.display())).into(&out).run().ok();
    assert!(Tree::of_folder(&out).text("where").contains("10.77.0.2"));
    build().argument("--no-cache").run().fails();
    for daemon in [daemon, riscv] {
        daemon.stop();
    }
}

#[test]
fn a_worker_that_does_not_allow_what_a_step_asks_for_is_asked_once_and_passed_over() {
    let scene = Scene::set();
    let allows = "insecure-entitlements = [\"network.host\"]\n";
    let [wary, bold] = [("wary", ""), ("bold", allows)].map(|(name, config)| {
        scene.daemon_with(DaemonOptions {
            name: name.into(),
            config: config.into(),
            arguments: vec!["--oci-worker-platform=linux/riscv64".into()],
            ..Default::default()
        })
    });
    let mut config = format!("{allows}[farm]\n");
    for (name, daemon) in [("wary-1", &wary), ("bold-1", &bold)] {
        config += &format!("[[farm.worker]]\n  name = \"{name}\"\n  addr = \"{}\"\n", daemon.address());
    }
    let daemon = scene.daemon_with(DaemonOptions { config, ..Default::default() });
    for name in ["wary-1", "bold-1"] {
        until_state(&scene, &daemon, name, "up");
    }
    let build = |number: u32| {
        let dockerfile = format!("FROM BASE\nRUN --network=host echo {number} > /made\n");
        let context = scene.context(&format!("host-{number}"), &[("Dockerfile", &dockerfile)]);
        let build = daemon.build(&context).platforms(&["linux/riscv64"]);
        build.argument("--allow=network.host").run().ok();
    };
    farm(&scene, &daemon, &["drain", "bold-1"]).ok();
    build(0);
    farm(&scene, &daemon, &["undrain", "bold-1"]).ok();
    (1..6).for_each(build);
    let refusals = daemon.log().matches("granting entitlement network.host").count();
    assert_eq!(refusals, 1, "{}", daemon.log());
    assert_eq!(listed(&scene, &daemon, "wary-1")["finished"], 0);
    assert_eq!(listed(&scene, &daemon, "bold-1")["finished"], 5);
    for daemon in [daemon, wary, bold] {
        daemon.stop();
    }
}

#[test]
fn cancelling_reaches_the_worker_and_leaves_nothing_there() {
    let scene = Scene::set();
    let riscv = worker(&scene, "riscv", "linux/riscv64", "10.77.0.2");
    let daemon = endpoint(&scene, "", &[("riscv-1", &riscv)]);
    let context =
        scene.context("cancel", &[("Dockerfile", "FROM BASE\nRUN echo it-ru''ns && /bin/sleep 987\n")]);
    let mut building = daemon.build(&context).platforms(&["linux/riscv64"]).start();
    building.wait_for(" it-runs", LONG);
    building.signal(Signal::KILL);
    let folder = scene.path("riscv");
    until("the step at the worker to be gone", Duration::from_secs(10), || {
        processes_of(&folder).iter().all(|(_, command)| !command.contains("987")).then_some(())
    });
    for daemon in [daemon, riscv] {
        // Looks at processes and mounts.
        daemon.stop();
    }
}

#[test]
fn people_see_and_steer_what_runs_where() {
    let scene = Scene::set();
    let riscv = worker(&scene, "riscv", "linux/riscv64", "10.77.0.2");
    let daemon = endpoint(&scene, "", &[("riscv-1", &riscv)]);
    let context = scene.context("steer", &[("Dockerfile", WHERE)]);
    let out = scene.path("out");
    let build = |more: &str| {
        let reference = scene.path("ref");
        let build =
            daemon.build(&context).platforms(&["linux/amd64", "linux/riscv64"]).argument("--no-cache");
        build.argument(&format!("--ref-file={}", reference.display())).into(&out).run().ok();
        let reference = std::fs::read_to_string(reference).expect("the build's reference");
        let explained = farm(&scene, &daemon, &["explain", reference.trim()]).ok();
        explained.says(more).says("linux/riscv64").says("uname -m");
        ran_at(&out, "linux_riscv64")
    };
    assert_eq!(build("on riscv-1 (remote, native)"), "10.77.0.2");
    farm(&scene, &daemon, &["drain", "riscv-1"]).ok();
    assert_eq!(listed(&scene, &daemon, "riscv-1")["state"], "draining");
    assert_eq!(build("not on riscv-1: takes no new work"), "10.77.0.1");
    farm(&scene, &daemon, &["undrain", "riscv-1"]).ok();
    assert_eq!(build("on riscv-1 (remote, native)"), "10.77.0.2");
    farm(&scene, &daemon, &["drain", "nobody"]).fails().says("there is no worker \"nobody\"");
    farm(&scene, &daemon, &["explain", "nothing"]).fails().says("nobody remembers build \"nothing\"");
    for daemon in [daemon, riscv] {
        daemon.stop();
    }
}

#[test]
fn everybody_sees_where_a_step_runs_and_its_output_is_left_alone() {
    let scene = Scene::set();
    let riscv = worker(&scene, "riscv", "linux/riscv64", "10.77.0.2");
    let daemon = endpoint(&scene, "", &[("riscv-1", &riscv)]);
    let dockerfile = "FROM BASE\nRUN /bin/printf 'it-prints: %s\\n' one two\n";
    let context = scene.context("seen", &[("Dockerfile", dockerfile)]);
    let platforms = ["linux/amd64", "linux/riscv64", "linux/s390x"];
    let reference = scene.path("ref");
    let build = daemon.build(&context).platforms(&platforms).argument("--no-cache");
    let ran = build.argument(&format!("--ref-file={}", reference.display())).run().ok();
    let emulator = |said: &str| {
        let (_, rest) = said.split_once("qemu-s390x ").unwrap_or_else(|| panic!("no emulator in {said}"));
        rest.chars().take_while(|c| c.is_ascii_digit() || *c == '.').filter(|c| *c == '.').count()
    };
    let ran = ran.says("linux/amd64 here (native) ").says("linux/riscv64 on riscv-1 (native) ");
    assert_eq!(
        emulator(&ran.clone().says("linux/s390x here (qemu-s390x ").said()),
        2,
        "a whole version: {ran}"
    );
    let printed = |ran: &Ran| {
        let mut printed = 0;
        for line in ran.said().lines().filter(|line| line.contains("it-prints: ") && !line.contains("printf"))
        {
            let text = line.split_once("it-prints: ").expect("what was printed").1;
            assert!(["one", "two"].contains(&text), "{line}");
            printed += 1;
        }
        printed
    };
    assert_eq!(printed(&ran), 6, "{ran}");
    let reference = std::fs::read_to_string(reference).expect("the build's reference");
    let explained = farm(&scene, &daemon, &["explain", reference.trim()]).ok();
    let explained = explained.says("on riscv-1 (remote, native): ").says("on native: ");
    assert_eq!(emulator(&explained.says("on emulated (qemu-s390x ").said()), 2);

    // A client that knows of no farm shows it as well.
    let buildx = Buildx::create(&scene, &daemon);
    let folder = context.display().to_string();
    let ran = buildx
        .run(&["build", "--progress=plain", "--no-cache", "--platform", &platforms.join(","), &folder])
        .ok();
    let ran = ran.says("linux/amd64 here (native) ").says("linux/riscv64 on riscv-1 (native) ");
    let ran = ran.says("linux/s390x here (qemu-s390x ").says("[linux/riscv64 2/2] RUN /bin/printf");
    assert_eq!(printed(&ran), 6, "{ran}");

    // Where there is no farm, only an emulator is worth a word.
    let alone = scene.daemon_with(DaemonOptions { name: "alone".into(), ..Default::default() });
    let ran = alone.build(&context).platforms(&platforms[..2]).run().ok();
    ran.says("linux/riscv64 here (qemu-riscv64 ").never_says("here (native)");
    for daemon in [daemon, riscv, alone] {
        daemon.stop();
    }
}

#[test]
fn provenance_says_where_each_step_has_run() {
    let scene = Scene::set();
    let riscv = worker(&scene, "riscv", "linux/riscv64", "10.77.0.2");
    let daemon = endpoint(&scene, "", &[("riscv-1", &riscv)]);
    let context = scene.context("made", &[("Dockerfile", "FROM BASE\nRUN echo made > /made\n")]);
    let out = scene.path("out");
    let build = |options: &str, anew: bool| {
        let build = daemon.build(&context).platforms(&["linux/riscv64", "linux/amd64", "linux/s390x"]);
        let build = if anew { build.argument("--no-cache") } else { build };
        build.opt("attest:provenance", options).into(&out).run().ok();
        ["linux_riscv64", "linux_amd64", "linux_s390x"].map(|folder| {
            let text = Tree::of_folder(&out.join(folder)).text("provenance.json");
            let told: serde_json::Value = serde_json::from_str(&text).expect("provenance");
            told["predicate"].clone()
        })
    };
    for (options, details) in [("mode=max", "/runDetails/metadata"), ("mode=max,version=v0.2", "/metadata")] {
        let places = |anew: bool| {
            build(options, anew).map(|told| {
                let steps = told.pointer(&format!("{details}/crosskit_metadata/steps"));
                let steps = steps.and_then(|steps| steps.as_object()).expect("steps");
                assert_eq!(steps.len(), 1, "{steps:?}");
                steps.values().next().cloned().expect("a step")
            })
        };
        let made = places(true);
        assert_eq!(places(false), made, "what was found made tells the same");
        let [remote, native, emulated] = made;
        assert_eq!(remote["worker"], "riscv-1");
        assert_eq!((&remote["platform"], &remote["emulated"]), (&"linux/riscv64".into(), &false.into()));
        assert_eq!((native.get("worker"), &native["emulated"]), (None, &false.into()));
        assert_eq!((emulated.get("worker"), &emulated["emulated"]), (None, &true.into()));
        assert!(emulated["emulator"].as_str().is_some_and(|it| it.starts_with("qemu-s390x")), "{emulated}");
    }
    for daemon in [daemon, riscv] {
        daemon.stop();
    }
}

#[test]
fn a_config_without_tls_or_with_a_slip_is_refused() {
    let scene = Scene::set();
    for (farm, says) in [
        ("[[farm.worker]]\n  name = \"a\"\n  addr = \"tcp://127.0.0.1:1\"\n", "without TLS"),
        ("[farm]\n  emulatedslots = 1\n", "unknown key \"farm.emulatedslots\""),
    ] {
        let options = DaemonOptions { config: farm.into(), ..Default::default() };
        Daemon::fails_to_start(&scene, options).says(says);
    }
}

#[test]
fn the_example_of_a_unit_is_one_that_systemd_takes() {
    let scene = Scene::set();
    let example = workspace().join("examples/farm/buildkitd.service");
    let text = std::fs::read_to_string(example).expect("read the example");
    let text =
        text.replace("/usr/local/bin/buildkitd", &scene.programs.path("buildkitd").display().to_string());
    scene.write("units", "buildkitd.service", &text);
    let mut command = Command::new(scene.parts.on_machine("systemd-analyze"));
    command.args(["verify", "--man=no"]).arg(scene.path("units/buildkitd.service"));
    let ran = Ran::run(&mut command).ok();
    // What it does not understand it says, and succeeds.
    assert_eq!(ran.said().trim(), "");
}
