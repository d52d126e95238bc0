//! What can go wrong.

use std::path::PathBuf;

/// Why certificates were not made.
#[derive(Debug, thiserror::Error)]
pub enum CertsError {
    /// What was asked for makes no sense.
    #[error("{0}")]
    Argument(String),
    /// Something would be overwritten.
    #[error("{} is there already; --force makes new ones in its place, --daemon or --client NAME others beside it", .0.display())]
    Exists(PathBuf),
    /// A client's certificate alone, where nobody could know it.
    #[error("there is no authority in {} that a client could be known by; --for HOST makes one, and a daemon's certificate", .0.display())]
    NoAuthority(PathBuf),
    /// The authority that is there is of no use.
    #[error("{}: {why}", path.display())]
    Authority {
        /// Which file.
        path: PathBuf,
        /// What is wrong, and what to do.
        why: String,
    },
    /// A file or folder.
    #[error("{doing} {}: {source}", path.display())]
    File {
        /// What was being done.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// What came of it.
        source: std::io::Error,
    },
    /// A key or a certificate could not be made.
    #[error("making a certificate: {0}")]
    Making(String),
}

/// Whose matter an error is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Of who asked.
    User,
    /// Of the machine.
    Environment,
    /// Of this program.
    Internal,
}

impl CertsError {
    /// Whose matter it is.
    pub fn kind(&self) -> Kind {
        match self {
            CertsError::Argument(_) | CertsError::Exists(_) | CertsError::NoAuthority(_) => Kind::User,
            CertsError::Authority { .. } | CertsError::File { .. } => Kind::Environment,
            CertsError::Making(_) => Kind::Internal,
        }
    }

    pub(crate) fn file(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| CertsError::File { doing, path, source }
    }

    pub(crate) fn making(error: impl std::fmt::Display) -> Self {
        CertsError::Making(error.to_string())
    }
}
