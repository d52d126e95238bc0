//! Runs processes.

use std::{
    fs,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::Stdio as Null,
    sync::Arc,
};

use bytes::Bytes;
use crosskit_platforms::Platform;
use crosskit_qemu::detect::Ways;
use tokio::sync::{OnceCell, oneshot};
use tokio_util::{
    sync::CancellationToken,
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};

use crate::{
    Access, Chosen, Container, DnsConfig, Error, Exit, How, Process, Result, Security, Stdio,
    bundle::{Bundle, Joined},
    capabilities, cgroups,
    emulation::Platforms,
    error::file_error,
    filter, hosts, leftovers,
    networks::{NetworkOptions, Networks, Places, namespaces},
    resolv::{ResolvFiles, replace},
    rights::Rights,
    runtime::{Runtime, messages},
    supervise::{Call, Ended, Running},
    usage::Metering,
};

/// How an executor is set up.
#[derive(Clone, Debug, Default)]
pub struct ExecConfig {
    /// Folder for what running containers need; best in memory (`/run/…`). Of this executor alone.
    pub root: PathBuf,
    /// Folder where the next executor finds what this one had running, if it is killed: one that is still there then,
    /// even if `root` is in memory that goes with this process. None for one in `root`.
    pub ledger: Option<PathBuf>,
    /// The runtime to use, as a path or a name on PATH; None to choose.
    pub runtime: Option<PathBuf>,
    /// Folders with emulators, before those that are always searched.
    pub emulator_folders: Vec<PathBuf>,
    /// Which ways of emulation may be used.
    pub ways: Ways,
    /// Whether the daemon is root of a user namespace only: containers then have no cgroups, and of devices and of the
    /// kernel's files what is to be had.
    pub rootless: bool,
    /// Whether containers have the daemon's process ids, for where they can have none of their own.
    pub shares_processes: bool,
    /// Parent of steps' cgroups, if they name none; empty for the root.
    pub cgroup_parent: String,
    /// The network of steps that ask for none in particular.
    pub network: NetworkOptions,
    /// Folder where the next executor finds which networks this one has made, also after the machine was restarted. None
    /// for one in `root`.
    pub networks: Option<PathBuf>,
    /// Name servers for steps.
    pub dns: DnsConfig,
    /// AppArmor profile of sandboxed steps.
    pub apparmor_profile: Option<String>,
    /// How readily the kernel kills steps when memory is short.
    pub oom_score_adj: Option<i32>,
}

/// Runs processes in containers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Executor {
    shared: Arc<Shared>,
}

/// What all containers of an executor have in common.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: ExecConfig,
    pub(crate) containers: PathBuf,
    pub(crate) ledger: PathBuf,
    pub(crate) resolv: ResolvFiles,
    pub(crate) hosts: PathBuf,
    pub(crate) rights: Rights,
    networks: Arc<Networks>,
    platforms: Platforms,
    runtime: OnceCell<Arc<Runtime>>,
    filter: OnceCell<Option<Arc<str>>>,
    pub(crate) tasks: TaskTracker,
    closing: CancellationToken,
}

