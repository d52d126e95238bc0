//! Entries that come back when the machine is started: a file of systemd's `binfmt.d` (binfmt.d(5)).

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::mounted::is_container;
use crate::{Binfmt, Error, Result, file_error, write_whole};

/// Below the root of the machine.
const FILE: &str = "etc/binfmt.d/crosskit.conf";

const HEAD: &str =
    "# Emulators of other processors, written by `binfmt --persist`; `binfmt --uninstall` takes lines out.\n";

/// Writes all entries down that name an emulator of QEMU and are in use. Gives the file, and how many they are.
///
/// # Errors
/// No such entry, or this is a container, whose emulators are not there when the machine starts.
pub(crate) fn persist(root: &Path, binfmt: &Binfmt) -> Result<(PathBuf, usize)> {
    let path = root.join(FILE);
    if is_container(root) {
        let reason = "this is a container: its emulators are not there when the machine starts; install emulators on \
                      the machine itself (Debian: qemu-user-static) and run this there";
        return Err(Error::Persist { path, reason: reason.to_owned() });
    }
    let kept: Vec<_> =
        binfmt.entries()?.into_iter().filter(|e| e.enabled && e.name.contains("qemu-")).collect();
    if kept.is_empty() {
        return Err(Error::Persist {
            path,
            reason: "no emulator is registered: --install comes first".to_owned(),
        });
    }
    for entry in &kept {
        if !entry.interpreter.exists() {
            let reason = format!("{} of {} is not there", entry.interpreter.display(), entry.name);
            return Err(Error::Persist { path, reason });
        }
    }
    let mut text = HEAD.as_bytes().to_vec();
    for entry in &kept {
        text.extend_from_slice(&entry.line());
        text.push(b'\n');
    }
    write_whole(&path, &text)?;
    Ok((path, kept.len()))
}

/// Takes entries out of the file; without any the file goes.
pub(crate) fn forget(root: &Path, names: &[String]) -> Result<()> {
    let path = root.join(FILE);
    let Ok(text) = fs::read_to_string(&path) else { return Ok(()) };
    let is_one_of = |line: &&str| {
        let separator = line.chars().next().unwrap_or(':');
        line.split(separator).nth(1).is_some_and(|name| names.iter().any(|gone| gone == name))
    };
    let entries = |text: &str| text.lines().filter(|line| !line.starts_with('#')).count();
    let kept: String = text.lines().filter(|line| !is_one_of(line)).map(|line| format!("{line}\n")).collect();
    if entries(&kept) == entries(&text) {
        return Ok(());
    }
    match entries(&kept) {
        0 => fs::remove_file(&path).map_err(file_error("removing", &path)),
        _ => write_whole(&path, kept.as_bytes()),
    }
}
