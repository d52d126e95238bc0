//! Finding out what runs, by running it.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd, BorrowedFd},
        unix::{
            ffi::OsStrExt,
            process::{CommandExt, ExitStatusExt},
        },
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicU64, Ordering},
};

use crosskit_platforms::Architecture;
use nix::sched::{CloneFlags, setns};

use crate::{EXIT_BASE, Error, PrivateBinfmt, Result, file_error, program};

/// Executes a tiny program of this architecture under the kernel's own binfmt_misc entries (or natively), inside a
/// folder that holds nothing else, so that an entry whose emulator would have to be in the container does not count.
/// Returns the level of the instruction set found: 1, or 2 for x86-64-v2.
///
/// Blocks for the time of one small process (1–10 ms).
pub fn run(architecture: &Architecture) -> Result<u8> {
    execute(architecture, None)
}

/// The same under a private binfmt_misc.
pub fn run_in(private: &PrivateBinfmt, architecture: &Architecture) -> Result<u8> {
    execute(architecture, Some(private.user_namespace()))
}

fn execute(architecture: &Architecture, user_namespace: Option<BorrowedFd<'_>>) -> Result<u8> {
    let broken = |reason: String| Error::DoesNotRun { architecture: architecture.name.clone(), reason };
    let image = program(architecture)
        .ok_or_else(|| Error::UnknownArchitecture { name: architecture.name.clone() })?;
    let folder = Folder::new()?;
    let file = folder.0.join("probe");
    let file = CString::new(file.as_os_str().as_bytes()).map_err(|nul| broken(nul.to_string()))?;
    let root = CString::new(folder.0.as_os_str().as_bytes()).map_err(|nul| broken(nul.to_string()))?;
    let namespace = user_namespace.map(|fd| fd.as_raw_fd());

    let mut command = Command::new("/probe");
    command.env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // SAFETY: between fork and exec the closure only makes system calls on values made before the fork; it neither
    // allocates nor takes a lock. The namespace's descriptor is borrowed for the whole function.
    unsafe {
        command.pre_exec(move || {
            // The child itself writes the file: a descriptor open for writing that a concurrent fork of this process
            // inherited would make the kernel refuse to execute it (ETXTBSY).
            write_program(&file, &image)?;
            if let Some(namespace) = namespace {
                setns(BorrowedFd::borrow_raw(namespace), CloneFlags::CLONE_NEWUSER)?;
            }
            nix::unistd::chroot(root.as_c_str())?;
            nix::unistd::chdir(c"/")?;
            // Not left to Command: its execvp would take a file that the kernel refuses for a shell script.
            let arguments = [c"/probe".as_ptr(), std::ptr::null()];
            let nothing = [std::ptr::null()];
            libc::execve(arguments[0], arguments.as_ptr(), nothing.as_ptr());
            Err(io::Error::last_os_error())
        });
    }
    let status = command.status().map_err(|error| broken(explained(&error)))?;
    match (status.code(), status.signal()) {
        (Some(code @ 65..=68), _) => Ok((code - EXIT_BASE) as u8),
        (_, Some(signal)) => Err(broken(format!("killed by signal {signal}"))),
        (code, _) => Err(broken(format!("exit code {} instead of {}", code.unwrap_or(-1), EXIT_BASE + 1))),
    }
}

/// What the kernel's refusal to execute means here.
fn explained(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::ENOEXEC) => "exec format error: no emulator is registered".to_owned(),
        Some(libc::ENOENT) => {
            "no such file or directory: the emulator is registered without flag F, or is not static"
                .to_owned()
        }
        _ => error.to_string(),
    }
}

/// Async-signal-safe: creates the file and writes all of it.
fn write_program(path: &CString, image: &[u8]) -> io::Result<()> {
    use rustix::fs::{Mode, OFlags, open};
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = open(path.as_c_str(), flags, Mode::from_raw_mode(0o700))?;
    let mut rest = image;
    while !rest.is_empty() {
        let written = rustix::io::write(&file, rest)?;
        rest = &rest[written..];
    }
    Ok(())
}

/// A folder of our own on a file system that programs may be executed from; removed when dropped.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// Makes one, in the folder for temporary files if that will do.
    pub fn new() -> Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let executable = |path: &Path| {
            let no_exec = rustix::fs::StatVfsMountFlags::from_bits_retain(libc::ST_NOEXEC);
            rustix::fs::statvfs(path).is_ok_and(|about| !about.f_flag.contains(no_exec))
        };
        let candidates = [std::env::temp_dir(), "/var/tmp".into(), "/run".into(), "/dev/shm".into()];
        let parent = candidates.iter().find(|path| executable(path)).unwrap_or(&candidates[0]);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = parent.join(format!(".crosskit-probe-{}-{number}", std::process::id()));
        // Whatever is there is left from an earlier process of the same id.
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir(&folder).map_err(file_error("making", &folder))?;
        Ok(Self(folder))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
