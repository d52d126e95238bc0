//! Layers of images, which are fetched and unpacked when somebody needs their files.

use crate::node::{Node, Parents};
use crate::record::{LayerBlob, Origin, Record};
use crate::{About, Error, Kind, Ref, Result, Snapshots, clean, unpack};
use crosskit_images::{ContentStore, Descriptor, Digest, annotations};
use futures::FutureExt;
use futures::future::{BoxFuture, try_join_all};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

/// The annotation of a layer that says when it was made, RFC 3339.
const CREATED: &str = "buildkit/createdat";

/// The annotation of a layer that says what the step that made it is called.
const DESCRIPTION: &str = "buildkit/description";

/// Why a provider failed.
#[derive(Debug)]
pub struct ProvideError {
    /// Whose matter it is.
    pub kind: Kind,
    /// What happened.
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// The sessions of those who want something, as they are now.
pub type Sessions = Arc<dyn Fn() -> Vec<String> + Send + Sync>;

/// Gets blobs of layers from where they are. It knows whom to tell of its progress.
pub trait BlobProvider: Send + Sync {
    /// Puts a blob into the store. Called at most once at a time for a layer; dropping the future
    /// gives the transfer up.
    fn fetch<'a>(
        &'a self,
        desc: &'a Descriptor,
        content: &'a ContentStore,
    ) -> BoxFuture<'a, Result<(), ProvideError>>;

    /// Whether what it has was made by steps, which can be made again where it turns out to be gone or wrong.
    fn is_cache(&self) -> bool {
        false
    }

    /// Somebody else wants its blobs, who may be let in where those who came first have left.
    fn serve(&self, _who: &Sessions) {}

    /// A layer is about to be unpacked, or now is.
    fn unpacking(&self, _desc: &Descriptor, _done: bool) {}
}

/// A layer of an image, wherever it is now.
#[derive(Clone)]
pub struct RemoteLayer {
    /// The layer's blob.
    pub desc: Descriptor,
    /// The digest of the tar stream in it.
    pub diff_id: Digest,
    /// Who can get it.
    pub provider: Arc<dyn BlobProvider>,
}

/// What is known of a layer that may not be on the disk.
#[derive(Default)]
pub(crate) struct Lazy {
    provider: Mutex<Option<Arc<dyn BlobProvider>>>,
    /// What was found of it in a cache is gone or wrong.
    lost: AtomicBool,
    fetched: OnceCell<()>,
    pub(crate) unpacked: OnceCell<()>,
    /// One at a time makes the layer's blob.
    pub(crate) making_blob: tokio::sync::Mutex<()>,
}

impl Lazy {
    pub(crate) fn provider(&self) -> Option<Arc<dyn BlobProvider>> {
        self.provider.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Gives it up, if somebody can make it again.
    fn lose(&self) {
        if self.provider().is_some_and(|provider| provider.is_cache()) {
            self.lost.store(true, Ordering::Relaxed);
        }
    }
}

impl Ref {
    /// Whether all its layers are here or somebody is known who can get them. After a restart
    /// nobody is, until [`Snapshots::from_layers`] names somebody again.
    pub fn is_within_reach(&self) -> bool {
        self.node().layers().iter().all(|layer| {
            let here = || layer.any_blob(|blob| layer.store.content.holds(&blob.desc)).is_some();
            layer.record().files
                || !matches!(layer.parents, Parents::Layer(_))
                || (!layer.lazy.lost.load(Ordering::Relaxed) && (layer.lazy.provider().is_some() || here()))
        })
    }
}

impl Ref {
    /// Tells those who get its layers that somebody else wants them.
    pub fn serve(&self, who: &Sessions) {
        for layer in self.node().layers() {
            if !layer.record().files
                && let Some(provider) = layer.lazy.provider()
            {
                provider.serve(who);
            }
        }
    }

    /// Gets the blobs of layers that are neither unpacked nor in the content store.
    pub fn fetch_missing(&self) -> BoxFuture<'_, Result<()>> {
        let missing = self.node().layers().into_iter();
        let missing =
            missing.filter(|layer| !layer.record().files && matches!(layer.parents, Parents::Layer(_)));
        let fetches = missing.map(|layer| async move { fetch(&layer).await.map(drop) });
        try_join_all(fetches).map(|all| all.map(drop)).boxed()
    }

    /// The blobs of layers that are neither unpacked nor in the content store.
    pub fn missing_blobs(&self) -> Vec<Descriptor> {
        let layers = self.node().layers().into_iter();
        let elsewhere = layers.filter(|layer| {
            let here = || layer.any_blob(|blob| layer.store.content.holds(&blob.desc)).is_some();
            !layer.record().files && matches!(layer.parents, Parents::Layer(_)) && !here()
        });
        elsewhere.filter_map(|layer| layer.any_blob(|_| true)).map(|blob| blob.desc).collect()
    }
}

