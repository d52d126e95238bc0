//! What is remembered of builds: those that run, and for a while those that ended.

mod filters;
mod following;
mod frames;
mod trace;

use crate::config;
use crosskit_api::control::{
    BuildHistoryEvent, BuildHistoryEventType, BuildHistoryRecord, BuildHistoryRequest, StatusResponse,
};
use crosskit_api::control::{BuildResultInfo, Descriptor};
use crosskit_images::archives::documents;
use crosskit_images::{ContentStore, Digest};
use crosskit_metadata::{Change, Database};
use filters::HistoryFilters;
use prost::Message;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;
use tokio::sync::{broadcast, watch};

/// Records of ended builds, by ref.
const TABLE: &str = "history";

/// What was said of a build, as a blob (BuildKit `solver/llbsolver/history`).
const LOGS_TYPE: &str = "application/vnd.buildkit.status.v0";

/// What took how long in a build, as a blob.
const TRACE_TYPE: &str = "application/vnd.buildkit.otlp.json.v0";

/// Events that a slow listener may fall behind; then it is told the whole state again.
const EVENTS: usize = 1024;

/// Why the history can't answer.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// There is no such build.
    #[error("build {0} not found")]
    NotFound(String),
    /// What a client asked for makes no sense.
    #[error("{0}")]
    Request(String),
    /// The database or a blob can't be used.
    #[error("build history: {0}")]
    Storage(String),
}

/// The history. Cheap to clone.
#[derive(Clone)]
pub struct History(Arc<Inner>);

struct Inner {
    db: Database,
    content: ContentStore,
    limits: config::History,
    /// Held while blobs get a name or lose it.
    writing: Mutex<()>,
    active: Mutex<BTreeMap<String, BuildHistoryRecord>>,
    /// Builds that have ended and are being written down.
    ending: watch::Sender<BTreeSet<String>>,
    events: broadcast::Sender<BuildHistoryEvent>,
}

/// A build that is being written down: until this is dropped, whoever asks for it waits.
pub struct Ending {
    history: History,
    key: String,
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.history.0.ending.send_modify(|ending| {
            ending.remove(&self.key);
        });
    }
}

impl History {
    /// Opens the history; what was said of builds is kept as blobs.
    pub fn open(db: Database, content: ContentStore, limits: config::History) -> Self {
        let (events, _) = broadcast::channel(EVENTS);
        let (ending, _) = watch::channel(BTreeSet::new());
        let (writing, active) = (Mutex::default(), Mutex::default());
        History(Arc::new(Inner { db, content, limits, writing, active, ending, events }))
    }

