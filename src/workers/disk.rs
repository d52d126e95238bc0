//! The disk that state is kept on, when there is no room on it.

use crosskit_snapshots::Snapshots;
use std::path::Path;

/// With less than this free, a step that failed has probably failed for want of room.
const NEXT_TO_NOTHING: u64 = 1 << 20;

/// Where the disk of the state is full, a sentence that says so and what to do.
pub fn full(snapshots: &Snapshots) -> Option<String> {
    let (free, all) = room(snapshots)?;
    (free < NEXT_TO_NOTHING).then(|| sentence(snapshots, free, all))
}

/// The same after the system has said that there is no room: what was half written is gone already. Nothing where the
/// message does not speak of that.
pub fn explained(snapshots: &Snapshots, message: &str) -> Option<String> {
    /// ENOSPC as Rust, C and Go have it.
    const SAID: &str = "no space left on device";
    /// What [`sentence`] begins with.
    const EXPLAINED: &str = "the daemon's state is at ";
    if !message.to_lowercase().contains(SAID) || message.contains(EXPLAINED) {
        return None;
    }
    let (free, all) = room(snapshots)?;
    Some(sentence(snapshots, free, all))
}

fn folder(snapshots: &Snapshots) -> &Path {
    // `ROOT/snapshots/empty`.
    let inside = snapshots.empty_dir();
    inside.ancestors().nth(2).unwrap_or(inside)
}

fn room(snapshots: &Snapshots) -> Option<(u64, u64)> {
    let about = rustix::fs::statvfs(folder(snapshots)).ok()?;
    Some((about.f_bavail * about.f_frsize, about.f_blocks * about.f_frsize))
}

fn sentence(snapshots: &Snapshots, free: u64, all: u64) -> String {
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    format!(
        "the daemon's state is at {}, on a disk with {:.1} of {:.1} MB free: make room (buildctl prune), or give it a \
         larger disk",
        folder(snapshots).display(),
        megabytes(free),
        megabytes(all)
    )
}