impl Snapshots {
    /// The snapshot that a chain of layers is, bottom first. Nothing is fetched now. The same
    /// chain gives the same snapshot; each call brings the newest way to get the blobs.
    pub fn from_layers(&self, layers: Vec<RemoteLayer>, about: About) -> Result<Option<Ref>> {
        self.chain_over(None, layers, about, false)
    }

    /// The same with a snapshot below the chain, which stays as it is. The blobs only carry the
    /// layers from another machine: an export makes its own.
    pub fn from_carried_layers(
        &self,
        base: Option<&Ref>,
        layers: Vec<RemoteLayer>,
        about: About,
    ) -> Result<Option<Ref>> {
        self.chain_over(base, layers, about, true)
    }

    fn chain_over(
        &self,
        base: Option<&Ref>,
        layers: Vec<RemoteLayer>,
        about: About,
        carried: bool,
    ) -> Result<Option<Ref>> {
        let mut below: Option<Arc<Node>> = base.map(|base| base.node().clone());
        // A snapshot that is no chain of layers stands for itself.
        let named = |node: &Arc<Node>| node.record().chain.unwrap_or_else(|| Digest::of(&node.id));
        let mut chain: Option<Digest> = below.as_ref().map(named);
        if let Some(Parents::View(of)) = below.as_ref().filter(|_| !layers.is_empty()).map(|n| &n.parents) {
            of.update(|record| record.built_upon = true)?;
        }
        for RemoteLayer { mut desc, diff_id, provider } in layers {
            let told = Told::take(&mut desc);
            let blob = LayerBlob { desc, diff_id };
            let id = chain_id(chain.as_ref(), &blob);
            chain = Some(id);
            let parent = below.take();
            let node = self.0.chain(id, || {
                let origin = Origin::Layer { parent: parent.as_ref().map(|p| p.id.clone()) };
                let mut record = Record::new(origin, about.clone());
                record.created = told.created.unwrap_or(record.created);
                record.about.description = told.description.unwrap_or(record.about.description);
                if carried { &mut record.carried } else { &mut record.blobs }.push(blob);
                (Parents::Layer(parent), record)
            })?;
            if !provider.is_cache() {
                node.lazy.lost.store(false, Ordering::Relaxed);
            }
            *node.lazy.provider.lock().unwrap_or_else(PoisonError::into_inner) = Some(provider);
            below = Some(node);
        }
        Ok(below.map(Ref::new))
    }
}

/// What a layer's descriptor tells of the step that made it (BuildKit `cache/manager.go`): those
/// who hand a cache on say when it was and what it is called.
struct Told {
    created: Option<i64>,
    description: Option<String>,
}

impl Told {
    fn take(desc: &mut Descriptor) -> Told {
        let created = desc.annotations.remove(CREATED).and_then(|text| text.parse().ok());
        let created = created.map(|time: jiff::Timestamp| time.as_nanosecond());
        let description = desc.annotations.remove(DESCRIPTION);
        // Others are of the image that the layer came with, and images built on it do not have them.
        desc.annotations.retain(|name, _| {
            annotations::is_of_blob(name) || name.starts_with(annotations::DISTRIBUTION_SOURCE)
        });
        Told { created: created.and_then(|nanos| i64::try_from(nanos).ok()), description }
    }
}

/// The name of a chain of layers: of these blobs with these contents in this order. Blobs count,
/// so that an image whose layers are compressed otherwise keeps its own.
pub(crate) fn chain_id(below: Option<&Digest>, layer: &LayerBlob) -> Digest {
    let below = below.map(ToString::to_string).unwrap_or_default();
    Digest::of(format!("{below} {} {}", layer.diff_id, layer.desc.digest))
}

/// Makes sure that the files of a snapshot are on the disk.
pub(crate) async fn materialize(node: &Arc<Node>) -> Result<()> {
    if !node.store.driver.stacks() {
        return whole_tree(node.clone()).await;
    }
    let missing: Vec<Arc<Node>> = node.layers().into_iter().filter(|layer| !layer.record().files).collect();
    if !missing.is_empty() {
        // All blobs at once, then one layer after the other: each may refer to files below.
        let fetches = missing.iter().filter(|l| matches!(l.parents, Parents::Layer(_))).map(fetch);
        let unpacks = async {
            for layer in &missing {
                unpack_layer(layer).await?;
            }
            Ok(())
        };
        futures::future::try_join(try_join_all(fetches), unpacks).await?;
    }
    if let Some(joined) = clean::joined(node) {
        let make = || async {
            for below in clean::made_on(&joined) {
                whole(below).await?;
            }
            let cancel = CancellationToken::new();
            let _give_up = cancel.clone().drop_guard();
            let joined = joined.clone();
            let task = tokio::task::spawn_blocking(move || clean::make_copies(&joined, &cancel));
            task.await.unwrap_or(Err(Error::Canceled))
        };
        joined.copies.get_or_try_init(make).await?;
    }
    Ok(())
}

