//! What is remembered of builds: those that run, and for a while those that ended.

mod filters;

use crate::config;
use crosskit_api::control::{
    BuildHistoryEvent, BuildHistoryEventType, BuildHistoryRecord, BuildHistoryRequest, StatusResponse,
};
use crosskit_images::Digest;
use crosskit_metadata::{Change, Database};
use filters::HistoryFilters;
use prost::Message;
use std::collections::{BTreeMap, HashSet};
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;
use tokio::sync::broadcast;

/// Records of ended builds, by ref.
const TABLE: &str = "history";

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
    /// The database or a log file can't be used.
    #[error("build history: {0}")]
    Storage(String),
}

/// The history. Cheap to clone.
#[derive(Clone)]
pub struct History(Arc<Inner>);

struct Inner {
    db: Database,
    logs: PathBuf,
    limits: config::History,
    active: Mutex<BTreeMap<String, BuildHistoryRecord>>,
    events: broadcast::Sender<BuildHistoryEvent>,
}

impl History {
    /// Opens the history; logs of builds are files in the folder `logs`.
    ///
    /// # Errors
    /// A folder that can't be made.
    pub fn open(db: Database, logs: PathBuf, limits: config::History) -> Result<Self, HistoryError> {
        std::fs::create_dir_all(&logs).map_err(|e| storage(&e))?;
        let (events, _) = broadcast::channel(EVENTS);
        Ok(History(Arc::new(Inner { db, logs, limits, active: Mutex::default(), events })))
    }

