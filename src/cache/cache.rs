use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::index::Index;
use crate::results::MemoryResults;
use crate::{CacheError, KeyDigest, KeyStore, LoadContext, MemoryStore, Results, row};

/// A key within one cache. Never used for another key while the daemon runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(pub(crate) u64);

/// One way an input is known: its key, and which part of it counts.
pub type Alternative = (KeyId, Option<KeyDigest>);

/// The output that content is in the name of a key: see [`KeyDigest::of_output`].
///
/// BuildKit treats content as the output -1 of an operation without inputs
/// (`solver/edge.go`).
pub const CONTENT: i32 = -1;

/// From the key of an input to that of an operation's output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// Which input.
    pub input: u32,
    /// The name of the key that it leads to: of an output of an operation.
    pub name: KeyDigest,
    /// Which part of the input counts.
    pub selector: Option<KeyDigest>,
}

/// A result that a key leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The name of the result.
    pub id: Arc<str>,
    /// When it was made, in nanoseconds since 1970.
    pub created_ns: u64,
}

impl Record {
    /// When it was made.
    pub fn created(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_nanos(self.created_ns)
    }
}

/// Everything about one key, for walking a chain of keys towards its roots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyInfo {
    /// Of an output of the operation, or of content. Keys with other inputs may have the same.
    pub name: KeyDigest,
    /// For each input the keys that it is known by. Empty for an operation without inputs.
    pub inputs: Vec<Vec<Alternative>>,
    /// What it leads to, oldest first.
    pub records: Vec<Record>,
}

/// The keys of what has been done and where the results are. Clones are the same cache.
///
/// All keys are in memory, read from the store on first use. Every method but [`Cache::load`]
/// takes well under a millisecond.
pub struct Cache<R>(Arc<Inner<R>>);

struct Inner<R> {
    name: String,
    index: Mutex<Option<Index>>,
    store: Arc<dyn KeyStore>,
    results: Arc<dyn Results<R>>,
}

impl<R> Clone for Cache<R> {
    fn clone(&self) -> Self {
        Cache(self.0.clone())
    }
}

impl<R> fmt::Debug for Cache<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Cache").field(&self.0.name).finish()
    }
}

impl<R: Clone + Send + Sync + 'static> Cache<R> {
    /// A cache that nothing outlives.
    pub fn in_memory(name: impl Into<String>) -> Self {
        Cache::new(name, Arc::new(MemoryStore::default()), Arc::new(MemoryResults::default()))
    }
}

