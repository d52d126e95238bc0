//! What takes how much room: `du`.

use crate::filters::{Fields, Filters};
use crate::record::{Origin, RECORDS, Record, RecordType, time};
use crate::store::Inner;
use crate::{Error, Result, Snapshots, sizes};
use std::ops::ControlFlow;
use std::time::SystemTime;

/// One snapshot as `du` shows it (BuildKit api/services/control, UsageRecord).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    /// Its id.
    pub id: String,
    /// Whether it can be written to.
    pub mutable: bool,
    /// Whether somebody uses it, or one that builds on it.
    pub in_use: bool,
    /// Bytes it takes; 0 while it is being written to.
    pub size: u64,
    /// What it was made from.
    pub parents: Vec<String>,
    /// When it was made.
    pub created: SystemTime,
    /// When its last use ended.
    pub last_used: Option<SystemTime>,
    /// How many uses ended.
    pub usage_count: u32,
    /// The step that made it.
    pub description: String,
    /// What it is kept for.
    pub record_type: RecordType,
    /// Whether others than the builder use it; they never do here.
    pub shared: bool,
}

impl Fields for Usage {
    fn field(&self, path: &[String]) -> Option<String> {
        let text = |text: &str| (!text.is_empty()).then(|| text.to_string());
        let flag = |set: bool| set.then(String::new);
        match path.first()?.as_str() {
            "id" => text(&self.id),
            "parents" => text(&self.parents.join(";")),
            "description" => text(&self.description),
            "inuse" => flag(self.in_use),
            "mutable" => flag(self.mutable),
            "immutable" => flag(!self.mutable),
            "type" => text(self.record_type.name()),
            "shared" => flag(self.shared),
            "private" => flag(!self.shared),
            _ => None,
        }
    }
}

impl Usage {
    pub(crate) fn of(id: &str, record: &Record, in_use: bool) -> Usage {
        Usage {
            id: id.to_string(),
            mutable: record.is_mutable(),
            in_use,
            size: record.size.unwrap_or(0),
            parents: record.origin.parents().into_iter().cloned().collect(),
            created: time(record.created),
            last_used: record.last_used.map(time),
            usage_count: record.used,
            description: record.about.description.clone(),
            record_type: record.about.record_type,
            shared: false,
        }
    }
}

impl Snapshots {
    /// All snapshots that pass the filters, in no order. With an age, only those that were not
    /// used for so long.
    pub async fn disk_usage(&self, filters: Filters, age: Option<std::time::Duration>) -> Result<Vec<Usage>> {
        let store = self.0.clone();
        let task = tokio::task::spawn_blocking(move || {
            let unused_since = age.and_then(|age| SystemTime::now().checked_sub(age));
            let mut found = Vec::new();
            for (id, record, in_use) in store.all_records()? {
                let mut usage = Usage::of(&id, &record, in_use);
                let recent = unused_since.is_some_and(|cut| usage.last_used.is_some_and(|used| used > cut));
                if recent || !filters.matches(&usage) {
                    continue;
                }
                usage.size = store.known_size(&id, &record, in_use)?;
                found.push(usage);
            }
            Ok(found)
        });
        task.await.unwrap_or(Err(Error::Canceled))
    }
}

impl Inner {
    /// Every snapshot and whether it is in use. Views are left out: they share what they look at.
    pub(crate) fn all_records(&self) -> Result<Vec<(String, Record, bool)>> {
        let mut all = Vec::new();
        self.db.for_each(RECORDS, b"", |key, value| {
            let id = String::from_utf8_lossy(key).into_owned();
            match Record::decode(&id, value) {
                Ok(record) if !matches!(record.origin, Origin::View { .. }) => all.push((id, record, false)),
                Ok(_) => {}
                Err(why) => tracing::warn!(%why, "left out"),
            }
            ControlFlow::Continue(())
        })?;
        let state = self.lock();
        for (id, _, in_use) in &mut all {
            *in_use = state.is_live(id);
        }
        Ok(all)
    }

    /// A snapshot's size, counted and noted if it was not yet.
    pub(crate) fn known_size(
        self: &std::sync::Arc<Self>,
        id: &str,
        record: &Record,
        in_use: bool,
    ) -> Result<u64> {
        match record.size {
            _ if record.is_mutable() && in_use => Ok(0),
            Some(size) => Ok(size),
            None if in_use => match self.node(id)? {
                Some(node) => sizes::count(&node),
                None => Ok(0),
            },
            None => {
                let size = sizes::of_record(self, id, record)?;
                let state = self.lock();
                // Only while nobody uses it can the record here be the newest.
                if !state.is_live(id) && self.db.get(RECORDS, id.as_bytes())?.is_some() {
                    self.put(id, Record { size: Some(size), ..record.clone() }.encode())?;
                }
                drop(state);
                Ok(size)
            }
        }
    }
}
