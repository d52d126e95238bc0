//! From keys to a document.

use crate::document::{CacheInput, CacheLayer, CacheRecord};
use crosskit_cache::{Alternative, Cache, KeyDigest, KeyId};
use std::collections::{HashMap, HashSet};

/// Keys of several caches, brought together: what is the same in two of them is one key. Some lead
/// to a `T`.
pub struct Keyring<T> {
    keys: Cache<()>,
    order: Vec<KeyId>,
    seen: HashSet<KeyId>,
    results: HashMap<KeyId, T>,
}

impl<T> Default for Keyring<T> {
    fn default() -> Self {
        let (order, seen, results) = Default::default();
        Keyring { keys: Cache::in_memory("document"), order, seen, results }
    }
}

impl<T> Keyring<T> {
    /// Where keys are made. One that is not [wanted](Keyring::want) is told of only if a wanted one needs it.
    pub fn cache(&self) -> &Cache<()> {
        &self.keys
    }

    /// Makes a key and wants it.
    pub fn ensure(&mut self, inputs: &[Vec<Alternative>], name: KeyDigest) -> KeyId {
        let key = match inputs {
            [] => self.keys.ensure_root(name),
            inputs => self.keys.ensure(inputs, name),
        };
        self.want(key);
        key
    }

    /// Has a key told of, with all that it needs.
    pub fn want(&mut self, key: KeyId) {
        if self.seen.insert(key) {
            self.order.push(key);
        }
    }

    /// What a key leads to.
    pub fn result(&self, key: KeyId) -> Option<&T> {
        self.results.get(&key)
    }

    /// Has a key lead somewhere, in place of where it has led so far.
    pub fn lead(&mut self, key: KeyId, result: T) {
        self.results.insert(key, result);
    }

    /// The keys as records, inputs before what is made of them. `result` writes into a record what
    /// its key leads to.
    pub fn records(&self, mut result: impl FnMut(&T, &mut CacheRecord)) -> Vec<CacheRecord> {
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
                if let Some(led) = self.results.get(&at) {
                    result(led, &mut record);
                }
                places.insert(at, Some(records.len()));
                records.push(record);
            }
        }
        records
    }
}

/// The layers of a document while they are listed.
#[derive(Default)]
pub struct LayerList {
    layers: Vec<CacheLayer>,
    places: HashMap<(i64, String), i64>,
}

impl LayerList {
    /// The place of the topmost of some layers that lie on one another, bottom first; -1 for none.
    pub fn chain<'a>(&mut self, blobs: impl IntoIterator<Item = &'a str>) -> i64 {
        blobs.into_iter().fold(-1, |below, blob| {
            let layers = &mut self.layers;
            *self.places.entry((below, blob.to_owned())).or_insert_with(|| {
                layers.push(CacheLayer { blob: blob.to_owned(), parent: below, annotations: None });
                layers.len() as i64 - 1
            })
        })
    }

    /// All of them.
    pub fn into_layers(self) -> Vec<CacheLayer> {
        self.layers
    }
}
