//! What can go wrong with images, and whose matter it is.

use std::io;

use crate::digest::Digest;
use crate::layers::LayerError;
use crate::registry::{ReferenceError, RegistryError};

/// Shorthand for results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Who can do something about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The request or the bytes given are wrong.
    User,
    /// This machine lacks something: space, permission, a kernel feature.
    Environment,
    /// Somebody else (a registry) does not answer or refuses for now.
    Unavailable,
    /// The work was given up on purpose.
    Canceled,
    /// A fault of this program.
    Internal,
}

/// Any failure of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A digest that cannot be read.
    #[error("invalid digest {text:?}: {reason}")]
    InvalidDigest {
        /// What was given.
        text: String,
        /// What is wrong with it, in go-digest's words.
        reason: &'static str,
    },
    /// A document (manifest, config, index) that cannot be read.
    #[error("failed to parse {what}: {source}")]
    Parse {
        /// Which document.
        what: String,
        /// Where and why it is wrong.
        source: serde_json::Error,
    },
    /// A document that is well-formed but says something impossible.
    #[error("invalid {what}: {reason}")]
    Invalid {
        /// Which document or value.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A blob that is not in the store or archive.
    #[error("content {digest}: not found")]
    MissingBlob {
        /// Its digest.
        digest: Digest,
    },
    /// Bytes that do not hash to the digest they were announced by.
    #[error(
        "unexpected digest of {what}: expected {expected}, got {actual}: the content was changed or damaged on its way"
    )]
    DigestMismatch {
        /// Which blob or document.
        what: String,
        /// What was announced.
        expected: Digest,
        /// What the bytes hash to.
        actual: Digest,
    },
    /// Content of the store that is not what it was when it was put there.
    #[error(
        "stored content {digest} was damaged on disk and has been removed: build again to have it made or fetched anew"
    )]
    Damaged {
        /// Its digest.
        digest: Digest,
    },
    /// More or fewer bytes than announced.
    #[error(
        "unexpected size of {what}: expected {expected} bytes, got {actual}: the content is truncated or was replaced"
    )]
    SizeMismatch {
        /// Which blob or document.
        what: String,
        /// What was announced.
        expected: u64,
        /// What came.
        actual: u64,
    },
    /// More bytes than this program is willing to keep in memory or to unpack.
    #[error("{what} is larger than the limit of {limit} bytes")]
    TooLarge {
        /// Which document.
        what: String,
        /// The limit in bytes.
        limit: u64,
    },
    /// The operating system refused.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done, to what.
        doing: String,
        /// The system's answer.
        source: io::Error,
    },
    /// A layer that cannot be applied or made.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// A registry that does not do what was asked.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A text that is no name of an image.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// No manifest of an index fits the platform wanted.
    #[error("no match for platform in manifest: not found")]
    NoPlatformMatch {
        /// The platform wanted.
        wanted: String,
        /// The platforms there are.
        available: Vec<String>,
    },
    /// Something this program does not do.
    #[error("{what} is not supported: {hint}")]
    Unsupported {
        /// What was asked.
        what: String,
        /// What to do instead.
        hint: String,
    },
    /// The work was given up on purpose.
    #[error("{doing}: canceled")]
    Canceled {
        /// What was being done.
        doing: String,
    },
}

impl Error {
    /// Whose matter the error is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::InvalidDigest { .. }
            | Self::Parse { .. }
            | Self::Invalid { .. }
            | Self::TooLarge { .. }
            | Self::NoPlatformMatch { .. }
            | Self::DigestMismatch { .. }
            | Self::SizeMismatch { .. }
            | Self::Reference(_)
            | Self::Unsupported { .. } => ErrorKind::User,
            Self::MissingBlob { .. } => ErrorKind::Unavailable,
            Self::Damaged { .. } => ErrorKind::Environment,
            Self::Io { source, .. } => io_kind(source),
            Self::Layer(error) => error.kind(),
            Self::Registry(error) => error.kind(),
            Self::Canceled { .. } => ErrorKind::Canceled,
        }
    }

    /// An [`Error::Io`] that says what was being done.
    pub fn io(doing: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::Io { doing: doing.into(), source: source.into() }
    }

    /// An [`Error::Invalid`].
    pub fn invalid(what: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Invalid { what: what.into(), reason: reason.into() }
    }

    /// Whether what was looked for is not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::MissingBlob { .. } | Self::NoPlatformMatch { .. })
            || matches!(self, Self::Registry(RegistryError::NotFound { .. }))
            || matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// Whose matter an answer of the operating system is.
pub(crate) fn io_kind(source: &io::Error) -> ErrorKind {
    match source.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidInput => {
            ErrorKind::User
        }
        io::ErrorKind::TimedOut
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionRefused
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe => ErrorKind::Unavailable,
        _ => ErrorKind::Environment,
    }
}
