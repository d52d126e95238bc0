//! What is an image: descriptors, content, registries, layers, layouts, indexes.
//!
//! Nothing here knows of builds. The types are serde types of the OCI image-spec 1.1 and of Docker's
//! additions to it, keep fields they do not know, and are written byte for byte as Go's `encoding/json`
//! writes the same structures, so that the same image has the same digest whoever made it.

pub mod annotations;
pub mod archives;
pub mod compression;
mod config;
pub mod content;
mod descriptor;
mod digest;
mod errors;
pub mod gojson;
pub mod layers;
mod manifest;
pub mod media_types;
pub mod merge;
mod platform;
pub mod registry;
pub mod tar;

#[cfg(test)]
mod annotations_tests;
#[cfg(test)]
mod types_tests;

pub use config::{ContainerConfig, Empty, Healthcheck, History, ImageConfig, RootFs};
pub use content::{ContentStore, NotArrived};
pub use descriptor::Descriptor;
pub use digest::{Digest, Digester};
pub use errors::{Error, ErrorKind, Result};
pub use manifest::{Index, Manifest};
pub use platform::{available_platforms, platform_candidates, resolve_platform};
