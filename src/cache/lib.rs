//! Have we done this before: cache keys and records.

mod digest;

pub use digest::{KeyDigest, ParseKeyDigestError};
