use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use crosskit_llb::{DigestMap, DigestSet};
use tokio::sync::Notify;

use super::event::{Event, VertexState};

/// Everything that one build has told, in order. It only grows, so that a reader who comes late
/// starts at the beginning.
#[derive(Default)]
pub(crate) struct JobLog {
    state: Mutex<State>,
    /// Rung when there is more to read or the log has ended.
    more: Notify,
}

#[derive(Default)]
struct State {
    events: Vec<Event>,
    /// The last that was told about each step.
    steps: DigestMap<VertexState>,
    closed: bool,
}

/// What a reader gets.
pub(crate) enum Read {
    Events(Vec<Event>),
    /// Nothing now, and nothing any more if the log has ended.
    Nothing,
}

impl JobLog {
    pub fn append(&self, event: Event) {
        let mut state = self.lock();
        if state.closed {
            return;
        }
        match event {
            Event::Vertex(vertex) => state.vertex(vertex),
            other => state.events.push(other),
        }
        drop(state);
        self.more.notify_waiters();
    }

    /// Ends the log. A step that was running is told to have been cancelled.
    pub fn close(&self) {
        let mut state = self.lock();
        if state.closed {
            return;
        }
        state.closed = true;
        let used = state.used_by_cached();
        let now = SystemTime::now();
        let mut left: Vec<VertexState> = state
            .steps
            .values()
            .filter(|step| step.started.is_some() && step.completed.is_none())
            .cloned()
            .collect();
        left.sort_by_key(|step| step.started);
        for mut step in left {
            step.completed = Some(now);
            if step.error.is_none() && !used.contains(&step.info.digest) {
                step.error = Some("context canceled".into());
            }
            state.events.push(Event::Vertex(step));
        }
        drop(state);
        self.more.notify_waiters();
    }

    /// At most about `bytes` of what comes after the first `from` events.
    pub fn read(&self, from: usize, bytes: usize) -> Read {
        let state = self.lock();
        let mut size = 0;
        let rest = state.events.get(from..).unwrap_or_default();
        let fitting = rest.iter().take_while(|event| {
            let fits = size == 0 || size + event.size() <= bytes;
            size += event.size();
            fits
        });
        let events: Vec<Event> = fitting.cloned().collect();
        if events.is_empty() {
            return Read::Nothing;
        }
        Read::Events(events)
    }

    /// Waits until there is more than the first `from` events, or the end.
    pub async fn changed(&self, from: usize) {
        loop {
            let notified = self.more.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            {
                let state = self.lock();
                if state.closed || state.events.len() > from {
                    return;
                }
            }
            notified.await;
        }
    }

    /// Waits for the end.
    pub async fn closed(&self) {
        loop {
            let notified = self.more.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            if self.lock().closed {
                return;
            }
            notified.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// A step that starts has no need of inputs that have not run: those are shown as cached,
    /// and so are theirs.
    fn vertex(&mut self, vertex: VertexState) {
        if let Some(started) = vertex.started {
            let mut skipped = Vec::new();
            let mut look_at = vertex.info.inputs.clone();
            while let Some(digest) = look_at.pop() {
                let Some(input) = self.steps.get_mut(&digest) else { continue };
                if input.cached || input.completed.is_some() {
                    continue;
                }
                input.cached = true;
                input.started = Some(started);
                input.completed = Some(started);
                look_at.extend_from_slice(&input.info.inputs);
                skipped.push(Event::Vertex(input.clone()));
            }
            // Found from the step downwards, told from the inputs upwards.
            self.events.extend(skipped.into_iter().rev());
        }
        self.steps.insert(vertex.info.digest, vertex.clone());
        self.events.push(Event::Vertex(vertex));
    }

    /// The steps that something cached depends on.
    fn used_by_cached(&self) -> DigestSet {
        let mut used = DigestSet::default();
        let mut look_at: Vec<_> =
            self.steps.values().filter(|step| step.cached).map(|step| step.info.digest).collect();
        while let Some(digest) = look_at.pop() {
            if used.insert(digest)
                && let Some(step) = self.steps.get(&digest)
            {
                look_at.extend_from_slice(&step.info.inputs);
            }
        }
        used
    }
}
