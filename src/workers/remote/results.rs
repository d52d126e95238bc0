//! What a worker has shipped, as a snapshot: layers on top of the input that was written to,
//! known by their blobs and unpacked when somebody needs their files.

use super::inputs::InputImage;
use super::lent::Lent;
use crate::ResultRef;
use crate::ops::snapshot_error;
use base64::Engine as _;
use crosskit_images::{ContentStore, Descriptor, Digest, ImageConfig, Index, Manifest, media_types};
use crosskit_snapshots::{About, BlobProvider, Kind, ProvideError, RemoteLayer, Snapshots};
use crosskit_solver::OpError;
use futures::future::BoxFuture;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The key under which an exporter tells what it made, as JSON in base64 (BuildKit
/// `exporter/containerimage/exptypes`).
const DESCRIPTOR: &str = "containerimage.descriptor";

/// A document of an image at most, in bytes.
const LARGEST_DOCUMENT: u64 = 32 << 20;

/// Why no result can be made of what a worker has shipped.
pub(super) enum NoResult {
    /// The worker has shipped what makes no sense.
    Worker(String),
    /// Something has failed on this side.
    Own(OpError),
}

/// Makes the result of an export. `base` is the input that was written to.
pub(super) async fn take(
    snapshots: &Snapshots,
    lent: &Lent,
    response: &BTreeMap<String, String>,
    base: Option<&InputImage>,
    about: About,
) -> Result<ResultRef, NoResult> {
    let told = response
        .get(DESCRIPTOR)
        .ok_or_else(|| NoResult::Worker(format!("it does not tell the {DESCRIPTOR} of a result")))?;
    let root = descriptor(told)?;
    let content = lent.content();
    let manifest = manifest(content, root).await?;
    let config = document(content, &manifest.config).await?;
    let config = ImageConfig::parse(&config).map_err(|e| senseless(&e))?;
    let diff_ids = config.rootfs.diff_ids;
    if diff_ids.len() != manifest.layers.len() {
        let (layers, ids) = (manifest.layers.len(), diff_ids.len());
        return Err(NoResult::Worker(format!("a result of {layers} layers has a config of {ids}")));
    }
    let below = base.map_or(&[][..], |base| &base.layers);
    let shared = below.iter().zip(&diff_ids).take_while(|(layer, id)| layer.blob.diff_id == **id).count();
    // What it was written over is here already, in whatever form.
    let (base, skip) = match base.filter(|_| shared == below.len()) {
        Some(base) => (Some(&base.snapshot), shared),
        None => (None, 0),
    };
    let provider: Arc<dyn BlobProvider> = Arc::new(Shipped);
    let mut layers = Vec::new();
    for (desc, diff_id) in manifest.layers.into_iter().zip(diff_ids).skip(skip) {
        let desc = Descriptor::new(desc.media_type, desc.digest, desc.size);
        if !content.holds(&desc) {
            return Err(NoResult::Worker(format!("layer {} of a result was not shipped", desc.digest)));
        }
        layers.push(RemoteLayer { desc, diff_id, provider: provider.clone() });
    }
    snapshots.from_carried_layers(base, layers, about).map_err(|e| NoResult::Own(snapshot_error(e)))
}

fn descriptor(told: &str) -> Result<Descriptor, NoResult> {
    let malformed =
        |e: &dyn std::fmt::Display| NoResult::Worker(format!("its {DESCRIPTOR} is malformed: {e}"));
    let json = base64::engine::general_purpose::STANDARD.decode(told).map_err(|e| malformed(&e))?;
    serde_json::from_slice(&json).map_err(|e| malformed(&e))
}

/// The manifest of the image; the first one where a daemon makes an index of it.
async fn manifest(content: &ContentStore, mut root: Descriptor) -> Result<Manifest, NoResult> {
    let mut bytes = document(content, &root).await?;
    if media_types::is_index(&root.media_type) {
        let index = Index::parse(&bytes).map_err(|e| senseless(&e))?;
        let first = index.manifests.into_iter().next();
        root = first.ok_or_else(|| NoResult::Worker("the index of a result is empty".to_string()))?;
        bytes = document(content, &root).await?;
    }
    Manifest::parse(&bytes).map_err(|e| senseless(&e))
}

async fn document(content: &ContentStore, desc: &Descriptor) -> Result<Vec<u8>, NoResult> {
    let digest: Digest = desc.digest;
    content.read_async(digest, LARGEST_DOCUMENT).await.map_err(|e| senseless(&e))
}

fn senseless(error: &crosskit_images::Error) -> NoResult {
    NoResult::Worker(format!("reading a result: {error}"))
}

/// Stands for blobs that are here. Whoever asks for one asks in vain: it was lost.
struct Shipped;

impl BlobProvider for Shipped {
    fn fetch<'a>(
        &'a self,
        desc: &'a Descriptor,
        _content: &'a ContentStore,
    ) -> BoxFuture<'a, Result<(), ProvideError>> {
        let lost = format!("blob {} of a worker's result is no longer here", desc.digest);
        Box::pin(std::future::ready(Err(ProvideError { kind: Kind::Environment, source: lost.into() })))
    }
}
