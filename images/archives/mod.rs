//! Images as files: OCI layouts in a folder or a tar, and the tar that `docker load` reads.

mod import;
mod layout;
mod parts;
mod write;

pub use import::import_archive;
pub use layout::Layout;
pub use parts::documents;
pub use write::{ArchiveFormat, write_archive};

/// Annotation with an image's tag in a layout's index (OCI image-spec 1.1 §annotations).
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Annotation with an image's full name, read by containerd and Docker.
pub const IMAGE_NAME: &str = "io.containerd.image.name";
/// Annotation with the time of an export.
pub const CREATED: &str = "org.opencontainers.image.created";

/// Content of the `oci-layout` file.
const OCI_LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

#[cfg(test)]
mod archives_tests;
