//! Starting the daemon, and stopping it so that nothing is left behind.

use crate::builds::{Builder, gc_policies};
use crate::config::{Cdi, Config, SignedCaches, Verify};
use crate::history::{History, HistoryError};
use crate::listeners::{Connection, ListenError, Listeners};
use crate::root::{Root, RootError};
use crate::{collection, content, control, environment, farm};
use crosskit_api::MAX_MESSAGE;
use crosskit_api::content::content_server::ContentServer;
use crosskit_api::control::control_server::ControlServer;
use crosskit_api::farm::farm_server::FarmServer;
use crosskit_api::frontend::llb_bridge_server::LlbBridgeServer;
use crosskit_api::health::health_server::HealthServer;
use crosskit_cache::Cache;
use crosskit_exec::devices::Devices;
use crosskit_exporters::{Exporters, ImageParts};
use crosskit_gateway::admission::DEVICE;
use crosskit_gateway::bridge::{Frontends, Shared};
use crosskit_gateway::builds::Builds;
use crosskit_gateway::server::Calls;
use crosskit_gateway::{Producers, health};
use crosskit_images::ContentStore;
use crosskit_images::registry::{HostConfig, KeyPair, RegistryHosts};
use crosskit_metadata::Database;
use crosskit_remotecache::{GithubCaches, RemoteCacheError, RemoteCaches, Verification, Writers};
use crosskit_scheduler::Policy;
use crosskit_session::SessionManager;
use crosskit_snapshots::{DriverChoice, Snapshots};
use crosskit_solver::{LogLimits, Solver};
use crosskit_workers::{WorkerOptions, Workers};
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::DuplexStream;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Mutex, Notify, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long running builds have to end once the daemon is told to stop.
const STOP_WITHIN: Duration = Duration::from_secs(4);

/// Flow-control windows of HTTP/2, in bytes: a client's files come through one stream.
const STREAM_WINDOW: u32 = 4 << 20;

/// The same for a whole connection.
const CONNECTION_WINDOW: u32 = 16 << 20;

/// Bytes that may be on their way within this process.
const PIPE: usize = 1 << 20;

/// The largest HTTP/2 frame taken, in bytes.
const MAX_FRAME: u32 = 1 << 20;

/// Why the daemon can't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// It may not do what steps need.
    #[error(
        "CAP_SYS_ADMIN is needed for the mounts and namespaces of steps, and this process lacks it: run it as root, its \
         container with --privileged, or as an ordinary user with --rootless; crosskit doctor says what else is missing here"
    )]
    Rights,
    /// The root folder can't be used.
    #[error(transparent)]
    Root(#[from] RootError),
    /// An address can't be listened at.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// A part of the state can't be read.
    #[error("{part}: {why}")]
    State {
        /// Which part.
        part: &'static str,
        /// What went wrong.
        why: String,
    },
}

impl From<HistoryError> for StartError {
    fn from(error: HistoryError) -> Self {
        state("build history")(error)
    }
}

fn state<E: std::fmt::Display>(part: &'static str) -> impl FnOnce(E) -> StartError {
    move |e| StartError::State { part, why: e.to_string() }
}

/// Without the database nobody knows what the files of snapshots are of: they are taken away, which is to be told.
fn warn_of_lost_metadata(root: &Path) {
    let known = root.join("metadata.db").exists();
    let snapshots = std::fs::read_dir(root.join("snapshots/snapshots")).map_or(0, Iterator::count);
    if !known && snapshots > 0 {
        tracing::error!(
            root = %root.display(), snapshots,
            "the metadata database is gone: an empty one takes its place, and snapshots that nobody knows are removed; \
             earlier results will be built again",
        );
    }
}

/// A running daemon.
pub struct Daemon {
    addresses: Vec<String>,
    connections: mpsc::Sender<std::io::Result<Connection>>,
    stop: CancellationToken,
    serving: TaskTracker,
    workers: Workers,
    history: History,
    db: Database,
    // Dropped last: sockets go, then the lock.
    _listeners: Listeners,
    _root: Root,
}