// Boxed, for this is how what a joined snapshot's layers were made on comes back to where it was.
fn whole(node: Arc<Node>) -> BoxFuture<'static, Result<()>> {
    async move { materialize(&node).await }.boxed()
}

/// Makes sure that the blob of a layer is in the store.
pub(crate) async fn fetch(node: &Arc<Node>) -> Result<Option<LayerBlob>> {
    let Some(first) = node.any_blob(|_| true) else { return Ok(None) };
    let content = &node.store.content;
    if let Some(here) = node.any_blob(|blob| content.holds(&blob.desc)) {
        return Ok(Some(here));
    }
    let get = || async {
        let provider = node.lazy.provider().ok_or(Error::NoProvider { digest: first.desc.digest })?;
        provider.fetch(&first.desc, content).await.map_err(|ProvideError { kind, source }| {
            if kind != Kind::Canceled {
                node.lazy.lose();
            }
            Error::Fetch { digest: first.desc.digest, kind, source }
        })
    };
    node.lazy.fetched.get_or_try_init(get).await?;
    if !content.holds(&first.desc) {
        // It was fetched and then deleted; this time nobody else can be waiting.
        get().await?;
    }
    Ok(Some(first))
}

async fn unpack_layer(node: &Arc<Node>) -> Result<()> {
    let unpack = || async {
        if node.record().files {
            return Ok(());
        }
        match &node.parents {
            Parents::Diff { lower, upper } => difference(node, lower.clone(), upper.clone()).await?,
            _ => {
                let blob = fetch(node).await?.ok_or_else(|| Error::Gone { id: node.id.clone() })?;
                let lowers = match &node.parents {
                    Parents::Layer(Some(parent)) => crate::refs::stack(parent).into_iter().rev().collect(),
                    _ => Vec::new(),
                };
                let provider = node.lazy.provider();
                let tell = |done| provider.iter().for_each(|p| p.unpacking(&blob.desc, done));
                tell(false);
                let unpacked = unpack::blob(&node.store, &node.id, &blob, unpack::Over::Layers(lowers)).await;
                if let Err(error) = unpacked {
                    if error.kind() == Kind::User {
                        node.lazy.lose();
                    }
                    return Err(error);
                }
                tell(true);
            }
        }
        node.update(|record| record.files = true)
    };
    node.lazy.unpacked.get_or_try_init(unpack).await?;
    Ok(())
}

/// Makes the layer that turns one tree into another.
async fn difference(node: &Arc<Node>, lower: Option<Arc<Node>>, upper: Option<Arc<Node>>) -> Result<()> {
    let lower = mounted(lower).await?;
    let upper = mounted(upper).await?;
    unpack::difference(&node.store, &node.id, lower, upper).await
}

// Boxed, for this is how differences of differences come back to where they were.
fn mounted(node: Option<Arc<Node>>) -> BoxFuture<'static, Result<Option<crate::Mounted>>> {
    async move {
        match node {
            Some(node) => Ok(Some(Ref::new(node).mount_readonly().await?)),
            None => Ok(None),
        }
    }
    .boxed()
}

/// For a driver that does not stack: makes sure that the snapshot's own folder holds its tree.
fn whole_tree(node: Arc<Node>) -> BoxFuture<'static, Result<()>> {
    async move {
        let fill = || async {
            if node.record().files {
                return Ok(());
            }
            for parent in node.parent_nodes() {
                whole_tree(parent.clone()).await?;
            }
            match &node.parents {
                Parents::Layer(parent) => {
                    let blob = fetch(&node).await?.ok_or_else(|| Error::Gone { id: node.id.clone() })?;
                    let below = parent.as_ref().map(|p| p.files_dir());
                    unpack::blob(&node.store, &node.id, &blob, unpack::Over::Tree(below)).await?;
                }
                Parents::Merge(_) => {
                    let steps = node.layers().iter().map(unpack::Step::of).collect();
                    unpack::join(&node.store, &node.id, steps).await?;
                }
                Parents::Diff { lower, upper } => difference(&node, lower.clone(), upper.clone()).await?,
                Parents::View(_) => {}
            }
            node.update(|record| record.files = true)
        };
        node.lazy.unpacked.get_or_try_init(fill).await?;
        Ok(())
    }
    .boxed()
}
