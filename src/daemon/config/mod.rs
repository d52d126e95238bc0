//! What the daemon was told: the file, the flags, and the defaults where both are silent.

mod caches;
mod farm;
pub mod flags;
mod network;
mod reader;
mod schema;
pub mod units;

pub use caches::{SignedCaches, Verify};
use crosskit_exec::devices::SPEC_FOLDERS;
use crosskit_exec::networks::NetworkOptions;
use crosskit_rootless::Folders;
pub use farm::Farm;
pub use reader::{Document, Settings, read};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
pub use units::Space;

/// Why a config file can't be used.
#[derive(Debug, thiserror::Error)]
#[error("{}:{line}: {kind}", path.display())]
pub struct ConfigError {
    /// The file.
    pub path: PathBuf,
    /// The line, from 1; 0 where it is about the whole file.
    pub line: usize,
    /// What is wrong.
    pub kind: ConfigErrorKind,
}

/// What is wrong with a config file.
#[derive(Debug, thiserror::Error)]
pub enum ConfigErrorKind {
    /// It can't be read.
    #[error("cannot read the config file: {0}; check that it exists and may be read, or leave --config out")]
    Unreadable(std::io::Error),
    /// It isn't TOML.
    #[error("not valid TOML: {0}")]
    Syntax(String),
    /// A value of another kind than the key takes.
    #[error("{key:?} takes {expected}")]
    WrongKind {
        /// The key.
        key: String,
        /// What it takes.
        expected: &'static str,
    },
    /// A key of our own sections that nobody knows.
    #[error("unknown key {key:?}{hint}")]
    Unknown {
        /// The key.
        key: String,
        /// What may have been meant; empty if nothing is near.
        hint: String,
    },
    /// A key whose feature is not there yet.
    #[error("{key:?} is not supported: {why}")]
    Unsupported {
        /// The key.
        key: String,
        /// What is missing, and what to do.
        why: &'static str,
    },
    /// A value that the key takes but that makes no sense.
    #[error("{key:?}: {why}")]
    Value {
        /// The key.
        key: String,
        /// What is wrong with it.
        why: String,
    },
}

/// Everything that the daemon was told.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where state is kept.
    pub root: PathBuf,
    /// Addresses to listen at: `unix://…`, `tcp://…`.
    pub addresses: Vec<String>,
    /// Owner of unix sockets.
    pub uid: Option<u32>,
    /// Group of unix sockets.
    pub gid: Option<u32>,
    /// Certificates of TCP listeners.
    pub tls: Tls,
    /// `text` or `json`.
    pub log_format: String,
    /// `error`, `warn`, `info`, `debug` or `trace`.
    pub log_level: String,
    /// Entitlements that builds may ask for.
    pub entitlements: Vec<String>,
    /// Whether the steps of all builds reach the network through a proxy only.
    pub proxy_network: bool,
    /// Signatures of caches with GitHub.
    pub github_caches: SignedCaches,
    /// A folder of JSON files with what is to be said in provenance; None for that beside the config.
    pub provenance_folder: Option<PathBuf>,
    /// The worker on this machine.
    pub worker: WorkerConfig,
    /// The workers on other machines.
    pub farm: Farm,
    /// Registries by host.
    pub registries: BTreeMap<String, Registry>,
    /// Devices of steps.
    pub cdi: Cdi,
    /// Name service of steps.
    pub dns: Option<Dns>,
    /// How long builds are remembered.
    pub history: History,
    /// Frontends.
    pub frontends: Frontends,
    /// How many connections one registry gets.
    pub max_registry_concurrency: Option<usize>,
}

/// Certificates of TCP listeners.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    /// The server's certificate.
    pub cert: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
    /// The authority that clients need a certificate of.
    pub ca: Option<PathBuf>,
}

