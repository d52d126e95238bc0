//! What a daemon left behind on the machine: mounts and processes.

use std::fs;
use std::path::{Path, PathBuf};

/// Mount points in this mount namespace at or below a folder, deepest first.
pub fn mounts_below(folder: &Path) -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").expect("read the mount table");
    let mut found: Vec<PathBuf> = table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|point| PathBuf::from(point.replace("\\040", " ")))
        .filter(|point| point.starts_with(folder))
        .collect();
    found.sort();
    found.reverse();
    found
}

/// Processes that have to do with a folder, this one and its threads aside: it is in their command
/// line, or they live in a mount namespace of their own in which something of it is mounted.
pub fn processes_of(folder: &Path) -> Vec<(u32, String)> {
    let needle = folder.as_os_str().as_encoded_bytes();
    let ours = fs::read_link("/proc/self/ns/mnt").ok();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").expect("list processes").flatten() {
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        if id == std::process::id() {
            continue;
        }
        let process = entry.path();
        let command = fs::read(process.join("cmdline")).unwrap_or_default();
        let elsewhere = fs::read_link(process.join("ns/mnt")).ok() != ours;
        let holds = || fs::read(process.join("mountinfo")).is_ok_and(|table| contains(&table, needle));
        // A zombie has no command line and no mounts any more: nothing of it is left but a number.
        if contains(&command, needle) || (elsewhere && holds()) {
            found.push((id, String::from_utf8_lossy(&command).replace('\0', " ")));
        }
    }
    found
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}
