//! A container that runs.

use std::{
    fs,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    Error, Exit, Process, Result, Stdio, Terminal,
    bundle::{Inherited, absolute, rlimit, tell},
    error::file_error,
    executor::{Shared, exit_of},
    marks::IpcMark,
    networks::namespaces,
    supervise::{Call, Running, read_pid},
};

/// How often is looked whether a container has come up.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// A container whose first process was started. Dropping it ends the container.
#[derive(Debug)]
pub struct Container {
    pub(crate) access: Access,
    pub(crate) task: JoinHandle<Result<Exit>>,
    pub(crate) guard: DropGuard,
}

impl Container {
    /// Its name.
    pub fn id(&self) -> &str {
        &self.access.id
    }

    /// A handle for whoever wants to start more processes in it. Does not keep it running.
    pub fn access(&self) -> Access {
        self.access.clone()
    }

    /// Waits for its first process, and until everything of the container is gone.
    pub async fn wait(self) -> Result<Exit> {
        // Dropping the guard here would end it.
        let _guard = self.guard;
        match self.task.await {
            Ok(outcome) => outcome,
            Err(error) => Err(Error::Broken { id: self.access.id.clone(), reason: error.to_string() }),
        }
    }
}

/// A way into a running container.
#[derive(Clone, Debug)]
pub struct Access {
    pub(crate) id: String,
    pub(crate) shared: Arc<Shared>,
    pub(crate) folder: PathBuf,
    pub(crate) inherited: Arc<Inherited>,
    /// The network namespace that the runtime has to be started in.
    pub(crate) entered: Option<Arc<fs::File>>,
    /// What its processes are known by if they have the daemon's process ids.
    pub(crate) ipc_mark: Option<IpcMark>,
    /// Set when the first process has ended.
    pub(crate) ended: CancellationToken,
}

impl Access {
    /// The container's name.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Process id of its first process, on this machine. Waits until it is up.
    pub async fn pid(&self) -> Result<i32> {
        loop {
            if self.ended.is_cancelled() {
                return Err(Error::NotRunning { id: self.id.clone() });
            }
            if let Some(pid) = read_pid(&self.folder.join("pid")) {
                return Ok(pid);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Runs another process in the container and waits for it. Of the description count `args`, and if they are not
    /// empty `env`, `cwd`, `user` and `ulimits`; the rest is the container's. Cancelling, or dropping the future, kills
    /// this process only.
    pub async fn exec(&self, process: Process, io: Stdio, cancel: CancellationToken) -> Result<Exit> {
        let token = cancel.child_token();
        let _guard = token.clone().drop_guard();
        let access = self.clone();
        let task = self.shared.tasks.spawn(async move { access.exec_to_end(process, io, token).await });
        match task.await {
            Ok(outcome) => outcome,
            Err(error) => Err(Error::Broken { id: self.id.clone(), reason: error.to_string() }),
        }
    }

    async fn exec_to_end(self, process: Process, io: Stdio, cancel: CancellationToken) -> Result<Exit> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        tokio::select! {
            () = cancel.cancelled() => return Err(Error::Canceled),
            up = self.pid() => up?,
        };
        let runtime = self.shared.runtime().await?;
        let name = format!("exec-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let file = |kind: &str| self.folder.join(format!("{name}.{kind}"));
        let (spec_file, pid_file, log) = (file("json"), file("pid"), file("log"));
        let (access, started_log) = (self.clone(), log.clone());
        let starting = tokio::task::spawn_blocking(move || {
            access.write_process(&spec_file, &process, io.terminal.as_ref())?;
            let mut command = runtime.command(&started_log);
            command.args(["exec", "--process"]).arg(&spec_file);
            if let Some(namespace) = access.entered.clone() {
                namespaces::enter(&mut command, namespace);
            }
            let (folder, id) = (access.folder.clone(), access.id.clone());
            let call = Call { command, folder, id, pid_file, ipc_mark: access.ipc_mark, first: false };
            Running::start(&runtime, call, io).map(|running| (running, runtime))
        });
        let broken =
            |error: tokio::task::JoinError| Error::Broken { id: self.id.clone(), reason: error.to_string() };
        let (running, runtime) = starting.await.map_err(broken)??;
        let ended = running.finish(&cancel).await?;
        exit_of(ended, &runtime, &log).await
    }

    fn write_process(
        &self,
        path: &std::path::Path,
        process: &Process,
        terminal: Option<&Terminal>,
    ) -> Result<()> {
        let mut own = (*self.inherited).clone();
        if !process.env.is_empty() {
            own.env.clone_from(&process.env);
            tell(&mut own.env, &self.inherited.proxy);
        }
        if !process.cwd.is_empty() {
            own.cwd = absolute(&process.cwd);
        }
        if !process.user.is_empty() {
            own.user = own.find_user(&process.user)?;
        }
        if !process.ulimits.is_empty() {
            own.rlimits = process.ulimits.iter().map(rlimit).collect::<Result<_>>()?;
        }
        let spec = own.process(&process.args, terminal, &self.shared.config.apparmor_profile);
        let text = serde_json::to_vec(&spec).map_err(|error| file_error("writing", path)(error.into()))?;
        fs::write(path, text).map_err(file_error("writing", path))
    }
}
