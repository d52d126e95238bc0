//! Containers of a daemon that is no more.

use std::{fs, path::Path};

use crate::{
    cgroups,
    supervise::{kill_contained, read_pid},
};

/// Kills and removes what a daemon that used this folder before has left running. Nobody else may be using it.
pub(crate) fn sweep(run_root: &Path, containers: &Path, cgroup_parent: &str) {
    for entry in fs::read_dir(containers).into_iter().flatten().flatten() {
        let id = entry.file_name().to_string_lossy().into_owned();
        tracing::info!(id, "removing a container that an earlier daemon has left");
        let cgroup = configured_cgroup(&entry.path()).unwrap_or_else(|| cgroups::path(cgroup_parent, &id));
        let first = read_pid(&entry.path().join("pid"));
        for pid in first.into_iter().chain(cgroups::processes(&cgroup)) {
            kill_contained(pid);
        }
        cgroups::remove(cgroup.strip_suffix("/step").unwrap_or(&cgroup));
        let _ = fs::remove_dir_all(entry.path());
    }
    // What the runtimes know of their containers, and trial containers.
    for entry in fs::read_dir(run_root).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("state-") || name.starts_with("probe-") {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn configured_cgroup(bundle: &Path) -> Option<String> {
    let config: serde_json::Value =
        serde_json::from_slice(&fs::read(bundle.join("config.json")).ok()?).ok()?;
    config["linux"]["cgroupsPath"].as_str().map(str::to_owned)
}
