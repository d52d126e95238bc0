//! A cache in a folder of the client.

use super::{Backend, Way};
use crate::error::{RemoteCacheError, Result};
use crate::layers::LayerPlace;
use crate::manifests::{Manifests, Place, Spot, largest};
use crate::{CacheOptions, RemoteCaches};
use crosskit_images::{ContentStore, Descriptor, Digest, NotArrived};
use crosskit_session::{SessionContent, SessionError, SessionManager, WAIT_FOR_SESSION};
use crosskit_snapshots::{BlobProvider, Kind, Layer, ProvideError};
use futures::future::BoxFuture;
use std::sync::Arc;
use tokio::io::AsyncReadExt;

/// Bytes read at once.
const PIECE: usize = 1 << 20;

/// The largest manifest, in bytes.
const MANIFEST: usize = 8 << 20;

#[derive(Clone)]
struct InFolder {
    sessions: SessionManager,
    session: String,
    /// The client's name for the folder.
    store: String,
    /// What to import.
    digest: Option<Digest>,
    content: ContentStore,
}

/// `type=local`.
pub(super) fn resolve(
    caches: &RemoteCaches,
    way: Way,
    options: &CacheOptions,
    sessions: &[String],
) -> Result<Box<dyn Backend>> {
    let lacks = |text: &str| RemoteCacheError::Options(text.to_string());
    let (folder, digest) = match way {
        Way::Export => {
            (options.get("dest").ok_or_else(|| lacks("local cache exporter requires dest"))?, None)
        }
        Way::Import => {
            let digest = options.get("digest");
            let digest = digest.ok_or_else(|| lacks("local cache importer requires explicit digest"))?;
            let parsed = digest.parse().map_err(|e| lacks(&format!("invalid digest {digest:?}: {e}")))?;
            (options.get("src").ok_or_else(|| lacks("local cache importer requires src"))?, Some(parsed))
        }
    };
    let session = sessions.first().ok_or_else(|| lacks("local cache exporter/importer requires session"))?;
    let place = InFolder {
        sessions: caches.sessions.clone(),
        session: session.clone(),
        // Clients prefix the names of caches (BuildKit client/solve.go).
        store: format!("local:{folder}"),
        digest,
        content: caches.snapshots.content().clone(),
    };
    let name = "exporting cache to client directory";
    // The client brings together what is in its folder: it alone can keep others away from the index.
    options.merging()?;
    Ok(Box::new(Manifests {
        name,
        documents: options.documents()?,
        merging: None,
        turns: caches.writers.0.clone(),
        place,
    }))
}

impl InFolder {
    async fn store(&self) -> Result<SessionContent, SessionError> {
        self.sessions.get(&self.session, WAIT_FOR_SESSION).await?.content(&self.store)
    }

    async fn read(&self, digest: Digest, limit: usize) -> Result<Vec<u8>> {
        let doing = || RemoteCacheError::session(format!("read {digest} of the cache"));
        let store = self.store().await.map_err(doing())?;
        let bytes = store.read_all(&digest.to_string(), limit).await.map_err(doing())?;
        match Digest::of(&bytes) {
            actual if actual == digest => Ok(bytes),
            actual => {
                Err(RemoteCacheError::Invalid(format!("{digest} of the cache has the digest {actual}")))
            }
        }
    }

    /// Copies a blob into our store, checked.
    async fn fetch(&self, desc: &Descriptor, content: &ContentStore) -> Result<(), SessionError> {
        let broken = |e: crosskit_images::Error| SessionError::Invalid(e.to_string());
        let wanted = desc.clone();
        if content.off_runtime(move |content| Ok(content.holds(&wanted))).await.map_err(broken)? {
            return Ok(());
        }
        let pieces = self.store().await?.read(&desc.digest.to_string(), 0).await?;
        let arrived = content.arrive(desc.digest, Some(desc.size), pieces, |_| ()).await;
        arrived.map_err(|error| match error {
            NotArrived::Sender(error) => error,
            NotArrived::Store(error) => broken(error),
        })
    }

