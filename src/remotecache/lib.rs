//! How others' caches are read and ours is given away.
//!
//! A cache elsewhere is a document that tells chains of keys
//! ([`CacheConfig`](crosskit_cacheconfig::CacheConfig)) and the layers that some
//! of them lead to. An import makes a [`Cache`](crosskit_cache::Cache) of it, which a build looks
//! into beside its own; no layer moves until its files are needed. An export walks the keys that a
//! build's results are known by, collects the layers behind them, and gives both to a backend.
//! Each backend is one file and a line in a table.

mod backends;
mod chains;
mod error;
mod export;
mod import;
mod inline;
mod layers;
mod manifests;
mod merging;
mod mounts;
mod objects;
mod options;
mod turns;

pub use backends::gha::{GithubCaches, Verification};
pub use crosskit_signatures::{FIELDS, Policy};
pub use error::{ErrorKind, RemoteCacheError};
pub use export::{CacheExport, CacheExports, Mode};
pub use inline::inline;
pub use options::{CacheOptions, without_secrets};

use crosskit_images::registry::RegistryHosts;
use crosskit_session::SessionManager;
use crosskit_snapshots::{Ref, Snapshots};

/// What a vertex yields: a filesystem, or None for an empty one.
pub type ResultRef = Option<Ref>;

/// What caches elsewhere need of the daemon. Cheap to clone.
#[derive(Clone)]
pub struct RemoteCaches {
    /// The clients.
    pub sessions: SessionManager,
    /// Registries.
    pub registries: RegistryHosts,
    /// Layers on disk.
    pub snapshots: Snapshots,
    /// How caches with GitHub are signed, and by whom they have to be.
    pub github: GithubCaches,
    /// Builds that write to the same cache.
    pub writers: Writers,
}

/// Builds of this daemon that give caches away: those that write to the same one take turns. Cheap to clone.
#[derive(Clone, Default)]
pub struct Writers(pub(crate) turns::Turns);

#[cfg(test)]
#[allow(clippy::unwrap_used)] // A test ends where something is not as it should be.
mod interchange_tests;
