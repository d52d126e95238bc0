//! Two documents become one: a writer's own, and what others have written to the same place.

use crate::Invalid;
use crate::document::{CacheConfig, CacheLayer, CacheRecord, CacheResult, place};
use crate::keyring::{Keyring, LayerList};
use crate::keys::read_keys;
use crosskit_cache::KeyId;
use jiff::Timestamp;
use std::collections::{HashMap, HashSet};
use std::time::Duration;

/// How much of others' is kept.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The time.
    pub now: Timestamp,
    /// Nothing stays that nobody has had among its own for longer than this.
    pub max_age: Duration,
    /// Blobs of layers in all: a manifest has to list them, and registries take 4 MiB.
    pub max_blobs: usize,
}

/// How long others' part of a cache stays that none of them has written again, unless something else is
/// said: who builds once a week finds it.
pub const MAX_AGE: Duration = Duration::from_secs(8 * 24 * 3600);

/// Blobs of layers that a cache may have with others' part in it: its manifest has 2 MB then.
const MAX_BLOBS: usize = 5_000;

impl Limits {
    /// Those of now.
    pub fn new(max_age: Duration) -> Self {
        Limits { now: Timestamp::now(), max_age, max_blobs: MAX_BLOBS }
    }
}

/// What a key leads to.
struct Held {
    /// Blobs of layers that lie on one another, bottom first.
    blobs: Vec<String>,
    /// When it was made: as the document tells it, and to be compared.
    created: (Timestamp, String),
    /// The cache mount whose files it is.
    mount: Option<String>,
    /// When a writer last had it among its own; none for whoever unites.
    used: Option<Timestamp>,
}

/// All keys of one's own with what they lead to, and those of others as far as they lead to layers
/// that are `there` and as the limits allow. Where both lead somewhere, one's own counts.
///
/// # Errors
/// Documents that say what can't be.
pub fn unite(
    own: &CacheConfig,
    others: &CacheConfig,
    there: impl Fn(&str) -> bool,
    limits: &Limits,
) -> Result<CacheConfig, Invalid> {
    let mut ring = Keyring::default();
    let mut blobs: HashSet<String> = HashSet::new();
    for (key, held) in held(own, &ring, |_| true)? {
        ring.want(key);
        let Some(held) = held else { continue };
        blobs.extend(held.blobs.iter().cloned());
        if ring.result(key).is_none_or(|known: &Held| known.created < held.created) {
            ring.lead(key, held);
        }
    }
    let mut offered: Vec<(KeyId, Timestamp, Held)> = Vec::new();
    for (key, held) in held(others, &ring, there)? {
        let Some(held) = held else { continue };
        // A clock that is ahead makes nothing younger than new.
        let used = held.used.unwrap_or(limits.now).min(limits.now);
        let age = Duration::try_from(limits.now.duration_since(used)).unwrap_or_default();
        if age <= limits.max_age {
            offered.push((key, used, Held { used: Some(used), ..held }));
        }
    }
    offered.sort_by(|(_, a_used, a), (_, b_used, b)| (b_used, &b.created).cmp(&(a_used, &a.created)));
    for (key, used, offer) in offered {
        match ring.result(key) {
            Some(Held { used: None, .. }) => continue,
            Some(Held { used: Some(known), created, .. }) if (known, created) >= (&used, &offer.created) => {
                continue;
            }
            _ => {}
        }
        let new = offer.blobs.iter().filter(|blob| !blobs.contains(*blob)).count();
        if blobs.len() + new <= limits.max_blobs {
            blobs.extend(offer.blobs.iter().cloned());
            ring.want(key);
            ring.lead(key, offer);
        }
    }
    Ok(document(&ring, &[own, others]))
}

/// Whether a document leads from all keys of another one to wherever those lead.
///
/// # Errors
/// Documents that say what can't be.
pub fn covers(document: &CacheConfig, other: &CacheConfig) -> Result<bool, Invalid> {
    let ring: Keyring<()> = Keyring::default();
    let known: HashSet<KeyId> = leading(document, &ring)?.collect();
    let before = ring.cache().keys();
    let all = leading(other, &ring)?.all(|key| known.contains(&key));
    Ok(all && ring.cache().keys() == before)
}

