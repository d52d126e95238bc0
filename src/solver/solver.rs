use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crosskit_cache::{Cache, KeyId};
use crosskit_llb::{Graph, Vertex};
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc, oneshot};

use crate::engine::{Engine, Message, Prepared};
use crate::progress::JobLog;
use crate::{JobContext, JobError, LogLimits, Op, OpResolver, SolveError, StatusStream};

/// How long a request for the status of a build waits for the build to begin (BuildKit
/// `solver/jobs.go`): clients send both at once.
const STATUS_WAIT: Duration = Duration::from_secs(6);

/// How long the status of a build can be asked for after its end (BuildKit `solver/jobs.go`).
const STATUS_KEPT: Duration = Duration::from_secs(10);

/// Runs graphs: each vertex once, whoever wants it, and only if no cache has its result.
/// Clones are the same solver; it ends with the last of them and of its jobs.
pub struct Solver<R>(Arc<Shared<R>>);

struct Shared<R> {
    messages: mpsc::UnboundedSender<Message<R>>,
    numbers: AtomicU64,
    jobs: Mutex<HashMap<String, JobContext>>,
    /// Rung when a job begins.
    begun: Notify,
    runtime: Handle,
}

impl<R> Clone for Solver<R> {
    fn clone(&self) -> Self {
        Solver(self.0.clone())
    }
}

impl<R> Shared<R> {
    fn send(&self, message: Message<R>) {
        // An engine that is gone has dropped what would have answered.
        let _ = self.messages.send(message);
    }

    fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    fn jobs(&self) -> MutexGuard<'_, HashMap<String, JobContext>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<R: Clone + Send + Sync + 'static> Solver<R> {
    /// A solver that keeps what it does in this cache. Has to be called within a runtime, which
    /// runs everything.
    pub fn new(cache: Cache<R>, resolver: Arc<dyn OpResolver<R>>, limits: LogLimits) -> Self {
        let (messages, inbox) = mpsc::unbounded_channel();
        let runtime = Handle::current();
        runtime.spawn(Engine::new(resolver, cache, limits, messages.downgrade()).run(inbox));
        let (numbers, jobs, begun) = Default::default();
        Solver(Arc::new(Shared { messages, numbers, jobs, begun, runtime }))
    }

    /// Begins a build. The name is the client's; no other build may have it, nor one that has
    /// just ended.
    pub fn new_job(&self, id: impl Into<String>, sessions: Vec<String>) -> Result<Job<R>, JobError> {
        let id = id.into();
        let log = Arc::new(JobLog::default());
        let context = JobContext::new(id.clone(), sessions, log);
        let mut jobs = self.0.jobs();
        if jobs.contains_key(&id) {
            return Err(JobError::Exists(id));
        }
        jobs.insert(id, context.clone());
        drop(jobs);
        let job = self.0.number();
        self.0.send(Message::Open { job, context: context.clone() });
        self.0.begun.notify_waiters();
        Ok(Job { context, job, solver: self.0.clone(), closed: AtomicBool::new(false) })
    }

    /// The build of this name. Waits a while for it to begin, and knows it for a while after
    /// its end.
    pub async fn find_job(&self, id: &str) -> Result<JobContext, JobError> {
        let wait = async {
            loop {
                let begun = self.0.begun.notified();
                tokio::pin!(begun);
                begun.as_mut().enable();
                if let Some(context) = self.0.jobs().get(id).cloned() {
                    return context;
                }
                begun.await;
            }
        };
        let found = tokio::time::timeout(STATUS_WAIT, wait).await;
        found.map_err(|_| JobError::Unknown(id.to_owned()))
    }

    /// What the build of this name tells, from its beginning.
    pub async fn status(&self, id: &str) -> Result<StatusStream, JobError> {
        let context = self.find_job(id).await?;
        Ok(StatusStream::new(context.log().clone()))
    }
}

/// How a graph is to be solved.
pub struct LoadOptions<R> {
    /// Run every vertex even if its result is known.
    pub ignore_cache: bool,
    /// Other caches to look into, in order, after the solver's own. What is found in them is
    /// kept in the solver's own.
    pub caches: Vec<Cache<R>>,
}

impl<R> Default for LoadOptions<R> {
    fn default() -> Self {
        LoadOptions { ignore_cache: false, caches: Vec::new() }
    }
}

/// A build. Dropped, all that only it wants is cancelled and forgotten.
pub struct Job<R: Clone + Send + Sync + 'static> {
    context: JobContext,
    job: u64,
    solver: Arc<Shared<R>>,
    closed: AtomicBool,
}

