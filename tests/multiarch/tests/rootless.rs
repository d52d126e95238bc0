//! A daemon without the machine's rights.

use crosskit_multiarch::{Daemon, DaemonOptions, Images, OrdinaryUser, Scene, Tree, processes_of, until};
use rustix::process::Signal;
use std::time::Duration;

/// How long what is waited for may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// Ids that the user may give away.
const IDS: &str = "100000:65536";

/// What needs more than one user id, removals and folders that hide others, what a step leaves running, both platforms.
const DOCKERFILE: &str = r#"FROM BASE AS below
RUN mkdir -p /d/e /gone && touch /d/e/f /d/kept /gone/x && chown -R 7:8 /d/kept
FROM below
ARG TARGETARCH
RUN --mount=type=cache,target=/cache,id=c-$TARGETARCH echo once >> /cache/times; cp /cache/times /times
RUN rm -rf /gone && rm -rf /d/e && mkdir /d/e && echo $TARGETARCH > /d/e/made
RUN (sleep 1000 &) ; sleep 2000 & id -u > /id; cat /proc/self/uid_map > /map
USER 7:8
RUN touch /tmp/mine
"#;

/// Builds for two platforms and looks at what came of it.
fn builds(scene: &Scene, daemon: &Daemon, name: &str) {
    let context = scene.context("context", &[("Dockerfile", DOCKERFILE)]);
    let pushed = scene.registry.reference(&format!("{name}:1"));
    let build = || {
        let output = format!("type=image,name={pushed},push=true");
        daemon.build(&context).opt("platform", "linux/amd64,linux/arm64").output(&output).run().ok()
    };
    build();
    let images = Images::Repository(&scene.registry, name.to_owned());
    let index = scene.registry.manifest(name, "1").expect("it was pushed");
    let index = serde_json::from_slice(&index).expect("JSON");
    for architecture in ["amd64", "arm64"] {
        let tree = images.tree(&images.json(Images::entry(&index, &format!("linux/{architecture}"))));
        assert_eq!(tree.text("d/e/made"), format!("{architecture}\n"), "{name}");
        assert_eq!(tree.text("times"), "once\n", "{name}");
        assert_eq!(tree.text("id"), "0\n", "{name}");
        assert!(!tree.text("map").contains("4294967295"), "{name}: {}", tree.text("map"));
        let owner = |path: &str| (tree.0[path].uid, tree.0[path].gid);
        assert_eq!((owner("d/kept"), owner("tmp/mine")), ((7, 8), (7, 8)), "{name}");
        for gone in ["gone", "gone/x", "d/e/f", "d/e/.wh..wh..opq", "d/e/.wh..opq"] {
            assert!(!tree.has(gone), "{name}: {gone} is there");
        }
    }
    build().says("CACHED");
}

/// A name, what starts the daemon, its arguments, the snapshotter, the runtime, and the label about processes.
type Way = (
    &'static str,
    &'static [&'static str],
    &'static [&'static str],
    &'static str,
    &'static str,
    &'static str,
);

#[test]
fn an_ordinary_user_builds_with_every_way_of_starting_it() {
    let scene = Scene::set();
    let user = OrdinaryUser::new(&scene, IDS);
    const KIT: &[&str] = &["rootlesskit"];
    let ways: [Way; 6] = [
        ("kit", KIT, &[], "overlayfs", "crun", "sandbox"),
        ("alone", &[], &["--rootless"], "overlayfs", "crun", "sandbox"),
        ("shared", KIT, &["--oci-worker-no-process-sandbox"], "overlayfs", "crun", "no-sandbox"),
        (
            "runc",
            &[],
            &["--rootless", "--oci-worker-binary=runc", "--oci-worker-no-process-sandbox"],
            "overlayfs",
            "runc",
            "no-sandbox",
        ),
        ("fuse", KIT, &["--oci-worker-snapshotter=fuse-overlayfs"], "fuse-overlayfs", "crun", "sandbox"),
        ("copies", &[], &["--rootless", "--oci-worker-snapshotter=native"], "native", "crun", "sandbox"),
    ];
    for (name, before, arguments, snapshotter, runtime, processes) in ways {
        let daemon = scene.daemon_with(user.daemon(&scene, name, before, arguments));
        let labels = [("snapshotter", snapshotter), ("oci.process-mode", processes), ("network", "host")];
        let workers = daemon.buildctl(&["debug", "workers", "--verbose"]).ok();
        for (label, value) in labels {
            let line = workers.stdout.lines().find(|line| line.contains(&format!(".worker.{label}:")));
            assert!(line.is_some_and(|line| line.ends_with(value)), "{name}: {line:?}, not {value}");
        }
        workers.says(&format!("{runtime} ")).says("linux/arm64");
        builds(&scene, &daemon, name);
        daemon.stop();
    }
}

