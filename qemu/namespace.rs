//! A binfmt_misc of our own, in a user namespace that maps every id to itself.
//!
//! Since Linux 6.7 each user namespace may have its own instance of binfmt_misc: processes in it see that one's entries
//! instead of the machine's. As ids map to themselves, files keep their owners.

use std::{
    fs,
    io::{self, Read, Write},
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    path::PathBuf,
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::wait::waitpid,
    unistd::{ForkResult, fork},
};

use crate::{Error, Registration, Result};

/// A user namespace with these emulators registered. It and its entries live as long as this value, without a process.
#[derive(Debug)]
pub struct PrivateBinfmt {
    user: OwnedFd,
    users: Vec<IdRange>,
    groups: Vec<IdRange>,
    /// Holds the mount of binfmt_misc, and with it the entries.
    _mount: OwnedFd,
}

/// Ids that are mapped to themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdRange {
    /// The first.
    pub start: u32,
    /// How many.
    pub count: u32,
}

/// Where the new mount namespace mounts its instance: a folder that every system has and no emulator is in.
const MOUNT_AT: &std::ffi::CStr = c"/sys";
const REGISTER: &std::ffi::CStr = c"/sys/register";

/// What the child was at when it failed, sent with the error number over the pipe.
const STEPS: [&str; 4] = [
    "unsharing the user and mount namespaces",
    "making mounts private",
    "mounting binfmt_misc",
    "registering an emulator",
];

impl PrivateBinfmt {
    /// Makes one. Blocks for about a millisecond.
    pub fn new(emulators: &[Registration]) -> Result<Self> {
        let failed = |step| move |source| Error::Namespace { step, source };
        let lines: Vec<Vec<u8>> = emulators.iter().map(Registration::line).collect();
        let (users, groups) = (own_ids("uid_map")?, own_ids("gid_map")?);
        let (mut from_child, to_parent) = io::pipe().map_err(failed("making a pipe"))?;
        let (from_parent, mut to_child) = io::pipe().map_err(failed("making a pipe"))?;

        // SAFETY: the child only makes system calls on values made before the fork, allocates nothing, takes no lock
        // and ends by _exit.
        let child = match unsafe { fork() }.map_err(|errno| failed("forking")(errno.into()))? {
            ForkResult::Parent { child } => child,
            ForkResult::Child => {
                // The parent's ends must close with the parent, not with us.
                let ours = [from_child.as_raw_fd(), to_child.as_raw_fd()];
                for fd in ours {
                    // SAFETY: the child never uses these two again.
                    unsafe { libc::close(fd) };
                }
                child_main(&lines, to_parent.as_raw_fd(), from_parent.as_raw_fd())
            }
        };
        drop((to_parent, from_parent));
        let result = (|| {
            await_step(&mut from_child)?;
            if !rustix::process::geteuid().is_root() {
                // The price of an own group map for who is not root (user_namespaces(7)).
                fs::write(format!("/proc/{child}/setgroups"), "deny").map_err(failed("mapping ids"))?;
            }
            for (name, ids) in [("uid_map", &users), ("gid_map", &groups)] {
                let lines: String =
                    ids.iter().map(|ids| format!("{0} {0} {1}\n", ids.start, ids.count)).collect();
                fs::write(format!("/proc/{child}/{name}"), lines).map_err(failed("mapping ids"))?;
            }
            to_child.write_all(b"1").map_err(failed("waking the child"))?;
            await_step(&mut from_child)?;
            let open = |name: &str| {
                fs::File::open(format!("/proc/{child}/ns/{name}"))
                    .map(OwnedFd::from)
                    .map_err(failed("opening it"))
            };
            Ok(Self { user: open("user")?, users, groups, _mount: open("mnt")? })
        })();
        drop(to_child);
        while waitpid(child, None) == Err(nix::errno::Errno::EINTR) {}
        result
    }

