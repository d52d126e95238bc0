//! A registry behind a door: only a token opens it, and the realm that gives tokens away is not to be asked by anybody.

use crosskit_multiarch::Registry;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The token that opens the door.
pub const TOKEN: &str = "open-sesame";

/// Stands before a registry.
pub struct Door {
    /// `127.0.0.1:PORT`.
    pub address: String,
    /// How often somebody asked the realm itself.
    pub realm_asked: Arc<AtomicUsize>,
}

impl Door {
    pub fn before(registry: &Registry) -> Door {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let realm_asked = Arc::new(AtomicUsize::new(0));
        let (to, own, asked) = (registry.address().to_owned(), address.clone(), realm_asked.clone());
        std::thread::spawn(move || {
            for visitor in listener.incoming() {
                let (to, own, asked) = (to.clone(), own.clone(), asked.clone());
                std::thread::spawn(move || drop(answer(visitor.unwrap(), &to, &own, &asked)));
            }
        });
        Door { address, realm_asked }
    }
}

fn answer(mut visitor: TcpStream, to: &str, own: &str, asked: &AtomicUsize) -> std::io::Result<()> {
    let mut reader = BufReader::new(visitor.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let (mut headers, mut length, mut open) = (String::new(), 0, false);
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        if header.trim().is_empty() {
            break;
        }
        let lower = header.to_ascii_lowercase();
        open |= lower.trim() == format!("authorization: bearer {TOKEN}");
        if let Some(bytes) = lower.strip_prefix("content-length:") {
            length = bytes.trim().parse().unwrap();
        }
        if !lower.starts_with("connection:") && !lower.starts_with("authorization:") {
            headers.push_str(&header);
        }
    }
    if !line.contains(" /v2/") || !open {
        let status = match line.contains(" /v2/") {
            true => format!(
                "401 Unauthorized\r\nWWW-Authenticate: Bearer realm=\"http://{own}/realm\",service=\"the door\""
            ),
            false => {
                asked.fetch_add(1, Ordering::Relaxed);
                "403 Forbidden".to_owned()
            }
        };
        std::io::copy(&mut reader.take(length), &mut std::io::sink())?;
        return write!(visitor, "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    }
    let mut upstream = TcpStream::connect(to)?;
    write!(upstream, "{line}{headers}Connection: close\r\n\r\n")?;
    std::io::copy(&mut reader.take(length), &mut upstream)?;
    std::io::copy(&mut upstream, &mut visitor)?;
    Ok(())
}
