//! Machines of a farm, and what people see of them.

#![allow(dead_code, reason = "each test file needs some of it")]

use crosskit_multiarch::{Daemon, DaemonOptions, Ran, Scene, Tree, processes_of, until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// How long anything may take.
pub const LONG: Duration = Duration::from_secs(60);

/// A worker that is native for one platform, as far as its endpoint can tell. Its steps see its
/// name service, by which they tell where they ran.
pub fn worker(scene: &Scene, name: &str, platform: &str, nameserver: &str) -> Daemon {
    scene.daemon_with(DaemonOptions {
        name: name.into(),
        config: format!("[dns]\n  nameservers = [\"{nameserver}\"]\n"),
        arguments: vec![format!("--oci-worker-platform={platform}")],
        ..Default::default()
    })
}

/// Who the client talks to, as soon as it knows its workers, which have to be there.
pub fn endpoint(scene: &Scene, farm: &str, workers: &[(&str, &Daemon)]) -> Daemon {
    let mut config = format!("[dns]\n  nameservers = [\"10.77.0.1\"]\n[farm]\n{farm}\n");
    for (name, worker) in workers {
        config
            .push_str(&format!("[[farm.worker]]\n  name = \"{name}\"\n  addr = \"{}\"\n", worker.address()));
    }
    let daemon = scene.daemon_with(DaemonOptions { config, ..Default::default() });
    for (name, _) in workers {
        until_state(scene, &daemon, name, "up");
    }
    daemon
}

/// The client's commands for a farm.
pub fn farm(scene: &Scene, daemon: &Daemon, arguments: &[&str]) -> Ran {
    let mut command = Command::new(scene.programs.path("crosskit"));
    command.env("BUILDKIT_HOST", daemon.address()).arg("farm").args(arguments);
    Ran::run(&mut command)
}

/// What `farm ls` says of one worker.
pub fn listed(scene: &Scene, daemon: &Daemon, name: &str) -> Value {
    all_listed(scene, daemon)
        .into_iter()
        .find(|row| row["name"] == name)
        .unwrap_or_else(|| panic!("{name} should be listed"))
}

/// What `farm ls` says of all workers.
pub fn all_listed(scene: &Scene, daemon: &Daemon) -> Vec<Value> {
    let ran = farm(scene, daemon, &["ls", "--format", "{{json .}}"]).ok();
    ran.stdout.lines().map(|line| serde_json::from_str(line).expect("a row of JSON")).collect()
}

/// Waits for a state of a worker, which may not be known yet.
pub fn until_state(scene: &Scene, daemon: &Daemon, name: &str, state: &str) {
    until(&format!("{name} to be {state}"), LONG, || {
        let rows = all_listed(scene, daemon);
        rows.iter().any(|row| row["name"] == name && row["state"] == state).then_some(())
    });
}

/// A build that tells where it ran.
pub const WHERE: &str = "FROM --platform=$BUILDPLATFORM BASE AS native\n\
    RUN /bin/cat /etc/resolv.conf /proc/sys/kernel/random/uuid > /once\n\
    FROM BASE\nCOPY --from=native /once /once\nRUN /bin/cat /etc/resolv.conf > /where\nRUN /bin/uname -m > /arch\n";

/// By which name server a platform's steps ran.
pub fn ran_at(out: &Path, platform: &str) -> String {
    let tree = Tree::of_folder(&out.join(platform));
    let text = tree.text("where");
    text.lines().find_map(|line| line.strip_prefix("nameserver ")).expect("a name server").to_owned()
}

/// A step of a Dockerfile that runs until somebody ends its `sleep`.
pub const UNTIL_TOLD: &str =
    "RUN echo it-ru''ns && (/bin/sleep 987 || true) && /bin/cat /etc/resolv.conf > /where\n";

/// The processes that sleep in steps of a daemon.
pub fn sleepers(scene: &Scene, name: &str) -> Vec<u32> {
    let asleep = |command: &str| command.contains("sleep 987") && !command.contains("echo");
    let all = processes_of(&scene.path(name)).into_iter();
    all.filter(|(_, command)| asleep(command)).map(|(id, _)| id).collect()
}

/// Waits until something sleeps in a step of a daemon, and lets it go on.
pub fn tell_to_go_on(scene: &Scene, name: &str) {
    until("something to sleep", LONG, || {
        let woken = sleepers(scene, name).into_iter().filter(|id| {
            let pid = Pid::from_raw(*id as i32).expect("a process");
            kill_process(pid, Signal::KILL).is_ok()
        });
        (woken.count() > 0).then_some(())
    });
}
