//! The keys of `--export-cache` and `--import-cache`.

use crate::RemoteCacheError;
use crate::error::Result;
use crosskit_cacheconfig::MAX_AGE;
use crosskit_images::media_types::LayerPacking;
use crosskit_images::registry::Reference;
use crosskit_snapshots::LayerForm;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A cache as it is asked for: its type and keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct CacheOptions {
    /// `registry`, `local`, `inline` …
    pub kind: String,
    /// The keys.
    pub attrs: BTreeMap<String, String>,
}

impl CacheOptions {
    /// The name by which people know it (BuildKit `solver/llbsolver/bridge.go`): for a registry the
    /// reference, else the type and a number that tells it from others.
    pub fn name(&self) -> String {
        match self.attrs.get("ref").filter(|reference| self.kind == "registry" && !reference.is_empty()) {
            Some(reference) => reference.clone(),
            None => {
                let all = format!("{:?}", self.attrs);
                let number = all.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
                    // FNV-1a: a name, not a secret.
                    (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
                });
                format!("{}:{number}", self.kind)
            }
        }
    }

    /// A key's value, unless it is empty.
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.attrs.get(key).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// A yes or no, as Go reads it.
    pub(crate) fn flag(&self, key: &str) -> Result<Option<bool>> {
        match self.attrs.get(key).map(String::as_str) {
            None => Ok(None),
            Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(Some(true)),
            Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(Some(false)),
            Some(other) => Err(RemoteCacheError::Options(format!(
                "failed to parse {key}: {other:?} is neither true nor false"
            ))),
        }
    }

    /// An amount of time, as Go writes it: `24h`, `1h30m`.
    pub(crate) fn duration(&self, key: &str) -> Result<Option<Duration>> {
        let Some(text) = self.get(key) else { return Ok(None) };
        let parsed = match text {
            "0" => Some(Duration::ZERO),
            text => text.parse::<jiff::SignedDuration>().ok().and_then(|parsed| parsed.try_into().ok()),
        };
        let why = || format!("failed to parse {key}: {text:?} is no duration such as 24h or 90s");
        parsed.map(Some).ok_or_else(|| RemoteCacheError::Options(why()))
    }

    /// `cache-mounts`: which cache mounts of steps go with the cache; none if nothing is said.
    pub(crate) fn mounts(&self) -> Option<Mounts> {
        match self.get("cache-mounts")? {
            "0" | "f" | "F" | "false" | "FALSE" | "False" => None,
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(Mounts::All),
            ids => {
                Some(Mounts::These(ids.split(';').filter(|id| !id.is_empty()).map(str::to_owned).collect()))
            }
        }
    }

    /// `merge` and `max-age`: for how long what others have written to the same place stays; none if an export
    /// takes its place at once.
    pub(crate) fn merging(&self) -> Result<Option<Duration>> {
        let max_age = self.duration("max-age")?.unwrap_or(MAX_AGE);
        Ok(self.flag("merge")?.unwrap_or(true).then_some(max_age))
    }

    /// A number from 1 on.
    pub(crate) fn count(&self, key: &str) -> Result<Option<u32>> {
        let Some(text) = self.get(key) else { return Ok(None) };
        let parsed = text.parse().ok().filter(|count| *count > 0);
        let why = || format!("{key} must be a positive integer, not {text:?}");
        parsed.map(Some).ok_or_else(|| RemoteCacheError::Options(why()))
    }

    /// `name`: several, with semicolons between them.
    pub(crate) fn names(&self) -> Result<Vec<String>> {
        let names = self.get("name").unwrap_or("buildkit").split(';').filter(|name| !name.is_empty());
        let whole = |name: &str| match name.split('/').any(|part| matches!(part, "." | "..")) {
            true => {
                let text = format!("name {name:?} must not have . or .. between slashes");
                Err(RemoteCacheError::Options(text))
            }
            false => Ok(name.to_owned()),
        };
        names.map(whole).collect()
    }

    /// `ref`, with a tag.
    pub(crate) fn reference(&self) -> Result<Reference> {
        let text = self.get("ref").ok_or_else(|| RemoteCacheError::Options("missing ref".to_string()))?;
        let parsed = Reference::parse(text)
            .map_err(|e| RemoteCacheError::Options(format!("invalid ref {text:?}: {e}")))?;
        Ok(parsed.with_default_tag())
    }

    /// How layers are packed: `compression`, `compression-level`, `force-compression`.
    pub(crate) fn form(&self) -> Result<LayerForm> {
        let packing = match self.attrs.get("compression").map(String::as_str) {
            None | Some("gzip") => LayerPacking::Gzip,
            Some("zstd") => LayerPacking::Zstd,
            Some("uncompressed") => LayerPacking::Plain,
            Some("estargz") => LayerPacking::Estargz,
            Some(other) => {
                return Err(RemoteCacheError::Options(format!(
                    "unsupported compression type {other}: use gzip, zstd, estargz or uncompressed"
                )));
            }
        };
        let level = match self.attrs.get("compression-level") {
            None => None,
            Some(text) => Some(text.parse::<i32>().map_err(|_| {
                RemoteCacheError::Options(format!("non-integer value {text} specified for compression-level"))
            })?),
        };
        let allowed = match packing {
            LayerPacking::Gzip | LayerPacking::Estargz => -1..=9,
            LayerPacking::Zstd => 0..=22,
            LayerPacking::Plain => i32::MIN..=i32::MAX,
        };
        if let Some(level) = level.filter(|level| !allowed.contains(level)) {
            return Err(RemoteCacheError::Options(format!(
                "compression-level={level} is out of range: {} to {}",
                allowed.start(),
                allowed.end()
            )));
        }
        let force = match self.attrs.get("force-compression").map(String::as_str) {
            Some("") => true,
            _ => self.flag("force-compression")?.unwrap_or(false),
        };
        Ok(LayerForm { packing, level, force, ..LayerForm::default() })
    }

    /// `oci-mediatypes` and `image-manifest`: which document holds the cache together.
    pub(crate) fn documents(&self) -> Result<Documents> {
        let oci = self.flag("oci-mediatypes")?.unwrap_or(true);
        let image = self.flag("image-manifest")?.unwrap_or(oci);
        match (image, oci) {
            (true, false) => Err(RemoteCacheError::Options(
                "invalid configuration for remote cache, OCI mediatypes are required for image-manifest cache format"
                    .to_string(),
            )),
            (true, true) => Ok(Documents::Image),
            (false, true) => Ok(Documents::Index),
            (false, false) => Ok(Documents::DockerList),
        }
    }
}

