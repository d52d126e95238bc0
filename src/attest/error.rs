//! What can be wrong with what is asked for or attested.

use crosskit_api::details;

/// What can be wrong with what is asked for or attested.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum AttestError {
    /// A kind of attestation that there is none of.
    #[error("unknown attestation type {0:?}")]
    UnknownKind(String),
    /// A value that makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// The name of an image is none.
    #[error("failed to parse ref {name:?}: {reason}")]
    Reference {
        /// As it was found.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A statement that cannot be read.
    #[error("cannot decode in-toto statement: {0}")]
    Statement(String),
    /// Not everything that a build was made of is known exactly, and that was asked for.
    #[error("{message}")]
    Incomplete {
        /// What is missing.
        message: String,
        /// The same for programs.
        details: details::ProvenanceMaterialsIncomplete,
    },
}
