//! What a farm does not do twice, and does at the same time.

#[path = "farm/machines.rs"]
mod machines;

use crosskit_multiarch::{Build, Daemon, DaemonOptions, Line, Ran, Scene, Tree, until};
use machines::{LONG, UNTIL_TOLD, endpoint, listed, sleepers, tell_to_go_on, worker};
use rand::RngCore;
use std::process::Command;

/// A client at the far end of a line, where only the network leads to the daemon.
fn from_afar(line: &Line, build: Build, address: &str) -> Ran {
    let near = build.command();
    let through = line.through();
    let mut command = Command::new(&through[0]);
    command.args(&through[1..]).arg(near.get_program());
    let mut arguments = near.get_args();
    while let Some(argument) = arguments.next() {
        command.arg(argument);
        if argument == "--addr" {
            command.arg(address);
            arguments.next();
        }
    }
    Ran::run(&mut command)
}

#[test]
fn a_context_is_uploaded_once_for_all_workers_and_an_edit_sends_little() {
    let scene = Scene::set();
    let line = Line::lay();
    let platforms = ["linux/riscv64", "linux/arm64", "linux/s390x", "linux/ppc64le"];
    let workers: Vec<(String, Daemon)> = platforms
        .iter()
        .enumerate()
        .map(|(number, platform)| {
            let name = format!("worker-{number}");
            let daemon = worker(&scene, &name, platform, &format!("10.77.0.{}", number + 2));
            (name, daemon)
        })
        .collect();
    let mut config = String::from("[dns]\n  nameservers = [\"10.77.0.1\"]\n");
    for (name, daemon) in &workers {
        config
            .push_str(&format!("[[farm.worker]]\n  name = \"{name}\"\n  addr = \"{}\"\n", daemon.address()));
    }
    let address = format!("tcp://{}:1234", line.near_address);
    let arguments = vec![format!("--addr={address}")];
    let daemon = scene.daemon_with(DaemonOptions { config, arguments, ..Default::default() });

    let dockerfile = "FROM BASE\nCOPY . /src\nRUN /bin/cat /src/note /etc/resolv.conf > /seen && /bin/ls /src > /listing\n";
    let context = scene.context("large", &[("Dockerfile", dockerfile), ("note", "first\n")]);
    let mut size = 0;
    for number in 0..32 {
        let mut noise = vec![0; 512 << 10];
        rand::rng().fill_bytes(&mut noise);
        std::fs::write(context.join(format!("noise-{number}")), &noise).unwrap();
        size += noise.len() as u64;
    }
    let build = || from_afar(&line, daemon.build(&context).platforms(&platforms), &address).ok();
    let before = line.came();
    build();
    let whole = line.came();
    assert!(whole - before >= size, "noise can't be made smaller: {} of {size}", whole - before);
    assert!((whole - before) as f64 <= 1.1 * size as f64, "{} bytes came for {size}", whole - before);
    for (name, _) in &workers {
        assert_eq!(listed(&scene, &daemon, name)["finished"], 1, "{name}");
    }

    scene.write("large", "note", "second\n");
    build();
    let edit = line.came() - whole;
    assert!((edit as f64) < 0.01 * size as f64, "{edit} bytes came for an edit in {size}");
    for (name, _) in &workers {
        assert_eq!(listed(&scene, &daemon, name)["finished"], 2, "{name}");
    }
    println!(
        "context {size}, uploaded {} ({:.4}), after an edit {edit}",
        whole - before,
        (whole - before) as f64 / size as f64
    );
    daemon.stop();
    for (_, worker) in workers {
        worker.stop();
    }
}

#[test]
fn two_builds_of_two_platforms_keep_two_workers_busy_at_the_same_time() {
    let scene = Scene::set();
    let riscv = worker(&scene, "riscv", "linux/riscv64", "10.77.0.2");
    let arm = worker(&scene, "arm", "linux/arm64", "10.77.0.3");
    let daemon = endpoint(&scene, "", &[("riscv-1", &riscv), ("arm-1", &arm)]);
    let names = ["riscv", "arm"];
    let builds = ["one", "two"].map(|name| {
        let text = format!("FROM BASE\nENV NAME={name}\n{UNTIL_TOLD}");
        let context = scene.context(name, &[("Dockerfile", &text)]);
        daemon
            .build(&context)
            .platforms(&["linux/riscv64", "linux/arm64"])
            .into(&scene.path(&format!("{name}-out")))
            .start()
    });
    // Nothing ends by itself, so that all of these run at the same moment.
    until("both workers to run a step of each build", LONG, || {
        names.iter().all(|name| sleepers(&scene, name).len() == 2).then_some(())
    });
    for name in ["riscv-1", "arm-1"] {
        assert_eq!(listed(&scene, &daemon, name)["running"], 2);
    }
    names.iter().for_each(|name| tell_to_go_on(&scene, name));
    for build in builds {
        build.finish(LONG).ok();
    }
    for name in ["one", "two"] {
        for (platform, nameserver) in [("linux_riscv64", "10.77.0.2"), ("linux_arm64", "10.77.0.3")] {
            assert_eq!(machines::ran_at(&scene.path(&format!("{name}-out")), platform), nameserver);
        }
    }
    for daemon in [daemon, riscv, arm] {
        daemon.stop();
    }
}

#[test]
fn equal_steps_from_two_endpoints_run_once_at_the_worker_that_they_share() {
    let scene = Scene::set();
    let riscv = worker(&scene, "riscv", "linux/riscv64", "10.77.0.2");
    let endpoints = ["first", "second"].map(|name| {
        let config = format!("[[farm.worker]]\n  name = \"riscv-1\"\n  addr = \"{}\"\n", riscv.address());
        scene.daemon_with(DaemonOptions { name: name.into(), config, ..Default::default() })
    });
    let dockerfile = format!("FROM BASE\n{UNTIL_TOLD}RUN /bin/cat /proc/sys/kernel/random/uuid > /once\n");
    let context = scene.context("shared", &[("Dockerfile", &dockerfile)]);
    let folders = ["first-out", "second-out"].map(|name| scene.path(name));
    let mut builds: Vec<_> = endpoints
        .iter()
        .zip(&folders)
        .map(|(daemon, out)| {
            let metadata = out.with_extension("metadata");
            daemon.build(&context).platforms(&["linux/riscv64"]).metadata_file(&metadata).into(out).start()
        })
        .collect();
    for build in &mut builds {
        // Each hears what the one step prints.
        build.wait_for(" it-runs", LONG);
    }
    let asleep =
        until("the step to sleep", LONG, || Some(sleepers(&scene, "riscv")).filter(|all| !all.is_empty()));
    assert_eq!(asleep.len(), 1, "one process for both");
    tell_to_go_on(&scene, "riscv");
    for build in builds {
        build.finish(LONG).ok();
    }
    let [first, second] = folders.map(|folder| Tree::of_folder(&folder).text("once"));
    assert_eq!(first, second);
    for daemon in endpoints {
        daemon.stop();
    }
    riscv.stop();
}
