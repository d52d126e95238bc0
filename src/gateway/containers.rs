//! Containers that a frontend makes to run processes in: the mounts stand from the first call to the release, the first
//! process starts the container, later ones join it.

use crate::GatewayError;
use crate::admission::{Entitlements, modes};
use crosskit_api::errors::ErrorDetails;
use crosskit_api::{frontend, pb, rpc};
use crosskit_exec::{Access, DEFAULT_PATH, Exit, Process, Stdio};
use crosskit_platforms::Platform;
use crosskit_proxynet::Rules;
use crosskit_workers::ops::exec::{exec_error, process_of};
use crosskit_workers::ops::mounts::{self, Prepared};
use crosskit_workers::{LocalParts, ResultRef};
use futures::future::{BoxFuture, FutureExt};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::Code;

/// The exit code of a process that could not be started, or whose end is not known.
const UNKNOWN_EXIT: u32 = 255;

/// The exit code of a process that was ended with its container.
const KILLED: u32 = 128 + 9;

/// What a process for Windows finds programs by.
const WINDOWS_PATH: &str =
    "PATH=c:\\Windows\\System32;c:\\Windows;C:\\Windows\\System32\\WindowsPowerShell\\v1.0";

/// The terminal that a process with one is told it has, if it isn't told another.
const TERM: &str = "TERM=xterm";

/// The containers of one conversation, by their ids.
#[derive(Default)]
pub struct Containers(Mutex<HashMap<String, Arc<Container>>>);

impl Containers {
    /// A container that is there.
    pub fn find(&self, id: &str) -> Option<Arc<Container>> {
        self.known().get(id).cloned()
    }

    /// Takes a container in.
    ///
    /// # Errors
    /// Another one with its id.
    pub fn add(&self, container: Container) -> Result<(), GatewayError> {
        let mut known = self.known();
        if known.contains_key(&container.id) {
            return Err(exists(&container.id));
        }
        known.insert(container.id.clone(), Arc::new(container));
        Ok(())
    }

    /// Ends a container and all that runs in it.
    ///
    /// # Errors
    /// No such container, and the first failure of a process in it; one that was ended now counts.
    pub async fn release(&self, id: &str) -> Result<(), GatewayError> {
        let found = self.known().remove(id);
        let container =
            found.ok_or_else(|| GatewayError::plain(format!("container details for {id} not found")))?;
        container.release().await;
        container.failed.get().map_or(Ok(()), |failed| Err(GatewayError::from_rpc(failed)))
    }

