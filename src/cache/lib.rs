//! Have we done this before: cache keys and records.
//!
//! A key stands for one output of an operation. It has a name, which is made of the digest of the
//! operation and the output's number, and is told from others of that name by the keys of the inputs, each of which may be known in several ways: by what it was made
//! of, and by its content. So keys form a graph, in which a [`Link`] leads from the key of an
//! input to that of an operation on it, and a build that looks for a result follows links from
//! the inputs: what all inputs lead to is the operation's key. A key may lead to results, the
//! [`Record`]s, that [`Results`] keeps. The digests are BuildKit's, so that chains of keys can
//! be exchanged with it.

mod cache;
mod digest;
mod error;
mod index;
mod results;
mod row;
mod store;

pub use cache::{Alternative, CONTENT, Cache, KeyId, KeyInfo, Link, Record};
pub use digest::{KeyDigest, ParseKeyDigestError};
pub use error::{CacheError, ErrorKind};
pub use results::{LoadContext, MemoryResults, Results};
pub use store::{KeyStore, MemoryStore, RowChange};
