//! What is kept of a snapshot in the database.

use crosskit_images::{Descriptor, Digest};
use serde::{Deserialize, Serialize};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Snapshots by their id.
pub(crate) const RECORDS: &str = "snapshots";
/// The snapshot that stands for a chain of layers, by the chain's digest.
pub(crate) const CHAINS: &str = "snapshots.chains";
/// Mutable snapshots that are kept: key, a zero byte, id.
pub(crate) const KEYS: &str = "snapshots.keys";

/// What a snapshot is kept for, as `du` shows it (BuildKit client/diskusage.go).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, Serialize, Deserialize)]
pub enum RecordType {
    /// The result of a step, or a layer of an image.
    #[default]
    #[serde(rename = "regular")]
    Regular,
    /// The builder's own.
    #[serde(rename = "internal")]
    Internal,
    /// A frontend's image.
    #[serde(rename = "frontend")]
    Frontend,
    /// Files sent by a client.
    #[serde(rename = "source.local")]
    LocalSource,
    /// A git checkout.
    #[serde(rename = "source.git.checkout")]
    GitCheckout,
    /// What a step keeps for the next one of its kind.
    #[serde(rename = "exec.cachemount")]
    CacheMount,
}

impl RecordType {
    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            RecordType::Regular => "regular",
            RecordType::Internal => "internal",
            RecordType::Frontend => "frontend",
            RecordType::LocalSource => "source.local",
            RecordType::GitCheckout => "source.git.checkout",
            RecordType::CacheMount => "exec.cachemount",
        }
    }
}

/// What people are told about a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct About {
    /// The step that made it, in its own words.
    pub description: String,
    /// What it is kept for.
    pub record_type: RecordType,
}

impl About {
    /// A snapshot of the regular kind.
    pub fn new(description: impl Into<String>) -> About {
        About { description: description.into(), record_type: RecordType::Regular }
    }

    /// The same, kept for something else.
    pub fn of_type(self, record_type: RecordType) -> About {
        About { record_type, ..self }
    }
}

/// Where the step that made a snapshot has run, and by what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MadeBy {
    /// The platform of its programs, formatted.
    pub platform: String,
    /// The worker; none if it was the machine that the snapshot is on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<String>,
    /// `native`, `emulated`, or by which emulator.
    pub how: String,
}

/// A layer as a blob.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LayerBlob {
    /// The blob.
    pub desc: Descriptor,
    /// The digest of the tar stream in it.
    pub diff_id: Digest,
}

/// Where a snapshot comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Origin {
    /// Changes over a parent.
    Layer { parent: Option<String> },
    /// Others, one over the other.
    Merge { parents: Vec<String> },
    /// What one has over another.
    Diff { lower: Option<String>, upper: Option<String> },
    /// A look at a mutable snapshot that is kept, until it is written to again.
    View { of: String },
}

impl Origin {
    pub(crate) fn parents(&self) -> Vec<&String> {
        match self {
            Origin::Layer { parent } => parent.iter().collect(),
            Origin::Merge { parents } => parents.iter().collect(),
            Origin::Diff { lower, upper } => lower.iter().chain(upper).collect(),
            Origin::View { of } => vec![of],
        }
    }
}

/// A snapshot's record. Times are nanoseconds since 1970.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) origin: Origin,
    #[serde(flatten)]
    pub(crate) about: About,
    pub(crate) created: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) last_used: Option<i64>,
    #[serde(default)]
    pub(crate) used: u32,
    /// Bytes on disk, once somebody asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) size: Option<u64>,
    /// Whether the snapshot's folder holds its files. False for a layer that nobody needed yet,
    /// and for what only consists of others.
    #[serde(default)]
    pub(crate) files: bool,
    /// The digest of the chain of layers that this one ends, if it came as one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) chain: Option<Digest>,
    /// The layer as blobs that are known, in whatever compression.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) blobs: Vec<LayerBlob>,
    /// The layer as blobs that only carry it between machines: an export makes its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) carried: Vec<LayerBlob>,
    /// The layer with its times cut off at a moment, as blobs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) variants: Vec<(i64, LayerBlob)>,
    /// The key under which it is kept and can be written to again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) key: Option<String>,
    /// For one that is kept: layers lie on it, so that it must stay as it is.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) built_upon: bool,
    /// Who has made it, if that is not a matter of course.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) made_by: Option<MadeBy>,
}

impl Record {
    pub(crate) fn new(origin: Origin, about: About) -> Record {
        Record {
            origin,
            about,
            created: now(),
            last_used: None,
            used: 0,
            size: None,
            files: false,
            chain: None,
            blobs: Vec::new(),
            carried: Vec::new(),
            variants: Vec::new(),
            key: None,
            built_upon: false,
            made_by: None,
        }
    }

    /// All blobs that go when the snapshot goes.
    pub(crate) fn all_blobs(&self) -> impl Iterator<Item = &LayerBlob> {
        self.blobs.iter().chain(&self.carried).chain(self.variants.iter().map(|(_, blob)| blob))
    }

    pub(crate) fn is_mutable(&self) -> bool {
        self.key.is_some()
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a record has only text keys")
    }

    pub(crate) fn decode(id: &str, bytes: &[u8]) -> crate::Result<Record> {
        serde_json::from_slice(bytes)
            .map_err(|why| crate::Error::Record { id: id.to_string(), reason: why.to_string() })
    }
}

pub(crate) fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as i64)
}

pub(crate) fn time(nanos: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(nanos.max(0) as u64)
}
