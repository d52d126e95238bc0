//! What registries refuse, in their own words.

use crate::errors::ErrorKind;

/// A registry that does not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// There is no such image or blob.
    #[error("{what}: not found")]
    NotFound {
        /// The reference, or blob with repository.
        what: String,
    },
    /// The registry does not let this user do it.
    #[error("{action} access denied, repository does not exist or may require authorization: {said}")]
    Denied {
        /// `pull` or `push`.
        action: &'static str,
        /// The registry's words.
        said: String,
    },
    /// Any other answer than the one hoped for.
    #[error("unexpected status from {method} request to {url}: {status}{said}")]
    Status {
        /// The request's method.
        method: String,
        /// Where it went, without its query.
        url: String,
        /// Number and text.
        status: http::StatusCode,
        /// The registry's words, with a colon before them, if there are any.
        said: String,
    },
    /// No answer at all.
    #[error("failed to do request: {method} {url}: {source}")]
    Transport {
        /// The request's method.
        method: String,
        /// Where it went, without its query.
        url: String,
        /// What happened.
        source: std::io::Error,
    },
    /// No token for the registry.
    #[error("failed to authorize: failed to fetch {identity} token from {realm}: {reason}")]
    Token {
        /// `anonymous` or `oauth`.
        identity: &'static str,
        /// Where tokens are given.
        realm: String,
        /// What happened.
        reason: String,
    },
    /// An answer that makes no sense.
    #[error("registry {host} gave an answer that cannot be used: {reason}")]
    Answer {
        /// The registry.
        host: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Certificates, keys or mirrors that cannot be used.
    #[error("registry {host} is not configured correctly: {reason}")]
    Config {
        /// The registry.
        host: String,
        /// What is wrong.
        reason: String,
    },
}

impl RegistryError {
    /// Whose matter the error is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound { .. } | Self::Denied { .. } => ErrorKind::User,
            Self::Status { status, .. } if status.is_client_error() && status.as_u16() != 429 => {
                ErrorKind::User
            }
            Self::Config { .. } => ErrorKind::Environment,
            Self::Status { .. } | Self::Transport { .. } | Self::Token { .. } | Self::Answer { .. } => {
                ErrorKind::Unavailable
            }
        }
    }

    /// Whether the same request may succeed a moment later.
    pub(super) fn is_passing(&self) -> bool {
        use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, TimedOut, UnexpectedEof};
        match self {
            Self::Transport { source, .. } => {
                matches!(
                    source.kind(),
                    ConnectionReset | ConnectionAborted | BrokenPipe | TimedOut | UnexpectedEof
                )
            }
            Self::Status { status, .. } => status.is_server_error() || status.as_u16() == 429,
            _ => false,
        }
    }
}

/// The words of an error answer: `CODE: message` of each, as in distribution-spec 1.1 §error codes.
pub(super) fn said(body: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Answer {
        #[serde(default)]
        errors: Vec<One>,
        #[serde(default)]
        details: String,
    }
    #[derive(serde::Deserialize)]
    struct One {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let Ok(answer) = serde_json::from_slice::<Answer>(body) else { return String::new() };
    let mut words: Vec<String> = answer
        .errors
        .into_iter()
        .map(|one| if one.message.is_empty() { one.code } else { format!("{}: {}", one.code, one.message) })
        .collect();
    if !answer.details.is_empty() {
        words.push(answer.details);
    }
    words.join(", ")
}
