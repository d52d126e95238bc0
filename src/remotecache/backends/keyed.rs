//! A cache in a store of objects: blobs under their digests, documents under their names.

use crate::error::{RemoteCacheError, Result};
use crate::manifests::LARGEST;
use crate::merging::{pause, too_many};
use crate::objects::{Become, Document, Documents, Shelf};
use crosskit_images::{Descriptor, Digest};
use crosskit_objectstores::{Objects, PieceStream, StoreError, read_all};
use futures::future::BoxFuture;
use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

/// How often a document is made anew because somebody else has written.
const ROUNDS: u32 = 64;

/// Where in a store a cache is.
pub(super) struct Keyed<O> {
    pub objects: O,
    /// What comes before the names of documents.
    pub manifests: String,
    /// What comes before the digests of blobs.
    pub blobs: String,
    /// The names of the documents, all the same.
    pub names: Vec<String>,
    /// Blobs that were written longer ago are written again.
    pub refresh: Option<Duration>,
}

impl<O> Keyed<O> {
    fn blob(&self, digest: &Digest) -> String {
        format!("{}{digest}", self.blobs)
    }
}

impl<O: Objects + 'static> Shelf for Keyed<O> {
    fn documents(&self) -> BoxFuture<'_, Result<Documents>> {
        Box::pin(async move {
            let mut found = Vec::new();
            for name in &self.names {
                let doing = format!("failed to load cache manifest {name}");
                let read = async {
                    match self.objects.read(&format!("{}{name}", self.manifests), 0).await? {
                        Some(stream) => read_all(name, stream, LARGEST).await.map(Some),
                        None => Ok(None),
                    }
                };
                let read = read.await.map_err(RemoteCacheError::store(doing))?;
                found.extend(read.map(|bytes| (name.clone(), bytes)));
            }
            Ok(found)
        })
    }

    fn size<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<Option<u64>, StoreError>> {
        Box::pin(async move { Ok(self.objects.describe(&self.blob(digest)).await?.map(|there| there.size)) })
    }

    fn read<'a>(
        &'a self,
        digest: &'a Digest,
        from: u64,
    ) -> BoxFuture<'a, Result<Option<PieceStream>, StoreError>> {
        Box::pin(async move { self.objects.read(&self.blob(digest), from).await })
    }

    fn keep<'a>(&'a self, desc: &'a Descriptor) -> BoxFuture<'a, Result<bool>> {
        Box::pin(async move {
            let key = self.blob(&desc.digest);
            let failed = || RemoteCacheError::store("ask the store");
            // One of another size was cut off by whoever wrote it.
            let there = self.objects.describe(&key).await.map_err(failed())?;
            let Some(there) = there.filter(|there| there.size == desc.size) else { return Ok(false) };
            if let (Some(refresh), Some(modified)) = (self.refresh, there.modified) {
                let age = Duration::try_from(jiff::Timestamp::now().duration_since(modified));
                if age.is_ok_and(|age| age > refresh) {
                    let touched = self.objects.touch(&key, there.size).await;
                    touched.map_err(RemoteCacheError::store("failed to touch file"))?;
                }
            }
            Ok(true)
        })
    }

    fn give_layer<'a>(&'a self, desc: &'a Descriptor, file: Arc<File>) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let written = self.objects.write_file(&self.blob(&desc.digest), file, desc.size).await;
            written.map_err(RemoteCacheError::store("give it to the store"))
        })
    }

    fn give_document<'a>(&'a self, document: &'a Document<'a>) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            for name in &self.names {
                let key = format!("{}{name}", self.manifests);
                match document {
                    Document::Alone(bytes) => {
                        let written = self.objects.write(&key, bytes.clone().into()).await;
                        written.map_err(RemoteCacheError::store(name.as_str()))?;
                    }
                    Document::After(both) => self.replace(name, &key, both).await?,
                }
            }
            Ok(())
        })
    }
}

impl<O: Objects + 'static> Keyed<O> {
    /// Writes a document that is made of the one that is there, again and again until nobody else has written between.
    async fn replace(&self, name: &str, key: &str, both: &Become<'_>) -> Result<()> {
        let failed = || RemoteCacheError::store(name);
        for round in 0..ROUNDS {
            let (version, there) = match self.objects.read_version(key).await.map_err(failed())? {
                None => (None, None),
                Some((version, stream)) => match read_all(name, stream, LARGEST).await {
                    Ok(there) => (Some(version), Some(there)),
                    // Nobody can read one that is too large: it goes.
                    Err(StoreError::Answer { .. }) => (Some(version), None),
                    Err(error) => return Err(failed()(error)),
                },
            };
            let bytes = both(there.as_deref())?;
            if there.as_ref() == Some(&bytes) {
                return Ok(());
            }
            let written = self.objects.write_after(key, bytes.into(), version.as_ref()).await;
            if written.map_err(failed())? {
                return Ok(());
            }
            pause(round).await;
        }
        Err(too_many(ROUNDS))
    }
}
