//! Why a frontend, or a call of one, failed.

use crosskit_api::errors::ErrorDetails;
use crosskit_api::rpc;
use crosskit_solver::{ErrorKind, OpError, SolveError};
use crosskit_workers::files::FileError;
use std::fmt;
use tonic::{Code, Status};

/// Why a frontend, or a call of one, failed: a sentence, with typed details for the client.
#[derive(Clone, Debug)]
pub struct GatewayError {
    code: Code,
    message: String,
    details: Box<ErrorDetails>,
    solve: Option<Box<SolveError>>,
}

impl GatewayError {
    /// An error with a gRPC code.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        GatewayError { code, message: message.into(), details: Box::default(), solve: None }
    }

    /// An error as BuildKit's own mostly are, without a particular code.
    pub fn plain(message: impl Into<String>) -> Self {
        GatewayError::new(Code::Unknown, message)
    }

    /// The request makes no sense.
    pub fn invalid(message: impl Into<String>) -> Self {
        GatewayError::new(Code::InvalidArgument, message)
    }

    /// What isn't there yet.
    pub fn unimplemented(message: impl Into<String>) -> Self {
        GatewayError::new(Code::Unimplemented, message)
    }

    /// A frontend lacks what was asked of it.
    pub(crate) fn lacks_capability(name: &str) -> Self {
        let details = ErrorDetails { frontend_cap: Some(name.to_string()), ..ErrorDetails::default() };
        GatewayError::unimplemented(format!("unsupported frontend capability {name}")).with_details(details)
    }

    /// The build was stopped.
    pub fn canceled() -> Self {
        GatewayError::new(Code::Cancelled, "context canceled")
    }

    /// The same error with these typed details besides its own.
    #[must_use]
    pub fn with_details(mut self, more: ErrorDetails) -> Self {
        self.details.extend(more);
        self
    }

    /// The same error, with what was being done before it.
    #[must_use]
    pub fn while_doing(mut self, doing: &str) -> Self {
        self.message = format!("{doing}: {}", self.message);
        self
    }

    /// The same error, with what else there is to know after it.
    #[must_use]
    pub fn with_more(mut self, more: &str) -> Self {
        self.message = format!("{}; {more}", self.message);
        self
    }

    /// The gRPC code.
    pub fn code(&self) -> Code {
        self.code
    }

    /// The sentence.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The typed details.
    pub fn details(&self) -> &ErrorDetails {
        &self.details
    }

    /// The failure of a vertex that is behind it.
    pub fn solve_error(&self) -> Option<&SolveError> {
        self.solve.as_deref()
    }

    /// As clients get it.
    pub fn to_status(&self) -> Status {
        self.details.to_status(self.code, self.message.clone())
    }

    /// The same for those who would take a code of somebody else's for this daemon's own word that it can't be reached.
    #[must_use]
    pub fn by_ourselves(mut self) -> Self {
        if self.code == Code::Unavailable {
            self.code = Code::Unknown;
        }
        self
    }

    /// As it stands in messages.
    pub fn to_rpc(&self) -> rpc::Status {
        self.details.to_rpc(self.code, self.message.clone())
    }

    /// From what a frontend returned.
    pub fn from_rpc(status: &rpc::Status) -> Self {
        GatewayError {
            code: Code::from_i32(status.code),
            message: status.message.clone(),
            details: Box::new(ErrorDetails::from_rpc(status)),
            solve: None,
        }
    }
}

impl fmt::Display for GatewayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for GatewayError {}

/// Errors of steps are told without a particular code, as clients expect.
fn code_of(kind: ErrorKind) -> Code {
    match kind {
        ErrorKind::Canceled => Code::Cancelled,
        ErrorKind::Unavailable => Code::Unavailable,
        ErrorKind::User | ErrorKind::Environment | ErrorKind::Internal => Code::Unknown,
    }
}

impl From<SolveError> for GatewayError {
    fn from(error: SolveError) -> Self {
        GatewayError {
            code: code_of(error.kind()),
            message: error.to_string(),
            details: Box::new(error.details()),
            solve: Some(Box::new(error)),
        }
    }
}

impl From<OpError> for GatewayError {
    fn from(error: OpError) -> Self {
        GatewayError {
            code: code_of(error.kind()),
            message: error.to_string(),
            details: Box::new(error.details().clone()),
            solve: None,
        }
    }
}

impl From<FileError> for GatewayError {
    fn from(error: FileError) -> Self {
        let code = if error.is_not_found() { Code::NotFound } else { Code::Unknown };
        GatewayError::new(code, error.to_string())
    }
}

impl From<GatewayError> for Status {
    fn from(error: GatewayError) -> Self {
        error.by_ourselves().to_status()
    }
}
