//! What the system says of itself.

use crate::rootless::Group;
use crosskit_rootless::Folders;
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
    programs.iter().filter(|name| on_path(name).is_none()).copied().collect()
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// Name and number of this process's user.
pub(crate) fn user() -> (String, u32) {
    let number = rustix::process::geteuid().as_raw();
    // `NAME:PASSWORD:UID:…` (passwd(5)).
    let named = |line: &str| line.split(':').nth(2) == Some(&number.to_string());
    let known = text("/etc/passwd");
    let name = known.lines().find(|line| named(line)).and_then(|line| line.split(':').next());
    (name.map_or_else(|| number.to_string(), str::to_owned), number)
}

/// Where a daemon of this user keeps its state unless told otherwise.
pub(crate) fn usual_root() -> PathBuf {
    let own = if is_root() { None } else { Folders::of_user().state };
    own.unwrap_or_else(|| "/var/lib/buildkit".into())
}

/// Whether a program is on PATH, and has root's rights whoever starts it.
pub(crate) fn mapper(name: &str) -> Option<bool> {
    use std::os::unix::fs::MetadataExt;
    let found = on_path(name)?;
    let about = found.metadata().ok()?;
    let set_user = about.mode() & libc::S_ISUID != 0 && about.uid() == 0;
    let capable = || rustix::fs::getxattr(&found, "security.capability", &mut [0_u8; 64][..]).is_ok();
    let no_set_user = rustix::fs::StatVfsMountFlags::from_bits_retain(libc::ST_NOSUID);
    let honoured = rustix::fs::statvfs(&found).is_ok_and(|about| !about.f_flag.contains(no_set_user));
    Some(honoured && (set_user || capable()))
}

/// Whether programs that this process starts get no rights by whose they are.
pub(crate) fn gains_no_rights() -> bool {
    let status = text("/proc/self/status");
    status.lines().any(|line| line.strip_prefix("NoNewPrivs:").is_some_and(|value| value.trim() == "1"))
}

/// Whether a file can be read and written.
pub(crate) fn opens(path: &str) -> Result<(), String> {
    let opened = std::fs::OpenOptions::new().read(true).write(true).open(path);
    opened.map(drop).map_err(|error| error.to_string())
}

pub(crate) fn is_writable(path: &Path) -> bool {
    use rustix::fs::{Access, AtFlags, CWD, accessat};
    accessat(CWD, path, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS).is_ok()
}

/// This process's group in the second version's tree.
pub(crate) fn own_cgroup() -> Group {
    let own = text("/proc/self/cgroup");
    own.lines().find_map(|line| line.strip_prefix("0::")).map(cgroup).unwrap_or_default()
}

/// A group by its path in that tree.
pub(crate) fn cgroup(path: &str) -> Group {
    let folder = Path::new("/sys/fs/cgroup").join(path.trim_start_matches('/'));
    let controllers = std::fs::read_to_string(folder.join("cgroup.controllers")).unwrap_or_default();
    Group {
        path: path.to_owned(),
        writable: folder.join("cgroup.procs").exists() && is_writable(&folder),
        controllers: controllers.split_whitespace().map(str::to_owned).collect(),
    }
}