impl Daemon {
    /// Starts a daemon: when this returns, every address takes connections.
    ///
    /// # Errors
    /// A root folder that is in use, an address that is taken, state that can't be read.
    pub async fn start(config: Config) -> Result<Daemon, StartError> {
        if !crosskit_exec::own_capabilities().contains(&"CAP_SYS_ADMIN") {
            return Err(StartError::Rights);
        }
        crosskit_images::registry::install_crypto_provider();
        let root = Root::open(&config.root)?;
        let mut listeners = Listeners::bind(&config)?;
        if listeners.is_open_to_all() {
            tracing::warn!(
                "TLS is not enabled for TCP addresses: whoever reaches them may use the daemon; \
                 give --tlscert, --tlskey and --tlscacert"
            );
        }
        warn_of_lost_metadata(root.path());
        let db = Database::open(root.path().join("metadata.db")).map_err(state("metadata"))?;
        let content = ContentStore::open(root.path().join("content")).map_err(state("content store"))?;
        let snapshots = Snapshots::open_with(
            root.path().join("snapshots"),
            db.clone(),
            content.clone(),
            driver(&config.worker.snapshotter),
        )
        .map_err(state("snapshots"))?;
        let sessions = SessionManager::new();
        let images = ImageParts { content, registries: registries(&config)? };
        let workers = Workers::start(WorkerOptions {
            root: root.path().to_path_buf(),
            snapshots: snapshots.clone(),
            sessions: sessions.clone(),
            registries: images.registries.clone(),
            database: db.clone(),
            http: crosskit_sources::lazy_http(),
            labels: config.worker.labels.clone(),
            platforms: config.worker.platforms.clone(),
            network: config.worker.network.clone().from_environment(),
            binary: config.worker.binary.clone(),
            rootless: config.worker.rootless,
            shares_processes: config.worker.no_process_sandbox,
            cgroup_parent: config.worker.cgroup_parent.clone(),
            max_parallelism: config.worker.max_parallelism,
            devices: devices(&config.cdi),
            policy: Policy { prefer: config.farm.prefer.clone(), ..Policy::default() },
            emulated_slots: config.farm.emulated_slots,
            remotes: config.farm.workers.clone(),
            searches: config.farm.searches.clone(),
            dns: config.dns.clone().map(dns).transpose()?,
        })
        .map_err(state("worker"))?;
        workers.start_network().await.map_err(state("network of steps"))?;
        let cache = Cache::new("local", Arc::new(db.clone()), workers.results());
        let solver = Solver::new(cache.clone(), workers.resolver(), log_limits());
        let history = History::open(db.clone(), snapshots.content().clone(), config.history);
        let forwarded = Builds::default();
        let shared = Shared {
            workers: workers.clone(),
            sessions: sessions.clone(),
            frontends: Frontends {
                dockerfile: config.frontends.dockerfile,
                gateway: config.frontends.gateway,
                gateway_repositories: config.frontends.gateway_repositories.clone(),
            },
            caches: RemoteCaches {
                sessions: sessions.clone(),
                registries: images.registries.clone(),
                snapshots: snapshots.clone(),
                github: github_caches(&config.github_caches).map_err(state("config"))?,
                writers: Writers::default(),
            },
            on_failure: config.farm.on_failure,
            producers: Producers::default(),
            proxied: config.proxy_network,
        };
        let ended = Arc::new(Notify::new());
        let stop = CancellationToken::new();
        let builder = Arc::new(Builder {
            shared,
            solver,
            cache,
            exporters: Exporters { sessions: sessions.clone(), images },
            forwarded: forwarded.clone(),
            history: history.clone(),
            snapshots,
            entitlements: entitlements(&config),
            provenance_environment: environment::read(config.provenance_folder.as_deref())
                .map_err(state("config"))?,
            gc: gc_policies(&config, disk_size(root.path())),
            ended: Arc::clone(&ended),
            stop: stop.clone(),
            running: Arc::default(),
            collecting: Mutex::default(),
        });
        let serving = TaskTracker::new();
        let blobs = content::Service(builder.snapshots.content().clone());
        let service = control::Service {
            builder: Arc::clone(&builder),
            sessions,
            history: history.clone(),
            stop: stop.clone(),
        };
        let (connections, accepted) = listeners.accept();
        let farm = farm::Service(workers.clone());
        serving.spawn(serve(accepted, service, Calls::ByBuild(forwarded), blobs, farm, stop.clone()));
        serving.spawn(collection::run(Arc::clone(&builder), ended, stop.clone()));
        serving.close();
        let addresses = listeners.addresses().to_vec();
        Ok(Daemon {
            addresses,
            connections,
            stop,
            serving,
            workers,
            history,
            db,
            _listeners: listeners,
            _root: root,
        })
    }

    /// Where it takes connections, with the ports that were really taken.
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// Does in the background what the first build would have to wait for.
    pub fn warm(&self) {
        let workers = self.workers.clone();
        tokio::spawn(async move { workers.warm().await });
    }

    /// A connection from within this process; None once the daemon stops.
    pub async fn connect(&self) -> Option<DuplexStream> {
        let (ours, theirs) = tokio::io::duplex(PIPE);
        self.connections.send(Ok(Connection::Memory(theirs))).await.ok()?;
        Some(ours)
    }

    /// Stops: running builds are cancelled, their processes and mounts gone when this returns.
    pub async fn stop(self) {
        self.stop.cancel();
        let quiet = async {
            self.workers.shutdown().await;
            self.serving.wait().await;
            self.history.settled(None).await;
        };
        if tokio::time::timeout(STOP_WITHIN, quiet).await.is_err() {
            tracing::warn!("some connections did not end within {STOP_WITHIN:?}");
        }
        let db = self.db.clone();
        match tokio::task::spawn_blocking(move || db.flush()).await {
            Ok(Ok(())) => {}
            Ok(Err(e)) => tracing::error!("writing metadata: {e}"),
            Err(e) => tracing::error!("writing metadata: {e}"),
        }
    }
}