    /// Ends all of them.
    pub async fn release_all(&self) {
        let all: Vec<Arc<Container>> = self.known().drain().map(|(_, container)| container).collect();
        futures::future::join_all(all.iter().map(|container| container.release())).await;
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Container>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// That there is a container with this id already.
pub fn exists(id: &str) -> GatewayError {
    GatewayError::new(Code::AlreadyExists, format!("Container {id} already exists"))
}

/// A mount of a container and what stands behind it.
pub struct ContainerMount {
    /// As asked for; its input and output don't count.
    pub mount: pb::Mount,
    /// None for nothing.
    pub result: Option<ResultRef>,
}

/// Where a container belongs.
pub struct Surroundings {
    /// What runs it.
    pub parts: Arc<LocalParts>,
    /// The clients whose secrets and agents it may have.
    pub sessions: Vec<String>,
    /// What its processes may ask for.
    pub entitlements: Entitlements,
    /// What counts for their requests, if a proxy is their only way to the network.
    pub proxy: Option<Rules>,
}

/// A container. Its processes end when it is released, or dropped.
pub struct Container {
    id: String,
    around: Surroundings,
    network: i32,
    hostname: String,
    extra_hosts: Vec<pb::HostIp>,
    /// Whose programs it runs.
    platform: Platform,
    /// What its processes find programs by, if they aren't told otherwise.
    path: &'static str,
    /// Mounted until the release.
    prepared: Mutex<Option<Prepared>>,
    /// Of each mount, in the order of the request.
    places: Vec<Option<PathBuf>>,
    /// The way in, once the first process was started.
    access: tokio::sync::Mutex<Option<Access>>,
    stop: CancellationToken,
    running: TaskTracker,
    /// How the first process that failed did.
    failed: Arc<OnceLock<rpc::Status>>,
}

impl Drop for Container {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Container {
    /// Makes the mounts ready. Nothing runs yet.
    ///
    /// # Errors
    /// Mounts that make no sense, secrets that aren't there, a platform or hosts that are none.
    pub async fn new(
        around: Surroundings,
        request: frontend::NewContainerRequest,
        mounts: Vec<ContainerMount>,
    ) -> Result<Self, GatewayError> {
        let native = crosskit_platforms::native();
        let asked_for = request.platform.as_ref().map(crosskit_workers::platform_from_message);
        let path = match asked_for.as_ref().is_some_and(|platform| platform.os == "windows") {
            true => WINDOWS_PATH,
            false => DEFAULT_PATH,
        };
        // A platform without an architecture, or of a system that no emulator is for, says nothing of how to run.
        let says_how = |platform: &Platform| !platform.architecture.is_empty() && platform.os == native.os;
        let platform = asked_for.filter(says_how).unwrap_or(native);
        let (mut asked, mut inputs) = (Vec::with_capacity(mounts.len()), Vec::new());
        for ContainerMount { mount, result } in mounts {
            let input = match result {
                None => -1,
                Some(result) => {
                    inputs.push(result);
                    i64::try_from(inputs.len() - 1).unwrap_or(-1)
                }
            };
            asked.push(pb::Mount { input, output: 0, result_id: String::new(), ..mount });
        }
        let name = format!("container {}", request.container_id);
        let prepared = mounts::prepare(&around.parts, &around.sessions, &asked, &inputs, "", &name).await?;
        Ok(Container {
            id: request.container_id,
            around,
            network: request.network,
            hostname: request.hostname,
            extra_hosts: request.extra_hosts,
            platform,
            path,
            places: prepared.places.clone(),
            prepared: Mutex::new(Some(prepared)),
            access: tokio::sync::Mutex::default(),
            stop: CancellationToken::new(),
            running: TaskTracker::new(),
            failed: Arc::default(),
        })
    }

    /// Starts a process. What comes back tells how it ended.
    ///
    /// # Errors
    /// A process that makes no sense, and secrets that aren't there. One that cannot be started has an exit like others.
    pub async fn start(
        self: &Arc<Self>,
        asked: frontend::InitMessage,
        stdio: Stdio,
    ) -> Result<BoxFuture<'static, frontend::ExitMessage>, GatewayError> {
        let allowed = modes(self.network, asked.security).and_then(|(network, security)| {
            self.around.entitlements.check(network, security)?;
            Ok((network, security))
        });
        let (network, security) = match allowed {
            Ok(modes) => modes,
            Err(refused) => return Ok(std::future::ready(not_started(&refused)).boxed()),
        };
        let mut process = self.process(&asked, network, security).await?;
        // Held until the first process is there, so that the second does not become a first one too.
        let mut access = self.access.lock().await;
        if self.stop.is_cancelled() {
            return Ok(std::future::ready(ended(Err(crosskit_exec::Error::Canceled))).boxed());
        }
        if let Some(access) = access.clone() {
            let stop = self.stop.clone();
            let run = async move { ended(access.exec(process, stdio, stop).await) };
            return Ok(self.watched(run));
        }
        match &*self.prepared.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(prepared) => prepared.mount_into(&mut process),
            None => return Ok(std::future::ready(ended(Err(crosskit_exec::Error::Canceled))).boxed()),
        }
        match self.around.parts.executor.start(process, stdio, self.stop.clone()).await {
            Ok(container) => {
                *access = Some(container.access());
                Ok(self.watched(async move { ended(container.wait().await) }))
            }
            Err(error) => Ok(std::future::ready(ended(Err(error))).boxed()),
        }
    }

    /// Lets it run whether somebody waits for it or not.
    fn watched(
        &self,
        run: impl Future<Output = frontend::ExitMessage> + Send + 'static,
    ) -> BoxFuture<'static, frontend::ExitMessage> {
        let failed = Arc::clone(&self.failed);
        let running = self.running.spawn(async move {
            let exit = run.await;
            if let Some(error) = &exit.error {
                let _ = failed.set(error.clone());
            }
            exit
        });
        let lost = |e| not_started(&GatewayError::plain(format!("waiting for a process: {e}")));
        async move { running.await.unwrap_or_else(lost) }.boxed()
    }

