use std::sync::Arc;

use crosskit_cache::{KeyDigest, KeyId, Record};
use crosskit_llb::SourceLocation;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::arena::Id;
use crate::few::Few;
use crate::promise::Settled;
use crate::{CacheMap, JobGroup, Op, SolveError, Told, VertexProgress};

pub(crate) type VertexId<R> = Id<Vertex<R>>;
pub(crate) type EdgeId<R> = Id<Edge<R>>;

/// How much is known about an edge. Each level is enough for some of those who ask.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// Nothing.
    #[default]
    Nothing,
    /// The keys that follow from what the vertex and its inputs are.
    Fast,
    /// Also those that need the content of inputs. No more keys come before the result does.
    Slow,
    /// The operation is done, and its result on its way.
    Promised,
    /// The result.
    Complete,
}

/// A key in one of the solver's caches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Node {
    pub cache: u16,
    pub key: KeyId,
}

/// An operation in work for all builds that want it.
pub(crate) struct Vertex<R> {
    pub spec: Arc<crosskit_llb::Vertex>,
    pub progress: VertexProgress,
    pub locations: Vec<SourceLocation>,
    /// Runs even if a result is known.
    pub forced: bool,
    pub inputs: Few<EdgeId<R>>,
    /// Those of its outputs that someone knows of.
    pub edges: Few<EdgeId<R>>,
    pub jobs: JobGroup,
    pub job_ids: Few<u64>,
    /// The caches to look into, in order; the first is the solver's own.
    pub caches: Arc<[u16]>,
    pub op: Option<Arc<dyn Op<R>>>,
    pub map: Slot<Arc<CacheMap<R>>>,
    /// The digests of an operation without inputs, as far as they are known.
    pub digests: Few<KeyDigest>,
    pub more_digests: Slot<()>,
    /// The names that the inputs have by their content; empty while nobody needs that of any.
    pub contents: Vec<Slot<Option<KeyDigest>>>,
    pub exec: Slot<Vec<R>>,
    /// What its run has told of results that are on their way.
    pub promise: Option<Told>,
    /// Whoever waits for `exec`: its own edges and those of vertices with the same key.
    pub exec_waiting: Few<EdgeId<R>>,
    /// The keys under which others find that it runs.
    pub exec_keys: Few<KeyId>,
    pub failed: Option<Arc<SolveError>>,
    pub restarts: u8,
    /// A build has left since the operation began.
    pub lost_job: bool,
}

impl<R> Vertex<R> {
    /// The name that an input has by its content, once it is known; none if it has none.
    pub fn content(&self, input: usize) -> Option<Option<KeyDigest>> {
        self.contents.get(input)?.done().copied()
    }
}

/// Something that is computed once.
pub(crate) enum Slot<T> {
    Empty,
    Running(Task),
    Done(T),
}

impl<T> Slot<T> {
    pub fn done(&self) -> Option<&T> {
        match self {
            Slot::Done(value) => Some(value),
            _ => None,
        }
    }

    pub fn task(&self) -> Option<&Task> {
        match self {
            Slot::Running(task) => Some(task),
            _ => None,
        }
    }

    pub fn is_empty(&self) -> bool {
        matches!(self, Slot::Empty)
    }
}

/// Work that runs outside of the engine.
#[derive(Clone)]
pub(crate) struct Task {
    pub number: u64,
    pub cancel: CancellationToken,
}

/// One output of a vertex.
pub(crate) struct Edge<R> {
    pub vertex: VertexId<R>,
    pub output: usize,
    /// Of its keys, once somebody has asked: see [`Engine::name`](super::Engine::name).
    pub name: Option<KeyDigest>,
    pub level: Level,
    /// The highest level that someone waits for.
    pub wanted: Level,
    pub waiters: Few<Waiter<R>>,
    /// Those of `waiters` who still wait.
    pub live: usize,
    /// Counts how often it has stopped to ask its inputs, so that they know who still waits.
    pub epoch: u32,
    pub inputs: Few<Input>,
    /// Inputs that something is awaited of.
    pub pending: usize,
    /// The keys it is known by where others look for theirs.
    pub keys: Few<Node>,
    /// Its keys in the solver's own cache.
    pub main: Few<KeyId>,
    pub hit: Option<Hit>,
    /// No cache can know it: an input matches nothing.
    pub missed: bool,
    /// All keys have been looked for.
    pub searched: bool,
    pub load: Slot<()>,
    /// The vertex with the same key that runs for it.
    pub follows: Option<VertexId<R>>,
    pub result: Option<R>,
    pub failed: Option<Arc<SolveError>>,
    /// Told to those who were given a promise.
    pub settled: Option<watch::Sender<Settled<R>>>,
    pub queued: bool,
}

/// A result in a cache.
#[derive(Clone)]
pub(crate) struct Hit {
    pub node: Node,
    pub record: Record,
}

/// What an edge knows of an input.
#[derive(Default)]
pub(crate) struct Input {
    pub got: Level,
    pub asked: Level,
    /// How many of its entries are in the waiters of the input.
    pub waiting: u32,
    /// Waits for the content of the input.
    pub content: bool,
    /// The keys that the input leads to.
    pub matches: Few<Node>,
    /// How many of the input's keys have been followed.
    pub followed: usize,
}

impl Input {
    pub fn is_pending(&self) -> bool {
        self.waiting > 0 || self.content
    }
}

/// Whoever waits for an edge.
pub(crate) enum Waiter<R> {
    Edge { edge: EdgeId<R>, input: usize, epoch: u32, level: Level },
    Demand(u64),
}

impl<R> Edge<R> {
    pub fn new(vertex: VertexId<R>, output: usize, inputs: usize) -> Self {
        Edge {
            vertex,
            output,
            name: None,
            level: Level::Nothing,
            wanted: Level::Nothing,
            waiters: Few::default(),
            live: 0,
            epoch: 0,
            inputs: (0..inputs).map(|_| Input::default()).collect(),
            pending: 0,
            keys: Few::default(),
            main: Few::default(),
            hit: None,
            missed: false,
            searched: false,
            load: Slot::Empty,
            follows: None,
            result: None,
            failed: None,
            settled: None,
            queued: false,
        }
    }

    /// Changes what is known of an input, counting whether something is awaited of it.
    pub fn with_input<T>(&mut self, input: usize, act: impl FnOnce(&mut Input) -> T) -> T {
        let slot = &mut self.inputs[input];
        let before = slot.is_pending();
        let answer = act(slot);
        match (before, slot.is_pending()) {
            (false, true) => self.pending += 1,
            (true, false) => self.pending -= 1,
            _ => {}
        }
        answer
    }
}
