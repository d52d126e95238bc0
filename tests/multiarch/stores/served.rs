//! As much of an HTTP server as stores in tests take: one request a connection, each written down, and
//! an end at whichever of them one likes.

use crate::http::Response;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// What somebody asks for.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The method.
    pub method: String,
    /// The path with its query.
    pub path: String,
    /// Header lines, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body, whole.
    pub body: Vec<u8>,
}

impl Asked {
    /// The first header of a name, given in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Whether content is asked for, and not just its size.
    pub fn reads(&self) -> bool {
        self.method == "GET" && self.header("range") != Some("bytes=0-0")
    }
}

/// A server on a port of its own, gone with its handle.
pub struct Served {
    address: String,
    state: Arc<State>,
}

struct State {
    /// Without bodies.
    log: Mutex<Vec<Asked>>,
    /// How many requests are answered still.
    left: AtomicUsize,
    over: AtomicBool,
}

impl Served {
    /// Answers requests on a free port.
    pub fn start(answer: impl Fn(&Asked) -> Response + Send + Sync + 'static) -> Served {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen on some port");
        let address = listener.local_addr().expect("a listener has an address").to_string();
        let (log, left, over) = Default::default();
        let state = Arc::new(State { log, left, over });
        state.left.store(usize::MAX, Ordering::Release);
        let (shared, answer) = (state.clone(), Arc::new(answer));
        std::thread::spawn(move || {
            for client in listener.incoming() {
                if shared.over.load(Ordering::Acquire) {
                    return;
                }
                let Ok(client) = client else { continue };
                let (shared, answer) = (shared.clone(), answer.clone());
                std::thread::spawn(move || serve(client, &shared, &*answer));
            }
        });
        Served { address, state }
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// What was asked so far.
    pub fn log(&self) -> Vec<Asked> {
        self.state.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Forgets what was asked so far.
    pub fn forget(&self) {
        self.state.log.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Answers so many further requests, and is dead from then on, until told another number.
    pub fn die_after(&self, requests: usize) {
        self.state.left.store(requests, Ordering::Release);
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.state.over.store(true, Ordering::Release);
        // Wakes the listener, which then sees that it is over.
        let _ = TcpStream::connect(&self.address);
    }
}

fn serve(mut client: TcpStream, state: &State, answer: &dyn Fn(&Asked) -> Response) {
    let Some(asked) = read(&client) else { return };
    let alive = state.left.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| match left {
        usize::MAX => Some(left),
        left => left.checked_sub(1),
    });
    if alive.is_err() {
        return;
    }
    let told = Asked { body: Vec::new(), ..asked.clone() };
    state.log.lock().unwrap_or_else(PoisonError::into_inner).push(told);
    let reply = answer(&asked);
    let mut head = format!("HTTP/1.1 {} Said\r\nConnection: close\r\n", reply.status);
    let bodiless = asked.method == "HEAD";
    for (name, value) in &reply.headers {
        let own = matches!(name.as_str(), "connection" | "transfer-encoding" | "keep-alive");
        if !own && (bodiless || name != "content-length") {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
    }
    if !bodiless {
        head.push_str(&format!("Content-Length: {}\r\n", reply.body.len()));
    }
    head.push_str("\r\n");
    let body: &[u8] = if bodiless { &[] } else { &reply.body };
    let _ = client.write_all(head.as_bytes()).and_then(|()| client.write_all(body));
}

pub(super) fn read(client: &TcpStream) -> Option<Asked> {
    let mut from = BufReader::new(client);
    let mut line = || {
        let mut line = String::new();
        from.read_line(&mut line).ok().filter(|length| *length > 0)?;
        Some(line.trim_end().to_owned())
    };
    let first = line()?;
    let mut words = first.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = Vec::new();
    loop {
        let next = line()?;
        let Some((name, value)) = next.split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let mut asked = Asked { method, path, headers, body: Vec::new() };
    if asked.header("expect").is_some() {
        let mut client = client;
        client.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").ok()?;
    }
    if asked.header("transfer-encoding") == Some("chunked") {
        loop {
            let mut length = String::new();
            from.read_line(&mut length).ok()?;
            let length = usize::from_str_radix(length.trim(), 16).ok()?;
            let mut chunk = vec![0; length + 2];
            from.read_exact(&mut chunk).ok()?;
            if length == 0 {
                return Some(asked);
            }
            asked.body.extend_from_slice(&chunk[..length]);
        }
    }
    let length = asked.header("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    asked.body = vec![0; length];
    from.read_exact(&mut asked.body).ok()?;
    Some(asked)
}
