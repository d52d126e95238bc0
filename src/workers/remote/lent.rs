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
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// The store of inputs, as sources name it (`oci.store`).
pub(super) const INPUTS: &str = "inputs";

/// Blobs up to this size do not wait for larger ones, in bytes.
const SMALL: u64 = 1 << 20;

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
    /// Shared by all sessions at a worker: one permit for each layer that comes.
    arrivals: Arc<Semaphore>,
    /// Blobs that come right now; the end of a channel is the end of one's way.
    coming: Mutex<HashMap<Digest, watch::Receiver<()>>>,
    blobs: Mutex<HashMap<Digest, Blob>>,
    /// What the worker has written here.
    received: Mutex<HashSet<Digest>>,
    /// Blobs of results that are on their way to become a snapshot's.
    held: Mutex<HashMap<Digest, Held>>,
    /// What has failed on this side.
    failure: Mutex<Option<OpError>>,
}

/// The turn of a blob to come. It ends when this is dropped.
pub(super) struct Turn {
    lent: Lent,
    digest: Digest,
    _own: watch::Sender<()>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        locked(&self.lent.0.coming).remove(&self.digest);
    }
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
    pub(super) fn new(content: ContentStore, counters: Arc<Counters>, arrivals: Arc<Semaphore>) -> Self {
        let (coming, blobs, received, held, failure) = Default::default();
        Lent(Arc::new(Inner { content, counters, arrivals, coming, blobs, received, held, failure }))
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

    /// Waits for the turn of a blob to come; none if it need not. Exports of steps that stand on each other send the
    /// same layers: the first one does, and the others wait for it.
    pub(super) async fn turn(&self, digest: &Digest, size: u64) -> Option<Turn> {
        let own = loop {
            let mut other = {
                let mut coming = locked(&self.0.coming);
                if self.has(digest) {
                    return None;
                }
                match coming.get(digest) {
                    Some(other) => other.clone(),
                    None => {
                        let (own, theirs) = watch::channel(());
                        coming.insert(*digest, theirs);
                        break own;
                    }
                }
            };
            // Nothing is ever sent: this is the end of the other's way.
            let _ = other.changed().await;
        };
        let mut turn = Turn { lent: self.clone(), digest: *digest, _own: own, _permit: None };
        if size > SMALL {
            // The semaphore is never closed.
            turn._permit = self.0.arrivals.clone().acquire_owned().await.ok();
        }
        Some(turn)
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
        let lent = Lent::new(content.clone(), Arc::default(), Arc::new(Semaphore::new(1)));
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

    #[tokio::test]
    async fn a_blob_comes_once_and_large_ones_a_few_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let content = ContentStore::open(folder.path()).unwrap();
        let lent = Lent::new(content.clone(), Arc::default(), Arc::new(Semaphore::new(1)));
        let [large, other, small] = [vec![1; 2 << 20], vec![2; 2 << 20], vec![3]];
        let turn = async |data: &[u8]| lent.turn(&Digest::of(data), data.len() as u64).await;
        let first = turn(&large).await.unwrap();
        let (mut again, mut next) = (Box::pin(turn(&large)), Box::pin(turn(&other)));
        assert!(futures::poll!(&mut again).is_pending());
        assert!(futures::poll!(&mut next).is_pending());
        assert!(turn(&small).await.is_some());
        let digest = content.put(&large).unwrap();
        lent.came(digest, 2 << 20);
        drop(first);
        assert!(again.await.is_none());
        drop(next.await.unwrap());
        // One that broke off is sent again by the next.
        assert!(turn(&other).await.is_some());
    }
}