    /// Copies a blob out of our store.
    async fn give(&self, desc: &Descriptor) -> Result<()> {
        let digest = desc.digest;
        let failed = || RemoteCacheError::session(format!("write {digest}"));
        let store = self.store().await.map_err(failed())?;
        let Some(mut writer) = store.write(&digest.to_string(), desc.size).await.map_err(failed())? else {
            return Ok(());
        };
        let reader = self.content.off_runtime(move |content| content.reader(&digest)).await;
        let reader = reader.map_err(RemoteCacheError::images(format!("read {digest}")))?;
        let mut file = tokio::fs::File::from_std(reader.into_file());
        loop {
            let mut piece = Vec::with_capacity(PIECE);
            let read = (&mut file).take(PIECE as u64).read_to_end(&mut piece).await;
            let read = read.map_err(|e| crosskit_images::Error::io(format!("read {digest}"), e));
            if read.map_err(RemoteCacheError::images("give a blob to the client"))? == 0 {
                break;
            }
            writer.write(piece.into()).await.map_err(failed())?;
        }
        writer.commit().await.map_err(failed())
    }

    async fn give_bytes(&self, desc: &Descriptor, bytes: Vec<u8>) -> Result<()> {
        let failed = || RemoteCacheError::session(format!("write {}", desc.digest));
        let store = self.store().await.map_err(failed())?;
        let writer = store.write(&desc.digest.to_string(), desc.size).await.map_err(failed())?;
        let Some(mut writer) = writer else { return Ok(()) };
        writer.write(bytes.into()).await.map_err(failed())?;
        writer.commit().await.map_err(failed())
    }
}

impl Place for InFolder {
    fn name(&self) -> String {
        self.store.clone()
    }

    fn root(&self) -> BoxFuture<'_, Result<Digest>> {
        let digest = self.digest.ok_or_else(|| {
            RemoteCacheError::Options("local cache importer requires explicit digest".to_string())
        });
        Box::pin(std::future::ready(digest))
    }

    fn manifest(&self, digest: Digest) -> BoxFuture<'_, Result<Vec<u8>>> {
        Box::pin(self.read(digest, MANIFEST))
    }

    fn document<'a>(&'a self, desc: &'a Descriptor) -> BoxFuture<'a, Result<Vec<u8>>> {
        Box::pin(async move {
            let limit = largest(desc)?;
            self.read(desc.digest, usize::try_from(limit).unwrap_or(usize::MAX)).await
        })
    }

    fn layers(&self) -> Arc<dyn LayerPlace> {
        Arc::new(self.clone())
    }

    fn mark(&self, _: &mut Descriptor) {}

    fn give_layer<'a>(&'a self, layer: &'a Layer) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let desc = &layer.blob.desc;
            let failed = || RemoteCacheError::session("error writing layer blob");
            let there = match self.store().await.map_err(failed())?.info(&desc.digest.to_string()).await {
                Ok(info) => info.size == desc.size,
                Err(SessionError::NotFound(_)) => false,
                Err(error) => return Err(failed()(error)),
            };
            if there {
                return Ok(());
            }
            layer.fetch().await.map_err(RemoteCacheError::snapshots("error writing layer blob"))?;
            self.give(desc).await.map_err(|e| e.while_doing("error writing layer blob"))
        })
    }

    fn give_document<'a>(&'a self, desc: &'a Descriptor, bytes: Vec<u8>) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let given = self.give_bytes(desc, bytes).await;
            given.map_err(|e| e.while_doing("error writing config blob"))
        })
    }

    fn give_manifest<'a>(
        &'a self,
        _: Spot,
        desc: &'a Descriptor,
        bytes: Vec<u8>,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let given = self.give_bytes(desc, bytes).await;
            given.map_err(|e| e.while_doing("error writing manifest blob"))
        })
    }

    fn standing(&self, _: Spot) -> BoxFuture<'_, Result<Option<Digest>>> {
        Box::pin(std::future::ready(Ok(None)))
    }

    fn lost(&self, _: Vec<Digest>) -> BoxFuture<'_, Result<Vec<Digest>>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }
}

impl BlobProvider for InFolder {
    fn is_cache(&self) -> bool {
        true
    }

    fn fetch<'a>(
        &'a self,
        desc: &'a Descriptor,
        content: &'a ContentStore,
    ) -> BoxFuture<'a, Result<(), ProvideError>> {
        Box::pin(async move {
            let fetched = InFolder::fetch(self, desc, content).await;
            fetched.map_err(|error| ProvideError { kind: Kind::Unavailable, source: Box::new(error) })
        })
    }
}

impl LayerPlace for InFolder {
    /// The folder goes with the client.
    fn secure<'a>(&'a self, desc: &'a Descriptor, content: &'a ContentStore) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let fetched = InFolder::fetch(self, desc, content).await;
            fetched.map_err(RemoteCacheError::session(format!("get layer {} of the cache", desc.digest)))
        })
    }

    fn provider(self: Arc<Self>) -> Arc<dyn BlobProvider> {
        self
    }
}
