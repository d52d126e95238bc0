//! Blobs that nobody names any more: manifests and configs of images that were pulled or made,
//! and layers whose snapshots are gone.

use crate::record::{RECORDS, Record};
use crate::{Error, Result, Snapshots};
use crosskit_images::Digest;
use std::collections::HashSet;
use std::ops::ControlFlow;
use std::time::SystemTime;

impl Snapshots {
    /// The blobs that neither a snapshot nor `kept` names, only those made before a moment if one
    /// is given. A build that runs meanwhile may be about to name them.
    pub async fn unnamed_blobs(
        &self,
        kept: HashSet<Digest>,
        before: Option<SystemTime>,
    ) -> Result<HashSet<Digest>> {
        let snapshots = self.clone();
        let task = tokio::task::spawn_blocking(move || snapshots.unnamed_blobs_now(kept, before));
        task.await.unwrap_or(Err(Error::Canceled))
    }

    /// Deletes those of the blobs that no snapshot names, and says how many. Nobody may be pulling
    /// or exporting meanwhile.
    pub async fn delete_unnamed(&self, blobs: HashSet<Digest>) -> Result<usize> {
        let store = self.0.clone();
        let task = tokio::task::spawn_blocking(move || store.delete_blobs(blobs));
        task.await.unwrap_or(Err(Error::Canceled))
    }

    fn unnamed_blobs_now(
        &self,
        mut kept: HashSet<Digest>,
        before: Option<SystemTime>,
    ) -> Result<HashSet<Digest>> {
        let content = self.content();
        let all =
            content.list().map_err(|source| Error::Content { doing: "listing blobs".to_string(), source })?;
        if all.is_empty() {
            return Ok(HashSet::new());
        }
        self.0.db.for_each(RECORDS, b"", |key, value| {
            if let Ok(record) = Record::decode(&String::from_utf8_lossy(key), value) {
                kept.extend(record.all_blobs().map(|blob| blob.desc.digest));
            }
            ControlFlow::Continue(())
        })?;
        let is_old = |digest: &Digest| {
            let made = || std::fs::metadata(content.path(digest)).and_then(|about| about.modified());
            before.is_none_or(|before| made().is_ok_and(|made| made < before))
        };
        let unnamed = all.into_iter().map(|(digest, _)| digest).filter(|digest| !kept.contains(digest));
        Ok(unnamed.filter(is_old).collect())
    }
}
