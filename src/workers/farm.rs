//! The workers on other machines: watched, told of to the scheduler, and listed for people.

use crate::dispatch::Dispatcher;
use crate::remote::{Facts, Health as Reached, RemoteError, RemoteOptions, RemoteWorker};
use crosskit_platforms::Platform;
use crosskit_scheduler::{Entitlements, Health, Kind, WorkerState, WorkerView};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

/// How many steps a daemon that is none of ours gets at a time, if nobody says.
const STRANGERS_SLOTS: usize = 4;

/// How long a build waits for the first answers of workers, when the endpoint has just started.
const FIRST_ANSWERS: Duration = Duration::from_millis(1500);

/// All workers on other machines.
#[derive(Default)]
pub(crate) struct Farm {
    members: BTreeMap<String, Member>,
}

struct Member {
    worker: RemoteWorker,
    about: Arc<About>,
    /// Whether it has been asked and has answered, or not answered.
    asked: watch::Receiver<bool>,
    _following: AbortOnDropHandle<()>,
}

/// What is known of a worker besides what the scheduler knows.
#[derive(Default)]
struct About {
    /// Whether somebody has told it to take nothing new.
    draining: AtomicBool,
    last: Mutex<Last>,
}

#[derive(Default, Clone)]
struct Last {
    /// What it said.
    facts: Option<Facts>,
    /// Why it is down.
    why: Option<String>,
}

/// A worker as people see it.
#[derive(Debug, Clone)]
pub struct Listed {
    /// What the scheduler knows.
    pub view: WorkerView,
    /// `up`, `down`, `draining` or `resting`.
    pub state: &'static str,
    /// Why it is down.
    pub why: Option<String>,
    /// Where it is; None on this machine.
    pub address: Option<String>,
    /// What the daemon there said; None on this machine, and as long as it has said nothing.
    pub facts: Option<Facts>,
    /// Bytes of blobs that went there.
    pub sent: u64,
    /// Bytes of blobs that came from there.
    pub received: u64,
}

impl Farm {
    /// Begins to follow workers. Has to be called within a runtime.
    ///
    /// # Errors
    /// An address or certificate that makes no sense.
    pub(crate) fn follow(options: Vec<RemoteOptions>, dispatcher: &Dispatcher) -> Result<Self, RemoteError> {
        let mut members = BTreeMap::new();
        for options in options {
            let name = options.name.clone();
            let worker = RemoteWorker::new(options)?;
            // Known from the start, so that an error names it.
            let state = WorkerState::idle(&name, Kind::Remote, worker.options().platforms.clone());
            dispatcher.upsert(WorkerState { health: Health::Down, ..state });
            let about = Arc::new(About::default());
            let (tell, asked) = watch::channel(false);
            let task = follow(worker.clone(), dispatcher.clone(), about.clone(), tell);
            let _following = AbortOnDropHandle::new(tokio::spawn(task));
            members.insert(name, Member { worker, about, asked, _following });
        }
        Ok(Farm { members })
    }

    /// The worker of that name.
    pub(crate) fn get(&self, name: &str) -> Option<&RemoteWorker> {
        self.members.get(name).map(|member| &member.worker)
    }

    /// Whether one of them runs a platform, as far as is known.
    pub(crate) fn may_run(&self, platform: &Platform) -> bool {
        let runs = |member: &Member| {
            let last = member.about.last.lock().unwrap_or_else(PoisonError::into_inner);
            let said = last.facts.as_ref().map(|facts| member.worker.platforms(facts)).unwrap_or_default();
            said.iter().any(|p| crosskit_platforms::Matcher::only(p).matches(platform))
        };
        self.members.values().any(runs)
    }

    /// Waits until every worker has been asked once, though not for long.
    pub(crate) async fn asked(&self) {
        let all = async {
            for member in self.members.values() {
                let _ = member.asked.clone().wait_for(|asked| *asked).await;
            }
        };
        let _ = tokio::time::timeout(FIRST_ANSWERS, all).await;
    }