    /// A build begins.
    pub fn start(&self, record: BuildHistoryRecord) {
        self.active().insert(record.r#ref.clone(), record.clone());
        self.tell(BuildHistoryEventType::Started, record);
    }

    /// A build has its answer; what is remembered of it is written down now.
    pub fn ending(&self, key: &str) -> Ending {
        self.0.ending.send_modify(|ending| {
            ending.insert(key.to_string());
        });
        Ending { history: self.clone(), key: key.to_string() }
    }

    /// Waits until a build that has ended is written down; without a name, until all are that have ended by now.
    pub async fn settled(&self, key: Option<&str>) {
        let mut ending = self.0.ending.subscribe();
        let waited: BTreeSet<String> = match key {
            Some(key) => BTreeSet::from([key.to_string()]),
            None => ending.borrow_and_update().clone(),
        };
        // The sender is here as long as the history is.
        let _ = ending.wait_for(|ending| ending.is_disjoint(&waited)).await;
    }

    /// A build ended; `progress` is all that was said of it.
    ///
    /// # Errors
    /// A full disk. The build is forgotten then, and nothing else is lost.
    pub fn finish(
        &self,
        mut record: BuildHistoryRecord,
        progress: &[StatusResponse],
    ) -> Result<(), HistoryError> {
        let key = record.r#ref.clone();
        let writing = self.writing();
        let stored = self.keep_progress(&mut record, progress).and_then(|()| self.put(&record));
        drop(writing);
        self.active().remove(&key);
        self.tell(BuildHistoryEventType::Complete, record);
        stored
    }

    fn keep_progress(
        &self,
        record: &mut BuildHistoryRecord,
        progress: &[StatusResponse],
    ) -> Result<(), HistoryError> {
        record.logs = Some(self.keep(LOGS_TYPE, &frames::encode(progress))?);
        record.trace = Some(self.keep(TRACE_TYPE, &trace::of(record, progress))?);
        Ok(())
    }

    /// Keeps a blob that a record will name.
    ///
    /// # Errors
    /// A full disk.
    pub fn keep(&self, media_type: &str, bytes: &[u8]) -> Result<Descriptor, HistoryError> {
        let digest = self.0.content.put(bytes).map_err(|e| storage(&e))?;
        Ok(Descriptor {
            media_type: media_type.to_string(),
            digest: digest.to_string(),
            size: i64::try_from(bytes.len()).unwrap_or(i64::MAX),
            ..Descriptor::default()
        })
    }

    fn put(&self, record: &BuildHistoryRecord) -> Result<(), HistoryError> {
        let change = Change::Put {
            table: TABLE,
            key: record.r#ref.clone().into_bytes(),
            value: record.encode_to_vec(),
        };
        self.0.db.write(vec![change]).map_err(|e| storage(&e))
    }

    fn record(&self, key: &str) -> Result<Option<BuildHistoryRecord>, HistoryError> {
        let found = self.0.db.get(TABLE, key.as_bytes()).map_err(|e| storage(&e))?;
        found.map(|value| BuildHistoryRecord::decode(value.as_slice()).map_err(|e| storage(&e))).transpose()
    }

    /// All that was said of an ended build; None where it isn't known.
    ///
    /// # Errors
    /// A log that can't be read.
    pub fn progress(&self, key: &str) -> Result<Option<Vec<StatusResponse>>, HistoryError> {
        let Some(record) = self.record(key)? else { return Ok(None) };
        let Some(logs) = record.logs else { return Ok(Some(Vec::new())) };
        let digest: Digest = logs.digest.parse().map_err(|e| storage(&e))?;
        let bytes = self.0.content.read(&digest, u64::MAX).map_err(|e| storage(&e))?;
        frames::decode(&bytes).map(Some).map_err(|e| storage(&e))
    }

    /// What is known now, as events. Filters and a limit choose among the builds that have ended; with a limit the newest
    /// come first.
    ///
    /// # Errors
    /// An unreadable database, and filters that are none.
    pub fn known(&self, request: &BuildHistoryRequest) -> Result<Vec<BuildHistoryEvent>, HistoryError> {
        let filters =
            HistoryFilters::parse(&request.filter, SystemTime::now()).map_err(HistoryError::Request)?;
        let limit = usize::try_from(request.limit)
            .map_err(|_| HistoryError::Request(format!("invalid limit {}", request.limit)))?;
        let wanted = |r: &BuildHistoryRecord| request.r#ref.is_empty() || r.r#ref == request.r#ref;
        let mut known: Vec<BuildHistoryEvent> = Vec::new();
        for record in self.active().values().filter(|r| wanted(r)) {
            known.push(event(BuildHistoryEventType::Started, record.clone()));
        }
        if !request.active_only {
            let mut ended = match request.r#ref.as_str() {
                "" => self.ended()?,
                key => self.record(key)?.into_iter().collect(),
            };
            ended.retain(|record| filters.want(record));
            if request.limit != 0 {
                ended.reverse();
                ended.truncate(limit);
            }
            known.extend(ended.into_iter().map(|r| event(BuildHistoryEventType::Complete, r)));
        }
        Ok(known)
    }

    /// Ended builds, oldest first.
    fn ended(&self) -> Result<Vec<BuildHistoryRecord>, HistoryError> {
        let mut records: Vec<BuildHistoryRecord> = self
            .0
            .db
            .scan(TABLE, b"")
            .map_err(|e| storage(&e))?
            .into_iter()
            .filter_map(|(_, value)| BuildHistoryRecord::decode(value.as_slice()).ok())
            .collect();
        records.sort_by_key(|r| r.created_at.map(|t| (t.seconds, t.nanos)));
        Ok(records)
    }

