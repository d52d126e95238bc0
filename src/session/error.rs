//! What can go wrong between the two ends of a session.

use std::io;

/// Who has to do something about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The person who asked for the build.
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

/// What can go wrong between the two ends of a session.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The session is not there, and did not appear in time.
    #[error("no active session for {id}: context deadline exceeded")]
    NoSession {
        /// The id that was looked for.
        id: String,
    },
    /// A group of sessions is empty.
    #[error("no active sessions")]
    NoSessions,
    /// The headers of a new session cannot be used.
    #[error("cannot open session: {0}")]
    Registration(String),
    /// The client does not offer what is needed.
    #[error("method {method} not supported by the client")]
    Unsupported {
        /// The path of the gRPC method.
        method: String,
    },
    /// The client offers no folders at all.
    #[error("no local sources enabled")]
    NoFolders,
    /// A call through the tunnel failed.
    #[error("{doing}: {}", .status.message())]
    Call {
        /// What was being done, and to what.
        doing: String,
        /// The answer.
        status: Box<tonic::Status>,
    },
    /// The system refused.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done, and to what.
        doing: String,
        /// The system's answer.
        source: io::Error,
    },
    /// The other end of a transfer reported a failure of its own.
    #[error("error from {side}: {message}")]
    Peer {
        /// `sender` or `receiver`.
        side: &'static str,
        /// Its message.
        message: String,
    },
    /// The other end of a transfer did what the protocol forbids.
    #[error("{0}")]
    Protocol(String),
    /// Something asked for is not there.
    #[error("{0}: not found")]
    NotFound(String),
    /// The request makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// A bug, or a task of ours that died.
    #[error("{0}")]
    Internal(String),
    /// It was asked to stop.
    #[error("context canceled")]
    Canceled,
}

impl SessionError {
    /// Who has to do something about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            SessionError::NoSession { .. } | SessionError::NoSessions => ErrorKind::Unavailable,
            SessionError::Registration(_)
            | SessionError::Unsupported { .. }
            | SessionError::NoFolders
            | SessionError::NotFound(_)
            | SessionError::Protocol(_)
            | SessionError::Peer { .. }
            | SessionError::Invalid(_) => ErrorKind::User,
            SessionError::Call { status, .. } => match status.code() {
                tonic::Code::Cancelled => ErrorKind::Canceled,
                tonic::Code::Unavailable | tonic::Code::DeadlineExceeded => ErrorKind::Unavailable,
                _ => ErrorKind::User,
            },
            SessionError::Io { .. } => ErrorKind::Environment,
            SessionError::Internal(_) => ErrorKind::Internal,
            SessionError::Canceled => ErrorKind::Canceled,
        }
    }

    /// For `map_err`: an answer of the system, with what was being done.
    pub(crate) fn io<E: Into<io::Error>>(doing: impl Into<String>) -> impl FnOnce(E) -> Self {
        let doing = doing.into();
        move |source| SessionError::Io { doing, source: source.into() }
    }

    /// For `map_err`: an answer of the other end, with what was being done.
    pub(crate) fn call(doing: impl Into<String>) -> impl FnOnce(tonic::Status) -> Self {
        let doing = doing.into();
        move |status| SessionError::Call { doing, status: Box::new(status) }
    }

    /// The gRPC code of a failed call, if it was one.
    pub fn code(&self) -> Option<tonic::Code> {
        match self {
            SessionError::Call { status, .. } => Some(status.code()),
            _ => None,
        }
    }

    /// Whether what was asked for is not there, whoever said so.
    pub fn is_not_found(&self) -> bool {
        matches!(self, SessionError::NotFound(_)) || self.code() == Some(tonic::Code::NotFound)
    }

    /// Whether the client does not serve what was called.
    pub fn is_unimplemented(&self) -> bool {
        matches!(self, SessionError::Unsupported { .. }) || self.code() == Some(tonic::Code::Unimplemented)
    }

    /// How this is told to the other end of a session.
    pub fn to_status(&self) -> tonic::Status {
        let code = match self {
            SessionError::Call { status, .. } => return (**status).clone(),
            SessionError::NotFound(_) => tonic::Code::NotFound,
            SessionError::Invalid(_) | SessionError::Registration(_) => tonic::Code::InvalidArgument,
            SessionError::Unsupported { .. } => tonic::Code::Unimplemented,
            SessionError::Canceled => tonic::Code::Cancelled,
            _ => tonic::Code::Unknown,
        };
        tonic::Status::new(code, self.to_string())
    }
}
