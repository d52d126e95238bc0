//! Whatever it is asked for, it answers with a gigabyte of JSON.

use super::served::read;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of each answer.
const LONG: u64 = 1 << 30;

/// Bytes that are sent at once.
const PIECE: usize = 64 << 10;

/// Such a server; its thread waits for visitors until the test ends.
pub struct Endless {
    address: String,
    sent: Arc<AtomicU64>,
}

impl Endless {
    /// On a free port. The answers are called `media_type`.
    pub fn start(media_type: &'static str) -> Endless {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen on some port");
        let address = listener.local_addr().expect("a listener has an address").to_string();
        let sent = Arc::new(AtomicU64::new(0));
        let counter = sent.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let counter = counter.clone();
                std::thread::spawn(move || answer(client, media_type, &counter));
            }
        });
        Endless { address, sent }
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// How many bytes of answers have gone out since this was asked last.
    pub fn sent(&self) -> u64 {
        self.sent.swap(0, Ordering::AcqRel)
    }
}

fn answer(mut client: TcpStream, media_type: &str, sent: &AtomicU64) {
    let Some(asked) = read(&client) else { return };
    let digest = format!("sha256:{}", "5".repeat(64));
    let head = format!(
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: {media_type}\r\nContent-Length: {LONG}\r\n\
        Docker-Content-Digest: {digest}\r\nETag: \"one\"\r\nLast-Modified: Tue, 02 Jan 2024 03:04:05 GMT\r\n\r\n"
    );
    if client.write_all(head.as_bytes()).is_err() || asked.method == "HEAD" {
        return;
    }
    let mut piece = b"{\"layers\":[".to_vec();
    let mut left = LONG;
    while left > 0 {
        while piece.len() < PIECE {
            piece.extend_from_slice(b"{\"blob\":\"\"},");
        }
        piece.truncate(usize::try_from(left).map_or(PIECE, |left| left.min(PIECE)));
        if client.write_all(&piece).is_err() {
            return;
        }
        sent.fetch_add(piece.len() as u64, Ordering::AcqRel);
        left -= piece.len() as u64;
        piece.clear();
    }
}
