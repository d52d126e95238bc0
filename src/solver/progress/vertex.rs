use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use crosskit_api::control;
use crosskit_llb::Digest;
use tokio::time::Instant;

use super::event::{Event, VertexInfo, VertexState};
use super::job_log::JobLog;
use super::log_writer::{LogLimits, LogWriter, Stream};
use crate::few::Few;

/// How often the progress of one part of a step is told. Its beginning and end always are.
const STATUS_PACE: Duration = Duration::from_millis(100);

/// Where a step reports to. Clones are the same step.
#[derive(Clone)]
pub struct VertexProgress(Arc<Inner>);

struct Inner {
    info: Arc<VertexInfo>,
    limits: LogLimits,
    state: Mutex<State>,
}

struct State {
    /// What was told after the step was announced.
    history: Vec<Event>,
    listeners: Few<Arc<JobLog>>,
    /// The parts that have not ended: when they were told of last, and as what.
    told: HashMap<String, (Instant, StatusUpdate)>,
}

/// How far a part of a step is, such as the download of a layer.
#[derive(Debug, Clone, Default)]
pub struct StatusUpdate {
    /// Which part.
    pub id: String,
    /// What is being done to it, such as `extracting`.
    pub action: String,
    /// How much is done, in units of its own.
    pub current: i64,
    /// How much there is; 0 when not known.
    pub total: i64,
    /// When it began.
    pub started: Option<SystemTime>,
    /// When it ended.
    pub completed: Option<SystemTime>,
}

impl VertexProgress {
    pub(crate) fn new(info: VertexInfo, limits: LogLimits) -> Self {
        let info = Arc::new(info);
        let (history, listeners, told) = Default::default();
        let state = State { history, listeners, told };
        VertexProgress(Arc::new(Inner { info, limits, state: Mutex::new(state) }))
    }

    pub(crate) fn standalone(name: String, id: Option<&str>, log: &Arc<JobLog>) -> Self {
        let digest = Digest::of(id.unwrap_or(&name).as_bytes());
        let info = Arc::new(VertexInfo { digest, inputs: Vec::new(), name, group: None });
        let state =
            State { history: Vec::new(), listeners: Few::One(Some(log.clone())), told: HashMap::new() };
        let limits = LogLimits::default();
        VertexProgress(Arc::new(Inner { info, limits, state: Mutex::new(state) }))
    }

    /// Of a step that nobody listens to.
    pub fn unheard(name: impl Into<String>) -> Self {
        let name = name.into();
        let digest = Digest::of(name.as_bytes());
        Self::new(VertexInfo { digest, inputs: Vec::new(), name, group: None }, LogLimits::default())
    }

    /// The digest that clients know the step by.
    pub fn digest(&self) -> Digest {
        self.0.info.digest
    }

    /// What the step is called.
    pub fn name(&self) -> &str {
        &self.0.info.name
    }

    /// Says that the step runs, until [`Running::end`]. A step may run several times: when its
    /// key is looked for, when it is executed, and when its result is brought here at last.
    pub fn begin(&self, cached: bool) -> Running {
        let started = SystemTime::now();
        self.emit(Event::Vertex(VertexState {
            started: Some(started),
            cached,
            ..VertexState::initial(self.0.info.clone())
        }));
        Running { progress: self.clone(), started, cached, ended: false }
    }

    /// Tells how far a part of the step is.
    pub fn status(&self, update: StatusUpdate) {
        {
            let mut state = self.lock();
            let now = Instant::now();
            let recent = state.told.get(&update.id).is_some_and(|(at, _)| now - *at < STATUS_PACE);
            if update.completed.is_some() {
                state.told.remove(&update.id);
            } else if recent {
                return;
            } else {
                state.told.insert(update.id.clone(), (now, update.clone()));
            }
        }
        self.emit(Event::Status(Arc::new(control::VertexStatus {
            id: update.id,
            vertex: self.0.info.digest.to_string(),
            name: update.action,
            current: update.current,
            total: update.total,
            timestamp: Some(SystemTime::now().into()),
            started: update.started.map(Into::into),
            completed: update.completed.map(Into::into),
        })));
    }

