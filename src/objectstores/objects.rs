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

/// Objects by key.
pub trait Objects: Send + Sync {
    /// What there is under a key; none if there is nothing.
    fn describe<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Described>>>;

    /// The bytes of an object from a place on; none if there is nothing under the key.
    fn read<'a>(&'a self, key: &'a str, from: u64) -> BoxFuture<'a, Result<Option<PieceStream>>>;

    /// Writes a small object, in place of what was there.
    fn write<'a>(&'a self, key: &'a str, content: Bytes) -> BoxFuture<'a, Result<()>>;

    /// Has an object count as written now, so that no rule of the store takes it for old.
    fn touch<'a>(&'a self, key: &'a str, size: u64) -> BoxFuture<'a, Result<()>>;

    /// Writes what is in a file. Nobody sees it before it is whole.
    fn write_file<'a>(&'a self, key: &'a str, file: Arc<File>, size: u64) -> BoxFuture<'a, Result<()>>;
}
