//! The state of a build as far as the daemon has told it: steps, their tasks, output and warnings.

use super::spans::{Nanos, Spans};
use super::step_log::StepLog;
use crosskit_api::control::{StatusResponse, Vertex, VertexLog, VertexStatus};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Instant;

/// A step's place in [`Timeline::steps`].
pub(crate) type StepId = usize;

/// All steps of a build.
#[derive(Default)]
pub(crate) struct Timeline {
    pub(crate) steps: Vec<Step>,
    /// Steps that have begun, in the order in which they did.
    pub(crate) begun: Vec<StepId>,
    /// Steps with news that no display has shown yet.
    pub(crate) news: BTreeSet<StepId>,
    by_digest: HashMap<String, StepId>,
    groups: HashMap<String, Group>,
    /// What the daemon's clock is behind ours, measured at the first step.
    pub(crate) behind: Option<Nanos>,
    /// When the first step began, by the daemon's clock.
    pub(crate) first_start: Option<Nanos>,
}

/// What people see as one step: a vertex, or a group of them.
#[derive(Default)]
pub(crate) struct Step {
    pub(crate) name: String,
    pub(crate) cached: bool,
    pub(crate) error: String,
    pub(crate) spans: Spans,
    /// Parts of the step that report on their own, in the order in which they began.
    pub(crate) tasks: Vec<Task>,
    pub(crate) log: StepLog,
    pub(crate) warnings: Vec<String>,
    /// A group of which nothing worth showing has begun.
    pub(crate) hidden: bool,
    /// The number of pieces of news since `busy_since`.
    pub(crate) busy: u32,
    pub(crate) busy_since: Option<Instant>,
    /// Tasks with news that no display has shown yet.
    pub(crate) task_news: HashSet<String>,
    vertex: Option<Vertex>,
}

/// A part of a step, such as the download of one layer.
pub(crate) struct Task {
    pub(crate) id: String,
    pub(crate) current: i64,
    pub(crate) total: i64,
    pub(crate) at: Nanos,
    pub(crate) started: Nanos,
    pub(crate) completed: Option<Nanos>,
}

struct Group {
    step: StepId,
    members: HashMap<String, Vertex>,
}

/// Nanoseconds since 1970 of a timestamp on the wire.
pub(crate) fn nanos(at: &prost_types::Timestamp) -> Nanos {
    at.seconds.saturating_mul(1_000_000_000).saturating_add(i64::from(at.nanos))
}

impl Step {
    fn note_activity(&mut self, now: Instant) {
        if self.busy == 0 {
            self.busy_since = Some(now);
        }
        self.busy += 1;
    }

    /// The step ended because the build was canceled, not because of itself.
    pub(crate) fn canceled(&self) -> bool {
        self.error.ends_with("context canceled")
    }

    /// The step itself failed.
    pub(crate) fn failed(&self) -> bool {
        !self.error.is_empty() && !self.canceled()
    }

    /// Begun and not yet over.
    pub(crate) fn running(&self) -> bool {
        self.spans.started() && self.spans.completed().is_none()
    }
}

impl Timeline {
    /// Takes in what the daemon told; `now` and `wall` are the same moment by two clocks.
    pub(crate) fn update(&mut self, status: &StatusResponse, now: Instant, wall: Nanos) {
        let mut groups = BTreeSet::new();
        for vertex in &status.vertexes {
            let started = vertex.started.as_ref().map(nanos);
            self.first_start = self.first_start.or(started);
            if let Some(started) = started {
                self.behind.get_or_insert(wall - started);
            }
            if vertex.progress_group.is_some() {
                groups.extend(self.note_member(vertex));
            } else {
                self.note_vertex(vertex, now);
            }
        }
        for id in groups {
            self.refresh_group(&id, now);
        }
        for task in &status.statuses {
            self.note_task(task, now);
        }
        for warning in &status.warnings {
            if let Some(&id) = self.by_digest.get(&warning.vertex) {
                self.steps[id].warnings.push(String::from_utf8_lossy(&warning.short).into_owned());
                self.steps[id].note_activity(now);
                self.news.insert(id);
            }
        }
        for log in &status.logs {
            self.note_log(log, now);
        }
    }

    /// The step that a vertex belongs to.
    pub(crate) fn step_of(&self, digest: &str) -> Option<StepId> {
        self.by_digest.get(digest).copied()
    }