impl Executor {
    /// Sets up the folder, and ends what an earlier executor has left running there. Runs nothing yet: the runtime is
    /// chosen when it is first needed.
    pub fn new(config: ExecConfig) -> Result<Self> {
        let root = config.root.clone();
        let containers = root.join("containers");
        fs::create_dir_all(&containers).map_err(file_error("making", &containers))?;
        let ledger = config.ledger.clone().unwrap_or_else(|| root.join("running"));
        fs::create_dir_all(&ledger).map_err(file_error("making", &ledger))?;
        leftovers::sweep(&root, &containers, &ledger);
        let hosts = root.join("hosts");
        replace(&hosts, hosts::contents("", &[]).as_bytes())?;
        let lacking = capabilities::lacking();
        if !lacking.is_empty() {
            let lacking = lacking.join(", ");
            tracing::warn!(
                lacking,
                "this daemon lacks capabilities that steps usually have: they go without"
            );
        }
        let (tasks, closing) = (TaskTracker::new(), CancellationToken::new());
        let places = Places {
            namespaces: root.join("net"),
            notes: config.networks.clone().unwrap_or_else(|| root.join("networks")),
        };
        let networks = Networks::new(&config.network, places, tasks.clone(), closing.clone())?;
        let shared = Shared {
            containers,
            ledger,
            resolv: ResolvFiles::new(root, config.dns.clone()),
            hosts,
            rights: Rights::new(config.rootless, config.shares_processes),
            networks: Arc::new(networks),
            platforms: Platforms::new(config.emulator_folders.clone(), config.ways, tasks.clone()),
            runtime: OnceCell::new(),
            filter: OnceCell::new(),
            tasks,
            closing,
            config,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Makes sure that steps can have their network, and undoes what an earlier executor has left of networks.
    pub async fn start_network(&self) -> Result<()> {
        self.shared.networks.start().await
    }

    /// Where the network of steps comes from, as the worker's label says it: `host` or `cni`.
    pub fn network(&self) -> &'static str {
        self.shared.networks.label()
    }

    #[cfg(test)]
    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// The runtime and why it was chosen. Chooses now if that has not been done.
    pub async fn runtime(&self) -> Result<Chosen> {
        Ok(self.shared.runtime().await?.chosen.clone())
    }

    /// Does what the first step would have to wait for: chooses the runtime, makes its seccomp filter, finds out what
    /// platforms run. For the time after a daemon's start.
    pub async fn warm(&self) {
        let runtime = async {
            if let Ok(runtime) = self.shared.runtime().await {
                self.shared.filter(&runtime).await;
            }
        };
        tokio::join!(runtime, self.shared.platforms.list());
    }

    /// The platforms whose programs run here, the machine's own first, each with how. Answers at once, except for the
    /// first time; what is older than 20 s is found out again meanwhile.
    pub async fn platforms(&self) -> Vec<(Platform, How)> {
        self.shared.platforms.list().await
    }

    /// How programs of a platform run here; an error that says what is missing if they do not.
    pub async fn can_run(&self, platform: &Platform) -> Result<How> {
        self.shared.platforms.how(platform).await
    }

    /// Runs a process and waits until everything of it is gone. Cancelling kills it, and so does dropping the future.
    pub async fn run(&self, process: Process, io: Stdio, cancel: CancellationToken) -> Result<Exit> {
        self.start(process, io, cancel).await?.wait().await
    }

    /// Starts a process in a new container.
    pub async fn start(&self, process: Process, io: Stdio, cancel: CancellationToken) -> Result<Container> {
        let token = cancel.child_token();
        let guard = token.clone().drop_guard();
        let closing = self.shared.closing.clone();
        let (started, starting) = oneshot::channel();
        let shared = self.shared.clone();
        // A task of its own, so that whatever happens to the caller the container is tidied up.
        let task = self.shared.tasks.spawn(async move {
            let run = shared.run_to_end(process, io, &token, started);
            tokio::pin!(run);
            tokio::select! {
                outcome = &mut run => return outcome,
                () = closing.cancelled() => token.cancel(),
            }
            run.await
        });
        match starting.await {
            Ok(access) => Ok(Container { access, task, guard }),
            // It ended before it began: the task says why.
            Err(_) => match task.await {
                Ok(Err(error)) => Err(error),
                Ok(Ok(_)) => Err(Error::Broken { id: String::new(), reason: "it ended unseen".to_owned() }),
                Err(error) => Err(Error::Broken { id: String::new(), reason: error.to_string() }),
            },
        }
    }

    /// Ends all that runs and waits until it is gone. Nothing can be started afterwards.
    pub async fn shutdown(&self) {
        self.shared.closing.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
        self.shared.networks.shutdown().await;
    }
}

impl Shared {
    pub(crate) async fn runtime(self: &Arc<Self>) -> Result<Arc<Runtime>> {
        let choose = || async {
            let config = self.config.clone();
            let (trial, ledger, rights) = (self.trial()?, self.ledger.clone(), self.rights);
            let select = move || {
                let _trial = trial;
                Runtime::select(config.runtime.as_deref(), &config.root, &ledger, rights)
            };
            let chosen = tokio::task::spawn_blocking(select)
                .await
                .map_err(|error| Error::Broken { id: "probe".to_owned(), reason: error.to_string() })??;
            let Chosen { path, version, why, .. } = &chosen.chosen;
            tracing::info!(path = %path.display(), version, why, "OCI runtime chosen");
            Ok(Arc::new(chosen))
        };
        self.runtime.get_or_try_init(choose).await.cloned()
    }

