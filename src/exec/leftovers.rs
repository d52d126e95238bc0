//! Containers of a daemon that is no more.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::{
    Result, cgroups,
    error::file_error,
    supervise::{kill_contained, read_pid},
};

/// How long killed processes may take to be gone.
const UNTIL_GONE: Duration = Duration::from_secs(2);
/// How often is looked whether they are.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Says that there is a container, to the daemon that comes after this one should it be killed: a file named like the
/// container, with its cgroup in it. Gone when dropped.
#[derive(Debug)]
pub(crate) struct Mark(PathBuf);

impl Mark {
    pub(crate) fn set(ledger: &Path, id: &str, cgroup: &str) -> Result<Self> {
        let path = ledger.join(id);
        fs::write(&path, cgroup).map_err(file_error("writing", &path))?;
        Ok(Self(path))
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Kills and removes what a daemon that used these folders before has left running. Nobody else may be using them.
pub(crate) fn sweep(run_root: &Path, containers: &Path, ledger: &Path) {
    let marks: Vec<_> = fs::read_dir(ledger).into_iter().flatten().flatten().collect();
    if !marks.is_empty() {
        end_runtimes(run_root);
    }
    for mark in marks {
        let id = mark.file_name().to_string_lossy().into_owned();
        tracing::info!(id, "removing a container that an earlier daemon has left");
        if let Some(pid) = read_pid(&containers.join(&id).join("pid")) {
            kill_contained(pid, None);
        }
        // Empty if the daemon was killed between making and filling the file: then there was no container yet.
        let cgroup = fs::read_to_string(mark.path()).unwrap_or_default();
        if !cgroup.is_empty() {
            end(&cgroup);
        }
        let _ = fs::remove_file(mark.path());
    }
    // What the runtimes know of containers, and what was made for them.
    let made = fs::read_dir(containers).into_iter().flatten().flatten();
    let known = fs::read_dir(run_root).into_iter().flatten().flatten().filter(|entry| {
        let name = entry.file_name();
        ["state-", "probe-"].iter().any(|kind| name.as_encoded_bytes().starts_with(kind.as_bytes()))
    });
    for entry in made.chain(known) {
        let _ = fs::remove_dir_all(entry.path());
    }
}

/// Kills what a killed daemon has left running, of which nothing else is known than its folder and its notes. What is to
/// be killed is known by names that only that daemon has given: process ids of long ago may be anybody's by now.
pub fn end_left(run_root: &Path, ledger: &Path) {
    let marks: Vec<_> = fs::read_dir(ledger).into_iter().flatten().flatten().collect();
    if !marks.is_empty() {
        end_runtimes(run_root);
    }
    for mark in marks {
        let cgroup = fs::read_to_string(mark.path()).unwrap_or_default();
        if !cgroup.is_empty() {
            end(&cgroup);
        }
        let _ = fs::remove_file(mark.path());
    }
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
                end_container_of(pid.as_raw_nonzero().get());
                found |= pidfd_send_signal(&process, Signal::KILL).is_ok();
            }
        }
        if !found || Instant::now() > deadline {
            break;
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Kills what a runtime has started, which nothing else may tell of where there are no cgroups. It is the parent of all that
/// has lost its own.
fn end_container_of(runtime: i32) {
    let deadline = Instant::now() + UNTIL_GONE;
    loop {
        let below = descendants(runtime);
        let killed = below.iter().filter(|pid| kill_child(**pid)).count();
        if killed == 0 || Instant::now() > deadline {
            break;
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// All processes that a process has started, and those that they have, as far as they have not ended.
fn descendants(process: i32) -> Vec<i32> {
    let mut all = vec![process];
    let mut at = 0;
    while let Some(parent) = all.get(at) {
        let children =
            fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
        all.extend(children.split_whitespace().filter_map(|pid| pid.parse::<i32>().ok()));
        at += 1;
    }
    all.split_off(1)
}

/// Kills a process that was just seen to be somebody's child. False if it has ended, or may not be killed.
fn kill_child(pid: i32) -> bool {
    let Some(process) = Pid::from_raw(pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()) else {
        return false;
    };
    let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let ended = state.rsplit_once(") ").is_none_or(|(_, fields)| fields.starts_with('Z'));
    !ended && pidfd_send_signal(&process, Signal::KILL).is_ok()
}

/// Whether a command line is that of a runtime that keeps its state in this folder: `crun --root FOLDER/state-crun …`.
fn is_runtime_of(command: &[u8], run_root: &Path) -> bool {
    let state = run_root.join("state-");
    let mut words = command.split(|byte| *byte == 0).skip(1);
    words.next() == Some(b"--root")
        && words.next().is_some_and(|folder| folder.starts_with(state.as_os_str().as_encoded_bytes()))
}

/// Kills what runs in a cgroup, and removes it.
fn end(cgroup: &str) {
    let whole = cgroup.strip_suffix("/step").unwrap_or(cgroup);
    let deadline = Instant::now() + UNTIL_GONE;
    loop {
        cgroups::processes(cgroup).iter().for_each(|pid| _ = kill_contained(*pid, None));
        // A process that is ending is not listed any more and keeps its cgroup for a moment.
        cgroups::remove(whole);
        if !cgroups::exists(whole) || Instant::now() > deadline {
            break;
        }
        std::thread::sleep(LOOK_EVERY);
    }
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
