//! Whether a worker is there: asked at intervals, by a call of its own, as a Go server hangs up
//! on those who ping it by HTTP/2 each second.

use super::connection::Line;
use super::{Inner, RemoteWorker};
use crosskit_api::health::HealthCheckRequest;
use crosskit_api::health::health_check_response::ServingStatus;
use crosskit_api::health::health_client::HealthClient;
use crosskit_scheduler::Entitlements;
use std::sync::{Arc, OnceLock, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use tonic::Code;

/// Whether a worker is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// Nobody has asked yet.
    Unknown,
    /// It has answered within the time that it has.
    Up,
    /// It has not, or said that it serves nobody.
    Down {
        /// What is wrong.
        why: String,
    },
}

/// The state of a worker and the task that keeps it true.
pub(super) struct Watch {
    state: watch::Sender<Health>,
    task: OnceLock<AbortOnDropHandle<()>>,
}

impl Default for Watch {
    fn default() -> Self {
        Watch { state: watch::Sender::new(Health::Unknown), task: OnceLock::new() }
    }
}

impl Watch {
    /// Has those who follow the worker look at it again.
    pub(super) fn nudge(&self) {
        self.state.send_modify(|_| ());
    }
}

impl RemoteWorker {
    /// The worker's health from now on. It is watched from the first call on, until the last
    /// clone of the worker is gone; has to be called within a runtime.
    pub fn watch(&self) -> watch::Receiver<Health> {
        let watched = Arc::downgrade(&self.0);
        self.0.watch.task.get_or_init(|| AbortOnDropHandle::new(tokio::spawn(keep_asking(watched))));
        self.0.watch.state.subscribe()
    }

    /// Waits until the worker is known not to be there, and says why.
    pub(super) async fn down(&self) -> String {
        let mut state = self.watch();
        let down = state.wait_for(|health| matches!(health, Health::Down { .. })).await;
        match down.as_deref() {
            Ok(Health::Down { why }) => why.clone(),
            _ => "it is no longer watched".to_string(),
        }
    }
}

async fn keep_asking(watched: Weak<Inner>) {
    let mut line = None;
    let mut answered = Instant::now();
    loop {
        let Some(worker) = watched.upgrade() else { return };
        let (interval, dead_after) = (worker.options.probe_interval, worker.options.dead_after);
        let begun = Instant::now();
        // A worker that is down gets the whole time for its next answer.
        let down = matches!(&*worker.watch.state.borrow(), Health::Down { .. });
        let limit = if down { dead_after } else { dead_after.saturating_sub(answered.elapsed()) };
        let asked = tokio::time::timeout(limit, ask(&worker, &mut line)).await;
        let health = match asked {
            Ok(Ok(())) => {
                answered = Instant::now();
                Health::Up
            }
            Ok(Err(why)) => Health::Down { why },
            Err(_) => Health::Down { why: format!("no answer for {dead_after:?}") },
        };
        if health != Health::Up {
            line = None;
            // It may come back with another configuration.
            *worker.lacks.lock().unwrap_or_else(PoisonError::into_inner) = Entitlements::NONE;
        }
        worker.watch.state.send_if_modified(|state| {
            let changed = *state != health;
            *state = health;
            changed
        });
        drop(worker);
        tokio::time::sleep_until(begun + interval.max(Duration::from_millis(10))).await;
    }
}

/// Asks once. An answer of whatever kind is a sign of life, except that it serves nobody.
async fn ask(worker: &Inner, kept: &mut Option<Line>) -> Result<(), String> {
    let line = match kept {
        Some(line) => line,
        None => kept.insert(worker.target.connect().await?),
    };
    match HealthClient::new(line.channel()).check(HealthCheckRequest::default()).await {
        Ok(answer) if answer.get_ref().status == ServingStatus::NotServing as i32 => {
            Err("it says that it is not serving".to_string())
        }
        Ok(_) => Ok(()),
        Err(status) => match line.broken(&status) {
            Some(why) => Err(why),
            None if matches!(status.code(), Code::Unimplemented | Code::NotFound) => Ok(()),
            None => Err(crosskit_api::errors::describe(status.code(), status.message())),
        },
    }
}
