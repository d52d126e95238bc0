//! The document that tells a cache's keys and the layers that some of them lead to, BuildKit's in
//! every byte that counts: [`CacheConfig`].
//!
//! [`read_keys`] makes keys of a document, a [`Keyring`] makes a document of keys, and [`unite`] brings
//! two documents together, as many writers of one cache need it.

mod document;
mod keyring;
mod keys;
mod union;

#[cfg(test)]
#[allow(clippy::unwrap_used)] // A test ends where something is not as it should be.
mod union_tests;

pub use document::{
    CacheConfig, CacheInput, CacheLayer, CacheRecord, CacheResult, ChainedResult, LayerAnnotations,
    MEDIA_TYPE, place,
};
pub use keyring::{Keyring, LayerList};
pub use keys::read_keys;
pub use union::{Limits, MAX_AGE, covers, unite};

/// What a document says that can't be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(pub String);
