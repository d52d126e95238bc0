//! Processes of a container that has no process ids of its own, told from all others by the namespace of System V IPC that
//! they are in: one that was made for them, that a sandboxed step cannot leave, and that nothing else is in.

use std::{
    fs, io,
    os::{
        fd::OwnedFd,
        unix::{fs::MetadataExt, process::CommandExt},
    },
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use nix::sched::{CloneFlags, setns, unshare};
use tokio::io::{Interest, unix::AsyncFd};

use crate::supervise::read_pid;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// How long killed processes may take to be gone.
const UNTIL_GONE: Duration = Duration::from_secs(2);
/// How often is looked whether they are.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// A namespace that marks a container's processes. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct IpcMark {
    namespace: Arc<OwnedFd>,
    inode: u64,
}

impl IpcMark {
    /// Makes one. Blocks.
    pub(crate) fn new() -> io::Result<Self> {
        // In a thread that ends with it: a thread that has changed its namespace is of no use for anything else.
        let make = || -> io::Result<fs::File> {
            unshare(CloneFlags::CLONE_NEWIPC)?;
            fs::File::open("/proc/thread-self/ns/ipc")
        };
        let made = std::thread::Builder::new().name("mark".to_owned()).spawn(make)?;
        let file =
            made.join().unwrap_or_else(|_| Err(io::Error::other("the thread that made it panicked")))?;
        let inode = file.metadata()?.ino();
        Ok(Self { namespace: Arc::new(file.into()), inode })
    }

    /// Lets a program, and all that it starts, have the mark.
    pub(crate) fn put_on(&self, command: &mut std::process::Command) {
        let namespace = self.namespace.clone();
        let join = move || Ok(setns(&*namespace, CloneFlags::CLONE_NEWIPC)?);
        // SAFETY: one system call without allocation between fork and exec.
        unsafe {
            command.pre_exec(join);
        }
    }

    /// Whether a process has it.
    pub(crate) fn is_on(&self, pid: i32) -> bool {
        fs::metadata(format!("/proc/{pid}/ns/ipc")).is_ok_and(|about| about.ino() == self.inode)
    }

    /// Waits until the process has ended whose number a runtime writes to a file.
    pub(crate) async fn first_ended(&self, pid_file: PathBuf) {
        let pid = loop {
            match read_pid(&pid_file) {
                Some(pid) => break pid,
                None => tokio::time::sleep(LOOK_EVERY).await,
            }
        };
        let opened = Pid::from_raw(pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        // Otherwise it has ended already, and the number may be another's.
        let Some(process) = opened.filter(|_| self.is_on(pid)) else { return };
        // Readable once it has ended, reaped or not.
        // SAFETY: an owned descriptor, which stays the same and open as long as it is registered.
        let registered = unsafe { AsyncFd::register_with_interest(process, Interest::READABLE) };
        if let Ok(process) = registered {
            let _ = process.readable().await;
        }
    }

    /// Kills all that have it but for one, and waits until they are gone. Blocks.
    pub(crate) fn kill_all_but(&self, spared: Option<i32>) {
        let deadline = Instant::now() + UNTIL_GONE;
        loop {
            let mut found = false;
            for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
                let Some(number) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                    continue;
                };
                let Some(pid) = Pid::from_raw(number).filter(|_| Some(number) != spared) else { continue };
                // Opened before it is looked at: the number may be another's a moment later.
                let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else { continue };
                found |= self.is_on(number) && pidfd_send_signal(&process, Signal::KILL).is_ok();
            }
            if !found || Instant::now() > deadline {
                break;
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }
}
