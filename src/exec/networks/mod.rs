//! The network of steps that ask for none in particular: the machine's own, or one that CNI plugins make for each.

mod bridge;
mod given;
mod lists;
pub(crate) mod namespaces;
mod plugins;
mod pool;
mod proxied;
mod sandboxes;

#[cfg(test)]
mod networks_tests;
#[cfg(test)]
mod pool_tests;

use std::{
    fs,
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use crosskit_proxynet::Trust;
use tokio::task::JoinError;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    DEFAULT_HOSTNAME, Error, Network, Process, Result, Security, error::file_error, usage::Interfaces,
};
use bridge::Bridge;
pub(crate) use given::Given;
use lists::NetworkList;
use pool::Pool;
use proxied::Proxied;
use sandboxes::{Note, Sandboxes};

/// Where a network's description is expected if nothing else is said (BuildKit util/appdefaults).
pub const DEFAULT_CONFIG: &str = "/etc/buildkit/cni.json";
/// Name of the bridge if nothing else is said (BuildKit util/appdefaults).
pub const DEFAULT_BRIDGE: &str = "buildkit0";
/// Its subnet if nothing else is said (BuildKit util/appdefaults).
pub const DEFAULT_SUBNET: &str = "10.10.0.0/16";
/// Where plugins are looked for if nothing is said: BuildKit's default, then where distributions install them.
const PLUGIN_FOLDERS: [&str; 3] = ["/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni"];

/// How long the end of a daemon waits for others that share its network.
const LOCK_WITHIN: Duration = Duration::from_secs(10);

/// Which network sandboxed steps get (`networkMode`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NetworkMode {
    /// That of the described network if there is a description, else the machine's own.
    Auto,
    /// The machine's own.
    #[default]
    Host,
    /// One on a bridge with a subnet.
    Bridge,
    /// One that a description says how to make.
    Cni,
}

impl FromStr for NetworkMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" | "" => Ok(Self::Auto),
            "host" => Ok(Self::Host),
            "bridge" => Ok(Self::Bridge),
            "cni" => Ok(Self::Cni),
            other => {
                Err(format!("unknown network mode {other:?}; use \"auto\", \"bridge\", \"cni\" or \"host\""))
            }
        }
    }
}

/// How the network of sandboxed steps is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkOptions {
    /// Which it is.
    pub mode: NetworkMode,
    /// The description: a CNI network configuration, or a list of them.
    pub config: PathBuf,
    /// Folder of the plugins; None for the usual ones.
    pub plugins: Option<PathBuf>,
    /// How many namespaces are kept ready.
    pub pool_size: usize,
    /// Name of the bridge.
    pub bridge: String,
    /// Its subnet, as `10.10.0.0/16`.
    pub subnet: String,
    /// Whether [`NetworkMode::Auto`] means the bridge.
    pub auto_bridge: bool,
    /// Locked while the first namespace is made, for daemons that share a network.
    pub init_lock: Option<PathBuf>,
}

impl Default for NetworkOptions {
    fn default() -> Self {
        Self {
            mode: NetworkMode::default(),
            config: DEFAULT_CONFIG.into(),
            plugins: None,
            pool_size: 0,
            bridge: DEFAULT_BRIDGE.to_owned(),
            subnet: DEFAULT_SUBNET.to_owned(),
            auto_bridge: false,
            init_lock: None,
        }
    }
}

impl NetworkOptions {
    /// With what this process's environment says about networks, as BuildKit takes it: `BUILDKIT_NETWORK_BRIDGE_AUTO` and
    /// `BUILDKIT_CNI_INIT_LOCK_PATH`.
    pub fn from_environment(mut self) -> Self {
        let value = |name| std::env::var(name).unwrap_or_default();
        let yes = ["1", "t", "T", "TRUE", "true", "True"];
        self.auto_bridge = yes.contains(&value("BUILDKIT_NETWORK_BRIDGE_AUTO").as_str());
        self.init_lock =
            Some(value("BUILDKIT_CNI_INIT_LOCK_PATH")).filter(|path| !path.is_empty()).map(PathBuf::from);
        self
    }

    /// The folder of plugins: the one that was named, or the first usual one that exists.
    fn plugin_folder(&self) -> PathBuf {
        let usual = || {
            let there = PLUGIN_FOLDERS.iter().find(|folder| Path::new(folder).is_dir());
            PathBuf::from(there.unwrap_or(&PLUGIN_FOLDERS[0]))
        };
        self.plugins.clone().unwrap_or_else(usual)
    }

