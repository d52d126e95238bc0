//! Snapshots' layers as blobs, for those who send them elsewhere.

use crate::lazy;
use crate::node::{Node, Parents};
use crate::record::{CHAINS, LayerBlob};
use crate::refs::stack;
use crate::{Error, Ref, Result};
use crosskit_images::compression::estargz::TOC_DIGEST;
use crosskit_images::compression::{PackOptions, pack_layer, repack_layer};
use crosskit_images::layers::{DiffOptions, LowerView, diff_layer, diff_trees};
use crosskit_images::media_types::{LayerPacking, layer_packing};
use crosskit_images::{Digest, annotations};
use crosskit_metadata::Change;
use futures::{StreamExt, TryStreamExt};
use std::path::PathBuf;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// How layers are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerForm {
    /// How new blobs are packed.
    pub packing: LayerPacking,
    /// The level of packing; none for the usual one.
    pub level: Option<i32>,
    /// Whether blobs that are packed otherwise are packed anew.
    pub force: bool,
    /// Later file times become this one, in seconds since 1970.
    pub epoch: Option<i64>,
    /// Whether new blobs only carry the layers to another machine: later exports do not take
    /// them, and those who carry again get the same ones.
    pub carry: bool,
}

impl Default for LayerForm {
    fn default() -> Self {
        LayerForm { packing: LayerPacking::Gzip, level: None, force: false, epoch: None, carry: false }
    }
}

/// A layer of a snapshot and its blob.
#[derive(Clone)]
pub struct Layer {
    /// The blob, which may still be elsewhere: see [`Layer::fetch`].
    pub blob: LayerBlob,
    /// The snapshot that the layer is the top of.
    pub snapshot: Ref,
}

impl Layer {
    /// Makes sure that the blob is in the content store.
    pub async fn fetch(&self) -> Result<()> {
        let node = self.snapshot.node();
        if !node.store.content.holds(&self.blob.desc) {
            lazy::fetch(node).await?;
        }
        Ok(())
    }
}

impl Ref {
    /// The layers, bottom first. Blobs that do not exist yet are made from the files and
    /// remembered; those of images that were not needed so far stay where they are.
    pub async fn layers(&self, form: LayerForm) -> Result<Vec<Layer>> {
        self.layers_each(|_| form).await
    }

    /// The same, each layer in a form of its own: it is told how many layers are below it.
    pub async fn layers_each(&self, form: impl Fn(usize) -> LayerForm) -> Result<Vec<Layer>> {
        let at_once = std::thread::available_parallelism().map_or(2, usize::from);
        let nodes: Vec<_> =
            self.node().layers().into_iter().enumerate().map(|(at, node)| (node, form(at))).collect();
        let as_they_are = nodes.iter().all(|(_, form)| form.epoch.is_none());
        let layers = futures::stream::iter(nodes)
            .map(|(node, form)| async move {
                let blob = layer_blob(&node, form).await?;
                Ok::<_, Error>(Layer { blob, snapshot: Ref::new(node) })
            })
            .buffered(at_once)
            .try_collect::<Vec<_>>()
            .await?;
        if as_they_are {
            remember_chain(self.node())?;
        }
        Ok(layers)
    }

    /// How many layers it has, and how many of the lowest are known to be these.
    pub fn layers_in_common(&self, diff_ids: &[Digest]) -> (usize, usize) {
        let layers = self.node().layers();
        let is = |(node, diff_id): &(&Arc<Node>, &Digest)| node.blob(|b| b.diff_id == **diff_id).is_some();
        (layers.len(), layers.iter().zip(diff_ids).take_while(is).count())
    }
}

impl Ref {
    /// The layers, bottom first, if a blob of each is known already: nothing is made or moved.
    pub fn known_layers(&self, form: LayerForm) -> Option<Vec<Layer>> {
        let layer = |node: Arc<Node>| {
            let blob = known_blob(&node, form)?;
            Some(Layer { blob, snapshot: Ref::new(node) })
        };
        self.node().layers().into_iter().map(layer).collect()
    }

    /// Its top layer as it has gone out, to tell of it: one that never went with its own times, with those that it got.
    pub fn told_layer(&self) -> Option<Layer> {
        let node = self.node();
        let own = known_blob(node, LayerForm::default());
        let blob = own.or_else(|| node.record().variants.last().map(|(_, blob)| blob.clone()))?;
        Some(Layer { blob, snapshot: self.clone() })
    }
}

/// Whether a blob is packed as it is wanted.
pub(crate) fn fits(blob: &LayerBlob, form: LayerForm) -> bool {
    packing(blob) == Some(form.packing)
}

fn packing(blob: &LayerBlob) -> Option<LayerPacking> {
    layer_packing(&blob.desc.media_type).map(|packing| match packing {
        // The type says no more than gzip.
        LayerPacking::Gzip if blob.desc.annotations.contains_key(TOC_DIGEST) => LayerPacking::Estargz,
        packing => packing,
    })
}

/// The blob of a layer in the wanted form, if there is one.
fn known_blob(node: &Arc<Node>, form: LayerForm) -> Option<LayerBlob> {
    if form.epoch.is_some() {
        return node.variant(form);
    }
    let carried = form.carry.then(|| node.carried(|blob| fits(blob, form))).flatten();
    // Without force the first blob counts, whatever other builds had made of it since.
    carried.or_else(|| node.blob(|blob| !form.force || fits(blob, form)))
}

