//! A real registry on a free port, and a front before it that can misbehave.
#![allow(dead_code, clippy::unwrap_used, reason = "each test file uses its part; a test fails by a panic")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

/// Debian's registry, as `tests/parts.sh` prepares it.
fn docker_registry() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/parts");
    let parts = std::env::var_os("CROSSKIT_TEST_PARTS").map_or(own, PathBuf::from);
    parts.join("bin/docker-registry")
}

/// `docker-registry serve` with its own storage, ended with the value.
pub struct Registry {
    child: Child,
    pub host: String,
    pub dir: tempfile::TempDir,
}

impl Registry {
    pub fn start() -> Self {
        Self::with("", |_| String::new())
    }

    /// `http` is added to the `http` section; `more` gets the registry's folder and adds top-level sections.
    pub fn with(http: &str, more: impl FnOnce(&Path) -> String) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let more = more(dir.path());
        let http = http.replace("DIR", dir.path().to_str().unwrap());
        // The program cannot say which port it was given: take one that is free, again if somebody was faster.
        for _ in 0..20 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let config = dir.path().join("config.yml");
            std::fs::write(
                &config,
                format!(
                    "version: 0.1\nlog: {{level: debug}}\nstorage:\n  filesystem: {{rootdirectory: {}/data}}\n  delete: {{enabled: true}}\nhttp:\n  addr: 127.0.0.1:{port}\n{http}\n{more}\n",
                    dir.path().display()
                ),
            )
            .unwrap();
            let mut child = Command::new(docker_registry())
                .arg("serve")
                .arg(&config)
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .expect("docker-registry, which tests/parts.sh prepares");
            let mut log = BufReader::new(child.stderr.take().unwrap());
            let mut line = String::new();
            let ready = loop {
                line.clear();
                if log.read_line(&mut line).unwrap() == 0 {
                    break false;
                }
                if line.contains("listening on") {
                    break true;
                }
            };
            if ready {
                std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
                return Self { child, host: format!("127.0.0.1:{port}"), dir };
            }
            child.wait().unwrap();
        }
        panic!("docker-registry does not start");
    }

    /// Where the registry keeps a blob.
    pub fn blob_path(&self, digest: &str) -> std::path::PathBuf {
        let hex = digest.strip_prefix("sha256:").unwrap();
        self.dir.path().join(format!("data/docker/registry/v2/blobs/sha256/{}/{hex}/data", &hex[..2]))
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// What the front does with a request.
pub enum Deed {
    /// Hands it on to the registry.
    Forward,
    /// The same, but closes the connection after so many bytes of the answer.
    Cut(usize),
    /// Answers itself: status line and headers, then the body.
    Answer(&'static str, String),
    /// The same, but with a body that goes on and on.
    Flood(&'static str),
}

/// One request as the front saw it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub line: String,
    pub headers: String,
}

/// Stands before a registry; each request is decided on by a function.
pub struct Front {
    pub host: String,
    pub seen: Arc<Mutex<Vec<Seen>>>,
}

impl Front {
    pub fn start(registry: &str, decide: impl Fn(&Seen) -> Deed + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let (registry, decide, all) = (registry.to_owned(), Arc::new(decide), seen.clone());
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (registry, decide, all) = (registry.clone(), decide.clone(), all.clone());
                std::thread::spawn(move || drop(serve(client.unwrap(), &registry, &*decide, &all)));
            }
        });
        Self { host, seen }
    }

    /// How many requests began so.
    pub fn count(&self, begin: &str) -> usize {
        self.seen.lock().unwrap().iter().filter(|s| s.line.starts_with(begin)).count()
    }
}

fn serve(
    client: TcpStream,
    registry: &str,
    decide: &(dyn Fn(&Seen) -> Deed + Send + Sync),
    all: &Mutex<Vec<Seen>>,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let mut client = client;
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut headers = String::new();
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        if header.trim().is_empty() {
            break;
        }
        if !header.to_ascii_lowercase().starts_with("connection:") {
            headers.push_str(&header);
        }
    }
    let seen = Seen { line: line.trim().to_owned(), headers };
    let deed = decide(&seen);
    all.lock().unwrap().push(seen.clone());
    let length: usize = seen
        .headers
        .lines()
        .find_map(|l| {
            l.to_ascii_lowercase().strip_prefix("content-length:").map(|n| n.trim().parse().unwrap())
        })
        .unwrap_or(0);
    match deed {
        Deed::Answer(head, body) => {
            let mut rest = vec![0; length];
            reader.read_exact(&mut rest)?;
            write!(
                client,
                "HTTP/1.1 {head}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            )?;
        }
        Deed::Flood(head) => {
            write!(client, "HTTP/1.1 {head}\r\nConnection: close\r\n\r\n")?;
            loop {
                client.write_all(&[b' '; 64 << 10])?;
            }
        }
        deed => {
            let mut upstream = TcpStream::connect(registry)?;
            write!(upstream, "{}\r\n{}Connection: close\r\n\r\n", seen.line, seen.headers)?;
            std::io::copy(&mut (&mut reader).take(length as u64), &mut upstream)?;
            let limit = match deed {
                Deed::Cut(bytes) => bytes as u64,
                _ => u64::MAX,
            };
            std::io::copy(&mut upstream.take(limit), &mut client)?;
        }
    }
    client.shutdown(Shutdown::Both)
}