    /// The blobs that records name: logs, traces, provenance, errors in full, and the documents of results. Layers are
    /// no part of a record.
    ///
    /// # Errors
    /// An unreadable database.
    pub fn blobs(&self) -> Result<HashSet<Digest>, HistoryError> {
        let named = |record: BuildHistoryRecord| {
            let own = own_blobs(&record);
            let results = record.result.into_iter().flat_map(|result| result.results.into_values());
            let documents = results.filter_map(|desc| {
                let size = u64::try_from(desc.size).ok()?;
                let root = crosskit_images::Descriptor::new(desc.media_type, desc.digest.parse().ok()?, size);
                Some(documents(&self.0.content, &root))
            });
            own.into_iter().chain(documents.flatten()).chain(digests(record.external_error.into_iter()))
        };
        Ok(self.ended()?.into_iter().flat_map(named).collect())
    }

    /// Forgets an ended build.
    ///
    /// # Errors
    /// An unwritable database. A build that isn't known is no error: it is gone.
    pub fn delete(&self, key: &str) -> Result<(), HistoryError> {
        match self.record(key)? {
            Some(record) => self.delete_all(vec![record]),
            None => Ok(()),
        }
    }

    fn delete_all(&self, records: Vec<BuildHistoryRecord>) -> Result<(), HistoryError> {
        let _writing = self.writing();
        for record in &records {
            let change = Change::Delete { table: TABLE, key: record.r#ref.clone().into_bytes() };
            self.0.db.write(vec![change]).map_err(|e| storage(&e))?;
        }
        // Builds of which nothing was said have the same log.
        let named = self.blobs()?;
        for blob in records.iter().flat_map(own_blobs).filter(|blob| !named.contains(blob)) {
            // What can't be removed now is collected with other blobs that nobody names.
            let _ = self.0.content.delete(&blob);
        }
        for record in records {
            self.tell(BuildHistoryEventType::Deleted, record);
        }
        Ok(())
    }

    /// Pins an ended build, or unpins it: pinned ones don't expire.
    ///
    /// # Errors
    /// A build that isn't known.
    pub fn pin(&self, key: &str, pinned: bool) -> Result<(), HistoryError> {
        let mut record = self.record(key)?.ok_or_else(|| HistoryError::NotFound(key.to_string()))?;
        record.pinned = pinned;
        record.generation += 1;
        self.put(&record)?;
        self.tell(BuildHistoryEventType::Complete, record);
        Ok(())
    }

    /// Forgets what is old, of more builds than are kept in any case: only what is both goes.
    ///
    /// # Errors
    /// An unreadable database.
    pub fn expire(&self, now: SystemTime) -> Result<(), HistoryError> {
        let mut records = self.ended()?;
        records.retain(|r| !r.pinned);
        records.sort_by_key(|r| std::cmp::Reverse(r.completed_at.map(|t| (t.seconds, t.nanos))));
        let oldest = now
            .checked_sub(self.0.limits.max_age)
            .and_then(|t| t.duration_since(SystemTime::UNIX_EPOCH).ok())
            .map_or(0, |d| i64::try_from(d.as_secs()).unwrap_or(i64::MAX));
        let old = |r: &BuildHistoryRecord| r.completed_at.is_some_and(|t| t.seconds < oldest);
        let gone: Vec<_> = records.into_iter().skip(self.0.limits.max_entries).filter(old).collect();
        if gone.is_empty() { Ok(()) } else { self.delete_all(gone) }
    }

    fn tell(&self, kind: BuildHistoryEventType, record: BuildHistoryRecord) {
        // Nobody listening is no error.
        let _ = self.0.events.send(event(kind, record));
    }

    fn writing(&self) -> std::sync::MutexGuard<'_, ()> {
        self.0.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn active(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, BuildHistoryRecord>> {
        self.0.active.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The blobs that are of one build alone, as times stand in them.
fn own_blobs(record: &BuildHistoryRecord) -> Vec<Digest> {
    let of = |info: &BuildResultInfo| info.attestations.clone();
    let attested = record.result.iter().chain(record.results.values()).flat_map(of);
    digests(record.logs.clone().into_iter().chain(record.trace.clone()).chain(attested)).collect()
}

fn digests(all: impl Iterator<Item = Descriptor>) -> impl Iterator<Item = Digest> {
    all.filter_map(|desc| desc.digest.parse().ok())
}

fn event(kind: BuildHistoryEventType, record: BuildHistoryRecord) -> BuildHistoryEvent {
    BuildHistoryEvent { r#type: kind.into(), record: Some(record) }
}

fn storage(e: &impl ToString) -> HistoryError {
    HistoryError::Storage(e.to_string())
}

#[cfg(test)]
#[path = "history/tests.rs"]
mod tests;
