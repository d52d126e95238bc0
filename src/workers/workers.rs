//! All workers of a daemon, and which vertex goes to which.

use crate::discover::DiscoverOptions;
use crate::dispatch::{BuildGroups, Dispatcher};
use crate::farm::{Farm, Listed, Searched};
use crate::local::LocalParts;
use crate::machines::Versions;
use crate::memory::{self, Memory};
use crate::ops::{build, exec, file, join, snapshot_error, source};
use crate::remote::{EMULATED, Facts, PARALLELISM, PLATFORM, RemoteError, RemoteOptions, RemoteWorker};
use crate::{Origins, ResultRef, SnapshotResults, records};
use crosskit_api::pb::{self, op::Op as Kind};
use crosskit_api::types;
use crosskit_exec::devices::{Devices, Registry};
use crosskit_exec::networks::NetworkOptions;
use crosskit_exec::{DnsConfig, ExecConfig, Executor, How};
use crosskit_images::registry::RegistryHosts;
use crosskit_llb::{Graph, Vertex};
use crosskit_metadata::Database;
use crosskit_platforms::Platform;
use crosskit_scheduler::{Health, Kind as WorkerKind, Policy, WorkerState};
use crosskit_session::SessionManager;
use crosskit_snapshots::Snapshots;
use crosskit_solver::{ErrorKind, JobContext, Op, OpError, OpResolver};
use crosskit_sources::{Parts, Sources};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::{OnceCell, Semaphore};

/// Where the daemon's folder in memory is made, unless its user has a place for that.
const VOLATILE: &str = "/run/crosskit";

/// How the worker on this machine is set up.
pub struct WorkerOptions {
    /// The daemon's root folder.
    pub root: PathBuf,
    /// Layers on disk.
    pub snapshots: Snapshots,
    /// The clients.
    pub sessions: SessionManager,
    /// Registries.
    pub registries: RegistryHosts,
    /// Where it is kept what was found where.
    pub database: Database,
    /// For sources on the web.
    pub http: crosskit_sources::LazyHttp,
    /// Shown to clients, and matched by filters.
    pub labels: BTreeMap<String, String>,
    /// Platforms to announce instead of what was found.
    pub platforms: Vec<String>,
    /// The network of steps that ask for none in particular.
    pub network: NetworkOptions,
    /// The runtime; None for the best one found.
    pub binary: Option<String>,
    /// Whether the daemon is root of a user namespace only.
    pub rootless: bool,
    /// Whether steps have the daemon's process ids.
    pub shares_processes: bool,
    /// Where cgroups of steps hang.
    pub cgroup_parent: String,
    /// How many steps run at a time; 0 for no limit.
    pub max_parallelism: usize,
    /// Name service of steps.
    pub dns: Option<DnsConfig>,
    /// Devices that steps can be given.
    pub devices: Devices,
    /// How workers are chosen.
    pub policy: Policy,
    /// How many emulated steps run at a time; None for as many as there are.
    pub emulated_slots: Option<usize>,
    /// The workers on other machines.
    pub remotes: Vec<RemoteOptions>,
    /// Where to look for more of them.
    pub searches: Vec<DiscoverOptions>,
}

