//! What an earlier process left behind.

use crate::record::{RECORDS, Record};
use crate::store::{Inner, Snapshots};
use crate::{Error, Result, ids};
use std::ops::ControlFlow;
use std::sync::{Arc, Weak};

/// Removes folders without a record, and records whose files are gone, on a thread of its own.
/// A start does not wait for it: neither is ever served.
pub(crate) fn collect_in_background(snapshots: &Snapshots) -> Result<()> {
    let store = Arc::downgrade(&snapshots.0);
    let run = move || {
        if let Err(why) = collect(&store) {
            tracing::warn!(%why, "leftovers of an earlier run could not all be removed; the next start tries again");
        }
    };
    std::thread::Builder::new()
        .name("orphans".into())
        .spawn(run)
        .map(drop)
        .map_err(|e| Error::file("starting the thread that collects", snapshots.0.dir(), e))
}

fn collect(store: &Weak<Inner>) -> Result<()> {
    let Some(held) = store.upgrade() else { return Ok(()) };
    let trash = held.trash().to_path_buf();
    for entry in list(&trash)? {
        held.remover.remove(trash.join(entry));
    }
    let folders = list(held.dir())?;
    let mut records = Vec::new();
    held.db.for_each(RECORDS, b"", |key, _| {
        records.push(String::from_utf8_lossy(key).into_owned());
        ControlFlow::Continue(())
    })?;
    drop(held);
    // Held only for a moment each, so that closing does not wait.
    for name in folders {
        let Some(store) = store.upgrade() else { return Ok(()) };
        if !store.has_record(&name)? && !store.lock().is_making(&name) && !store.has_record(&name)? {
            tracing::debug!(name, "removing a snapshot that was never finished");
            store.discard_folder(&name);
        }
    }
    for id in records {
        let Some(store) = store.upgrade() else { return Ok(()) };
        store.forget_if_broken(&id)?;
    }
    Ok(())
}

fn list(dir: &std::path::Path) -> Result<Vec<String>> {
    let failed = |e| Error::file("listing", dir, e);
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        names.push(entry.map_err(failed)?.file_name().to_string_lossy().into_owned());
    }
    Ok(names)
}

impl Inner {
    fn has_record(&self, id: &str) -> Result<bool> {
        Ok(ids::is_id(id) && self.db.get(RECORDS, id.as_bytes())?.is_some())
    }

    fn forget_if_broken(&self, id: &str) -> Result<()> {
        let state = self.lock();
        if state.is_live(id) {
            return Ok(());
        }
        let Some(bytes) = self.db.get(RECORDS, id.as_bytes())? else { return Ok(()) };
        let record = Record::decode(id, &bytes)?;
        if !self.is_whole(id, &record) {
            tracing::debug!(id, "forgetting a snapshot whose files are gone");
            self.forget(id, &record)?;
        }
        drop(state);
        Ok(())
    }
}
