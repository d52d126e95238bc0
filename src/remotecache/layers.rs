//! The layers of a cache elsewhere, as results.

use crate::ResultRef;
use crate::error::{RemoteCacheError, Result};
use crosskit_cache::{CacheError, ErrorKind, LoadContext, Results};
use crosskit_images::{ContentStore, Descriptor, Digest, media_types};
use crosskit_snapshots::{About, BlobProvider, RemoteLayer, Sessions, Snapshots};
use crosskit_solver::JobGroup;
use futures::future::{BoxFuture, try_join_all};
use std::collections::HashMap;
use std::sync::Arc;

/// How many layers may lie on one another. The kernel's overlay takes 500.
const MAX_LAYERS: u32 = 1024;

/// The annotation with the digest of the tar in a layer's blob.
pub(crate) const UNCOMPRESSED: &str = "containerd.io/uncompressed";

/// A place that layers can be got from.
pub(crate) trait LayerPlace: BlobProvider {
    /// Makes sure that a layer can still be had: by a question where it stays, by getting it where
    /// it goes with the client.
    fn secure<'a>(&'a self, desc: &'a Descriptor, content: &'a ContentStore) -> BoxFuture<'a, Result<()>>;

    /// The place as what snapshots know.
    fn provider(self: Arc<Self>) -> Arc<dyn BlobProvider>;
}

/// A layer that a cache has.
#[derive(Clone)]
pub(crate) struct Available {
    pub desc: Descriptor,
    pub diff_id: Digest,
    pub place: Arc<dyn LayerPlace>,
}

impl Available {
    /// A layer as a manifest lists it; none if nobody can tell what is in it.
    pub fn listed(desc: Descriptor, place: &Arc<dyn LayerPlace>) -> Option<Self> {
        use media_types::LayerPacking;
        let told = desc.annotations.get(UNCOMPRESSED).and_then(|text| text.parse().ok());
        let plain = media_types::layer_packing(&desc.media_type) == Some(LayerPacking::Plain);
        let diff_id = told.or_else(|| plain.then_some(desc.digest))?;
        Some(Available { desc, diff_id, place: place.clone() })
    }
}

/// A layer on others.
struct Stacked {
    below: Option<Arc<str>>,
    layer: Available,
    height: u32,
}

/// The layers of a cache as results, each named by the chain of layers that it is.
pub(crate) struct RemoteLayers {
    snapshots: Snapshots,
    chains: HashMap<Arc<str>, Stacked>,
}

impl RemoteLayers {
    pub fn new(snapshots: Snapshots) -> Self {
        RemoteLayers { snapshots, chains: HashMap::new() }
    }

    /// The name of a layer on a chain of others.
    pub fn stack(&mut self, below: Option<Arc<str>>, layer: Available) -> Result<Arc<str>> {
        let height = below.as_ref().and_then(|below| self.chains.get(below)).map_or(0, |b| b.height) + 1;
        if height > MAX_LAYERS {
            let text = format!("more than {MAX_LAYERS} layers on one another");
            return Err(RemoteCacheError::Invalid(text));
        }
        let name = format!("{} {}", below.as_deref().unwrap_or_default(), layer.desc.digest);
        let name: Arc<str> = Digest::of(name).to_string().into();
        self.chains.entry(name.clone()).or_insert(Stacked { below, layer, height });
        Ok(name)
    }

    /// The layers of a chain, bottom first.
    fn chain(&self, id: &str) -> Option<Vec<Available>> {
        let mut at = self.chains.get(id)?;
        let mut layers = vec![at.layer.clone()];
        while let Some(below) = &at.below {
            at = self.chains.get(below)?;
            layers.push(at.layer.clone());
        }
        layers.reverse();
        Some(layers)
    }

    async fn result(&self, id: &str, cx: &LoadContext) -> Result<ResultRef, CacheError> {
        let failed = |message: String, kind| CacheError::Load { id: id.to_string(), message, kind };
        let unknown = || failed("the cache has no such layers".to_string(), ErrorKind::Internal);
        let layers = self.chain(id).ok_or_else(unknown)?;
        let places: HashMap<Digest, Arc<dyn LayerPlace>> =
            layers.iter().map(|layer| (layer.desc.digest, layer.place.clone())).collect();
        let about =
            About::new(layers.last().map_or(String::new(), |top| format!("imported {}", top.desc.digest)));
        let layers = layers.into_iter().map(|Available { desc, diff_id, place }| RemoteLayer {
            desc,
            diff_id,
            provider: place.provider(),
        });
        let found = self.snapshots.from_layers(layers.collect(), about);
        let found = found.map_err(|e| failed(e.to_string(), ErrorKind::Environment))?;
        if found.as_ref().is_some_and(|found| !found.is_within_reach()) {
            return Err(failed("its layers were gone or wrong before".to_string(), ErrorKind::Unavailable));
        }
        if let Some(found) = &found {
            for jobs in cx.all::<JobGroup>() {
                let who: Sessions = Arc::new(move || jobs.sessions());
                found.serve(&who);
            }
        }
        let missing = found.as_ref().map(|found| found.missing_blobs()).unwrap_or_default();
        let content = self.snapshots.content();
        let secured = missing.iter().filter_map(|desc| Some(places.get(&desc.digest)?.secure(desc, content)));
        try_join_all(secured).await.map_err(|e| failed(e.to_string(), ErrorKind::Unavailable))?;
        Ok(found)
    }
}

impl Results<ResultRef> for RemoteLayers {
    fn save(&self, _: &ResultRef) -> Result<String, CacheError> {
        let message = "an imported cache does not change".to_string();
        Err(CacheError::Save { message, kind: ErrorKind::Internal })
    }

    fn exists(&self, id: &str) -> bool {
        self.chains.contains_key(id)
    }

    fn is_part(&self, part: &str, whole: &str) -> bool {
        let mut at = self.chains.get(whole);
        while let Some(stacked) = at {
            let Some(below) = &stacked.below else { return false };
            if &**below == part {
                return true;
            }
            at = self.chains.get(below);
        }
        false
    }

    fn load<'a>(&'a self, id: &'a str, cx: &'a LoadContext) -> BoxFuture<'a, Result<ResultRef, CacheError>> {
        Box::pin(self.result(id, cx))
    }
}
