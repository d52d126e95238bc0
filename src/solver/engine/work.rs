//! Work that runs outside of the engine, and what comes of it.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use crosskit_api::details;
use crosskit_cache::{CONTENT, KeyDigest, Record};
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use super::state::{EdgeId, Level, Node, Slot, Task, Vertex, VertexId};
use super::{Engine, Message};
use crate::few::Few;
use crate::promise::Announce;
use crate::{CacheDep, CacheMap, ErrorKind, Op, OpContext, OpError, SolveError};

/// How long cancelled work may take to end by itself, such as for a process to be killed and
/// its mounts to be taken down. Then it is dropped.
const GRACE: Duration = Duration::from_secs(10);

/// How often an operation is started again for the builds that are left after another, whose
/// session it used, has gone, or because what it works on had to be made again.
pub(super) const RESTARTS: u8 = 3;

/// The end of a piece of work.
pub(crate) struct Finished<R> {
    vertex: VertexId<R>,
    task: u64,
    outcome: Outcome<R>,
}

enum Outcome<R> {
    Map(Result<CacheMap<R>, OpError>),
    MoreDigests(Result<Option<KeyDigest>, OpError>),
    Content(usize, Result<Option<KeyDigest>, OpError>),
    Exec(Result<Vec<R>, OpError>),
    Load(EdgeId<R>, Result<Loaded<R>, OpError>),
}

/// A result out of a cache, and those of edges below that are parts of it.
struct Loaded<R> {
    result: R,
    parts: Vec<(EdgeId<R>, Record, R)>,
}

/// Runs to its end, or for a while after it was cancelled. A panic is an error.
async fn guarded<T>(
    cancel: CancellationToken,
    work: impl Future<Output = Result<T, OpError>>,
) -> Result<T, OpError> {
    let work = AssertUnwindSafe(work).catch_unwind();
    tokio::pin!(work);
    let too_long = async {
        cancel.cancelled().await;
        tokio::time::sleep(GRACE).await;
    };
    let ended = tokio::select! {
        biased;
        ended = &mut work => ended,
        () = too_long => return Err(OpError::canceled()),
    };
    ended.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
        Err(OpError::new(ErrorKind::Internal, format!("the operation has panicked: {text}")))
    })
}

