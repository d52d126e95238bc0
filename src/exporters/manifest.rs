//! An image's config and manifest from its layers, without I/O: the same layers, history and
//! options give the same bytes, on every machine and as BuildKit writes them.

use crate::ExportError;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crosskit_images::annotations::is_internal;
use crosskit_images::{Descriptor, Digest, History, gojson, media_types};
use crosskit_platforms::Platform;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// What a step without words of its own says in the history.
const UNDESCRIBED: &str = "created by buildkit";

/// Says in the history who wrote a line.
const COMMENT: &str = "buildkit.exporter.image.v0";

/// The field of the config in which an image tells of how it was made (BuildKit
/// `exporter/containerimage/writer.go`).
const INLINE_CACHE: &str = "moby.buildkit.cache.v0";

/// The PATH of an image that nobody said anything about.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A layer as a blob, and what is known of the step that made it.
#[derive(Clone, Debug)]
pub struct Layer {
    /// The blob.
    pub desc: Descriptor,
    /// The digest of its tar.
    pub diff_id: Digest,
    /// What the step is called.
    pub description: String,
    /// When it was made, RFC 3339.
    pub created: Option<String>,
}

/// An image's documents.
#[derive(Clone, Debug)]
pub struct Documents {
    /// The config.
    pub config: Vec<u8>,
    /// The manifest.
    pub manifest: Vec<u8>,
    /// The config's descriptor.
    pub config_desc: Descriptor,
    /// The manifest's descriptor.
    pub manifest_desc: Descriptor,
}

/// Makes the documents of an image.
///
/// `config` is what the frontend says, `base` the config of the image it is built on, `epoch`
/// what times are clamped to, in seconds since 1970, `cache` what the image tells of how it was made.
///
/// # Errors
/// A config that is none.
pub fn documents(
    config: Option<&[u8]>,
    base: Option<&[u8]>,
    mut layers: Vec<Layer>,
    oci: bool,
    epoch: Option<i64>,
    annotations: BTreeMap<String, String>,
    cache: Option<&[u8]>,
) -> Result<Documents, ExportError> {
    let default = match config {
        Some(_) => Vec::new(),
        None => default_config()?,
    };
    let config = config.unwrap_or(&default);
    let history = completed_history(history_of(config)?, &layers);
    let config = patched_config(config, base, &layers, history, epoch, cache)?;
    let (manifest_type, config_type) = match oci {
        true => (media_types::OCI_MANIFEST, media_types::OCI_CONFIG),
        false => (media_types::DOCKER_MANIFEST, media_types::DOCKER_CONFIG),
    };
    let config_desc = Descriptor::of(config_type, &config);
    let descs = layers
        .iter_mut()
        .map(|layer| {
            let mut desc = layer.desc.clone();
            desc.media_type = media_types::convert_layer(&desc.media_type, oci).to_string();
            desc.annotations = exported_annotations(std::mem::take(&mut desc.annotations), oci);
            desc
        })
        .collect();
    let mut manifest = crosskit_images::Manifest::new(manifest_type, config_desc.clone(), descs);
    manifest.annotations = annotations;
    let manifest = manifest.to_json().map_err(|e| ExportError::internal(e.to_string()))?;
    let manifest_desc = Descriptor::of(manifest_type, &manifest);
    Ok(Documents { config, manifest, config_desc, manifest_desc })
}

/// Annotations of a layer that others should see; Docker's manifests have none.
fn exported_annotations(all: BTreeMap<String, String>, oci: bool) -> BTreeMap<String, String> {
    all.into_iter().filter(|(key, _)| oci && !is_internal(key)).collect()
}

fn default_config() -> Result<Vec<u8>, ExportError> {
    let platform: Platform = crosskit_platforms::native().normalize();
    let mut config = crosskit_images::ImageConfig {
        architecture: platform.architecture,
        os: platform.os,
        os_version: platform.os_version,
        os_features: platform.os_features,
        variant: platform.variant,
        ..crosskit_images::ImageConfig::default()
    };
    config.config.working_dir = "/".to_string();
    config.config.env = vec![DEFAULT_PATH.to_string()];
    config.to_json().map_err(|e| ExportError::internal(e.to_string()))
}

#[derive(Deserialize)]
struct WithHistory {
    #[serde(default)]
    history: Option<Vec<History>>,
}

fn history_of(config: &[u8]) -> Result<Vec<History>, ExportError> {
    let read: Option<WithHistory> = serde_json::from_slice(config)
        .map_err(|e| ExportError::user(format!("failed to unmarshal history from config: {e}")))?;
    Ok(read.and_then(|r| r.history).unwrap_or_default())
}

/// Makes history and layers fit: a line for each layer, a time for each line.
fn completed_history(mut history: Vec<History>, layers: &[Layer]) -> Vec<History> {
    let mut told = 0;
    for line in &mut history {
        if !line.empty_layer {
            if told == layers.len() {
                // More lines than layers: the config says something that isn't so.
                line.empty_layer = true;
                continue;
            }
            if line.created.is_none() {
                line.created.clone_from(&layers[told].created);
            }
            told += 1;
        }
    }
    for layer in &layers[told..] {
        let said = if layer.description.is_empty() { UNDESCRIBED } else { &layer.description };
        history.push(History {
            created: layer.created.clone(),
            created_by: said.to_string(),
            comment: COMMENT.to_string(),
            ..History::default()
        });
    }
    fill_times(&mut history);
    history
}

