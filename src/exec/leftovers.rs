//! Containers of a daemon that is no more.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

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

/// Kills what runs in a container, and removes its cgroup and its bundle.
fn end(bundle: &Path, cgroup: &str) {
    if let Some(pid) = read_pid(&bundle.join("pid")) {
        kill_contained(pid);
    }
    let deadline = Instant::now() + UNTIL_GONE;
    loop {
        let left = cgroups::processes(cgroup);
        left.iter().for_each(|pid| _ = kill_contained(*pid));
        if left.is_empty() || Instant::now() > deadline {
            break;
        }
        std::thread::sleep(LOOK_EVERY);
    }
    cgroups::remove(cgroup.strip_suffix("/step").unwrap_or(cgroup));
    let _ = fs::remove_dir_all(bundle);
}

fn configured_cgroup(bundle: &Path) -> Option<String> {
    let config: serde_json::Value =
        serde_json::from_slice(&fs::read(bundle.join("config.json")).ok()?).ok()?;
    config["linux"]["cgroupsPath"].as_str().map(str::to_owned)
}