    /// What a trial container holds as long as it is there: shutting down waits for it, and allows no new one.
    fn trial(&self) -> Result<TaskTrackerToken> {
        // In this order, so that one that shutting down does not see has seen it.
        let token = self.tasks.token();
        if self.closing.is_cancelled() { Err(Error::Canceled) } else { Ok(token) }
    }

    async fn filter(self: &Arc<Self>, runtime: &Arc<Runtime>) -> Option<Arc<str>> {
        let make = || async {
            let (runtime, root) = (runtime.clone(), self.config.root.clone());
            let trial = self.trial().ok()?;
            let make = move || {
                let _trial = trial;
                filter::make(&runtime, &root)
            };
            tokio::task::spawn_blocking(make).await.ok().flatten().map(Arc::from)
        };
        self.filter.get_or_init(make).await.clone()
    }

    async fn run_to_end(
        self: Arc<Self>,
        mut process: Process,
        io: Stdio,
        cancel: &CancellationToken,
        started: oneshot::Sender<Access>,
    ) -> Result<Exit> {
        let (hold, meter) = (std::mem::take(&mut process.hold), process.meter.take());
        let platform = process.platform.clone().unwrap_or_else(crosskit_platforms::native);
        let way = self.platforms.way(&platform).await?;
        let runtime = self.runtime().await?;
        if !runtime.lets_hooks_ignore_input() {
            process.devices.read_input_of_hooks();
        }
        let filter = match process.security {
            Security::Sandbox => self.filter(&runtime).await,
            Security::Insecure => None,
        };
        if cancel.is_cancelled() || self.closing.is_cancelled() {
            return Err(Error::Canceled);
        }
        let given = tokio::select! {
            () = cancel.cancelled() => return Err(Error::Canceled),
            given = self.networks.give(&process) => given?,
        };
        // runc joins the user namespace of private emulators first, in which it may join no network of ours any more.
        let enters = way.private().is_some() && !runtime.is_crun();
        let entered = if enters { given.open()? } else { None };
        let (shared, starter, inside) = (self.clone(), runtime.clone(), entered.clone());
        let starting = tokio::task::spawn_blocking(move || {
            let network = Joined { path: given.path().filter(|_| inside.is_none()), proxy: given.proxy() };
            let terminal = io.terminal.as_ref();
            let bundle = Bundle::make(&shared, &process, &way, &network, filter.as_deref(), terminal)?;
            let mut command = starter.command(&bundle.log());
            command.arg("run").args(starter.keyring()).arg("--bundle").arg(&bundle.dir);
            if let Some(namespace) = inside {
                namespaces::enter(&mut command, namespace);
            }
            if let Some(mark) = &bundle.ipc_mark {
                mark.put_on(&mut command);
            }
            let (folder, id, pid_file) = (bundle.dir.clone(), bundle.id.clone(), bundle.pid_file());
            let (ipc_mark, first) = (bundle.ipc_mark.clone(), true);
            let start = |meter| Metering::start(meter, bundle.cgroup.as_deref(), given.interfaces());
            let metering = meter.map(start);
            match Running::start(&starter, Call { command, folder, id, pid_file, ipc_mark, first }, io) {
                Ok(running) => Ok((bundle, running, way, given, metering)),
                Err(error) => {
                    // There is something worse to tell.
                    let _ = bundle.clean();
                    Err(error)
                }
            }
        });
        let broken =
            |error: tokio::task::JoinError| Error::Broken { id: String::new(), reason: error.to_string() };
        let (bundle, running, way, given, mut metering) = starting.await.map_err(broken)??;
        let first_ended = CancellationToken::new();
        let _ended_guard = first_ended.clone().drop_guard();
        let _ = started.send(Access {
            id: bundle.id.clone(),
            shared: self.clone(),
            folder: bundle.dir.clone(),
            inherited: Arc::new(bundle.inherited.clone()),
            entered,
            ipc_mark: bundle.ipc_mark.clone(),
            ended: first_ended.clone(),
        });
        let ended = match &mut metering {
            Some(metering) => metering.until(running.finish(cancel)).await,
            None => running.finish(cancel).await,
        };
        first_ended.cancel();
        let forced = ended.as_ref().map_or(true, |ended| ended.forced);
        let accounted = ended.as_ref().ok().and_then(|ended| ended.accounted);
        let outcome = match ended {
            Ok(ended) => exit_of(ended, &runtime, &bundle.log()).await,
            Err(error) => Err(error),
        };
        let cleaning = tokio::task::spawn_blocking(move || {
            if let Some(metering) = metering {
                metering.end(accounted);
            }
            let kills = bundle.counting_cgroup.as_deref().map_or(0, cgroups::memory_kills);
            if forced {
                delete(&runtime, &bundle);
            }
            let cleaned = bundle.clean();
            drop((bundle, way, hold));
            cleaned.map(|()| kills)
        });
        let cleaned = cleaning.await.map_err(broken)?;
        // Nothing of the process runs any more.
        given.end().await;
        let exit = outcome?;
        Ok(Exit { out_of_memory: cleaned? > 0 && exit.code != 0, ..exit })
    }
}

/// Does what a runtime that had to be ended has left undone.
fn delete(runtime: &Runtime, bundle: &Bundle) {
    let mut command = runtime.command(&bundle.log());
    command
        .args(["delete", "--force", &bundle.id])
        .stdin(Null::null())
        .stdout(Null::null())
        .stderr(Null::null());
    if !command.status().is_ok_and(|status| status.success()) {
        tracing::warn!(id = bundle.id, said = messages(&bundle.log()), "a container could not be deleted");
    }
    if let Some(cgroup) = &bundle.cgroup {
        for pid in cgroups::processes(cgroup) {
            crate::supervise::kill_contained(pid, None);
        }
        cgroups::remove(cgroup);
    }
    let _ = fs::remove_dir_all(runtime.state.join(&bundle.id));
}

/// What a runtime's end says about the process; what the runtime itself had to say goes to standard error as well.
pub(crate) async fn exit_of(ended: Ended, runtime: &Runtime, log: &Path) -> Result<Exit> {
    let Ended { status, mut stderr, canceled, .. } = ended;
    if canceled {
        return Err(Error::Canceled);
    }
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    let mut exit = Exit { code, ..Exit::default() };
    if code != 0 {
        let log = log.to_owned();
        exit.runtime_message = tokio::task::spawn_blocking(move || messages(&log)).await.ok().flatten();
        // runc says it on standard error by itself; crun does so only where the container's side of it fails.
        if let (Some(message), true) = (&exit.runtime_message, runtime.is_crun())
            && !String::from_utf8_lossy(&stderr.tail).contains(message.as_str())
        {
            stderr.to.take(Bytes::from(format!("{message}\n"))).await;
        }
    }
    Ok(exit)
}