/// The worker on this machine.
#[derive(Clone, Debug)]
pub struct WorkerConfig {
    /// Whether there is one.
    pub enabled: bool,
    /// Shown to clients, and matched by filters.
    pub labels: BTreeMap<String, String>,
    /// Platforms to announce; empty for what the machine can run.
    pub platforms: Vec<String>,
    /// `auto`, `overlayfs`, `fuse-overlayfs` or `native`.
    pub snapshotter: String,
    /// The network of steps that ask for none in particular.
    pub network: NetworkOptions,
    /// The runtime; empty for the best one found.
    pub binary: Option<String>,
    /// Whether the daemon does without what only the machine's root may: usual in a user namespace.
    pub rootless: bool,
    /// Whether steps have the daemon's process ids.
    pub no_process_sandbox: bool,
    /// Where cgroups of steps hang.
    pub cgroup_parent: String,
    /// How many steps run at a time; 0 for no limit.
    pub max_parallelism: usize,
    /// Whether old records are collected without being asked.
    pub gc: bool,
    /// Policies; empty for the defaults.
    pub gc_policies: Vec<GcPolicy>,
    /// Space that collection leaves alone.
    pub reserved_space: Option<Space>,
    /// Space that may be used at most.
    pub max_used_space: Option<Space>,
    /// Space that should stay free.
    pub min_free_space: Option<Space>,
}

/// A rule of collection.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GcPolicy {
    /// Internal records too.
    pub all: bool,
    /// Which records; any one of them is enough.
    pub filters: Vec<String>,
    /// Records used since then stay.
    pub keep_duration: Option<Duration>,
    /// Space that the rule leaves alone.
    pub reserved_space: Option<Space>,
    /// Space that may be used at most.
    pub max_used_space: Option<Space>,
    /// Space that should stay free.
    pub min_free_space: Option<Space>,
}

/// How a registry is reached.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Registry {
    /// Asked first, in this order; with a path if there is one.
    pub mirrors: Vec<String>,
    /// Plain HTTP.
    pub http: Option<bool>,
    /// Any certificate.
    pub insecure: Option<bool>,
    /// Authorities to trust besides the system's.
    pub ca: Vec<PathBuf>,
    /// Client certificates: key and certificate.
    pub keypairs: Vec<(PathBuf, PathBuf)>,
    /// Folders with `*.crt`, `*.cert` and `*.key` as in `/etc/docker/certs.d`.
    pub tls_config_dirs: Vec<PathBuf>,
}

/// Devices of steps, by the Container Device Interface.
#[derive(Clone, Debug, PartialEq)]
pub struct Cdi {
    /// Whether there are none.
    pub disabled: bool,
    /// Folders with specifications, the last first in rank.
    pub spec_folders: Vec<PathBuf>,
    /// Devices, by name or kind, that every build may have.
    pub auto_allowed: Vec<String>,
}

impl Default for Cdi {
    fn default() -> Self {
        let spec_folders = SPEC_FOLDERS.map(PathBuf::from).to_vec();
        Cdi { disabled: false, spec_folders, auto_allowed: Vec::new() }
    }
}

/// Name service of steps.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Dns {
    /// Servers.
    pub nameservers: Vec<String>,
    /// Options.
    pub options: Vec<String>,
    /// Domains.
    pub search_domains: Vec<String>,
}

/// How long builds are remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct History {
    /// Older ones go.
    pub max_age: Duration,
    /// More than that many go, oldest first.
    pub max_entries: usize,
}

/// Which frontends there are.
#[derive(Clone, Debug)]
pub struct Frontends {
    /// The Dockerfile frontend.
    pub dockerfile: bool,
    /// Frontends from images.
    pub gateway: bool,
    /// Repositories that their images may come from; empty for any.
    pub gateway_repositories: Vec<String>,
}

impl Default for Config {
    fn default() -> Self {
        let users = Folders::usual();
        let users = users.as_ref();
        let root = users.and_then(|folders| folders.state.clone());
        let address = users.and_then(Folders::address);
        Config {
            root: root.unwrap_or_else(|| PathBuf::from("/var/lib/buildkit")),
            addresses: vec![address.unwrap_or_else(|| "unix:///run/buildkit/buildkitd.sock".to_string())],
            uid: None,
            gid: None,
            tls: Tls::default(),
            log_format: "text".to_string(),
            log_level: "info".to_string(),
            entitlements: Vec::new(),
            github_caches: SignedCaches::default(),
            provenance_folder: None,
            worker: WorkerConfig::default(),
            farm: Farm::default(),
            registries: BTreeMap::new(),
            cdi: Cdi::default(),
            dns: None,
            history: History::default(),
            frontends: Frontends { dockerfile: true, gateway: true, gateway_repositories: Vec::new() },
            max_registry_concurrency: None,
            proxy_network: false,
        }
    }
}

