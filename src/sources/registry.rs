//! Images in registries.

use crate::manifests::{Provider, Remote};
use crate::{Shared, SourceContext, SourceError};
use crosskit_images::registry::{Client, Reference, RegistryHosts, Silent};
use crosskit_images::{ContentStore, Descriptor, Digest};
use crosskit_metadata::Change;
use crosskit_session::{SessionCredentials, SessionManager};
use crosskit_snapshots::{BlobProvider, ProvideError};
use futures::future::BoxFuture;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Which manifests were seen in which repository: the repository, a zero byte, the digest.
const SEEN: &str = "sources.manifests";

/// How long the tokens of a build are kept for its next source.
const KEEP: Duration = Duration::from_secs(600);

/// For how many builds.
const KEPT: usize = 64;

/// The largest document of an image, in bytes.
pub(crate) const LARGEST_DOCUMENT: u64 = 8 << 20;

/// Registry clients by the sessions whose credentials they have.
pub(crate) struct Clients {
    hosts: RegistryHosts,
    sessions: SessionManager,
    recent: Mutex<Vec<(Vec<String>, Instant, Client)>>,
}

impl Clients {
    pub(crate) fn new(hosts: RegistryHosts, sessions: SessionManager) -> Self {
        Self { hosts, sessions, recent: Mutex::default() }
    }

    pub(crate) fn for_sessions(&self, ids: Vec<String>) -> Client {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.retain(|(_, when, _)| when.elapsed() < KEEP);
        if let Some((_, _, client)) = recent.iter().find(|(known, _, _)| *known == ids) {
            return client.clone();
        }
        let credentials = SessionCredentials::new(self.sessions.clone(), ids.clone());
        let client = Client::new(self.hosts.clone(), Arc::new(credentials));
        if recent.len() >= KEPT {
            recent.remove(0);
        }
        recent.push((ids, Instant::now(), client.clone()));
        client
    }
}

/// An image in a registry, for the builds that want it now.
pub(crate) struct InRegistry {
    pub(crate) shared: Arc<Shared>,
    pub(crate) client: Client,
    pub(crate) reference: Reference,
}

impl InRegistry {
    fn seen_key(&self, digest: &Digest) -> Vec<u8> {
        format!("{}\0{digest}", self.reference.repository()).into_bytes()
    }

    /// The manifest that the name pins, if it is here and came from the same repository: then the
    /// registry need not be asked.
    async fn pinned(&self) -> Result<Option<Descriptor>, SourceError> {
        let Some(digest) = self.reference.digest() else { return Ok(None) };
        let Some(media_type) = self.shared.parts.database.get(SEEN, &self.seen_key(digest))? else {
            return Ok(None);
        };
        let (digest, content) = (*digest, self.shared.parts.snapshots.content());
        let size = content.off_runtime(move |content| content.size(&digest)).await;
        let media_type = String::from_utf8_lossy(&media_type).into_owned();
        Ok(size.ok().map(|size| Descriptor::new(media_type, digest, size)))
    }
}

impl Remote for InRegistry {
    fn resolve(&self) -> BoxFuture<'_, Result<Descriptor, SourceError>> {
        Box::pin(async move {
            if let Some(desc) = self.pinned().await? {
                return Ok(desc);
            }
            let resolved = self.client.resolve(&self.reference).await.map_err(SourceError::NamedImage)?;
            if let Some(bytes) = resolved.bytes {
                let stored = self.shared.parts.snapshots.content().put_async(bytes.to_vec()).await;
                stored.map_err(SourceError::image("keep manifest"))?;
            }
            let seen =
                Change::put(SEEN, self.seen_key(&resolved.desc.digest), resolved.desc.media_type.as_bytes());
            self.shared.parts.database.write(vec![seen])?;
            Ok(resolved.desc)
        })
    }

    fn manifest<'a>(&'a self, desc: &'a Descriptor) -> BoxFuture<'a, Result<Vec<u8>, SourceError>> {
        Box::pin(async move {
            let content = self.shared.parts.snapshots.content();
            let got = self.client.fetch_manifest(&self.reference, &desc.digest, content).await;
            got.map_err(SourceError::image(format!("failed to get manifest of {}", self.reference)))
        })
    }

    fn config<'a>(&'a self, desc: &'a Descriptor) -> BoxFuture<'a, Result<Vec<u8>, SourceError>> {
        Box::pin(async move {
            let failed = || SourceError::image(format!("failed to get config of {}", self.reference));
            let content = self.shared.parts.snapshots.content();
            if desc.size > LARGEST_DOCUMENT {
                let what = format!("config of {}", self.reference);
                return Err(failed()(crosskit_images::Error::TooLarge { what, limit: LARGEST_DOCUMENT }));
            }
            let fetch = || self.client.fetch_blob(&self.reference, desc, content, Arc::new(Silent));
            fetch().await.map_err(failed())?;
            let read = || content.read_async(desc.digest, LARGEST_DOCUMENT);
            match read().await {
                // What was stored had been damaged, and is gone.
                Err(crosskit_images::Error::Damaged { .. }) => {
                    fetch().await.map_err(failed())?;
                    read().await.map_err(failed())
                }
                other => other.map_err(failed()),
            }
        })
    }

    fn referrers<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<Vec<Descriptor>, SourceError>> {
        Box::pin(async move {
            let found = self.client.referrers(&self.reference, digest).await;
            found.map_err(SourceError::image(format!("fetching referrers for attestation manifest {digest}")))
        })
    }

    fn provider(&self, cx: &Arc<dyn SourceContext>) -> Arc<dyn BlobProvider> {
        Arc::new(Layers {
            client: self.client.clone(),
            reference: self.reference.clone(),
            told: Provider::new(cx),
        })
    }
}

/// Gets layers from a registry.
struct Layers {
    client: Client,
    reference: Reference,
    told: Arc<Provider>,
}

impl BlobProvider for Layers {
    fn fetch<'a>(
        &'a self,
        desc: &'a Descriptor,
        content: &'a ContentStore,
    ) -> BoxFuture<'a, Result<(), ProvideError>> {
        Box::pin(async move {
            let fetched = self.client.fetch_blob(&self.reference, desc, content, self.told.clone()).await;
            fetched
                .map_err(|err| Provider::failed(SourceError::image(format!("pull {}", self.reference))(err)))
        })
    }

    fn unpacking(&self, desc: &Descriptor, done: bool) {
        self.told.unpacking(desc, done);
    }
}
