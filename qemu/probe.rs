//! Finding out what runs, by running it.

use std::{
    ffi::{CStr, CString},
    io,
    os::{
        fd::{AsRawFd, BorrowedFd},
        unix::{
            ffi::OsStrExt,
            process::{CommandExt, ExitStatusExt},
        },
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use crosskit_platforms::Architecture;
use nix::sched::{CloneFlags, setns};

use crate::{EXIT_BASE, Error, PrivateBinfmt, Result, file_error, program, program_of_argv0};

/// Executes a tiny program of this architecture under the kernel's own binfmt_misc entries (or natively), inside a
/// folder that holds nothing else, so that an entry whose emulator would have to be in the container does not count.
/// Returns the level of the instruction set found: 1, or 2 for x86-64-v2.
///
/// Blocks for the time of one small process (1–10 ms).
pub fn run(architecture: &Architecture) -> Result<u8> {
    level(architecture, execute(architecture, Trial::default(), None)?)
}

/// The same under a private binfmt_misc.
pub fn run_in(private: &PrivateBinfmt, architecture: &Architecture) -> Result<u8> {
    level(architecture, execute(architecture, Trial::default(), Some(private.user_namespace()))?)
}

/// As [`run`]; and whether a program sees the name that it was called by, which shells and busybox need that execute
/// themselves under another one.
pub(crate) fn run_named(architecture: &Architecture) -> Result<(u8, bool)> {
    let trial = Trial { of_argv0: true, ..Trial::default() };
    let code = execute(architecture, trial, None)?;
    let kept = is_name(code);
    // Else it sees its path; whatever else this may be is told better. Only amd64 has levels to be found out.
    let ran = kept || code == i32::from(b'/');
    let level = if ran && architecture.name != "amd64" { 1 } else { run(architecture)? };
    Ok((level, kept))
}

/// What programs of an architecture were seen to do.
#[derive(Debug)]
pub struct Proof {
    /// In a folder that holds nothing else, as in a container.
    pub alone: Result<u8>,
    /// Among all files of this machine.
    pub host: Result<u8>,
    /// Whether a program sees the name that it was called by.
    pub argv0: bool,
    /// As the interpreter of a `#!` script, in a folder that holds nothing else.
    pub script: Result<u8>,
}

impl Proof {
    /// Whether everything works that containers need.
    pub fn holds(&self) -> bool {
        self.alone.is_ok() && self.script.is_ok()
    }
}

/// Tries all of it. Blocks for the time of four small processes.
pub fn prove(architecture: &Architecture) -> Proof {
    let trial = |trial| level(architecture, execute(architecture, trial, None)?);
    let argv0 = Trial { of_argv0: true, ..Trial::default() };
    Proof {
        alone: trial(Trial::default()),
        host: trial(Trial { among_others: true, ..Trial::default() }),
        argv0: execute(architecture, argv0, None).is_ok_and(is_name),
        script: trial(Trial { script: true, ..Trial::default() }),
    }
}

/// What a program is called by: no path begins with its first character.
const NAME: &CStr = c"named";

/// Whether an exit code says that a program was called by it.
fn is_name(code: i32) -> bool {
    NAME.to_bytes().first().is_some_and(|first| code == i32::from(*first))
}

/// How a program is executed.
#[derive(Clone, Copy, Debug, Default)]
struct Trial {
    /// In the machine's own root rather than in an empty one.
    among_others: bool,
    /// As the interpreter of a script.
    script: bool,
    /// The program that tells by what name it was called.
    of_argv0: bool,
}

fn level(architecture: &Architecture, code: i32) -> Result<u8> {
    match code {
        65..=68 => Ok((code - EXIT_BASE) as u8),
        code => Err(Error::DoesNotRun {
            architecture: architecture.name.clone(),
            reason: format!("exit code {code} instead of {}", EXIT_BASE + 1),
        }),
    }
}

/// The exit code of a trial.
fn execute(architecture: &Architecture, trial: Trial, user_namespace: Option<BorrowedFd<'_>>) -> Result<i32> {
    let broken = |reason: String| Error::DoesNotRun { architecture: architecture.name.clone(), reason };
    let image = if trial.of_argv0 { program_of_argv0(architecture) } else { program(architecture) };
    let image = image.ok_or_else(|| Error::UnknownArchitecture { name: architecture.name.clone() })?;
    let folder = Folder::new()?;
    let text = |path: &Path| CString::new(path.as_os_str().as_bytes()).map_err(|nul| broken(nul.to_string()));
    let (file, script) = (text(&folder.0.join("probe"))?, text(&folder.0.join("script"))?);
    let root = text(&folder.0)?;
    let started = match (trial.script, trial.among_others) {
        (true, _) => c"/script".to_owned(),
        (false, false) => c"/probe".to_owned(),
        (false, true) => file.clone(),
    };
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
            if trial.script {
                write_program(&script, b"#!/probe\n")?;
            }
            if let Some(namespace) = namespace {
                setns(BorrowedFd::borrow_raw(namespace), CloneFlags::CLONE_NEWUSER)?;
            }
            if !trial.among_others {
                match nix::unistd::chroot(root.as_c_str()) {
                    // Who is not root may do it in a user namespace, which has the entries of the one around it.
                    Err(nix::errno::Errno::EPERM) if namespace.is_none() => {
                        nix::sched::unshare(CloneFlags::CLONE_NEWUSER)?;
                        nix::unistd::chroot(root.as_c_str())?;
                    }
                    done => done?,
                }
            }
            nix::unistd::chdir(c"/")?;
            // Not left to Command: its execvp would take a file that the kernel refuses for a shell script.
            let arguments = [NAME.as_ptr(), std::ptr::null()];
            let nothing = [std::ptr::null()];
            libc::execve(started.as_ptr(), arguments.as_ptr(), nothing.as_ptr());
            Err(io::Error::last_os_error())
        });
    }
    let child = command.spawn().map_err(|error| broken(explained(&error)))?;
    let status = end_of(child).map_err(|error| broken(error.to_string()))?;
    status.code().ok_or_else(|| broken(killed(status)))
}