/// Whether a blob that was made here is gone: a damaged one was removed, say. Blobs of images can be somewhere else.
fn is_lost(node: &Arc<Node>, blob: &LayerBlob) -> bool {
    let from_elsewhere = |key: &String| key.starts_with(annotations::DISTRIBUTION_SOURCE);
    node.record().files
        && node.lazy.provider().is_none()
        && !blob.desc.annotations.keys().any(from_elsewhere)
        && !node.store.content.holds(&blob.desc)
}

async fn layer_blob(node: &Arc<Node>, form: LayerForm) -> Result<LayerBlob> {
    let known = |node| known_blob(node, form).filter(|blob| !is_lost(node, blob));
    if let Some(blob) = known(node) {
        return Ok(blob);
    }
    let _turn = node.lazy.making_blob.lock().await;
    if let Some(blob) = known(node) {
        return Ok(blob);
    }
    let lost = known_blob(node, form);
    let form = match lost.as_ref().and_then(packing) {
        Some(packing) => LayerForm { packing, ..form },
        None => form,
    };
    let made = match lazy::fetch(node).await {
        Ok(Some(other)) => repack(node, &other, form).await?,
        Err(Error::NoProvider { .. }) if lost.is_some() => make(node, form).await?,
        other => {
            other?;
            make(node, form).await?
        }
    };
    tracing::debug!(digest = %made.desc.digest, bytes = made.desc.size, packing = ?form.packing, "packed a layer");
    node.update(|record| {
        let gone = |blob: &LayerBlob| lost.as_ref().is_some_and(|lost| lost == blob);
        let blobs = match form.epoch {
            Some(epoch) => {
                record.variants.retain(|(_, blob)| !gone(blob));
                record.variants.push((epoch, made.clone()));
                record.size = None;
                return;
            }
            None if form.carry => &mut record.carried,
            None => &mut record.blobs,
        };
        match blobs.iter_mut().find(|blob| gone(blob)) {
            Some(place) => *place = made.clone(),
            None => blobs.push(made.clone()),
        }
        record.size = None;
    })?;
    Ok(made)
}

async fn repack(node: &Arc<Node>, blob: &LayerBlob, form: LayerForm) -> Result<LayerBlob> {
    let (store, digest, diff_id) = (node.store.clone(), blob.desc.digest, blob.diff_id);
    blocking(move |_| {
        let options = PackOptions::new(form.packing).with_level(form.level)?;
        repack_layer(&store.content, &digest, Some(&diff_id), &options, form.epoch)
    })
    .await
    .map_err(|source| Error::Content { doing: format!("packing layer {digest} anew"), source })
}

/// Makes the blob of a layer from its files.
async fn make(node: &Arc<Node>, form: LayerForm) -> Result<LayerBlob> {
    lazy::materialize(node).await?;
    let (below, above) = match &node.parents {
        Parents::Layer(parent) => (parent.clone(), None),
        Parents::Diff { lower, upper } => (lower.clone(), upper.clone()),
        Parents::Merge(_) | Parents::View(_) => (None, None),
    };
    for other in below.iter().chain(&above) {
        // A driver that does not stack compares whole trees.
        lazy::materialize(other).await?;
    }
    let lowers: Vec<PathBuf> = below.iter().flat_map(|b| stack(b).into_iter().rev()).collect();
    let stacks = node.store.driver.stacks();
    let folder = match &above {
        Some(above) if !stacks => above.files_dir(),
        _ => node.files_dir(),
    };
    let (store, id) = (node.store.clone(), node.id.clone());
    blocking(move |cancel| {
        let options = PackOptions::new(form.packing).with_level(form.level)?;
        let diff = DiffOptions { epoch: form.epoch, cancel: Some(cancel), ..DiffOptions::default() };
        let produce = |out: &mut dyn std::io::Write| {
            Ok(if stacks {
                diff_layer(&folder, &lowers, out, &diff)?
            } else {
                diff_trees(&LowerView::open(&lowers)?, &folder, out, &diff)?
            })
        };
        Ok(pack_layer(&store.content, &options, produce)?.1)
    })
    .await
    .map_err(|source| Error::Content { doing: format!("making the layer of snapshot {id}"), source })
}

async fn blocking(
    work: impl FnOnce(CancellationToken) -> crosskit_images::Result<crosskit_images::compression::LayerBlob>
    + Send
    + 'static,
) -> crosskit_images::Result<LayerBlob> {
    let cancel = CancellationToken::new();
    let _give_up = cancel.clone().drop_guard();
    let made = tokio::task::spawn_blocking(move || work(cancel))
        .await
        .unwrap_or_else(|_| Err(crosskit_images::Error::Canceled { doing: "make a layer's blob".into() }))?;
    Ok(LayerBlob { desc: made.desc, diff_id: made.diff_id })
}

/// Makes a chain of layers known by its blobs, so that it is found again when the same chain
/// comes back from elsewhere.
fn remember_chain(node: &Arc<Node>) -> Result<()> {
    let mut chain = None;
    for layer in node.layers() {
        if !matches!(layer.parents, Parents::Layer(_)) {
            return Ok(());
        }
        let Some(blob) = layer.any_blob(|_| true) else { return Ok(()) };
        let id = layer.record().chain.unwrap_or_else(|| lazy::chain_id(chain.as_ref(), &blob));
        if layer.record().chain.is_none() && layer.store.db.get(CHAINS, id.as_bytes())?.is_none() {
            layer.update(|record| record.chain = Some(id))?;
            layer.store.db.write(vec![Change::put(CHAINS, id.as_bytes().to_vec(), layer.id.as_bytes())])?;
        }
        chain = Some(id);
    }
    Ok(())
}
