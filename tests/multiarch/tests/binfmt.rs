//! The binfmt program, in a user namespace of its own: the machine's own entries stay as they are.

use crosskit_multiarch::{Ran, Scene};
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Runs a script where this process is root of a new user namespace with a binfmt_misc of its own.
fn apart(scene: &Scene, script: &str) -> Ran {
    let mut command = Command::new("unshare");
    command
        .args(["--user", "--map-root-user", "--mount", "sh", "-ec"])
        .arg(format!("mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc\n{script}"))
        .env("XDG_RUNTIME_DIR", scene.folder())
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
    // What was there before is known to this namespace, and to no other that comes after it.
    let restored = apart(&scene, "binfmt --install arm64 >/dev/null; binfmt --restore").ok();
    assert_eq!(self::listing(&restored)["emulators"], Value::Null, "{restored}");
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
    for option in ["install", "verify", "repair"] {
        let ran = apart(&scene, &format!("binfmt --{option} pdp11")).fails();
        ran.says("unsupported architecture: pdp11; known are amd64, ");
    }
}

/// The program and two emulators where a user without rights finds them.
fn for_everybody(scene: &Scene) -> PathBuf {
    let folder = scene.path("everybodys");
    std::fs::create_dir_all(&folder).expect("create a folder");
    std::fs::set_permissions(scene.folder(), PermissionsExt::from_mode(0o755)).expect("open the scene");
    let program = scene.programs.path("crosskit").canonicalize().expect("the program");
    for (from, name) in [
        (program, "binfmt"),
        (scene.parts.qemu().join("qemu-aarch64"), "qemu-aarch64"),
        (scene.parts.qemu().join("qemu-s390x"), "qemu-s390x"),
        (scene.parts.busybox("arm64"), "busybox"),
    ] {
        std::fs::copy(&from, folder.join(name))
            .unwrap_or_else(|error| panic!("copy {}: {error}", from.display()));
    }
    folder
}

/// Runs a command as somebody who is not root, with these emulators only.
fn as_nobody(folder: &Path, command: &[&str]) -> Ran {
    let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", folder.display());
    let mut setpriv = Command::new("setpriv");
    setpriv.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).args(command);
    Ran::run(setpriv.env("PATH", path).env("QEMU_BINARY_PATH", folder).env_remove("XDG_RUNTIME_DIR"))
}

#[test]
fn a_user_namespace_gets_entries_of_its_own() {
    let scene = Scene::set();
    let folder = for_everybody(&scene);
    // The machine's are not to be changed by just anybody.
    let ran = as_nobody(&folder, &["binfmt", "--install=s390x"]);
    assert!(ran.status.success() || ran.said().contains("run this as root"), "{ran}");

    let script = "binfmt --install all >/dev/null\nbinfmt --uninstall s390x >/dev/null\n\
        busybox echo it-runs-here >&2\nbinfmt --verify arm64";
    let ran = as_nobody(&folder, &["unshare", "--user", "--map-root-user", "--mount", "sh", "-ec", script]);
    let ran = ran.ok().says("it-runs-here").says("verifying: arm64 OK").says("uninstalling: qemu-s390x OK");
    let listing = listing(&ran);
    let supported = names(&listing["supported"]);
    assert!(supported.contains(&"linux/arm64") && !supported.contains(&"linux/s390x"), "{listing}");

    // Without a mount namespace of its own there is nowhere to have them.
    let ran = as_nobody(&folder, &["unshare", "--user", "--map-root-user", "binfmt", "--install=arm64"]);
    assert!(ran.status.success() || ran.said().contains("(unshare -Urm)"), "{ran}");
}

/// As an engine's container does that nobody else has binfmt_misc mounted for.
#[test]
fn entries_that_go_with_the_container_are_no_success() {
    let scene = Scene::set();
    let folder = for_everybody(&scene);
    let contained = ["unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "--mount-proc"];
    let ran = as_nobody(&folder, &[&contained[..], &["binfmt", "--install=arm64"]].concat());
    ran.fails()
        .says("installing: arm64 OK")
        .says("error: binfmt_misc is mounted nowhere else")
        .says("mount -t binfmt_misc");
    // Where somebody else has, it is one.
    let inner = "mount -t proc proc /proc && mount -t binfmt_misc binfmt_misc /mnt && exec unshare --mount --pid --fork \
        --mount-proc binfmt --install=arm64";
    let outer = ["unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "sh", "-ec", inner];
    let ran = as_nobody(&folder, &outer).ok();
    assert!(!ran.said().contains("mounted nowhere else"), "{ran}");
}

#[test]
fn without_the_right_to_mount_it_is_said_which_is_lacking() {
    let scene = Scene::set();
    let folder = scene.path("nothing-mounted");
    std::fs::create_dir_all(&folder).expect("create a folder");
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set=-sys_admin", "--inh-caps=-sys_admin"]).arg(scene.programs.path("binfmt"));
    command.arg(format!("--mount={}", folder.display())).arg("--install=arm64");
    let ran = Ran::run(&mut command).fails();
    ran.says("cannot mount binfmt_misc filesystem at").says("CAP_SYS_ADMIN is needed").says("--privileged");
}