/// How long a program that does nothing may take, on however busy a machine.
const LIMIT: Duration = Duration::from_secs(30);

/// Waits for the end of a program, and ends it if that takes too long.
pub(crate) fn end_of(mut child: Child) -> io::Result<ExitStatus> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::process::{Pid, PidfdFlags, pidfd_open};
    let ended = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).and_then(|process| {
        let limit = Timespec { tv_sec: LIMIT.as_secs() as i64, tv_nsec: 0 };
        poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&limit))
    });
    // Where it cannot be watched, it is waited for.
    if ended == Ok(0) {
        child.kill()?;
        child.wait()?;
        return Err(io::Error::other(format!("it did not end within {} s", LIMIT.as_secs())));
    }
    child.wait()
}

/// What ended a program that has no exit code.
pub(crate) fn killed(status: ExitStatus) -> String {
    let signal = status.signal().unwrap_or_default();
    match nix::sys::signal::Signal::try_from(signal) {
        Ok(name) => format!("killed by signal {signal} ({name})"),
        Err(_) => format!("killed by signal {signal}"),
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
        let executable = |path: &Path| {
            let no_exec = rustix::fs::StatVfsMountFlags::from_bits_retain(libc::ST_NOEXEC);
            rustix::fs::statvfs(path).is_ok_and(|about| !about.f_flag.contains(no_exec))
        };
        let candidates = [std::env::temp_dir(), "/var/tmp".into(), "/run".into(), "/dev/shm".into()];
        Self::below(candidates.iter().find(|path| executable(path)).unwrap_or(&candidates[0]))
    }

    /// Makes one in this folder.
    pub fn below(parent: &Path) -> Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
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
