//! What keeps a folder from being scanned at all.

use std::path::PathBuf;

/// Whose matter an error is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The machine's.
    Environment,
    /// Nobody wants the answer any more.
    Canceled,
}

/// What keeps a folder from being scanned at all. A database that can't be read doesn't: it is a remark.
#[derive(Debug, thiserror::Error)]
pub enum SbomError {
    /// The folder itself can't be opened.
    #[error("scan of {}: opening it: {source}; nothing below it was looked at", path.display())]
    Root {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Nobody wants the answer any more.
    #[error("scan was canceled")]
    Canceled,
}

impl SbomError {
    /// Whose matter it is.
    pub fn kind(&self) -> Kind {
        match self {
            SbomError::Root { .. } => Kind::Environment,
            SbomError::Canceled => Kind::Canceled,
        }
    }
}
