//! Blobs that nobody names any more: manifests and configs of images that were pulled or made,
//! and layers whose snapshots are gone.

use crate::record::{RECORDS, Record};
use crate::{Error, Result, Snapshots};
use crosskit_images::Digest;
use std::collections::HashSet;
use std::ops::ControlFlow;
use std::time::SystemTime;

impl Snapshots {
    /// Deletes blobs that neither a snapshot nor `kept` names, those made before a moment only if
    /// one is given. Nobody may be pulling or exporting meanwhile.
    pub async fn collect_blobs(&self, kept: HashSet<Digest>, before: Option<SystemTime>) -> Result<usize> {
        let snapshots = self.clone();
        let task = tokio::task::spawn_blocking(move || snapshots.collect_blobs_now(kept, before));
        task.await.unwrap_or(Err(Error::Canceled))
    }

    fn collect_blobs_now(&self, mut kept: HashSet<Digest>, before: Option<SystemTime>) -> Result<usize> {
        let content = self.content();
        let failed = |doing: &str| {
            let doing = doing.to_string();
            move |source| Error::Content { doing, source }
        };
        let all = content.list().map_err(failed("listing blobs"))?;
        if all.is_empty() {
            return Ok(0);
        }
        self.0.db.for_each(RECORDS, b"", |key, value| {
            if let Ok(record) = Record::decode(&String::from_utf8_lossy(key), value) {
                kept.extend(record.all_blobs().map(|blob| blob.desc.digest));
            }
            ControlFlow::Continue(())
        })?;
        let mut deleted = 0;
        for (digest, _) in all {
            let young = before.is_some_and(|before| {
                let made = std::fs::metadata(content.path(&digest)).and_then(|m| m.modified());
                made.is_ok_and(|made| made >= before)
            });
            if !young && !kept.contains(&digest) {
                content.delete(&digest).map_err(failed("deleting a blob"))?;
                deleted += 1;
            }
        }
        Ok(deleted)
    }
}
