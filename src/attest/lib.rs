//! What we can prove about a result: how it was made (provenance) and what is in it (SBOM), as in-toto statements.
//!
//! Everything here is a pure function of facts: a [`Capture`] says what went into a result, [`Predicate`] writes it down
//! in the two forms of SLSA, [`Statement`] says of which files or images it holds.

mod asked;
mod attestation;
mod build_config;
mod capture;
mod config_source;
mod error;
mod measured;
mod predicate;
mod purl;
mod request;
mod slsa02;
mod spdx;
mod statement;

#[cfg(test)]
mod tests;

pub use asked::{
    Asked, BUILTIN_SCANNER, DEFAULT_SCANNER, Mode, Provenance, Sbom, Slsa, without_builtin_scan,
};
pub use attestation::{
    Attestation, Content, INLINE_ONLY, Kind, Make, REASON, SBOM_CORE, Subject, cores_first,
};
pub use build_config::{BuildConfig, Steps};
pub use capture::{Capture, Request};
pub use config_source::redacted;
pub use error::AttestError;
pub use measured::Measured;
pub use predicate::{Circumstances, Predicate, StepPlace};
pub use purl::image_url;
pub use request::{ConfigSource, Lent, Parameters, RequestProvenance, filtered_arguments};
pub use spdx::supplemented;
pub use statement::{Digests, Named, SPDX, Statement, UNNAMED, digests_of, refuse_provenance};

/// The media type of a statement.
pub const MEDIA_TYPE: &str = "application/vnd.in-toto+json";

/// Bytes that a statement from outside may have.
pub const MAX_STATEMENT: u64 = 40 << 20;
