//! What is a platform: specifiers, normal form, matching order, matrices.
//!
//! A [`Platform`] names what a program or an image is made for: operating system, architecture and variant, as in the
//! OCI image specification. People write it as a *specifier* (`linux/arm/v7`, `arm64`, `windows(10.0.17763)/amd64`);
//! [`Platform::parse`] reads one, [`Platform::normalize`] brings it into the form in which platforms are compared, and
//! [`Matcher`] says which of the platforms an image offers fits best. Facts about each architecture are in
//! `platforms.toml`, reachable through [`Architecture`].

mod architectures;
mod host;
mod matching;
mod normal;
mod specifiers;
mod windows;

#[cfg(test)]
mod matching_tests;
#[cfg(test)]
mod platforms_tests;

pub use architectures::{Architecture, Endian};
pub use host::{host, native};
pub use matching::Matcher;

use serde::{Deserialize, Serialize};

/// What a program or an image is made for.
///
/// Serialises as the `platform` object of an OCI index (image-spec 1.1 §image-index), fields in the order in which
/// BuildKit writes them, so that digests agree.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Platform {
    /// OCI name of the processor architecture: `amd64`, `arm`.
    #[serde(default)]
    pub architecture: String,
    /// Operating system: `linux`, `windows`.
    #[serde(default)]
    pub os: String,
    /// Version of the operating system, used by Windows images.
    #[serde(rename = "os.version", default, skip_serializing_if = "String::is_empty")]
    pub os_version: String,
    /// Features that the operating system must have: `win32k`.
    #[serde(
        rename = "os.features",
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_as_empty"
    )]
    pub os_features: Vec<String>,
    /// Variant of the architecture: `v7`. Empty for the plain one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub variant: String,
}

/// Go programs write an absent list as `null` now and then.
fn null_as_empty<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::<Vec<String>>::deserialize(from)?.unwrap_or_default())
}

impl Platform {
    /// A platform of these three parts as they are; an empty variant for none.
    pub fn new(os: impl Into<String>, architecture: impl Into<String>, variant: impl Into<String>) -> Self {
        Self { os: os.into(), architecture: architecture.into(), variant: variant.into(), ..Self::default() }
    }

    /// `linux/<architecture>`, without a variant.
    pub fn linux(architecture: impl Into<String>) -> Self {
        Self::new("linux", architecture, "")
    }

    /// What is known about this platform's architecture, if it is one of the table.
    pub fn facts(&self) -> Option<&'static Architecture> {
        let plain = self.normalize();
        Architecture::by_name(&plain.architecture)
    }

    /// Name of the folder that holds this platform's files in a local output of several platforms: `linux_arm_v7`.
    pub fn folder_name(&self) -> String {
        self.format_all().replace('/', "_")
    }
}

/// Why a specifier is not a platform. Always the fault of who wrote it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The specifier holds `*`.
    #[error("{specifier:?}: wildcards not yet supported: invalid argument")]
    Wildcard {
        /// What was written.
        specifier: String,
    },
    /// The first component is not an operating system with options.
    #[error(
        "{component:?} is an invalid OS component of {specifier:?}: OSAndVersion specifier component must match \
         {pattern:?}: invalid argument",
        pattern = specifiers::OS_PATTERN
    )]
    OsComponent {
        /// The component that is wrong.
        component: String,
        /// What was written.
        specifier: String,
    },
    /// A later component has characters that none may have.
    #[error(
        "{component:?} is an invalid component of {specifier:?}: platform specifier component must match {pattern:?}: \
         invalid argument",
        pattern = specifiers::COMPONENT_PATTERN
    )]
    Component {
        /// The component that is wrong.
        component: String,
        /// What was written.
        specifier: String,
    },
    /// A percent sign in an OS version or feature that is not followed by two hexadecimal digits.
    #[error("{specifier:?} has an invalid OS option {option:?}: bad percent escape: invalid argument")]
    OsOption {
        /// The version or feature that is wrong.
        option: String,
        /// What was written.
        specifier: String,
    },
    /// One component that is neither a known system nor a known architecture.
    #[error("{specifier:?}: unknown operating system or architecture: invalid argument")]
    Unknown {
        /// What was written.
        specifier: String,
    },
    /// More components than a specifier has.
    #[error("{specifier:?}: cannot parse platform specifier: invalid argument")]
    TooManyComponents {
        /// What was written.
        specifier: String,
    },
}
