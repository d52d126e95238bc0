//! The document that tells a cache's keys and what they lead to: `cacheconfig.v0`, as BuildKit
//! writes and reads it (BuildKit `cache/remotecache/v1/types`).

use serde::{Deserialize, Deserializer, Serialize};
use std::cmp::Ordering;

/// The media type.
pub const MEDIA_TYPE: &str = "application/vnd.buildkit.cacheconfig.v0";

/// A cache's keys, in the document called records, and its layers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CacheConfig {
    /// Layers, each on top of another one.
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<CacheLayer>,
    /// Keys.
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "Vec::is_empty")]
    pub records: Vec<CacheRecord>,
}

/// A layer on top of another one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CacheLayer {
    /// The digest of the blob.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub blob: String,
    /// The place of the layer below; -1 for none. What is not written is 0.
    #[serde(rename = "parent", default, skip_serializing_if = "is_zero")]
    pub parent: i64,
    /// What is to be known of the blob, where no manifest tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<LayerAnnotations>,
}

/// What is to be known of a layer's blob.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LayerAnnotations {
    /// The type of the blob.
    #[serde(rename = "mediaType", default, skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    /// The digest of the tar in it.
    #[serde(rename = "diffID", default, skip_serializing_if = "String::is_empty")]
    pub diff_id: String,
    /// Bytes.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub size: i64,
    /// When it was made, RFC 3339.
    #[serde(rename = "createdAt", default)]
    pub created: String,
}

/// A key: its name, the keys of its inputs, what it leads to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CacheRecord {
    /// Results.
    #[serde(
        rename = "layers",
        default,
        deserialize_with = "null_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub results: Vec<CacheResult>,
    /// Results whose layers do not lie on one another in the list of layers.
    #[serde(
        rename = "chains",
        default,
        deserialize_with = "null_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub chains: Vec<ChainedResult>,
    /// The key's name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub digest: String,
    /// For each input the keys that it is known by.
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<Vec<CacheInput>>,
    /// The id of a cache mount of steps whose files the results are; BuildKit passes over it.
    #[serde(rename = "crosskitMount", default, skip_serializing_if = "Option::is_none")]
    pub mount: Option<String>,
    /// When a writer last had this among its own, RFC 3339; nothing with who wrote the document.
    /// BuildKit passes over it.
    #[serde(rename = "crosskitUsed", default, skip_serializing_if = "Option::is_none")]
    pub used: Option<String>,
}

/// A result: a layer with all that are below it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CacheResult {
    /// The place of the topmost layer.
    #[serde(default)]
    pub layer: i64,
    /// When it was made, RFC 3339.
    #[serde(rename = "createdAt", default)]
    pub created: String,
}

/// A result: just these layers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ChainedResult {
    /// The places of the layers, bottom first.
    #[serde(default, deserialize_with = "null_default")]
    pub layers: Vec<i64>,
    /// When it was made, RFC 3339.
    #[serde(rename = "createdAt", default)]
    pub created: String,
}

/// A key that an input is known by.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CacheInput {
    /// The part of the input that counts.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub selector: String,
    /// The place of the key among the records.
    #[serde(default)]
    pub link: i64,
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}

fn null_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(from: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(from)?.unwrap_or_default())
}

/// A place in a list; none if it is not in it.
pub fn place(index: i64, count: usize) -> Option<usize> {
    usize::try_from(index).ok().filter(|index| *index < count)
}

impl CacheConfig {
    /// Puts layers and records into an order that says nothing of how they were found, so that the
    /// same cache has the same bytes. Places have to be right.
    pub fn sort(&mut self) {
        self.sort_layers();
        self.sort_records();
    }

    fn sort_layers(&mut self) {
        let old = std::mem::take(&mut self.layers);
        let below = |at: usize| place(old[at].parent, old.len());
        let mut order: Vec<usize> = (0..old.len()).collect();
        order.sort_by(|a, b| {
            // Two of the same blob differ in what is below.
            let (mut a, mut b) = (Some(*a), Some(*b));
            while let (Some(x), Some(y)) = (a, b) {
                match old[x].blob.cmp(&old[y].blob) {
                    Ordering::Equal => (a, b) = (below(x), below(y)),
                    other => return other,
                }
            }
            a.is_some().cmp(&b.is_some())
        });
        let new = inverted(&order);
        let moved = |index: i64| place(index, new.len()).map_or(index, |at| new[at] as i64);
        self.layers = order
            .iter()
            .map(|at| CacheLayer { parent: moved(old[*at].parent), ..old[*at].clone() })
            .collect();
        for record in &mut self.records {
            record.results.iter_mut().for_each(|result| result.layer = moved(result.layer));
            record.chains.iter_mut().flat_map(|chain| &mut chain.layers).for_each(|at| *at = moved(*at));
        }
    }

    fn sort_records(&mut self) {
        let old = std::mem::take(&mut self.records);
        let keys: Vec<_> = old.iter().map(|record| sort_key(record, &old)).collect();
        let mut order: Vec<usize> = (0..old.len()).collect();
        order.sort_by(|a, b| keys[*a].cmp(&keys[*b]));
        drop(keys);
        let new = inverted(&order);
        let mut old: Vec<Option<CacheRecord>> = old.into_iter().map(Some).collect();
        for at in order {
            let Some(mut record) = old[at].take() else { continue };
            for input in &mut record.inputs {
                for known in input.iter_mut() {
                    known.link = place(known.link, new.len()).map_or(known.link, |at| new[at] as i64);
                }
                input.sort_by(|a, b| (a.link, &a.selector).cmp(&(b.link, &b.selector)));
            }
            self.records.push(record);
        }
    }
}

/// What tells a record from others, without the places of those.
type SortKey<'a> = (&'a str, usize, Vec<Vec<(&'a str, &'a str)>>);

fn sort_key<'a>(record: &'a CacheRecord, all: &'a [CacheRecord]) -> SortKey<'a> {
    let mut inputs = Vec::with_capacity(record.inputs.len());
    for input in &record.inputs {
        let name = |link: i64| place(link, all.len()).map_or("", |at| all[at].digest.as_str());
        let mut known: Vec<_> = input.iter().map(|i| (i.selector.as_str(), name(i.link))).collect();
        known.sort_unstable();
        inputs.push(known);
    }
    (&record.digest, record.inputs.len(), inputs)
}

/// Where each place of an order went.
fn inverted(order: &[usize]) -> Vec<usize> {
    let mut new = vec![0; order.len()];
    order.iter().enumerate().for_each(|(to, from)| new[*from] = to);
    new
}