    /// Shown steps that are over, and all shown steps.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let shown = self.steps.iter().filter(|s| !s.hidden);
        let (mut over, mut all) = (0, 0);
        for step in shown {
            all += 1;
            over += usize::from(step.spans.completed().is_some());
        }
        (over, all)
    }

    fn new_step(&mut self, digest: &str, step: Step) -> StepId {
        let id = self.steps.len();
        self.steps.push(step);
        self.by_digest.insert(digest.to_owned(), id);
        id
    }

    fn note_vertex(&mut self, vertex: &Vertex, now: Instant) {
        let id = match self.step_of(&vertex.digest) {
            Some(id) => id,
            None => self.new_step(&vertex.digest, Step { name: vertex.name.clone(), ..Step::default() }),
        };
        let step = &mut self.steps[id];
        let was_started = step.spans.started();
        // A step may be announced again after it began; that tells nothing.
        if was_started && vertex.started.is_none() {
            return;
        }
        step.name.clone_from(&vertex.name);
        step.cached = vertex.cached;
        step.error.clone_from(&vertex.error);
        let Some(started) = vertex.started.as_ref().map(nanos) else { return };
        step.spans.note(started, vertex.completed.as_ref().map(nanos));
        // An end is news even if it was told before: the step may have got another outcome.
        if vertex.completed.is_some() || step.vertex.as_ref() != Some(vertex) {
            step.note_activity(now);
            self.news.insert(id);
        }
        step.vertex = Some(vertex.clone());
        if !was_started {
            self.begun.push(id);
        }
    }

    /// Notes a vertex that is shown as part of a group and returns the group's name.
    fn note_member(&mut self, vertex: &Vertex) -> Option<String> {
        let about = vertex.progress_group.as_ref()?;
        let step = match self.groups.get(&about.id) {
            Some(group) => group.step,
            None => {
                let step = Step { name: about.name.clone(), hidden: true, cached: true, ..Step::default() };
                let step = self.new_step(&about.id, step);
                self.groups.insert(about.id.clone(), Group { step, members: HashMap::new() });
                step
            }
        };
        self.by_digest.insert(vertex.digest.clone(), step);
        if let Some(group) = self.groups.get_mut(&about.id) {
            group.members.insert(vertex.digest.clone(), vertex.clone());
        }
        Some(about.id.clone())
    }

    /// Works out a group's state from its members. A group is cached if all of them are, has the
    /// error of any of them, and shows itself when a member begins that isn't weak.
    fn refresh_group(&mut self, id: &str, now: Instant) {
        let Some(group) = self.groups.get(id) else { return };
        let step = &mut self.steps[group.step];
        let was_hidden = step.hidden;
        let mut changed = false;
        for member in group.members.values() {
            if let Some(started) = member.started.as_ref().map(nanos) {
                changed |= step.spans.note(started, member.completed.as_ref().map(nanos));
                step.hidden &= member.progress_group.as_ref().is_some_and(|g| g.weak);
            }
        }
        let cached = group.members.values().all(|m| m.cached);
        let error =
            group.members.values().map(|m| &m.error).find(|e| !e.is_empty()).cloned().unwrap_or_default();
        changed |= cached != step.cached || error != step.error;
        (step.cached, step.error) = (cached, error);
        if step.hidden {
            return;
        }
        if was_hidden {
            self.begun.push(group.step);
        }
        if changed || was_hidden {
            step.note_activity(now);
            self.news.insert(group.step);
        }
    }

    fn note_task(&mut self, status: &VertexStatus, now: Instant) {
        let Some(id) = self.step_of(&status.vertex) else { return };
        let step = &mut self.steps[id];
        if let Some(started) = status.started.as_ref().map(nanos) {
            let task = Task {
                id: status.id.clone(),
                current: status.current,
                total: status.total,
                at: status.timestamp.as_ref().map_or(started, nanos),
                started,
                completed: status.completed.as_ref().map(nanos),
            };
            match step.tasks.iter_mut().find(|t| t.id == status.id) {
                Some(known) => *known = task,
                None => step.tasks.push(task),
            }
        }
        step.task_news.insert(status.id.clone());
        step.note_activity(now);
        self.news.insert(id);
    }

    fn note_log(&mut self, log: &VertexLog, now: Instant) {
        let Some(id) = self.step_of(&log.vertex) else { return };
        let step = &mut self.steps[id];
        let at = log.timestamp.as_ref().map(nanos);
        let since = match (at, step.spans.last()) {
            (Some(at), Some(span)) => at - span.start,
            _ => 0,
        };
        step.log.write(since, &log.msg);
        step.note_activity(now);
        self.news.insert(id);
    }
}
