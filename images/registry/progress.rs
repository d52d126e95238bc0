//! How a transfer goes.

use crate::digest::Digest;

/// Where a blob is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlobState {
    /// On its way.
    Transferring,
    /// It was there already.
    Exists,
    /// The registry took it from another of its repositories.
    Mounted,
    /// It has arrived.
    Done,
}

/// Told of each blob's progress, often: it must not block.
pub trait Progress: Send + Sync {
    /// `current` of `total` bytes are there.
    fn blob(&self, digest: &Digest, state: BlobState, current: u64, total: u64);
}

/// Tells nobody.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn blob(&self, _digest: &Digest, _state: BlobState, _current: u64, _total: u64) {}
}
