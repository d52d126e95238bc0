//! Why a layer cannot be applied or made.

use std::io;

use crate::errors::{ErrorKind, io_kind};

/// A layer that cannot be applied or made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayerError {
    /// An entry or link target whose path leads out of the root filesystem.
    #[error("entry {entry:?} leaves the root filesystem")]
    Escapes {
        /// The path as it stands in the tar.
        entry: String,
    },
    /// Bytes that are no tar, or a compressed stream that is damaged.
    #[error("failed to read layer: {0}")]
    Archive(#[source] io::Error),
    /// A removal marker without the name of what it removes.
    #[error("invalid whiteout name: {entry:?}")]
    Whiteout {
        /// The path as it stands in the tar.
        entry: String,
    },
    /// A hard link to a file that neither this layer nor those below have.
    #[error("entry {entry:?} is a hard link to {target:?}, which does not exist")]
    LinkTarget {
        /// The path as it stands in the tar.
        entry: String,
        /// Where the link points.
        target: String,
    },
    /// A kind of entry that no filesystem has.
    #[error("entry {entry:?} has the unknown type {flag:?}")]
    UnknownType {
        /// The path as it stands in the tar.
        entry: String,
        /// The type byte.
        flag: char,
    },
    /// More entries or bytes than allowed.
    #[error("layer exceeds the limit of {limit} {what}")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// How much is allowed.
        limit: u64,
    },
    /// The operating system refused.
    #[error("{doing} {path:?}: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To which path within the root filesystem.
        path: String,
        /// The system's answer.
        source: io::Error,
    },
    /// An overlay feature that makes an upper folder unreadable on its own.
    #[error("{path:?} uses overlayfs redirects, which layers cannot express: mount with redirect_dir=off")]
    Redirect {
        /// The folder.
        path: String,
    },
    /// The tar could not be written on.
    #[error("failed to write layer: {0}")]
    Write(#[source] io::Error),
    /// The work was given up on purpose.
    #[error("layer: canceled")]
    Canceled,
}

impl LayerError {
    /// Whose matter the error is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Io { source, .. } | Self::Archive(source) | Self::Write(source) => io_kind(source),
            Self::Canceled => ErrorKind::Canceled,
            Self::Redirect { .. } => ErrorKind::Environment,
            _ => ErrorKind::User,
        }
    }

    /// An [`LayerError::Io`].
    pub(super) fn io(doing: &'static str, path: &[u8], source: impl Into<io::Error>) -> Self {
        Self::Io { doing, path: String::from_utf8_lossy(path).into_owned(), source: source.into() }
    }
}
