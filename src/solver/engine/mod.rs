//! One place that holds the state of everything in work, and changes it in one task.
//!
//! A build that wants an edge leaves a waiter at it. An edge that has waiters is advanced: it
//! asks its inputs for what it needs next, leaving waiters at them, or has work done outside
//! of the engine: keys, digests, loads and runs. Whatever comes back is handed to the waiters,
//! which are advanced in turn. All of this goes through one queue, so that neither the depth of
//! a graph nor the number of builds adds to the stack or to the number of tasks.

mod advance;
mod arena;
mod demand;
mod inspect;
mod load;
mod lookup;
mod promise;
mod redo;
mod state;
mod work;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use crosskit_cache::{Cache, KeyId};
use crosskit_llb::DigestMap;
use tokio::sync::{mpsc, oneshot};

use crate::few::Few;
use crate::{JobContext, Known, LogLimits, OpResolver, SolveError, Step, Told};
use arena::Arena;
pub(crate) use load::Prepared;
use state::{Edge, EdgeId, Vertex, VertexId};
pub(crate) use work::Finished;

/// How many edges are advanced before other tasks of the runtime get a turn.
const TURN: usize = 256;

/// What the engine is told. Each sender has at most a few of these on the way: one for each
/// call of the interface and one for each piece of work, so that the channel needs no bound.
pub(crate) enum Message<R> {
    /// A build begins.
    Open { job: u64, context: JobContext },
    /// A build ends. The sender goes when nothing runs for it any more.
    Close { job: u64, done: Option<mpsc::Sender<()>> },
    /// A build brings a graph, whose result it will know by this number.
    Load { job: u64, root: u64, graph: Prepared<R> },
    /// The result of that graph is not wanted any more.
    Release { root: u64 },
    /// The result is wanted now, by a waiter with this number.
    Demand { root: u64, demand: u64, reply: Reply<R> },
    /// That waiter has left.
    Withdraw { demand: u64 },
    /// A run of a vertex says that its results are certain, and where they are.
    Promised { vertex: VertexId<R>, task: u64, told: Told },
    /// Someone wants to know whether nothing is on its way for a build, or waits for that.
    Settle { job: u64, wait: bool, reply: oneshot::Sender<bool> },
    /// Work is done.
    Finished(Finished<R>),
    /// A result turned out to be gone: whether it is made again.
    Redo { root: u64, reply: oneshot::Sender<bool> },
    /// Someone wants to know what a result was made by.
    Steps { root: u64, reply: oneshot::Sender<Vec<Step<R>>> },
    /// Someone wants to know by which keys a result and all that it depends on are known.
    Trail { root: u64, reply: oneshot::Sender<Vec<Known<R>>> },
}

pub(crate) type Reply<R> = oneshot::Sender<Result<R, SolveError>>;

pub(crate) struct Engine<R> {
    resolver: Arc<dyn OpResolver<R>>,
    limits: LogLimits,
    /// The first is the solver's own, the others come with graphs.
    caches: Vec<Cache<R>>,
    free_caches: Vec<u16>,
    jobs: HashMap<u64, Job<R>>,
    roots: HashMap<u64, Root<R>>,
    demands: HashMap<u64, Demand<R>>,
    vertices: Arena<Vertex<R>>,
    edges: Arena<Edge<R>>,
    by_digest: DigestMap<Few<VertexId<R>>>,
    /// What runs, by its key in the solver's own cache.
    running: HashMap<KeyId, VertexId<R>>,
    queue: VecDeque<EdgeId<R>>,
    finished: VecDeque<Finished<R>>,
    /// Work of vertices that are gone, and who waits for its end.
    orphans: HashMap<u64, Option<mpsc::Sender<()>>>,
    /// Those who wait until nothing is on its way for a build.
    settling: Vec<(u64, oneshot::Sender<bool>)>,
    tasks: u64,
    /// Does not keep the engine alive: it ends with the last handle to it.
    messages: mpsc::WeakUnboundedSender<Message<R>>,
}

struct Job<R> {
    context: JobContext,
    vertices: Vec<VertexId<R>>,
    roots: Vec<u64>,
    /// Those besides the solver's own that it has brought.
    caches: HashSet<u16>,
}

struct Root<R> {
    job: u64,
    edge: EdgeId<R>,
}

struct Demand<R> {
    job: u64,
    edge: EdgeId<R>,
    reply: Reply<R>,
}

impl<R: Clone + Send + Sync + 'static> Engine<R> {
    pub fn new(
        resolver: Arc<dyn OpResolver<R>>,
        cache: Cache<R>,
        limits: LogLimits,
        messages: mpsc::WeakUnboundedSender<Message<R>>,
    ) -> Self {
        Engine {
            resolver,
            limits,
            caches: vec![cache],
            free_caches: Vec::new(),
            jobs: HashMap::new(),
            roots: HashMap::new(),
            demands: HashMap::new(),
            vertices: Arena::default(),
            edges: Arena::default(),
            by_digest: DigestMap::default(),
            running: HashMap::new(),
            queue: VecDeque::new(),
            finished: VecDeque::new(),
            orphans: HashMap::new(),
            settling: Vec::new(),
            tasks: 0,
            messages,
        }
    }

    pub async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Message<R>>) {
        let mut turn = 0;
        loop {
            while let Ok(message) = inbox.try_recv() {
                self.handle(message);
            }
            if let Some(finished) = self.finished.pop_front() {
                self.take_finished(finished);
            } else if let Some(edge) = self.queue.pop_front() {
                self.advance(edge);
            } else {
                match inbox.recv().await {
                    Some(message) => self.handle(message),
                    None => return,
                }
            }
            turn += 1;
            if turn == TURN {
                turn = 0;
                tokio::task::yield_now().await;
            }
        }
    }

    fn handle(&mut self, message: Message<R>) {
        match message {
            Message::Open { job, context } => {
                let (vertices, roots, caches) = Default::default();
                self.jobs.insert(job, Job { context, vertices, roots, caches });
            }
            Message::Close { job, done } => self.close(job, done),
            Message::Load { job, root, graph } => self.load(job, root, graph),
            Message::Release { root } => self.release(root),
            Message::Demand { root, demand, reply } => self.demand(root, demand, reply),
            Message::Withdraw { demand } => {
                self.withdraw(demand);
            }
            Message::Promised { vertex, task, told } => self.promised(vertex, task, told),
            Message::Settle { job, wait, reply } => self.settle(job, wait, reply),
            Message::Finished(finished) => self.take_finished(finished),
            Message::Redo { root, reply } => {
                let edge = self.roots.get(&root).map(|root| root.edge);
                // Whoever asked may have left.
                let _ = reply.send(edge.is_some_and(|edge| self.redo(edge)));
            }
            Message::Steps { root, reply } => {
                // Whoever asked may have left.
                let _ = reply.send(self.steps(root));
            }
            Message::Trail { root, reply } => {
                let _ = reply.send(self.trail(root));
            }
        }
    }

    /// Has an edge advanced soon.
    fn enqueue(&mut self, id: EdgeId<R>) {
        if let Some(edge) = self.edges.get_mut(id)
            && !edge.queued
        {
            edge.queued = true;
            self.queue.push_back(id);
        }
    }
}
