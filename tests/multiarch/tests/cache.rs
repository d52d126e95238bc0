//! What is built again, and what is not.

use crosskit_multiarch::{Daemon, Images, Ran, Scene, Tree};
use std::path::{Path, PathBuf};

/// Two independent COPYs, each with a step that leaves a number that is never the same twice.
const DOCKERFILE: &str = "FROM BASE AS one\nCOPY a.txt /\nRUN cat /a.txt /proc/sys/kernel/random/uuid > /one\n\
    FROM BASE AS two\nCOPY b.txt /\nRUN cat /b.txt /proc/sys/kernel/random/uuid > /two\n\
    FROM scratch\nCOPY --from=one /one /\nCOPY --from=two /two /\n";

fn context(scene: &Scene) -> PathBuf {
    scene.context(
        "context",
        &[("Dockerfile", DOCKERFILE), ("a.txt", "a\n"), ("b.txt", "b\n"), ("nobody-copies-me", "1\n")],
    )
}

fn build(daemon: &Daemon, context: &Path, out: &Path) -> (String, String) {
    build_with(daemon, context, out, &[]).0
}

fn build_with(daemon: &Daemon, context: &Path, out: &Path, arguments: &[&str]) -> ((String, String), Ran) {
    let mut build = daemon.build(context).into(out);
    for argument in arguments {
        build = build.argument(argument);
    }
    let ran = build.run().ok();
    let tree = Tree::of_folder(out);
    ((tree.text("one"), tree.text("two")), ran)
}

#[test]
fn only_what_depends_on_an_edited_file_runs_again() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let (context, out) = (context(&scene), scene.path("out"));
    let first = build(&daemon, &context, &out);
    assert_eq!(build(&daemon, &context, &out), first, "nothing changed");

    scene.write("context", "nobody-copies-me", "2\n");
    assert_eq!(build(&daemon, &context, &out), first, "no COPY selects that file");

    scene.write("context", "b.txt", "edited\n");
    let third = build(&daemon, &context, &out);
    assert_eq!(third.0, first.0, "the stage that does not see the file");
    assert_ne!(third.1, first.1, "the stage that does");
    assert!(third.1.starts_with("edited\n"));

    scene.write("context", "b.txt", "b\n");
    assert_eq!(build(&daemon, &context, &out), first, "the old content's results are still there");
    daemon.stop();
}

#[test]
fn results_survive_a_restart() {
    let scene = Scene::set();
    let (context, out) = (context(&scene), scene.path("out"));
    let daemon = scene.daemon();
    let first = build(&daemon, &context, &out);
    daemon.stop();
    let daemon = scene.daemon();
    assert_eq!(build(&daemon, &context, &out), first);
    daemon.stop();
}

#[test]
fn a_daemon_that_was_killed_starts_again_and_offers_nothing_broken() {
    let scene = Scene::set();
    let (context, out) = (context(&scene), scene.path("out"));
    let daemon = scene.daemon();
    let first = build(&daemon, &context, &out);
    // What was committed may be lost for the last moments before the kill, never be wrong.
    daemon.kill();
    let daemon = scene.daemon();
    let second = build(&daemon, &context, &out);
    assert!(second.0.starts_with("a\n") && second.1.starts_with("b\n"), "{second:?}");
    daemon.stop();

    let daemon = scene.daemon();
    assert_eq!(build(&daemon, &context, &out), second, "and what the second one built is kept");
    assert_eq!(first.0.lines().count(), 2);
    daemon.stop();
}

#[test]
fn a_kill_in_the_middle_of_a_step_leaves_a_root_that_works() {
    let scene = Scene::set();
    let out = scene.path("out");
    let dockerfile = "FROM BASE AS a\nRUN dd if=/dev/zero of=/big bs=1M count=32 && echo half-way && sleep 600\n\
                      FROM scratch\nCOPY --from=a /big /\n";
    let slow = scene.context("slow", &[("Dockerfile", dockerfile)]);
    let daemon = scene.daemon();
    let mut building = daemon.build(&slow).into(&out).start();
    building.wait_for(" half-way", std::time::Duration::from_secs(60));
    daemon.kill();
    drop(building);
    end_processes_of(&scene);

    let daemon = scene.daemon();
    build(&daemon, &context(&scene), &out);
    daemon.stop();
}

