//! What is tried.

use crate::Finding;
use crosskit_qemu::detect::{Ways, detect};
use crosskit_qemu::probe::Folder;
use crosskit_qemu::{Emulators, Support};
use std::path::Path;
use std::process::Command;

/// A folder for trials, on the disk that the daemon's state is on.
pub(crate) fn trial(root: &Path) -> Result<Folder, String> {
    let parent = root.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/"));
    Folder::below(parent).map_err(|error| error.to_string())
}

/// Makes all namespaces of a step at once, by the program that is on every machine.
pub(crate) fn namespaces() -> Finding {
    let check = "namespaces";
    let unshare = |flags: &[&str]| {
        let output = Command::new("unshare").args(flags).arg("true").output();
        match output {
            Ok(output) if output.status.success() => Ok(()),
            Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
            Err(error) => Err(format!("unshare: {error}")),
        }
    };
    if let Err(why) = unshare(&["--mount", "--pid", "--fork", "--net", "--ipc", "--uts"]) {
        let advice =
            "allow namespaces: a container that builds needs --privileged, and its seccomp profile unshare";
        return Finding::fail(check, why, advice);
    }
    match unshare(&["--user"]) {
        Ok(()) => Finding::ok(check, "mount, pid, net, ipc, uts and user"),
        Err(why) => Finding::warn(
            check,
            format!("no user namespaces: {why}"),
            "raise user.max_user_namespaces (sysctl): emulators get entries of their own in one, and rootless daemons live in one",
        ),
    }
}

/// Runs a container.
pub(crate) fn runtime(root: &Path) -> Finding {
    let check = "runtime";
    let tried = trial(root)
        .and_then(|trial| crosskit_exec::try_runtime(None, trial.path()).map_err(|error| error.to_string()));
    match tried {
        Ok(chosen) => Finding::ok(check, format!("{} {}: {}", chosen.name, chosen.version, chosen.why)),
        Err(why) => Finding::fail(check, why, "install crun or runc"),
    }
}

/// Mounts an overlay.
pub(crate) fn snapshots(root: &Path) -> Finding {
    let check = "snapshots";
    let tried = trial(root)
        .and_then(|trial| crosskit_snapshots::try_overlay(trial.path()).map_err(|error| error.to_string()));
    match tried {
        Ok(()) => Finding::ok(check, "overlay"),
        Err(why) => Finding::warn(
            check,
            format!("no overlay: {why}"),
            "layers are copied whole, which is slow: put the state on ext4, xfs (ftype=1) or btrfs, and load the module overlay",
        ),
    }
}

/// Executes a program of each architecture.
pub(crate) fn platforms() -> Vec<Finding> {
    let check = "platforms";
    let found = detect(&Emulators::find(&[]), Ways::All);
    let by = |wanted: fn(&Support) -> bool| {
        let of: Vec<String> =
            found.platforms.iter().filter(|(_, how)| wanted(how)).map(|(p, _)| p.format()).collect();
        of.join(", ")
    };
    let mut all = vec![Finding::ok(check, format!("native: {}", by(|how| *how == Support::Native)))];
    let emulated = by(|how| *how != Support::Native);
    all.push(match emulated.is_empty() {
        false => Finding::ok("emulators", emulated),
        true => Finding::warn(
            "emulators",
            "none",
            "install static ones (Debian: qemu-user-static), or register some: binfmt --install all; or let a farm's workers do it",
        ),
    });
    all.extend(found.problems.iter().map(|(architecture, problem)| {
        Finding::warn("emulators", format!("{architecture}: {problem}"), "binfmt --status says more")
    }));
    all
}
