//! Giving room back: `prune` and the daemon's own collection.

use crate::filters::Filters;
use crate::record::{RECORDS, Record, RecordType, now};
use crate::store::Inner;
use crate::usage::Usage;
use crate::{Error, Result, Snapshots, kept};
use crosskit_images::Digest;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

/// What to prune (BuildKit api/services/control, PruneRequest). Sizes are bytes; 0 means no limit.
#[derive(Debug, Clone, Default)]
pub struct PruneOptions {
    /// Only what passes these.
    pub filters: Filters,
    /// Also what is internal or a frontend's.
    pub all: bool,
    /// Nothing that was used within this time.
    pub keep_duration: Duration,
    /// This much always stays.
    pub reserved_space: u64,
    /// Down to this much, the least useful first.
    pub max_used_space: u64,
    /// Until this much of the disk is free.
    pub min_free_space: u64,
}

impl Snapshots {
    /// Prunes what nobody uses and nothing that stays builds on, and reports each snapshot to
    /// `pruned`; a receiver that is gone ends it.
    pub async fn prune(&self, options: PruneOptions, pruned: tokio::sync::mpsc::Sender<Usage>) -> Result<()> {
        let store = self.0.clone();
        let task = tokio::task::spawn_blocking(move || Pruning::new(&store, options)?.run(&pruned));
        task.await.unwrap_or(Err(Error::Canceled))
    }
}

impl Snapshots {
    /// Removes snapshots that nobody will ask for again, each as soon as nobody holds it. One
    /// that something which stays builds on stays as well.
    pub async fn discard(&self, ids: &[String]) -> Result<()> {
        let named: Vec<String> = ids.iter().map(|id| format!("id=={id}")).collect();
        loop {
            for id in ids {
                while let Some(mut end) = self.end_of(id) {
                    while end.changed().await.is_ok() {}
                }
            }
            let filters = Filters::parse(&named)?;
            let options = PruneOptions { filters, all: true, ..PruneOptions::default() };
            let (pruned, mut told) = tokio::sync::mpsc::channel(ids.len().max(1));
            self.prune(options, pruned).await?;
            while told.try_recv().is_ok() {}
            // Somebody may have taken one up at that moment.
            if ids.iter().all(|id| self.end_of(id).is_none()) {
                return Ok(());
            }
        }
    }

    fn end_of(&self, id: &str) -> Option<tokio::sync::watch::Receiver<()>> {
        let held = self.0.lock().held(id)?;
        Some(held.end())
    }
}

struct Candidate {
    record: Record,
    in_use: bool,
    /// How many other records build on it.
    children: usize,
    /// How old and how little used: more means sooner.
    rank: u64,
}

struct Pruning<'a> {
    store: &'a Arc<Inner>,
    options: PruneOptions,
    all: HashMap<String, Candidate>,
    /// Bytes that all snapshots take.
    total: u64,
    /// Down to how many bytes; none to take all that can go.
    keep: Option<u64>,
}

