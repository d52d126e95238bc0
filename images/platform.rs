//! The platform as descriptors and configs write it.

use serde::{Deserialize, Serialize};

use crate::gojson::{is_empty, null_default};

/// The platform object of a descriptor (OCI image-spec 1.1, image-index).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct OciPlatform {
    /// The CPU architecture, a GOARCH value.
    #[serde(default, deserialize_with = "null_default")]
    pub architecture: String,
    /// The operating system, a GOOS value.
    #[serde(default, deserialize_with = "null_default")]
    pub os: String,
    /// The operating system's version (Windows).
    #[serde(
        rename = "os.version",
        default,
        deserialize_with = "null_default",
        skip_serializing_if = "is_empty"
    )]
    pub os_version: String,
    /// Features of the operating system that are needed (Windows).
    #[serde(
        rename = "os.features",
        default,
        deserialize_with = "null_default",
        skip_serializing_if = "is_empty"
    )]
    pub os_features: Vec<String>,
    /// The variant of the CPU, `v7` for instance.
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "is_empty")]
    pub variant: String,
}
