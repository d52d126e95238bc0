//! The documents and layers of an image in the content store.

use crate::attestations;
use crate::manifest::{Layer, documents, rfc3339};
use crate::options::{Compression, ImageOptions};
use crate::{Export, ExportError, NamedPlatform, Part, Report, snapshot_error};
use crosskit_images::annotations::AnnotationSet;
use crosskit_images::media_types::{self, LayerPacking};
use crosskit_images::merge::{Part as IndexPart, merge_index};
use crosskit_images::registry::RegistryHosts;
use crosskit_images::{ContentStore, Descriptor, Digest, gojson};
use crosskit_snapshots::LayerForm;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What images are made of and where they go.
#[derive(Clone)]
pub struct ImageParts {
    /// Blobs on disk.
    pub content: ContentStore,
    /// Registries.
    pub registries: RegistryHosts,
}

/// An image in the content store, complete.
pub struct Committed {
    /// The index, or the manifest where there is only one.
    pub root: Descriptor,
    /// The config's digest where there is only one manifest.
    pub config: Option<Digest>,
    /// All layers, some of which may still be elsewhere.
    pub layers: Vec<crosskit_snapshots::Layer>,
}

/// Tells in a layer's descriptor which epoch its files' times were clamped to (BuildKit
/// `util/converter`).
const REWRITTEN: &str = "buildkit/rewritten-timestamp";

/// How an image's layers are packed.
pub fn form(options: &ImageOptions, epoch: Option<i64>) -> LayerForm {
    LayerForm {
        packing: match options.compression {
            Compression::Gzip => LayerPacking::Gzip,
            Compression::Zstd => LayerPacking::Zstd,
            Compression::Estargz => LayerPacking::Estargz,
            Compression::Uncompressed => LayerPacking::Plain,
        },
        level: options.compression_level,
        force: options.force_compression,
        epoch,
        carry: false,
    }
}

/// Writes an image's documents, and the layers that aren't blobs yet.
///
/// # Errors
/// Annotations for what isn't there, configs that are none, a full disk.
pub async fn commit(
    parts: &ImageParts,
    export: &Export,
    options: &ImageOptions,
    report: &Arc<dyn Report>,
) -> Result<Committed, ExportError> {
    let platforms = export.platforms()?;
    if !export.is_map && platforms.len() > 1 {
        return Err(ExportError::user("cannot export multiple platforms without multi-platform enabled"));
    }
    let attested = |platform| wants_index(export, platform, options);
    let indexed = export.is_map || platforms.iter().any(attested);
    let annotations = annotations(export, options, &platforms, indexed)?;
    let part = Part::begin(report, "exporting layers");
    let mut all = Vec::with_capacity(platforms.len());
    for platform in &platforms {
        all.push(layers_of(export, platform, options, report));
    }
    let layers = futures::future::try_join_all(all).await?;
    part.end();
    if indexed && !options.oci() && !export.attestations.is_empty() {
        return Err(ExportError::user("cannot export attestations with \"oci-mediatypes=false\""));
    }
    let mut committed = Committed { root: Descriptor::of("", b""), config: None, layers: Vec::new() };
    let mut index = Vec::new();
    for (platform, layers) in platforms.iter().zip(layers) {
        let of_platform = annotations.for_platform(Some(&platform.platform));
        let made = documents(
            export.metadata_of("containerimage.config", platform),
            export.metadata_of("containerimage.base.config", platform),
            layers.iter().map(described).collect(),
            options.oci(),
            options.epoch.or(export.epoch(platform)?),
            of_platform.manifest.clone(),
            export.inline_cache_of(platform),
        )?;
        for (kind, desc, bytes) in [
            ("exporting manifest", &made.manifest_desc, &made.manifest),
            ("exporting config", &made.config_desc, &made.config),
        ] {
            put(parts, report, kind, desc, bytes)?;
        }
        let mut desc = made.manifest_desc;
        desc.annotations = of_platform.manifest_descriptor.clone();
        desc.platform = Some(platform.platform.clone());
        if !indexed {
            committed.layers.extend(layers);
            committed.root = desc;
            committed.config = Some(made.config_desc.digest);
            return Ok(committed);
        }
        let attestation = attestation(parts, export, platform, options, &desc, &layers, report).await?;
        committed.layers.extend(layers);
        index.push(IndexPart { platform: platform.platform.clone(), manifest: desc, attestation });
    }
    let of_all = annotations.for_platform(None);
    let index = merge_index(index, options.oci(), of_all.index.clone());
    let bytes = index.to_json().map_err(|e| ExportError::internal(e.to_string()))?;
    committed.root = Descriptor::of(index.media_type, &bytes);
    put(parts, report, "exporting manifest list", &committed.root, &bytes)?;
    committed.root.annotations = of_all.index_descriptor.clone();
    Ok(committed)
}

/// Whether what is attested of a platform's result is reason to make an index.
fn wants_index(export: &Export, platform: &NamedPlatform, options: &ImageOptions) -> bool {
    export
        .attested_of(platform)
        .iter()
        .any(|attested| options.inline_attestations || !attested.is_inline_only())
}

/// The manifest of what is attested about an image.
async fn attestation(
    parts: &ImageParts,
    export: &Export,
    platform: &NamedPlatform,
    options: &ImageOptions,
    about: &Descriptor,
    layers: &[crosskit_snapshots::Layer],
    report: &Arc<dyn Report>,
) -> Result<Option<Descriptor>, ExportError> {
    let attested = export.attested_of(platform);
    if attested.is_empty() {
        return Ok(None);
    }
    let own = attestations::image_subjects(&options.name, platform, about)?;
    let stated = attestations::statements(attested, own, layers, &parts.content).await?;
    let desc = attestations::manifest(&stated, about, options.oci(), options.artifacts(), &parts.content)?;
    Part::begin(report, format!("exporting attestation manifest {}", desc.digest)).end();
    Ok(Some(desc))
}