impl<R: Clone + Send + Sync + 'static> Engine<R> {
    fn new_task(&mut self) -> Task {
        self.tasks += 1;
        Task { number: self.tasks, cancel: CancellationToken::new() }
    }

    fn context(&self, id: VertexId<R>, task: &Task) -> OpContext {
        let vertex = &self.vertices[id];
        OpContext {
            vertex: vertex.spec.clone(),
            jobs: vertex.jobs.clone(),
            progress: vertex.progress.clone(),
            cancel: task.cancel.clone(),
            announce: self.announcer(id, task.number),
        }
    }

    /// The way in which a run of a vertex can promise its results.
    fn announcer(&self, vertex: VertexId<R>, task: u64) -> Announce {
        let messages = self.messages.clone();
        Announce::new(move |told| {
            if let Some(messages) = messages.upgrade() {
                // Without an engine nobody wants to know.
                let _ = messages.send(Message::Promised { vertex, task, told });
            }
        })
    }

    /// Has work done. What is ready at once costs no task.
    fn spawn(
        &mut self,
        vertex: VertexId<R>,
        task: &Task,
        at_once: bool,
        mut work: BoxFuture<'static, Outcome<R>>,
    ) {
        let task = task.number;
        if at_once {
            let mut cx = Context::from_waker(futures::task::noop_waker_ref());
            if let Poll::Ready(outcome) = work.as_mut().poll(&mut cx) {
                self.finished.push_back(Finished { vertex, task, outcome });
                return;
            }
        }
        let Some(messages) = self.messages.upgrade() else { return };
        tokio::spawn(async move {
            let outcome = work.await;
            // Without an engine nobody wants to know.
            let _ = messages.send(Message::Finished(Finished { vertex, task, outcome }));
        });
    }

    fn op(&mut self, id: VertexId<R>) -> Result<Arc<dyn Op<R>>, OpError> {
        let vertex = &mut self.vertices[id];
        if let Some(op) = &vertex.op {
            return Ok(op.clone());
        }
        let job = vertex.jobs.first().ok_or_else(OpError::canceled)?;
        let op = self.resolver.op(&vertex.spec, &job)?;
        vertex.op = Some(op.clone());
        Ok(op)
    }

    pub(super) fn start_map(&mut self, id: VertexId<R>) {
        if !self.vertices[id].map.is_empty() {
            return;
        }
        let op = match self.op(id) {
            Ok(op) => op,
            Err(error) => return self.fail_vertex(id, error.context("failed to load cache key")),
        };
        let task = self.new_task();
        let cx = self.context(id, &task);
        self.vertices[id].lost_job = false;
        self.vertices[id].map = Slot::Running(task.clone());
        let work = guarded(task.cancel.clone(), async move {
            // Only what has no inputs does something worth showing.
            let running = cx.vertex.inputs.is_empty().then(|| cx.progress.begin(false));
            let map = op.cache_map(&cx).await;
            if let Some(running) = running {
                running.end(message_of(&map).as_deref());
            }
            map
        });
        self.spawn(id, &task, true, Box::pin(work.map(Outcome::Map)));
    }

    pub(super) fn start_more_digests(&mut self, id: VertexId<R>) {
        let vertex = &self.vertices[id];
        let Some(op) = vertex.op.clone().filter(|_| vertex.more_digests.is_empty()) else { return };
        let index = vertex.digests.len().saturating_sub(1);
        let task = self.new_task();
        let cx = self.context(id, &task);
        self.vertices[id].more_digests = Slot::Running(task.clone());
        let work = guarded(task.cancel.clone(), async move { op.further_key(&cx, index).await });
        self.spawn(id, &task, true, Box::pin(work.map(Outcome::MoreDigests)));
    }

    /// Whether something has to be done with the result of an input before it is used.
    pub(super) fn needs_content(&self, id: EdgeId<R>, input: usize) -> bool {
        let vertex = &self.vertices[self.edges[id].vertex];
        let dep = vertex.map.done().map(|map| &map.deps[input]);
        dep.is_some_and(|dep| dep.content.is_some() || dep.preprocess.is_some())
            && vertex.content(input).is_none()
    }

    pub(super) fn start_content(&mut self, id: EdgeId<R>, input: usize) {
        let own = self.edges[id].vertex;
        let vertex = &self.vertices[own];
        let below = &self.edges[vertex.inputs[input]];
        let (Some(map), Some(result)) = (vertex.map.done(), below.result.clone()) else { return };
        let dep = map.deps[input].clone();
        let below = self.vertices[below.vertex].progress.clone();
        let idle = vertex.contents[input].is_empty();
        self.edges[id].with_input(input, |input| input.content = true);
        if !idle {
            return;
        }
        let task = self.new_task();
        let cx = self.context(own, &task);
        self.vertices[own].contents[input] = Slot::Running(task.clone());
        let subject = details::solve::Subject::Cache(details::ContentCache { index: input as i64 });
        let work = guarded(task.cancel.clone(), async move {
            let work = async {
                if let Some(preprocess) = dep.preprocess {
                    let cx = OpContext { progress: below, ..cx.clone() };
                    preprocess.prepare(&cx, &result).await?;
                }
                match dep.content {
                    Some(content) => content.digest(&cx, &result).await,
                    None => Ok(None),
                }
            };
            work.await.map_err(|error| {
                cx.progress.begin(false).end(Some(&error.to_string()));
                if error.subject().is_some() { error } else { error.about(subject) }
            })
        });
        let work = work.map(move |digest| Outcome::Content(input, digest));
        self.spawn(own, &task, true, Box::pin(work));
    }

    pub(super) fn start_load(&mut self, id: EdgeId<R>) {
        let edge = &self.edges[id];
        let Some(hit) = edge.hit.clone().filter(|_| edge.load.is_empty()) else { return };
        let own = edge.vertex;
        let load = self.load_context(id);
        let task = self.new_task();
        let cx = self.context(own, &task);
        self.edges[id].load = Slot::Running(task.clone());
        let cache = self.caches[usize::from(hit.node.cache)].clone();
        let below = if hit.node.cache == 0 { Vec::new() } else { self.parts(id, &hit) };
        let work = guarded(task.cancel.clone(), async move {
            let running = cx.progress.begin(true);
            let result = cache.load(&hit.record, &load).await;
            let result = result.map_err(|error| OpError::from_error(ErrorKind::Internal, error));
            running.end(message_of(&result).as_deref());
            let mut loaded = Loaded { result: result?, parts: Vec::new() };
            for (edge, record) in below {
                // One that does not come is not missed: nobody has asked for it.
                if let Ok(part) = cache.load(&record, &load).await {
                    loaded.parts.push((edge, record, part));
                }
            }
            Ok(loaded)
        });
        self.spawn(own, &task, true, Box::pin(work.map(move |result| Outcome::Load(id, result))));
    }

    pub(super) fn start_exec(&mut self, id: EdgeId<R>) {
        let own = self.edges[id].vertex;
        let vertex = &self.vertices[own];
        let Some(op) = vertex.op.clone() else { return };
        let inputs = self.inputs_of(id);
        let task = self.new_task();
        let cx = self.context(own, &task);
        self.vertices[own].lost_job = false;
        self.vertices[own].exec = Slot::Running(task.clone());
        let work = guarded(task.cancel.clone(), async move {
            let permit = op.acquire(&cx).await;
            let permit = permit.map_err(|error| error.context("acquire op resources"))?;
            let running = cx.progress.begin(false);
            let results = op.exec_early(&cx, inputs).await;
            running.end(message_of(&results).as_deref());
            drop(permit);
            results
        });
        self.spawn(own, &task, false, Box::pin(work.map(Outcome::Exec)));
    }

    pub(super) fn take_finished(&mut self, finished: Finished<R>) {
        let Finished { vertex: id, task, outcome } = finished;
        if self.orphans.remove(&task).is_some() || !self.vertices.contains(id) {
            return;
        }
        match outcome {
            Outcome::Map(map) => self.map_finished(id, map),
            Outcome::MoreDigests(digest) => self.more_digests_finished(id, digest),
            Outcome::Content(input, digest) => self.content_finished(id, input, digest),
            Outcome::Exec(results) => self.exec_finished(id, results),
            Outcome::Load(edge, result) => self.load_finished(edge, result),
        }
    }

    fn map_finished(&mut self, id: VertexId<R>, map: Result<CacheMap<R>, OpError>) {
        let inputs = self.vertices[id].inputs.len();
        let checked = map.and_then(|map| match map.deps.len() {
            count if count == inputs => Ok(map),
            count => Err(OpError::new(
                ErrorKind::Internal,
                format!("the operation has {inputs} inputs and describes {count}"),
            )),
        });
        let slot = std::mem::replace(&mut self.vertices[id].map, Slot::Empty);
        match checked {
            Ok(map) => {
                let vertex = &mut self.vertices[id];
                vertex.digests = Few::One(Some(map.digest));
                let asked = |dep: &CacheDep<R>| dep.content.is_some() || dep.preprocess.is_some();
                if map.deps.iter().any(asked) {
                    vertex.contents = map.deps.iter().map(|_| Slot::Empty).collect();
                }
                vertex.map = Slot::Done(Arc::new(map));
                self.enqueue_all(id);
            }
            Err(error) => self.work_failed(id, &slot, error.context("failed to load cache key")),
        }
    }

    fn more_digests_finished(&mut self, id: VertexId<R>, digest: Result<Option<KeyDigest>, OpError>) {
        let vertex = &mut self.vertices[id];
        let slot = std::mem::replace(&mut vertex.more_digests, Slot::Empty);
        match digest {
            Ok(Some(digest)) => vertex.digests.push(digest),
            Ok(None) => vertex.more_digests = Slot::Done(()),
            Err(error) => {
                return self.work_failed(id, &slot, error.context("failed to load cache key"));
            }
        }
        self.enqueue_all(id);
    }

    fn content_finished(
        &mut self,
        id: VertexId<R>,
        input: usize,
        digest: Result<Option<KeyDigest>, OpError>,
    ) {
        let vertex = &mut self.vertices[id];
        let slot = std::mem::replace(&mut vertex.contents[input], Slot::Empty);
        let waiting = vertex.edges.clone();
        let named = |digest: Option<KeyDigest>| digest.map(|digest| digest.of_output(CONTENT));
        let outcome = digest.map(|digest| vertex.contents[input] = Slot::Done(named(digest)));
        for edge in waiting {
            let waited = self.edges[edge].with_input(input, |input| std::mem::take(&mut input.content));
            if waited {
                self.input_changed(edge, input);
                self.enqueue(edge);
            }
        }
        if let Err(error) = outcome {
            if self.begin_anew(id, &slot) {
                return;
            }
            self.work_failed(id, &slot, error.context("failed to compute cache key"));
        }
    }

    fn exec_finished(&mut self, id: VertexId<R>, results: Result<Vec<R>, OpError>) {
        let vertex = &mut self.vertices[id];
        let keys = std::mem::take(&mut vertex.exec_keys);
        let slot = std::mem::replace(&mut vertex.exec, Slot::Empty);
        let promised = vertex.promise.is_some();
        self.end_promise(id);
        self.unregister(id, &keys);
        match results {
            Ok(results) => {
                let vertex = &mut self.vertices[id];
                vertex.exec = Slot::Done(results);
                // Its own edges first: they save what the others then find.
                let (own, others): (Vec<_>, Vec<_>) = std::mem::take(&mut vertex.exec_waiting)
                    .into_iter()
                    .partition(|edge| vertex.edges.contains(edge));
                for edge in own.into_iter().chain(others) {
                    self.take_result(edge, id);
                }
                self.enqueue_all(id);
            }
            Err(_) if self.begin_anew(id, &slot) => {}
            Err(error) => {
                self.work_failed(id, &slot, error);
                keys.into_iter().for_each(|key| self.caches[0].forget(key));
            }
        }
        if promised {
            self.tell_settled();
        }
    }

    /// Gives an edge the result of a run, of its own vertex or of one with the same key.
    pub(super) fn take_result(&mut self, id: EdgeId<R>, from: VertexId<R>) {
        let Some(edge) = self.edges.get_mut(id) else { return };
        edge.follows = None;
        if edge.result.is_some() || edge.failed.is_some() {
            return;
        }
        let (output, own) = (edge.output, edge.vertex);
        let results = self.vertices[from].exec.done().map_or(&[][..], Vec::as_slice);
        let Some(result) = results.get(output).cloned() else {
            let text = format!("output {output} is wanted of an operation with {}", results.len());
            let error = self.solve_error(own, OpError::new(ErrorKind::User, text));
            return self.fail(id, error);
        };
        if let Err(error) = self.save(id, &result, SystemTime::now(), own != from) {
            return self.fail_vertex(own, error);
        }
        if !self.vertices[own].forced {
            for key in self.edges[id].main.clone() {
                let node = Node { cache: 0, key };
                if !self.edges[id].keys.contains(&node) {
                    self.edges[id].keys.push(node);
                }
            }
        }
        self.complete_with(id, result);
    }

    /// Has the keys of an edge lead to its result, unless they do so already.
    fn save(
        &mut self,
        id: EdgeId<R>,
        result: &R,
        created: SystemTime,
        unless_known: bool,
    ) -> Result<(), OpError> {
        let keys = self.saved_keys(id);
        let cache = &self.caches[0];
        if unless_known && keys.iter().any(|key| cache.newest(*key).is_some()) {
            return Ok(());
        }
        let mut saved = None;
        for key in keys {
            match &saved {
                None => match cache.save(key, result, created) {
                    Ok(record) => saved = Some(record),
                    Err(error) => return Err(OpError::from_error(ErrorKind::Environment, error)),
                },
                Some(record) => cache.add_record(key, record.clone()),
            }
        }
        Ok(())
    }

    fn complete_with(&mut self, id: EdgeId<R>, result: R) {
        let edge = &mut self.edges[id];
        if let Some(settled) = edge.settled.take() {
            settled.send_replace(Some(Ok(result.clone())));
        }
        edge.result = Some(result);
        edge.level = Level::Complete;
        self.announce(id);
        // Whatever else was asked for, such as for another way to the same result, is done.
        self.park(id);
    }

    fn load_finished(&mut self, id: EdgeId<R>, result: Result<Loaded<R>, OpError>) {
        let Some(edge) = self.edges.get_mut(id) else { return };
        let slot = std::mem::replace(&mut edge.load, Slot::Empty);
        let Some(hit) = edge.hit.clone() else { return };
        let cancelled = slot.task().is_some_and(|task| task.cancel.is_cancelled());
        match result {
            Ok(Loaded { result, parts }) => {
                if hit.node.cache != 0 {
                    let main = (id, hit.record, result.clone());
                    for (edge, record, result) in parts.into_iter().chain([main]) {
                        if self.edges.contains(edge)
                            && let Err(error) = self.save(edge, &result, record.created(), edge != id)
                        {
                            tracing::warn!("{error}; later builds will load it from afar again");
                        }
                    }
                } else {
                    self.edges[id].main = Few::One(Some(hit.node.key));
                }
                self.complete_with(id, result);
            }
            Err(_) if cancelled => self.enqueue(id),
            Err(error) => {
                tracing::debug!("{error}; running the step instead");
                self.caches[usize::from(hit.node.cache)].release(&hit.record.id);
                self.pick(id);
                self.enqueue(id);
            }
        }
    }

    pub(super) fn unregister(&mut self, id: VertexId<R>, keys: &[crosskit_cache::KeyId]) {
        for key in keys {
            if self.running.get(key) == Some(&id) {
                self.running.remove(key);
            }
        }
    }

    /// Has all edges of a vertex look at what has changed.
    fn enqueue_all(&mut self, id: VertexId<R>) {
        let vertex = &self.vertices[id];
        let waiting: Vec<_> = vertex.edges.iter().chain(&vertex.exec_waiting).copied().collect();
        waiting.into_iter().for_each(|edge| self.enqueue(edge));
    }

    /// Begins anew with what failed because a result that it works on is gone.
    fn begin_anew<T>(&mut self, id: VertexId<R>, slot: &Slot<T>) -> bool {
        let cancelled = slot.task().is_some_and(|task| task.cancel.is_cancelled());
        if cancelled || !self.redo_inputs(id) {
            return false;
        }
        for edge in self.release_followers(id) {
            self.enqueue(edge);
        }
        self.enqueue_all(id);
        true
    }

    /// Decides what the failure of some work means: nothing if it was cancelled, another try
    /// if the build it ran for has left while others have not, or the end of the vertex.
    fn work_failed<T>(&mut self, id: VertexId<R>, slot: &Slot<T>, error: OpError) {
        let cancelled = slot.task().is_some_and(|task| task.cancel.is_cancelled());
        let vertex = &mut self.vertices[id];
        let left = vertex.lost_job || (error.kind() == ErrorKind::Canceled && vertex.job_ids.len() > 1);
        let again = left && vertex.restarts < RESTARTS;
        if !cancelled && !again {
            return self.fail_vertex(id, error);
        }
        if !cancelled {
            vertex.restarts += 1;
        }
        for edge in self.release_followers(id) {
            self.enqueue(edge);
        }
        self.enqueue_all(id);
    }

    /// Those who wait for the run of a vertex do not any more.
    fn release_followers(&mut self, id: VertexId<R>) -> Few<EdgeId<R>> {
        let waiting = std::mem::take(&mut self.vertices[id].exec_waiting);
        for edge in &waiting {
            if let Some(edge) = self.edges.get_mut(*edge) {
                edge.follows = None;
            }
        }
        waiting
    }

    fn fail_vertex(&mut self, id: VertexId<R>, error: OpError) {
        let error = self.solve_error(id, error);
        self.vertices[id].failed = Some(error.clone());
        let followers = self.release_followers(id);
        let edges = self.vertices[id].edges.clone();
        for edge in edges.into_iter().chain(followers) {
            self.fail(edge, error.clone());
        }
    }

    fn solve_error(&self, id: VertexId<R>, error: OpError) -> Arc<SolveError> {
        let Vertex { spec, progress, locations, .. } = &self.vertices[id];
        Arc::new(SolveError {
            vertex: Some(spec.clone()),
            name: progress.name().into(),
            message: error.to_string(),
            locations: locations.as_slice().into(),
            error,
            input_ids: Vec::new(),
            mount_ids: Vec::new(),
        })
    }
}

fn message_of<T>(result: &Result<T, OpError>) -> Option<String> {
    result.as_ref().err().map(OpError::to_string)
}
