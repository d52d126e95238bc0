//! A cache in a registry, under a tag.

use super::{Backend, Way};
use crate::error::{RemoteCacheError, Result};
use crate::layers::LayerPlace;
use crate::manifests::{Manifests, Place, Spot, largest};
use crate::{CacheOptions, RemoteCaches};
use crosskit_images::annotations::DISTRIBUTION_SOURCE;
use crosskit_images::registry::{Client, Credentials, Login, Reference, Silent, Token, TokenRequest};
use crosskit_images::{ContentStore, Descriptor, Digest};
use crosskit_session::{SessionCredentials, SessionManager};
use crosskit_snapshots::{BlobProvider, Kind, Layer, ProvideError, Sessions};
use futures::future::BoxFuture;
use futures::{StreamExt, TryStreamExt};
use std::sync::{Arc, Mutex, PoisonError};

/// Builds whose credentials are known at once.
const MAX_GUESTS: usize = 64;

/// The end of the tag that says whose turn it is to write to a cache.
const BESIDE: &str = ".crosskit";

/// Characters of a tag (distribution-spec 1.1).
const LONGEST_TAG: usize = 128;

/// Blobs that are looked for at once.
const LOOKS_AT_ONCE: usize = 8;

struct InRegistry {
    client: Client,
    reference: Reference,
    guests: Arc<Guests>,
    content: ContentStore,
}

/// `type=registry`.
pub(super) fn resolve(
    caches: &RemoteCaches,
    _: Way,
    options: &CacheOptions,
    sessions: &[String],
) -> Result<Box<dyn Backend>> {
    let reference = options.reference()?;
    let hosts = match options.flag("registry.insecure")? {
        Some(true) => caches.registries.with_insecure(reference.domain()),
        _ => caches.registries.clone(),
    };
    let guests = Arc::new(Guests {
        sessions: caches.sessions.clone(),
        first: sessions.to_vec(),
        others: Mutex::default(),
    });
    let client = Client::new(hosts, guests.clone());
    let place = InRegistry { client, reference, guests, content: caches.snapshots.content().clone() };
    // What has a digest in its name can't change.
    let merging = options.merging()?.filter(|_| place.reference.digest().is_none());
    let (name, documents) = ("exporting cache to registry", options.documents()?);
    Ok(Box::new(Manifests { name, documents, merging, turns: caches.writers.0.clone(), place }))
}

/// Those whose credentials may be used: the build that has found the cache, and builds that use
/// layers of it, maybe after that one has ended.
struct Guests {
    sessions: SessionManager,
    first: Vec<String>,
    others: Mutex<Vec<Sessions>>,
}

impl Guests {
    fn credentials(&self) -> SessionCredentials {
        let mut ids = self.first.clone();
        let others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        // The last one to come is the most likely to be there still.
        for id in others.iter().rev().flat_map(|who| who()) {
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
        SessionCredentials::new(self.sessions.clone(), ids)
    }
}

impl Credentials for Guests {
    fn login<'a>(&'a self, host: &'a str) -> BoxFuture<'a, crosskit_images::Result<Option<Login>>> {
        Box::pin(async move { self.credentials().login(host).await })
    }

    fn token<'a>(
        &'a self,
        request: &'a TokenRequest,
    ) -> BoxFuture<'a, crosskit_images::Result<Option<Token>>> {
        Box::pin(async move { self.credentials().token(request).await })
    }
}

impl InRegistry {
    fn doing(&self, what: &str) -> String {
        format!("{what} {}", self.reference)
    }

    /// The name of what is at a spot.
    fn at(&self, spot: Spot) -> Result<Reference> {
        match (spot, self.reference.tag()) {
            (Spot::Turn, Some(tag)) => {
                let beside = format!("{tag}{BESIDE}");
                let beside = if beside.len() <= LONGEST_TAG {
                    beside
                } else {
                    let hex = Digest::of(tag).to_string();
                    format!("cache-{}{BESIDE}", &hex["sha256:".len()..])
                };
                let named = self.reference.clone().with_tag(&beside);
                named.map_err(|e| RemoteCacheError::Options(format!("tag {beside}: {e}")))
            }
            _ => Ok(self.reference.clone()),
        }
    }

    /// Where else the registry has a layer, as somebody has told who got it from there.
    fn sources(&self, desc: &Descriptor) -> Vec<Reference> {
        let told = desc.annotations.get(&format!("{DISTRIBUTION_SOURCE}{}", self.reference.domain()));
        let repositories = told.into_iter().flat_map(|told| told.split(','));
        repositories
            .filter_map(|path| Reference::parse(&format!("{}/{path}", self.reference.domain())).ok())
            .collect()
    }
}

impl Place for InRegistry {
    fn name(&self) -> String {
        self.reference.to_string()
    }

