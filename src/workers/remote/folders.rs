//! Folders of clients that a step only looks into: sent file by file, so that of a folder which
//! the worker has seen before only what has changed travels.

use super::{Counters, RemoteError};
use crate::ops::snapshot_error;
use crosskit_api::pb;
use crosskit_session::LocalDirs;
use crosskit_snapshots::checksum::{ContentQuery, content_digest};
use crosskit_snapshots::{Mounted, Ref};
use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

/// A folder as a source of a worker.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Folder {
    /// Stays the same from build to build: the worker keeps the folder under it.
    key: String,
    /// What is in it, so that equal folders are equal sources and others are not.
    content: String,
}

impl Folder {
    /// The source. No session is named: whoever has the same folder may be asked for it.
    pub(super) fn source(&self) -> pb::SourceOp {
        let attrs = [("local.sharedkeyhint", &self.key), ("local.unique", &self.content)];
        pb::SourceOp {
            identifier: format!("local://{}", name(&self.key)),
            attrs: attrs.into_iter().map(|(key, value)| (key.to_string(), value.clone())).collect(),
        }
    }
}

fn name(key: &str) -> String {
    format!("folder-{key}")
}

/// The folders that a session lends.
pub(super) struct Folders {
    /// What the session serves.
    pub(super) dirs: LocalDirs,
    lent: Mutex<HashMap<String, (Ref, Mounted)>>,
}

impl Folders {
    /// None yet.
    pub(super) fn new(counters: Arc<Counters>) -> Self {
        let mut dirs = LocalDirs::default();
        dirs.on_progress(Arc::new(move |_, bytes, done| {
            if done {
                counters.sent.fetch_add(bytes, Ordering::Relaxed);
            }
        }));
        Folders { dirs, lent: Mutex::default() }
    }

    /// Lends the files of an input as the folder `key`, as long as the session lasts. None if it
    /// lends another one by that key.
    pub(super) async fn lend(&self, key: &str, input: &Ref) -> Result<Option<Folder>, RemoteError> {
        let own = |error| RemoteError::Step(snapshot_error(error));
        let digest = content_digest(Some(input), "/", &ContentQuery::default()).await.map_err(own)?;
        let mounted = input.mount_readonly().await.map_err(own)?;
        let mut lent = self.lent.lock().unwrap_or_else(PoisonError::into_inner);
        let (known, mounted) = lent.entry(key.to_string()).or_insert_with(|| (input.clone(), mounted));
        if known != input {
            return Ok(None);
        }
        // Owners are what the client's transfer made of them.
        self.dirs.clone().add_mapped(name(key), mounted.path(), None);
        Ok(Some(Folder { key: key.to_string(), content: digest.to_string() }))
    }
}
