//! Caches that are blobs with a manifest, like images: the layers, the document with the keys, and
//! what holds them together. Or images that have their cache with them.

use crate::backends::Backend;
use crate::chains::Collected;
use crate::error::{RemoteCacheError, Result};
use crate::import::Found;
use crate::layers::{Available, LayerPlace, UNCOMPRESSED};
use crate::options::Documents;
use crate::turns::Turns;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crosskit_cacheconfig::{self as config, CacheConfig, CacheLayer};
use crosskit_images::{Descriptor, Digest, Index, Manifest, annotations, gojson, media_types};
use crosskit_snapshots::Layer;
use crosskit_solver::VertexProgress;
use futures::future::BoxFuture;
use futures::{StreamExt, TryStreamExt};
use serde::Deserialize;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

/// The largest document with keys, in bytes: that of a hundred thousand steps.
pub(crate) const LARGEST: u64 = 64 << 20;

/// Blobs on their way at once.
const AT_ONCE: usize = 8;

/// Indexes within indexes.
const MAX_DEPTH: usize = 4;

/// Images that are looked at for the cache they have with them.
const MAX_IMAGES: usize = 256;

/// The key in the answer to the client under which the manifest is told.
const MANIFEST: &str = "cache.manifest";

/// A place for blobs and manifests.
pub(crate) trait Place: Send + Sync + 'static {
    /// What tells it from other places.
    fn name(&self) -> String;

    /// The manifest that there is to import.
    fn root(&self) -> BoxFuture<'_, Result<Digest>>;

    /// The bytes of a manifest, checked.
    fn manifest(&self, digest: Digest) -> BoxFuture<'_, Result<Vec<u8>>>;

    /// The bytes of another small blob, checked.
    fn document<'a>(&'a self, desc: &'a Descriptor) -> BoxFuture<'a, Result<Vec<u8>>>;

    /// Where layers come from.
    fn layers(&self) -> Arc<dyn LayerPlace>;

    /// Notes in a layer where it was found.
    fn mark(&self, desc: &mut Descriptor);

    /// Puts a layer there, wherever it is now, unless it is there.
    fn give_layer<'a>(&'a self, layer: &'a Layer) -> BoxFuture<'a, Result<()>>;

    /// Puts a small blob there.
    fn give_document<'a>(&'a self, desc: &'a Descriptor, bytes: Vec<u8>) -> BoxFuture<'a, Result<()>>;

    /// Puts the manifest there, last of all.
    fn give_manifest<'a>(
        &'a self,
        spot: Spot,
        desc: &'a Descriptor,
        bytes: Vec<u8>,
    ) -> BoxFuture<'a, Result<()>>;

    /// The manifest that there is now, as others may have written it.
    fn standing(&self, spot: Spot) -> BoxFuture<'_, Result<Option<Digest>>>;

    /// Which of these blobs are not there any more.
    fn lost(&self, blobs: Vec<Digest>) -> BoxFuture<'_, Result<Vec<Digest>>>;
}

/// Where in a place a manifest goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spot {
    /// Where everybody looks for the cache.
    Cache,
    /// Beside it, where it says whose turn it is to write.
    Turn,
}

/// How large a document may be.
pub(crate) fn largest(desc: &Descriptor) -> Result<u64> {
    if desc.size > LARGEST {
        let what = format!("blob {}", desc.digest);
        return Err(RemoteCacheError::TooLarge { what, size: desc.size, limit: LARGEST });
    }
    Ok(LARGEST)
}

/// A cache as blobs with a manifest in a place.
pub(crate) struct Manifests<P> {
    pub name: &'static str,
    pub documents: Documents,
    /// For how long others' part stays; none if nothing is read before something is written.
    pub merging: Option<Duration>,
    pub turns: Turns,
    pub place: P,
}

