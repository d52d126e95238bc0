//! The kinds of places that caches are kept in: one file and one line each.

mod azblob;
pub(crate) mod gha;
mod keyed;
mod local;
mod registry;
mod s3;

use crate::chains::Collected;
use crate::error::{RemoteCacheError, Result};
use crate::import::Found;
use crate::{CacheOptions, RemoteCaches};
use crosskit_solver::VertexProgress;
use futures::future::BoxFuture;
use std::collections::BTreeMap;

/// Which way a cache goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Import,
    Export,
}

impl Way {
    fn word(self) -> &'static str {
        match self {
            Way::Import => "importer",
            Way::Export => "exporter",
        }
    }
}

/// A cache in a place, for one build.
pub(crate) trait Backend: Send + Sync {
    /// What the step is called that gives a cache away.
    fn name(&self) -> &'static str;

    /// Finds what the cache has.
    fn find<'a>(&'a self, step: &'a VertexProgress) -> BoxFuture<'a, Result<Vec<Found>>>;

    /// Puts a cache in its place; returns what the client is told. Nobody sees it before it is whole.
    fn give<'a>(
        &'a self,
        cache: Collected,
        step: &'a VertexProgress,
    ) -> BoxFuture<'a, Result<BTreeMap<String, String>>>;
}

type Resolve = fn(&RemoteCaches, Way, &CacheOptions, &[String]) -> Result<Box<dyn Backend>>;

/// The kinds.
const KINDS: &[(&str, Resolve)] = &[
    ("registry", registry::resolve),
    ("local", local::resolve),
    ("s3", s3::resolve),
    ("azblob", azblob::resolve),
    ("gha", gha::resolve),
];

/// The place that options mean, for a build with these sessions.
pub(crate) fn resolve(
    caches: &RemoteCaches,
    way: Way,
    options: &CacheOptions,
    sessions: &[String],
) -> Result<Box<dyn Backend>> {
    let kind = options.kind.as_str();
    let word = way.word();
    let Some((_, resolve)) = KINDS.iter().find(|(name, _)| *name == kind) else {
        return Err(RemoteCacheError::Unsupported(match way {
            Way::Export => format!("unknown cache exporter: {kind:?}"),
            Way::Import => format!("unknown cache importer: {kind}"),
        }));
    };
    resolve(caches, way, options, sessions)
        .map_err(|e| e.while_doing(format!("failed to configure {kind} cache {word}")))
}
