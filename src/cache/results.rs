use std::any::Any;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::BoxFuture;

use crate::{CacheError, ErrorKind};

/// What keeps the results that keys lead to: snapshots, or the layers of a remote cache.
pub trait Results<R>: Send + Sync + 'static {
    /// Keeps a result for later builds and gives it a name. The same result has the same name.
    fn save(&self, result: &R) -> Result<String, CacheError>;

    /// Whether the result of that name is still there. Asked on every lookup, so that it must
    /// not do more than look into memory.
    fn exists(&self, id: &str) -> bool;

    /// Whether one result is the lower part of another, such as the first layers of it. Whoever
    /// loads the whole then gets the part at no cost.
    fn is_part(&self, part: &str, whole: &str) -> bool {
        let _ = (part, whole);
        false
    }

    /// Gets a result back.
    fn load<'a>(&'a self, id: &'a str, cx: &'a LoadContext) -> BoxFuture<'a, Result<R, CacheError>>;
}

/// What loading a result may need from the build.
#[derive(Clone, Default)]
pub struct LoadContext {
    /// The sessions of the builds that want it.
    pub sessions: Vec<String>,
    /// What the operations below it have to say, such as where the blobs of a lazy image are.
    pub with: Vec<Arc<dyn Any + Send + Sync>>,
}

impl LoadContext {
    /// All that is of this type.
    pub fn all<T: Any + Send + Sync>(&self) -> impl Iterator<Item = Arc<T>> + '_ {
        self.with.iter().filter_map(|with| with.clone().downcast().ok())
    }
}

/// Results in memory, for caches that do not outlive the daemon.
pub struct MemoryResults<R> {
    results: Mutex<HashMap<String, R>>,
    next: AtomicU64,
}

impl<R> Default for MemoryResults<R> {
    fn default() -> Self {
        MemoryResults { results: Mutex::default(), next: AtomicU64::new(0) }
    }
}

impl<R> MemoryResults<R> {
    /// Forgets a result, as a collection of garbage would.
    pub fn remove(&self, id: &str) {
        self.results.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }
}

impl<R: Clone + Send + Sync + 'static> Results<R> for MemoryResults<R> {
    fn save(&self, result: &R) -> Result<String, CacheError> {
        let id = self.next.fetch_add(1, Ordering::Relaxed).to_string();
        let mut results = self.results.lock().unwrap_or_else(PoisonError::into_inner);
        results.insert(id.clone(), result.clone());
        Ok(id)
    }

    fn exists(&self, id: &str) -> bool {
        self.results.lock().unwrap_or_else(PoisonError::into_inner).contains_key(id)
    }

    fn load<'a>(&'a self, id: &'a str, _: &'a LoadContext) -> BoxFuture<'a, Result<R, CacheError>> {
        let found = self.results.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned();
        let missing = || CacheError::Load {
            id: id.to_owned(),
            message: "it has been collected".to_owned(),
            kind: ErrorKind::Environment,
        };
        Box::pin(std::future::ready(found.ok_or_else(missing)))
    }
}
