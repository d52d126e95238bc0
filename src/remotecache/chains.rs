//! What is given away: keys and the layers behind them, from whatever caches know of them.

use crate::{ResultRef, mounts};
use crosskit_cache::{Alternative, Cache, KeyId};
use crosskit_cacheconfig::{CacheConfig, CacheRecord, CacheResult, Keyring, LayerList};
use crosskit_images::{Digest, gojson};
use crosskit_snapshots::Layer;
use crosskit_solver::VertexProgress;
use std::collections::HashMap;
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
    /// The cache mount whose files it is.
    pub mount: Option<String>,
}

enum State {
    /// Its inputs are being looked at.
    Open,
    /// None for one that can never be met again.
    Known(Option<KeyId>),
}

/// Keys of several caches, brought together: what is the same in two of them is one key.
#[derive(Default)]
pub(crate) struct Chains {
    ring: Keyring<Made>,
    sources: Vec<Cache<ResultRef>>,
    known: HashMap<(usize, KeyId), State>,
}

impl Chains {
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
        let newer = self.ring.result(key).is_none_or(|known| known.created_ns < made.created_ns);
        if newer {
            self.ring.lead(key, made.clone());
        }
    }

    /// Takes in what a cache mount holds.
    pub fn add_mount(&mut self, id: &str, layers: Vec<Layer>, created_ns: u64) {
        let key = self.ring.ensure(&[], mounts::key(id));
        self.ring.lead(key, Made { layers, created_ns, mount: Some(id.to_owned()) });
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
        Some(self.ring.ensure(&inputs, info.name))
    }

    /// The keys as records, inputs before what is made of them. `result` writes into a record what
    /// its key leads to.
    pub fn records(&self, result: impl FnMut(&Made, &mut CacheRecord)) -> Vec<CacheRecord> {
        self.ring.records(result)
    }

    /// All of it, to be given away.
    pub fn collected(&self) -> Collected {
        let mut list = LayerList::default();
        let mut blobs: HashMap<String, Layer> = HashMap::new();
        let records = self.records(|made, record| {
            let chain: Vec<String> =
                made.layers.iter().map(|layer| layer.blob.desc.digest.to_string()).collect();
            let layer = list.chain(chain.iter().map(String::as_str));
            for (blob, layer) in chain.into_iter().zip(&made.layers) {
                blobs.entry(blob).or_insert_with(|| layer.clone());
            }
            record.results.push(CacheResult { layer, created: time(made.created_ns) });
            record.mount.clone_from(&made.mount);
        });
        let mut config = CacheConfig { layers: list.into_layers(), records };
        config.sort();
        let layers = config.layers.iter().filter_map(|layer| blobs.get(&layer.blob).cloned());
        Collected { layers: layers.collect(), config }
    }
}

/// RFC 3339, in UTC.
pub(crate) fn time(nanoseconds: u64) -> String {
    gojson::time(SystemTime::UNIX_EPOCH + Duration::from_nanos(nanoseconds))
}
