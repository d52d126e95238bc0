//! What can go wrong with caches elsewhere.

/// Who has to act when an error happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The person who asked for the build, or who wrote the cache.
    User,
    /// The machine: its disk, its permissions.
    Environment,
    /// The other end; it may work at another time.
    Unavailable,
    /// Nobody: it was asked to stop.
    Canceled,
    /// Us.
    Internal,
}

/// Why a cache can't be read or given away.
#[derive(Debug, thiserror::Error)]
pub enum RemoteCacheError {
    /// Options that make no sense.
    #[error("{0}")]
    Options(String),
    /// A kind of cache that isn't there.
    #[error("{0}")]
    Unsupported(String),
    /// A cache that says what can't be.
    #[error("{0}")]
    Invalid(String),
    /// A signature that is needed and does not hold.
    #[error("signature verification failed: {0}")]
    Signature(crosskit_signatures::SignatureError),
    /// A document that is too large.
    #[error("{what} is too large ({size} > {limit} bytes)")]
    TooLarge {
        /// Which one.
        what: String,
        /// Its size in bytes.
        size: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// A registry or the content store.
    #[error("{doing}: {source}")]
    Images {
        /// What was being done.
        doing: String,
        /// What happened.
        source: Box<crosskit_images::Error>,
    },
    /// The client.
    #[error("{doing}: {source}")]
    Session {
        /// What was being done.
        doing: String,
        /// What happened.
        source: Box<crosskit_session::SessionError>,
    },
    /// A store of objects.
    #[error("{doing}: {source}")]
    Store {
        /// What was being done.
        doing: String,
        /// What happened.
        source: Box<crosskit_objectstores::StoreError>,
    },
    /// Snapshots.
    #[error("{doing}: {source}")]
    Snapshots {
        /// What was being done.
        doing: String,
        /// What happened.
        source: Box<crosskit_snapshots::Error>,
    },
    /// A step of the way failed.
    #[error("{doing}: {source}")]
    While {
        /// What was being done.
        doing: String,
        /// What happened.
        source: Box<RemoteCacheError>,
    },
}

impl RemoteCacheError {
    /// Who has to act.
    pub fn kind(&self) -> ErrorKind {
        use RemoteCacheError as E;
        match self {
            E::Options(_) | E::Unsupported(_) | E::Invalid(_) | E::Signature(_) | E::TooLarge { .. } => {
                ErrorKind::User
            }
            E::Images { source, .. } => match source.kind() {
                crosskit_images::ErrorKind::User => ErrorKind::User,
                crosskit_images::ErrorKind::Environment => ErrorKind::Environment,
                crosskit_images::ErrorKind::Unavailable => ErrorKind::Unavailable,
                crosskit_images::ErrorKind::Canceled => ErrorKind::Canceled,
                crosskit_images::ErrorKind::Internal => ErrorKind::Internal,
            },
            E::Session { source, .. } => match source.kind() {
                crosskit_session::ErrorKind::User => ErrorKind::User,
                crosskit_session::ErrorKind::Environment => ErrorKind::Environment,
                crosskit_session::ErrorKind::Unavailable => ErrorKind::Unavailable,
                crosskit_session::ErrorKind::Canceled => ErrorKind::Canceled,
                crosskit_session::ErrorKind::Internal => ErrorKind::Internal,
            },
            E::Snapshots { source, .. } => match source.kind() {
                crosskit_snapshots::Kind::User => ErrorKind::User,
                crosskit_snapshots::Kind::Environment => ErrorKind::Environment,
                crosskit_snapshots::Kind::Unavailable => ErrorKind::Unavailable,
                crosskit_snapshots::Kind::Canceled => ErrorKind::Canceled,
                crosskit_snapshots::Kind::Internal => ErrorKind::Internal,
            },
            E::Store { source, .. } => match source.kind() {
                crosskit_objectstores::ErrorKind::User => ErrorKind::User,
                crosskit_objectstores::ErrorKind::Environment => ErrorKind::Environment,
                crosskit_objectstores::ErrorKind::Unavailable => ErrorKind::Unavailable,
            },
            E::While { source, .. } => source.kind(),
        }
    }

    /// The same, telling what it happened in.
    #[must_use]
    pub fn while_doing(self, doing: impl Into<String>) -> Self {
        RemoteCacheError::While { doing: doing.into(), source: Box::new(self) }
    }

    /// For an error of images.
    pub(crate) fn images(doing: impl Into<String>) -> impl FnOnce(crosskit_images::Error) -> Self {
        let doing = doing.into();
        move |source| RemoteCacheError::Images { doing, source: Box::new(source) }
    }

    /// For an error of a session.
    pub(crate) fn session(doing: impl Into<String>) -> impl FnOnce(crosskit_session::SessionError) -> Self {
        let doing = doing.into();
        move |source| RemoteCacheError::Session { doing, source: Box::new(source) }
    }

    /// For an error of a store of objects.
    pub(crate) fn store(doing: impl Into<String>) -> impl FnOnce(crosskit_objectstores::StoreError) -> Self {
        let doing = doing.into();
        move |source| RemoteCacheError::Store { doing, source: Box::new(source) }
    }

    /// For an error of snapshots.
    pub(crate) fn snapshots(doing: impl Into<String>) -> impl FnOnce(crosskit_snapshots::Error) -> Self {
        let doing = doing.into();
        move |source| RemoteCacheError::Snapshots { doing, source: Box::new(source) }
    }
}

impl From<crosskit_cacheconfig::Invalid> for RemoteCacheError {
    fn from(crosskit_cacheconfig::Invalid(why): crosskit_cacheconfig::Invalid) -> Self {
        RemoteCacheError::Invalid(why)
    }
}

/// What can go wrong here.
pub(crate) type Result<T, E = RemoteCacheError> = std::result::Result<T, E>;
