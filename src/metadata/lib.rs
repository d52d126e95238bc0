//! What we remember between starts: one embedded transactional database with group commit.
//!
//! [`Database::write`] only changes memory: a batch of changes is visible to every reader at once
//! and as a whole, and costs no system call. A thread of the database's own writes what has
//! gathered to the file, as one durable transaction, at most [`COMMIT_AFTER`] later. After a crash
//! the file holds some prefix of the batches, never a part of one.

mod dump;
mod error;
mod file;
mod pending;

pub use dump::dump;
pub use error::{Error, Kind};

use pending::Pending;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long a change may wait for its durable commit. Long enough to gather a step's changes,
/// short enough that a crash costs little: what is lost is only work that can be done again.
pub const COMMIT_AFTER: Duration = Duration::from_millis(200);

/// How long to wait before a commit that failed (a full disk, mostly) is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Bytes of changes that may wait for a commit before [`Database::write`] waits as well.
const PENDING_LIMIT: usize = 16 << 20;

/// A value's key and the value.
pub type Entry = (Vec<u8>, Vec<u8>);

/// One change of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Sets the value of a key.
    Put {
        /// The table, made when first written to.
        table: &'static str,
        /// The key.
        key: Vec<u8>,
        /// The value.
        value: Vec<u8>,
    },
    /// Removes a key, if it is there.
    Delete {
        /// The table.
        table: &'static str,
        /// The key.
        key: Vec<u8>,
    },
}

impl Change {
    /// Sets `key` to `value`.
    pub fn put(table: &'static str, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Change {
        Change::Put { table, key: key.into(), value: value.into() }
    }

    /// Removes `key`.
    pub fn delete(table: &'static str, key: impl Into<Vec<u8>>) -> Change {
        Change::Delete { table, key: key.into() }
    }
}

/// A handle to the database. Cheap to clone; the last one to go makes everything durable.
#[derive(Clone)]
pub struct Database(Arc<Handle>);

/// What ends the committing thread when the last handle goes.
struct Handle {
    shared: Arc<Shared>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
}

struct Shared {
    file: file::File,
    state: Mutex<State>,
    /// Rung when the committing thread has something to do.
    work: Condvar,
    /// Rung when a commit ended, well or not.
    committed: Condvar,
}

#[derive(Default)]
struct State {
    /// Changes that no commit has taken up yet.
    fresh: Pending,
    /// Changes that are being committed; read through until they are in the file.
    in_commit: Arc<Pending>,
    /// Someone waits: do not gather any longer.
    hurry: bool,
    closing: bool,
    /// Numbers of the last batch written, and of the last one that is durable.
    last: u64,
    durable: u64,
    /// How many commits failed, and how the last of them did.
    failures: u64,
    failure: Option<Error>,
}

impl Database {
    /// Opens the database file at `path`, making it if there is none. A file that is damaged is
    /// renamed to `…corrupt-N` and an empty one takes its place.
    pub fn open(path: impl AsRef<Path>) -> Result<Database, Error> {
        let shared = Arc::new(Shared {
            file: file::File::open(path.as_ref())?,
            state: Mutex::default(),
            work: Condvar::new(),
            committed: Condvar::new(),
        });
        let thread = std::thread::Builder::new()
            .name("metadata".into())
            .spawn({
                let shared = shared.clone();
                move || shared.commit_until_closed()
            })
            .map_err(|source| Error::Thread { source })?;
        Ok(Database(Arc::new(Handle { shared, thread: Mutex::new(Some(thread)) })))
    }

    /// The value of a key.
    pub fn get(&self, table: &'static str, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let shared = &self.0.shared;
        let snapshot = {
            let state = shared.lock();
            if let Some(known) = state.fresh.get(table, key).or_else(|| state.in_commit.get(table, key)) {
                return Ok(known.map(<[u8]>::to_vec));
            }
            // Taken under the lock: no commit can move changes to the file in between.
            shared.file.snapshot()?
        };
        snapshot.get(table, key)
    }

    /// All entries whose key begins with `prefix`, in the order of the keys.
    pub fn scan(&self, table: &'static str, prefix: &[u8]) -> Result<Vec<Entry>, Error> {
        let mut entries = Vec::new();
        self.for_each(table, prefix, |key, value| {
            entries.push((key.to_vec(), value.to_vec()));
            ControlFlow::Continue(())
        })?;
        Ok(entries)
    }

