//! Running a process: one step of a build.

use super::Materialize;
use super::content::FilesOf;
use super::emulator::Tail;
use super::left::LeftOver;
use super::mounts::{self, Prepared, secret_environment};
use super::proxied;
use crate::dispatch::Place;
use crate::keys::{InputKey, exec_digest, exec_inputs};
use crate::machines::Ran;
use crate::remote::RemoteError;
use crate::{LocalParts, ResultRef, Workers};
use crosskit_api::pb;
use crosskit_exec::devices::Wanted;
use crosskit_exec::usage::{Meter, Usage};
use crosskit_exec::{ExtraHost, LinuxResources, Network, Output, Process, Security, Stdio, Ulimit};
use crosskit_platforms::Platform;
use crosskit_proxynet::Record;
use crosskit_scheduler::{Kind, Outcome};
use crosskit_snapshots::{MadeBy, Ref};
use crosskit_solver::{
    CacheDep, CacheMap, ErrorKind, Input, JobContext, Op, OpContext, OpError, Permit,
    progress::{Part, Stream},
};
use futures::future::{BoxFuture, try_join_all};
use std::sync::{Arc, Mutex, PoisonError};

/// Runs a process.
pub struct ExecOp {
    /// What is asked for.
    pub op: pb::ExecOp,
    /// Where it executes, in normal form.
    pub platform: Platform,
    /// How many inputs there are.
    pub inputs: usize,
    /// What runs it on this machine.
    pub parts: Arc<LocalParts>,
    /// Everybody who could run it.
    pub workers: Workers,
    /// The right to run, between getting and using it.
    pub right: Arc<Mutex<Option<Right>>>,
    /// Where it has run last, if that is not a matter of course.
    pub ran: Mutex<Option<Ran>>,
    /// What it has used, if it has run here.
    pub used: Mutex<Option<Arc<Usage>>>,
    /// If a proxy is its only way to the network.
    pub proxied: Option<Proxied>,
}

/// A step behind a proxy.
pub struct Proxied {
    /// The name of the rules that count for its requests.
    pub rules: String,
    /// What it has asked for, if it has run.
    pub record: Arc<Record>,
}

/// The right to run: a place at a worker, and on this machine one among all steps.
pub struct Right {
    place: Place,
    _here: Option<crate::local::Place>,
}

/// Takes the right of a step that never ran back.
struct Unused(Arc<Mutex<Option<Right>>>);

impl Drop for Unused {
    fn drop(&mut self) {
        drop(take(&self.0));
    }
}

fn take(right: &Mutex<Option<Right>>) -> Option<Right> {
    right.lock().unwrap_or_else(PoisonError::into_inner).take()
}

impl Op<ResultRef> for ExecOp {
    fn cache_map<'a>(&'a self, _cx: &'a OpContext) -> BoxFuture<'a, Result<CacheMap<ResultRef>, OpError>> {
        Box::pin(std::future::ready(self.map()))
    }

    fn acquire<'a>(&'a self, cx: &'a OpContext) -> BoxFuture<'a, Result<Permit, OpError>> {
        Box::pin(async move {
            let right = self.find_right(cx, Vec::new()).await?;
            *self.right.lock().unwrap_or_else(PoisonError::into_inner) = Some(right);
            Ok(Permit::holding(Unused(Arc::clone(&self.right))))
        })
    }

    fn exec<'a>(
        &'a self,
        cx: &'a OpContext,
        inputs: Vec<ResultRef>,
    ) -> BoxFuture<'a, Result<Vec<ResultRef>, OpError>> {
        self.exec_early(cx, inputs.into_iter().map(Input::Here).collect())
    }

    fn exec_early<'a>(
        &'a self,
        cx: &'a OpContext,
        inputs: Vec<Input<ResultRef>>,
    ) -> BoxFuture<'a, Result<Vec<ResultRef>, OpError>> {
        Box::pin(self.run_somewhere(cx, inputs))
    }

    fn as_any(&self) -> Option<&dyn std::any::Any> {
        Some(self)
    }
}

