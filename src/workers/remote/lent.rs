//! The blobs that a session lends and takes. Only what was lent can be read, so that a worker
//! sees no more of this machine's blobs than its steps need.

use super::Counters;
use super::inputs::InputImage;
use crate::ops::snapshot_error;
use bytes::Bytes;
use crosskit_images::content::BlobReader;
use crosskit_images::{ContentStore, Digest};
use crosskit_snapshots::Layer;
use crosskit_solver::{ErrorKind, OpError};
use std::collections::{HashMap, HashSet};
use std::io::Write;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The store of inputs, as sources name it (`oci.store`).
pub(super) const INPUTS: &str = "inputs";

/// Bytes of a blob that are copied at once.
const PIECE: usize = 1 << 20;

/// A blob that the worker may read.
#[derive(Clone)]
pub(super) enum Blob {
    /// A manifest or a config.
    Document(Bytes),
    /// Brought here when the worker turns out to lack it.
    Layer(Arc<Layer>),
}

/// What a session lends, and what it got. Cheap to clone.
#[derive(Clone)]
pub(super) struct Lent(Arc<Inner>);

struct Inner {
    content: ContentStore,
    counters: Arc<Counters>,
    blobs: Mutex<HashMap<Digest, Blob>>,
    /// What the worker has written here.
    received: Mutex<HashSet<Digest>>,
    /// Blobs of results that are on their way to become a snapshot's.
    held: Mutex<HashMap<Digest, Held>>,
    /// What has failed on this side.
    failure: Mutex<Option<OpError>>,
}

/// A blob that was told to be here. It is kept open, so that it can be brought back if it is pruned
/// before a snapshot has it.
struct Held {
    times: usize,
    reader: Arc<BlobReader>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Lent {
    /// Nothing lent yet. Results go to `content`.
    pub(super) fn new(content: ContentStore, counters: Arc<Counters>) -> Self {
        let (blobs, received, held, failure) = Default::default();
        Lent(Arc::new(Inner { content, counters, blobs, received, held, failure }))
    }

    /// Lets the worker read an image, as long as the session lasts.
    pub(super) fn lend(&self, image: &InputImage) {
        let mut blobs = locked(&self.0.blobs);
        for (digest, bytes) in &image.documents {
            blobs.entry(*digest).or_insert_with(|| Blob::Document(Bytes::from(bytes.clone())));
        }
        for layer in &image.layers {
            blobs.entry(layer.blob.desc.digest).or_insert_with(|| Blob::Layer(Arc::new(layer.clone())));
        }
    }

    /// What has failed on this side since it was asked for the last time.
    pub(super) fn take_failure(&self) -> Option<OpError> {
        locked(&self.0.failure).take()
    }

    /// Notes that something on this side has failed.
    pub(super) fn failed(&self, error: OpError) {
        locked(&self.0.failure).get_or_insert(error);
    }

    pub(super) fn content(&self) -> &ContentStore {
        &self.0.content
    }

    /// Whether a blob need not be sent: it was lent from here, or is here and from now on held.
    pub(super) fn has(&self, digest: &Digest) -> bool {
        matches!(self.blob(digest), Some(Blob::Layer(_))) || self.hold(digest)
    }

    /// Notes that a blob has come, and holds it.
    pub(super) fn came(&self, digest: Digest, size: u64) {
        locked(&self.0.received).insert(digest);
        self.0.counters.received.fetch_add(size, Ordering::Relaxed);
        self.hold(&digest);
    }

    fn hold(&self, digest: &Digest) -> bool {
        let Ok(reader) = self.0.content.reader(digest) else { return false };
        let mut held = locked(&self.0.held);
        held.entry(*digest).or_insert_with(|| Held { times: 0, reader: Arc::new(reader) }).times += 1;
        true
    }

    /// Makes sure that a blob of a result is in the content store.
    pub(super) async fn ensure(&self, digest: &Digest) -> Result<(), OpError> {
        if self.0.content.contains(digest) {
            return Ok(());
        }
        if let Some(Blob::Layer(layer)) = self.blob(digest) {
            return layer.fetch().await.map_err(snapshot_error);
        }
        let held = locked(&self.0.held).get(digest).map(|held| held.reader.clone());
        let Some(reader) = held else { return Ok(()) };
        let digest = *digest;
        let copied = self.0.content.off_runtime(move |content| bring_back(&content, &reader, &digest)).await;
        copied.map_err(|e| OpError::new(ErrorKind::Environment, format!("keeping a worker's result: {e}")))
    }

    /// Lets go of a blob that a snapshot has now.
    pub(super) fn release(&self, digest: &Digest) {
        let mut held = locked(&self.0.held);
        if let Some(found) = held.get_mut(digest) {
            found.times -= 1;
            if found.times == 0 {
                held.remove(digest);
            }
        }
    }

    /// Notes that bytes go to the worker.
    pub(super) fn goes(&self, size: u64) {
        self.0.counters.sent.fetch_add(size, Ordering::Relaxed);
    }

    /// A blob that was lent.
    pub(super) fn blob(&self, digest: &Digest) -> Option<Blob> {
        locked(&self.0.blobs).get(digest).cloned()
    }

    /// The size of a blob that the worker has written.
    pub(super) fn size_of_received(&self, digest: &Digest) -> Option<u64> {
        let came = locked(&self.0.received).contains(digest);
        self.0.content.size(digest).ok().filter(|_| came)
    }
}

/// Copies an open blob into the store. Blocks.
fn bring_back(content: &ContentStore, reader: &BlobReader, digest: &Digest) -> crosskit_images::Result<()> {
    let failed = |e| crosskit_images::Error::io(format!("copy blob {digest}"), e);
    let mut ingest = content.ingest()?;
    let mut piece = vec![0; PIECE];
    loop {
        let got = reader.read_at(&mut piece, ingest.size()).map_err(failed)?;
        if got == 0 {
            return ingest.commit_expecting(digest, None);
        }
        ingest.write_all(&piece[..got]).map_err(failed)?;
    }
}

impl Blob {
    /// Its size in bytes.
    pub(super) fn size(&self) -> u64 {
        match self {
            Blob::Document(bytes) => bytes.len() as u64,
            Blob::Layer(layer) => layer.blob.desc.size,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_blob_that_was_told_to_be_here_comes_back_when_it_is_pruned() {
        let folder = tempfile::tempdir().unwrap();
        let content = ContentStore::open(folder.path()).unwrap();
        let lent = Lent::new(content.clone(), Arc::default());
        let digest = content.put(&[7; 3 << 20]).unwrap();
        assert!(!lent.has(&Digest::of("another")));
        // Two results have it.
        assert!(lent.has(&digest) && lent.has(&digest));
        for left in [2, 1] {
            content.delete(&digest).unwrap();
            lent.ensure(&digest).await.unwrap();
            assert_eq!(content.read(&digest, 4 << 20).unwrap(), [7; 3 << 20]);
            lent.release(&digest);
            assert_eq!(locked(&lent.0.held).len(), usize::from(left > 1));
        }
        content.delete(&digest).unwrap();
        lent.ensure(&digest).await.unwrap();
        assert!(!content.contains(&digest));
    }
}