#[test]
fn an_ordinary_user_may_run_more_steps_than_have_keys() {
    let scene = Scene::set();
    let user = OrdinaryUser::new(&scene, IDS);
    let daemon = scene.daemon_with(user.daemon(&scene, "many", &[], &["--rootless"]));
    let limit = std::fs::read_to_string("/proc/sys/kernel/keys/maxkeys").expect("the limit of keys");
    let steps = limit.trim().parse::<usize>().expect("a number") + 50;
    // Stages of ten steps each, at once.
    let stage = |at: usize| format!("FROM BASE AS s{at}\n{}", "RUN true\n".repeat(10));
    let stages: String = (0..steps / 10).map(|at| stage(at).replace("true", &format!("echo {at}"))).collect();
    let last: String = (0..steps / 10).map(|at| format!("COPY --from=s{at} /etc/passwd /{at}\n")).collect();
    let context = scene.context("many", &[("Dockerfile", &format!("{stages}FROM scratch\n{last}"))]);
    daemon.build(&context).run().ok();
    daemon.stop();
}

#[test]
fn an_ordinary_user_builds_without_a_daemon() {
    let scene = Scene::set();
    let user = OrdinaryUser::new(&scene, IDS);
    let dockerfile = "FROM scratch\nCOPY file /there/\n";
    for (name, text) in [("Dockerfile", dockerfile), ("file", "here")] {
        std::fs::write(user.home().join(name), text).expect("write a file");
    }
    user.run(&["crosskit", "build", "--platform=linux/amd64,linux/arm64", "-o", "out", "."]).ok();
    assert_eq!(Tree::of_folder(&user.home().join("out")).text("linux_arm64/there/file"), "here");
    // What came out is the user's own, and what was kept is where users keep such things.
    user.run(&["rm", "-r", "out"]).ok();
    assert!(user.home().join(".local/share/buildkit/metadata.db").exists());
    let left = processes_of(scene.folder());
    assert!(left.iter().all(|(_, words)| !words.contains("build")), "{left:?}");
}

#[test]
fn what_a_user_lacks_is_said_with_what_to_do() {
    let scene = Scene::set();
    let user = OrdinaryUser::new(&scene, IDS);
    let refused = |user: &OrdinaryUser, before: &[&str], arguments: &[&str]| {
        Daemon::fails_to_start(&scene, user.daemon(&scene, "refused", before, arguments))
    };
    refused(&user, &[], &[]).says("give --rootless");
    refused(&user, &["setpriv", "--no-new-privs"], &["--rootless"])
        .says("newuidmap")
        .says("0 41000 1 1 100000 65536");
    let plain = DaemonOptions {
        name: "plain".into(),
        arguments: vec!["--oci-worker-no-process-sandbox".into()],
        ..DaemonOptions::default()
    };
    Daemon::fails_to_start(&scene, plain).says("can't enable NoProcessSandbox without Rootless");

    let scene = Scene::set();
    let poor = OrdinaryUser::new(&scene, "");
    let options = poor.daemon(&scene, "refused", &[], &["--rootless"]);
    Daemon::fails_to_start(&scene, options)
        .says("/etc/subuid gives user crosskit-test no ids")
        .says("usermod --add-subuids");
}

#[test]
fn a_rootless_daemon_that_is_killed_leaves_nothing_in_the_way_of_the_next() {
    let scene = Scene::set();
    let user = OrdinaryUser::new(&scene, IDS);
    for (name, more) in
        [("own", "--oci-worker-snapshotter=fuse-overlayfs"), ("shared", "--oci-worker-no-process-sandbox")]
    {
        let options = || user.daemon(&scene, name, &[], &["--rootless", more]);
        let daemon = scene.daemon_with(options());
        let context = scene.context("waits", &[("Dockerfile", "FROM BASE\nRUN echo he''re && sleep 1000\n")]);
        let mut build = daemon.build(&context).start();
        build.wait_for(" here", LIMIT);
        build.signal(Signal::INT);
        build.wait(LIMIT);
        until("the canceled step to be gone", LIMIT, || {
            let left = processes_of(scene.folder());
            left.iter().all(|(_, words)| !words.starts_with("sleep 1000")).then_some(())
        });
        let mut build = daemon.build(&context).start();
        build.wait_for(" here", LIMIT);
        daemon.kill();
        drop(build);
        let daemon = scene.daemon_with(options());
        builds(&scene, &daemon, &format!("after-{name}"));
        daemon.stop();
    }
}
