//! What can go wrong with stores.

/// Shorthand for results of this crate.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// Who has to act when an error happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// Whoever gave the options or the credentials.
    User,
    /// The machine.
    Environment,
    /// The store; it may work at another time.
    Unavailable,
}

/// Why a store could not be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Options that make no sense.
    #[error("{0}")]
    Options(String),
    /// Credentials that are not there, or can't be had.
    #[error("{0}")]
    Credentials(String),
    /// The store said no.
    #[error("{doing}: {status}{}{}", said(code, message), hint(*status, code))]
    Refused {
        /// What was being done.
        doing: String,
        /// The status of the answer.
        status: http::StatusCode,
        /// The store's own word for it, if it told.
        code: String,
        /// Its sentence.
        message: String,
    },
    /// The way there is broken.
    #[error("{doing}: {reason}")]
    Unreachable {
        /// What was being done.
        doing: String,
        /// Why not.
        reason: String,
    },
    /// An answer that makes no sense.
    #[error("{doing}: {reason}")]
    Answer {
        /// What was being done.
        doing: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A file of this machine.
    #[error("{doing}: {source}")]
    File {
        /// What was being done.
        doing: String,
        /// What happened.
        source: std::io::Error,
    },
}

fn said(code: &str, message: &str) -> String {
    let words = [code, message].into_iter().filter(|word| !word.is_empty());
    words.map(|word| format!(": {}", word.trim_end_matches('.'))).collect()
}

/// What to do about it.
fn hint(status: http::StatusCode, code: &str) -> &'static str {
    match (status.as_u16(), code) {
        (_, "RequestTimeTooSkewed") => ": set this machine's clock",
        (_, "ExpiredToken") => ": the session token has expired, get a new one",
        (_, "NoSuchBucket") => ": create it, or name another",
        (401 | 403, _) => ": check the credentials, and what they are allowed to do",
        _ => "",
    }
}

impl StoreError {
    /// Who has to act.
    pub fn kind(&self) -> ErrorKind {
        match self {
            StoreError::Options(_) | StoreError::Credentials(_) => ErrorKind::User,
            StoreError::Refused { status, .. } if status.is_client_error() && status.as_u16() != 429 => {
                ErrorKind::User
            }
            StoreError::Refused { .. } | StoreError::Unreachable { .. } | StoreError::Answer { .. } => {
                ErrorKind::Unavailable
            }
            StoreError::File { .. } => ErrorKind::Environment,
        }
    }

    /// The store's own word for a refusal.
    pub fn code(&self) -> Option<&str> {
        match self {
            StoreError::Refused { code, .. } => Some(code),
            _ => None,
        }
    }

    /// The status of a refusal.
    pub fn status(&self) -> Option<http::StatusCode> {
        match self {
            StoreError::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// For an answer that makes no sense.
    pub(crate) fn answer(doing: impl Into<String>, reason: impl ToString) -> Self {
        StoreError::Answer { doing: doing.into(), reason: reason.to_string() }
    }
}