/// Why a worker can't start.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// A folder that can't be made.
    #[error("making {}: {source}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A daemon in another container or mount namespace has a root folder of the same name.
    #[error(
        "{} is locked by another daemon, whose root folder has the same name: give this one another (--root), or a /run of its own",
        path.display()
    )]
    InUse {
        /// The lock file.
        path: PathBuf,
    },
    /// A platform that is none.
    #[error("platform {platform:?} of the worker: {why}")]
    Platform {
        /// As it was given.
        platform: String,
        /// What is wrong.
        why: String,
    },
    /// What runs processes can't.
    #[error(transparent)]
    Exec(#[from] crosskit_exec::Error),
    /// A worker on another machine that makes no sense.
    #[error(transparent)]
    Remote(#[from] RemoteError),
}

/// All workers of a daemon. Cheap to clone.
#[derive(Clone)]
pub struct Workers(Arc<Inner>);

struct Inner {
    id: String,
    labels: BTreeMap<String, String>,
    announced: Vec<Platform>,
    memory: Memory,
    /// Where daemons have their folders in memory.
    base: PathBuf,
    /// How many steps run at a time.
    parallelism: usize,
    local: Arc<LocalParts>,
    dispatcher: Dispatcher,
    farm: Farm,
    /// Whether other machines are wanted.
    is_farm: bool,
    versions: Versions,
    /// This machine as the scheduler sees it: its processor, and its emulators.
    here: tokio::sync::Mutex<[WorkerState; 2]>,
}

impl Workers {
    /// Starts the worker on this machine. Nothing is run yet.
    ///
    /// # Errors
    /// Folders that can't be made, and platforms that are none.
    pub fn start(options: WorkerOptions) -> Result<Self, WorkerError> {
        let announced = options
            .platforms
            .iter()
            .map(|text| {
                Platform::parse(text)
                    .map(|p| p.normalize())
                    .map_err(|e| WorkerError::Platform { platform: text.clone(), why: e.to_string() })
            })
            .collect::<Result<Vec<_>, _>>()?;
        let users = crosskit_rootless::Folders::usual().and_then(|folders| folders.runtime.or(folders.state));
        let base = users.unwrap_or_else(|| PathBuf::from(VOLATILE));
        let memory = Memory::claim(&base, &options.root)?;
        let id = records::worker_id(&options.root)?;
        let nameservers = options.dns.as_ref().map(|dns| dns.nameservers.clone()).unwrap_or_default();
        let executor = Executor::new(ExecConfig {
            root: memory.path().join("exec"),
            ledger: Some(memory.ledger()),
            runtime: options.binary.map(PathBuf::from),
            rootless: options.rootless,
            shares_processes: options.shares_processes,
            cgroup_parent: options.cgroup_parent,
            network: options.network,
            networks: Some(options.root.join("networks")),
            dns: options.dns.unwrap_or_default(),
            ..ExecConfig::default()
        })?;
        let steps = memory.steps()?;
        let scratch = options.root.join("scratch");
        // What a daemon that was killed has left there: keys, sockets, repositories.
        let left = std::fs::remove_dir_all(&scratch);
        left.or_else(|err| if err.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(err) })
            .and_then(|()| std::fs::create_dir_all(&scratch))
            .map_err(|source| WorkerError::Folder { path: scratch.clone(), source })?;
        let sources = Sources::new(Parts {
            sessions: options.sessions.clone(),
            snapshots: options.snapshots.clone(),
            database: options.database,
            registries: options.registries,
            scratch,
            http: options.http,
        });
        let process_mode = if options.shares_processes { "no-sandbox" } else { "sandbox" };
        let mut labels = records::labels(options.snapshots.driver(), executor.network(), process_mode);
        labels.extend(options.labels);
        let places = (options.max_parallelism > 0).then(|| Arc::new(Semaphore::new(options.max_parallelism)));
        let parallelism = match options.max_parallelism {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            limit => limit,
        };
        let local = Arc::new(LocalParts {
            snapshots: options.snapshots,
            executor,
            sessions: options.sessions,
            sources,
            origins: Origins::default(),
            volatile: steps,
            places,
            devices: options.devices,
        });
        let dispatcher = Dispatcher::new(options.policy);
        dispatcher.keep_time();
        let here = [WorkerKind::Native, WorkerKind::Emulated].map(|kind| {
            let emulated = options.emulated_slots.filter(|_| kind == WorkerKind::Emulated);
            WorkerState { slots: emulated, ..WorkerState::idle(kind.name(), kind, Vec::new()) }
        });
        here.iter().for_each(|worker| dispatcher.upsert(worker.clone()));
        let here = tokio::sync::Mutex::new(here);
        let is_farm = !options.remotes.is_empty() || !options.searches.is_empty();
        let farm = Farm::follow(options.remotes, options.searches, &nameservers, &id, &dispatcher)?;
        Ok(Workers(Arc::new(Inner {
            id,
            labels,
            announced,
            memory,
            base,
            parallelism,
            local,
            dispatcher,
            farm,
            is_farm,
            versions: Versions::default(),
            here,
        })))
    }

    /// The worker on this machine.
    pub fn local(&self) -> &Arc<LocalParts> {
        &self.0.local
    }

    /// Keeps results for later builds.
    pub fn results(&self) -> Arc<SnapshotResults> {
        Arc::new(SnapshotResults(self.0.local.snapshots.clone()))
    }

    /// Finds what runs a vertex.
    pub fn resolver(&self) -> Arc<dyn OpResolver<ResultRef>> {
        Arc::new(self.clone())
    }

    /// Makes sure that steps can have their network, and undoes what an earlier daemon has left of networks.
    ///
    /// # Errors
    /// What the plugins that make it complain about.
    pub async fn start_network(&self) -> Result<(), WorkerError> {
        Ok(self.0.local.executor.start_network().await?)
    }

    /// Does what the first step would have to wait for, then removes what daemons have left in memory that were killed.
    pub async fn warm(&self) {
        self.0.local.executor.warm().await;
        let base = self.0.base.clone();
        let _ = tokio::task::spawn_blocking(move || memory::remove_others(&base)).await;
    }

    /// Ends all that runs and waits until it is gone.
    pub async fn shutdown(&self) {
        self.0.local.executor.shutdown().await;
        self.0.memory.leave();
    }

    /// The platforms that run here, this machine's own first.
    pub async fn platforms(&self) -> Vec<Platform> {
        if !self.0.announced.is_empty() {
            return self.0.announced.clone();
        }
        self.0.local.executor.platforms().await.into_iter().map(|(p, _)| p).collect()
    }

    /// The workers as clients see them.
    pub async fn records(&self) -> Vec<types::WorkerRecord> {
        let mut labels = self.0.labels.clone();
        // So that an endpoint knows how much it may send here.
        labels.insert(PARALLELISM.to_string(), self.0.parallelism.to_string());
        if let Ok(chosen) = self.0.local.executor.runtime().await {
            labels.insert(
                "dev.crosskit.worker.runtime".to_string(),
                format!("{} {}", chosen.name, chosen.version),
            );
            labels.insert("dev.crosskit.worker.runtime.why".to_string(), chosen.why.clone());
        }
        for (platform, how) in self.0.local.executor.platforms().await {
            // What it is told to run counts as its own.
            if matches!(how, How::Emulated(_)) && self.0.announced.is_empty() {
                labels.insert(format!("{PLATFORM}{}", platform.folder_name()), EMULATED.to_string());
            }
        }
        let platforms = self.platforms().await.iter().map(records::message).collect();
        let here = types::WorkerRecord {
            id: self.0.id.clone(),
            labels,
            platforms,
            // Where they are disabled, there are none to tell of.
            cdi_devices: self.devices().await.map(|known| records::devices(&known)).unwrap_or_default(),
            ..types::WorkerRecord::default()
        };
        let elsewhere = self.farm().into_iter().filter(|worker| worker.view.state.kind == WorkerKind::Remote);
        std::iter::once(here).chain(elsewhere.map(records::of_remote)).collect()
    }

    /// The devices of this machine.
    ///
    /// # Errors
    /// They are disabled.
    pub async fn devices(&self) -> Result<Registry, OpError> {
        self.0.local.devices().await
    }

    /// All workers as people see them.
    pub fn farm(&self) -> Vec<Listed> {
        self.0.farm.listed(self.0.dispatcher.workers())
    }

    /// The searches for workers as people see them.
    pub fn searched(&self) -> Vec<Searched> {
        self.0.farm.searched()
    }

    /// Lets a worker take nothing new, or take work again. False if there is none of that name.
    pub async fn drain(&self, name: &str, draining: bool) -> bool {
        let mut here = self.0.here.lock().await;
        match here.iter_mut().find(|worker| worker.name == name) {
            Some(worker) => {
                worker.health = if draining { Health::Draining } else { Health::Up };
                self.0.dispatcher.upsert(worker.clone());
                true
            }
            None => self.0.farm.drain(name, draining),
        }
    }

    /// Whether a worker on another machine may get steps of a platform.
    pub(crate) fn may_go_elsewhere(&self, platform: &Platform) -> bool {
        self.0.farm.may_run(platform)
    }

    /// Whether there are, or may be, workers on other machines.
    pub(crate) fn is_farm(&self) -> bool {
        self.0.is_farm
    }

    /// What emulators have said of themselves.
    pub(crate) fn versions(&self) -> &Versions {
        &self.0.versions
    }

    /// The names of all workers on other machines.
    pub(crate) fn elsewhere(&self) -> Vec<String> {
        let workers = self.0.dispatcher.workers().into_iter().map(|worker| worker.state);
        workers.filter(|worker| worker.kind == WorkerKind::Remote).map(|worker| worker.name).collect()
    }

    /// What a worker on another machine has said of itself.
    pub(crate) fn facts(&self, name: &str) -> Option<Facts> {
        self.0.farm.facts(name)
    }

    /// A worker on another machine.
    pub(crate) fn remote(&self, name: &str) -> Option<RemoteWorker> {
        self.0.farm.get(name)
    }

    /// Forgets what cache mounts hold that steps of a graph want anew: those of steps that must
    /// not use what is known.
    ///
    /// # Errors
    /// An unwritable database.
    pub fn forget_cache_mounts(&self, graph: &Graph) -> Result<(), OpError> {
        let fresh = graph.vertices().iter().filter(|v| v.metadata.ignore_cache);
        let steps = fresh.filter_map(|v| match &v.op.op {
            Some(Kind::Exec(exec)) => Some(exec),
            _ => None,
        });
        for mount in steps.flat_map(|exec| &exec.mounts) {
            let Some(cache) = mount.cache_opt.as_ref().filter(|_| mount.mount_type() == pb::MountType::Cache)
            else {
                continue;
            };
            let name = if cache.id.is_empty() { &mount.dest } else { &cache.id };
            self.0.local.snapshots.forget_cache_mount(name).map_err(snapshot_error)?;
        }
        Ok(())
    }

    /// Checks, before anything runs, that every platform whose programs a graph runs has somebody
    /// who can, and remembers for the build which of its steps belong together.
    ///
    /// # Errors
    /// The first platform that nobody can run, what was tried, and what to do.
    pub async fn preflight(&self, job: &JobContext, graph: &Graph) -> Result<(), OpError> {
        // Of a large graph, looking at how it hangs together is a part of the work that counts.
        if !graph.vertices().iter().any(|vertex| matches!(vertex.op.op, Some(Kind::Exec(_)))) {
            return Ok(());
        }
        let split = crosskit_scheduler::split(graph, &crosskit_platforms::native());
        let wanted: BTreeSet<&Platform> = split.groups.iter().map(|group| &group.platform).collect();
        tokio::join!(self.look_at_this_machine(wanted), self.0.farm.asked());
        let workers: Vec<_> = self.0.dispatcher.workers().into_iter().map(|worker| worker.state).collect();
        crosskit_scheduler::preflight(graph, &split, &workers, &self.0.dispatcher.policy()).map_err(|e| {
            let mut text = e.to_string();
            for Searched { place, problem, .. } in self.searched() {
                // Whoever is missing may be one that was not found.
                text.extend(problem.map(|why| format!("; searching for workers by {place}: {why}")));
            }
            OpError::new(ErrorKind::Environment, text)
        })?;
        self.groups(job).await.learn(&split);
        Ok(())
    }

    /// Makes sure that the scheduler knows whether this machine runs a platform.
    pub(crate) async fn look_for(&self, platform: &Platform) {
        self.look_at_this_machine(BTreeSet::from([platform])).await;
    }

    /// What a build has told the scheduler.
    pub(crate) async fn groups(&self, job: &JobContext) -> Arc<BuildGroups> {
        let begin = async { Ok::<_, std::convert::Infallible>(self.0.dispatcher.begin(job.id())) };
        match job.decide_once("farm", begin).await {
            Ok(groups) => groups,
            Err(never) => match never {},
        }
    }

    /// Who gives places to steps.
    pub fn dispatcher(&self) -> &Dispatcher {
        &self.0.dispatcher
    }

    /// Tells the scheduler what this machine's processor and its emulators run, as far as some
    /// platforms are concerned.
    async fn look_at_this_machine(&self, wanted: BTreeSet<&Platform>) {
        let announced = &self.0.announced;
        for platform in wanted {
            let told = announced.is_empty()
                || announced.iter().any(|a| crosskit_platforms::Matcher::only(a).matches(platform));
            let found = match told {
                true => match self.0.local.executor.can_run(platform).await {
                    Ok(How::Native) => Ok(WorkerKind::Native),
                    Ok(How::Emulated(_)) => Ok(WorkerKind::Emulated),
                    Err(crosskit_exec::Error::CannotRun { reason, .. }) => Err(reason),
                    Err(other) => Err(other.to_string()),
                },
                false => Err("the worker on this machine is told to run others only".to_string()),
            };
            let mut here = self.0.here.lock().await;
            for worker in here.iter_mut() {
                let runs = found == Ok(worker.kind);
                let lacks = found.as_ref().err().filter(|_| worker.kind == WorkerKind::Emulated);
                let before = worker.clone();
                worker.platforms.retain(|known| known != platform);
                worker.platforms.extend(runs.then(|| platform.clone()));
                worker.lacks.retain(|(known, _)| known != platform);
                worker.lacks.extend(lacks.map(|why| (platform.clone(), why.clone())));
                let same = before.lacks == worker.lacks
                    && before.platforms.len() == worker.platforms.len()
                    && before.platforms.contains(platform) == runs;
                if !same {
                    self.0.dispatcher.upsert(worker.clone());
                }
            }
        }
    }
}

