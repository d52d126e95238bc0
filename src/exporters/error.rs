//! Why a result can't be exported.

/// What kind of error it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The build asked for what can't be.
    User,
    /// This machine can't: a full disk, say.
    Environment,
    /// The other side, a registry or a client, can't right now.
    Unavailable,
    /// Somebody stopped it.
    Canceled,
    /// A mistake of this program.
    Internal,
}

/// Why a result can't be exported.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct ExportError {
    kind: ErrorKind,
    message: String,
    already_there: bool,
}

impl ExportError {
    /// An error of a kind.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        ExportError { kind, message: message.into(), already_there: false }
    }

    /// The build asked for what can't be.
    pub fn user(message: impl Into<String>) -> Self {
        ExportError::new(ErrorKind::User, message)
    }

    /// A mistake of this program.
    pub fn internal(message: impl Into<String>) -> Self {
        ExportError::new(ErrorKind::Internal, message)
    }

    /// The same error, which says that the other side has it already.
    #[must_use]
    pub fn already_there(self) -> Self {
        ExportError { already_there: true, ..self }
    }

    /// Whether the other side has it already.
    pub fn is_already_there(&self) -> bool {
        self.already_there
    }

    /// What kind of error it is.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The same error, with what was being done before it.
    #[must_use]
    pub fn while_doing(self, doing: &str) -> Self {
        ExportError { message: format!("{doing}: {}", self.message), ..self }
    }
}