impl<'a> Pruning<'a> {
    fn new(store: &'a Arc<Inner>, options: PruneOptions) -> Result<Pruning<'a>> {
        let mut all = HashMap::new();
        let mut children: HashMap<String, usize> = HashMap::new();
        for (id, record, in_use) in store.all_records()? {
            for parent in record.origin.parents() {
                *children.entry(parent.clone()).or_default() += 1;
            }
            all.insert(id, Candidate { record, in_use, children: 0, rank: 0 });
        }
        for (id, count) in children {
            if let Some(candidate) = all.get_mut(&id) {
                candidate.children = count;
            }
        }
        let mut pruning = Pruning { store, options, all, total: 0, keep: None };
        let limits = &pruning.options;
        if limits.max_used_space != 0 || limits.reserved_space != 0 || limits.min_free_space != 0 {
            let mut stretch = store.courtesy.stretch();
            for (id, candidate) in &mut pruning.all {
                stretch.may_rest();
                let size = store.known_size(id, &candidate.record, candidate.in_use)?;
                candidate.record.size = Some(size);
                pruning.total += size;
            }
            pruning.keep =
                Some(keep_bytes(&pruning.options, pruning.total, free_space(store)?)).filter(|k| *k != 0);
            pruning.rank();
        }
        Ok(pruning)
    }

    /// Orders by when and how often snapshots were used: by the sum of both places.
    fn rank(&mut self) {
        let mut by_time: Vec<(i64, u32, &String)> = Vec::new();
        for (id, candidate) in &self.all {
            by_time.push((candidate.record.last_used.unwrap_or(0), candidate.record.used, id));
        }
        by_time.sort();
        let mut counts: Vec<u32> = by_time.iter().map(|(_, used, _)| *used).collect();
        counts.sort_unstable();
        counts.dedup();
        let times = by_time.len().max(1) as u64;
        let place = |at: u64, of: u64| at * 1_000_000 / of.max(1);
        let ranks: Vec<(String, u64)> = by_time
            .iter()
            .enumerate()
            .map(|(at, (_, used, id))| {
                let count = counts.partition_point(|c| c < used) as u64;
                (id.to_string(), place(at as u64, times) + place(count, counts.len() as u64))
            })
            .collect();
        for (id, rank) in ranks {
            if let Some(candidate) = self.all.get_mut(&id) {
                candidate.rank = rank;
            }
        }
    }

    fn may_go(&self, id: &str) -> bool {
        let Some(candidate) = self.all.get(id) else { return false };
        let record = &candidate.record;
        if candidate.in_use || candidate.children > 0 {
            return false;
        }
        if !self.options.all
            && matches!(record.about.record_type, RecordType::Internal | RecordType::Frontend)
        {
            return false;
        }
        let cut = now().saturating_sub(self.options.keep_duration.as_nanos().min(i64::MAX as u128) as i64);
        if !self.options.keep_duration.is_zero() && record.last_used.is_some_and(|used| used > cut) {
            return false;
        }
        self.options.filters.matches(&Usage::of(id, record, false))
    }

    fn run(mut self, pruned: &tokio::sync::mpsc::Sender<Usage>) -> Result<()> {
        let mut queue: BinaryHeap<Reverse<(u64, String)>> = BinaryHeap::new();
        let leaves: Vec<&String> = self.all.keys().filter(|id| self.may_go(id)).collect();
        queue.extend(leaves.into_iter().map(|id| Reverse((self.all[id].rank, id.clone()))));
        let mut blobs = HashSet::new();
        let mut stretch = self.store.courtesy.stretch();
        while let Some(Reverse((_, id))) = queue.pop() {
            if self.keep.is_some_and(|keep| self.total < keep) {
                break;
            }
            let Some(mut candidate) = self.all.remove(&id) else { continue };
            let size = match candidate.record.size {
                Some(size) => size,
                None => self.store.known_size(&id, &candidate.record, false)?,
            };
            let forgotten = self.store.forget_unused(&id)?;
            stretch.may_rest();
            if !forgotten {
                continue;
            }
            self.total = self.total.saturating_sub(size);
            blobs.extend(candidate.record.all_blobs().map(|b| b.desc.digest));
            candidate.record.size = Some(size);
            for parent in candidate.record.origin.parents() {
                if let Some(above) = self.all.get_mut(parent) {
                    above.children -= 1;
                    if self.may_go(parent) {
                        queue.push(Reverse((self.all[parent].rank, parent.clone())));
                    }
                }
            }
            if pruned.blocking_send(Usage::of(&id, &candidate.record, false)).is_err() {
                break;
            }
        }
        self.store.delete_blobs(blobs)?;
        Ok(())
    }
}

/// How many bytes may stay: at most what is allowed, less what the disk lacks, and never less
/// than what is reserved. 0 if there is no limit.
fn keep_bytes(options: &PruneOptions, total: u64, free: u64) -> u64 {
    let lacking = options.min_free_space.saturating_sub(free);
    let mut keep = options.max_used_space;
    if lacking > 0 {
        let left = total.saturating_sub(lacking);
        keep = if keep == 0 { left } else { keep.min(left) };
        // 0 would mean no limit; with 1 everything goes.
        keep = keep.max(1);
    } else if options.min_free_space != 0 && keep == 0 {
        keep = total + 1;
    }
    keep.max(options.reserved_space)
}

fn free_space(store: &Inner) -> Result<u64> {
    let stat = rustix::fs::statvfs(store.dir())
        .map_err(|e| Error::file("asking for free space at", store.dir(), e))?;
    Ok(stat.f_bavail * stat.f_frsize)
}

impl Inner {
    /// Removes a snapshot unless somebody took it up meanwhile.
    fn forget_unused(&self, id: &str) -> Result<bool> {
        let state = self.lock();
        if state.is_live(id) {
            return Ok(false);
        }
        let Some(bytes) = self.db.get(RECORDS, id.as_bytes())? else { return Ok(false) };
        let record = Record::decode(id, &bytes)?;
        if record.is_mutable() {
            kept::end_view(self, id)?;
        }
        self.forget_record(id, &record)?;
        drop(state);
        self.discard_folder(id);
        Ok(true)
    }

    /// Deletes blobs that no snapshot has any longer, and says how many.
    pub(crate) fn delete_blobs(&self, mut blobs: HashSet<Digest>) -> Result<usize> {
        if blobs.is_empty() {
            return Ok(0);
        }
        self.db.for_each(RECORDS, b"", |key, value| {
            if let Ok(record) = Record::decode(&String::from_utf8_lossy(key), value) {
                for blob in record.all_blobs() {
                    blobs.remove(&blob.desc.digest);
                }
            }
            if blobs.is_empty() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        let mut stretch = self.courtesy.stretch();
        for digest in &blobs {
            stretch.may_rest();
            self.content
                .delete(digest)
                .map_err(|source| Error::Content { doing: format!("deleting layer {digest}"), source })?;
        }
        Ok(blobs.len())
    }
}

#[cfg(test)]
#[path = "prune_tests.rs"]
mod prune_tests;
