//! What can go wrong while an input is brought here.

use crosskit_session::SessionError;
use std::io;

/// Who has to do something about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The person who asked for the build.
    User,
    /// This machine lacks something.
    Environment,
    /// Somebody else does not answer or refuses for now.
    Unavailable,
    /// Nobody: it was asked to stop.
    Canceled,
    /// Us.
    Internal,
}

/// What can go wrong while an input is brought here.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The request makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// Something this program does not do.
    #[error("{what} is not supported: {hint}")]
    Unsupported {
        /// What was asked.
        what: String,
        /// What to do instead.
        hint: String,
    },
    /// It is not what it was announced to be.
    #[error("{0}")]
    Mismatch(String),
    /// The client failed, or is gone.
    #[error("{doing}: {source}")]
    Session {
        /// What was being done, to what.
        doing: String,
        /// What happened.
        source: SessionError,
    },
    /// An image could not be had.
    #[error("{doing}: {source}")]
    Image {
        /// What was being done, to what.
        doing: String,
        /// What happened.
        source: crosskit_images::Error,
    },
    /// An image could not be had, and what happened says which.
    #[error(transparent)]
    NamedImage(crosskit_images::Error),
    /// A snapshot could not be made.
    #[error(transparent)]
    Snapshot(#[from] crosskit_snapshots::Error),
    /// What is remembered could not be read or written.
    #[error(transparent)]
    Metadata(#[from] crosskit_metadata::Error),
    /// A web server did not answer.
    #[error("Get {url:?}: {reason}")]
    Http {
        /// Where.
        url: String,
        /// What happened.
        reason: String,
    },
    /// A web server's answer is of no use.
    #[error("invalid response status {status}")]
    HttpStatus {
        /// Its status.
        status: u16,
    },
    /// Git failed.
    #[error("{doing}: git stderr:\n{stderr}: {ended}")]
    Git {
        /// What was being done, to what.
        doing: String,
        /// What it said.
        stderr: String,
        /// How it ended.
        ended: String,
    },
    /// A signature that was demanded is not there, or does not hold.
    #[error("{what}: {reason}")]
    Signature {
        /// What was to be signed.
        what: String,
        /// Why it is refused.
        reason: String,
    },
    /// A program that is needed did not do its work.
    #[error("{doing}: {program}: {reason}")]
    Program {
        /// What was being done, to what.
        doing: String,
        /// The program.
        program: &'static str,
        /// What happened, and what to do.
        reason: String,
    },
    /// The system refused.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done, to what.
        doing: String,
        /// The system's answer.
        source: io::Error,
    },
}

impl SourceError {
    /// Who has to do something about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            SourceError::Invalid(_)
            | SourceError::Unsupported { .. }
            | SourceError::Mismatch(_)
            | SourceError::Signature { .. }
            | SourceError::Git { .. } => ErrorKind::User,
            SourceError::HttpStatus { status } if *status >= 500 => ErrorKind::Unavailable,
            SourceError::HttpStatus { .. } => ErrorKind::User,
            SourceError::Http { .. } => ErrorKind::Unavailable,
            SourceError::Io { .. } | SourceError::Program { .. } => ErrorKind::Environment,
            SourceError::Session { source, .. } => match source.kind() {
                crosskit_session::ErrorKind::User => ErrorKind::User,
                crosskit_session::ErrorKind::Environment => ErrorKind::Environment,
                crosskit_session::ErrorKind::Unavailable => ErrorKind::Unavailable,
                crosskit_session::ErrorKind::Canceled => ErrorKind::Canceled,
                crosskit_session::ErrorKind::Internal => ErrorKind::Internal,
            },
            SourceError::Image { source, .. } | SourceError::NamedImage(source) => match source.kind() {
                crosskit_images::ErrorKind::User => ErrorKind::User,
                crosskit_images::ErrorKind::Environment => ErrorKind::Environment,
                crosskit_images::ErrorKind::Unavailable => ErrorKind::Unavailable,
                crosskit_images::ErrorKind::Canceled => ErrorKind::Canceled,
                crosskit_images::ErrorKind::Internal => ErrorKind::Internal,
            },
            SourceError::Snapshot(source) => match source.kind() {
                crosskit_snapshots::Kind::User => ErrorKind::User,
                crosskit_snapshots::Kind::Environment => ErrorKind::Environment,
                crosskit_snapshots::Kind::Unavailable => ErrorKind::Unavailable,
                crosskit_snapshots::Kind::Canceled => ErrorKind::Canceled,
                crosskit_snapshots::Kind::Internal => ErrorKind::Internal,
            },
            SourceError::Metadata(_) => ErrorKind::Environment,
        }
    }

    pub(crate) fn io<E: Into<io::Error>>(doing: impl Into<String>) -> impl FnOnce(E) -> Self {
        let doing = doing.into();
        move |source| SourceError::Io { doing, source: source.into() }
    }

    pub(crate) fn session(doing: impl Into<String>) -> impl FnOnce(SessionError) -> Self {
        let doing = doing.into();
        move |source| SourceError::Session { doing, source }
    }

    pub(crate) fn image<E: Into<crosskit_images::Error>>(doing: impl Into<String>) -> impl FnOnce(E) -> Self {
        let doing = doing.into();
        move |source| SourceError::Image { doing, source: source.into() }
    }

    /// A failure of blocking work that was given to another thread.
    pub(crate) fn thread(err: tokio::task::JoinError) -> Self {
        SourceError::Io { doing: "wait for a thread".into(), source: io::Error::other(err) }
    }
}