impl ExecOp {
    fn map(&self) -> Result<CacheMap<ResultRef>, OpError> {
        let keys =
            exec_inputs(&self.op, self.inputs).map_err(|e| OpError::new(ErrorKind::User, e.to_string()))?;
        let mut deps: Vec<_> = keys.into_iter().map(dep).collect();
        if self.proxied.is_none() && self.workers.may_go_elsewhere(&self.platform) {
            // What a worker has, or brings from where it is, need not come here first.
            for dep in &mut deps {
                dep.preprocess = None;
                dep.early = true;
            }
        }
        Ok(CacheMap { digest: exec_digest(&self.op, &self.platform), deps, load_with: None })
    }

    fn meta(&self) -> Result<&pb::Meta, OpError> {
        self.op
            .meta
            .as_ref()
            .ok_or_else(|| OpError::new(ErrorKind::User, "a process needs arguments: its meta is missing"))
    }

    /// Waits for the right to run, not at workers that have failed at it.
    async fn find_right(&self, cx: &OpContext, mut failed: Vec<String>) -> Result<Right, OpError> {
        let job = cx.jobs.jobs().into_iter().next();
        let job = job.ok_or_else(|| OpError::new(ErrorKind::Canceled, "no build wants it any more"))?;
        self.workers.look_for(&self.platform).await;
        let groups = self.workers.groups(&job).await;
        let place = loop {
            if self.proxied.is_some() {
                failed.extend(self.workers.elsewhere());
            }
            let found = groups.place(&cx.vertex, &self.platform, failed.clone()).await;
            let place = found.map_err(|e| match self.proxied {
                Some(_) => e.context("a step behind the proxy network runs on this machine only"),
                None => e,
            })?;
            // One that has come meanwhile.
            if self.proxied.is_none() || self.workers.remote(place.worker()).is_none() {
                break place;
            }
            place.end(Outcome::Canceled);
        };
        let here = match self.workers.remote(place.worker()) {
            Some(_) => None,
            None => Some(self.parts.place_for(&self.platform).await),
        };
        Ok(Right { place, _here: here })
    }

    /// Runs it where there is a place for it. Nobody waits for inputs that are on their way while
    /// holding a place: they may need it, if they have to be made again.
    async fn run_somewhere(
        &self,
        cx: &OpContext,
        mut inputs: Vec<Input<ResultRef>>,
    ) -> Result<Vec<ResultRef>, OpError> {
        let mut right = take(&self.right);
        let mut failed = Vec::new();
        loop {
            let Right { place, _here } = match right.take() {
                Some(right) => right,
                None => self.find_right(cx, failed.clone()).await?,
            };
            let Some(remote) = self.workers.remote(place.worker()) else {
                if inputs.iter().any(|input| matches!(input, Input::Promised(_))) {
                    place.end(Outcome::Canceled);
                    drop(_here);
                    come(&mut inputs).await?;
                    continue;
                }
                let here = come(&mut inputs).await?;
                let _running = self.tell(cx, &place).await;
                let ran = self.run_here(cx, here, place.kind()).await;
                if let Ok(results) = &ran {
                    self.sign(results, &inputs);
                }
                place.end(match &ran {
                    Ok(_) => Outcome::Finished,
                    Err(e) if e.kind() == ErrorKind::Canceled => Outcome::Canceled,
                    Err(_) => Outcome::StepFailed,
                });
                return ran;
            };
            let running = self.tell(cx, &place).await;
            let (mut place, mut running) = (Some(place), running);
            let mut ran = |told| {
                running = None;
                place.take().into_iter().for_each(|place| place.end(Outcome::Finished));
                cx.promise(told);
            };
            let done = remote.run_step(cx, &cx.vertex, &inputs, &self.parts, &mut ran).await;
            let outcome = match &done {
                Ok(_) => Outcome::Finished,
                Err(RemoteError::Step(_)) => Outcome::StepFailed,
                Err(RemoteError::Early | RemoteError::Canceled) => Outcome::Canceled,
                Err(RemoteError::Worker { .. }) => Outcome::WorkerFailed,
            };
            drop(running);
            let had_run = place.is_none();
            place.into_iter().for_each(|place| place.end(outcome));
            match done {
                Ok(results) => {
                    self.sign(&results, &inputs);
                    return Ok(results);
                }
                Err(RemoteError::Step(error)) => return Err(self.with_left(error, &inputs)),
                Err(RemoteError::Canceled) => return Err(OpError::canceled()),
                Err(RemoteError::Early) => {}
                Err(RemoteError::Worker { name, why }) => {
                    if had_run && cx.jobs.jobs().iter().all(JobContext::is_answered) {
                        // It would be run again for nobody but later builds, which can do that.
                        return Err(OpError::new(ErrorKind::Unavailable, format!("worker {name}: {why}")));
                    }
                    tracing::warn!(worker = name, why, "a step goes to another worker");
                    let note = format!("worker {name}: {why}; going on elsewhere\n");
                    cx.progress.writer(Stream::Stderr).take(note.as_bytes());
                    failed.push(name);
                }
            }
            come(&mut inputs).await?;
        }
    }

