//! What a worker reports of a step, told as if it ran here.

use super::connection::Line;
use super::pulls::{self, Pulls};
use crosskit_api::control::{StatusRequest, StatusResponse, Vertex, VertexStatus};
use crosskit_solver::progress::Stream;
use crosskit_solver::{StatusUpdate, VertexProgress};
use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

/// How long the last reports of a build may let us wait for each other.
const LAST_REPORTS: std::time::Duration = std::time::Duration::from_secs(5);

/// How much of what a step prints is kept to judge its failure by, in bytes.
const TAIL: usize = 4 << 10;

/// The end of what a step has printed.
#[derive(Clone, Default)]
pub(super) struct Printed(Arc<Mutex<VecDeque<u8>>>);

impl Printed {
    fn add(&self, text: &[u8]) {
        let mut tail = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tail.extend(&text[text.len().saturating_sub(TAIL)..]);
        let excess = tail.len().saturating_sub(TAIL);
        tail.drain(..excess);
    }

    /// What there is of it.
    pub(super) fn end(&self) -> Vec<u8> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }
}

/// Reports of a build that are being followed.
pub(super) struct Followed {
    task: AbortOnDropHandle<()>,
    news: watch::Receiver<()>,
    ran: watch::Receiver<bool>,
    stall: watch::Receiver<Option<Instant>>,
    pub(super) printed: Printed,
}

/// Follows the build `reference`, in which the step goes by one of `names`, and images are pulled in `pulls`.
pub(super) fn follow(
    line: &Line,
    reference: String,
    names: [String; 2],
    pulls: HashSet<String>,
    progress: VertexProgress,
) -> Followed {
    let (mut pulls, stall) = Pulls::new(pulls);
    let ((told, news), (tell_ran, ran)) = (watch::channel(()), watch::channel(false));
    let printed = Printed::default();
    let mut calls = line.control();
    let tail = printed.clone();
    let task = tokio::spawn(async move {
        let Ok(reports) = calls.status(StatusRequest { r#ref: reference }).await else { return };
        let mut reports = reports.into_inner();
        while let Ok(Some(report)) = reports.message().await {
            told.send_replace(());
            pulls.note(&report);
            if has_run(&report, &names) {
                tell_ran.send_replace(true);
            }
            tell(report, &names, &progress, &tail);
        }
    });
    Followed { task: AbortOnDropHandle::new(task), news, ran, stall, printed }
}

impl Followed {
    /// Waits until the step's result is known at the worker, and to nobody else. Forever if it never is.
    pub(super) fn ran(&self) -> impl Future<Output = ()> + use<> {
        let mut ran = self.ran.clone();
        async move {
            if ran.wait_for(|ran| *ran).await.is_err() {
                std::future::pending().await
            }
        }
    }

    /// Waits until the worker gets no further with an image that it pulls. Forever if it does.
    pub(super) fn stalled(&self) -> impl Future<Output = ()> + use<> {
        pulls::stalled(self.stall.clone())
    }

    /// Waits for the last report, after the build has ended. A silent worker is not waited for.
    pub(super) async fn ended(&mut self) {
        loop {
            tokio::select! {
                _ = &mut self.task => return,
                () = tokio::time::sleep(LAST_REPORTS) => {
                    if !self.news.has_changed().unwrap_or(false) {
                        return;
                    }
                    self.news.mark_unchanged();
                }
            }
        }
    }
}

/// Whether a report says that the step has come to a good end. Those who have inputs report of nothing but their runs.
fn has_run(report: &StatusResponse, names: &[String; 2]) -> bool {
    let done = |vertex: &&Vertex| names.contains(&vertex.digest) && !vertex.inputs.is_empty();
    report.vertexes.iter().filter(done).any(|vertex| vertex.completed.is_some() && vertex.error.is_empty())
}

fn tell(report: StatusResponse, names: &[String; 2], progress: &VertexProgress, printed: &Printed) {
    for log in &report.logs {
        if names.contains(&log.vertex) {
            let stream = if log.stream == Stream::Stderr as i64 { Stream::Stderr } else { Stream::Stdout };
            printed.add(&log.msg);
            // The worker has applied the limits of a step's output.
            progress.log(stream, &log.msg);
        }
    }
    // Of inputs on their way and results on theirs only what has a size is worth showing here.
    for status in report.statuses.into_iter().filter(|status| status.total > 0) {
        progress.status(update(status));
    }
}

fn update(status: VertexStatus) -> StatusUpdate {
    let time = |time: prost_types::Timestamp| SystemTime::try_from(time).ok();
    StatusUpdate {
        id: status.id,
        action: status.name,
        current: status.current,
        total: status.total,
        started: status.started.and_then(time),
        completed: status.completed.and_then(time),
    }
}
