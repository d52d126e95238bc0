//! What is in a root filesystem, without running anything in it: the packages of distributions (dpkg, apk, rpm) and of
//! languages (Cargo, npm, Python), and the files that belong to them, as an SPDX document.
//!
//! Everything that is read was written by others: paths are resolved within the root by the kernel, sizes have limits, and
//! a database that makes no sense is a remark in the document rather than an error.

mod apk;
mod cargo;
mod distribution;
mod dpkg;
mod elf;
mod error;
mod kept;
mod licenses;
mod npm;
mod package;
mod purl;
mod python;
mod root;
mod rpm;
mod rpm_header;
mod scan;
mod spdx;
mod sqlite;
mod stanzas;

#[cfg(test)]
mod tests;

pub use error::{Kind, SbomError};
pub use package::Package;
pub use scan::{Found, Sums, scan};
pub use spdx::{About, Purpose};
