//! What is given away: keys and the layers behind them, from whatever caches know of them.

use crate::ResultRef;
use crate::config::{CacheConfig, CacheInput, CacheLayer, CacheRecord, CacheResult};
use crosskit_cache::{Alternative, Cache, KeyId};
use crosskit_images::{Digest, gojson};
use crosskit_snapshots::Layer;
use crosskit_solver::VertexProgress;
use std::collections::{HashMap, HashSet};
use std::time::{Duration, SystemTime};

/// A cache to be given away.
pub(crate) struct Collected {
    /// The keys.
    pub config: CacheConfig,
    /// The layers that the document lists, in its order.
    pub layers: Vec<Layer>,
}

impl Collected {
    /// The layers that have to be where the cache goes, each once. None where there are none, which the step says.
    pub(crate) fn to_give(&self, step: &VertexProgress) -> Option<Vec<&Layer>> {
        if self.config.layers.is_empty() {
            tracing::warn!("failed to match any cache with layers");
            drop(step.part("skipping cache export for empty result"));
            return None;
        }
        let unique: HashMap<Digest, &Layer> =
            self.layers.iter().map(|layer| (layer.blob.desc.digest, layer)).collect();
        Some(unique.into_values().collect())
    }
}

/// A result that a key leads to.
#[derive(Clone)]
pub(crate) struct Made {
    /// Bottom first; at least one.
    pub layers: Vec<Layer>,
    /// When it was made, in nanoseconds since 1970.
    pub created_ns: u64,
}

enum State {
    /// Its inputs are being looked at.
    Open,
    /// None for one that can never be met again.
    Known(Option<KeyId>),
}

/// Keys of several caches, brought together: what is the same in two of them is one key.
pub(crate) struct Chains {
    keys: Cache<()>,
    order: Vec<KeyId>,
    seen: HashSet<KeyId>,
    results: HashMap<KeyId, Made>,
    sources: Vec<Cache<ResultRef>>,
    known: HashMap<(usize, KeyId), State>,
}

impl Chains {
    pub fn new() -> Self {
        Chains {
            keys: Cache::in_memory("export"),
            order: Vec::new(),
            seen: HashSet::new(),
            results: HashMap::new(),
            sources: Vec::new(),
            known: HashMap::new(),
        }
    }

    /// Takes a key in, with all that leads to it; none for one that can never be met again.
    pub fn add(&mut self, cache: &Cache<ResultRef>, start: KeyId) -> Option<KeyId> {
        let source = self.source(cache);
        let mut stack = vec![start];
        while let Some(at) = stack.last().copied() {
            match self.known.get(&(source, at)) {
                Some(State::Known(_)) => {
                    stack.pop();
                }
                Some(State::Open) => {
                    stack.pop();
                    let made = self.make(source, at);
                    if made.is_none() && self.waits(source, at) {
                        // It may be one later: what it needs was only being looked at.
                        self.known.remove(&(source, at));
                    } else {
                        self.known.insert((source, at), State::Known(made));
                    }
                }
                None => {
                    self.known.insert((source, at), State::Open);
                    let below = cache.info(at).into_iter().flat_map(|info| info.inputs).flatten();
                    let below = below.map(|(key, _)| key);
                    stack.extend(below.filter(|key| !self.known.contains_key(&(source, *key))));
                }
            }
        }
        match self.known.get(&(source, start)) {
            Some(State::Known(key)) => *key,
            _ => None,
        }
    }

    /// Has a key lead to a result; the newest one counts.
    pub fn lead(&mut self, key: KeyId, made: &Made) {
        let newer = self.results.get(&key).is_none_or(|known| known.created_ns < made.created_ns);
        if newer {
            self.results.insert(key, made.clone());
        }
    }

    fn source(&mut self, cache: &Cache<ResultRef>) -> usize {
        if let Some(known) = self.sources.iter().position(|known| known.is(cache)) {
            return known;
        }
        self.sources.push(cache.clone());
        self.sources.len() - 1
    }

    /// Whether a key has an input that is being looked at: keys may lead in a circle.
    fn waits(&self, source: usize, at: KeyId) -> bool {
        let inputs = self.sources[source].info(at).into_iter().flat_map(|info| info.inputs).flatten();
        { inputs }.any(|(key, _)| key != at && matches!(self.known.get(&(source, key)), Some(State::Open)))
    }