impl Default for WorkerConfig {
    fn default() -> Self {
        WorkerConfig {
            enabled: true,
            labels: BTreeMap::new(),
            platforms: Vec::new(),
            snapshotter: "auto".to_string(),
            network: network::usual(),
            binary: None,
            rootless: crosskit_rootless::is_inside(),
            no_process_sandbox: false,
            cgroup_parent: String::new(),
            max_parallelism: 0,
            gc: true,
            gc_policies: Vec::new(),
            reserved_space: None,
            max_used_space: None,
            min_free_space: None,
        }
    }
}

impl Default for History {
    /// What BuildKit remembers where nothing else is said: 48 hours, 50 builds.
    fn default() -> Self {
        History { max_age: Duration::from_secs(48 * 3600), max_entries: 50 }
    }
}

impl Config {
    /// Reads a config file, and returns what should be said about it in the log.
    ///
    /// # Errors
    /// An unreadable file, and all that [`read`] refuses.
    pub fn load(path: &Path) -> Result<(Config, Vec<String>), ConfigError> {
        let unreadable =
            |e| ConfigError { path: path.to_path_buf(), line: 0, kind: ConfigErrorKind::Unreadable(e) };
        let text = std::fs::read_to_string(path).map_err(unreadable)?;
        let document = read(path, &text)?;
        let mut config = Config::default();
        config.apply(&document.settings).map_err(|(key, why)| ConfigError {
            path: path.to_path_buf(),
            line: line_of_key(&text, &key),
            kind: ConfigErrorKind::Value { key, why },
        })?;
        Ok((config, document.warnings))
    }

    /// What a daemon without flags uses: the usual config file if it is there, else the defaults.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn usual() -> Result<Config, ConfigError> {
        let path = flags::usual_file();
        if path.exists() { Config::load(&path).map(|(config, _)| config) } else { Ok(Config::default()) }
    }

    fn apply(&mut self, s: &Settings) -> Result<(), (String, String)> {
        let text = |path: &str| s.text(path).map(str::to_string);
        if let Some(root) = s.text("root") {
            self.root = PathBuf::from(root);
        }
        self.entitlements = s.list("insecure-entitlements");
        self.proxy_network = s.bool("proxyNetwork") == Some(true);
        self.github_caches = SignedCaches::read(s)?;
        self.provenance_folder = s.text("provenanceEnvDir").map(PathBuf::from);
        if s.bool("debug") == Some(true) {
            self.log_level = "debug".to_string();
        }
        if s.bool("trace") == Some(true) {
            self.log_level = "trace".to_string();
        }
        self.log_level = text("log/level").unwrap_or_else(|| self.log_level.clone());
        self.log_format = text("log/format").unwrap_or_else(|| self.log_format.clone());
        let addresses = s.list("grpc/address");
        if !addresses.is_empty() {
            self.addresses = addresses;
        }
        self.uid = id(s, "grpc/uid")?;
        self.gid = id(s, "grpc/gid")?;
        self.tls = Tls {
            cert: s.text("grpc/tls/cert").map(PathBuf::from),
            key: s.text("grpc/tls/key").map(PathBuf::from),
            ca: s.text("grpc/tls/ca").map(PathBuf::from),
        };
        self.worker.apply(s)?;
        self.farm = Farm::read(s)?;
        for host in s.names("registry") {
            self.registries.insert(host.clone(), registry(s, &host));
        }
        let folders = s.list("cdi/specDirs");
        if !folders.is_empty() {
            self.cdi.spec_folders = folders.into_iter().map(PathBuf::from).collect();
        }
        self.cdi.disabled = s.bool("cdi/disabled") == Some(true);
        self.cdi.auto_allowed = s.list("cdi/autoAllowed");
        if s.tables.iter().any(|t| t == "dns") {
            self.dns = Some(Dns {
                nameservers: s.list("dns/nameservers"),
                options: s.list("dns/options"),
                search_domains: s.list("dns/searchDomains"),
            });
        }
        self.history.max_age = s.time("history/maxAge").unwrap_or(self.history.max_age);
        if let Some(entries) = s.int("history/maxEntries") {
            self.history.max_entries = usize::try_from(entries)
                .map_err(|_| ("history.maxEntries".to_string(), "must not be negative".to_string()))?;
        }
        self.frontends.dockerfile = s.bool("frontend/dockerfile.v0/enabled").unwrap_or(true);
        self.frontends.gateway = s.bool("frontend/gateway.v0/enabled").unwrap_or(true);
        self.frontends.gateway_repositories = s.list("frontend/gateway.v0/allowedRepositories");
        if let Some(limit) = s.int("system/maxRegistryConcurrency") {
            self.max_registry_concurrency =
                Some(usize::try_from(limit).ok().filter(|l| *l > 0).ok_or_else(|| {
                    ("system.maxRegistryConcurrency".to_string(), "must be greater than zero".to_string())
                })?);
        }
        Ok(())
    }
}