    /// What makes the network, None for the machine's own; with the bridge if it is one of ours.
    fn choose(&self) -> Result<Option<(NetworkList, Vec<PathBuf>, bool)>> {
        let described = || -> Result<_> {
            let folder = self.plugin_folder();
            if !folder.is_dir() {
                let why = "there is no such folder; install the CNI plugins or name their folder".to_owned();
                return Err(setup("finding CNI plugins", &folder, why));
            }
            let list = NetworkList::read(&self.config)?;
            tracing::info!(config = %self.config.display(), plugins = %folder.display(), "network of steps: CNI");
            Ok(Some((list, vec![folder], false)))
        };
        let bridged = || -> Result<_> {
            let (list, folders) = bridge::list(&self.bridge, &self.subnet, &self.plugin_folder())?;
            tracing::info!(bridge = self.bridge, subnet = self.subnet, "network of steps: bridge");
            Ok(Some((list, folders, true)))
        };
        match self.mode {
            NetworkMode::Cni => described(),
            NetworkMode::Bridge => bridged(),
            NetworkMode::Auto if self.auto_bridge => bridged(),
            NetworkMode::Auto if self.config.exists() => described(),
            NetworkMode::Auto => {
                tracing::info!("using host network as the default");
                Ok(None)
            }
            NetworkMode::Host => Ok(None),
        }
    }
}

/// What went wrong with a file or folder of networks.
fn setup(doing: &str, what: &Path, why: String) -> Error {
    Error::Network { doing: format!("{doing} {}", what.display()), why }
}

/// Where an executor keeps what it needs for networks.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    /// Folder for the namespaces' files.
    pub(crate) namespaces: PathBuf,
    /// Folder with a note for each namespace, on disk: plugins remember addresses across restarts of the machine.
    pub(crate) notes: PathBuf,
}

/// The network of an executor's sandboxes.
#[derive(Debug)]
pub(crate) struct Networks {
    plugged: Option<Plugged>,
    places: Places,
    init_lock: Option<PathBuf>,
    tasks: TaskTracker,
    closing: CancellationToken,
    /// Who vouches for servers that steps behind a proxy ask.
    trust: Trust,
}

#[derive(Debug)]
struct Plugged {
    pool: Pool<Sandboxes>,
    bridge: Option<Bridge>,
}

/// A namespace that a container may use; it goes back when this is dropped.
#[derive(Debug)]
pub(crate) struct Lease(pool::Lease<Sandboxes>);

impl Lease {
    /// The file that stands for the namespace.
    pub(crate) fn path(&self) -> &Path {
        self.0.item().path()
    }

    /// The counters of its interfaces.
    pub(crate) fn interfaces(&self) -> Option<&Interfaces> {
        self.0.item().interfaces()
    }

    /// This file, open.
    pub(crate) fn open(&self) -> Result<Arc<fs::File>> {
        let path = self.path();
        fs::File::open(path).map(Arc::new).map_err(file_error("opening the namespace", path))
    }
}

impl Networks {
    /// Decides what the network is. Makes nothing yet.
    pub(crate) fn new(
        options: &NetworkOptions,
        places: Places,
        tasks: TaskTracker,
        closing: CancellationToken,
    ) -> Result<Self> {
        let plugged = match options.choose()? {
            None => None,
            Some((list, folders, has_bridge)) => {
                fs::create_dir_all(&places.notes).map_err(file_error("making", &places.notes))?;
                let sandboxes = Sandboxes { list, folders, places: places.clone() };
                let pool = Pool::new(sandboxes, options.pool_size, tasks.clone(), closing.clone());
                let bridge = has_bridge.then(|| Bridge::new(&options.bridge, &places.notes));
                Some(Plugged { pool, bridge })
            }
        };
        Ok(Self {
            plugged,
            places,
            init_lock: options.init_lock.clone(),
            tasks,
            closing,
            trust: Trust::default(),
        })
    }

