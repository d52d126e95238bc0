//! How registries are reached: `[registry."HOST"]` of buildkitd.toml.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::Semaphore;

use super::errors::RegistryError;
use super::reference::Reference;
use super::tls;
use crate::digest::Digest;

/// Blobs moved at the same time to or from one host, as in BuildKit.
const TRANSFERS_PER_HOST: usize = 4;

/// A client certificate and its key, PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPair {
    /// The certificate, with those that vouch for it.
    pub cert: PathBuf,
    /// The key.
    pub key: PathBuf,
}

/// How one registry is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostConfig {
    /// Asked first for pulls, in order: `HOST[:PORT][/PATH]`.
    pub mirrors: Vec<String>,
    /// Without TLS; if not said, registries on this machine are.
    pub http: Option<bool>,
    /// With TLS, but any certificate will do; with `http` also without TLS where there is none.
    pub insecure: Option<bool>,
    /// Certificate authorities besides the system's, PEM files.
    pub ca: Vec<PathBuf>,
    /// Client certificates.
    pub key_pairs: Vec<KeyPair>,
}

impl HostConfig {
    /// Adds what folders like Docker's `/etc/docker/certs.d/HOST` hold: `*.crt` are authorities, `*.cert` with
    /// `*.key` client certificates. A folder that is not there is no error.
    pub fn add_tls_folders(&mut self, folders: &[PathBuf]) -> std::io::Result<()> {
        use std::io::ErrorKind::{NotFound, PermissionDenied};
        for folder in folders {
            let entries = match std::fs::read_dir(folder) {
                Ok(entries) => entries,
                Err(e) if matches!(e.kind(), NotFound | PermissionDenied) => continue,
                Err(e) => return Err(e),
            };
            let mut files = entries.map(|e| e.map(|e| e.path())).collect::<Result<Vec<_>, _>>()?;
            files.sort();
            for file in files {
                match file.extension().and_then(|e| e.to_str()) {
                    Some("crt") => self.ca.push(file),
                    Some("cert") => {
                        self.key_pairs.push(KeyPair { key: file.with_extension("key"), cert: file })
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

/// How all registries are reached, and the connections to them. Clones share both.
#[derive(Clone)]
pub struct RegistryHosts {
    inner: Arc<Inner>,
}

struct Inner {
    configs: HashMap<String, HostConfig>,
    /// Blobs that are moved at the same time to or from one host.
    transfers: usize,
    endpoints: Mutex<HashMap<String, Arc<Endpoint>>>,
    /// What is under way, so that nobody does the same beside it.
    under_way: Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>,
}

impl Default for RegistryHosts {
    fn default() -> Self {
        Self::new(HashMap::new())
    }
}

/// One place that speaks the registry protocol.
pub(super) struct Endpoint {
    /// Name and port.
    pub(super) host: String,
    /// `/v2`, for mirrors with their path.
    pub(super) prefix: String,
    /// What the image's name calls the registry, where this is a mirror of it.
    pub(super) mirror_of: Option<String>,
    pub(super) http: reqwest::Client,
    pub(super) transfers: Semaphore,
    plain: AtomicBool,
    /// TLS is tried first, and given up for good at the first answer that is none.
    may_fall_back: bool,
}

impl Endpoint {
    pub(super) fn base(&self) -> String {
        let scheme = if self.plain.load(Ordering::Relaxed) { "http" } else { "https" };
        format!("{scheme}://{}{}", self.host, self.prefix)
    }

    /// Gives TLS up after a request to `tried` failed, if that is allowed and the request had TLS.
    pub(super) fn fall_back(&self, tried: &str) -> bool {
        let with_tls = self.may_fall_back && tried.starts_with("https:");
        if with_tls {
            self.plain.store(true, Ordering::Relaxed);
        }
        with_tls
    }
}

impl RegistryHosts {
    /// With the configuration of some registries by name; `docker.io` is Docker Hub's.
    pub fn new(configs: HashMap<String, HostConfig>) -> Self {
        Self::with_transfers(configs, TRANSFERS_PER_HOST)
    }

    /// The same, with another number of blobs that are moved at the same time to or from one host.
    pub fn with_transfers(configs: HashMap<String, HostConfig>, transfers: usize) -> Self {
        let (endpoints, under_way) = Default::default();
        Self { inner: Arc::new(Inner { configs, transfers, endpoints, under_way }) }
    }

    /// The same registries, with one that needs no valid certificate and not even TLS: `registry.insecure=true` of a
    /// push. Connections are not shared.
    #[must_use]
    pub fn with_insecure(&self, domain: &str) -> Self {
        let mut configs = self.inner.configs.clone();
        let config = HostConfig { http: Some(true), insecure: Some(true), ..HostConfig::default() };
        configs.insert(domain.to_owned(), config);
        Self::with_transfers(configs, self.inner.transfers)
    }

    /// Where to pull from, mirrors first.
    pub(super) fn for_pull(&self, domain: &str) -> Result<Vec<Arc<Endpoint>>, RegistryError> {
        let mirrors = self.inner.configs.get(domain).map_or(&[][..], |c| &c.mirrors);
        let mirrors = mirrors.iter().map(|mirror| {
            let mirror = mirror.trim_start_matches("https://").trim_start_matches("http://");
            let (host, path) = mirror.split_once('/').unwrap_or((mirror, ""));
            self.endpoint(host, path.trim_matches('/'), Some(domain))
        });
        mirrors.chain([self.for_push(domain)]).collect()
    }

    /// Where to push to.
    pub(super) fn for_push(&self, domain: &str) -> Result<Arc<Endpoint>, RegistryError> {
        self.endpoint(domain, "", None)
    }

    fn endpoint(
        &self,
        host: &str,
        path: &str,
        mirror_of: Option<&str>,
    ) -> Result<Arc<Endpoint>, RegistryError> {
        let key = format!("{host}/{path} {}", mirror_of.unwrap_or_default());
        let mut endpoints = self.inner.endpoints.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(endpoint) = endpoints.get(&key) {
            return Ok(endpoint.clone());
        }
        let default = HostConfig::default();
        let config = self.inner.configs.get(host).unwrap_or(&default);
        let local = is_local(host);
        let insecure = config.insecure.unwrap_or(false);
        let plain = config.http.unwrap_or(local);
        let http = tls::client(config, insecure, local)
            .map_err(|reason| RegistryError::Config { host: host.to_owned(), reason })?;
        let host = if host == "docker.io" { "registry-1.docker.io" } else { host };
        let endpoint = Arc::new(Endpoint {
            host: host.to_owned(),
            prefix: if path.is_empty() { "/v2".into() } else { format!("/v2/{path}") },
            mirror_of: mirror_of.map(str::to_owned),
            http,
            transfers: Semaphore::new(self.inner.transfers),
            plain: AtomicBool::new(plain && !insecure),
            may_fall_back: plain && insecure,
        });
        endpoints.insert(key, endpoint.clone());
        Ok(endpoint)
    }

    /// Held by whoever fetches a blob, so that others who want it wait and then find it.
    pub(super) fn fetch_lock(&self, digest: &Digest) -> Arc<tokio::sync::Mutex<()>> {
        self.lock(digest.to_string())
    }

    /// Held by whoever gives a repository a blob. Registries have been seen to deny a blob for a moment while it is
    /// given once more.
    pub(super) fn push_lock(&self, name: &Reference, digest: &Digest) -> Arc<tokio::sync::Mutex<()>> {
        self.lock(format!("{}/{} {digest}", name.domain(), name.path()))
    }

    fn lock(&self, key: String) -> Arc<tokio::sync::Mutex<()>> {
        let mut under_way = self.inner.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lock) = under_way.get(&key).and_then(Weak::upgrade) {
            return lock;
        }
        under_way.retain(|_, lock| lock.strong_count() > 0);
        let lock = Arc::new(tokio::sync::Mutex::new(()));
        under_way.insert(key, Arc::downgrade(&lock));
        lock
    }
}

/// Whether a registry is on this machine.
pub(super) fn is_local(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}