impl WorkerConfig {
    fn apply(&mut self, s: &Settings) -> Result<(), (String, String)> {
        self.enabled = s.bool("worker/oci/enabled").unwrap_or(true);
        for name in s.names("worker/oci/labels") {
            if let Some(value) = s.text(&format!("worker/oci/labels/{name}")) {
                self.labels.insert(name, value.to_string());
            }
        }
        self.platforms = s.list("worker/oci/platforms");
        if let Some(snapshotter) = s.text("worker/oci/snapshotter") {
            self.snapshotter =
                check_snapshotter(snapshotter).map_err(|w| ("worker.oci.snapshotter".to_string(), w))?;
        }
        network::apply(&mut self.network, s)?;
        self.binary = s.text("worker/oci/binary").filter(|b| !b.is_empty()).map(str::to_string);
        self.rootless = s.bool("worker/oci/rootless").unwrap_or(self.rootless);
        self.no_process_sandbox = s.bool("worker/oci/noProcessSandbox") == Some(true);
        self.cgroup_parent = s.text("worker/oci/defaultCgroupParent").unwrap_or_default().to_string();
        if let Some(limit) = s.int("worker/oci/max-parallelism") {
            self.max_parallelism = usize::try_from(limit).map_err(|_| {
                ("worker.oci.max-parallelism".to_string(), "must not be negative".to_string())
            })?;
        }
        self.gc = s.bool("worker/oci/gc").unwrap_or(true);
        self.reserved_space =
            s.size("worker/oci/reservedSpace").or_else(|| s.size("worker/oci/gckeepstorage"));
        self.max_used_space = s.size("worker/oci/maxUsedSpace");
        self.min_free_space = s.size("worker/oci/minFreeSpace");
        self.gc_policies = s
            .groups("worker/oci/gcpolicy")
            .iter()
            .map(|g| GcPolicy {
                all: g.bool("all").unwrap_or(false),
                filters: g.list("filters"),
                keep_duration: g.time("keepDuration"),
                reserved_space: g.size("reservedSpace").or_else(|| g.size("keepBytes")),
                max_used_space: g.size("maxUsedSpace"),
                min_free_space: g.size("minFreeSpace"),
            })
            .collect();
        Ok(())
    }
}

fn id(s: &Settings, path: &str) -> Result<Option<u32>, (String, String)> {
    s.int(path)
        .map(|v| {
            u32::try_from(v)
                .map_err(|_| (path.replace('/', "."), "must be a user or group number".to_string()))
        })
        .transpose()
}

fn registry(s: &Settings, host: &str) -> Registry {
    let at = |key: &str| format!("registry/{host}/{key}");
    let paths = |key: &str| s.list(&at(key)).into_iter().map(PathBuf::from).collect();
    Registry {
        mirrors: s.list(&at("mirrors")),
        http: s.bool(&at("http")),
        insecure: s.bool(&at("insecure")),
        ca: paths("ca"),
        keypairs: s
            .groups(&at("keypair"))
            .iter()
            .filter_map(|g| Some((PathBuf::from(g.text("key")?), PathBuf::from(g.text("cert")?))))
            .collect(),
        tls_config_dirs: paths("tlsconfigdir"),
    }
}

/// The snapshotters there are.
pub(crate) fn check_snapshotter(name: &str) -> Result<String, String> {
    match name {
        "auto" | "overlayfs" | "fuse-overlayfs" | "native" => Ok(name.to_string()),
        other => Err(format!(
            "snapshotter {other:?} is not available; use \"auto\", \"overlayfs\", \"fuse-overlayfs\" or \"native\""
        )),
    }
}

/// The first line that sets the last name of a dotted key; for messages.
fn line_of_key(text: &str, key: &str) -> usize {
    let name = key.rsplit('.').next().unwrap_or(key);
    text.lines().position(|l| l.trim_start().starts_with(name)).map_or(0, |at| at + 1)
}

#[cfg(test)]
mod config_tests;
#[cfg(test)]
mod examples_tests;
#[cfg(test)]
mod kubernetes_tests;