/// The annotations of the build and of its result, which becomes an index or not.
fn annotations(
    export: &Export,
    options: &ImageOptions,
    platforms: &[NamedPlatform],
    indexed: bool,
) -> Result<AnnotationSet, ExportError> {
    let of_result = export.metadata.iter().filter(|(key, _)| key.starts_with("annotation"));
    let mut all: BTreeMap<String, String> =
        of_result.map(|(k, v)| (k.clone(), String::from_utf8_lossy(v).into_owned())).collect();
    all.extend(options.annotations.clone());
    let (set, _) = AnnotationSet::parse(all).map_err(image_error)?;
    let known: Vec<String> = platforms.iter().map(|p| p.platform.format_all()).collect();
    for platform in set.platforms() {
        // What is for another platform than the only one is for nothing.
        if export.is_map && !known.iter().any(|k| k == platform) {
            return Err(ExportError::user(format!(
                "invalid annotation: no platform {platform} found in source"
            )));
        }
    }
    if set.needs_oci() && !options.oci() {
        return Err(ExportError::user("cannot export annotations with \"oci-mediatypes=false\""));
    }
    let of_all = set.for_platform(None);
    let wants_index = !of_all.index.is_empty() || !of_all.index_descriptor.is_empty();
    if wants_index && !indexed {
        return Err(ExportError::user("index annotations not supported for single platform export"));
    }
    Ok(set)
}

fn put(
    parts: &ImageParts,
    report: &Arc<dyn Report>,
    kind: &str,
    desc: &Descriptor,
    bytes: &[u8],
) -> Result<(), ExportError> {
    let part = Part::begin(report, format!("{kind} {}", desc.digest));
    // A few kilobytes: not worth a thread.
    parts.content.put(bytes).map_err(image_error)?;
    part.end();
    Ok(())
}

async fn layers_of(
    export: &Export,
    platform: &NamedPlatform,
    options: &ImageOptions,
    report: &Arc<dyn Report>,
) -> Result<Vec<crosskit_snapshots::Layer>, ExportError> {
    let Some(found) = export.of(platform)? else { return Ok(Vec::new()) };
    let epoch = match options.rewrite_timestamp {
        true => options.epoch.or(export.epoch(platform)?),
        false => None,
    };
    if options.rewrite_timestamp && epoch.is_none() {
        tracing::warn!("rewrite-timestamp is specified, but no source-date-epoch was found");
    }
    let base = export.metadata_of("containerimage.base.config", platform);
    let untouched = match (epoch, base) {
        (Some(_), Some(base)) => diff_ids(base)?,
        _ => Vec::new(),
    };
    let (count, of_base) = found.layers_in_common(&untouched);
    // The base image's layers keep their times: they are somebody else's.
    let later = |at| epoch.filter(|_| at >= of_base);
    let part = later(count.saturating_sub(1)).map(|seconds| {
        let time = rfc3339(seconds).replace('T', " ").replace('Z', " +0000 UTC");
        Part::begin(report, format!("rewriting layers with source-date-epoch {seconds} ({time})"))
    });
    let mut layers = found.layers_each(|at| form(options, later(at))).await.map_err(snapshot_error)?;
    drop(part);
    for (at, layer) in layers.iter_mut().enumerate() {
        let desc = &mut layer.blob.desc;
        if let Some(seconds) = later(at) {
            desc.annotations.insert(REWRITTEN.to_string(), seconds.to_string());
        }
        if !options.prefer_nondistributable && media_types::is_nondistributable(&desc.media_type) {
            desc.media_type = media_types::distributable(&desc.media_type).to_string();
            desc.urls.clear();
        }
    }
    Ok(layers)
}

#[derive(serde::Deserialize)]
struct WithRootFs {
    rootfs: crosskit_images::RootFs,
}

fn diff_ids(config: &[u8]) -> Result<Vec<Digest>, ExportError> {
    let read: WithRootFs = serde_json::from_slice(config)
        .map_err(|e| ExportError::user(format!("failed to unmarshal base image config: {e}")))?;
    Ok(read.rootfs.diff_ids)
}

fn described(layer: &crosskit_snapshots::Layer) -> Layer {
    Layer {
        desc: layer.blob.desc.clone(),
        diff_id: layer.blob.diff_id,
        description: layer.snapshot.about().description,
        created: Some(gojson::time(layer.snapshot.created())),
    }
}

/// Brings layers here that are still elsewhere.
///
/// # Errors
/// A registry that is gone.
pub async fn fetch(committed: &Committed) -> Result<(), ExportError> {
    let mut all = Vec::with_capacity(committed.layers.len());
    for layer in &committed.layers {
        all.push(layer.fetch());
    }
    futures::future::try_join_all(all).await.map_err(snapshot_error)?;
    Ok(())
}

/// An error of images as one of an export.
pub fn image_error(error: crosskit_images::Error) -> ExportError {
    use crate::ErrorKind;
    use crosskit_images::ErrorKind as Kind;
    let kind = match error.kind() {
        Kind::User => ErrorKind::User,
        Kind::Environment => ErrorKind::Environment,
        Kind::Unavailable => ErrorKind::Unavailable,
        Kind::Canceled => ErrorKind::Canceled,
        Kind::Internal => ErrorKind::Internal,
    };
    ExportError::new(kind, error.to_string())
}