    /// Tells where it runs, and keeps it.
    async fn tell(&self, cx: &OpContext, place: &Place) -> Option<Part> {
        let ran = self.workers.ran(place.worker(), place.kind(), &self.platform).await;
        let running = ran.as_ref().map(|ran| ran.tell(&cx.progress));
        *self.ran.lock().unwrap_or_else(PoisonError::into_inner) = ran;
        running
    }

    /// Where it has run, if it has and that is not a matter of course.
    pub fn ran(&self) -> Option<Ran> {
        self.ran.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes with what it has made where it has run, for builds that find it made. What went in and came out as it was is
    /// not of its making.
    fn sign(&self, results: &[ResultRef], inputs: &[Input<ResultRef>]) {
        let Some(Ran { platform, worker, how }) = self.ran() else { return };
        let made_by = MadeBy { platform, worker, how };
        let went_in = |made: &Ref| {
            inputs.iter().any(|input| matches!(input, Input::Here(Some(given)) if given == made))
        };
        for made in results.iter().flatten().filter(|made| !went_in(made)) {
            if let Err(why) = made.set_made_by(made_by.clone()) {
                tracing::warn!(id = made.id(), %why, "it could not be noted where a step has run");
            }
        }
    }

    /// What it has used, if it has run on this machine and succeeded.
    pub fn used(&self) -> Option<Arc<Usage>> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What is left of a step that failed elsewhere: what it was given, as far as it is here. What it has written
    /// stays there.
    fn with_left(&self, error: OpError, inputs: &[Input<ResultRef>]) -> OpError {
        let here = |input: &Input<ResultRef>| match input {
            Input::Here(result) => Some(result.clone()),
            Input::Promised(_) => None,
        };
        let Some(inputs) = inputs.iter().map(here).collect::<Option<Vec<_>>>() else { return error };
        if error.details().exit_code.is_none() {
            return error;
        }
        error.attach(Arc::new(LeftOver::untouched(&self.op.mounts, &inputs)))
    }

    /// Runs it on this machine, once more if the emulator has crashed rather than the step.
    async fn run_here(
        &self,
        cx: &OpContext,
        inputs: Vec<ResultRef>,
        kind: Kind,
    ) -> Result<Vec<ResultRef>, OpError> {
        let tail = Tail::default();
        let ran = self.run(cx, inputs.clone(), Some(&tail).filter(|_| kind == Kind::Emulated)).await;
        let Err(error) = &ran else { return ran };
        let Some(line) = error.details().exit_code.and_then(|code| tail.crash(code)) else { return ran };
        tracing::warn!(platform = self.platform.format(), line, "an emulator has crashed");
        let note = format!("the emulator for {} has crashed ({line}); once more\n", self.platform.format());
        cx.progress.writer(Stream::Stderr).take(note.as_bytes());
        self.run(cx, inputs, None).await
    }

    /// Runs it on this machine. The end of what it says goes into `tail`.
    async fn run(
        &self,
        cx: &OpContext,
        inputs: Vec<ResultRef>,
        tail: Option<&Tail>,
    ) -> Result<Vec<ResultRef>, OpError> {
        let meta = self.meta()?;
        let step = meta.args.join(" ");
        let sessions = cx.jobs.sessions();
        let prepared =
            mounts::prepare(&self.parts, &sessions, &self.op.mounts, &inputs, &meta.cwd, &step).await?;
        let mut process = self.process(cx, &prepared).await?;
        let meter = Meter::default();
        process.meter = Some(meter.clone());
        process.proxy = self.proxied.as_ref().map(|p| proxied::rules(&p.rules, &cx.jobs, &p.record));
        // What does not fit into the limits is passed on when these are dropped.
        let (mut out, mut err) = (cx.progress.writer(Stream::Stdout), cx.progress.writer(Stream::Stderr));
        let tail = tail.cloned();
        let stdio = Stdio {
            stdout: Output::call(move |text| out.take(&text)),
            stderr: Output::call(move |text| {
                if let Some(tail) = &tail {
                    tail.add(&text);
                }
                err.take(&text);
            }),
            ..Stdio::default()
        };
        let ended = self.parts.executor.run(process, stdio, cx.cancel.clone()).await;
        if let Some(asked) = self.proxied.as_ref().and_then(|proxied| proxied.record.summary()) {
            cx.progress.writer(Stream::Stderr).take(asked.as_bytes());
        }
        let exit = ended.map_err(|error| {
            let (words, error) = (meta.args.join(" "), exec_error(error));
            match error.kind() {
                ErrorKind::Canceled => error,
                _ => error.context(format!("process {words:?} did not complete successfully")),
            }
        })?;
        if exit.is_success(&meta.valid_exit_codes) {
            *self.used.lock().unwrap_or_else(PoisonError::into_inner) = meter.usage();
            return prepared.finish().await;
        }
        // As long as what it has written is there.
        let full =
            crate::disk::full(&self.parts.snapshots).map(|full| format!("; {full}")).unwrap_or_default();
        let left = prepared.left(&self.op.mounts, &inputs).await?;
        let details = crosskit_api::errors::ErrorDetails {
            exit_code: u32::try_from(exit.code).ok(),
            ..Default::default()
        };
        Err(OpError::new(ErrorKind::User, exit.failure(&meta.args) + &full)
            .with_details(details)
            .attach(Arc::new(left)))
    }

    async fn process(&self, cx: &OpContext, prepared: &Prepared) -> Result<Process, OpError> {
        let meta = self.meta()?;
        let mut process = process_of(meta, self.op.network(), self.op.security(), &self.platform)?;
        let sessions = cx.jobs.sessions();
        process.env.extend(secret_environment(&self.parts, &sessions, &self.op.secretenv).await?);
        // As they are now: another build that wants it too may have loosened them.
        if let Some(limits) = &cx.vertex.metadata.linux_resources {
            process.resources = LinuxResources {
                memory: limits.memory,
                memory_swap: limits.memory_swap,
                cpu_shares: limits.cpu_shares,
                cpu_period: limits.cpu_period,
                cpu_quota: limits.cpu_quota,
                cpuset_cpus: limits.cpuset_cpus.clone(),
                cpuset_mems: limits.cpuset_mems.clone(),
            };
        }
        if !self.op.cdi_devices.is_empty() {
            let wanted = self.op.cdi_devices.iter();
            let wanted: Vec<_> =
                wanted.map(|d| Wanted { name: d.name.clone(), optional: d.optional }).collect();
            let devices = self.parts.devices().await?;
            process.devices = devices
                .find(&wanted)
                .and_then(|names| devices.edits(&names))
                .map_err(|e| OpError::new(ErrorKind::User, format!("CDI device injection failed: {e}")))?;
        }
        prepared.mount_into(&mut process);
        Ok(process)
    }
}

/// A process from its meta, without root, mounts and secrets.
///
/// # Errors
/// Hosts whose address is none.
pub fn process_of(
    meta: &pb::Meta,
    network: pb::NetMode,
    security: pb::SecurityMode,
    platform: &Platform,
) -> Result<Process, OpError> {
    let mut env = meta.env.clone();
    if let Some(proxy) = &meta.proxy_env {
        for (name, value) in [
            ("HTTP_PROXY", &proxy.http_proxy),
            ("HTTPS_PROXY", &proxy.https_proxy),
            ("FTP_PROXY", &proxy.ftp_proxy),
            ("NO_PROXY", &proxy.no_proxy),
            ("ALL_PROXY", &proxy.all_proxy),
        ] {
            if !value.is_empty() {
                env.push(format!("{name}={value}"));
                env.push(format!("{}={value}", name.to_lowercase()));
            }
        }
    }
    let hosts = meta.extra_hosts.iter().map(|h| {
        let ip =
            h.ip.parse()
                .map_err(|_| OpError::new(ErrorKind::User, format!("failed to parse IP {}", h.ip)))?;
        Ok(ExtraHost { host: h.host.clone(), ip })
    });
    Ok(Process {
        args: meta.args.clone(),
        env,
        cwd: meta.cwd.clone(),
        user: meta.user.clone(),
        hostname: meta.hostname.clone(),
        extra_hosts: hosts.collect::<Result<_, OpError>>()?,
        network: match network {
            pb::NetMode::Unset => Network::Sandbox,
            pb::NetMode::Host => Network::Host,
            pb::NetMode::None => Network::None,
        },
        security: match security {
            pb::SecurityMode::Sandbox => Security::Sandbox,
            pb::SecurityMode::Insecure => Security::Insecure,
        },
        ulimits: meta
            .ulimit
            .iter()
            .map(|u| Ulimit { name: u.name.clone(), soft: u.soft, hard: u.hard })
            .collect(),
        cgroup_parent: meta.cgroup_parent.clone(),
        remove_mount_stubs_recursive: meta.remove_mount_stubs_recursive,
        platform: Some(platform.clone()),
        ..Process::default()
    })
}

/// Waits until all inputs are here.
async fn come(inputs: &mut [Input<ResultRef>]) -> Result<Vec<ResultRef>, OpError> {
    let results = try_join_all(inputs.iter().map(Input::result)).await?;
    for (input, result) in inputs.iter_mut().zip(&results) {
        *input = Input::Here(result.clone());
    }
    Ok(results)
}

/// How an input takes part in a key, as the solver wants it.
pub fn dep(key: InputKey) -> CacheDep<ResultRef> {
    CacheDep {
        selector: key.selector,
        content: key.content.map(|selectors| Arc::new(FilesOf { selectors }) as _),
        preprocess: Some(Arc::new(Materialize)),
        early: false,
    }
}

/// An error of the executor as one of an operation.
pub fn exec_error(error: crosskit_exec::Error) -> OpError {
    use crosskit_exec::Kind;
    let kind = match error.kind() {
        Kind::User => ErrorKind::User,
        Kind::Environment => ErrorKind::Environment,
        Kind::Unavailable => ErrorKind::Unavailable,
        Kind::Canceled => ErrorKind::Canceled,
        Kind::Internal => ErrorKind::Internal,
    };
    OpError::from_error(kind, error)
}
