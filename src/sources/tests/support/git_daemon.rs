//! Repositories that a git daemon serves.

use super::op;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A git daemon, and the folder whose repositories it serves.
pub struct Server {
    child: Child,
    pub port: u16,
    pub dir: PathBuf,
    _dir: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    pub fn start((guard, dir): (tempfile::TempDir, PathBuf)) -> Server {
        for _ in 0..20 {
            let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let exec = Command::new("git").arg("--exec-path").output().unwrap();
            let program = Path::new(String::from_utf8(exec.stdout).unwrap().trim()).join("git-daemon");
            let mut child = Command::new(program)
                .args(["--reuseaddr", "--export-all", "--listen=127.0.0.1", &format!("--port={port}")])
                .arg(format!("--base-path={}", dir.display()))
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("git has its daemon");
            while child.try_wait().unwrap().is_none() {
                if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
                    return Server { child, port, dir, _dir: guard };
                }
                std::thread::yield_now();
            }
        }
        panic!("git daemon does not start");
    }

    /// The id of what a name means in `repo`.
    pub fn rev(&self, name: &str) -> String {
        let mut git = Command::new("git");
        let out = git.args(["rev-parse", name]).current_dir(self.dir.join("repo")).output().unwrap();
        String::from_utf8(out.stdout).unwrap().trim().to_string()
    }

    /// Of the repository `repo`.
    pub fn url(&self) -> String {
        format!("git://127.0.0.1:{}/repo", self.port)
    }

    /// As clients name it: what git is given is an attribute.
    pub fn op(&self, fragment: &str, attrs: &[(&str, &str)]) -> crosskit_api::pb::SourceOp {
        let mut op = op(&format!("{}{fragment}", self.url()), attrs);
        op.attrs.entry("git.fullurl".into()).or_insert_with(|| self.url());
        op
    }
}
