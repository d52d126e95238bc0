//! A registry of our own, on a free port, gone with its handle.

use crate::http::{Response, request};
use crate::parts::Parts;
use crate::running::Running;
use crate::wait::until;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// How often another port is tried when somebody was quicker to take the one that was free.
const PORT_TRIES: usize = 5;

/// A registry server that runs.
pub struct Registry {
    address: String,
    storage: PathBuf,
    _server: Running,
}

impl Registry {
    /// Starts a registry that anybody may write to, with its storage below `folder`.
    pub fn start(parts: &Parts, folder: &Path) -> Registry {
        Registry::start_with(parts, folder, "")
    }

    /// Starts a registry that asks for the name `builder` and the password `secret`.
    pub fn start_with_password(parts: &Parts, folder: &Path) -> Registry {
        std::fs::create_dir_all(folder).expect("create the registry's folder");
        let users = folder.join("users");
        // bcrypt of "secret", cost 5.
        let line = "builder:$2y$05$crosskitcrosskitcrossuXY6dQdklxteSk1/Jrm1NODOYvQPUK2u\n";
        std::fs::write(&users, line).expect("write the registry's users");
        let auth = format!("auth:\n  htpasswd:\n    realm: crosskit\n    path: {}\n", users.display());
        Registry::start_with(parts, folder, &auth)
    }

    fn start_with(parts: &Parts, folder: &Path, more_config: &str) -> Registry {
        let storage = folder.join("storage");
        std::fs::create_dir_all(&storage).expect("create the registry's storage");
        for _ in 0..PORT_TRIES {
            let port = free_port();
            let address = format!("127.0.0.1:{port}");
            let config = folder.join("registry.yml");
            let text = format!(
                "version: 0.1\nlog:\n  level: error\n  accesslog:\n    disabled: true\nstorage:\n  filesystem:\n    \
                 rootdirectory: {}\n  delete:\n    enabled: true\nhttp:\n  addr: {address}\n{more_config}",
                storage.display()
            );
            std::fs::write(&config, text).expect("write the registry's config");
            let mut command = Command::new(parts.docker_registry());
            command.arg("serve").arg(&config).env("OTEL_TRACES_EXPORTER", "none");
            let mut server = Running::start(&mut command);
            let up = until("the registry to answer or to give up", Duration::from_secs(30), || {
                if server.has_ended() {
                    return Some(false);
                }
                request(&address, "GET", "/v2/", &[], b"").is_ok().then_some(true)
            });
            if up {
                return Registry { address, storage, _server: server };
            }
            let said = server.said();
            assert!(said.contains("address already in use"), "the registry ended:\n{said}");
        }
        panic!("no free port for the registry in {PORT_TRIES} tries");
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// A reference to an image here: `127.0.0.1:PORT/name`.
    pub fn reference(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }

    /// Puts a blob there and gives its digest.
    pub fn push_blob(&self, name: &str, content: &[u8]) -> String {
        let digest = crate::digest_of(content);
        let start = self.ask("POST", &format!("/v2/{name}/blobs/uploads/"), &[], b"", 202);
        let location = start.header("location").expect("an upload has a location").to_owned();
        let path = location.strip_prefix(&format!("http://{}", self.address)).unwrap_or(&location);
        let separator = if path.contains('?') { '&' } else { '?' };
        let path = format!("{path}{separator}digest={digest}");
        self.ask("PUT", &path, &[("Content-Type", "application/octet-stream")], content, 201);
        digest
    }

    /// Puts a manifest or an index there, under a tag or its digest.
    pub fn push_manifest(&self, name: &str, reference: &str, media_type: &str, content: &[u8]) {
        let path = format!("/v2/{name}/manifests/{reference}");
        self.ask("PUT", &path, &[("Content-Type", media_type)], content, 201);
    }

    /// The raw bytes of a manifest or an index, if there is one of that tag or digest.
    pub fn manifest(&self, name: &str, reference: &str) -> Option<Vec<u8>> {
        let accept = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
                      application/vnd.docker.distribution.manifest.list.v2+json, \
                      application/vnd.docker.distribution.manifest.v2+json";
        let path = format!("/v2/{name}/manifests/{reference}");
        let answer =
            request(&self.address, "GET", &path, &[("Accept", accept)], b"").expect("ask the registry");
        (answer.status == 200).then_some(answer.body)
    }

    /// A blob's content.
    pub fn blob(&self, name: &str, digest: &str) -> Vec<u8> {
        self.ask("GET", &format!("/v2/{name}/blobs/{digest}"), &[], b"", 200).body
    }

    /// The file that holds a blob's content, for tests that damage it.
    pub fn blob_file(&self, digest: &str) -> PathBuf {
        let hex = digest.strip_prefix("sha256:").expect("a sha256 digest");
        let file = self.storage.join(format!("docker/registry/v2/blobs/sha256/{}/{hex}/data", &hex[..2]));
        assert!(file.is_file(), "the registry has no blob {digest}");
        file
    }

    /// Has a repository lose a blob, as collection in the registry does.
    pub fn lose(&self, name: &str, digest: &str) {
        self.ask("DELETE", &format!("/v2/{name}/blobs/{digest}"), &[], b"", 202);
    }

    /// A server of our own before it, which can die.
    pub fn front(&self) -> crate::Served {
        crate::stores::before(&self.address)
    }

    fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8], wanted: u16) -> Response {
        let answer = request(&self.address, method, path, headers, body)
            .unwrap_or_else(|error| panic!("{method} {path}: {error}"));
        let said = String::from_utf8_lossy(&answer.body);
        assert_eq!(answer.status, wanted, "{method} {path}: {said}");
        answer
    }
}

pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen on some port");
    listener.local_addr().expect("a listener has an address").port()
}
