//! Things that take a while to make, kept ready, lent and taken back.

use std::{
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{runtime::Handle, task::JoinSet, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{Error, Result};

/// How long what is more than wanted is kept after its last use (BuildKit util/network/netpool).
pub(crate) const GRACE: Duration = Duration::from_secs(300);
/// How many are given up at a time.
const AT_A_TIME: usize = 8;

/// Makes what a pool lends, and undoes it.
pub(crate) trait Source: Send + Sync + 'static {
    /// What it is.
    type Item: std::fmt::Debug + Send + 'static;
    /// Makes one.
    fn make(&self) -> impl Future<Output = Result<Self::Item>> + Send;
    /// Undoes one.
    fn release(&self, item: Self::Item) -> impl Future<Output = ()> + Send;
}

/// A pool. Cheap to clone.
#[derive(Debug)]
pub(crate) struct Pool<S: Source>(Arc<Inner<S>>);

impl<S: Source> Clone for Pool<S> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

#[derive(Debug)]
struct Inner<S: Source> {
    source: S,
    /// How many there should be, lent ones included.
    wanted: usize,
    tasks: TaskTracker,
    closing: CancellationToken,
    state: Mutex<State<S::Item>>,
}

#[derive(Debug)]
struct State<T> {
    /// Those that nobody has, with the time of their last use; the last used last.
    ready: Vec<(T, Instant)>,
    /// How many there are, lent ones included.
    total: usize,
    closed: bool,
}

/// One that is lent. It goes back when this is dropped.
#[derive(Debug)]
pub(crate) struct Lease<S: Source> {
    /// There until it is dropped.
    item: Option<S::Item>,
    pool: Pool<S>,
    spent: bool,
}

impl<S: Source> Pool<S> {
    pub(crate) fn new(source: S, wanted: usize, tasks: TaskTracker, closing: CancellationToken) -> Self {
        let state = Mutex::new(State { ready: Vec::new(), total: 0, closed: false });
        Self(Arc::new(Inner { source, wanted, tasks, closing, state }))
    }

    /// What makes them.
    pub(crate) fn source(&self) -> &S {
        &self.0.source
    }

    fn state(&self) -> MutexGuard<'_, State<S::Item>> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The one that was used last, or a new one if none is ready.
    pub(crate) async fn get(&self) -> Result<Lease<S>> {
        {
            let mut state = self.state();
            if state.closed {
                return Err(Error::Canceled);
            }
            if let Some((item, _)) = state.ready.pop() {
                return Ok(Lease { item: Some(item), pool: self.clone(), spent: false });
            }
        }
        let item = self.0.source.make().await?;
        self.state().total += 1;
        Ok(Lease { item: Some(item), pool: self.clone(), spent: false })
    }

    /// One that was made for a particular purpose; it is undone afterwards.
    pub(crate) fn adopt(&self, item: S::Item) -> Lease<S> {
        self.state().total += 1;
        Lease { item: Some(item), pool: self.clone(), spent: true }
    }

    /// Makes as many as are wanted, behind the caller's back.
    pub(crate) fn fill(&self) {
        let pool = self.clone();
        self.0.tasks.spawn(async move {
            while !pool.0.closing.is_cancelled() && pool.state().total < pool.0.wanted {
                match pool.0.source.make().await {
                    Ok(item) => {
                        pool.state().total += 1;
                        pool.put(item);
                    }
                    Err(error) => {
                        tracing::warn!(%error, "filling the pool of network namespaces");
                        return;
                    }
                }
            }
        });
    }

    /// Takes one back.
    fn put(&self, item: S::Item) {
        let left_over = {
            let mut state = self.state();
            if state.closed {
                drop(state);
                return self.give_up(item);
            }
            state.ready.push((item, Instant::now()));
            state.total > self.0.wanted
        };
        if let (true, Ok(handle)) = (left_over, Handle::try_current()) {
            let pool = self.clone();
            self.0.tasks.spawn_on(
                async move {
                    tokio::select! {
                        () = pool.0.closing.cancelled() => {}
                        () = tokio::time::sleep(GRACE) => pool.trim().await,
                    }
                },
                &handle,
            );
        }
    }

    /// Undoes one that nobody is to have again, behind the caller's back.
    fn give_up(&self, item: S::Item) {
        self.state().total -= 1;
        // Without a runtime this process is at its end, and the next one undoes it.
        if let Ok(handle) = Handle::try_current() {
            let pool = self.clone();
            self.0.tasks.spawn_on(async move { pool.0.source.release(item).await }, &handle);
        }
    }

    /// Undoes those that are more than wanted and have not been used for a while, the longest unused first.
    async fn trim(&self) {
        loop {
            let unused = {
                let mut state = self.state();
                let is_old = state.ready.first().is_some_and(|(_, used)| used.elapsed() >= GRACE);
                if state.total <= self.0.wanted || !is_old {
                    return;
                }
                state.total -= 1;
                state.ready.remove(0).0
            };
            self.0.source.release(unused).await;
        }
    }

    /// Undoes all that nobody has, and will undo the others when they come back.
    pub(crate) async fn close(&self) {
        let mut ready = {
            let mut state = self.state();
            state.closed = true;
            state.total -= state.ready.len();
            std::mem::take(&mut state.ready)
        };
        while !ready.is_empty() {
            let mut releasing = JoinSet::new();
            for (item, _) in ready.split_off(ready.len().saturating_sub(AT_A_TIME)) {
                let pool = self.clone();
                releasing.spawn(async move { pool.0.source.release(item).await });
            }
            releasing.join_all().await;
        }
    }
}

impl<S: Source> Lease<S> {
    /// What is lent.
    pub(crate) fn item(&self) -> &S::Item {
        self.item.as_ref().expect("it is there until it is dropped")
    }

    /// Lets nobody have it again.
    pub(crate) fn spend(&mut self) {
        self.spent = true;
    }
}

impl<S: Source> Drop for Lease<S> {
    fn drop(&mut self) {
        match self.item.take() {
            Some(item) if self.spent => self.pool.give_up(item),
            Some(item) => self.pool.put(item),
            None => {}
        }
    }
}
