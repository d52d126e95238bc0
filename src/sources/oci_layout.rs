//! `oci-layout://NAME@DIGEST`: an image in a content store of the client.

use crate::image::{ImageSource, Place, layer_limit};
use crate::manifests::{Provider, Remote, media_type_of};
use crate::registry::LARGEST_DOCUMENT;
use crate::{Attrs, Shared, SourceContext, SourceError};
use crosskit_images::{ContentStore, Descriptor, Digest, NotArrived};
use crosskit_platforms::Platform;
use crosskit_session::{SessionContent, SessionError, WAIT_FOR_SESSION};
use crosskit_snapshots::{BlobProvider, ProvideError, RecordType};
use futures::future::BoxFuture;
use std::sync::Arc;
use tokio::sync::OnceCell;

/// An image in a client's layout as an input.
pub(crate) fn layout(
    shared: Arc<Shared>,
    name: &str,
    attrs: &Attrs,
    platform: Option<Platform>,
) -> Result<ImageSource, SourceError> {
    Ok(ImageSource {
        shared,
        place: Place::Layout {
            session: attrs.get("oci.session").cloned().unwrap_or_default(),
            store: attrs.get("oci.store").cloned().unwrap_or_default(),
            digest: pinned(name)?,
        },
        name: name.to_string(),
        asked_platform: platform,
        layer_limit: layer_limit(attrs, "oci.layerlimit")?,
        checksum: None,
        record_type: RecordType::Regular,
        loaded: OnceCell::new(),
    })
}

/// The digest that a name ends in.
pub(crate) fn pinned(name: &str) -> Result<Digest, SourceError> {
    let Some((_, digest)) = name.split_once('@') else {
        return Err(SourceError::Invalid(format!("reference {name:?} must have digest")));
    };
    digest.parse().map_err(|err| SourceError::Invalid(format!("invalid reference {name:?}: {err}")))
}

/// An image in a layout, for the builds that want it now.
pub(crate) struct InLayout {
    pub(crate) shared: Arc<Shared>,
    pub(crate) sessions: Vec<String>,
    pub(crate) store: String,
    pub(crate) digest: Digest,
    pub(crate) name: String,
}

impl InLayout {
    /// The store of one session.
    async fn store(&self, session: &str) -> Result<SessionContent, SessionError> {
        let session = self.shared.parts.sessions.get(session, WAIT_FOR_SESSION).await?;
        // Clients prefix the names of layouts (BuildKit client/solve.go).
        session.content(&format!("oci:{}", self.store))
    }

    fn failed(&self, last: Option<SessionError>) -> SourceError {
        SourceError::session(format!("failed to get {}", self.name))(last.unwrap_or(SessionError::NoSessions))
    }

    /// Brings a blob into the content store, checked.
    pub(crate) async fn fetch(
        &self,
        digest: Digest,
        size: Option<u64>,
        content: &ContentStore,
        told: Option<&Provider>,
    ) -> Result<(), SourceError> {
        let failed = || SourceError::image(format!("fetch {digest} of {}", self.name));
        let here = content.off_runtime(move |content| Ok(content.contains(&digest))).await;
        if here.map_err(failed())? {
            return Ok(());
        }
        let mut last = None;
        for session in &self.sessions {
            let fetched = match self.store(session).await {
                Ok(store) => fetch_from(&store, digest, size, content, told).await,
                Err(err) => Err(err),
            };
            match fetched {
                Ok(()) => return Ok(()),
                Err(err) => last = Some(err),
            }
        }
        Err(self.failed(last))
    }

    async fn document(&self, digest: Digest) -> Result<Vec<u8>, SourceError> {
        let content = self.shared.parts.snapshots.content();
        if let Ok(bytes) = content.read_async(digest, LARGEST_DOCUMENT).await {
            return Ok(bytes);
        }
        let mut last = None;
        for session in &self.sessions {
            let read = match self.store(session).await {
                Ok(store) => store.read_all(&digest.to_string(), LARGEST_DOCUMENT as usize).await,
                Err(err) => Err(err),
            };
            let bytes = match read {
                Ok(bytes) => bytes,
                Err(err) => {
                    last = Some(err);
                    continue;
                }
            };
            let actual = Digest::of(&bytes);
            if actual != digest {
                return Err(SourceError::Mismatch(format!(
                    "{}: {digest} has the digest {actual}",
                    self.name
                )));
            }
            content.put_async(bytes.clone()).await.map_err(SourceError::image("keep manifest"))?;
            return Ok(bytes);
        }
        Err(self.failed(last))
    }
}

/// Copies a blob from a client's store into ours.
async fn fetch_from(
    store: &SessionContent,
    digest: Digest,
    size: Option<u64>,
    content: &ContentStore,
    told: Option<&Provider>,
) -> Result<(), SessionError> {
    let pieces = store.read(&digest.to_string(), 0).await?;
    let mut here = 0;
    let arrived = content.arrive(digest, size, pieces, |now| {
        here = now;
        if let Some(told) = told {
            told.at(&digest, now, size.unwrap_or(0), false);
        }
    });
    arrived.await.map_err(|error| match error {
        NotArrived::Sender(error) => error,
        NotArrived::Store(error) => SessionError::Invalid(error.to_string()),
    })?;
    if let Some(told) = told {
        told.at(&digest, here, here, true);
    }
    Ok(())
}

impl Remote for InLayout {
    fn resolve(&self) -> BoxFuture<'_, Result<Descriptor, SourceError>> {
        Box::pin(async move {
            let bytes = self.document(self.digest).await?;
            let media_type = media_type_of(&bytes).ok_or_else(|| {
                SourceError::Invalid(format!(
                    "reference {:?} contains neither an index nor a manifest",
                    self.name
                ))
            })?;
            Ok(Descriptor::new(media_type, self.digest, bytes.len() as u64))
        })
    }

    fn manifest<'a>(&'a self, desc: &'a Descriptor) -> BoxFuture<'a, Result<Vec<u8>, SourceError>> {
        Box::pin(self.document(desc.digest))
    }

    fn config<'a>(&'a self, desc: &'a Descriptor) -> BoxFuture<'a, Result<Vec<u8>, SourceError>> {
        Box::pin(self.document(desc.digest))
    }

    /// A client's store does not list them.
    fn referrers<'a>(&'a self, _: &'a Digest) -> BoxFuture<'a, Result<Vec<Descriptor>, SourceError>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    fn provider(&self, cx: &Arc<dyn SourceContext>) -> Arc<dyn BlobProvider> {
        let place = InLayout {
            shared: self.shared.clone(),
            sessions: self.sessions.clone(),
            store: self.store.clone(),
            digest: self.digest,
            name: self.name.clone(),
        };
        Arc::new(Layers { place, told: Provider::new(cx) })
    }
}

/// Gets layers from a client's layout.
struct Layers {
    place: InLayout,
    told: Arc<Provider>,
}

impl BlobProvider for Layers {
    fn fetch<'a>(
        &'a self,
        desc: &'a Descriptor,
        content: &'a ContentStore,
    ) -> BoxFuture<'a, Result<(), ProvideError>> {
        Box::pin(async move {
            let fetched = self.place.fetch(desc.digest, Some(desc.size), content, Some(&self.told)).await;
            fetched.map_err(Provider::failed)
        })
    }

    fn unpacking(&self, desc: &Descriptor, done: bool) {
        self.told.unpacking(desc, done);
    }
}
