//! A worker elsewhere, reached by BuildKit's protocol: our own daemon or any other.
//!
//! A step goes there as a build of its own. Its inputs are images in a content store that our
//! session lends, its results come back as blobs into another, and what the step asks of the
//! client (secrets, ssh agents, credentials) is passed on to the client's session. The worker
//! keeps nothing that the next step could not do without.

mod boundary;
mod connection;
mod definition;
mod error;
mod folders;
mod health;
mod inputs;
mod lent;
mod lost;
mod made;
mod probe;
mod proxies;
mod pulled;
mod pulls;
mod received;
mod refusals;
mod results;
mod serving;
mod session;
mod solve;
mod status;
mod step;
mod tls;

pub use error::RemoteError;
pub use health::Health;
pub use probe::Facts;
pub(crate) use probe::{EMULATED, PARALLELISM, PLATFORM};

use connection::Target;
use crosskit_platforms::Platform;
use crosskit_scheduler::Entitlements;
use health::Watch;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Semaphore;

/// How often a worker is asked whether it is there.
pub const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// How long a worker may be silent before its steps move on. Four missed answers.
pub const DEAD_AFTER: Duration = Duration::from_secs(5);

/// Layers of results that come from one worker at a time. What ends first can be used first.
const ARRIVALS: usize = 4;

/// Files that say who we are and whom we trust, in PEM form.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// Who may have signed the worker's certificate.
    pub ca: Option<PathBuf>,
    /// Our certificate.
    pub cert: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
    /// The name that the worker's certificate has to bear; empty for the address's host.
    pub server_name: String,
}

/// How a worker is reached and what it may be given.
#[derive(Debug, Clone)]
pub struct RemoteOptions {
    /// What people call it.
    pub name: String,
    /// `unix:///path` or `tcp://host:port`.
    pub addr: String,
    /// What it runs; empty for what it says is native.
    pub platforms: Vec<Platform>,
    /// This endpoint's share of it; none for what it says itself.
    pub slots: Option<usize>,
    /// For `tcp://`.
    pub tls: Option<Tls>,
    /// Whether `tcp://` may go without TLS.
    pub insecure: bool,
    /// Whether it may be given secrets as environment variables even if it is no daemon of ours:
    /// others write them into a file on their disk.
    pub allow_secret_env: bool,
    /// How often it is asked whether it is there.
    pub probe_interval: Duration,
    /// How long it may be silent.
    pub dead_after: Duration,
}

impl RemoteOptions {
    /// A worker at an address, with what is usual.
    pub fn new(name: impl Into<String>, addr: impl Into<String>) -> Self {
        RemoteOptions {
            name: name.into(),
            addr: addr.into(),
            platforms: Vec::new(),
            slots: None,
            tls: None,
            insecure: false,
            allow_secret_env: false,
            probe_interval: PROBE_INTERVAL,
            dead_after: DEAD_AFTER,
        }
    }
}

/// Bytes of blobs that travelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// From here to the worker.
    pub sent: u64,
    /// From the worker to here.
    pub received: u64,
}

/// Counts [`Traffic`] while it happens.
#[derive(Debug, Default)]
struct Counters {
    sent: AtomicU64,
    received: AtomicU64,
}

/// A worker elsewhere. Cheap to clone; with the last clone it is no longer watched.
#[derive(Clone)]
pub struct RemoteWorker(Arc<Inner>);

struct Inner {
    options: RemoteOptions,
    target: Target,
    watch: Watch,
    /// What it said when it was last asked.
    facts: Mutex<Option<Facts>>,
    counters: Arc<Counters>,
    /// For layers of results that come here at the same time.
    arrivals: Arc<Semaphore>,
    /// Registries whose images it did not get, and when that was.
    out_of_reach: Mutex<HashMap<String, tokio::time::Instant>>,
    /// What it has turned out not to let steps do.
    lacks: Mutex<Entitlements>,
}

impl RemoteWorker {
    /// A worker that nobody has talked to yet.
    ///
    /// # Errors
    /// An address that makes no sense, or one that would be used without TLS though nobody
    /// allowed that.
    pub fn new(options: RemoteOptions) -> Result<Self, RemoteError> {
        let fault = |why| RemoteError::worker(&options.name, why);
        let target = Target::new(&options).map_err(fault)?;
        let watch = Watch::default();
        let (facts, counters, out_of_reach, lacks) = Default::default();
        let arrivals = Arc::new(Semaphore::new(ARRIVALS));
        Ok(RemoteWorker(Arc::new(Inner {
            options,
            target,
            watch,
            facts,
            counters,
            arrivals,
            out_of_reach,
            lacks,
        })))
    }

    /// What people call it.
    pub fn name(&self) -> &str {
        &self.0.options.name
    }

    /// How it is reached and what it may be given.
    pub fn options(&self) -> &RemoteOptions {
        &self.0.options
    }

    /// Bytes of blobs that travelled since it is known.
    pub fn traffic(&self) -> Traffic {
        let counters = &self.0.counters;
        Traffic {
            sent: counters.sent.load(Ordering::Relaxed),
            received: counters.received.load(Ordering::Relaxed),
        }
    }

    fn fault(&self, why: impl Into<String>) -> RemoteError {
        RemoteError::worker(self.name(), why)
    }
}

impl std::fmt::Debug for RemoteWorker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("RemoteWorker").field(&self.name()).finish()
    }
}
