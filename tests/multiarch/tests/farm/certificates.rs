//! Certificates as people make them, by openssl.

#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

use crosskit_workers::remote::Tls;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Signs certificates.
pub struct Authority {
    folder: PathBuf,
}

impl Authority {
    /// A new one with its files in a new folder.
    pub fn new(folder: &Path) -> Authority {
        std::fs::create_dir_all(folder).unwrap();
        let authority = Authority { folder: folder.to_path_buf() };
        authority.openssl(
            &["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"],
            &[
                "-keyout",
                "ca.key",
                "-out",
                "ca.pem",
                "-subj",
                &format!("/CN={}", folder.file_name().unwrap().display()),
                "-days",
                "2",
            ],
        );
        authority
    }

    /// A certificate for the server `worker.test` at 127.0.0.1 or for any client, that ends in so many days.
    pub fn issue(&self, name: &str, days: i32) -> Tls {
        let [key, request, cert] = ["key", "csr", "pem"].map(|kind| format!("{name}.{kind}"));
        self.openssl(
            &["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"],
            &[
                "-keyout",
                &key,
                "-out",
                &request,
                "-subj",
                &format!("/CN={name}"),
                "-addext",
                "subjectAltName=DNS:worker.test,IP:127.0.0.1",
            ],
        );
        self.openssl(
            &["x509", "-req", "-CA", "ca.pem", "-CAkey", "ca.key", "-copy_extensions", "copy"],
            &["-in", &request, "-out", &cert, "-days", &days.to_string()],
        );
        let file = |name: &str| Some(self.folder.join(name));
        Tls { ca: file("ca.pem"), cert: file(&cert), key: file(&key), server_name: String::new() }
    }

    fn openssl(&self, what: &[&str], files: &[&str]) {
        let ran = Command::new("openssl").current_dir(&self.folder).args(what).args(files).output();
        let ran = ran.expect("openssl is on this machine: run tests/parts.sh");
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    }
}