impl<R: 'static> Cache<R> {
    /// A cache over a store. The name is for messages.
    pub fn new(name: impl Into<String>, store: Arc<dyn KeyStore>, results: Arc<dyn Results<R>>) -> Self {
        Cache(Arc::new(Inner { name: name.into(), index: Mutex::new(None), store, results }))
    }

    /// Whether this is another handle to the same cache.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Reads the stored keys now rather than on first use. Takes some milliseconds for each ten
    /// thousand of them.
    pub fn warm_up(&self) {
        self.with(|_| ());
    }

    /// How many keys there are.
    pub fn keys(&self) -> usize {
        self.with(|index| index.len())
    }

    /// The key of an operation without inputs, or of content.
    pub fn root(&self, name: KeyDigest) -> Option<KeyId> {
        self.with(|index| index.root(name).map(KeyId))
    }

    /// The same, made where there is none.
    pub fn ensure_root(&self, name: KeyDigest) -> KeyId {
        self.with(|index| KeyId(index.ensure_root(name)))
    }

    /// Goes through the keys that a link leads to.
    pub fn children(&self, parent: KeyId, link: &Link, mut each: impl FnMut(KeyId)) {
        self.with(|index| index.children(parent.0, link).iter().for_each(|id| each(KeyId(*id))));
    }

    /// The key of this name whose inputs are all of these, found by any alternative of each input,
    /// or made. It is linked from all alternatives.
    ///
    /// A key that nothing comes of is to be given back to [`Cache::forget`].
    pub fn ensure(&self, inputs: &[Vec<Alternative>], name: KeyDigest) -> KeyId {
        let plain = |alternatives: &Vec<Alternative>| {
            alternatives.iter().map(|(id, selector)| (id.0, *selector)).collect()
        };
        let inputs: Vec<Vec<_>> = inputs.iter().map(plain).collect();
        self.with(|index| KeyId(index.ensure(&inputs, name)))
    }

    /// Removes a key unless it leads somewhere.
    pub fn forget(&self, key: KeyId) {
        self.with(|index| index.remove_if_dead(key.0));
    }

    /// Whether the key is still there: a key goes with the last result behind it.
    pub fn contains(&self, key: KeyId) -> bool {
        self.with(|index| index.get(key.0).is_some())
    }

    /// The results that a key leads to and that are there, the newest first.
    pub fn records(&self, key: KeyId) -> Vec<Record> {
        self.with(|index| {
            let mut records = match index.get(key.0) {
                Some(key) if !key.records.is_empty() => key.records.clone(),
                _ => return Vec::new(),
            };
            records.retain(|record| {
                let exists = self.0.results.exists(&record.id);
                if !exists {
                    index.release(&record.id);
                }
                exists
            });
            records.sort_by_key(|record| std::cmp::Reverse(record.created_ns));
            records
        })
    }

    /// The first of [`Cache::records`].
    pub fn newest(&self, key: KeyId) -> Option<Record> {
        self.with(|index| {
            loop {
                let records = &index.get(key.0)?.records;
                let newest = records.iter().max_by_key(|record| record.created_ns)?.clone();
                if self.0.results.exists(&newest.id) {
                    return Some(newest);
                }
                index.release(&newest.id);
            }
        })
    }

    /// Keeps a result and has a key lead to it.
    pub fn save(&self, key: KeyId, result: &R, created: SystemTime) -> Result<Record, CacheError> {
        let id = self.0.results.save(result)?;
        let since = created.duration_since(UNIX_EPOCH).unwrap_or_default();
        let created_ns = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
        let record = Record { id: id.into(), created_ns };
        self.add_record(key, record.clone());
        Ok(record)
    }

    /// Has a key lead to a result that is kept already, such as one of a remote cache.
    pub fn add_record(&self, key: KeyId, record: Record) {
        self.with(|index| index.add_record(key.0, record));
    }

    /// Whether one result is the lower part of another, so that whoever has the whole has both.
    pub fn is_part(&self, part: &Record, whole: &Record) -> bool {
        self.0.results.is_part(&part.id, &whole.id)
    }

    /// Gets a result back.
    pub async fn load(&self, record: &Record, cx: &LoadContext) -> Result<R, CacheError> {
        self.0.results.load(&record.id, cx).await
    }

    /// Forgets a result that is gone or of no use, and the keys that lead nowhere without it.
    pub fn release(&self, record: &str) {
        self.with(|index| index.release(record));
    }

    /// Everything about a key.
    pub fn info(&self, key: KeyId) -> Option<KeyInfo> {
        self.with(|index| {
            let key = index.get(key.0)?;
            let count = key.parents.iter().map(|parent| parent.input as usize + 1).max();
            let mut inputs = vec![Vec::new(); count.unwrap_or(0)];
            for parent in &key.parents {
                inputs[parent.input as usize].push((KeyId(parent.key), parent.selector));
            }
            Some(KeyInfo { name: key.name, inputs, records: key.records.clone() })
        })
    }

    /// The keys that lead to a result.
    pub fn keys_of(&self, record: &str) -> Vec<KeyId> {
        self.with(|index| index.keys_of(record).iter().map(|id| KeyId(*id)).collect())
    }

    /// Does something with the index and has what changed written. That a key cannot be written
    /// costs a later build some work, and is no reason for this one to fail.
    fn with<T>(&self, act: impl FnOnce(&mut Index) -> T) -> T {
        let mut guard = self.lock();
        let index = guard.get_or_insert_with(|| self.restore());
        let answer = act(index);
        let changes = index.changes();
        if !changes.is_empty()
            && let Err(error) = self.0.store.write(changes)
        {
            tracing::warn!("{error}; later builds will not find these results");
        }
        answer
    }

    fn restore(&self) -> Index {
        let mut index = Index::default();
        let mut broken = 0;
        let loaded = self.0.store.load(&mut |id, bytes| match row::decode(bytes) {
            Some(key) => index.restore(id, key),
            None => broken += 1,
        });
        if let Err(error) = loaded {
            tracing::warn!("{error}; starting with what could be read");
        }
        if broken > 0 {
            tracing::warn!("{broken} stored cache keys cannot be read and are not used");
        }
        index.connect(|id| self.0.results.exists(id));
        index
    }

    fn lock(&self) -> MutexGuard<'_, Option<Index>> {
        self.0.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
