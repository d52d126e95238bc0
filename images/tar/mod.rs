//! The tar format: headers, a reader for foreign archives, a writer whose bytes are those of Go's `archive/tar`.

mod extensions;
mod header;
mod reader;
mod scanner;
mod writer;

pub use header::{Header, Kind, Timestamp};
pub use reader::{Reader, ReaderLimits};
pub use scanner::{Part, Scanner};
pub use writer::Writer;

/// Everything in a tar is a multiple of this many bytes.
pub const BLOCK: usize = 512;

/// Prefix of PAX records that hold extended attributes.
pub const XATTR_PREFIX: &str = "SCHILY.xattr.";

#[cfg(test)]
mod scanner_tests;
#[cfg(test)]
mod tar_tests;
