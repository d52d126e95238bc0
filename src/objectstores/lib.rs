//! Stores of objects by key: S3 and Azure's blobs, with their signatures and credentials.
//!
//! [`Objects`] is what can be done with any of them. [`s3::Bucket`] and [`azure::Container`] are the
//! kinds; [`azure::Blobs`] also serves whoever was given addresses that carry their own permission.
//! Requests that fail for a moment are made again by [`http::Http`], within bounds; what is larger
//! than a piece goes up in pieces, of which the process holds only a few at a time.

pub mod azure;
mod encoding;
mod environment;
mod error;
pub mod http;
mod objects;
pub mod pieces;
mod reading;
pub mod s3;
mod xml;

#[cfg(test)]
#[allow(clippy::unwrap_used)] // A test ends where something is not as it should be.
mod answering;
#[cfg(test)]
#[allow(clippy::unwrap_used)] // A test ends where something is not as it should be.
mod http_tests;

pub use encoding::encode;
pub use environment::Environment;
pub use error::{ErrorKind, Result, StoreError};
pub use objects::{Described, Objects, Version};
pub use reading::{PieceStream, read_all, read_on};
