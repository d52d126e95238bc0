//! Beginning and end: of the daemon, of builds, of clients.

use crosskit_multiarch::{
    Daemon, DaemonOptions, Ran, Scene, Tree, digest_of, mounts_below, processes_of, until,
};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

/// A step that says it runs (which its name does not) and then would run for a long time, with children.
const SLOW: &str = "FROM BASE\nRUN (/bin/sleep 987 | /bin/cat) & echo it-ru''ns && /bin/sleep 987\n";

#[test]
fn a_stop_during_a_step_leaves_nothing_within_five_seconds() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let context = scene.context("slow", &[("Dockerfile", SLOW)]);
    let mut building = daemon.build(&context).platforms(&["linux/amd64", "linux/arm64"]).start();
    building.wait_for(" it-runs", LONG);
    // Looks at processes and mounts as soon as the daemon has ended, which it has five seconds for.
    daemon.stop_beside(&[building.id()]);
    building.finish(LONG).fails();
}

#[test]
fn a_client_that_ends_takes_its_build_with_it() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let context = scene.context("slow", &[("Dockerfile", SLOW)]);
    let mut building = daemon.build(&context).start();
    building.wait_for(" it-runs", LONG);
    building.signal(rustix::process::Signal::KILL);
    let folder = scene.path("daemon");
    until("the step's processes to be gone", Duration::from_secs(10), || {
        processes_of(&folder).iter().all(|(_, command)| !command.contains("987")).then_some(())
    });
    let quick = scene.context("quick", &[("Dockerfile", "FROM BASE\nRUN true\n")]);
    daemon.build(&quick).run().ok();
    daemon.stop();
}

#[test]
fn a_client_killed_while_it_sends_does_no_harm() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let context = scene.context("big", &[("Dockerfile", "FROM scratch\nCOPY . /\n")]);
    let block = vec![7; 1 << 20];
    for number in 0..200 {
        std::fs::write(context.join(format!("file{number}")), &block).expect("write a file of the context");
    }
    let mut building = daemon.build(&context).start();
    building.wait_for("load build context", LONG);
    building.signal(rustix::process::Signal::KILL);
    building.wait(LONG);
    let out = scene.path("out");
    daemon.build(&context).into(&out).run().ok();
    assert_eq!(std::fs::read(out.join("file199")).expect("the last file"), block);
    assert_eq!(std::fs::read_dir(&out).expect("list").count(), 201);
    daemon.stop();
}

#[test]
fn a_full_disk_fails_the_build_and_not_the_next() {
    let scene = Scene::set();
    // A small disk of its own, in this daemon's folder so that it is taken away with it.
    let disk = scene.path("daemon/disk");
    std::fs::create_dir_all(&disk).expect("create a mount point");
    let size = std::ffi::CString::new("size=96m").expect("no zero byte");
    rustix::mount::mount("tmpfs", &disk, "tmpfs", rustix::mount::MountFlags::empty(), Some(size.as_c_str()))
        .expect("mount a small disk");
    let daemon = scene.daemon_with(DaemonOptions { root: Some(disk.join("root")), ..Default::default() });
    let fill = "FROM BASE\nRUN dd if=/dev/urandom of=/big bs=1M count=200\n";
    let context = scene.context("fill", &[("Dockerfile", fill)]);
    let disk_is_named = format!("the daemon's state is at {}, on a disk with ", disk.join("root").display());
    let ran = daemon.build(&context).run().fails().says("No space left on device");
    ran.says("exit code: 1; ").says(&disk_is_named).says("make room (buildctl prune)");

    // The step's own files fit, their layer does not.
    let layer = "FROM BASE\nRUN dd if=/dev/urandom of=/big bs=1M count=55\n";
    let context = scene.context("layer", &[("Dockerfile", layer)]);
    let output = format!("type=oci,dest={}", scene.path("x.tar").display());
    let ran = daemon.build(&context).output(&output).run().fails();
    assert!(ran.said().to_lowercase().contains("no space left on device"), "{ran}");
    let ran = ran.says(&disk_is_named);
    let named = ran
        .said()
        .lines()
        .filter(|line| line.starts_with("error: ") && line.contains(&disk_is_named))
        .count();
    assert_eq!(named, 1, "{ran}");

    // Nor what a client sends.
    let large = scene.context("large", &[("Dockerfile", "FROM scratch\nCOPY file /\n")]);
    std::fs::write(large.join("file"), vec![7; 120 << 20]).expect("write a file of the context");
    daemon.build(&large).run().fails().says("No space left on device").says(&disk_is_named);

    daemon.buildctl(&["prune", "--all"]).ok();
    // What was let go is taken away a little later.
    until("room", LONG, || {
        let disk = rustix::fs::statvfs(&disk).expect("a disk");
        (disk.f_bavail * disk.f_frsize > 64 << 20).then_some(())
    });
    let out = scene.path("out");
    let small = "FROM BASE AS a\nRUN echo fits > /small\nFROM scratch\nCOPY --from=a /small /\n";
    let context = scene.context("small", &[("Dockerfile", small)]);
    daemon.build(&context).into(&out).run().ok();
    assert_eq!(Tree::of_folder(&out).text("small"), "fits\n");
    drop(daemon);
    assert!(mounts_below(&disk).is_empty());
}

