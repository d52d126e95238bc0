//! Content by digest: blobs as plain files under one folder.
//!
//! `blobs/sha256/HEX` holds what is complete, `ingest/` what is being written. A blob appears by a rename after its
//! digest was checked, so nobody ever sees half of one, and what a crash leaves in `ingest/` is removed at the next
//! start. Nothing is synced to disk on the way: after a power failure a blob can be short, which readers notice by
//! its size; after the end of the process, however sudden, it cannot.

mod arrival;
mod ingest;
mod store;

pub use arrival::NotArrived;
pub use ingest::Ingest;
pub use store::{BlobReader, ContentStore};

#[cfg(test)]
mod content_tests;
