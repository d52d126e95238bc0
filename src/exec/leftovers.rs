//! Containers of a daemon that is no more.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::{
    cgroups,
    supervise::{kill_contained, read_pid},
};

/// How long killed processes may take to be gone.
const UNTIL_GONE: Duration = Duration::from_secs(2);
/// How often is looked whether they are.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Kills and removes what a daemon that used this folder before has left running. Nobody else may be using it.
pub(crate) fn sweep(run_root: &Path, containers: &Path, cgroup_parent: &str) {
    if is_used(run_root, containers) {
        end_runtimes(run_root);
    }
    for entry in fs::read_dir(containers).into_iter().flatten().flatten() {
        let id = entry.file_name().to_string_lossy().into_owned();
        tracing::info!(id, "removing a container that an earlier daemon has left");
        let cgroup = configured_cgroup(&entry.path()).unwrap_or_else(|| cgroups::path(cgroup_parent, &id));
        end(&entry.path(), &cgroup);
    }
    // Trial containers, and what the runtimes know of their containers.
    for entry in fs::read_dir(run_root).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some(id) = name.strip_prefix("probe-") {
            end(&entry.path(), &cgroups::path("", id));
        } else if name.starts_with("state-") {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Whether an earlier daemon had no time to tidy up.
fn is_used(run_root: &Path, containers: &Path) -> bool {
    let trials = fs::read_dir(run_root).into_iter().flatten().flatten();
    fs::read_dir(containers).into_iter().flatten().next().is_some()
        || trials.into_iter().any(|entry| entry.file_name().as_encoded_bytes().starts_with(b"probe-"))
}

/// Kills the runtimes that a killed daemon was waiting for: one that is about to make a container would make it after
/// we have looked, and one whose container ends would look for what is not there any more.
fn end_runtimes(run_root: &Path) {
    let deadline = Instant::now() + UNTIL_GONE;
    loop {
        let mut found = false;
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let Some(pid) = Pid::from_raw(pid) else { continue };
            // Opened before its command line is read: the number may be another's a moment later.
            let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else { continue };
            let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            if is_runtime_of(&command, run_root) {
                found |= pidfd_send_signal(&process, Signal::KILL).is_ok();
            }
        }
        if !found || Instant::now() > deadline {
            break;
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Whether a command line is that of a runtime that keeps its state in this folder: `crun --root FOLDER/state-crun …`.
fn is_runtime_of(command: &[u8], run_root: &Path) -> bool {
    let state = run_root.join("state-");
    let mut words = command.split(|byte| *byte == 0).skip(1);
    words.next() == Some(b"--root")
        && words.next().is_some_and(|folder| folder.starts_with(state.as_os_str().as_encoded_bytes()))
}

/// Kills what runs in a container, and removes its cgroup and its bundle.
fn end(bundle: &Path, cgroup: &str) {
    if let Some(pid) = read_pid(&bundle.join("pid")) {
        kill_contained(pid);
    }
    let whole = cgroup.strip_suffix("/step").unwrap_or(cgroup);
    let deadline = Instant::now() + UNTIL_GONE;
    loop {
        cgroups::processes(cgroup).iter().for_each(|pid| _ = kill_contained(*pid));
        // A process that is ending is not listed any more and keeps its cgroup for a moment.
        cgroups::remove(whole);
        if !cgroups::exists(whole) || Instant::now() > deadline {
            break;
        }
        std::thread::sleep(LOOK_EVERY);
    }
    let _ = fs::remove_dir_all(bundle);
}

fn configured_cgroup(bundle: &Path) -> Option<String> {
    let config: serde_json::Value =
        serde_json::from_slice(&fs::read(bundle.join("config.json")).ok()?).ok()?;
    config["linux"]["cgroupsPath"].as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runtimes_are_known_by_their_folder() {
        let ours = |command: &str| is_runtime_of(command.replace(' ', "\0").as_bytes(), Path::new("/run/a"));
        assert!(ours("/usr/bin/crun --root /run/a/state-crun --log /run/a/containers/x/log run x"));
        assert!(!ours("/usr/bin/crun --root /run/ab/state-crun run x"));
        assert!(!ours("/usr/bin/crun --root /run/crun list"));
        assert!(!ours("cat /run/a/state-crun/x/status"));
        assert!(!ours(""));
    }
}
