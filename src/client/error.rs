//! What can go wrong on the person's side.

use crosskit_api::errors::{self, ErrorDetails};
use std::io;
use std::path::PathBuf;
use tonic::{Code, Status};

/// An error of the client, printed behind `error: `.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// What was asked for makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// Something on this machine could not be read or written.
    #[error("{doing} {}: {}", path.display(), errno(source))]
    File {
        /// What was being done, as in `open`.
        doing: String,
        /// To what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// No daemon answers.
    #[error("{}Unavailable: connection error: desc = {why:?}", prefix(.action))]
    Unreachable {
        /// What was being done, as in `failed to list workers`; may be empty.
        action: String,
        /// How it failed.
        why: String,
    },
    /// The daemon answered with an error.
    #[error("{}{}", prefix(.action), errors::describe(status.code(), status.message()))]
    Call {
        /// What was being done, as in `failed to solve`; may be empty.
        action: String,
        /// The answer, with its details.
        status: Box<Status>,
    },
    /// The other way of lending things to the daemon failed.
    #[error("{0}")]
    Lending(String),
    /// No daemon answers and none could be started here.
    #[error("no daemon answers at {addr}, and one of our own could not be started: {why}")]
    Embedded {
        /// Where a daemon was looked for.
        addr: String,
        /// Why none could be started.
        why: String,
    },
    /// The person interrupted it.
    #[error("{}Canceled: context canceled", prefix(.0))]
    Canceled(String),
}

/// Whose fault an error is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The caller can mend it.
    User,
    /// This machine can't do it.
    Environment,
    /// Something else isn't there at the moment.
    Unavailable,
    /// It was asked to stop.
    Canceled,
    /// A fault of the program.
    Internal,
}

impl ClientError {
    /// A mistake of the caller.
    pub fn invalid(message: impl Into<String>) -> ClientError {
        ClientError::Invalid(message.into())
    }

    /// A file that could not be opened.
    pub fn open(path: impl Into<PathBuf>, source: io::Error) -> ClientError {
        ClientError::File { doing: "open".into(), path: path.into(), source }
    }

    /// An error that the daemon answered with.
    pub fn call(action: impl Into<String>, status: Status) -> ClientError {
        // An answer that never came: what the connection says is more than that it failed.
        let mut cause = std::error::Error::source(&status);
        while let Some(inner) = cause.and_then(std::error::Error::source) {
            cause = Some(inner);
        }
        if let Some(cause) = cause.filter(|_| status.message() == "transport error") {
            let why = format!("transport: the connection broke: {cause}");
            return ClientError::Unreachable { action: action.into(), why };
        }
        ClientError::Call { action: action.into(), status: Box::new(status) }
    }

    /// Whose fault it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            ClientError::Invalid(_) => ErrorKind::User,
            ClientError::File { .. } | ClientError::Embedded { .. } => ErrorKind::Environment,
            ClientError::Unreachable { .. } => ErrorKind::Unavailable,
            ClientError::Lending(_) => ErrorKind::Environment,
            ClientError::Canceled(_) => ErrorKind::Canceled,
            ClientError::Call { status, .. } => match status.code() {
                Code::Cancelled => ErrorKind::Canceled,
                Code::Unavailable | Code::DeadlineExceeded => ErrorKind::Unavailable,
                Code::Internal | Code::DataLoss => ErrorKind::Internal,
                Code::ResourceExhausted => ErrorKind::Environment,
                _ => ErrorKind::User,
            },
        }
    }

    /// What the daemon told besides the sentence.
    #[must_use]
    pub fn details(&self) -> ErrorDetails {
        match self {
            ClientError::Call { status, .. } => ErrorDetails::from_status(status),
            _ => ErrorDetails::default(),
        }
    }
}

fn prefix(action: &str) -> String {
    if action.is_empty() { String::new() } else { format!("{action}: ") }
}

/// The system's sentence for an error, as Go programs print it: in lower case, without number.
pub(crate) fn errno(error: &io::Error) -> String {
    let text = error.to_string();
    if error.raw_os_error().is_none() {
        return text;
    }
    let text = text.rsplit_once(" (os error").map_or(text.as_str(), |(text, _)| text);
    let mut chars = text.chars();
    chars.next().map(|first| first.to_lowercase().chain(chars).collect()).unwrap_or_default()
}