    async fn process(
        &self,
        asked: &frontend::InitMessage,
        network: pb::NetMode,
        security: pb::SecurityMode,
    ) -> Result<Process, GatewayError> {
        let mut meta = asked.meta.clone().unwrap_or_default();
        if meta.args.is_empty() {
            return Err(GatewayError::invalid("a process needs arguments"));
        }
        if meta.cwd.is_empty() {
            meta.cwd = "/".to_string();
        }
        meta.hostname.clone_from(&self.hostname);
        meta.extra_hosts.clone_from(&self.extra_hosts);
        for default in [Some(self.path), asked.tty.then_some(TERM)].into_iter().flatten() {
            let name = default.split('=').next().unwrap_or_default();
            if !meta.env.iter().any(|known| known.split('=').next() == Some(name)) {
                meta.env.push(default.to_string());
            }
        }
        let (parts, sessions) = (&self.around.parts, &self.around.sessions);
        meta.env.extend(mounts::secret_environment(parts, sessions, &asked.secretenv).await?);
        let process = process_of(&meta, network, security, &self.platform)?;
        Ok(Process { proxy: self.around.proxy.clone(), ..process })
    }

    /// Where the files of a mount are on this machine, until the release.
    ///
    /// # Errors
    /// A mount that isn't there, or has no files of its own.
    pub fn place(&self, mount: i32) -> Result<PathBuf, GatewayError> {
        let known = usize::try_from(mount).ok().and_then(|at| self.places.get(at));
        match known {
            Some(Some(place)) => Ok(place.clone()),
            Some(None) => Err(GatewayError::plain(format!(
                "mount {mount} has no files that can be seen from outside: it is in memory, or nothing is mounted"
            ))),
            None => {
                let there = self.places.len();
                let message = format!("mount index {mount} is out of bounds ({there} available)");
                Err(GatewayError::plain(message))
            }
        }
    }

    async fn release(&self) {
        self.stop.cancel();
        // Whoever starts a process now sees that it is too late.
        drop(self.access.lock().await);
        self.running.close();
        self.running.wait().await;
        let prepared = self.prepared.lock().unwrap_or_else(PoisonError::into_inner).take();
        // Unmounting may take its time.
        let _ = tokio::task::spawn_blocking(move || drop(prepared)).await;
    }
}

/// How a process ended, as clients are told.
fn ended(outcome: crosskit_exec::Result<Exit>) -> frontend::ExitMessage {
    let failed = |code: u32, status: &dyn Fn(&ErrorDetails) -> rpc::Status| {
        let details = ErrorDetails { exit_code: Some(code), ..ErrorDetails::default() };
        frontend::ExitMessage { code, error: Some(status(&details)) }
    };
    match outcome {
        Ok(exit) if exit.code == 0 => frontend::ExitMessage::default(),
        Ok(exit) => {
            let code = u32::try_from(exit.code).unwrap_or(UNKNOWN_EXIT);
            failed(code, &|details| details.to_rpc(Code::Unknown, exit.to_string()))
        }
        Err(crosskit_exec::Error::Canceled) => failed(KILLED, &|details| {
            details.to_rpc(Code::Cancelled, format!("exit code: {KILLED}: context canceled"))
        }),
        Err(error) => not_started(&GatewayError::from(exec_error(error))),
    }
}

/// The exit of a process that never was.
fn not_started(error: &GatewayError) -> frontend::ExitMessage {
    let details = ErrorDetails { exit_code: Some(UNKNOWN_EXIT), ..ErrorDetails::default() };
    frontend::ExitMessage { code: UNKNOWN_EXIT, error: Some(error.clone().with_details(details).to_rpc()) }
}
