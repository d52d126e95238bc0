//! The binfmt program, in a user namespace of its own: the machine's own entries stay as they are.

use crosskit_multiarch::{Ran, Scene};
use serde_json::Value;
use std::process::Command;

/// Runs a script where this process is root of a new user namespace with a binfmt_misc of its own.
fn apart(scene: &Scene, script: &str) -> Ran {
    let mut command = Command::new("unshare");
    command
        .args(["--user", "--map-root-user", "--mount", "sh", "-ec"])
        .arg(format!("mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc\n{script}"))
        .env(
            "PATH",
            format!(
                "{}:{}:/usr/sbin:/usr/bin:/sbin:/bin",
                scene.programs.folder().display(),
                scene.parts.qemu().display()
            ),
        );
    Ran::run(&mut command)
}

fn listing(ran: &Ran) -> Value {
    serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran}"))
}

fn names(list: &Value) -> Vec<&str> {
    list.as_array().expect("a list").iter().map(|name| name.as_str().expect("a name")).collect()
}

#[test]
fn it_lists_what_the_kernel_can_run() {
    let scene = Scene::set();
    let ran = apart(&scene, "binfmt").ok();
    let listing = listing(&ran);
    assert!(names(&listing["supported"]).contains(&"linux/amd64"), "{listing}");
    // As the original prints a list of nothing.
    assert_eq!(listing["emulators"], Value::Null, "{listing}");
}

#[test]
fn it_installs_proves_and_removes() {
    let scene = Scene::set();
    let foreign = scene.parts.busybox("arm64");
    let script =
        format!("binfmt --install arm64,riscv64 >/dev/null\n{} echo it-runs >&2\nbinfmt", foreign.display());
    let ran = apart(&scene, &script).ok().says("it-runs");
    let listing = listing(&ran);
    let supported = names(&listing["supported"]);
    assert!(supported.contains(&"linux/arm64") && supported.contains(&"linux/riscv64"), "{listing}");
    assert!(!supported.contains(&"linux/s390x"), "{listing}");
    assert_eq!(names(&listing["emulators"]).len(), 2, "{listing}");

    let script = "binfmt --install all >/dev/null\nbinfmt --uninstall qemu-s390x >/dev/null\nbinfmt";
    let ran = apart(&scene, script).ok();
    let listing = self::listing(&ran);
    let supported = names(&listing["supported"]);
    for platform in
        ["linux/arm64", "linux/riscv64", "linux/loong64", "linux/ppc64le", "linux/arm/v7", "linux/386"]
    {
        assert!(supported.contains(&platform), "{platform}: {listing}");
    }
    assert!(!supported.contains(&"linux/s390x"), "{listing}");
}

#[test]
fn an_unknown_architecture_is_named() {
    let scene = Scene::set();
    let ran = apart(&scene, "binfmt --install pdp11");
    assert!(ran.said().contains("pdp11"), "{ran}");
}
