//! Network namespaces that live as long as a file, and what is asked of the kernel about interfaces.

use std::{
    ffi::CString,
    fs, io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    path::Path,
    sync::Arc,
};

use nix::sched::{CloneFlags, setns, unshare};
use rustix::mount::{UnmountFlags, mount_bind, unmount};

/// Makes a namespace in which nothing but the loopback interface is up, and lets a new file stand for it. Returns its
/// `/proc/net/dev`: a file that tells of the namespace in which it was opened, whoever reads it. Blocks.
pub(crate) fn make(path: &Path) -> io::Result<fs::File> {
    use std::os::unix::fs::DirBuilderExt;
    if let Some(folder) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    fs::File::create_new(path)?;
    let file = path.to_owned();
    // In a thread that ends with it: a thread that has changed its namespace is of no use for anything else.
    let made = std::thread::Builder::new().name("network".to_owned()).spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET)?;
        set_up("lo", true)?;
        mount_bind("/proc/thread-self/ns/net", &file)?;
        fs::File::open("/proc/thread-self/net/dev")
    });
    let made = made.and_then(|thread| {
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread that made it panicked")))
    });
    made.inspect_err(|_| _ = fs::remove_file(path))
}

/// Does something in a namespace that a file stands for, such as making a socket, which belongs there then. Blocks.
pub(crate) fn within<T: Send + 'static>(
    namespace: Arc<fs::File>,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let inside = move || {
        setns(&*namespace, CloneFlags::CLONE_NEWNET)?;
        work()
    };
    let thread = std::thread::Builder::new().name("network".to_owned()).spawn(inside)?;
    thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread in it panicked")))
}

/// Lets a program start in a namespace that a file stands for.
pub(crate) fn enter(command: &mut std::process::Command, namespace: Arc<fs::File>) {
    use std::os::unix::process::CommandExt;
    let join = move || Ok(setns(&*namespace, CloneFlags::CLONE_NEWNET)?);
    // SAFETY: one system call without allocation between fork and exec.
    unsafe {
        command.pre_exec(join);
    }
}

/// Takes the file away, and with it the namespace once nobody is in it. What is gone already is no error.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    use rustix::io::Errno;
    match unmount(path, UnmountFlags::DETACH) {
        // No mount, or no file.
        Ok(()) | Err(Errno::INVAL | Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Takes the namespaces in a folder away that are not among the known.
pub(crate) fn remove_unknown(folder: &Path, known: &[String]) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if known.iter().all(|known| *known.as_str() != *name)
            && let Err(error) = remove(&entry.path())
        {
            tracing::warn!(path = %entry.path().display(), %error, "a network namespace could not be removed");
        }
    }
}

/// Whether a file stands for a namespace still: mounts of a daemon end with its mount namespace.
pub(crate) fn is_alive(path: &Path) -> bool {
    /// `f_type` of namespaces' files (include/uapi/linux/magic.h).
    const NSFS_MAGIC: u64 = 0x6e73_6673;
    rustix::fs::statfs(path).is_ok_and(|about| about.f_type as u64 == NSFS_MAGIC)
}

/// Whether there is an interface of this name.
pub(crate) fn has_interface(name: &str) -> bool {
    let Ok(name) = CString::new(name) else { return false };
    // SAFETY: the name ends with a zero byte.
    unsafe { libc::if_nametoindex(name.as_ptr()) != 0 }
}

/// Whether anything is on a bridge.
pub(crate) fn has_ports(bridge: &str) -> bool {
    let ports = Path::new("/sys/class/net").join(bridge).join("brif");
    fs::read_dir(ports).is_ok_and(|mut ports| ports.next().is_some())
}

/// Removes a bridge.
pub(crate) fn remove_bridge(name: &str) -> io::Result<()> {
    /// `SIOCBRDELBR` (include/uapi/linux/sockios.h).
    const DELETE_BRIDGE: libc::c_ulong = 0x89a1;
    // One that is up is not removed.
    set_up(name, false)?;
    let (socket, text) = (socket()?, CString::new(name)?);
    // SAFETY: the descriptor is open, and the argument of this request is a name that ends with a zero byte.
    match unsafe { libc::ioctl(socket.as_raw_fd(), DELETE_BRIDGE as _, text.as_ptr()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Switches an interface on or off.
fn set_up(name: &str, up: bool) -> io::Result<()> {
    let socket = socket()?;
    // SAFETY: all zero is a valid request.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    let ask = |number, request: &mut libc::ifreq| {
        // SAFETY: the descriptor is open, and both requests read and write one `ifreq`.
        match unsafe { libc::ioctl(socket.as_raw_fd(), number, request) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    ask(libc::SIOCGIFFLAGS as _, &mut request)?;
    let flag = libc::IFF_UP as libc::c_short;
    // SAFETY: the kernel has just filled in the flags.
    unsafe {
        match up {
            true => request.ifr_ifru.ifru_flags |= flag,
            false => request.ifr_ifru.ifru_flags &= !flag,
        }
    }
    ask(libc::SIOCSIFFLAGS as _, &mut request)
}

/// A socket to ask the kernel about interfaces with.
fn socket() -> io::Result<OwnedFd> {
    // SAFETY: takes no pointers.
    let number = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if number < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it was just opened and belongs to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}
