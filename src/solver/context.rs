use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crosskit_llb::Vertex;
use tokio_util::sync::CancellationToken;

use crate::few::Few;
use crate::progress::JobLog;
use crate::promise::Announce;
use crate::{Told, VertexProgress};

/// What an operation is told about the builds that want it.
#[derive(Clone)]
pub struct OpContext {
    /// The vertex that runs.
    pub vertex: Arc<Vertex>,
    /// The builds that want it. Others may join while it runs.
    pub jobs: JobGroup,
    /// Where it reports to.
    pub progress: VertexProgress,
    /// Cancelled when no build wants it any more.
    pub cancel: CancellationToken,
    pub(crate) announce: Announce,
}

impl OpContext {
    /// Says that the operation is done and that its results are on their way: operations that can
    /// begin with that now do. From now on it runs until its results are here or no build is left
    /// that knows it, even if nobody waits for them.
    pub fn promise(&self, told: Told) {
        self.announce.tell(told);
    }
}

/// The builds that want a vertex, as they are now: builds join and leave.
#[derive(Clone, Default)]
pub struct JobGroup(Arc<Mutex<Few<JobContext>>>);

impl JobGroup {
    /// The sessions of all those builds, each once, those of the first build first.
    pub fn sessions(&self) -> Vec<String> {
        let mut ids: Vec<String> = Vec::new();
        for job in self.lock().iter() {
            for id in job.sessions() {
                if !ids.contains(id) {
                    ids.push(id.clone());
                }
            }
        }
        ids
    }

    /// The builds themselves.
    pub fn jobs(&self) -> Vec<JobContext> {
        self.lock().to_vec()
    }

    pub(crate) fn first(&self) -> Option<JobContext> {
        self.lock().first().cloned()
    }

    /// A value that one of the builds was given under this name.
    pub fn value<T: Any + Send + Sync>(&self, name: &str) -> Option<Arc<T>> {
        self.lock().iter().find_map(|job| job.value(name))
    }

    /// Of one build, such as for what runs outside of any vertex.
    pub fn of(job: &JobContext) -> Self {
        JobGroup(Arc::new(Mutex::new(Few::One(Some(job.clone())))))
    }

    pub(crate) fn join(&self, job: &JobContext) -> bool {
        let mut jobs = self.lock();
        if jobs.iter().any(|known| known.same(job)) {
            return false;
        }
        jobs.push(job.clone());
        true
    }

    pub(crate) fn leave(&self, job: &JobContext) -> bool {
        let mut jobs = self.lock();
        let before = jobs.len();
        jobs.retain(|known| !known.same(job));
        jobs.len() < before
    }

    fn lock(&self) -> MutexGuard<'_, Few<JobContext>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for JobGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.lock().iter()).finish()
    }
}

/// One build. Cheap to clone.
#[derive(Clone)]
pub struct JobContext(Arc<Inner>);

/// A decision of the build, locked while it is made.
type Memo = tokio::sync::Mutex<Option<Arc<dyn Any + Send + Sync>>>;

struct Inner {
    id: String,
    sessions: Vec<String>,
    values: Mutex<HashMap<String, Arc<dyn Any + Send + Sync>>>,
    /// None after the end: then nothing is remembered any more.
    memos: Mutex<Option<HashMap<String, Arc<Memo>>>>,
    log: Arc<JobLog>,
    answered: AtomicBool,
}

impl JobContext {
    pub(crate) fn new(id: String, sessions: Vec<String>, log: Arc<JobLog>) -> Self {
        let memos = Mutex::new(Some(HashMap::new()));
        JobContext(Arc::new(Inner {
            id,
            sessions,
            values: Mutex::default(),
            memos,
            log,
            answered: AtomicBool::new(false),
        }))
    }

    /// The name that the client gave it.
    pub fn id(&self) -> &str {
        &self.0.id
    }

    /// The sessions of its client.
    pub fn sessions(&self) -> &[String] {
        &self.0.sessions
    }

    /// Keeps a value under a name, for the operations of the build.
    pub fn set_value<T: Any + Send + Sync>(&self, name: impl Into<String>, value: Arc<T>) {
        let mut values = self.0.values.lock().unwrap_or_else(PoisonError::into_inner);
        values.insert(name.into(), value);
    }

    /// The value of that name, if it is of this type.
    pub fn value<T: Any + Send + Sync>(&self, name: &str) -> Option<Arc<T>> {
        let values = self.0.values.lock().unwrap_or_else(PoisonError::into_inner);
        values.get(name)?.clone().downcast().ok()
    }

    /// Decides something once for the whole build, such as which image a tag means: the first
    /// caller for a key computes it, the others wait. A failure is not remembered, nor is what is
    /// decided after the end.
    pub async fn decide_once<T, E, F>(&self, key: &str, decide: F) -> Result<Arc<T>, E>
    where
        T: Any + Send + Sync,
        F: Future<Output = Result<T, E>>,
    {
        let slot = {
            let mut memos = self.0.memos.lock().unwrap_or_else(PoisonError::into_inner);
            let known = memos.as_mut().map(|memos| memos.entry(key.to_owned()).or_default().clone());
            known.unwrap_or_default()
        };
        let mut slot = slot.lock().await;
        if let Some(known) = slot.clone().and_then(|known| known.downcast::<T>().ok()) {
            return Ok(known);
        }
        let decided = Arc::new(decide.await?);
        *slot = Some(decided.clone());
        Ok(decided)
    }

    /// Reports about work of this build that is no vertex of a graph, such as an export. Steps
    /// with the same `id` are one step to the client; BuildKit takes the name where there is
    /// none.
    pub fn step(&self, name: impl Into<String>, id: Option<&str>) -> VertexProgress {
        VertexProgress::standalone(name.into(), id, &self.0.log)
    }

    pub(crate) fn log(&self) -> &Arc<JobLog> {
        &self.0.log
    }

    /// Whether its client has its answer, and what still runs for it does so for later builds.
    pub fn is_answered(&self) -> bool {
        self.0.answered.load(Ordering::Relaxed)
    }

    pub(crate) fn answered(&self) {
        self.0.answered.store(true, Ordering::Relaxed);
    }

    /// Lets go of what was kept for the operations of the build, such as connections. The rest is
    /// known for a while after the end.
    pub(crate) fn let_go(&self) {
        let values = std::mem::take(&mut *self.0.values.lock().unwrap_or_else(PoisonError::into_inner));
        let memos = self.0.memos.lock().unwrap_or_else(PoisonError::into_inner).take();
        // Outside of the locks: what ends here may look for others.
        drop((values, memos));
    }

    pub(crate) fn same(&self, other: &JobContext) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl fmt::Debug for JobContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("JobContext").field(&self.0.id).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    #[tokio::test]
    async fn a_decision_is_kept_until_the_end_and_none_after_it() {
        let job = JobContext::new("build".into(), Vec::new(), Arc::default());
        let decide = |key: &'static str| {
            let job = job.clone();
            async move { job.decide_once(key, async { Ok::<_, Infallible>(()) }).await.unwrap() }
        };
        let early = decide("early").await;
        assert_eq!(Arc::strong_count(&early), 2);
        job.let_go();
        assert_eq!(Arc::strong_count(&early), 1);
        assert_eq!(Arc::strong_count(&decide("late").await), 1);
    }
}