    /// A build begins.
    pub fn start(&self, record: BuildHistoryRecord) {
        self.active().insert(record.r#ref.clone(), record.clone());
        self.tell(BuildHistoryEventType::Started, record);
    }

    /// A build ended; `progress` is all that was said of it.
    ///
    /// # Errors
    /// A full disk. The build is forgotten then, and nothing else is lost.
    pub fn finish(
        &self,
        record: BuildHistoryRecord,
        progress: &[StatusResponse],
    ) -> Result<(), HistoryError> {
        let key = record.r#ref.clone();
        let stored = self.store(&record, progress);
        self.active().remove(&key);
        self.tell(BuildHistoryEventType::Complete, record);
        stored?;
        self.expire(SystemTime::now())
    }

    fn store(&self, record: &BuildHistoryRecord, progress: &[StatusResponse]) -> Result<(), HistoryError> {
        let mut bytes = Vec::new();
        for part in progress {
            part.encode_length_delimited(&mut bytes).map_err(|e| storage(&e))?;
        }
        let path = self.log_path(&record.r#ref);
        std::fs::File::create(&path).and_then(|mut f| f.write_all(&bytes)).map_err(|e| storage(&e))?;
        self.put(record)
    }

    fn put(&self, record: &BuildHistoryRecord) -> Result<(), HistoryError> {
        let change = Change::Put {
            table: TABLE,
            key: record.r#ref.clone().into_bytes(),
            value: record.encode_to_vec(),
        };
        self.0.db.write(vec![change]).map_err(|e| storage(&e))
    }

    /// All that was said of an ended build; None where it isn't known.
    ///
    /// # Errors
    /// A log that can't be read.
    pub fn progress(&self, key: &str) -> Result<Option<Vec<StatusResponse>>, HistoryError> {
        if self.0.db.get(TABLE, key.as_bytes()).map_err(|e| storage(&e))?.is_none() {
            return Ok(None);
        }
        let bytes = std::fs::read(self.log_path(key)).map_err(|e| storage(&e))?;
        let mut rest = bytes.as_slice();
        let mut parts = Vec::new();
        while !rest.is_empty() {
            parts.push(StatusResponse::decode_length_delimited(&mut rest).map_err(|e| storage(&e))?);
        }
        Ok(Some(parts))
    }

    /// What is known now, as events, and what happens from now on. Filters and a limit choose among the builds that
    /// have ended; with a limit the newest come first.
    ///
    /// # Errors
    /// An unreadable database, and filters that are none.
    #[allow(clippy::type_complexity)]
    pub fn listen(
        &self,
        request: &BuildHistoryRequest,
    ) -> Result<(Vec<BuildHistoryEvent>, broadcast::Receiver<BuildHistoryEvent>), HistoryError> {
        let filters =
            HistoryFilters::parse(&request.filter, SystemTime::now()).map_err(HistoryError::Request)?;
        let limit = usize::try_from(request.limit)
            .map_err(|_| HistoryError::Request(format!("invalid limit {}", request.limit)))?;
        let follow = self.0.events.subscribe();
        let wanted = |r: &BuildHistoryRecord| request.r#ref.is_empty() || r.r#ref == request.r#ref;
        let mut known: Vec<BuildHistoryEvent> = Vec::new();
        for record in self.active().values().filter(|r| wanted(r)) {
            known.push(event(BuildHistoryEventType::Started, record.clone()));
        }
        if !request.active_only {
            let mut ended = self.ended()?;
            ended.retain(wanted);
            ended.retain(|record| filters.want(record));
            if request.limit != 0 {
                ended.reverse();
                ended.truncate(limit);
            }
            known.extend(ended.into_iter().map(|r| event(BuildHistoryEventType::Complete, r)));
        }
        Ok((known, follow))
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

    /// The blobs that records name: manifests of results, and errors in full.
    ///
    /// # Errors
    /// An unreadable database.
    pub fn blobs(&self) -> Result<HashSet<Digest>, HistoryError> {
        let named = |record: BuildHistoryRecord| {
            let results = record.result.into_iter().flat_map(|result| result.results.into_values());
            results.chain(record.external_error)
        };
        let named = self.ended()?.into_iter().flat_map(named);
        Ok(named.filter_map(|desc| desc.digest.parse().ok()).collect())
    }

    /// Forgets an ended build.
    ///
    /// # Errors
    /// An unwritable database. A build that isn't known is no error: it is gone.
    pub fn delete(&self, key: &str) -> Result<(), HistoryError> {
        let Some(value) = self.0.db.get(TABLE, key.as_bytes()).map_err(|e| storage(&e))? else {
            return Ok(());
        };
        let change = Change::Delete { table: TABLE, key: key.as_bytes().to_vec() };
        self.0.db.write(vec![change]).map_err(|e| storage(&e))?;
        let _ = std::fs::remove_file(self.log_path(key));
        let record = BuildHistoryRecord::decode(value.as_slice()).unwrap_or_default();
        self.tell(BuildHistoryEventType::Deleted, BuildHistoryRecord { r#ref: key.to_string(), ..record });
        Ok(())
    }

    /// Pins an ended build, or unpins it: pinned ones don't expire.
    ///
    /// # Errors
    /// A build that isn't known.
    pub fn pin(&self, key: &str, pinned: bool) -> Result<(), HistoryError> {
        let value = self
            .0
            .db
            .get(TABLE, key.as_bytes())
            .map_err(|e| storage(&e))?
            .ok_or_else(|| HistoryError::NotFound(key.to_string()))?;
        let mut record = BuildHistoryRecord::decode(value.as_slice()).map_err(|e| storage(&e))?;
        record.pinned = pinned;
        record.generation += 1;
        self.put(&record)?;
        self.tell(BuildHistoryEventType::Complete, record);
        Ok(())
    }

    /// Forgets what is too old or too much.
    fn expire(&self, now: SystemTime) -> Result<(), HistoryError> {
        let mut records = self.ended()?;
        records.retain(|r| !r.pinned);
        let oldest = now
            .checked_sub(self.0.limits.max_age)
            .and_then(|t| t.duration_since(SystemTime::UNIX_EPOCH).ok())
            .map_or(0, |d| i64::try_from(d.as_secs()).unwrap_or(i64::MAX));
        let excess = records.len().saturating_sub(self.0.limits.max_entries);
        for (at, record) in records.iter().enumerate() {
            if at < excess || record.completed_at.is_some_and(|t| t.seconds < oldest) {
                self.delete(&record.r#ref)?;
            }
        }
        Ok(())
    }

    /// Refs come from clients, so files are named by digest.
    fn log_path(&self, key: &str) -> PathBuf {
        use sha2::Digest;
        self.0.logs.join(hex::encode(sha2::Sha256::digest(key.as_bytes())))
    }

    fn tell(&self, kind: BuildHistoryEventType, record: BuildHistoryRecord) {
        // Nobody listening is no error.
        let _ = self.0.events.send(event(kind, record));
    }

    fn active(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, BuildHistoryRecord>> {
        self.0.active.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn event(kind: BuildHistoryEventType, record: BuildHistoryRecord) -> BuildHistoryEvent {
    BuildHistoryEvent { r#type: kind.into(), record: Some(record) }
}

fn storage(e: &impl ToString) -> HistoryError {
    HistoryError::Storage(e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn record(key: &str, seconds: i64) -> BuildHistoryRecord {
        let at = Some(prost_types::Timestamp { seconds, nanos: 0 });
        BuildHistoryRecord { r#ref: key.into(), created_at: at, completed_at: at, ..Default::default() }
    }

    fn open(dir: &tempfile::TempDir, max_entries: usize) -> History {
        let db = Database::open(dir.path().join("db")).unwrap();
        let limits = config::History { max_age: Duration::from_secs(3600), max_entries };
        History::open(db, dir.path().join("logs"), limits).unwrap()
    }

    fn refs(events: &[BuildHistoryEvent]) -> Vec<String> {
        events.iter().map(|e| e.record.as_ref().unwrap().r#ref.clone()).collect()
    }

    #[test]
    fn ended_builds_are_listed_oldest_first_and_the_oldest_go() {
        let dir = tempfile::tempdir().unwrap();
        let history = open(&dir, 2);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs().cast_signed();
        for (key, at) in [("a", now - 3), ("b", now - 2), ("c", now - 1)] {
            history.start(record(key, at));
            history.finish(record(key, at), &[StatusResponse::default()]).unwrap();
        }
        let (known, _) = history.listen(&BuildHistoryRequest::default()).unwrap();
        assert_eq!(refs(&known), ["b", "c"]);
        assert_eq!(history.progress("c").unwrap().unwrap().len(), 1);
        assert!(history.progress("a").unwrap().is_none());
    }

    #[test]
    fn pinned_builds_stay_and_deleted_ones_are_announced() {
        let dir = tempfile::tempdir().unwrap();
        let history = open(&dir, 50);
        history.start(record("old", 1));
        // Ended an hour and more ago: it goes at once, unless it is pinned meanwhile.
        history.store(&record("old", 1), &[]).unwrap();
        history.pin("old", true).unwrap();
        history.finish(record("gone", 1), &[]).unwrap();
        let (known, mut follow) =
            history.listen(&BuildHistoryRequest { r#ref: "old".into(), ..Default::default() }).unwrap();
        assert!(refs(&known).contains(&"old".to_string()));
        assert!(history.progress("gone").unwrap().is_none());
        history.delete("old").unwrap();
        assert_eq!(follow.try_recv().unwrap().r#type, BuildHistoryEventType::Deleted as i32);
        assert_eq!(history.pin("old", true).unwrap_err().to_string(), "build old not found");
    }
}