#[test]
fn what_a_failed_step_has_written_goes_with_its_build() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let fails = "FROM BASE\nRUN dd if=/dev/zero of=/big bs=1M count=20 && false\n";
    let context = scene.context("c", &[("Dockerfile", fails)]);
    daemon.build(&context).run().fails().says("exit code: 1");
    let large = || {
        let ran = daemon.buildctl(&["du", "--format", "{{json .}}"]).ok();
        let all: serde_json::Value = serde_json::from_str(ran.stdout.trim()).expect("JSON");
        let all = all.as_array().expect("a list").clone();
        assert!(!all.is_empty(), "the base image is there");
        all.iter().filter(|record| record.to_string().contains("dd if=")).count()
    };
    until("it to be gone", LONG, || (large() == 0).then_some(()));
    daemon.stop();
}

#[test]
fn the_socket_has_the_mode_and_group_that_were_configured() {
    let scene = Scene::set();
    let config = "[grpc]\n  gid = 4242\n".to_owned();
    let daemon = scene.daemon_with(DaemonOptions { config, ..Default::default() });
    let about = std::fs::metadata(&daemon.socket).expect("the socket");
    assert_eq!(about.permissions().mode() & 0o777, 0o660);
    assert_eq!(about.gid(), 4242);
    let socket = daemon.socket.clone();
    daemon.stop();
    assert!(std::os::unix::net::UnixStream::connect(socket).is_err());
}

#[test]
fn it_listens_at_several_addresses() {
    let scene = Scene::set();
    let second = scene.path("second.sock");
    let arguments =
        vec!["--addr".into(), format!("unix://{}", second.display()), "--addr=tcp://127.0.0.1:0".into()];
    let daemon = scene.daemon_with(DaemonOptions { arguments, ..Default::default() });
    until("the second socket", LONG, || std::os::unix::net::UnixStream::connect(&second).ok());
    let mut command = std::process::Command::new(scene.programs.path("buildctl"));
    command.env("BUILDKIT_HOST", format!("unix://{}", second.display())).args(["debug", "workers"]);
    Ran::run(&mut command).ok().says("linux/amd64");
    daemon.stop();
}

#[test]
fn a_working_config_does_not_stop_working() {
    let scene = Scene::set();
    let config =
        "nobody-knows-me = 1\n\n[worker.oci]\n  gc = false\n  max-parallelism = 4\n  maxparallelism = 4\n"
            .to_owned();
    let mut daemon = scene.daemon_with(DaemonOptions { config, ..Default::default() });
    if !scene.programs.are_foreign() {
        daemon.wait_for_log("nobody-knows-me");
        daemon.wait_for_log("buildkitd.toml");
    }
    let context = scene.context("c", &[("Dockerfile", "FROM BASE\nRUN true\n")]);
    daemon.build(&context).run().ok();
    daemon.stop();
}

#[test]
fn an_unknown_flag_is_named() {
    let scene = Scene::set();
    let arguments = vec!["--no-such-flag".into()];
    Daemon::fails_to_start(&scene, DaemonOptions { arguments, ..Default::default() }).says("no-such-flag");
}

#[test]
fn an_error_tells_which_daemon_it_came_from_when_asked() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let context = scene.context("c", &[("Dockerfile", "FROM scratch\nCOPY nobody-has-me /\n")]);
    let [context, dockerfile] = ["context", "dockerfile"].map(|name| format!("{name}={}", context.display()));
    let build = ["build", "--frontend", "dockerfile.v0", "--local", &context, "--local", &dockerfile];
    let daemon_is = format!("{} v", daemon.id());
    let ran = daemon.buildctl(&[&["--debug"], build.as_slice()].concat()).fails();
    let said = ran.said();
    assert!(said.lines().any(|line| line.starts_with(&daemon_is) && line.contains("buildkitd")), "{ran}");
    assert!(said.lines().any(|line| line.starts_with("\tsrc/") && line.contains(".rs:")), "{ran}");
    daemon.buildctl(&build).fails().says("nobody-has-me").never_says(".rs:");
    daemon.stop();
}

/// A stage, and a step that has a part of it mounted, and a secret.
const MADE: &str = "FROM BASE AS made\nRUN mkdir /part && echo kept > /part/file\n";
const HOLDS: &str = "FROM BASE\nRUN --mount=type=secret,id=key --mount=from=made,source=/part,target=/part \
    cat /part/file && echo it-ru''ns && /bin/sleep 987\n";