fn leading<'a>(
    config: &'a CacheConfig,
    ring: &Keyring<()>,
) -> Result<impl Iterator<Item = KeyId> + 'a, Invalid> {
    let keys = read_keys(ring.cache(), config)?;
    let leads = |record: &CacheRecord| !record.results.is_empty() || !record.chains.is_empty();
    Ok(keys
        .into_iter()
        .zip(&config.records)
        .filter(move |(_, record)| leads(record))
        .filter_map(|(key, _)| key))
}

/// The keys of a document with what they lead to, as far as its layers are `there`.
fn held(
    config: &CacheConfig,
    ring: &Keyring<Held>,
    there: impl Fn(&str) -> bool,
) -> Result<Vec<(KeyId, Option<Held>)>, Invalid> {
    let keys = read_keys(ring.cache(), config)?;
    let mut all = Vec::with_capacity(keys.len());
    for (key, record) in keys.into_iter().zip(&config.records) {
        let Some(key) = key else { continue };
        let mut newest: Option<Held> = None;
        let chains = record.results.iter().map(|result| (Chain::EndingIn(result.layer), &result.created));
        let chains = chains.chain(record.chains.iter().map(|of| (Chain::Of(&of.layers), &of.created)));
        for (chain, created) in chains {
            let blobs = chain.blobs(&config.layers)?;
            let created = (created.parse().unwrap_or_default(), created.clone());
            let newer = newest.as_ref().is_none_or(|known| known.created < created);
            if newer && !blobs.is_empty() && blobs.iter().all(|blob| there(blob)) {
                let used = record.used.as_deref().and_then(|text| text.parse().ok());
                newest = Some(Held { blobs, created, mount: record.mount.clone(), used });
            }
        }
        all.push((key, newest));
    }
    Ok(all)
}

/// The layers of a result.
enum Chain<'a> {
    /// One with all that are below it.
    EndingIn(i64),
    /// Just these.
    Of(&'a [i64]),
}

impl Chain<'_> {
    fn blobs(&self, layers: &[CacheLayer]) -> Result<Vec<String>, Invalid> {
        let at = |index: i64| match place(index, layers.len()) {
            Some(at) => Ok(&layers[at]),
            None => Err(Invalid(format!("invalid layer index {index}"))),
        };
        match *self {
            Chain::Of(indexes) => indexes.iter().map(|index| Ok(at(*index)?.blob.clone())).collect(),
            Chain::EndingIn(mut index) => {
                let mut blobs = Vec::new();
                while index != -1 {
                    let layer = at(index)?;
                    if blobs.len() == layers.len() {
                        return Err(Invalid("invalid looping layer".to_owned()));
                    }
                    blobs.push(layer.blob.clone());
                    index = layer.parent;
                }
                blobs.reverse();
                Ok(blobs)
            }
        }
    }
}

/// The document of the keys; what is to be known of layers is in those that they come from.
fn document(ring: &Keyring<Held>, from: &[&CacheConfig]) -> CacheConfig {
    let mut list = LayerList::default();
    let records = ring.records(|held, record| {
        let layer = list.chain(held.blobs.iter().map(String::as_str));
        record.results.push(CacheResult { layer, created: held.created.1.clone() });
        record.mount.clone_from(&held.mount);
        record.used = held.used.map(|used| used.to_string());
    });
    let mut layers = list.into_layers();
    let told = from.iter().rev().flat_map(|config| &config.layers);
    let told: HashMap<_, _> =
        told.filter_map(|layer| Some((&*layer.blob, layer.annotations.as_ref()?))).collect();
    for layer in &mut layers {
        layer.annotations = told.get(layer.blob.as_str()).map(|told| (*told).clone());
    }
    let mut config = CacheConfig { layers, records };
    config.sort();
    config
}
