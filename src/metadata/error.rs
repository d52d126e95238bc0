//! What can go wrong with the database.

use std::path::PathBuf;
use std::sync::Arc;

/// Whose matter an error is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The machine: disk, permissions, another daemon.
    Environment,
    /// A bug of ours, or damage.
    Internal,
}

/// What can go wrong with the database.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process has the file open.
    #[error("metadata database {}: already open in another process; stop that daemon or use another root folder", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The file could not be opened, read or written.
    #[error("metadata database {}: {doing}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// Why it failed.
        source: Arc<redb::Error>,
    },
    /// A damaged file could not be moved out of the way.
    #[error("metadata database {}: it is damaged and cannot be set aside: {source}", path.display())]
    SetAside {
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// No thread could be started.
    #[error("starting the thread that writes metadata: {source}")]
    Thread {
        /// Why it failed.
        source: std::io::Error,
    },
}

impl Error {
    /// Whose matter it is.
    pub fn kind(&self) -> Kind {
        match self {
            Error::File { source, .. } if !matches!(**source, redb::Error::Io(_)) => Kind::Internal,
            _ => Kind::Environment,
        }
    }

    /// The same error for one more who waited for the same commit.
    pub(crate) fn again(&self) -> Error {
        let io = |e: &std::io::Error| std::io::Error::new(e.kind(), e.to_string());
        match self {
            Error::InUse { path } => Error::InUse { path: path.clone() },
            Error::File { path, doing, source } => {
                Error::File { path: path.clone(), doing, source: source.clone() }
            }
            Error::SetAside { path, source } => Error::SetAside { path: path.clone(), source: io(source) },
            Error::Thread { source } => Error::Thread { source: io(source) },
        }
    }
}
