use std::io;

/// Who has to do something about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// This machine lacks something or refuses it.
    Environment,
    /// A fault of this program.
    Internal,
}

/// Why a proxy can't be started. What goes wrong with a request is told to who made it.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The socket can't be used.
    #[error("listening for requests of a step: {0}")]
    Listen(#[from] io::Error),
    /// Certificates can't be made.
    #[error("making a certificate for a step's proxy: {0}")]
    Certificate(String),
}

impl ProxyError {
    /// Who has to do something about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            ProxyError::Listen(_) => ErrorKind::Environment,
            ProxyError::Certificate(_) => ErrorKind::Internal,
        }
    }
}
