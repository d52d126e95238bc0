//! What to do about what the kernel refuses: the ends of messages.

use std::io;

/// Where files are read and written.
pub(crate) fn on_file(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::ENOSPC | libc::EDQUOT) => "; make room on that disk, then say it again",
        Some(libc::EROFS) => "; that filesystem is read-only",
        Some(libc::EACCES | libc::EPERM) => "; run this as root",
        _ => "",
    }
}

/// Where binfmt_misc is to be mounted.
pub(crate) fn on_mount(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EACCES | libc::EPERM) => {
            "; CAP_SYS_ADMIN is needed: run this as root, its container with --privileged, or, from Linux 6.7 on, in a \
             user and mount namespace of its own (unshare -Urm)"
        }
        Some(libc::ENODEV) => {
            "; this kernel has no binfmt_misc: load its module on the machine itself (modprobe binfmt_misc), or start a \
             kernel that has it (CONFIG_BINFMT_MISC)"
        }
        Some(libc::ENOENT | libc::ENOTDIR) => {
            "; make that folder, or, where it is the usual one, load binfmt_misc first (modprobe binfmt_misc)"
        }
        _ => "",
    }
}

/// Where entries are to be other ones.
pub(crate) fn on_change(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EROFS) => {
            "; binfmt_misc is mounted read-only there: mount -o remount,rw it, or start this container with --privileged"
        }
        Some(libc::EACCES | libc::EPERM) => {
            "; only root changes the machine's entries: run this as root, its container with --privileged"
        }
        _ => "",
    }
}
