//! A server that answers as a test likes.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// What was asked: `METHOD PATH`, header lines in lower case, the body.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub line: String,
    pub headers: String,
    pub body: String,
}

/// Answers each request on a connection of its own; gives the address and what was asked so far. An answer is its
/// first line's end, header lines, an empty line, and a body.
pub(crate) fn answering(
    mut answer: impl FnMut(&Asked) -> String + Send + 'static,
) -> (String, Arc<Mutex<Vec<Asked>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let log: Arc<Mutex<Vec<Asked>>> = Arc::default();
    let asked = log.clone();
    // Ends with the process.
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.unwrap();
            let request = read(&client);
            asked.lock().unwrap().push(request.clone());
            let _ = write!(client, "HTTP/1.1 {}", answer(&request));
        }
    });
    (address, log)
}

/// An answer with a body and no more.
pub(crate) fn said(status: &str, body: &str) -> String {
    format!("{status}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

fn read(client: &TcpStream) -> Asked {
    let mut from = BufReader::new(client);
    let mut line = || {
        let mut line = String::new();
        from.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    };
    let first = line();
    let mut headers = String::new();
    loop {
        let next = line();
        if next.is_empty() {
            break;
        }
        let (name, value) = next.split_once(':').unwrap();
        headers += &format!("{}:{}\n", name.to_ascii_lowercase(), value.trim());
    }
    let length = headers.lines().find_map(|line| line.strip_prefix("content-length:"));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    from.read_exact(&mut body).unwrap();
    let line = first.trim_end_matches(" HTTP/1.1").to_owned();
    Asked { line, headers, body: String::from_utf8(body).unwrap() }
}
