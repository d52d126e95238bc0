//! Where results go: image, archives, local, tar.

mod error;
pub mod options;

pub use error::{ErrorKind, ExportError};
