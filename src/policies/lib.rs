//! Which sources may a build use, and which does it get instead.
//!
//! [`Policies`] are rules that came with a request: each selects sources by identifier and attributes, and allows,
//! denies or converts them. A client may also want to decide itself, source by source. [`decide`] applies both to
//! one source, until nothing changes any more.

mod decide;
mod error;
mod rules;
mod selectors;

pub use decide::{Failure, MAX_QUESTIONS, Outside, decide};
pub use error::{ErrorKind, PolicyError};
pub use rules::{MAX_CONVERSIONS, Policies};
