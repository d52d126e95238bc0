//! From a cache elsewhere to one that a build looks into.

use crate::backends::{self, Way};
use crate::error::{RemoteCacheError, Result};
use crate::layers::{Available, RemoteLayers};
use crate::{CacheOptions, RemoteCaches, ResultRef};
use crosskit_cache::{Cache, MemoryStore, Record};
use crosskit_cacheconfig::{CacheConfig, CacheRecord, place, read_keys};
use crosskit_snapshots::Snapshots;
use crosskit_solver::JobContext;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// What was found of a cache: its keys, and the layers that are there.
pub(crate) struct Found {
    pub config: CacheConfig,
    /// By the digest of the blob.
    pub layers: HashMap<String, Available>,
}

impl RemoteCaches {
    /// Reads a cache. One that cannot be read is told about in a step of its own, and the build
    /// goes on without it.
    pub async fn import(&self, job: &JobContext, options: &CacheOptions) -> Option<Cache<ResultRef>> {
        let name = options.name();
        let step = job.step(format!("importing cache manifest from {name}"), None);
        let running = step.begin(false);
        let read = async {
            let backend = backends::resolve(self, Way::Import, options, job.sessions())?;
            let found = backend.find(&step).await?;
            let (name, snapshots) = (name.clone(), self.snapshots.clone());
            let records = found.iter().flat_map(|found| &found.config.records);
            let mounts: BTreeSet<String> = records.filter_map(|record| record.mount.clone()).collect();
            // Large caches take a while.
            let made = tokio::task::spawn_blocking(move || assemble(&name, found, snapshots)).await;
            let cache = made.unwrap_or_else(|_| {
                Err(RemoteCacheError::Invalid("its keys could not be read".to_string()))
            })?;
            if let Some(wanted) = options.mounts() {
                self.fill_mounts(&mounts, &wanted, &cache, job.sessions(), &step).await;
            }
            Ok::<_, RemoteCacheError>(cache)
        };
        let read = read.await;
        let failed = read.as_ref().err().map(ToString::to_string);
        if let Some(why) = &failed {
            tracing::debug!("importing cache manifest from {name}: {why}");
        }
        running.end(failed.as_deref());
        read.ok()
    }
}

/// Makes a cache of what was found.
pub(crate) fn assemble(name: &str, found: Vec<Found>, snapshots: Snapshots) -> Result<Cache<ResultRef>> {
    let mut layers = RemoteLayers::new(snapshots);
    let mut all = Vec::with_capacity(found.len());
    for Found { config, layers: available } in found {
        let results = results(&config, &available, &mut layers)?;
        all.push((config, results));
    }
    let cache = Cache::new(name, Arc::<MemoryStore>::default(), Arc::new(layers));
    for (config, results) in all {
        let keys = read_keys(&cache, &config)?;
        for (key, results) in keys.into_iter().zip(results) {
            let Some(key) = key else { continue };
            results.into_iter().for_each(|record| cache.add_record(key, record));
        }
    }
    Ok(cache)
}

fn invalid<T>(text: String) -> Result<T> {
    Err(RemoteCacheError::Invalid(text))
}

/// For each record the results that it leads to, as far as their layers are there.
fn results(
    config: &CacheConfig,
    available: &HashMap<String, Available>,
    layers: &mut RemoteLayers,
) -> Result<Vec<Vec<Record>>> {
    let mut chains = Chains { config, available, layers, known: vec![Chain::Unknown; config.layers.len()] };
    let record = |record: &CacheRecord| {
        let mut found = Vec::new();
        for result in &record.results {
            let id = chains.ending_in(result.layer)?;
            found.extend(id.map(|id| Record { id, created_ns: nanoseconds(&result.created) }));
        }
        for chain in &record.chains {
            let id = chains.of(&chain.layers)?;
            found.extend(id.map(|id| Record { id, created_ns: nanoseconds(&chain.created) }));
        }
        Ok(found)
    };
    config.records.iter().map(record).collect()
}

/// A time, in nanoseconds since 1970; 0 for one that is none, or before that.
fn nanoseconds(text: &str) -> u64 {
    let time = text.parse::<jiff::Timestamp>().unwrap_or_default();
    u64::try_from(time.as_nanosecond()).unwrap_or(0)
}

#[derive(Clone)]
enum Chain {
    Unknown,
    /// Being looked at.
    Open,
    Known(Option<Arc<str>>),
}

struct Chains<'a> {
    config: &'a CacheConfig,
    available: &'a HashMap<String, Available>,
    layers: &'a mut RemoteLayers,
    known: Vec<Chain>,
}

impl Chains<'_> {
    fn place(&self, index: i64) -> Result<usize> {
        match place(index, self.known.len()) {
            Some(at) => Ok(at),
            None => invalid(format!("invalid layer index {index}")),
        }
    }

    /// A layer with all that lie below it; none if one of them is not there.
    fn ending_in(&mut self, index: i64) -> Result<Option<Arc<str>>> {
        let mut open = Vec::new();
        let mut at = self.place(index)?;
        let mut below = loop {
            match &self.known[at] {
                Chain::Known(known) => break known.clone(),
                Chain::Open => return invalid("invalid looping layer".to_string()),
                Chain::Unknown => {}
            }
            self.known[at] = Chain::Open;
            open.push(at);
            match self.config.layers[at].parent {
                -1 => break None,
                parent => at = self.place(parent)?,
            }
        };
        let grounded = open.last().is_some_and(|lowest| self.config.layers[*lowest].parent == -1);
        let mut there = grounded || open.is_empty() || below.is_some();
        for at in open.into_iter().rev() {
            let layer = self.available.get(&self.config.layers[at].blob).filter(|_| there);
            below = match layer {
                Some(layer) => Some(self.layers.stack(below, layer.clone())?),
                None => None,
            };
            there = below.is_some();
            self.known[at] = Chain::Known(below.clone());
        }
        Ok(below)
    }

    /// Just these layers.
    fn of(&mut self, indexes: &[i64]) -> Result<Option<Arc<str>>> {
        let mut chain = None;
        for index in indexes {
            let at = self.place(*index)?;
            let Some(layer) = self.available.get(&self.config.layers[at].blob) else { return Ok(None) };
            chain = Some(self.layers.stack(chain, layer.clone())?);
        }
        Ok(chain)
    }
}
