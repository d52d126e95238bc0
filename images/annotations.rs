//! Annotations at the four places an image has for them, asked for by keys of the form
//! `annotation[-manifest|-manifest-descriptor|-index|-index-descriptor][PLATFORM].KEY`.

use std::collections::BTreeMap;

use crosskit_platforms::Platform;

use crate::compression::estargz;
use crate::errors::{Error, Result};

/// Begins the annotation of a layer that says in which repositories a registry has it (containerd).
pub const DISTRIBUTION_SOURCE: &str = "containerd.io/distribution.source.";

/// Whether an annotation of a layer means something only where the layer is, and goes nowhere with it.
pub fn is_internal(key: &str) -> bool {
    matches!(key, "containerd.io/uncompressed" | "buildkit/createdat") || key.starts_with(DISTRIBUTION_SOURCE)
}

/// Whether an annotation of a layer says how its blob is laid out, for those who mount it without unpacking it: it goes
/// wherever the blob goes.
pub fn is_of_blob(key: &str) -> bool {
    matches!(
        key,
        estargz::TOC_DIGEST
            | estargz::UNCOMPRESSED_SIZE
            | "containerd.io/snapshot/overlaybd/blob-digest"
            | "containerd.io/snapshot/overlaybd/blob-size"
            | "containerd.io/snapshot/overlaybd/blob-fs-type"
    )
}

/// Annotations by name.
pub type Annotations = BTreeMap<String, String>;

/// A document or descriptor of an image that can be annotated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AnnotationLevel {
    /// The manifest of one platform.
    #[default]
    Manifest,
    /// What points to that manifest in the index, or in an OCI layout.
    ManifestDescriptor,
    /// The index.
    Index,
    /// What points to the index in an OCI layout.
    IndexDescriptor,
}

/// A key taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnnotationKey {
    /// Where it goes.
    pub level: AnnotationLevel,
    /// Only for this platform.
    pub platform: Option<Platform>,
    /// The annotation's name.
    pub key: String,
}

impl AnnotationKey {
    /// Reads a key; none if it is not one for annotations.
    pub fn parse(text: &str) -> Result<Option<Self>> {
        let Some(rest) = text.strip_prefix("annotation") else { return Ok(None) };
        let small = |c: char| c.is_ascii_lowercase() || c == '-';
        let (level, rest) = match rest.strip_prefix('-') {
            Some(rest) => {
                let end = rest.find(|c| !small(c)).unwrap_or(rest.len());
                if end == 0 {
                    return Ok(None);
                }
                (Some(&rest[..end]), &rest[end..])
            }
            None => (None, rest),
        };
        let (platform, rest) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((platform, rest)) => (Some(platform), rest),
            None => (None, rest),
        };
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '/' | '-');
        let key = match rest.strip_prefix('.') {
            Some(key) if !key.is_empty() && !key.contains(char::is_whitespace) => key,
            _ => return Ok(None),
        };
        if platform.is_some_and(|p| p.is_empty() || !p.chars().all(allowed)) {
            return Ok(None);
        }
        let level = match level {
            None | Some("manifest") => AnnotationLevel::Manifest,
            Some("manifest-descriptor") => AnnotationLevel::ManifestDescriptor,
            Some("index") => AnnotationLevel::Index,
            Some("index-descriptor") => AnnotationLevel::IndexDescriptor,
            Some(other) => {
                return Err(Error::invalid("annotation", format!("unrecognized annotation type {other}")));
            }
        };
        let platform = platform
            .map(Platform::parse)
            .transpose()
            .map_err(|e| Error::invalid(format!("annotation {text:?}"), e.to_string()))?;
        Ok(Some(Self { level, platform, key: key.to_owned() }))
    }
}

/// The annotations of one platform's manifest, or of an index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LevelAnnotations {
    /// For the manifest.
    pub manifest: Annotations,
    /// For its descriptor.
    pub manifest_descriptor: Annotations,
    /// For the index.
    pub index: Annotations,
    /// For its descriptor.
    pub index_descriptor: Annotations,
}

/// All annotations asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AnnotationSet {
    by_platform: BTreeMap<Option<String>, LevelAnnotations>,
}

impl AnnotationSet {
    /// Takes the annotations out of options; gives back the other options.
    pub fn parse(options: BTreeMap<String, String>) -> Result<(Self, BTreeMap<String, String>)> {
        let (mut set, mut rest) = (Self::default(), BTreeMap::new());
        for (name, value) in options {
            match AnnotationKey::parse(&name)? {
                Some(key) => set.insert(key, value),
                None => {
                    rest.insert(name, value);
                }
            }
        }
        Ok((set, rest))
    }

    /// Adds one.
    pub fn insert(&mut self, key: AnnotationKey, value: String) {
        let levels = self.by_platform.entry(key.platform.map(|p| p.format_all())).or_default();
        let level = match key.level {
            AnnotationLevel::Manifest => &mut levels.manifest,
            AnnotationLevel::ManifestDescriptor => &mut levels.manifest_descriptor,
            AnnotationLevel::Index => &mut levels.index,
            AnnotationLevel::IndexDescriptor => &mut levels.index_descriptor,
        };
        level.insert(key.key, value);
    }

    /// Adds another set; where both say something, the other one counts.
    pub fn merge(&mut self, other: Self) {
        for (platform, levels) in other.by_platform {
            let mine = self.by_platform.entry(platform).or_default();
            mine.manifest.extend(levels.manifest);
            mine.manifest_descriptor.extend(levels.manifest_descriptor);
            mine.index.extend(levels.index);
            mine.index_descriptor.extend(levels.index_descriptor);
        }
    }

    /// What applies to a platform: for manifests what is for all, then what is for it; an index has no platform, so
    /// all that is for indexes applies.
    pub fn for_platform(&self, platform: Option<&Platform>) -> LevelAnnotations {
        let mut result = LevelAnnotations::default();
        for levels in self.by_platform.values() {
            result.index.extend(levels.index.clone());
            result.index_descriptor.extend(levels.index_descriptor.clone());
        }
        let own = platform.map(Platform::format_all);
        let keys = [None].into_iter().chain(own.map(Some));
        for levels in keys.filter_map(|key| self.by_platform.get(&key)) {
            result.manifest.extend(levels.manifest.clone());
            result.manifest_descriptor.extend(levels.manifest_descriptor.clone());
        }
        result
    }

    /// The platforms that annotations are for, in the form of specifiers.
    pub fn platforms(&self) -> impl Iterator<Item = &str> {
        self.by_platform.keys().filter_map(|key| key.as_deref())
    }

    /// Whether there is anything that only an OCI index or descriptor can carry.
    pub fn needs_oci(&self) -> bool {
        self.by_platform.values().any(|l| {
            !(l.index.is_empty() && l.index_descriptor.is_empty() && l.manifest_descriptor.is_empty())
        })
    }
}
