//! Manifests and indexes: the documents that hold an image together.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::descriptor::Descriptor;
use crate::errors::{Error, Result};
use crate::gojson::{self, empty_as_null, is_empty, null_default};
use crate::media_types;

/// No manifest or index in use comes near this; registries refuse more than 4 MiB.
pub const MAX_MANIFEST_SIZE: u64 = 8 << 20;

/// An image for one platform (OCI image-spec 1.1, manifest; Docker schema 2).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Always 2.
    #[serde(rename = "schemaVersion", default)]
    pub schema_version: u32,
    /// OCI's or Docker's manifest type.
    #[serde(
        rename = "mediaType",
        default,
        deserialize_with = "null_default",
        skip_serializing_if = "is_empty"
    )]
    pub media_type: String,
    /// The kind of artifact, where it is not an image.
    #[serde(
        rename = "artifactType",
        default,
        deserialize_with = "null_default",
        skip_serializing_if = "is_empty"
    )]
    pub artifact_type: String,
    /// The image's config.
    pub config: Descriptor,
    /// The layers, bottom first.
    #[serde(default, deserialize_with = "null_default", serialize_with = "empty_as_null")]
    pub layers: Vec<Descriptor>,
    /// What this manifest is about, for attestations and signatures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Box<Descriptor>>,
    /// Remarks about the image.
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Fields that this program does not know.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl Manifest {
    /// A manifest of a media type.
    pub fn new(media_type: impl Into<String>, config: Descriptor, layers: Vec<Descriptor>) -> Self {
        Self {
            schema_version: 2,
            media_type: media_type.into(),
            artifact_type: String::new(),
            config,
            layers,
            subject: None,
            annotations: BTreeMap::new(),
            other: Map::new(),
        }
    }

    /// Reads a manifest.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        parse(bytes, "image manifest")
    }

    /// The bytes BuildKit's image exporter writes for this manifest.
    pub fn to_json(&self) -> Result<Vec<u8>> {
        gojson::to_vec_indent(self)
    }
}

/// A list of manifests, one per platform (OCI image-spec 1.1, image-index; Docker manifest list).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Index {
    /// Always 2.
    #[serde(rename = "schemaVersion", default)]
    pub schema_version: u32,
    /// OCI's or Docker's index type.
    #[serde(
        rename = "mediaType",
        default,
        deserialize_with = "null_default",
        skip_serializing_if = "is_empty"
    )]
    pub media_type: String,
    /// The kind of artifact, where it is not an image.
    #[serde(
        rename = "artifactType",
        default,
        deserialize_with = "null_default",
        skip_serializing_if = "is_empty"
    )]
    pub artifact_type: String,
    /// The manifests.
    #[serde(default, deserialize_with = "null_default", serialize_with = "empty_as_null")]
    pub manifests: Vec<Descriptor>,
    /// What this index is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Box<Descriptor>>,
    /// Remarks about the whole.
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Fields that this program does not know.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl Index {
    /// An OCI index.
    pub fn new(manifests: Vec<Descriptor>) -> Self {
        Self {
            schema_version: 2,
            media_type: media_types::OCI_INDEX.into(),
            artifact_type: String::new(),
            manifests,
            subject: None,
            annotations: BTreeMap::new(),
            other: Map::new(),
        }
    }

    /// Reads an index.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        parse(bytes, "image index")
    }

    /// The bytes BuildKit's image exporter writes for this index.
    pub fn to_json(&self) -> Result<Vec<u8>> {
        gojson::to_vec_indent(self)
    }
}

fn parse<T: for<'de> Deserialize<'de>>(bytes: &[u8], what: &str) -> Result<T> {
    if bytes.len() as u64 > MAX_MANIFEST_SIZE {
        return Err(Error::TooLarge { what: what.to_owned(), limit: MAX_MANIFEST_SIZE });
    }
    serde_json::from_slice(bytes).map_err(|source| Error::Parse { what: what.to_owned(), source })
}
