//! A way to a registry that breaks in the middle of an answer.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// How many bytes of answers come through before the line is cut, for good.
#[derive(Debug, Clone, Copy)]
pub struct CutAfter(pub u64);

/// Listens on a port of its own and passes on to the registry until the cut.
pub struct CuttingProxy {
    address: String,
    ended: Arc<AtomicBool>,
}

impl CuttingProxy {
    /// Starts passing on to `registry` (`127.0.0.1:PORT`).
    pub fn start(registry: &str, cut: CutAfter) -> CuttingProxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen on some port");
        let address = listener.local_addr().expect("a listener has an address").to_string();
        let ended = Arc::new(AtomicBool::new(false));
        let left = Arc::new(AtomicU64::new(cut.0));
        let (over, registry) = (ended.clone(), registry.to_owned());
        std::thread::spawn(move || {
            for client in listener.incoming() {
                if over.load(Ordering::Acquire) {
                    return;
                }
                let Ok(client) = client else { continue };
                let Ok(server) = TcpStream::connect(&registry) else { continue };
                pass_on(client, server, left.clone());
            }
        });
        CuttingProxy { address, ended }
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }
}

impl Drop for CuttingProxy {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        // Wakes the listener, which then sees that it is over.
        let _ = TcpStream::connect(&self.address);
    }
}

fn pass_on(client: TcpStream, server: TcpStream, left: Arc<AtomicU64>) {
    let (Ok(mut from_client), Ok(mut to_server)) = (client.try_clone(), server.try_clone()) else { return };
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut from_client, &mut to_server);
        let _ = to_server.shutdown(Shutdown::Write);
    });
    std::thread::spawn(move || {
        let (mut client, mut server) = (client, server);
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = server.read(&mut buffer) {
            let before = left.load(Ordering::Acquire);
            left.store(before.saturating_sub(length as u64), Ordering::Release);
            let through = usize::try_from(before).unwrap_or(usize::MAX).min(length);
            if client.write_all(&buffer[..through]).is_err() || through < length {
                break;
            }
        }
        let _ = client.shutdown(Shutdown::Both);
        let _ = server.shutdown(Shutdown::Both);
    });
}
