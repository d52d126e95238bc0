//! Amazon's S3 as moto has rebuilt it.

use super::{Served, before, start};
use crate::http::{Response, request};
use crate::parts::Parts;
use crate::running::Running;
use std::process::Command;

/// Whoever is named is let in, as long as nobody asks for more.
const SOMEBODY: &str =
    "AWS4-HMAC-SHA256 Credential=test/20200101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0";

/// A store of S3's with a bucket.
pub struct S3Store {
    /// What stands before it.
    pub front: Served,
    address: String,
    _server: Running,
}

impl S3Store {
    /// The bucket.
    pub const BUCKET: &str = "caches";

    /// Starts one.
    pub fn start(parts: &Parts) -> S3Store {
        let moto = parts.moto();
        let python = parts.on_machine("python3");
        let (address, server) = start("moto", |port| {
            let mut command = Command::new(&python);
            command.args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &port.to_string()]);
            command.env("PYTHONPATH", &moto).env_remove("PYTHONHOME");
            command
        });
        let store = S3Store { front: before(&address), address, _server: server };
        store.put("", b"");
        store
    }

    /// The keys of a cache here, for `--export-cache` and `--import-cache`.
    pub fn keys(&self) -> String {
        format!(
            "type=s3,region=us-east-1,bucket={},use_path_style=true,endpoint_url=http://{}",
            S3Store::BUCKET,
            self.front.address()
        )
    }

    /// Lets nobody in any more that is not known, which is nobody.
    pub fn lock(&self) {
        let text = [("Content-Type", "text/plain")];
        let answer = request(&self.address, "POST", "/moto-api/reset-auth", &text, b"0");
        assert_eq!(answer.expect("ask moto").status, 200);
    }

    fn ask(&self, method: &str, key: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
        let path = format!("/{}/{key}", S3Store::BUCKET);
        let headers: Vec<_> = [("Authorization", SOMEBODY)].iter().chain(headers).copied().collect();
        request(&self.address, method, &path, &headers, body).expect("ask moto")
    }

    /// What is under a key.
    pub fn get(&self, key: &str) -> Option<Vec<u8>> {
        let answer = self.ask("GET", key, &[], b"");
        (answer.status == 200).then_some(answer.body)
    }

    /// A header of what is under a key.
    pub fn header(&self, key: &str, name: &str) -> Option<String> {
        self.ask("HEAD", key, &[], b"").header(name).map(str::to_owned)
    }

    /// Puts something under a key.
    pub fn put(&self, key: &str, content: &[u8]) {
        let answer = self.ask("PUT", key.trim_end_matches('/'), &[], content);
        assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    }
}