impl<R: Clone + Send + Sync + 'static> Job<R> {
    /// What operations are told about the build.
    pub fn context(&self) -> &JobContext {
        &self.context
    }

    /// Brings a graph, of which nothing is done until its result is asked for. None for the
    /// graph of nothing, whose result is an empty filesystem.
    pub fn load(&self, graph: &Graph, options: LoadOptions<R>) -> Option<ResultHandle<R>> {
        let graph = Prepared::new(graph, options)?;
        let root = self.solver.number();
        self.solver.send(Message::Load { job: self.job, root, graph });
        Some(ResultHandle(Arc::new(HandleInner { root, solver: self.solver.clone() })))
    }

    /// What the build tells, from its beginning.
    pub fn status(&self) -> StatusStream {
        StatusStream::new(self.context.log().clone())
    }

    /// Says that there is nothing more to tell: those who follow the build get the rest at
    /// once and then the end.
    pub fn close_progress(&self) {
        self.context.log().close();
    }

    /// Whether all results that were promised are here.
    pub async fn is_settled(&self) -> bool {
        self.settle(false).await
    }

    /// Waits until all results that were promised are here, after everything that was wanted of the
    /// build is done.
    pub async fn settled(&self) {
        self.context.answered();
        self.settle(true).await;
    }

    async fn settle(&self, wait: bool) -> bool {
        let (reply, settled) = oneshot::channel();
        self.solver.send(Message::Settle { job: self.job, wait, reply });
        // Without an engine nothing is on its way.
        settled.await.unwrap_or(true)
    }

    /// Ends the build as dropping it does, and waits until nothing runs for it any more.
    pub async fn finish(&self) {
        let (done, mut ended) = mpsc::channel(1);
        self.close(Some(done));
        // Nothing is ever sent: it ends when the last piece of work has dropped its sender.
        let _ = ended.recv().await;
    }
}

impl<R: Clone + Send + Sync + 'static> Job<R> {
    fn close(&self, done: Option<mpsc::Sender<()>>) {
        if self.closed.swap(true, Ordering::Relaxed) {
            return;
        }
        self.solver.send(Message::Close { job: self.job, done });
        self.context.log().close();
        self.context.let_go();
        let (context, solver) = (self.context.clone(), Arc::downgrade(&self.solver));
        self.solver.runtime.spawn(async move {
            tokio::time::sleep(STATUS_KEPT).await;
            if let Some(solver) = solver.upgrade() {
                solver.jobs().remove(context.id());
            }
        });
    }
}

impl<R: Clone + Send + Sync + 'static> Drop for Job<R> {
    fn drop(&mut self) {
        self.close(None);
    }
}

/// The result of a graph, evaluated when it is first asked for. Clones are the same result; it
/// is the build that keeps it.
pub struct ResultHandle<R>(Arc<HandleInner<R>>);

struct HandleInner<R> {
    root: u64,
    solver: Arc<Shared<R>>,
}

impl<R> Clone for ResultHandle<R> {
    fn clone(&self) -> Self {
        ResultHandle(self.0.clone())
    }
}

impl<R> fmt::Debug for ResultHandle<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ResultHandle").field(&self.0.root).finish()
    }
}

impl<R> PartialEq for ResultHandle<R> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl<R> Drop for HandleInner<R> {
    fn drop(&mut self) {
        self.solver.send(Message::Release { root: self.root });
    }
}

/// One of the steps that a result was made by.
pub struct Step<R> {
    /// The vertex.
    pub vertex: Arc<Vertex>,
    /// What it is called.
    pub name: String,
    /// What has run it or would have; none if nobody has looked at it.
    pub op: Option<Arc<dyn Op<R>>>,
    /// Whether it has run, rather than being found in a cache or not being needed.
    pub executed: bool,
}

/// What the caches know of a result, or of one that it depends on.
pub struct Known<R> {
    /// The vertex that it is a result of.
    pub vertex: Arc<Vertex>,
    /// Which of the vertex's outputs it is.
    pub output: usize,
    /// Where in the trail its inputs are.
    pub inputs: Vec<usize>,
    /// Its keys, those in the solver's own cache first.
    pub keys: Vec<(Cache<R>, KeyId)>,
    /// The result, if somebody has needed it in this build.
    pub result: Option<R>,
}

/// Takes a demand back when whoever has made it does not wait any more.
struct Withdraw<'a, R> {
    solver: &'a Shared<R>,
    demand: u64,
    answered: bool,
}

impl<R> Drop for Withdraw<'_, R> {
    fn drop(&mut self) {
        if !self.answered {
            self.solver.send(Message::Withdraw { demand: self.demand });
        }
    }
}

impl<R: Clone + Send + Sync + 'static> ResultHandle<R> {
    /// The result, once it is there. Dropping the future gives up: what nobody else waits for
    /// is cancelled, and begun again when it is asked for again.
    pub async fn result(&self) -> Result<R, SolveError> {
        let HandleInner { root, solver } = &*self.0;
        let (root, demand) = (*root, solver.number());
        let (reply, answer) = oneshot::channel();
        let mut withdraw = Withdraw { solver, demand, answered: false };
        solver.send(Message::Demand { root, demand, reply });
        let answer = answer.await;
        withdraw.answered = true;
        answer.unwrap_or_else(|_| Err(SolveError::canceled()))
    }

    /// Has the result made again if it is one of a cache that can't be had any more; true if it is. Then it is to be
    /// asked for again.
    pub async fn redo(&self) -> bool {
        let (reply, answer) = oneshot::channel();
        self.0.solver.send(Message::Redo { root: self.0.root, reply });
        answer.await.unwrap_or_default()
    }

    /// All steps that the result depends on, inputs first. Empty after the build has ended.
    pub async fn steps(&self) -> Vec<Step<R>> {
        let (reply, answer) = oneshot::channel();
        self.0.solver.send(Message::Steps { root: self.0.root, reply });
        answer.await.unwrap_or_default()
    }

    /// The keys by which the result and all that it depends on are known, inputs first, so that
    /// the last one is the result's own. Chains of keys can be walked from them. Empty after the
    /// build has ended.
    pub async fn trail(&self) -> Vec<Known<R>> {
        let (reply, answer) = oneshot::channel();
        self.0.solver.send(Message::Trail { root: self.0.root, reply });
        answer.await.unwrap_or_default()
    }
}
