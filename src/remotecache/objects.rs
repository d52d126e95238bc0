//! Caches in stores that know only keys: a blob for each layer, and documents with keys that also
//! tell what is to be known of the blobs.

use crate::backends::Backend;
use crate::chains::Collected;
use crate::error::{RemoteCacheError, Result};
use crate::import::Found;
use crate::layers::{Available, LayerPlace, UNCOMPRESSED};
use crate::manifests::{json, parse};
use crosskit_cacheconfig::{CacheConfig, CacheLayer, LayerAnnotations, Limits, unite};
use crosskit_images::{ContentStore, Descriptor, Digest, NotArrived, gojson};
use crosskit_objectstores::{PieceStream, StoreError, read_on};
use crosskit_snapshots::{BlobProvider, Kind, Layer, ProvideError};
use crosskit_solver::VertexProgress;
use futures::future::BoxFuture;
use futures::{StreamExt, TryStreamExt};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

/// The annotation with the time at which a layer was made.
const CREATED: &str = "buildkit/createdat";

/// Documents, each with its name.
pub(crate) type Documents = Vec<(String, Vec<u8>)>;

/// A place for blobs and for the documents of a cache.
pub(crate) trait Shelf: Send + Sync + 'static {
    /// The documents that there are.
    fn documents(&self) -> BoxFuture<'_, Result<Documents>>;

    /// The size of a layer's blob in bytes; none if it is not there.
    fn size<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<Option<u64>, StoreError>>;

    /// The bytes of a layer's blob from a place on; none if it is not there.
    fn read<'a>(
        &'a self,
        digest: &'a Digest,
        from: u64,
    ) -> BoxFuture<'a, Result<Option<PieceStream>, StoreError>>;

    /// Whether a layer's blob is there already, which then counts as new.
    fn keep<'a>(&'a self, desc: &'a Descriptor) -> BoxFuture<'a, Result<bool>>;

    /// Puts a layer's blob there.
    fn give_layer<'a>(&'a self, desc: &'a Descriptor, file: Arc<File>) -> BoxFuture<'a, Result<()>>;

    /// Puts the document there, last of all, under each of its names.
    fn give_document<'a>(&'a self, document: &'a Document<'a>) -> BoxFuture<'a, Result<()>>;
}

/// What becomes of the document that is there, or of none.
pub(crate) type Become<'a> = dyn Fn(Option<&[u8]>) -> Result<Vec<u8>> + Send + Sync + 'a;

/// A document that is to be written.
pub(crate) enum Document<'a> {
    /// Whatever is there.
    Alone(Vec<u8>),
    /// As it becomes of what is there, which must not have changed when it is written.
    After(&'a Become<'a>),
}

/// A cache on a shelf.
pub(crate) struct OnShelf<S> {
    pub name: &'static str,
    /// Layers that are given at once.
    pub at_once: usize,
    /// For how long others' part stays; none if nothing is read before something is written.
    pub merging: Option<Duration>,
    pub shelf: Arc<S>,
    pub content: ContentStore,
}

impl<S: Shelf> Backend for OnShelf<S> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn find<'a>(&'a self, step: &'a VertexProgress) -> BoxFuture<'a, Result<Vec<Found>>> {
        Box::pin(async move {
            let place: Arc<dyn LayerPlace> = Arc::new(Layers(self.shelf.clone()));
            let mut found = Vec::new();
            for (name, bytes) in self.shelf.documents().await? {
                let config: CacheConfig = parse(&bytes, &format!("cache {name}"))?;
                let mut layers = HashMap::with_capacity(config.layers.len());
                for layer in &config.layers {
                    layers.insert(layer.blob.clone(), available(layer, &place)?);
                }
                drop(step.part(format!("found {} layers in cache {name}", layers.len())));
                found.push(Found { config, layers });
            }
            Ok(found)
        })
    }

    fn give<'a>(
        &'a self,
        cache: Collected,
        step: &'a VertexProgress,
    ) -> BoxFuture<'a, Result<BTreeMap<String, String>>> {
        Box::pin(async move {
            let Some(layers) = cache.to_give(step) else { return Ok(BTreeMap::new()) };
            let mut gifts = Vec::with_capacity(layers.len());
            for layer in &layers {
                gifts.push(self.layer(layer, step));
            }
            futures::stream::iter(gifts).buffer_unordered(self.at_once).try_collect::<()>().await?;
            let annotations: HashMap<String, LayerAnnotations> = layers
                .into_iter()
                .map(|layer| (layer.blob.desc.digest.to_string(), annotations(layer)))
                .collect();
            let mut config = cache.config;
            for layer in &mut config.layers {
                layer.annotations = annotations.get(&layer.blob).cloned();
            }
            let bytes = json(&config)?;
            let done = step.part(format!("writing cache manifest {}", Digest::of(&bytes)));
            let given = match self.merging {
                None => self.shelf.give_document(&Document::Alone(bytes)).await,
                Some(max_age) => {
                    let both = |there: Option<&[u8]>| match there {
                        Some(there) => united(&config, there, max_age),
                        None => Ok(bytes.clone()),
                    };
                    self.shelf.give_document(&Document::After(&both)).await
                }
            };
            drop(done);
            given.map_err(|e| e.while_doing("error writing manifest"))?;
            Ok(BTreeMap::new())
        })
    }
}