/// Keys whose values nobody but the place itself is to see.
const SECRETS: [&str; 4] = ["secret_access_key", "session_token", "token", "ghtoken"];

/// What is shown of a secret.
const MASK: &str = "xxxxx";

/// Caches as a frontend is told of them, a list in JSON, without secrets. Nothing is left of what can't be read.
pub fn without_secrets(imports: &str) -> String {
    let Ok(mut imports) = serde_json::from_str::<Value>(imports) else { return String::new() };
    for entry in imports.as_array_mut().into_iter().flatten() {
        let attrs = entry.as_object_mut().and_then(|entry| {
            entry.iter_mut().find(|(key, _)| key.eq_ignore_ascii_case("attrs")).map(|(_, attrs)| attrs)
        });
        for (key, value) in attrs.and_then(Value::as_object_mut).into_iter().flatten() {
            if SECRETS.contains(&key.as_str()) {
                *value = MASK.into();
            }
        }
    }
    imports.to_string()
}

/// Cache mounts of steps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Mounts {
    /// All that a build has or a cache knows.
    All,
    /// Those with these ids.
    These(BTreeSet<String>),
}

impl Mounts {
    /// Whether the one with this id is among them. Dockerfile's frontend puts a namespace and a slash before ids.
    pub(crate) fn has(&self, id: &str) -> bool {
        match self {
            Mounts::All => true,
            Mounts::These(ids) => {
                ids.contains(id) || id.split_once('/').is_some_and(|(_, own)| ids.contains(own))
            }
        }
    }
}

/// The document that holds a cache together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Documents {
    /// A manifest of an image, whose config is the cache's.
    Image,
    /// An index, in which layers and config are listed like manifests.
    Index,
    /// The same in Docker's words.
    DockerList,
}

impl Documents {
    /// Whether OCI's names are used.
    pub(crate) fn oci(self) -> bool {
        self != Documents::DockerList
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // A test ends where something is not as it should be.
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let imports = r#"[{"Type":"s3","Attrs":{"access_key_id":"id","secret_access_key":"s1","session_token":"s2"}},{"type":"gha","attrs":{"token":"s3","ghtoken":"s4","scope":"a"}},{"Type":"local"}]"#;
        let expected = r#"[{"Type":"s3","Attrs":{"access_key_id":"id","secret_access_key":"xxxxx","session_token":"xxxxx"}},{"type":"gha","attrs":{"token":"xxxxx","ghtoken":"xxxxx","scope":"a"}},{"Type":"local"}]"#;
        assert_eq!(without_secrets(imports), expected);
        assert_eq!(without_secrets("[{\"secret_access_key\":\"s"), "");
    }

    #[test]
    fn amounts_of_time_and_counts_and_names_are_read() {
        let options = |key: &str, value: &str| CacheOptions {
            kind: "s3".to_owned(),
            attrs: BTreeMap::from([(key.to_owned(), value.to_owned())]),
        };
        for (text, seconds) in [
            ("24h", Some(86_400)),
            ("1h30m", Some(5_400)),
            ("0", Some(0)),
            ("0s", Some(0)),
            ("-1s", None),
            ("x", None),
        ] {
            let read = options("t", text).duration("t");
            assert_eq!(read.ok().flatten(), seconds.map(Duration::from_secs), "{text}");
        }
        for (text, count) in [("4", Some(4)), ("0", None), ("-1", None), ("x", None)] {
            assert_eq!(options("n", text).count("n").ok().flatten(), count, "{text}");
        }
        assert_eq!(options("name", "a;b;").names().unwrap(), ["a", "b"]);
        assert_eq!(options("name", "").names().unwrap(), ["buildkit"]);
        assert!(options("name", "a;../b").names().is_err());
    }
}
