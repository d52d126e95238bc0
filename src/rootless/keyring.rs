//! The keys that processes share.

use std::io;

/// `KEYCTL_JOIN_SESSION_KEYRING` (include/uapi/linux/keyctl.h).
const JOIN_SESSION_KEYRING: libc::c_long = 1;

/// Gives this thread, and all threads and processes that it starts, a new session keyring with nothing in it: what is in the
/// one that the user has signed in with is not for the steps of builds.
///
/// # Errors
/// The user has as many keys as the kernel allows.
pub fn new_keyring() -> io::Result<()> {
    // SAFETY: without a name the call takes no pointer that is followed.
    match unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, std::ptr::null::<libc::c_char>()) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
