//! What the tests of this folder share: a daemon's parts, a client, and a build that listens.
#![allow(dead_code, clippy::unwrap_used)]

pub mod git_daemon;
pub mod signers;
pub mod web;

use crosskit_api::pb;
use crosskit_images::ContentStore;
use crosskit_images::registry::RegistryHosts;
use crosskit_metadata::Database;
use crosskit_session::{SessionManager, SessionServer};
use crosskit_snapshots::{Ref, Snapshots};
use crosskit_sources::{BuildMemory, Parts, SourceContext, Sources, Status};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

pub struct Daemon {
    pub dir: tempfile::TempDir,
    pub sources: Sources,
    pub snapshots: Snapshots,
    pub sessions: SessionManager,
}

impl Daemon {
    pub fn new() -> Daemon {
        Self::with(RegistryHosts::default())
    }

    pub fn with(registries: RegistryHosts) -> Daemon {
        crosskit_images::registry::install_crypto_provider();
        let dir = tempfile::tempdir().unwrap();
        let database = Database::open(dir.path().join("metadata.db")).unwrap();
        let content = ContentStore::open(dir.path().join("content")).unwrap();
        let snapshots = Snapshots::open(dir.path().join("root"), database.clone(), content).unwrap();
        let scratch = dir.path().join("scratch");
        std::fs::create_dir(&scratch).unwrap();
        let sessions = SessionManager::new();
        let sources = Sources::new(Parts {
            sessions: sessions.clone(),
            snapshots: snapshots.clone(),
            database,
            registries,
            scratch,
            http: crosskit_sources::lazy_http(),
        });
        Daemon { dir, sources, snapshots, sessions }
    }

    /// Connects a client. It stays as long as the daemon. Returns its id.
    pub async fn connect(&self, client: SessionServer) -> String {
        let id = client.id().to_string();
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        let (manager, headers) = (self.sessions.clone(), client.headers());
        tokio::spawn(async move { manager.handle(ours, &headers).await });
        tokio::spawn(client.serve(theirs));
        self.sessions.get(&id, crosskit_session::WAIT_FOR_SESSION).await.unwrap();
        id
    }

    /// Brings an input here. Returns its keys, its pin and its files.
    pub async fn bring(&self, build: &Arc<Build>, op: pb::SourceOp) -> Result<Brought, String> {
        let cx: Arc<dyn SourceContext> = build.clone();
        let source = self.sources.resolve(&op, None).map_err(|err| err.to_string())?;
        let mut keys = Vec::new();
        let mut pin = String::new();
        while let Some(key) = source.key(&cx, keys.len()).await.map_err(|err| err.to_string())? {
            keys.push(key.key);
            pin = key.pin;
        }
        let reference = source.snapshot(&cx).await.map_err(|err| err.to_string())?;
        Ok(Brought { keys, pin, reference })
    }
}

pub struct Brought {
    pub keys: Vec<String>,
    pub pin: String,
    pub reference: Option<Ref>,
}

impl Brought {
    /// All paths with kind, mode, owner, size and content of files or target of links, sorted.
    pub async fn files(&self) -> Vec<String> {
        let mounted = self.reference.as_ref().unwrap().mount_readonly().await.unwrap();
        files(mounted.path())
    }
}

pub fn files(dir: &Path) -> Vec<String> {
    let script = "find . -mindepth 1 -name .git -prune -o -mindepth 1 -printf '%P %y %m %U:%G %l' -type f -printf ' ' -exec cat {} ';' -printf '\\n' -o -mindepth 1 -printf '\\n'";
    let out = Command::new("sh").arg("-c").arg(script).current_dir(dir).output().unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    let mut lines: Vec<String> =
        text.lines().map(|l| l.trim_end().to_string()).filter(|l| !l.is_empty()).collect();
    lines.sort();
    lines
}

pub fn op(identifier: &str, attrs: &[(&str, &str)]) -> pb::SourceOp {
    let attrs: BTreeMap<_, _> = attrs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    pb::SourceOp { identifier: identifier.into(), attrs }
}

/// A build that remembers what it is told.
#[derive(Default)]
pub struct Build {
    pub sessions: Vec<String>,
    pub told: Mutex<Vec<(String, String, u64, bool)>>,
    pub logged: Mutex<String>,
    pub compatibility: u32,
    pub memory: Arc<BuildMemory>,
}

impl Build {
    pub fn of(session: &str) -> Arc<Build> {
        Arc::new(Build { sessions: vec![session.to_string()], ..Build::default() })
    }

    pub fn alone() -> Arc<Build> {
        Arc::default()
    }

    /// The lines of progress that were told, and whether each ended.
    pub fn lines(&self) -> BTreeMap<String, bool> {
        let told = self.told.lock().unwrap();
        told.iter().map(|(id, _, _, done)| (id.clone(), *done)).collect()
    }
}

impl SourceContext for Build {
    fn sessions(&self) -> Vec<String> {
        self.sessions.clone()
    }

    fn status(&self, status: Status<'_>) {
        let line = (status.id.to_string(), status.name.to_string(), status.current, status.done);
        self.told.lock().unwrap().push(line);
    }

    fn log(&self, _: i32, text: &[u8]) {
        self.logged.lock().unwrap().push_str(&String::from_utf8_lossy(text));
    }

    fn memory(&self) -> Option<Arc<BuildMemory>> {
        Some(self.memory.clone())
    }

    fn compatibility_version(&self) -> u32 {
        self.compatibility
    }
}

pub fn shell(dir: &Path, script: &str) {
    let done = Command::new("sh").arg("-ec").arg(script).current_dir(dir).output().unwrap();
    assert!(done.status.success(), "{script}: {}", String::from_utf8_lossy(&done.stderr));
}

/// A folder that goes with the test.
pub fn folder() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_path_buf();
    (dir, path)
}