/// Where a vertex executes, in normal form; this machine's platform where nothing is said.
pub(crate) fn platform_of(vertex: &Vertex) -> Platform {
    match vertex.platform() {
        Some(platform) => from_message(platform).normalize(),
        None => crosskit_platforms::native().normalize(),
    }
}

/// Whether a proxy is a process's only way to the network.
fn proxied(vertex: &Vertex, op: &pb::ExecOp) -> Option<exec::Proxied> {
    let rules = &vertex.op.proxy_rules;
    let proxied = !rules.is_empty() && op.network() != pb::NetMode::None;
    proxied.then(|| exec::Proxied { rules: rules.clone(), record: Arc::default() })
}

/// A platform from its message.
pub fn from_message(message: &pb::Platform) -> Platform {
    Platform {
        os: message.os.clone(),
        architecture: message.architecture.clone(),
        variant: message.variant.clone(),
        os_version: message.os_version.clone(),
        os_features: message.os_features.clone(),
    }
}

impl OpResolver<ResultRef> for Workers {
    fn is_lost(&self, result: &ResultRef) -> bool {
        result.as_ref().is_some_and(|found| !found.is_within_reach())
    }

    fn op(&self, vertex: &Arc<Vertex>, _job: &JobContext) -> Result<Arc<dyn Op<ResultRef>>, OpError> {
        let parts = Arc::clone(&self.0.local);
        let inputs = vertex.inputs.len();
        let snapshots = parts.snapshots.clone();
        let Some(kind) = vertex.op.op.clone() else {
            return Err(OpError::new(ErrorKind::User, format!("vertex {} has no operation", vertex.digest)));
        };
        Ok(match kind {
            Kind::Source(op) => Arc::new(source::SourceOp {
                op,
                platform: records::message(&platform_of(vertex)),
                parts,
                source: OnceCell::new(),
                pin: std::sync::Mutex::default(),
            }),
            Kind::Exec(op) => Arc::new(exec::ExecOp {
                platform: platform_of(vertex),
                inputs,
                parts,
                proxied: proxied(vertex, &op),
                op,
                workers: self.clone(),
                right: Arc::default(),
                ran: Default::default(),
                used: Default::default(),
            }),
            Kind::File(op) => Arc::new(file::FileOp { op, inputs, parts }),
            Kind::Merge(op) => Arc::new(join::MergeOp { op, snapshots }),
            Kind::Diff(op) => Arc::new(join::DiffOp { op, snapshots }),
            Kind::Passthrough(op) => Arc::new(join::PassthroughOp { op, inputs }),
            Kind::Build(op) => Arc::new(build::BuildOp { op, inputs, parts }),
        })
    }
}