    fn root(&self) -> BoxFuture<'_, Result<Digest>> {
        Box::pin(async move {
            let found = self.client.resolve(&self.reference).await;
            let found = found.map_err(RemoteCacheError::images(self.doing("resolve")))?;
            if let Some(bytes) = found.bytes {
                let kept = self.content.put_async(bytes.to_vec()).await;
                kept.map_err(RemoteCacheError::images("keep a cache's manifest"))?;
            }
            Ok(found.desc.digest)
        })
    }

    fn manifest(&self, digest: Digest) -> BoxFuture<'_, Result<Vec<u8>>> {
        Box::pin(async move {
            let got = self.client.fetch_manifest(&self.reference, &digest, &self.content).await;
            got.map_err(RemoteCacheError::images(self.doing("get the manifest of")))
        })
    }

    fn document<'a>(&'a self, desc: &'a Descriptor) -> BoxFuture<'a, Result<Vec<u8>>> {
        Box::pin(async move {
            let limit = largest(desc)?;
            let failed = || RemoteCacheError::images(self.doing("get the config of"));
            let fetched =
                self.client.fetch_blob(&self.reference, desc, &self.content, Arc::new(Silent)).await;
            fetched.map_err(failed())?;
            self.content.read_async(desc.digest, limit).await.map_err(failed())
        })
    }

    fn layers(&self) -> Arc<dyn LayerPlace> {
        let (client, reference, guests) = (self.client.clone(), self.reference.clone(), self.guests.clone());
        Arc::new(Layers { client, reference, guests })
    }

    /// Where a layer was found says later from where another repository may take it.
    fn mark(&self, desc: &mut Descriptor) {
        let key = format!("{DISTRIBUTION_SOURCE}{}", self.reference.domain());
        desc.annotations.entry(key).or_insert_with(|| self.reference.path().to_string());
    }

    fn give_layer<'a>(&'a self, layer: &'a Layer) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let desc = &layer.blob.desc;
            let failed = || RemoteCacheError::images("error writing layer blob");
            let mut sources = self.sources(desc);
            // What is not here has to come here only where nobody else has it.
            if !self.content.holds(desc) {
                if self.client.offer_blob(&self.reference, desc, &sources).await.map_err(failed())? {
                    return Ok(());
                }
                layer.fetch().await.map_err(RemoteCacheError::snapshots("error writing layer blob"))?;
                // It was just not taken from any of them.
                sources.clear();
            }
            let given =
                self.client.give_blob(&self.reference, desc, &sources, &self.content, Arc::new(Silent)).await;
            given.map_err(failed())
        })
    }

    fn give_document<'a>(&'a self, desc: &'a Descriptor, bytes: Vec<u8>) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let failed = || RemoteCacheError::images("error writing config blob");
            self.content.put_async(bytes).await.map_err(failed())?;
            let given =
                self.client.give_blob(&self.reference, desc, &[], &self.content, Arc::new(Silent)).await;
            given.map_err(failed())
        })
    }

    fn give_manifest<'a>(
        &'a self,
        spot: Spot,
        desc: &'a Descriptor,
        bytes: Vec<u8>,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let failed = || RemoteCacheError::images("error writing manifest blob");
            self.content.put_async(bytes).await.map_err(failed())?;
            self.client.give_manifest(&self.at(spot)?, desc, &self.content).await.map_err(failed())
        })
    }

    fn standing(&self, spot: Spot) -> BoxFuture<'_, Result<Option<Digest>>> {
        Box::pin(async move {
            let name = self.at(spot)?;
            let found = self.client.resolve_where_pushed(&name).await;
            let found = found.map_err(RemoteCacheError::images(format!("resolve {name}")))?;
            let Some(found) = found else { return Ok(None) };
            if let Some(bytes) = found.bytes {
                let kept = self.content.put_async(bytes.to_vec()).await;
                kept.map_err(RemoteCacheError::images("keep a cache's manifest"))?;
            }
            Ok(Some(found.desc.digest))
        })
    }

    fn lost(&self, blobs: Vec<Digest>) -> BoxFuture<'_, Result<Vec<Digest>>> {
        Box::pin(async move {
            let look = blobs.into_iter().map(|digest| async move {
                use crosskit_images::{Error, registry::RegistryError};
                match self.client.describe_blob(&self.reference, &digest).await {
                    Ok(_) => Ok(None),
                    Err(Error::Registry(RegistryError::NotFound { .. })) => Ok(Some(digest)),
                    Err(error) => Err(RemoteCacheError::images(self.doing("look for layers of"))(error)),
                }
            });
            let look: Vec<_> = look.collect();
            let found = futures::stream::iter(look).buffer_unordered(LOOKS_AT_ONCE);
            let found: Vec<Option<Digest>> = found.try_collect().await?;
            Ok(found.into_iter().flatten().collect())
        })
    }
}

/// Gets layers from a registry, when somebody needs them.
struct Layers {
    client: Client,
    reference: Reference,
    guests: Arc<Guests>,
}

impl BlobProvider for Layers {
    fn is_cache(&self) -> bool {
        true
    }

    fn serve(&self, who: &Sessions) {
        let mut others = self.guests.others.lock().unwrap_or_else(PoisonError::into_inner);
        others.retain(|known| !known().is_empty());
        if others.len() == MAX_GUESTS {
            others.remove(0);
        }
        others.push(who.clone());
    }

    fn fetch<'a>(
        &'a self,
        desc: &'a Descriptor,
        content: &'a ContentStore,
    ) -> BoxFuture<'a, Result<(), ProvideError>> {
        Box::pin(async move {
            let fetched = self.client.fetch_blob(&self.reference, desc, content, Arc::new(Silent)).await;
            fetched.map_err(|error| {
                use crosskit_images::ErrorKind;
                let kind = match error.kind() {
                    ErrorKind::User => Kind::User,
                    ErrorKind::Environment => Kind::Environment,
                    ErrorKind::Unavailable => Kind::Unavailable,
                    ErrorKind::Canceled => Kind::Canceled,
                    ErrorKind::Internal => Kind::Internal,
                };
                ProvideError { kind, source: Box::new(error) }
            })
        })
    }
}

impl LayerPlace for Layers {
    fn secure<'a>(&'a self, desc: &'a Descriptor, _: &'a ContentStore) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let there = self.client.describe_blob(&self.reference, &desc.digest).await;
            let doing = format!("look for layer {} of {}", desc.digest, self.reference);
            there.map(drop).map_err(RemoteCacheError::images(doing))
        })
    }

    fn provider(self: Arc<Self>) -> Arc<dyn BlobProvider> {
        self
    }
}
