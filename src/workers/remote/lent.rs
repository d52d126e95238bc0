//! The blobs that a session lends and takes. Only what was lent can be read, so that a worker
//! sees no more of this machine's blobs than its steps need.

use super::Counters;
use super::inputs::InputImage;
use bytes::Bytes;
use crosskit_images::{ContentStore, Digest};
use crosskit_snapshots::Layer;
use crosskit_solver::OpError;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The store of inputs, as sources name it (`oci.store`).
pub(super) const INPUTS: &str = "inputs";

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
    /// What has failed on this side.
    failure: Mutex<Option<OpError>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Lent {
    /// Nothing lent yet. Results go to `content`.
    pub(super) fn new(content: ContentStore, counters: Arc<Counters>) -> Self {
        let (blobs, received, failure) = Default::default();
        Lent(Arc::new(Inner { content, counters, blobs, received, failure }))
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

    /// Whether a blob need not be sent: it is here, or was lent from here.
    pub(super) fn has(&self, digest: &Digest) -> bool {
        locked(&self.0.blobs).contains_key(digest) || self.0.content.contains(digest)
    }

    /// Notes that a blob has come.
    pub(super) fn came(&self, digest: Digest, size: u64) {
        locked(&self.0.received).insert(digest);
        self.0.counters.received.fetch_add(size, Ordering::Relaxed);
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

impl Blob {
    /// Its size in bytes.
    pub(super) fn size(&self) -> u64 {
        match self {
            Blob::Document(bytes) => bytes.len() as u64,
            Blob::Layer(layer) => layer.blob.desc.size,
        }
    }
}