/// Kills a daemon while a step of it runs. Gives its folder in memory.
fn kill_during_a_step(scene: &Scene, daemon: Daemon) -> PathBuf {
    scene.write(".", "key", "something secret");
    let context = scene.context("holds", &[("Dockerfile", &format!("{MADE}{HOLDS}"))]);
    let secret = format!("--secret=id=key,src={}", scene.path("key").display());
    let mut building = daemon.build(&context).argument(&secret).start();
    building.wait_for(" it-runs", LONG);
    let name = &digest_of(daemon.root.as_os_str().as_encoded_bytes())["sha256:".len()..][..16];
    let memory = Path::new("/run/crosskit").join(name);
    // As the daemon sees it, which may have mounts of its own.
    let seen = format!("/proc/{}/root{}", daemon.id(), memory.display());
    assert_eq!(secrets_in(Path::new(&seen)).len(), 1, "the step's secret is in {seen}");
    daemon.kill();
    building.finish(LONG).fails();
    memory
}

/// Files of steps that hold the secret.
fn secrets_in(memory: &Path) -> Vec<String> {
    let grep = ["--recursive", "--files-with-matches", "something secret"];
    let ran = Ran::run(Command::new("grep").args(grep).arg(memory.join("steps")));
    ran.stdout.lines().map(str::to_owned).collect()
}

/// What the killed daemon knew is still whole: nothing of what was mounted for its step was removed with its folder.
fn knows_what_it_knew(scene: &Scene, daemon: &Daemon) {
    let text = format!("{MADE}FROM scratch\nCOPY --from=made /part /\n");
    let context = scene.context("known", &[("Dockerfile", &text)]);
    let out = scene.path("known-out");
    daemon.build(&context).into(&out).run().ok().says("CACHED");
    assert_eq!(Tree::of_folder(&out).text("file"), "kept\n");
}

#[test]
fn what_a_killed_daemon_has_in_memory_goes_with_the_next_on_its_root() {
    let scene = Scene::set();
    let memory = kill_during_a_step(&scene, scene.daemon());
    let mut daemon = scene.daemon();
    daemon.wait_for_log("running server on");
    let seen = format!("/proc/{}/root{}", daemon.id(), memory.display());
    assert_eq!(secrets_in(Path::new(&seen)), Vec::<String>::new());
    daemon.stop();
    for left in [memory.clone(), memory.with_extension("running"), memory.with_extension("lock")] {
        assert!(!left.exists(), "{}", left.display());
    }
    let daemon = scene.daemon();
    knows_what_it_knew(&scene, &daemon);
    daemon.stop();
}

#[test]
fn what_a_killed_daemon_has_in_memory_goes_with_the_next_on_any_root() {
    let scene = Scene::set();
    let named = |name: &str| DaemonOptions { name: name.into(), ..Default::default() };
    let living = scene.daemon_with(named("living"));
    let memory = kill_during_a_step(&scene, scene.daemon_with(named("killed")));
    let next = scene.daemon_with(named("next"));
    let folder = scene.path("killed");
    until("what the killed daemon has left to be gone", LONG, || {
        let gone = |path: PathBuf| !path.exists();
        let files = [memory.clone(), memory.with_extension("running"), memory.with_extension("lock")];
        let step = processes_of(&folder).iter().any(|(_, command)| command.contains("987"));
        (files.into_iter().all(gone) && !step).then_some(())
    });
    // Of those that live nothing was touched: they build, and end in order.
    for daemon in [living, next] {
        let context = scene.context("quick", &[("Dockerfile", "FROM BASE\nRUN true\n")]);
        daemon.build(&context).run().ok();
        daemon.stop();
    }
    let again = scene.daemon_with(named("killed"));
    knows_what_it_knew(&scene, &again);
    again.stop();
}

#[test]
fn a_daemon_elsewhere_with_a_root_of_the_same_name_is_told_of() {
    let scene = Scene::set();
    let root = scene.path("root");
    let living = scene.daemon_with(DaemonOptions { root: Some(root.clone()), ..Default::default() });
    // Another disk under the same name, as in another container that has the same /run.
    let script = format!("mount -t tmpfs tmpfs {} && exec \"$@\"", root.display());
    let through = ["unshare", "--mount", "sh", "-ec", &script, "sh"].map(Into::into).to_vec();
    let other = DaemonOptions { name: "other".into(), root: Some(root), through, ..Default::default() };
    Daemon::fails_to_start(&scene, other)
        .says(".lock is locked by another daemon, whose root folder has the same name: give this one another (--root), or a /run of its own");
    let context = scene.context("quick", &[("Dockerfile", "FROM BASE\nRUN true\n")]);
    living.build(&context).run().ok();
    living.stop();
}