impl<P: Place> Backend for Manifests<P> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn find<'a>(&'a self, step: &'a VertexProgress) -> BoxFuture<'a, Result<Vec<Found>>> {
        Box::pin(async move {
            let bytes = self.place.manifest(self.place.root().await?).await?;
            let root = Document::parse(&bytes)?;
            drop(step.part(format!("inferred cache manifest type: {}", root.media_type())));
            let (config, mut listed) = root.cache();
            let Some(config) = config else { return self.within_images(root).await };
            let config = parse(&self.place.document(&config).await?, "cache config")?;
            listed.iter_mut().for_each(|desc| self.place.mark(desc));
            let place = self.place.layers();
            let layers = listed
                .into_iter()
                .filter_map(|desc| Some((desc.digest.to_string(), Available::listed(desc, &place)?)));
            Ok(vec![Found { config, layers: layers.collect() }])
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
            for layer in layers {
                gifts.push(self.layer(layer, step));
            }
            let gifts = futures::stream::iter(gifts).buffer_unordered(AT_ONCE);
            // When one fails, the others end with it.
            let given = async move { gifts.try_collect::<()>().await };
            let layers = cache
                .layers
                .iter()
                .map(|layer| (layer.blob.desc.digest.to_string(), described(layer, self.documents.oci())));
            let layers: Listed = layers.collect();
            let manifest = match self.merging {
                Some(max_age) => self.give_merged(&cache.config, layers, max_age, given, step).await?,
                None => {
                    given.await?;
                    let whole = Whole::of(self.documents, &cache.config, &layers)?;
                    self.give_config(&whole, step).await?;
                    self.give_whole(&whole, step).await?;
                    whole.manifest
                }
            };
            let told = String::from_utf8_lossy(&json(&manifest)?).into_owned();
            Ok(BTreeMap::from([(MANIFEST.to_string(), told)]))
        })
    }
}

impl<P: Place> Manifests<P> {
    /// The caches that images have with them.
    async fn within_images(&self, root: Document) -> Result<Vec<Found>> {
        let mut images = Vec::new();
        let mut seen = HashSet::new();
        let mut look_at = vec![(root, 0)];
        while let Some((document, depth)) = look_at.pop() {
            let index = match document {
                Document::Manifest(manifest) => {
                    images.push(manifest);
                    continue;
                }
                Document::Index(index) => index,
            };
            if depth == MAX_DEPTH {
                return Err(RemoteCacheError::Invalid("indexes are nested too deeply".to_string()));
            }
            for desc in index.manifests {
                let known =
                    media_types::is_manifest(&desc.media_type) || media_types::is_index(&desc.media_type);
                if !known || !seen.insert(desc.digest) {
                    continue;
                }
                if seen.len() > MAX_IMAGES {
                    return Err(RemoteCacheError::Invalid(format!("more than {MAX_IMAGES} images")));
                }
                let bytes = self.place.manifest(desc.digest).await?;
                look_at.push((Document::parse(&bytes)?, depth + 1));
            }
        }
        let mut read = Vec::with_capacity(images.len());
        for image in images {
            read.push(self.within(*image));
        }
        let read = futures::stream::iter(read).buffered(AT_ONCE);
        let found: Vec<Option<Found>> = read.try_collect().await?;
        Ok(found.into_iter().flatten().collect())
    }

    /// Gives the document with the keys, telling of it.
    pub(crate) async fn give_config(&self, whole: &Whole, step: &VertexProgress) -> Result<()> {
        let done = step.part(format!("writing config {}", whole.config.digest));
        let given = self.place.give_document(&whole.config, whole.config_bytes.clone()).await;
        drop(done);
        given
    }

    /// Gives the document that holds a cache together, telling of it.
    pub(crate) async fn give_whole(&self, whole: &Whole, step: &VertexProgress) -> Result<()> {
        let kind = if self.documents == Documents::Image { "image manifest" } else { "manifest" };
        let done = step.part(format!("writing cache {kind} {}", whole.manifest.digest));
        let bytes = whole.manifest_bytes.clone();
        let given = self.place.give_manifest(Spot::Cache, &whole.manifest, bytes).await;
        drop(done);
        given
    }