impl<S: Shelf> OnShelf<S> {
    /// Gives a layer unless it is there, telling of it.
    fn layer<'a>(&'a self, layer: &'a Layer, step: &'a VertexProgress) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let desc = &layer.blob.desc;
            let kept = self.shelf.keep(desc).await;
            if kept.map_err(|e| e.while_doing("failed to check file presence in cache"))? {
                return Ok(());
            }
            let done = step.part(format!("writing layer {}", desc.digest));
            let given = self.write(layer).await;
            drop(done);
            given.map_err(|e| e.while_doing("error writing layer blob"))
        })
    }

    async fn write(&self, layer: &Layer) -> Result<()> {
        let desc = &layer.blob.desc;
        layer.fetch().await.map_err(RemoteCacheError::snapshots("get it from where it is"))?;
        let digest = desc.digest;
        // A store of objects takes whatever it is given.
        let reader = self.content.off_runtime(move |content| {
            content.verify(&digest)?;
            content.reader(&digest)
        });
        let reader = reader.await.map_err(RemoteCacheError::images(format!("read {digest}")))?;
        self.shelf.give_layer(desc, Arc::new(reader.into_file())).await
    }
}

/// A document with what others have in the one that is there.
fn united(own: &CacheConfig, there: &[u8], max_age: Duration) -> Result<Vec<u8>> {
    let both = parse::<CacheConfig>(there, "cache").and_then(|others| {
        let told: HashSet<&str> = { others.layers.iter() }
            .filter(|layer| layer.annotations.is_some())
            .map(|layer| layer.blob.as_str())
            .collect();
        Ok(unite(own, &others, |blob| told.contains(blob), &Limits::new(max_age))?)
    });
    match both {
        Ok(both) => json(&both),
        Err(why) => {
            tracing::warn!("what is there is passed over: {why}");
            json(own)
        }
    }
}

/// A layer as a document tells of it.
fn available(layer: &CacheLayer, place: &Arc<dyn LayerPlace>) -> Result<Available> {
    let invalid = |what: &str| RemoteCacheError::Invalid(format!("cache layer {:?} with {what}", layer.blob));
    let told = layer.annotations.as_ref().ok_or_else(|| invalid("missing annotations"))?;
    if told.diff_id.is_empty() {
        return Err(invalid("missing diffid"));
    }
    let digest = layer.blob.parse().map_err(|_| invalid("an invalid digest"))?;
    let diff_id = told.diff_id.parse().map_err(|_| invalid("an invalid diffid"))?;
    let size = u64::try_from(told.size).map_err(|_| invalid("an invalid size"))?;
    let mut desc = Descriptor::new(told.media_type.clone(), digest, size);
    desc.annotations.insert(UNCOMPRESSED.to_owned(), told.diff_id.clone());
    // Go's zero time stands for none.
    if !told.created.is_empty() && !told.created.starts_with("0001-") {
        desc.annotations.insert(CREATED.to_owned(), told.created.clone());
    }
    Ok(Available { desc, diff_id, place: place.clone() })
}

fn annotations(layer: &Layer) -> LayerAnnotations {
    let desc = &layer.blob.desc;
    LayerAnnotations {
        media_type: desc.media_type.clone(),
        diff_id: layer.blob.diff_id.to_string(),
        size: i64::try_from(desc.size).unwrap_or(i64::MAX),
        created: gojson::time(layer.snapshot.created()),
    }
}

/// Gets layers from a shelf, when somebody needs them.
struct Layers<S>(Arc<S>);

impl<S: Shelf> BlobProvider for Layers<S> {
    fn is_cache(&self) -> bool {
        true
    }

    fn fetch<'a>(
        &'a self,
        desc: &'a Descriptor,
        content: &'a ContentStore,
    ) -> BoxFuture<'a, Result<(), ProvideError>> {
        Box::pin(async move {
            let wanted = desc.clone();
            let held = content.off_runtime(move |content| Ok(content.holds(&wanted))).await;
            if held.map_err(of_images)? {
                return Ok(());
            }
            let what = format!("get layer {} of the cache", desc.digest);
            let pieces = read_on(what, desc.size, |from| self.0.read(&desc.digest, from));
            let arrived = content.arrive(desc.digest, Some(desc.size), pieces.boxed(), |_| ()).await;
            arrived.map_err(|error| match error {
                NotArrived::Sender(error) => {
                    use crosskit_objectstores::ErrorKind;
                    let kind = match error.kind() {
                        ErrorKind::User => Kind::User,
                        ErrorKind::Environment => Kind::Environment,
                        ErrorKind::Unavailable => Kind::Unavailable,
                    };
                    ProvideError { kind, source: Box::new(error) }
                }
                NotArrived::Store(error) => of_images(error),
            })
        })
    }
}

fn of_images(error: crosskit_images::Error) -> ProvideError {
    ProvideError { kind: Kind::Unavailable, source: Box::new(error) }
}

impl<S: Shelf> LayerPlace for Layers<S> {
    fn secure<'a>(&'a self, desc: &'a Descriptor, _: &'a ContentStore) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let digest = &desc.digest;
            let size = self.0.size(digest).await;
            let size =
                size.map_err(RemoteCacheError::store(format!("look for layer {digest} of the cache")))?;
            match size {
                Some(size) if size == desc.size => Ok(()),
                Some(size) => Err(RemoteCacheError::Invalid(format!(
                    "layer {digest} of the cache has {size} bytes, not {}",
                    desc.size
                ))),
                None => Err(RemoteCacheError::Invalid(format!("layer {digest} of the cache is not there"))),
            }
        })
    }

    fn provider(self: Arc<Self>) -> Arc<dyn BlobProvider> {
        self
    }
}
