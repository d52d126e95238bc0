//! Where steps' cgroups are, and what is left of them.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::LazyLock,
};

/// Where all systems mount them.
pub(crate) const MOUNT: &str = "/sys/fs/cgroup";

/// Whether this machine has only the unified hierarchy (version 2).
pub(crate) fn is_unified() -> bool {
    static UNIFIED: LazyLock<bool> =
        LazyLock::new(|| Path::new(MOUNT).join("cgroup.subtree_control").exists());
    *UNIFIED
}

/// Path of a step's cgroup: `/PARENT/buildkit/ID`; below a systemd slice (`NAME.slice:PREFIX:`) what systemd expects.
pub(crate) fn path(parent: &str, id: &str) -> String {
    if parent.contains(".slice") && parent.ends_with(':') {
        return format!("{parent}{id}");
    }
    let parent = parent.trim_matches('/');
    if parent.is_empty() { format!("/buildkit/{id}") } else { format!("/{parent}/buildkit/{id}") }
}

/// Folders of a cgroup in every hierarchy that has it.
fn folders(path: &str) -> Vec<PathBuf> {
    let relative = path.trim_start_matches('/');
    if is_unified() {
        return vec![Path::new(MOUNT).join(relative)];
    }
    let hierarchies = fs::read_dir(MOUNT).into_iter().flatten().flatten();
    hierarchies.map(|hierarchy| hierarchy.path().join(relative)).filter(|folder| folder.exists()).collect()
}

/// Whether a cgroup is there, in any hierarchy.
pub(crate) fn exists(path: &str) -> bool {
    folders(path).iter().any(|folder| folder.exists())
}

/// Removes an empty cgroup and those in it; what is in use stays.
pub(crate) fn remove(path: &str) {
    for folder in folders(path) {
        remove_folder(&folder);
    }
}

fn remove_folder(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_folder(&entry.path());
        }
    }
    let _ = fs::remove_dir(folder);
}

/// Processes that are in a cgroup now, in any hierarchy.
pub(crate) fn processes(path: &str) -> Vec<i32> {
    let mut all: Vec<i32> = folders(path)
        .iter()
        .flat_map(|folder| {
            let text = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
            text.lines().filter_map(|line| line.parse().ok()).collect::<Vec<_>>()
        })
        .collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// How often the kernel killed something in a cgroup, or below it, for want of memory. Only the unified hierarchy counts
/// what happened in cgroups that are gone.
pub(crate) fn memory_kills(path: &str) -> u64 {
    if !is_unified() {
        return 0;
    }
    let file = Path::new(MOUNT).join(path.trim_start_matches('/')).join("memory.events");
    memory_kills_in(&fs::read_to_string(file).unwrap_or_default())
}

fn memory_kills_in(events: &str) -> u64 {
    let line = events.lines().find_map(|line| line.strip_prefix("oom_kill "));
    line.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_buildkit() {
        assert_eq!(path("", "abc"), "/buildkit/abc");
        assert_eq!(path("my/parent", "abc"), "/my/parent/buildkit/abc");
        assert_eq!(path("/my", "abc"), "/my/buildkit/abc");
        assert_eq!(path("my.slice:buildkit:", "abc"), "my.slice:buildkit:abc");
    }

    #[test]
    fn memory_events_are_read() {
        assert_eq!(memory_kills_in("low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 0\n"), 2);
        assert_eq!(memory_kills_in(""), 0);
    }
}
