//! The image that buildx starts as its builder: built by ourselves from the Dockerfile at the root, run by Docker's engine.

use crosskit_multiarch::{Daemon, Engine, Images, Ran, Scene, Tree, workspace};
use std::path::{Path, PathBuf};
use std::process::Command;

const DAEMON: &str = "crosskit:daemon";
const ROOTLESS: &str = "crosskit:rootless";
const BINFMT: &str = "crosskit:binfmt";

const DOCKERFILE: &str =
    "FROM BASE\nARG TARGETARCH\nRUN echo made for $TARGETARCH > /made\nCMD [\"cat\", \"/made\"]\n";

/// Makes the image of a stage and brings it into the engine.
fn make_image(scene: &Scene, daemon: &Daemon, engine: &Engine, stage: &str, name: &str) {
    let archive = scene.path(&format!("{stage}.tar"));
    daemon
        .build(&workspace())
        .opt("target", stage)
        .opt("context:binaries", "local:binaries")
        .opt("context:emulators", "local:emulators")
        .opt("build-arg:BASE", &scene.registry.reference("appliance-base:1"))
        .argument(&format!("--local=binaries={}", binaries(scene).display()))
        .argument(&format!("--local=emulators={}", scene.parts.qemu().display()))
        .output(&format!("type=docker,name={name},compression=uncompressed,dest={}", archive.display()))
        .run()
        .ok();
    engine.docker(&["load", "--input", &text(&archive)]).ok();
}

/// The folder with the program under test, as small as it goes.
fn binaries(scene: &Scene) -> PathBuf {
    let folder = scene.path("binaries");
    let program = folder.join("crosskit");
    if !program.exists() {
        std::fs::create_dir_all(&folder).expect("make a folder");
        let mut strip = Command::new(scene.parts.on_machine("strip"));
        Ran::run(strip.arg("-o").arg(&program).arg(scene.programs.path("crosskit"))).ok();
    }
    folder
}

fn push_base(scene: &Scene, daemon: &Daemon) {
    let context = scene.context("appliance-base", &[("Dockerfile", "FROM scratch\nADD base.tar /\n")]);
    std::fs::copy(scene.parts.appliance_base(), context.join("base.tar")).expect("copy the root");
    let name = scene.registry.reference("appliance-base:1");
    daemon
        .build(&context)
        .output(&format!("type=image,name={name},push=true,compression=uncompressed"))
        .run()
        .ok();
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

#[test]
fn buildx_starts_it_and_builds_with_it() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let engine = Engine::start(&scene, Path::new(env!("CARGO_BIN_EXE_engine-runtime")));
    push_base(&scene, &daemon);
    make_image(&scene, &daemon, &engine, "daemon", DAEMON);

    // One call with a daemon of its own, which leaves nothing.
    let daemonless =
        ["run", "--rm", "--privileged", "--network=host", "--entrypoint=buildctl-daemonless.sh", DAEMON];
    engine
        .docker(&[&daemonless[..], &["debug", "workers"]].concat())
        .ok()
        .says("linux/amd64")
        .says("linux/arm64");
    engine.docker(&[&daemonless[..], &["debug", "nonsense"]].concat()).fails();
    engine
        .docker(&["run", "--rm", "--privileged", "--entrypoint=crosskit", DAEMON, "doctor"])
        .ok()
        .says("runtime");

    let config = scene.path("buildkitd.toml");
    std::fs::write(&config, "[worker.oci]\n  max-parallelism = 3\n").expect("write a config");
    let create = ["create", "--name=ours", "--use", "--bootstrap", "--driver=docker-container"];
    let image = format!("--driver-opt=image={DAEMON},network=host");
    let config = format!("--buildkitd-config={}", config.display());
    let flags = "--buildkitd-flags=--debug --allow-insecure-entitlement security.insecure";
    engine.buildx(&[&create[..], &[&image, &config, flags]].concat()).ok();
    engine
        .buildx(&["inspect", "ours"])
        .ok()
        .says("docker-container")
        .says("running")
        .says("v0.31.0")
        .says("linux/arm64")
        .says("dev.crosskit.worker.parallelism:                  3");

    let context = text(&scene.context("c", &[("Dockerfile", DOCKERFILE)]));
    let pushed = scene.registry.reference("made:1");
    let cache = format!("type=registry,ref={},mode=max", scene.registry.reference("cache:1"));
    let platforms = "--platform=linux/amd64,linux/arm64";
    engine
        .buildx(&["build", platforms, "--push", "-t", &pushed, "--cache-to", &cache, &context])
        .ok()
        .says("[linux/arm64 2/2] RUN echo made for arm64 > /made");
    let images = Images::Repository(&scene.registry, "made".to_owned());
    let index = scene.registry.manifest("made", "1").expect("it was pushed");
    let index = serde_json::from_slice(&index).expect("JSON");
    for platform in ["amd64", "arm64"] {
        let tree = images.tree(&images.json(Images::entry(&index, &format!("linux/{platform}"))));
        assert_eq!(tree.text("made"), format!("made for {platform}\n"));
    }
    engine.buildx(&["build", "--load", "-t", "loaded:1", &context]).ok();
    engine.docker(&["run", "--rm", "--network=none", "loaded:1"]).ok().says("made for amd64");

    let insecure = scene.context("insecure", &[("Dockerfile", "FROM BASE\nRUN --security=insecure true\n")]);
    engine.buildx(&["build", "--allow=security.insecure", &text(&insecure)]).ok();

    // The state is in a volume.
    let builder = "buildx_buildkit_ours0";
    engine.docker(&["restart", builder]).ok();
    let out = scene.path("out");
    let local = format!("--output=type=local,dest={}", out.display());
    engine.buildx(&["build", platforms, &local, &context]).ok().says("CACHED");
    assert_eq!(Tree::of_folder(&out).text("linux_arm64/made"), "made for arm64\n");

    // What the registry has of it is enough for a builder that knows nothing.
    engine.buildx(&["prune", "--all", "--force"]).ok();
    let from = format!("type=registry,ref={}", scene.registry.reference("cache:1"));
    engine.buildx(&["build", platforms, "--cache-from", &from, &context]).ok().says("CACHED");

    engine.buildx(&["rm", "ours"]).ok();
    assert_eq!(engine.docker(&["ps", "-aq"]).ok().stdout, "");
    assert_eq!(engine.docker(&["volume", "ls", "-q"]).ok().stdout, "");
    // Here, because making the root that both stand on takes most of the time.
    runs_for_an_ordinary_user(&scene, &daemon, &engine, &context);
    installs_emulators(&scene, &daemon, &engine);
    daemon.stop();
}