    fn make(&mut self, source: usize, at: KeyId) -> Option<KeyId> {
        let info = self.sources[source].info(at)?;
        if info.name.is_random() {
            return None;
        }
        let key = if info.inputs.is_empty() {
            self.keys.ensure_root(info.name)
        } else {
            let mut inputs: Vec<Vec<Alternative>> = Vec::with_capacity(info.inputs.len());
            for input in &info.inputs {
                let known = input.iter().filter_map(|(key, selector)| {
                    match self.known.get(&(source, *key)) {
                        Some(State::Known(Some(key))) => Some((*key, *selector)),
                        // An input that needs its own output, or that can never be met again.
                        _ => None,
                    }
                });
                let known: Vec<_> = known.collect();
                if known.is_empty() {
                    return None;
                }
                inputs.push(known);
            }
            self.keys.ensure(&inputs, info.name)
        };
        if self.seen.insert(key) {
            self.order.push(key);
        }
        Some(key)
    }

    /// The keys as records, inputs before what is made of them. `result` writes into a record what
    /// its key leads to.
    pub fn records(&self, mut result: impl FnMut(&Made, &mut CacheRecord)) -> Vec<CacheRecord> {
        let mut records = Vec::with_capacity(self.order.len());
        // Two keys that were brought together may lead to each other: such links are left out.
        let mut places: HashMap<KeyId, Option<usize>> = HashMap::with_capacity(self.order.len());
        let mut open: HashSet<KeyId> = HashSet::new();
        for start in &self.order {
            let mut stack = vec![*start];
            while let Some(at) = stack.last().copied() {
                if places.contains_key(&at) {
                    stack.pop();
                    continue;
                }
                let Some(info) = self.keys.info(at) else {
                    places.insert(at, None);
                    continue;
                };
                if open.insert(at) {
                    let below = info.inputs.iter().flatten().map(|(key, _)| *key);
                    stack.extend(below.filter(|key| !places.contains_key(key) && !open.contains(key)));
                    continue;
                }
                stack.pop();
                let link = |(key, selector): &Alternative| {
                    let link = places.get(key).copied().flatten()? as i64;
                    Some(CacheInput { selector: selector.map(|s| s.to_string()).unwrap_or_default(), link })
                };
                let inputs: Vec<Vec<CacheInput>> =
                    info.inputs.iter().map(|input| input.iter().filter_map(link).collect()).collect();
                if inputs.iter().any(Vec::is_empty) {
                    places.insert(at, None);
                    continue;
                }
                let mut record =
                    CacheRecord { digest: info.name.to_string(), inputs, ..CacheRecord::default() };
                if let Some(made) = self.results.get(&at) {
                    result(made, &mut record);
                }
                places.insert(at, Some(records.len()));
                records.push(record);
            }
        }
        records
    }

    /// All of it, to be given away.
    pub fn collected(&self) -> Collected {
        let mut layers: Vec<CacheLayer> = Vec::new();
        let mut chains: HashMap<(i64, String), i64> = HashMap::new();
        let mut blobs: HashMap<String, Layer> = HashMap::new();
        let records = self.records(|made, record| {
            let mut at = -1;
            for layer in &made.layers {
                let blob = layer.blob.desc.digest.to_string();
                at = *chains.entry((at, blob.clone())).or_insert_with(|| {
                    layers.push(CacheLayer { blob: blob.clone(), parent: at, annotations: None });
                    layers.len() as i64 - 1
                });
                blobs.entry(blob).or_insert_with(|| layer.clone());
            }
            record.results.push(CacheResult { layer: at, created: time(made.created_ns) });
        });
        let mut config = CacheConfig { layers, records };
        config.sort();
        let layers = config.layers.iter().filter_map(|layer| blobs.get(&layer.blob).cloned());
        Collected { layers: layers.collect(), config }
    }
}

/// RFC 3339, in UTC.
pub(crate) fn time(nanoseconds: u64) -> String {
    gojson::time(SystemTime::UNIX_EPOCH + Duration::from_nanos(nanoseconds))
}
