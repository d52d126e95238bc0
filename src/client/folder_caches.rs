//! Caches in folders of this machine, which several builds may write to: what others have written stays.
//!
//! The daemon has put its blobs into the folder. Who enters the cache into the folder's index keeps others
//! away from that, and can bring together what was there and what came.

use crate::error::ClientError;
use crate::flags::parse_bool;
use crate::layouts::{self, Name};
use crate::metadata_file::write_whole;
use crate::times::parse_duration;
use crosskit_cacheconfig::{CacheConfig, Limits, MAX_AGE, MEDIA_TYPE, unite};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// `merge` and `max-age`: for how long what others have written stays; none if it goes at once.
///
/// # Errors
/// Values that make no sense.
pub(crate) fn merging(attrs: &BTreeMap<String, String>) -> Result<Option<Duration>, ClientError> {
    let told = |key: &str| attrs.get(key).map(String::as_str).filter(|text| !text.is_empty());
    let merge = match told("merge") {
        None => true,
        Some(text) => parse_bool(text)
            .ok_or_else(|| ClientError::invalid(format!("merge={text} is neither true nor false")))?,
    };
    let max_age = match told("max-age") {
        None => MAX_AGE,
        Some(text) => {
            let nanoseconds = parse_duration(text).and_then(|amount| u64::try_from(amount).ok());
            let why = || ClientError::invalid(format!("max-age={text} is no duration such as 24h or 90s"));
            Duration::from_nanos(nanoseconds.ok_or_else(why)?)
        }
    };
    Ok(merge.then_some(max_age))
}

/// Enters a cache into a folder's index under a tag, with what is there under the tag.
///
/// # Errors
/// The folder can't be read or written.
pub(crate) fn enter(
    folder: &Path,
    tag: &str,
    descriptor: &Map<String, Value>,
    max_age: Option<Duration>,
) -> Result<(), ClientError> {
    let names = [Name::Tag(tag.to_owned())];
    let Some(max_age) = max_age else { return layouts::put(folder, descriptor, &names) };
    layouts::put_made(folder, &names, || {
        let own = digest(descriptor).to_owned();
        // Without an index there is nothing yet.
        let there = layouts::find(folder, tag).ok().flatten().filter(|there| *there != own);
        let Some(there) = there else { return Ok(descriptor.clone()) };
        let (Some(mine), Some(theirs)) = (read(folder, &own), read(folder, &there)) else {
            return Ok(descriptor.clone());
        };
        match mine.with(&theirs, folder, max_age) {
            Ok((config, manifest)) => {
                put_blob(folder, &config)?;
                let mut entry = descriptor.clone();
                entry.insert("digest".into(), put_blob(folder, &manifest)?.into());
                entry.insert("size".into(), manifest.len().into());
                Ok(entry)
            }
            Err(why) => {
                tracing::warn!("the cache that is in {} is passed over: {why}", folder.display());
                Ok(descriptor.clone())
            }
        }
    })
}

fn digest(descriptor: &Map<String, Value>) -> &str {
    descriptor.get("digest").and_then(Value::as_str).unwrap_or_default()
}

/// Where a blob is; none for what is no digest.
fn path(folder: &Path, digest: &str) -> Option<PathBuf> {
    let hex = digest.strip_prefix("sha256:")?;
    let right = hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
    right.then(|| folder.join("blobs/sha256").join(hex))
}

fn put_blob(folder: &Path, content: &[u8]) -> Result<String, ClientError> {
    let hex = hex::encode(Sha256::digest(content));
    write_whole(&folder.join("blobs/sha256").join(&hex), content)?;
    Ok(format!("sha256:{hex}"))
}

/// The documents of a cache.
struct Documents {
    manifest: Map<String, Value>,
    config: CacheConfig,
    /// Descriptors of layers by digest.
    layers: HashMap<String, Value>,
}

/// What is no cache, or none that can be read, is none.
fn read(folder: &Path, root: &str) -> Option<Documents> {
    let document = |digest: &str| fs::read(path(folder, digest)?).ok();
    let manifest: Map<String, Value> = serde_json::from_slice(&document(root)?).ok()?;
    let is_config = |desc: &&Value| desc.get("mediaType").and_then(Value::as_str) == Some(MEDIA_TYPE);
    let listed = manifest.get("layers").or(manifest.get("manifests")).and_then(Value::as_array)?;
    let config = manifest.get("config").into_iter().chain(listed).find(is_config)?;
    let config = serde_json::from_slice(&document(digest(config.as_object()?))?).ok()?;
    let layers = listed.iter().filter(|desc| !is_config(desc));
    let layers = layers.filter_map(|desc| Some((digest(desc.as_object()?).to_owned(), desc.clone())));
    let layers = layers.collect();
    Some(Documents { manifest, config, layers })
}

impl Documents {
    /// The documents of both, with what others' have of layers that are in the folder.
    fn with(&self, others: &Self, folder: &Path, max_age: Duration) -> Result<(Vec<u8>, Vec<u8>), String> {
        let there = |blob: &str| {
            (others.layers.contains_key(blob) || self.layers.contains_key(blob))
                && path(folder, blob).is_some_and(|path| path.is_file())
        };
        let united = unite(&self.config, &others.config, there, &Limits::new(max_age));
        let united = united.map_err(|error| error.to_string())?;
        let bytes = |value: &Value| serde_json::to_vec(value).map_err(|error| error.to_string());
        let config = serde_json::to_vec(&united).map_err(|error| error.to_string())?;
        let about = json!({
            "mediaType": MEDIA_TYPE,
            "digest": format!("sha256:{}", hex::encode(Sha256::digest(&config))),
            "size": config.len(),
        });
        let listed = united.layers.iter().map(|layer| layer.blob.as_str());
        let listed = listed.filter_map(|blob| self.layers.get(blob).or(others.layers.get(blob)).cloned());
        let mut listed: Vec<Value> = listed.collect();
        let mut manifest = self.manifest.clone();
        match manifest.contains_key("manifests") {
            true => {
                listed.push(about);
                manifest.insert("manifests".into(), listed.into());
            }
            false => {
                manifest.insert("config".into(), about);
                manifest.insert("layers".into(), listed.into());
            }
        }
        Ok((config, bytes(&Value::Object(manifest))?))
    }
}