#[test]
fn a_daemon_killed_at_any_moment_works_the_next_time() {
    let scene = Scene::set();
    let archive = scene.path("image.tar");
    let dockerfile =
        "FROM BASE\nCOPY a.txt /\nRUN dd if=/dev/urandom of=/noise bs=1M count=8 && cat /a.txt > /made\n";
    let context = scene.context("moments", &[("Dockerfile", dockerfile), ("a.txt", "a\n")]);
    let output = format!("type=oci,dest={}", archive.display());
    // Each moment is a line of progress; what follows it is under way when the kill comes.
    for moment in
        ["load build definition", "FROM ", "load build context", "COPY a.txt", "RUN dd", "exporting"]
    {
        let daemon = scene.daemon();
        let mut building = daemon.build(&context).argument("--no-cache").output(&output).start();
        building.wait_for(moment, std::time::Duration::from_secs(60));
        daemon.kill();
        drop(building);
        end_processes_of(&scene);

        let daemon = scene.daemon();
        daemon.build(&context).output(&output).run().ok();
        let images = Images::archive(&archive);
        let tree = images.tree(&images.json(&images.index_json()["manifests"][0]));
        assert_eq!(tree.text("made"), "a\n", "after a kill at {moment}");
        assert_eq!(tree.0["noise"].content.len(), 8 << 20, "after a kill at {moment}");
        daemon.stop();
    }
}

/// A killed daemon cannot end its containers. Their processes, found by the scene's folder, are
/// ended here by their ids so that the machine is left as it was.
fn end_processes_of(scene: &Scene) {
    use rustix::process::{Pid, Signal, kill_process};
    for (id, command) in crosskit_multiarch::processes_of(&scene.path("daemon")) {
        let id = Pid::from_raw(i32::try_from(id).expect("a process id")).expect("a process id");
        let _ = kill_process(id, Signal::KILL);
        eprintln!("ended {command}");
    }
}

#[test]
fn no_cache_builds_again() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let (context, out) = (context(&scene), scene.path("out"));
    let first = build(&daemon, &context, &out);
    let (second, _) = build_with(&daemon, &context, &out, &["--no-cache"]);
    assert_ne!(second.0, first.0);
    assert_ne!(second.1, first.1);
    assert_eq!(build(&daemon, &context, &out), second, "the newer results are offered from then on");

    let out2 = scene.path("out2");
    daemon.build(&context).opt("no-cache", "two").into(&out2).run().ok();
    let third = Tree::of_folder(&out2);
    assert_eq!(third.text("one"), second.0, "only the named stage is built again");
    assert_ne!(third.text("two"), second.1);
    daemon.stop();
}

#[test]
fn a_moved_base_tag_is_noticed() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let out = scene.path("out");
    let name = scene.registry.reference("moving:latest");
    let (bottom, top) = (
        "FROM BASE\nRUN echo VERSION > /version\n",
        "FROM NAME AS x\nFROM scratch\nCOPY --from=x /version /\n",
    );
    for version in ["1", "2"] {
        let below = scene.context("below", &[("Dockerfile", &bottom.replace("VERSION", version))]);
        daemon.build(&below).output(&format!("type=image,name={name},push=true")).run().ok();
        let above = scene.context("above", &[("Dockerfile", &top.replace("NAME", &name))]);
        daemon.build(&above).into(&out).run().ok();
        assert_eq!(Tree::of_folder(&out).text("version"), format!("{version}\n"));
    }
    daemon.stop();
}

#[test]
fn usage_is_listed_and_pruned_to_nothing() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let (context, out) = (context(&scene), scene.path("out"));
    build(&daemon, &context, &out);
    daemon.buildctl(&["du", "-v"]).ok().says("Total:").says("COPY a.txt").never_says("Total:\t\t0B");
    daemon
        .buildctl(&["du", "-v", "--filter", "type==regular"])
        .ok()
        .says("COPY a.txt")
        .never_says("local source");
    daemon.buildctl(&["prune"]).ok().says("Total:");
    daemon.buildctl(&["prune", "--all"]).ok();
    let left = daemon.buildctl(&["du", "-v"]).ok().stdout;
    assert!(!left.contains("COPY a.txt"), "{left}");
    build(&daemon, &context, &out);
    daemon.stop();
}

#[test]
fn one_step_wanted_by_two_builds_at_once_runs_once() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let dockerfile = "FROM BASE AS a\nRUN cat /proc/sys/kernel/random/uuid > /serial && sleep 2\nFROM scratch\nCOPY --from=a /serial /\n";
    let context = scene.context("shared", &[("Dockerfile", dockerfile)]);
    let outs = ["out1", "out2"].map(|name| scene.path(name));
    let running = outs.each_ref().map(|out| daemon.build(&context).into(out).start());
    for build in running {
        build.finish(std::time::Duration::from_secs(60)).ok();
    }
    let [first, second] = outs.map(|out| Tree::of_folder(&out).text("serial"));
    assert_eq!(first, second);
    daemon.stop();
}