    /// Gives a layer, telling of it.
    fn layer<'a>(&'a self, layer: &'a Layer, step: &'a VertexProgress) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let done = step.part(format!("writing layer {}", layer.blob.desc.digest));
            let given = self.place.give_layer(layer).await;
            drop(done);
            given
        })
    }

    /// The cache that an image has with it, if it has one.
    fn within(&self, manifest: Manifest) -> BoxFuture<'_, Result<Option<Found>>> {
        Box::pin(self.read_within(manifest))
    }

    async fn read_within(&self, manifest: Manifest) -> Result<Option<Found>> {
        if manifest.layers.is_empty() {
            return Ok(None);
        }
        let image: ImageWithCache = parse(&self.place.document(&manifest.config).await?, "image config")?;
        let diff_ids = image.rootfs.map(|rootfs| rootfs.diff_ids).unwrap_or_default();
        if diff_ids.len() != manifest.layers.len() {
            tracing::warn!("invalid image with mismatching manifest and config");
            return Ok(None);
        }
        let Some(cache) = image.cache else { return Ok(None) };
        let cache = STANDARD.decode(cache);
        let cache =
            cache.map_err(|e| RemoteCacheError::Invalid(format!("cache in the image config: {e}")))?;
        let mut config =
            CacheConfig { records: parse(&cache, "cache in the image config")?, layers: Vec::new() };
        let told = image.history.unwrap_or_default().into_iter().filter(|line| !line.empty_layer);
        let mut told = told.map(Some).chain(std::iter::repeat_with(|| None));
        let place = self.place.layers();
        let mut layers = HashMap::new();
        for (at, (mut desc, diff_id)) in manifest.layers.into_iter().zip(diff_ids).enumerate() {
            self.place.mark(&mut desc);
            let line = told.next().flatten().unwrap_or_default();
            let mut say = |key: &str, value: Option<String>| {
                desc.annotations
                    .extend(value.filter(|v| !v.is_empty()).map(|value| (key.to_string(), value)));
            };
            say("buildkit/createdat", line.created);
            say("buildkit/description", line.created_by);
            say(UNCOMPRESSED, Some(diff_id.to_string()));
            config.layers.push(CacheLayer {
                blob: desc.digest.to_string(),
                parent: at as i64 - 1,
                annotations: None,
            });
            layers.insert(desc.digest.to_string(), Available { desc, diff_id, place: place.clone() });
        }
        Ok(Some(Found { config, layers }))
    }
}

/// The part of an image's config that a cache is in.
#[derive(Deserialize)]
struct ImageWithCache {
    #[serde(default)]
    rootfs: Option<WithDiffIds>,
    /// Records in base64.
    #[serde(rename = "moby.buildkit.cache.v0", default)]
    cache: Option<String>,
    #[serde(default)]
    history: Option<Vec<Line>>,
}

#[derive(Deserialize)]
struct WithDiffIds {
    #[serde(default)]
    diff_ids: Vec<Digest>,
}

#[derive(Default, Deserialize)]
struct Line {
    #[serde(default)]
    created: Option<String>,
    #[serde(default)]
    created_by: Option<String>,
    #[serde(default)]
    empty_layer: bool,
}

pub(crate) enum Document {
    Index(Index),
    Manifest(Box<Manifest>),
}

