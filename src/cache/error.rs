/// Who has to act when an error happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The request asks for something that cannot be.
    User,
    /// The machine lacks something.
    Environment,
    /// Something outside does not answer.
    Unavailable,
    /// The one who asked has left.
    Canceled,
    /// A bug.
    Internal,
}

/// Why something could not be kept or found again.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The database does not do as told.
    #[error("cannot {doing} the cache keys: {source}")]
    Store {
        /// What was being done.
        doing: &'static str,
        /// What the database said.
        source: crosskit_metadata::Error,
    },
    /// A result cannot be kept.
    #[error("cannot keep a result for later builds: {message}")]
    Save {
        /// What happened.
        message: String,
        /// Who has to act.
        kind: ErrorKind,
    },
    /// A result that was there cannot be used; the step has to run again.
    #[error("cannot load the cached result {id}: {message}")]
    Load {
        /// The result.
        id: String,
        /// What happened.
        message: String,
        /// Who has to act.
        kind: ErrorKind,
    },
}

impl CacheError {
    /// Who has to act.
    pub fn kind(&self) -> ErrorKind {
        match self {
            CacheError::Store { .. } => ErrorKind::Environment,
            CacheError::Save { kind, .. } | CacheError::Load { kind, .. } => *kind,
        }
    }
}
