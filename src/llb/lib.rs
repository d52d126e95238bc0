//! What is a build graph: decode, validate, digest, construct.
//!
//! A graph reaches the daemon as a [`Definition`](crosskit_api::pb::Definition): encoded
//! operations in any order, the last one only pointing at the result. [`Graph::decode`] turns
//! those untrusted bytes into checked vertices keyed by the digest of their bytes;
//! [`Builder`] makes graphs, with the same bytes and thus the same digests as BuildKit's
//! client library makes. [`json`] writes operations as Go's encoder does, which both the
//! human-readable dump and BuildKit's cache keys are made of.

mod builder;
mod caps;
mod digest;
mod encode;
mod error;
mod exec;
mod file;
mod graph;
pub mod json;
mod json_ops;
mod metadata;
pub mod names;
pub mod paths;
mod replace;
mod source;
mod validate;

pub use builder::{Builder, Constraints, ExecOutputs, NodeId, Output};
pub use caps::Caps;
pub use digest::{Digest, DigestMap, DigestSet, ParseDigestError};
pub use encode::encode_op;
pub use error::{ErrorKind, LlbError};
pub use exec::{CacheMount, Exec, ExecMount, SecretMount, SshMount};
pub use file::{Chown, CopyAction, FileActionSpec, MkdirAction, MkfileAction, Mode, Owner};
pub use file::{RmAction, SymlinkAction};
pub use graph::{Edge, Graph, Limits, SourceFile, SourceLocation, Vertex};
pub use metadata::{looser_resources, merge_metadata};
pub use source::{GitSource, HttpSource, ImageSource, LocalSource, OciLayoutSource, ResolveMode};
pub use validate::{validate_mount_type, validate_op};

#[cfg(test)]
mod graph_tests;
