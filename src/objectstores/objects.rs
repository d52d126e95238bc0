//! What can be done with any store.

use crate::error::Result;
use crate::reading::PieceStream;
use bytes::Bytes;
use futures::future::BoxFuture;
use jiff::Timestamp;
use std::fs::File;
use std::sync::Arc;

/// What a store tells of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Described {
    /// Bytes.
    pub size: u64,
    /// When it was written last, if the store tells.
    pub modified: Option<Timestamp>,
}

/// A store's name for one content of an object (RFC 9110 §8.8.3, entity tag). Empty where a store has none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version(pub(crate) String);

impl Version {
    /// The header that makes a write depend on what was read; none where a store can't tell.
    pub(crate) fn condition(read: Option<&Self>) -> Option<(&'static str, &str)> {
        match read {
            None => Some(("if-none-match", "*")),
            Some(Version(tag)) if tag.is_empty() => None,
            Some(Version(tag)) => Some(("if-match", tag)),
        }
    }

    /// What the answer to such a write means.
    pub(crate) fn written(asked: Result<crate::http::Answer>) -> Result<bool> {
        match asked {
            Ok(_) => Ok(true),
            // Somebody has written, or is writing, or there is nothing any more.
            Err(error)
                if matches!(error.status().map(|status| status.as_u16()), Some(404 | 409 | 412))
                    && !matches!(error.code(), Some("NoSuchBucket" | "ContainerNotFound")) =>
            {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}

/// Objects by key.
pub trait Objects: Send + Sync {
    /// What there is under a key; none if there is nothing.
    fn describe<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Described>>>;

    /// The bytes of an object from a place on; none if there is nothing under the key.
    fn read<'a>(&'a self, key: &'a str, from: u64) -> BoxFuture<'a, Result<Option<PieceStream>>>;

    /// The bytes of a small object with the store's name for just this content of it; none if there is nothing.
    fn read_version<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<(Version, PieceStream)>>>;

    /// Writes a small object if there is still what was read, or still nothing; false if somebody else was quicker.
    fn write_after<'a>(
        &'a self,
        key: &'a str,
        content: Bytes,
        read: Option<&'a Version>,
    ) -> BoxFuture<'a, Result<bool>>;

    /// Writes a small object, in place of what was there.
    fn write<'a>(&'a self, key: &'a str, content: Bytes) -> BoxFuture<'a, Result<()>>;

    /// Has an object count as written now, so that no rule of the store takes it for old.
    fn touch<'a>(&'a self, key: &'a str, size: u64) -> BoxFuture<'a, Result<()>>;

    /// Writes what is in a file. Nobody sees it before it is whole.
    fn write_file<'a>(&'a self, key: &'a str, file: Arc<File>, size: u64) -> BoxFuture<'a, Result<()>>;
}
