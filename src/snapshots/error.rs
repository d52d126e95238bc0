//! What can go wrong with snapshots.

use crosskit_images::ErrorKind;
use std::path::{Path, PathBuf};

/// Whose matter an error is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// What was asked for is wrong.
    User,
    /// The machine: disk, permissions, kernel.
    Environment,
    /// Something is not there now and may be later, such as a registry.
    Unavailable,
    /// The work was given up on request.
    Canceled,
    /// A bug of ours, or damage.
    Internal,
}

/// What can go wrong with snapshots.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder could not be worked on.
    #[error("{doing} {}: {source}", path.display())]
    File {
        /// What was being done, as in "making folder".
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A snapshot could not be mounted.
    #[error("mounting snapshot at {}: {step}: {source}", path.display())]
    Mount {
        /// Where.
        path: PathBuf,
        /// The step that failed.
        step: String,
        /// Why.
        source: std::io::Error,
    },
    /// A snapshot has more layers than the kernel can stack.
    #[error(
        "a snapshot of {layers} layers cannot be mounted: the kernel stacks at most {limit}; join some of the steps"
    )]
    TooManyLayers {
        /// How many it has.
        layers: usize,
        /// How many are possible.
        limit: usize,
    },
    /// The metadata database failed.
    #[error(transparent)]
    Metadata(#[from] crosskit_metadata::Error),
    /// Work with images' content failed.
    #[error("{doing}: {source}")]
    Content {
        /// What was being done.
        doing: String,
        /// Why it failed.
        source: crosskit_images::Error,
    },
    /// A record of the database cannot be read.
    #[error("snapshot {id}: its record is damaged ({reason}); prune it")]
    Record {
        /// The snapshot.
        id: String,
        /// What is wrong.
        reason: String,
    },
    /// A snapshot is not there (any longer).
    #[error("snapshot {id} does not exist")]
    Gone {
        /// The snapshot.
        id: String,
    },
    /// A snapshot is still being written to.
    #[error("snapshot {id} is still mounted for writing")]
    StillMounted {
        /// The snapshot.
        id: String,
    },
    /// The content of a layer is neither on this machine nor known where to get.
    #[error(
        "layer {digest} is not stored here and its source is not known any more; run its build step again"
    )]
    NoProvider {
        /// The layer's blob.
        digest: crosskit_images::Digest,
    },
    /// A filter cannot be parsed.
    #[error(transparent)]
    Filter(#[from] crate::filters::FilterError),
    /// A path that a checksum was asked for is not there.
    #[error("{path:?}: not found")]
    NotFound {
        /// The path.
        path: String,
    },
    /// A path in nothing.
    #[error("{path}: no such file or directory")]
    NoSuchFile {
        /// The path.
        path: String,
    },
    /// A chain of symbolic links has no end.
    #[error("too many links")]
    TooManyLinks,
    /// Include or exclude patterns are malformed.
    #[error("invalid {list}: [{}]: {source}", patterns.join(" "))]
    Patterns {
        /// Which list.
        list: &'static str,
        /// Its patterns.
        patterns: Vec<String>,
        /// What is wrong.
        source: crosskit_patterns::PatternError,
    },
    /// A path with wildcards is malformed.
    #[error(transparent)]
    Wildcard(#[from] crosskit_patterns::PatternError),
    /// The work was given up on request.
    #[error("canceled")]
    Canceled,
    /// Whoever provides a blob failed.
    #[error("fetching layer {digest}: {source}")]
    Fetch {
        /// The layer's blob.
        digest: crosskit_images::Digest,
        /// The provider's own kind of error.
        kind: Kind,
        /// The provider's own error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// What snapshots give back.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Whose matter it is.
    pub fn kind(&self) -> Kind {
        match self {
            Error::File { .. } | Error::Mount { .. } => Kind::Environment,
            Error::Metadata(e) => match e.kind() {
                crosskit_metadata::Kind::Environment => Kind::Environment,
                crosskit_metadata::Kind::Internal => Kind::Internal,
            },
            Error::Content { source, .. } => match source.kind() {
                ErrorKind::User => Kind::User,
                ErrorKind::Environment => Kind::Environment,
                ErrorKind::Unavailable => Kind::Unavailable,
                ErrorKind::Canceled => Kind::Canceled,
                ErrorKind::Internal => Kind::Internal,
            },
            Error::TooManyLayers { .. }
            | Error::Filter(_)
            | Error::NotFound { .. }
            | Error::NoSuchFile { .. }
            | Error::TooManyLinks
            | Error::Patterns { .. }
            | Error::Wildcard(_) => Kind::User,
            Error::NoProvider { .. } => Kind::Unavailable,
            Error::Canceled => Kind::Canceled,
            Error::Fetch { kind, .. } => *kind,
            Error::Record { .. } | Error::Gone { .. } | Error::StillMounted { .. } => Kind::Internal,
        }
    }

    pub(crate) fn file(
        doing: &'static str,
        path: impl AsRef<Path>,
        source: impl Into<std::io::Error>,
    ) -> Error {
        Error::File { doing, path: path.as_ref().to_path_buf(), source: source.into() }
    }
}