/// The same for an ordinary user, who has no rights in its container.
fn runs_for_an_ordinary_user(scene: &Scene, daemon: &Daemon, engine: &Engine, context: &str) {
    make_image(scene, daemon, engine, "rootless", ROOTLESS);
    const OPTIONS: [&str; 3] =
        ["--security-opt=seccomp=unconfined", "--security-opt=apparmor=unconfined", "--network=host"];
    const SHARED: &str = "--oci-worker-no-process-sandbox";
    let run = |more: &[&str], words: &[&str]| {
        let image = [ROOTLESS];
        engine.docker(&[&["run"], &OPTIONS[..], more, &image[..], words].concat())
    };
    run(&["--rm", "--entrypoint=id"], &[]).ok().says("uid=1000(user)");
    // Where parts of /proc are masked steps can have no process ids of their own, and that is said.
    run(&["--detach", "--name=masked"], &[]).ok();
    let build = format!(
        "mkdir /tmp/c; printf 'FROM {}\\nRUN true\\n' > /tmp/c/Dockerfile; \
         buildctl --wait build --frontend dockerfile.v0 --local context=/tmp/c --local dockerfile=/tmp/c",
        scene.base()
    );
    engine.docker(&["exec", "masked", "sh", "-c", &build]).fails().says(SHARED);
    engine.docker(&["rm", "--force", "--volumes", "masked"]).ok();
    let flags = format!("--env=BUILDKITD_FLAGS={SHARED}");
    run(&["--rm", "--entrypoint=buildctl-daemonless.sh", &flags], &["debug", "workers"])
        .ok()
        .says("linux/arm64");
    let kit = ["rootlesskit", "buildkitd", SHARED];
    run(&["--detach", "--name=kit", "--entrypoint=", "--volume=kit:/home/user/.local/share/buildkit"], &kit)
        .ok();
    engine.docker(&["exec", "kit", "buildctl", "--wait", "debug", "workers"]).ok().says("linux/arm64");
    engine.docker(&["rm", "--force", "--volumes", "kit"]).ok();
    engine.docker(&["volume", "rm", "kit"]).ok();

    let create = ["create", "--name=theirs", "--use", "--bootstrap", "--driver=docker-container"];
    let image = format!("--driver-opt=image={ROOTLESS},network=host");
    engine.buildx(&[&create[..], &[&image]].concat()).ok();
    let out = scene.path("theirs");
    let local = format!("--output=type=local,dest={}", out.display());
    engine.buildx(&["build", "--platform=linux/amd64,linux/arm64", &local, context]).ok();
    assert_eq!(Tree::of_folder(&out).text("linux_arm64/made"), "made for arm64\n");
    engine.buildx(&["rm", "theirs"]).ok();
}

/// The other image installs emulators and says what is there.
fn installs_emulators(scene: &Scene, daemon: &Daemon, engine: &Engine) {
    make_image(scene, daemon, engine, "binfmt", BINFMT);
    let run = |arguments: &[&str]| {
        engine.docker(&[&["run", "--rm", "--privileged", "--network=none", BINFMT], arguments].concat())
    };
    run(&["--version"]).ok().says("binfmt/").says("qemu/");
    let ran = run(&[]).ok();
    let listing: serde_json::Value = serde_json::from_str(&ran.stdout).expect("JSON");
    assert_eq!(listing["supported"][0], "linux/amd64");
    run(&["--status"]).ok().says("riscv64").says("loong64");
    run(&["--install=pdp11"]).fails().says("unsupported architecture: pdp11");
    // What runs already is left alone; nothing is installed here, for it would be the machine's.
    run(&["--verify=386"]).ok().says("verifying: 386 runs natively");
    // Without the rights it is said which are lacking.
    engine
        .docker(&["run", "--rm", "--network=none", BINFMT, "--install=arm64"])
        .fails()
        .says("cannot mount binfmt_misc")
        .says("--privileged");
    // It is small: the emulators, the program, and what that is linked to.
    let archive = scene.path("binfmt-files.tar");
    let container = engine.docker(&["create", BINFMT]).ok().stdout.trim().to_owned();
    engine.docker(&["export", "--output", &text(&archive), &container]).ok();
    let files = Ran::run(Command::new("tar").arg("--list").arg("--file").arg(&archive)).ok();
    let others = files.stdout.lines().filter(|path| path.starts_with("usr/bin/") && !path.contains("qemu-"));
    assert_eq!(others.collect::<Vec<_>>(), ["usr/bin/", "usr/bin/binfmt"]);
    engine.docker(&["rm", &container]).ok();
}
