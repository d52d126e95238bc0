//! Machines whose cgroups are of version 1 with a version 2 hierarchy beside them ("hybrid").
//!
//! crun refuses them, although it works where it does not see the second hierarchy: in a mount namespace without it.

use std::{io, path::Path};

use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
};

const CGROUPS: &std::ffi::CStr = c"/sys/fs/cgroup";
/// Where systemd and its likes mount version 2 beside version 1.
const UNIFIED: &std::ffi::CStr = c"/sys/fs/cgroup/unified";

/// Whether this process sees such a machine.
pub fn is_hybrid() -> bool {
    /// `f_type` of a version 2 hierarchy (include/uapi/linux/magic.h).
    const CGROUP2_SUPER_MAGIC: u64 = 0x6367_7270;
    let unified = Path::new("/sys/fs/cgroup/unified");
    rustix::fs::statfs(unified).is_ok_and(|about| about.f_type as u64 == CGROUP2_SUPER_MAGIC)
}

/// Moves the calling thread and its future children into a mount namespace without the second hierarchy.
///
/// Async-signal-safe, so that a child can do it between fork and exec.
pub(crate) fn leave() -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    let none: Option<&std::ffi::CStr> = None;
    // Else the unmounting would spread to the machine.
    mount(none, CGROUPS, none, MsFlags::MS_PRIVATE, none)?;
    hide()
}

/// Takes the second hierarchy out of sight. In a user namespace the mounts that came with it cannot be taken down; but they
/// can be covered.
fn hide() -> io::Result<()> {
    let none: Option<&std::ffi::CStr> = None;
    match umount2(UNIFIED, MntFlags::MNT_DETACH) {
        Err(Errno::EINVAL) => {
            let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | MsFlags::MS_RDONLY;
            Ok(mount(Some(c"none"), UNIFIED, Some(c"tmpfs"), flags, none)?)
        }
        hidden => Ok(hidden?),
    }
}

/// Gives the whole process a mount namespace of its own without the second hierarchy, if the machine is hybrid; returns
/// whether it was. To be called first thing in `main`, while there is one thread: then no step has to do it by itself,
/// and all mounts that the daemon makes vanish with it, however it ends. Mounts made elsewhere on the machine still show.
pub fn isolate_process() -> io::Result<bool> {
    if !is_hybrid() {
        return Ok(false);
    }
    unshare(CloneFlags::CLONE_NEWNS)?;
    let none: Option<&std::ffi::CStr> = None;
    mount(none, c"/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none)?;
    hide()?;
    Ok(true)
}
