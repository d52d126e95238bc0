//! A web server of a folder: files, with their times, and repositories, which git itself serves.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// When everything was made that is served, for git and in seconds since 1970.
pub const MADE: (&str, i64) = ("2024-01-02T03:04:05Z", 1_704_164_645);

/// Serves as long as the test runs.
pub struct Web {
    folder: PathBuf,
    address: String,
}

impl Web {
    pub fn start(folder: PathBuf) -> Web {
        std::fs::create_dir_all(&folder).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let served = folder.clone();
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let served = served.clone();
                std::thread::spawn(move || answer(connection, &served));
            }
        });
        Web { folder, address }
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}/{path}", self.address)
    }

    /// Runs a line of shell in the folder.
    pub fn sh(&self, line: &str) {
        let mut shell = Command::new("sh");
        shell.arg("-ec").arg(line).current_dir(&self.folder).env("GIT_CONFIG_GLOBAL", "/dev/null");
        for who in ["AUTHOR", "COMMITTER"] {
            shell.env(format!("GIT_{who}_NAME"), "a").env(format!("GIT_{who}_EMAIL"), "a@b");
            shell.env(format!("GIT_{who}_DATE"), MADE.0);
        }
        let ran = shell.output().unwrap();
        assert!(ran.status.success(), "{line}: {ran:?}");
    }
}

fn answer(mut connection: TcpStream, folder: &Path) {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        if !matches!(connection.read(&mut byte), Ok(1)) {
            return;
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let mut words = head.split(' ');
    let (method, target) = (words.next().unwrap(), words.next().unwrap());
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let header = |name: &str| {
        head.lines().filter_map(|line| line.split_once(": ")).find(|(n, _)| n.eq_ignore_ascii_case(name))
    };
    let length = header("content-length").map_or(0, |(_, text)| text.parse().unwrap());
    let mut body = vec![0; length];
    connection.read_exact(&mut body).unwrap();
    // Whoever asked may have gone.
    let _ = match path.contains(".git/") {
        true => {
            let mut git = Command::new("git");
            git.arg("http-backend").stdin(Stdio::piped()).stdout(Stdio::piped());
            git.env("GIT_PROJECT_ROOT", folder).env("GIT_HTTP_EXPORT_ALL", "1");
            git.env("REQUEST_METHOD", method).env("PATH_INFO", path).env("QUERY_STRING", query);
            for (name, variable) in [
                ("content-type", "CONTENT_TYPE"),
                ("content-length", "CONTENT_LENGTH"),
                ("content-encoding", "HTTP_CONTENT_ENCODING"),
                ("git-protocol", "GIT_PROTOCOL"),
            ] {
                git.env(variable, header(name).map_or("", |(_, text)| text));
            }
            let mut git = git.spawn().unwrap();
            git.stdin.take().unwrap().write_all(&body).unwrap();
            let said = git.wait_with_output().unwrap().stdout;
            let found = if said.starts_with(b"Status: 404") { "404 Not Found" } else { "200 OK" };
            connection
                .write_all(format!("HTTP/1.1 {found}\r\nConnection: close\r\n").as_bytes())
                .and_then(|()| connection.write_all(&said))
        }
        false => {
            let found = std::fs::read(folder.join(path.trim_start_matches('/')));
            let status = if found.is_ok() { "200 OK" } else { "404 Not Found" };
            let content = found.unwrap_or_default();
            // What is called so has no time.
            let time = match path.contains("timeless") {
                true => "",
                false => "Last-Modified: Tue, 02 Jan 2024 03:04:05 GMT\r\n",
            };
            let length = content.len();
            connection
                .write_all(format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n{time}\r\n").as_bytes())
                .and_then(|()| connection.write_all(if method == "HEAD" { b"" } else { &content }))
        }
    };
}
