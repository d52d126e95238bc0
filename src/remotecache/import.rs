//! From a cache elsewhere to one that a build looks into.

use crate::backends::{self, Way};
use crate::config::{CacheConfig, CacheRecord, place};
use crate::error::{RemoteCacheError, Result};
use crate::layers::{Available, RemoteLayers};
use crate::{CacheOptions, RemoteCaches, ResultRef};
use crosskit_cache::{Alternative, Cache, KeyDigest, KeyId, MemoryStore, Record};
use crosskit_snapshots::Snapshots;
use crosskit_solver::JobContext;
use std::collections::HashMap;
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
            // Large caches take a while.
            let made = tokio::task::spawn_blocking(move || assemble(&name, found, snapshots)).await;
            made.unwrap_or_else(|_| Err(RemoteCacheError::Invalid("its keys could not be read".to_string())))
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
        Keys::new(&cache, &config).add_all(results)?;
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

#[derive(Clone, Copy)]
enum State {
    Unknown,
    /// Its inputs are being looked at.
    Open,
    /// None for one that can never be met again.
    Known(Option<KeyId>),
}

/// The records of a document as keys.
struct Keys<'a> {
    cache: &'a Cache<ResultRef>,
    config: &'a CacheConfig,
    states: Vec<State>,
}

impl<'a> Keys<'a> {
    fn new(cache: &'a Cache<ResultRef>, config: &'a CacheConfig) -> Self {
        Keys { cache, config, states: vec![State::Unknown; config.records.len()] }
    }

    fn add_all(mut self, results: Vec<Vec<Record>>) -> Result<()> {
        for (at, results) in results.into_iter().enumerate() {
            if let Some(key) = self.key(at)? {
                results.into_iter().for_each(|record| self.cache.add_record(key, record));
            }
        }
        Ok(())
    }

    /// The key of a record, after those of its inputs.
    fn key(&mut self, start: usize) -> Result<Option<KeyId>> {
        let mut stack = vec![start];
        while let Some(at) = stack.last().copied() {
            match self.states[at] {
                State::Known(_) => {
                    stack.pop();
                }
                State::Unknown => {
                    self.states[at] = State::Open;
                    let below = self.below(at)?;
                    stack.extend(below);
                }
                State::Open => {
                    stack.pop();
                    self.states[at] = State::Known(self.make(at)?);
                }
            }
        }
        match self.states[start] {
            State::Known(key) => Ok(key),
            _ => Ok(None),
        }
    }

    /// The records that a record's inputs are, as far as they were not looked at.
    fn below(&self, at: usize) -> Result<Vec<usize>> {
        let mut below = Vec::new();
        for input in &self.config.records[at].inputs {
            if input.is_empty() {
                return invalid(format!("invalid empty input for record {at}"));
            }
            for known in input {
                let Some(link) = place(known.link, self.states.len()) else {
                    return invalid(format!("invalid record ID: {}", known.link));
                };
                match self.states[link] {
                    State::Known(_) => {}
                    State::Open => return invalid("invalid looping record".to_string()),
                    State::Unknown => below.push(link),
                }
            }
        }
        Ok(below)
    }

    fn make(&self, at: usize) -> Result<Option<KeyId>> {
        let record = &self.config.records[at];
        let name = digest(&record.digest, at)?;
        if name.is_random() {
            return Ok(None);
        }
        if record.inputs.is_empty() {
            return Ok(Some(self.cache.ensure_root(name)));
        }
        let mut inputs: Vec<Vec<Alternative>> = Vec::with_capacity(record.inputs.len());
        for input in &record.inputs {
            let mut known = Vec::with_capacity(input.len());
            for alternative in input {
                let link = place(alternative.link, self.states.len());
                let Some(State::Known(Some(key))) = link.map(|link| self.states[link]) else { continue };
                let selector = match alternative.selector.as_str() {
                    "" => None,
                    text => Some(digest(text, at)?),
                };
                known.push((key, selector));
            }
            if known.is_empty() {
                return Ok(None);
            }
            inputs.push(known);
        }
        Ok(Some(self.cache.ensure(&inputs, name)))
    }
}

fn digest(text: &str, record: usize) -> Result<KeyDigest> {
    match text.parse() {
        Ok(digest) => Ok(digest),
        Err(why) => invalid(format!("record {record}: {why}")),
    }
}
