//! What the system says of itself.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// A file's text; empty where there is none.
pub(crate) fn text(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

pub(crate) fn kernel_release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Room on a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    /// The folder that there is, of the one asked for or above it.
    pub(crate) folder: PathBuf,
    /// Bytes that are free, and all of them.
    pub(crate) free: u64,
    pub(crate) all: u64,
    /// Files that can still be made, and all of them; zero where the filesystem does not count them.
    pub(crate) free_files: u64,
    pub(crate) all_files: u64,
    /// `f_type` of statfs.
    pub(crate) kind: u64,
    pub(crate) no_exec: bool,
}

pub(crate) fn room(root: &Path) -> Result<Room, String> {
    let folder = root.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/"));
    let failed = |error: rustix::io::Errno| format!("{}: {error}", folder.display());
    let about = rustix::fs::statvfs(folder).map_err(failed)?;
    let kind = rustix::fs::statfs(folder).map_err(failed)?.f_type as u64;
    Ok(Room {
        folder: folder.to_owned(),
        free: about.f_bavail * about.f_frsize,
        all: about.f_blocks * about.f_frsize,
        free_files: about.f_favail,
        all_files: about.f_files,
        kind,
        no_exec: about.f_flag.bits() & libc::ST_NOEXEC != 0,
    })
}

pub(crate) fn seconds_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map(|since| since.as_secs()).unwrap_or_default()
}

/// What the kernel's clock discipline says; none where it may not be asked.
pub(crate) fn clock_is_synchronized() -> Option<bool> {
    // SAFETY: all zeroes are a request that changes nothing.
    let mut about: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel fills a structure that is ours.
    let state = unsafe { libc::adjtimex(&mut about) };
    (state >= 0).then_some(state != libc::TIME_ERROR && about.status & libc::STA_UNSYNC == 0)
}

/// How many files a process here can have open.
pub(crate) fn most_descriptors() -> u64 {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum.unwrap_or(u64::MAX)
}

/// Which of these programs are not on PATH.
pub(crate) fn missing(programs: &[&'static str]) -> Vec<&'static str> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let there = |name: &&&str| !folders.iter().any(|folder| folder.join(name).is_file());
    programs.iter().filter(there).copied().collect()
}