impl Document {
    /// Reads a manifest or an index, as it calls itself or, where it does not, as it looks.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self> {
        #[derive(Deserialize)]
        struct Looks {
            #[serde(rename = "mediaType", default)]
            media_type: Option<String>,
            #[serde(default)]
            manifests: Option<serde::de::IgnoredAny>,
            #[serde(default)]
            config: Option<serde::de::IgnoredAny>,
        }
        let looks: Looks = parse(bytes, "cache manifest")?;
        let failed = || RemoteCacheError::images("read the cache manifest");
        let index = || Index::parse(bytes).map(Document::Index).map_err(failed());
        let manifest =
            || Manifest::parse(bytes).map(|read| Document::Manifest(Box::new(read))).map_err(failed());
        match looks.media_type.as_deref().filter(|text| !text.is_empty()) {
            Some(text) if media_types::is_index(text) => index(),
            Some(text) if media_types::is_manifest(text) => manifest(),
            Some(other) => {
                Err(RemoteCacheError::Invalid(format!("unsupported or uninferrable manifest type {other:?}")))
            }
            None if looks.manifests.is_some() => index(),
            None if looks.config.is_some() => manifest(),
            None => Err(RemoteCacheError::Invalid("unsupported or uninferrable manifest type".to_string())),
        }
    }

    /// The document with the keys, if this is a cache, and the layers.
    pub(crate) fn cache(&self) -> (Option<Descriptor>, Vec<Descriptor>) {
        match self {
            Document::Index(index) => {
                let (configs, layers): (Vec<_>, Vec<_>) =
                    index.manifests.iter().cloned().partition(|m| m.media_type == config::MEDIA_TYPE);
                (configs.into_iter().next_back(), layers)
            }
            Document::Manifest(manifest) => {
                let config = Some(&manifest.config).filter(|c| c.media_type == config::MEDIA_TYPE);
                (config.cloned(), manifest.layers.clone())
            }
        }
    }

    pub(crate) fn media_type(&self) -> &str {
        let (told, usual) = match self {
            Document::Index(index) => (&index.media_type, media_types::OCI_INDEX),
            Document::Manifest(manifest) => (&manifest.media_type, media_types::OCI_MANIFEST),
        };
        if told.is_empty() { usual } else { told }
    }
}

pub(crate) fn parse<T: for<'de> Deserialize<'de>>(bytes: &[u8], what: &str) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|e| RemoteCacheError::Invalid(format!("{what}: {e}")))
}

pub(crate) fn json<T: serde::Serialize>(value: &T) -> Result<Vec<u8>> {
    gojson::to_vec(value).map_err(RemoteCacheError::images("write a cache's documents"))
}

/// A layer as a cache's manifest lists it.
fn described(layer: &Layer, oci: bool) -> Descriptor {
    let desc = &layer.blob.desc;
    let media_type = media_types::convert_layer(&desc.media_type, oci);
    let mut listed = Descriptor::new(media_type, desc.digest, desc.size);
    listed.urls.clone_from(&desc.urls);
    listed.annotations = desc.annotations.clone();
    listed.annotations.retain(|key, _| annotations::is_of_blob(key));
    let created = gojson::time(layer.snapshot.created());
    listed.annotations.insert("buildkit/createdat".to_string(), created);
    listed.annotations.insert(UNCOMPRESSED.to_string(), layer.blob.diff_id.to_string());
    listed
}

/// Layers as a manifest lists them, by the digests of their blobs.
pub(crate) type Listed = HashMap<String, Descriptor>;

/// The two documents of a cache.
pub(crate) struct Whole {
    /// The one with the keys.
    pub config: Descriptor,
    pub config_bytes: Vec<u8>,
    /// The one that holds all together.
    pub manifest: Descriptor,
    pub manifest_bytes: Vec<u8>,
}

impl Whole {
    pub fn of(documents: Documents, config: &CacheConfig, layers: &Listed) -> Result<Self> {
        let listed = config.layers.iter().filter_map(|layer| layers.get(&layer.blob).cloned());
        let listed: Vec<Descriptor> = listed.collect();
        let config_bytes = json(config)?;
        let config = Descriptor::of(config::MEDIA_TYPE, &config_bytes);
        let media_type = match documents {
            Documents::Image => media_types::OCI_MANIFEST,
            Documents::Index => media_types::OCI_INDEX,
            Documents::DockerList => media_types::DOCKER_MANIFEST_LIST,
        };
        let manifest_bytes = match documents {
            Documents::Image => json(&Manifest::new(media_type, config.clone(), listed))?,
            Documents::Index | Documents::DockerList => {
                let mut index = Index::new(listed.into_iter().chain([config.clone()]).collect());
                index.media_type = media_type.to_string();
                json(&index)?
            }
        };
        let manifest = Descriptor::of(media_type, &manifest_bytes);
        Ok(Whole { config, config_bytes, manifest, manifest_bytes })
    }
}
