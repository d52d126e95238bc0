//! What a source is told about the builds that want it, and what it tells them.

use crate::BuildMemory;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often a transfer's progress is told.
const EVERY: Duration = Duration::from_millis(100);

/// How far something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status<'a> {
    /// What it is: `transferring context:`, `resolve docker.io/…`, the digest of a blob.
    pub id: &'a str,
    /// What is done with it, where the id does not say so: `transferring`, `extract`.
    pub name: &'a str,
    /// Bytes so far.
    pub current: u64,
    /// Bytes in all; 0 if that is not known.
    pub total: u64,
    /// Whether it is over.
    pub done: bool,
}

/// The builds that want a source.
pub trait SourceContext: Send + Sync {
    /// Their sessions, as they are now, those of the first build first.
    fn sessions(&self) -> Vec<String>;

    /// Takes note of progress.
    fn status(&self, status: Status<'_>);

    /// Shows what a program says: on its output (1) or its error output (2).
    fn log(&self, stream: i32, text: &[u8]);

    /// What was found out for these builds before.
    fn memory(&self) -> Option<Arc<BuildMemory>> {
        None
    }

    /// Which daemon's older habits the builds want kept (BuildKit's numbers: 10, 20, 30); 0 for the
    /// current one.
    fn compatibility_version(&self) -> u32 {
        0
    }
}

/// Runs `work` with a line of progress from its beginning to its end.
pub(crate) async fn shown<T>(cx: &dyn SourceContext, id: &str, work: impl Future<Output = T>) -> T {
    let status = Status { id, name: "", current: 0, total: 0, done: false };
    cx.status(status);
    let result = work.await;
    cx.status(Status { done: true, ..status });
    result
}

/// Tells of a transfer, but not too often.
pub(crate) struct Transfer {
    cx: Arc<dyn SourceContext>,
    id: String,
    name: &'static str,
    last: Mutex<Option<Instant>>,
}

impl Transfer {
    pub(crate) fn new(cx: &Arc<dyn SourceContext>, id: impl Into<String>, name: &'static str) -> Self {
        Self { cx: cx.clone(), id: id.into(), name, last: Mutex::new(None) }
    }

    pub(crate) fn at(&self, current: u64, total: u64, done: bool) {
        {
            let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            if !done && last.is_some_and(|when| when.elapsed() < EVERY) {
                return;
            }
            *last = Some(Instant::now());
        }
        self.cx.status(Status { id: &self.id, name: self.name, current, total, done });
    }
}
