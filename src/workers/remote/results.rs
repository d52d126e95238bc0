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
    let mut used = Used { lent, digests: Vec::new() };
    let manifest = manifest(&mut used, descriptor(told)?).await?;
    let config = used.document(&manifest.config).await?;
    let config = ImageConfig::parse(&config).map_err(|e| senseless(&e))?;
    let diff_ids = config.rootfs.diff_ids;
    if diff_ids.len() != manifest.layers.len() {
        let (layers, ids) = (manifest.layers.len(), diff_ids.len());
        return Err(NoResult::Worker(format!("a result of {layers} layers has a config of {ids}")));
    }
    used.digests.extend(manifest.layers.iter().map(|desc| desc.digest));
    let below = base.map_or(&[][..], |base| &base.layers);
    let shared = below.iter().zip(&diff_ids).take_while(|(layer, id)| layer.blob.diff_id == **id).count();
    // What it was written over is here already, in whatever form.
    let (base, skip) = match base.filter(|_| shared == below.len()) {
        Some(base) => (Some(&base.snapshot), shared),
        None => (None, 0),
    };
    let provider: Arc<dyn BlobProvider> = Arc::new(Shipped);
    let layers = manifest.layers.into_iter().zip(diff_ids).skip(skip).map(|(desc, diff_id)| {
        let desc = Descriptor::new(desc.media_type, desc.digest, desc.size);
        RemoteLayer { desc, diff_id, provider: provider.clone() }
    });
    let layers: Vec<RemoteLayer> = layers.collect();
    let descs: Vec<Descriptor> = layers.iter().map(|layer| layer.desc.clone()).collect();
    let own = |e| NoResult::Own(snapshot_error(e));
    let made = snapshots.from_carried_layers(base, layers, about).map_err(own)?;
    // Only now nothing takes the blobs away any more.
    for desc in descs {
        lent.ensure(&desc.digest).await.map_err(NoResult::Own)?;
        if !lent.content().holds(&desc) {
            return Err(NoResult::Worker(format!("layer {} of a result was not shipped", desc.digest)));
        }
    }
    Ok(made)
}

/// The blobs of a result, held until it is a snapshot.
struct Used<'a> {
    lent: &'a Lent,
    digests: Vec<Digest>,
}

impl Drop for Used<'_> {
    fn drop(&mut self) {
        self.digests.iter().for_each(|digest| self.lent.release(digest));
    }
}

impl Used<'_> {
    async fn document(&mut self, desc: &Descriptor) -> Result<Vec<u8>, NoResult> {
        self.digests.push(desc.digest);
        self.lent.ensure(&desc.digest).await.map_err(NoResult::Own)?;
        self.lent.content().read_async(desc.digest, LARGEST_DOCUMENT).await.map_err(|e| senseless(&e))
    }
}

fn descriptor(told: &str) -> Result<Descriptor, NoResult> {
    let malformed =
        |e: &dyn std::fmt::Display| NoResult::Worker(format!("its {DESCRIPTOR} is malformed: {e}"));
    let json = base64::engine::general_purpose::STANDARD.decode(told).map_err(|e| malformed(&e))?;
    serde_json::from_slice(&json).map_err(|e| malformed(&e))
}

/// The manifest of the image; the first one where a daemon makes an index of it.
async fn manifest(used: &mut Used<'_>, mut root: Descriptor) -> Result<Manifest, NoResult> {
    let mut bytes = used.document(&root).await?;
    if media_types::is_index(&root.media_type) {
        let index = Index::parse(&bytes).map_err(|e| senseless(&e))?;
        let first = index.manifests.into_iter().next();
        root = first.ok_or_else(|| NoResult::Worker("the index of a result is empty".to_string()))?;
        bytes = used.document(&root).await?;
    }
    Manifest::parse(&bytes).map_err(|e| senseless(&e))
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