    /// The user namespace, to be joined.
    pub fn user_namespace(&self) -> BorrowedFd<'_> {
        self.user.as_fd()
    }

    /// User ids that exist in it, each the same as outside.
    pub fn users(&self) -> &[IdRange] {
        &self.users
    }

    /// Group ids that exist in it, each the same as outside.
    pub fn groups(&self) -> &[IdRange] {
        &self.groups
    }

    /// A path by which other processes of this machine find the namespace as long as this value lives.
    pub fn user_namespace_path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.user.as_raw_fd()).into()
    }
}

/// Every id that this process's own namespace has, or that this process may map: who is not root has one.
fn own_ids(name: &'static str) -> Result<Vec<IdRange>> {
    if !rustix::process::geteuid().is_root() {
        let start = match name {
            "uid_map" => rustix::process::geteuid().as_raw(),
            _ => rustix::process::getegid().as_raw(),
        };
        return Ok(vec![IdRange { start, count: 1 }]);
    }
    let own = fs::read_to_string(format!("/proc/self/{name}"))
        .map_err(|source| Error::Namespace { step: "reading the own id map", source })?;
    let range = |line: &str| {
        let mut fields = line.split_ascii_whitespace();
        let (start, _outside, count) = (fields.next()?, fields.next()?, fields.next()?);
        Some(IdRange { start: start.parse().ok()?, count: count.parse().ok()? })
    };
    Ok(own.lines().filter_map(range).collect())
}

/// Reads one report of the child: step and error number, 0 for success.
fn await_step(from_child: &mut io::PipeReader) -> Result<()> {
    let mut report = [0; 5];
    from_child
        .read_exact(&mut report)
        .map_err(|source| Error::Namespace { step: "waiting for the child", source })?;
    let errno = i32::from_ne_bytes([report[1], report[2], report[3], report[4]]);
    if errno == 0 {
        return Ok(());
    }
    let step = STEPS.get(usize::from(report[0])).copied().unwrap_or("in the child");
    Err(Error::Namespace { step, source: io::Error::from_raw_os_error(errno) })
}

/// The forked child. Async-signal-safe throughout.
fn child_main(lines: &[Vec<u8>], report_to: i32, wait_on: i32) -> ! {
    // SAFETY: both descriptors are this child's own copies and used by nobody else in it.
    let (report_to, wait_on) = unsafe { (OwnedFd::from_raw_fd(report_to), OwnedFd::from_raw_fd(wait_on)) };
    let report = |step: u8, errno: i32| {
        let number = errno.to_ne_bytes();
        let _ = rustix::io::write(&report_to, &[step, number[0], number[1], number[2], number[3]]);
    };
    let outcome = (|| {
        unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS).map_err(|errno| (0, errno as i32))?;
        report(0, 0);
        let mut go = [0];
        let _ = rustix::io::read(&wait_on, &mut go);
        let nothing: Option<&std::ffi::CStr> = None;
        mount(nothing, c"/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing)
            .map_err(|e| (1, e as i32))?;
        let kind = Some(c"binfmt_misc");
        mount(kind, MOUNT_AT, kind, MsFlags::empty(), nothing).map_err(|errno| (2, errno as i32))?;
        for line in lines {
            register(line).map_err(|errno| (3, errno.raw_os_error()))?;
        }
        Ok(())
    })();
    match outcome {
        Ok(()) => {
            report(0, 0);
            // Until the parent holds the namespaces and closes its end.
            let _ = rustix::io::read(&wait_on, &mut [0]);
        }
        Err((step, errno)) => report(step, errno),
    }
    // SAFETY: ends the child at once, as is needed after fork in a process with threads.
    unsafe { libc::_exit(0) }
}

fn register(line: &[u8]) -> rustix::io::Result<()> {
    let flags = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::CLOEXEC;
    let file = rustix::fs::open(REGISTER, flags, rustix::fs::Mode::empty())?;
    rustix::io::write(&file, line).map(|_| ())
}