async fn serve(
    connections: mpsc::Receiver<std::io::Result<Connection>>,
    control: control::Service,
    calls: Calls,
    blobs: content::Service,
    farm: farm::Service,
    stop: CancellationToken,
) {
    let served = tonic::transport::Server::builder()
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(MAX_FRAME)
        .add_service(
            ControlServer::new(control)
                .max_decoding_message_size(MAX_MESSAGE)
                .max_encoding_message_size(MAX_MESSAGE),
        )
        .add_service(
            LlbBridgeServer::new(calls)
                .max_decoding_message_size(MAX_MESSAGE)
                .max_encoding_message_size(MAX_MESSAGE),
        )
        .add_service(ContentServer::new(blobs).max_encoding_message_size(MAX_MESSAGE))
        .add_service(FarmServer::new(farm))
        .add_service(HealthServer::new(health::Service))
        .serve_with_incoming_shutdown(ReceiverStream::new(connections), stop.cancelled())
        .await;
    if let Err(e) = served {
        tracing::error!("serving: {e}");
    }
}

/// SIGTERM and SIGINT, which tell a daemon to stop.
pub struct StopSignals(std::io::Result<(Signal, Signal)>);

impl StopSignals {
    /// From now on the signals do not end the process, but wait until somebody asks for them.
    pub fn listen() -> StopSignals {
        let terminate = signal(SignalKind::terminate());
        StopSignals(terminate.and_then(|terminate| Ok((terminate, signal(SignalKind::interrupt())?))))
    }

    /// Waits for one of them.
    pub async fn told(self) {
        match self.0 {
            Ok((mut terminate, mut interrupt)) => {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
            }
            Err(e) => {
                tracing::error!("cannot listen for signals: {e}");
                std::future::pending::<()>().await;
            }
        }
    }
}

fn disk_size(path: &std::path::Path) -> i64 {
    rustix::fs::statvfs(path)
        .map_or(0, |s| i64::try_from(s.f_blocks.saturating_mul(s.f_frsize)).unwrap_or(i64::MAX))
}

fn devices(config: &Cdi) -> Devices {
    match config.disabled {
        true => Devices::disabled(),
        false => Devices::new(config.spec_folders.clone(), config.auto_allowed.clone()),
    }
}

/// How caches with GitHub are signed and verified: by a trusted root that is there, or the daemon does not start.
fn github_caches(config: &SignedCaches) -> Result<GithubCaches, RemoteCacheError> {
    let verify = |verify: &Verify| Verification::new(verify.trusted_root.clone(), verify.policy.clone());
    let verify = config.verify.as_ref().map(verify).transpose()?;
    Ok(GithubCaches { sign: config.sign.clone(), verify })
}

/// What builds may ask for: devices may always be asked for, and each has its own say.
fn entitlements(config: &Config) -> Vec<String> {
    let mut all = config.entitlements.clone();
    if !config.cdi.disabled {
        all.push(DEVICE.to_string());
    }
    all
}

fn dns(given: crate::config::Dns) -> Result<crosskit_exec::DnsConfig, StartError> {
    let parse = |text: &String| {
        text.parse().map_err(|e| StartError::State { part: "dns.nameservers", why: format!("{text:?}: {e}") })
    };
    Ok(crosskit_exec::DnsConfig {
        nameservers: given.nameservers.iter().map(parse).collect::<Result<_, _>>()?,
        options: given.options,
        search: given.search_domains,
    })
}

fn driver(name: &str) -> DriverChoice {
    match name {
        "overlayfs" => DriverChoice::Overlay,
        "fuse-overlayfs" => DriverChoice::FuseOverlay,
        "native" => DriverChoice::Native,
        _ => DriverChoice::Auto,
    }
}

fn registries(config: &Config) -> Result<RegistryHosts, StartError> {
    let mut hosts = HashMap::new();
    for (host, given) in &config.registries {
        let mut found = HostConfig {
            mirrors: given.mirrors.clone(),
            http: given.http,
            insecure: given.insecure,
            ca: given.ca.clone(),
            key_pairs: given
                .keypairs
                .iter()
                .map(|(key, cert)| KeyPair { key: key.clone(), cert: cert.clone() })
                .collect(),
        };
        found.add_tls_folders(&given.tls_config_dirs).map_err(state("TLS folders of a registry"))?;
        hosts.insert(host.clone(), found);
    }
    Ok(match config.max_registry_concurrency {
        Some(transfers) => RegistryHosts::with_transfers(hosts, transfers),
        None => RegistryHosts::new(hosts),
    })
}

/// How much of a step's output clients get, as the environment says.
fn log_limits() -> LogLimits {
    let var = |name: &str| std::env::var(name).ok();
    let (size, speed) = (var("BUILDKIT_STEP_LOG_MAX_SIZE"), var("BUILDKIT_STEP_LOG_MAX_SPEED"));
    LogLimits::from_values(size.as_deref(), speed.as_deref())
}
