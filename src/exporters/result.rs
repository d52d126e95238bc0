//! What is exported: results by platform, and what is said of them.

use crate::{Attested, ExportError};
use crosskit_platforms::Platform;
use crosskit_snapshots::Ref;
use indexmap::IndexMap;
use serde::Deserialize;
use std::collections::BTreeMap;

/// The name of the time that a frontend wants everything to be of.
const EPOCH: &str = "source.date.epoch";

/// A computed result. A missing ref is an empty filesystem.
#[derive(Clone, Default)]
pub struct Export {
    /// Whether there is one result for each platform, even if it is only one platform.
    pub is_map: bool,
    /// The result where there is only one.
    pub single: Option<Ref>,
    /// Results by platform id.
    pub by_platform: IndexMap<String, Option<Ref>>,
    /// What is said of them, by the field's keys.
    pub metadata: BTreeMap<String, Vec<u8>>,
    /// What is attested of the results, by platform id.
    pub attestations: BTreeMap<String, Vec<Attested>>,
    /// What images are to tell of how they were made, by platform id; under an empty id for the
    /// single result.
    pub inline_caches: BTreeMap<String, Vec<u8>>,
    /// Which daemon's older habits are kept (BuildKit's numbers: 10, 20, 30); 0 for the current one.
    pub compatibility_version: u32,
}

/// A platform of a result: the id that keys and results go by, and what it means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedPlatform {
    /// As the frontend named it.
    pub id: String,
    /// In normal form.
    pub platform: Platform,
}

/// `refs.platforms` as it is written.
#[derive(Deserialize, Default)]
struct Listed {
    #[serde(rename = "Platforms", default)]
    platforms: Vec<ListedPlatform>,
}

#[derive(Deserialize)]
struct ListedPlatform {
    #[serde(rename = "ID", default)]
    id: String,
    #[serde(rename = "Platform")]
    platform: Platform,
}

/// The part of an image's config that says which platform it is for.
#[derive(Deserialize)]
struct ConfigPlatform {
    #[serde(flatten)]
    platform: Platform,
}

impl Export {
    /// The platforms, in the order they were asked for; at least one.
    ///
    /// # Errors
    /// Several results without a word on their platforms, and platforms that are none.
    pub fn platforms(&self) -> Result<Vec<NamedPlatform>, ExportError> {
        let Some(listed) = self.metadata.get("refs.platforms") else {
            if self.is_map {
                return Err(ExportError::user("unable to export multiple refs, missing platforms mapping"));
            }
            return Ok(vec![self.own_platform()?]);
        };
        let listed: Option<Listed> = serde_json::from_slice(listed)
            .map_err(|e| ExportError::user(format!("failed to parse platforms passed to exporter: {e}")))?;
        let listed = listed.unwrap_or_default();
        if listed.platforms.is_empty() {
            return Err(ExportError::user("invalid empty platforms index for exporter"));
        }
        listed
            .platforms
            .into_iter()
            .map(|p| {
                if p.id.is_empty() {
                    return Err(ExportError::user("invalid empty platform key for exporter"));
                }
                if p.platform.os.is_empty() || p.platform.architecture.is_empty() {
                    return Err(ExportError::user(format!(
                        "invalid platform value {:?} for exporter",
                        p.platform
                    )));
                }
                Ok(NamedPlatform { platform: p.platform.normalize(), id: p.id })
            })
            .collect()
    }

    /// The platform of a single result: its config's, else this machine's.
    fn own_platform(&self) -> Result<NamedPlatform, ExportError> {
        let platform = match self.metadata.get("containerimage.config") {
            None => crosskit_platforms::native(),
            Some(config) => {
                let read: Option<ConfigPlatform> = serde_json::from_slice(config)
                    .map_err(|e| ExportError::user(format!("invalid image config for export: {e}")))?;
                let read = read.ok_or_else(|| ExportError::user("invalid null image config for export"))?;
                if read.platform.os.is_empty() != read.platform.architecture.is_empty() {
                    return Err(ExportError::user(
                        "invalid image config: os and architecture must be specified together",
                    ));
                }
                read.platform
            }
        };
        let platform = platform.normalize();
        Ok(NamedPlatform { id: platform.format_all(), platform })
    }

    /// The result of a platform.
    ///
    /// # Errors
    /// A platform that no result is there for.
    pub fn of(&self, platform: &NamedPlatform) -> Result<Option<&Ref>, ExportError> {
        if !self.is_map {
            return Ok(self.single.as_ref());
        }
        match self.by_platform.get(&platform.id) {
            Some(found) => Ok(found.as_ref()),
            None => Err(ExportError::user(format!("failed to find ref for ID {}", platform.id))),
        }
    }

    /// What is attested of a platform's result.
    pub fn attested_of(&self, platform: &NamedPlatform) -> &[Attested] {
        self.attestations.get(&platform.id).map_or(&[], Vec::as_slice)
    }

    /// What the image of a platform is to tell of how it was made.
    pub fn inline_cache_of(&self, platform: &NamedPlatform) -> Option<&[u8]> {
        let id = if self.is_map { platform.id.as_str() } else { "" };
        self.inline_caches.get(id).map(Vec::as_slice)
    }

    /// Every result, each platform's once.
    pub fn refs(&self) -> impl Iterator<Item = &Ref> {
        self.single.iter().chain(self.by_platform.values().flatten())
    }

    /// What is said of a platform under a key, else what is said of all.
    pub fn metadata_of(&self, key: &str, platform: &NamedPlatform) -> Option<&[u8]> {
        self.metadata
            .get(&format!("{key}/{}", platform.id))
            .or_else(|| self.metadata.get(key))
            .map(Vec::as_slice)
    }

    /// The epoch that the frontend set, in seconds since 1970.
    ///
    /// # Errors
    /// One that is no number.
    pub fn epoch(&self, platform: &NamedPlatform) -> Result<Option<i64>, ExportError> {
        let Some(text) = self.metadata_of(EPOCH, platform).filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        let text = String::from_utf8_lossy(text);
        text.parse()
            .map(Some)
            .map_err(|_| ExportError::user(format!("invalid SOURCE_DATE_EPOCH from frontend: {text:?}")))
    }

    /// The epoch of the whole result: the latest, if the frontend set one for each platform.
    ///
    /// # Errors
    /// One that is no number.
    pub fn common_epoch(&self) -> Result<Option<i64>, ExportError> {
        let each =
            self.platforms()?.iter().map(|platform| self.epoch(platform)).collect::<Result<Vec<_>, _>>()?;
        Ok(each.into_iter().collect::<Option<Vec<_>>>().and_then(|all| all.into_iter().max()))
    }
}
