//! What systemd is told of a service of `Type=notify` (sd_notify(3)): that the daemon takes connections, and that it stops.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// It takes connections.
pub const READY: &str = "READY=1";

/// It has been told to stop.
pub const STOPPING: &str = "STOPPING=1";

/// Tells the service manager that has started this process, if there is one that wants to hear.
pub fn tell(state: &str) {
    if let Some(socket) = std::env::var_os("NOTIFY_SOCKET").filter(|socket| !socket.is_empty())
        && let Err(e) = tell_at(&socket, state)
    {
        tracing::warn!("telling the service manager at {}: {e}", socket.display());
    }
}

fn tell_at(socket: &OsStr, state: &str) -> io::Result<()> {
    let address = match socket.as_bytes().split_first() {
        Some((b'@', name)) => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(socket)?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_in_folders_and_abstract_ones_hear_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let listener = UnixDatagram::bind(&path).unwrap();
        tell_at(path.as_os_str(), READY).unwrap();
        let name = format!("crosskit-test-{}", std::process::id());
        let hidden = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        tell_at(OsStr::new(&format!("@{name}")), STOPPING).unwrap();
        let mut heard = [0; 32];
        let length = listener.recv(&mut heard).unwrap();
        assert_eq!(&heard[..length], READY.as_bytes());
        let length = hidden.recv(&mut heard).unwrap();
        assert_eq!(&heard[..length], STOPPING.as_bytes());
    }
}
