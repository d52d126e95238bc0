//! What becomes of a worker on another machine, told to the scheduler.

use crate::dispatch::Dispatcher;
use crate::remote::{Facts, Health as Reached, RemoteError, RemoteWorker};
use crosskit_platforms::Platform;
use crosskit_scheduler::{Entitlements, Health, Kind, WorkerState};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// How many steps a daemon that is none of ours gets at a time, if nobody says.
const STRANGERS_SLOTS: usize = 4;

/// What is known of a worker besides what the scheduler knows.
#[derive(Default)]
pub(super) struct About {
    /// Whether somebody has told it to take nothing new.
    pub draining: AtomicBool,
    /// Whether it is not found any more.
    pub leaving: AtomicBool,
    last: Mutex<Last>,
}

#[derive(Default, Clone)]
pub(super) struct Last {
    /// What it said.
    pub facts: Option<Facts>,
    /// Why it is down.
    pub why: Option<String>,
    /// Whether it is no member any more: nothing that becomes of it counts.
    pub gone: bool,
}

impl About {
    pub(super) fn last(&self) -> Last {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn with<T>(&self, change: impl FnOnce(&mut Last) -> T) -> T {
        change(&mut self.last.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Lets something happen unless it is no member any more.
    fn note(&self, change: impl FnOnce(&mut Last)) {
        self.with(|last| {
            if !last.gone {
                change(last)
            }
        });
    }

    /// Of a worker that answers.
    pub(super) fn health(&self) -> Health {
        let stays = [&self.draining, &self.leaving].iter().all(|no| !no.load(Ordering::Relaxed));
        if stays { Health::Up } else { Health::Draining }
    }
}

/// Tells the scheduler what becomes of a worker.
pub(super) async fn follow(
    worker: RemoteWorker,
    own: String,
    dispatcher: Dispatcher,
    about: Arc<About>,
    asked: watch::Sender<bool>,
) {
    let mut health = worker.watch();
    let name = worker.name().to_string();
    let mut up = false;
    loop {
        let reached = health.borrow_and_update().clone();
        let failed = match reached {
            Reached::Unknown => None,
            Reached::Down { why } => Some(why),
            Reached::Up => match worker.probe().await {
                Ok(facts) if facts.id == own => Some("it is this endpoint itself".to_string()),
                Ok(facts) => {
                    let state = state(&worker, &facts, about.health());
                    let platforms: Vec<_> = state.platforms.iter().map(Platform::format).collect();
                    if !std::mem::replace(&mut up, true) {
                        tracing::info!(worker = name, platforms = platforms.join(","), "worker is up");
                    }
                    about.note(|last| {
                        (last.facts, last.why) = (Some(facts), None);
                        dispatcher.upsert(state);
                    });
                    asked.send_replace(true);
                    None
                }
                Err(RemoteError::Worker { why, .. }) => Some(why),
                Err(other) => Some(other.to_string()),
            },
        };
        let again = failed.is_some();
        up &= !again;
        if let Some(why) = failed {
            tracing::warn!(worker = name, why, "worker is down");
            about.note(|last| {
                last.why = Some(why);
                dispatcher.set_health(&name, Health::Down);
            });
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
    // A step's devices are those of this machine.
    let mut entitlements = Entitlements::ALL.without(worker.lacks()).without(Entitlements::DEVICES);
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