    /// Ends what has not ended of a step that fails: clients show no failure of a step as long as a part of it runs.
    fn end_parts(&self) {
        let told = std::mem::take(&mut self.lock().told);
        let now = Some(SystemTime::now());
        told.into_values().for_each(|(_, update)| self.status(StatusUpdate { completed: now, ..update }));
    }

    /// Tells that a part of the step runs, until what is returned is dropped.
    pub fn part(&self, id: impl Into<String>) -> Part {
        let started = Some(SystemTime::now());
        let update = StatusUpdate { id: id.into(), started, ..StatusUpdate::default() };
        self.status(update.clone());
        Part { progress: self.clone(), update }
    }

    /// Passes output on as it is. What a process prints goes through [`Self::writer`].
    pub fn log(&self, stream: Stream, text: &[u8]) {
        if text.is_empty() {
            return;
        }
        self.emit(Event::Log(Arc::new(control::VertexLog {
            vertex: self.0.info.digest.to_string(),
            timestamp: Some(SystemTime::now().into()),
            stream: stream as i64,
            msg: text.to_vec(),
        })));
    }

    /// Takes what a process prints, within the limits of the daemon.
    pub fn writer(&self, stream: Stream) -> LogWriter {
        LogWriter::new(self.clone(), stream, self.0.limits)
    }

    /// Warns about the step; `vertex` is filled in where it is empty.
    pub fn warn(&self, mut warning: control::VertexWarning) {
        if warning.vertex.is_empty() {
            warning.vertex = self.0.info.digest.to_string();
        }
        self.emit(Event::Warning(Arc::new(warning)));
    }

    /// Tells a build everything so far and from now on. A build that listens already is not
    /// told twice.
    pub(crate) fn listen(&self, log: &Arc<JobLog>) {
        let mut state = self.lock();
        if state.listeners.iter().any(|known| Arc::ptr_eq(known, log)) {
            return;
        }
        log.append(Event::Vertex(VertexState::initial(self.0.info.clone())));
        for event in &state.history {
            log.append(event.clone());
        }
        state.listeners.push(log.clone());
    }

    pub(crate) fn forget(&self, log: &Arc<JobLog>) {
        self.lock().listeners.retain(|known| !Arc::ptr_eq(known, log));
    }

    fn emit(&self, event: Event) {
        let mut state = self.lock();
        for listener in &state.listeners {
            listener.append(event.clone());
        }
        state.history.push(event);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for VertexProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("VertexProgress").field(&self.0.info.name).finish()
    }
}

/// A step that runs. Dropped without [`Running::end`], it was cancelled.
#[derive(Debug)]
pub struct Running {
    progress: VertexProgress,
    started: SystemTime,
    cached: bool,
    ended: bool,
}

impl Running {
    /// Says how it ended: with this message, if it failed.
    pub fn end(mut self, error: Option<&str>) {
        self.tell(error);
    }

    fn tell(&mut self, error: Option<&str>) {
        self.ended = true;
        if error.is_some() {
            self.progress.end_parts();
        }
        self.progress.emit(Event::Vertex(VertexState {
            started: Some(self.started),
            completed: Some(SystemTime::now()),
            cached: self.cached,
            error: error.map(Into::into),
            info: self.progress.0.info.clone(),
        }));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.ended {
            self.tell(Some("context canceled"));
        }
    }
}

/// A part of a step that runs, until this is dropped: its end is told however it ends.
#[must_use = "a part is over when this is dropped"]
pub struct Part {
    progress: VertexProgress,
    update: StatusUpdate,
}

impl Drop for Part {
    fn drop(&mut self) {
        let update = std::mem::take(&mut self.update);
        self.progress.status(StatusUpdate { completed: Some(SystemTime::now()), ..update });
    }
}