    /// Its name in the worker's label (BuildKit worker/label): a bridge is made by CNI plugins too.
    pub(crate) fn label(&self) -> &'static str {
        if self.plugged.is_some() { "cni" } else { "host" }
    }

    /// Undoes what an earlier executor has left, in the background, and makes the first namespace, so that it is known
    /// whether the network can be had.
    pub(crate) async fn start(&self) -> Result<()> {
        let left = Note::all(&self.places.notes);
        namespaces::remove_unknown(&self.places.namespaces, &left);
        if !left.is_empty() {
            let (places, closing) = (self.places.clone(), self.closing.clone());
            self.tasks.spawn(async move {
                tokio::select! {
                    () = closing.cancelled() => {}
                    () = sandboxes::undo_all(left, places) => {}
                }
            });
        }
        Note::remove_unfinished(&self.places.notes);
        let current = self.plugged.as_ref().and_then(|plugged| plugged.bridge.as_ref());
        bridge::remove_other(&self.places.notes, current);
        let Some(plugged) = &self.plugged else { return Ok(()) };
        let _alone = match &self.init_lock {
            None => None,
            Some(path) => Some(lock(path.clone()).await?),
        };
        if let Some(bridge) = &plugged.bridge {
            bridge.claim()?;
        }
        match plugged.pool.get().await {
            Ok(lease) => drop(lease),
            Err(error) => {
                self.shutdown().await;
                return Err(error);
            }
        }
        plugged.pool.fill();
        Ok(())
    }

    /// The network of a process.
    pub(crate) fn give(
        self: &Arc<Self>,
        process: &Process,
    ) -> impl Future<Output = Result<Given>> + Send + use<> {
        let (networks, network) = (self.clone(), process.network);
        let proxied = process.proxy.clone().map(|rules| (rules, process.extra_hosts.clone()));
        // Behind a proxy, the process has no name in what its requests leave by, and cannot change it.
        let (hostname, security) = match &proxied {
            Some(_) => (String::new(), Security::Sandbox),
            None => (process.hostname.clone(), process.security),
        };
        async move {
            let lent = match network {
                Network::None => return Ok(Given::Plain),
                Network::Host => None,
                Network::Sandbox => networks.lease(hostname, security).await?,
            };
            let Some((rules, hosts)) = proxied else {
                return Ok(lent.map_or(Given::Plain, |lease| Given::Lent(Box::new(lease))));
            };
            let (folder, trust) = (networks.places.namespaces.clone(), networks.trust.clone());
            let proxied = Proxied::start(folder, lent, hosts, trust, rules).await?;
            Ok(Given::Proxied(Box::new(proxied)))
        }
    }

    /// A namespace for a process with this hostname; None if it gets the machine's network.
    async fn lease(self: &Arc<Self>, hostname: String, security: Security) -> Result<Option<Lease>> {
        if self.plugged.is_none() {
            return Ok(None);
        }
        let hostname = Some(hostname).filter(|name| !name.is_empty() && name != DEFAULT_HOSTNAME);
        let networks = self.clone();
        // A task of its own: a plugin that is at work is not interrupted, and what it has made is not lost.
        let getting = self.tasks.spawn(async move {
            let Some(plugged) = &networks.plugged else { return Ok(None) };
            let lease = match hostname {
                None => plugged.pool.get().await?,
                Some(name) => plugged.pool.adopt(plugged.pool.source().attach(Some(&name)).await?),
            };
            Ok(Some(Lease(lease)))
        });
        let mut lease = getting.await.map_err(broken)??;
        if let (Some(lease), Security::Insecure) = (&mut lease, security) {
            // It may change what it is given: nobody gets that after it.
            lease.0.spend();
        }
        Ok(lease)
    }

    /// Gives all namespaces up. No container may be using one.
    pub(crate) async fn shutdown(&self) {
        if let Some(plugged) = &self.plugged {
            plugged.pool.close().await;
            if let Some(bridge) = &plugged.bridge {
                // Others who share it make theirs under this lock, but an end does not wait for ever.
                let locking =
                    self.init_lock.clone().map(|path| tokio::time::timeout(LOCK_WITHIN, lock(path)));
                let _alone = match locking {
                    None => None,
                    Some(locking) => locking.await.ok().and_then(Result::ok),
                };
                bridge.remove();
            }
        }
        // Only if nothing is noted in it.
        let _ = fs::remove_dir(&self.places.notes);
    }
}

/// Waits until this process alone has a file.
async fn lock(path: PathBuf) -> Result<fs::File> {
    let locking = move || {
        let failed = |source| Error::File { doing: "locking", path: path.clone(), source };
        let file = fs::File::create(&path).map_err(failed)?;
        file.lock().map_err(failed)?;
        Ok(file)
    };
    blocking(locking).await
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(broken)?
}

/// Work on networks that has ended by a panic.
fn broken(error: JoinError) -> Error {
    Error::Broken { id: "network".to_owned(), reason: error.to_string() }
}