/// Lines without a time take the one of the line before them; at the beginning of the new
/// lines, where that would be the base image's, the first time that comes after.
fn fill_times(history: &mut [History]) {
    let first_gap = history.iter().position(|line| line.created.is_none()).unwrap_or(history.len());
    let after = history[first_gap..].iter().find_map(|line| line.created.clone());
    let before = history[..first_gap].iter().rev().find_map(|line| line.created.clone());
    let mut current = after.or(before);
    let mut gap = false;
    for line in history {
        match &line.created {
            Some(created) if gap => current = Some(created.clone()),
            Some(_) => {}
            None => {
                gap = true;
                line.created.clone_from(&current);
            }
        }
    }
}

#[derive(Serialize)]
struct RootFs<'a> {
    r#type: &'static str,
    diff_ids: Option<Vec<&'a Digest>>,
}

/// The config with layers, history and times as they are; all else stays as the frontend wrote
/// it, with the outermost keys sorted.
fn patched_config(
    config: &[u8],
    base: Option<&[u8]>,
    layers: &[Layer],
    mut history: Vec<History>,
    epoch: Option<i64>,
    cache: Option<&[u8]>,
) -> Result<Vec<u8>, ExportError> {
    let invalid = |e: serde_json::Error| ExportError::user(format!("invalid image config for export: {e}"));
    let fields: Option<BTreeMap<String, Box<RawValue>>> = serde_json::from_slice(config).map_err(invalid)?;
    let mut fields = fields.ok_or_else(|| ExportError::user("invalid null image config for export"))?;
    for needed in ["os", "architecture"] {
        if fields.get(needed).is_none_or(|v| v.get() == "\"\"") {
            return Err(ExportError::user(format!("invalid image config for export: missing {needed}")));
        }
    }
    if let Some(epoch) = epoch {
        let of_base = match base {
            Some(base) => history_of(base)?,
            None => Vec::new(),
        };
        // Lines of the base image keep their times, as long as they are the base image's.
        let own = history.iter().zip(of_base.iter().map(Some).chain(std::iter::repeat(None)));
        let first_own = own.take_while(|(line, of_base)| Some(*line) == *of_base).count();
        for line in &mut history[first_own..] {
            if line.created.as_deref().is_none_or(|t| is_after(t, epoch)) {
                line.created = Some(rfc3339(epoch));
            }
        }
    }
    let diff_ids: Vec<&Digest> = layers.iter().map(|l| &l.diff_id).collect();
    let rootfs = RootFs { r#type: "layers", diff_ids: Some(diff_ids).filter(|d| !d.is_empty()) };
    let mut set = |key: &str, json: Vec<u8>| -> Result<(), ExportError> {
        let text = String::from_utf8(json).map_err(|e| ExportError::internal(e.to_string()))?;
        let value = RawValue::from_string(text).map_err(|e| ExportError::internal(e.to_string()))?;
        fields.insert(key.to_string(), value);
        Ok(())
    };
    let json = |e: crosskit_images::Error| ExportError::internal(e.to_string());
    set("rootfs", gojson::to_vec(&rootfs).map_err(json)?)?;
    set("history", gojson::to_vec(&Some(&history).filter(|h| !h.is_empty())).map_err(json)?)?;
    if let Some(cache) = cache {
        set(INLINE_CACHE, gojson::to_vec(&STANDARD.encode(cache)).map_err(json)?)?;
    }
    let created = match fields.get("created") {
        Some(created) => {
            let text: Option<String> = serde_json::from_str(created.get()).map_err(invalid)?;
            match (text, epoch) {
                (Some(text), Some(epoch)) if is_after(&text, epoch) => Some(rfc3339(epoch)),
                (text, _) => text,
            }
        }
        None => history.iter().rev().find_map(|line| line.created.clone()),
    };
    let created = gojson::to_vec(&created).map_err(json)?;
    let created = String::from_utf8(created).map_err(|e| ExportError::internal(e.to_string()))?;
    fields.insert(
        "created".to_string(),
        RawValue::from_string(created).map_err(|e| ExportError::internal(e.to_string()))?,
    );
    write_sorted(&fields)
}

/// Go's encoder compacts and escapes raw values; these come from an encoder like it, so only
/// spaces between tokens are at stake, which reading and writing them again removes.
fn write_sorted(fields: &BTreeMap<String, Box<RawValue>>) -> Result<Vec<u8>, ExportError> {
    let internal = |e: &dyn std::fmt::Display| ExportError::internal(e.to_string());
    let values: BTreeMap<&String, serde_json::Value> = fields
        .iter()
        .map(|(k, v)| serde_json::from_str(v.get()).map(|v| (k, v)))
        .collect::<Result<_, _>>()
        .map_err(|e| internal(&e))?;
    gojson::to_vec(&values).map_err(|e| internal(&e))
}

/// Whether a time is after an epoch; one that can't be read is.
fn is_after(time: &str, epoch: i64) -> bool {
    time.parse::<jiff::Timestamp>()
        .is_ok_and(|t| t.as_second() > epoch || (t.as_second() == epoch && t.subsec_nanosecond() > 0))
}

/// RFC 3339 in UTC, as Go writes a time without a fraction.
pub fn rfc3339(epoch: i64) -> String {
    jiff::Timestamp::from_second(epoch).unwrap_or_default().to_string()
}

#[cfg(test)]
#[path = "manifest_tests.rs"]
mod tests;