    /// Lets a worker take nothing new, or take work again. False if there is none of that name.
    pub(crate) fn drain(&self, name: &str, draining: bool, dispatcher: &Dispatcher) -> bool {
        let Some(member) = self.members.get(name) else { return false };
        member.about.draining.store(draining, Ordering::Relaxed);
        if member.about.last().why.is_none() {
            dispatcher.set_health(name, member.about.health());
        }
        true
    }

    /// The workers as people see them, with what the scheduler knows of them.
    pub(crate) fn listed(&self, views: Vec<WorkerView>) -> Vec<Listed> {
        let listed = |view: WorkerView| {
            let member = self.members.get(&view.state.name);
            let last = member.map(|member| member.about.last()).unwrap_or_default();
            let traffic = member.map(|member| member.worker.traffic()).unwrap_or_default();
            let state = match view.state.health {
                Health::Down => "down",
                Health::Draining => "draining",
                Health::Up if view.resting => "resting",
                Health::Up => "up",
            };
            let why = last.why.filter(|_| state == "down");
            let address = member.map(|member| member.worker.options().addr.clone());
            let (sent, received) = (traffic.sent, traffic.received);
            Listed { view, state, why, address, facts: last.facts, sent, received }
        };
        views.into_iter().map(listed).collect()
    }
}

impl About {
    fn last(&self) -> Last {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, change: impl FnOnce(&mut Last)) {
        change(&mut self.last.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Of a worker that answers.
    fn health(&self) -> Health {
        if self.draining.load(Ordering::Relaxed) { Health::Draining } else { Health::Up }
    }
}

/// Tells the scheduler what becomes of a worker.
async fn follow(worker: RemoteWorker, dispatcher: Dispatcher, about: Arc<About>, asked: watch::Sender<bool>) {
    let mut health = worker.watch();
    let name = worker.name().to_string();
    loop {
        let reached = health.borrow_and_update().clone();
        let failed = match reached {
            Reached::Unknown => None,
            Reached::Down { why } => Some(why),
            Reached::Up => match worker.probe().await {
                Ok(facts) => {
                    let state = state(&worker, &facts, about.health());
                    let platforms: Vec<_> = state.platforms.iter().map(Platform::format).collect();
                    tracing::info!(worker = name, platforms = platforms.join(","), "worker is up");
                    about.set(|last| *last = Last { facts: Some(facts), why: None });
                    dispatcher.upsert(state);
                    asked.send_replace(true);
                    None
                }
                Err(RemoteError::Worker { why, .. }) => Some(why),
                Err(other) => Some(other.to_string()),
            },
        };
        let again = failed.is_some();
        if let Some(why) = failed {
            tracing::warn!(worker = name, why, "worker is down");
            about.set(|last| last.why = Some(why));
            dispatcher.set_health(&name, Health::Down);
            asked.send_replace(true);
        }
        // One that answers but cannot be used may be mended without being silent in between.
        let pause = worker.options().probe_interval.max(Duration::from_millis(100));
        let changed = health.changed();
        let gone = match again && *asked.borrow() {
            true => tokio::time::timeout(pause, changed).await.is_ok_and(|changed| changed.is_err()),
            false => changed.await.is_err(),
        };
        if gone {
            return;
        }
    }
}

/// A worker as the scheduler sees it.
fn state(worker: &RemoteWorker, facts: &Facts, health: Health) -> WorkerState {
    let options = worker.options();
    let mut entitlements = Entitlements::ALL;
    if !facts.is_crosskit && !options.allow_secret_env {
        entitlements = entitlements.without(Entitlements::SECRET_ENVIRONMENT);
    }
    let slots = options.slots.or(facts.slots).or((!facts.is_crosskit).then_some(STRANGERS_SLOTS));
    WorkerState {
        slots,
        health,
        entitlements,
        ..WorkerState::idle(worker.name(), Kind::Remote, worker.platforms(facts))
    }
}