    /// Calls `each` for the entries whose key begins with `prefix`, in the order of the keys,
    /// until it breaks. Sees one state of the table; writing from within is allowed.
    pub fn for_each(
        &self,
        table: &'static str,
        prefix: &[u8],
        mut each: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let shared = &self.0.shared;
        let (changed, snapshot) = {
            let state = shared.lock();
            let mut changed = state.in_commit.below(table, prefix);
            changed.extend(state.fresh.below(table, prefix));
            (changed, shared.file.snapshot()?)
        };
        let mut changed = changed.into_iter().peekable();
        let mut stopped = false;
        snapshot.for_each(table, prefix, |key, value| {
            while let Some((new_key, new_value)) = changed.next_if(|(k, _)| k.as_slice() < key) {
                if let Some(new_value) = new_value {
                    each(&new_key, &new_value)?;
                }
            }
            let flow = match changed.next_if(|(k, _)| k.as_slice() == key) {
                Some((_, None)) => ControlFlow::Continue(()),
                Some((_, Some(new_value))) => each(key, &new_value),
                None => each(key, value),
            };
            stopped |= flow.is_break();
            flow
        })?;
        if !stopped {
            for (key, value) in changed {
                if value.is_some_and(|value| each(&key, &value).is_break()) {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Applies a batch: all of it or, after a crash, nothing of it. Returns at once unless so
    /// much waits for its commit that the disk must catch up first.
    pub fn write(&self, batch: Vec<Change>) -> Result<(), Error> {
        let shared = &self.0.shared;
        let mut state = shared.lock();
        while state.fresh.bytes() > PENDING_LIMIT {
            let failures = state.failures;
            state.hurry = true;
            shared.work.notify_one();
            state = shared.committed.wait(state).unwrap_or_else(PoisonError::into_inner);
            if let Some(failure) = state.failure.as_ref().filter(|_| state.failures > failures) {
                return Err(failure.again());
            }
        }
        let was_idle = state.fresh.is_empty();
        for change in batch {
            match change {
                Change::Put { table, key, value } => state.fresh.set(table, key, Some(value)),
                Change::Delete { table, key } => state.fresh.set(table, key, None),
            }
        }
        state.last += 1;
        if was_idle {
            shared.work.notify_one();
        }
        Ok(())
    }

    /// Waits until everything written so far is durable. Blocks.
    pub fn flush(&self) -> Result<(), Error> {
        let shared = &self.0.shared;
        let mut state = shared.lock();
        let (wanted, failures) = (state.last, state.failures);
        while state.durable < wanted {
            state.hurry = true;
            shared.work.notify_one();
            state = shared.committed.wait(state).unwrap_or_else(PoisonError::into_inner);
            if let Some(failure) = state.failure.as_ref().filter(|_| state.failures > failures) {
                return Err(failure.again());
            }
        }
        Ok(())
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A batch is applied by plain map operations, so that a panic elsewhere leaves nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn commit_until_closed(&self) {
        let mut state = self.lock();
        loop {
            while state.fresh.is_empty() && !state.closing {
                state.hurry = false;
                state.durable = state.last;
                self.committed.notify_all();
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            if state.fresh.is_empty() {
                return;
            }
            state = self.wait_for_more(state, COMMIT_AFTER);
            state.in_commit = Arc::new(std::mem::take(&mut state.fresh));
            let (taken, upto) = (state.in_commit.clone(), state.last);
            state.hurry = false;
            drop(state);
            let outcome = self.file.commit(&taken);
            drop(taken);
            state = self.lock();
            let taken = std::mem::take(&mut state.in_commit);
            match outcome {
                Ok(()) => {
                    state.durable = upto;
                    state.failure = None;
                }
                Err(failure) => {
                    tracing::warn!(%failure, "metadata could not be written, will try again");
                    let newer = std::mem::take(&mut state.fresh);
                    state.fresh = Arc::unwrap_or_clone(taken).overlaid(newer);
                    state.failure = Some(failure);
                    state.failures += 1;
                    if state.closing {
                        return;
                    }
                }
            }
            self.committed.notify_all();
            if state.failure.is_some() {
                state = self.wait_for_more(state, RETRY_AFTER);
            }
        }
    }

    /// Waits, but no longer than `limit`, until somebody is in a hurry.
    fn wait_for_more<'a>(&self, state: MutexGuard<'a, State>, limit: Duration) -> MutexGuard<'a, State> {
        let wait = self.work.wait_timeout_while(state, limit, |s| !s.hurry && !s.closing);
        wait.unwrap_or_else(PoisonError::into_inner).0
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.lock().closing = true;
        self.shared.work.notify_one();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|t| t.join().is_err()) {
            tracing::error!("the thread that writes metadata has panicked");
        }
    }
}

#[cfg(test)]
mod lib_tests;
