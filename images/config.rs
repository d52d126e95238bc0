//! The config of an image: what runs, and what it is made of.

use std::collections::BTreeMap;

use crosskit_platforms::Platform;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::digest::Digest;
use crate::errors::{Error, Result};
use crate::gojson::{self, empty_as_null, is_empty, null_default};

/// A config larger than this is refused; inline caches make configs of some hundred kilobytes.
pub const MAX_CONFIG_SIZE: u64 = 32 << 20;

/// An image's config document (OCI image-spec 1.1, config; Docker's image-spec for what OCI lacks).
///
/// Fields are in the order Go writes Docker's structure in, so [`ImageConfig::to_json`] is what BuildKit's
/// Dockerfile frontend hands on; the image exporter sorts the outermost keys ([`ImageConfig::to_sorted_json`]).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// When the image was made, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Who made it.
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "is_empty")]
    pub author: String,
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
    /// The variant of the CPU.
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "is_empty")]
    pub variant: String,
    /// The layers by the digests of their uncompressed tars.
    #[serde(default, deserialize_with = "null_default")]
    pub rootfs: RootFs,
    /// How the layers came to be.
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "is_empty")]
    pub history: Vec<History>,
    /// How to run a container.
    #[serde(default, deserialize_with = "null_default")]
    pub config: ContainerConfig,
    /// Fields that this program does not know (`moby.buildkit.cache.v0`, `docker_version` …).
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl ImageConfig {
    /// Reads a config.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        if bytes.len() as u64 > MAX_CONFIG_SIZE {
            return Err(Error::TooLarge { what: "image config".into(), limit: MAX_CONFIG_SIZE });
        }
        serde_json::from_slice(bytes).map_err(|source| Error::Parse { what: "image config".into(), source })
    }

    /// One line in the order of Docker's structure.
    pub fn to_json(&self) -> Result<Vec<u8>> {
        gojson::to_vec(self)
    }

    /// One line with the outermost keys sorted: the bytes of a config blob as BuildKit's image exporter writes it.
    pub fn to_sorted_json(&self) -> Result<Vec<u8>> {
        let value = serde_json::to_value(self)
            .map_err(|source| Error::Parse { what: "image config".into(), source })?;
        match value {
            Value::Object(fields) => gojson::to_vec(&fields.into_iter().collect::<BTreeMap<_, _>>()),
            other => gojson::to_vec(&other),
        }
    }

    /// The platform the image is for.
    pub fn platform(&self) -> Platform {
        Platform {
            architecture: self.architecture.clone(),
            os: self.os.clone(),
            os_version: self.os_version.clone(),
            os_features: self.os_features.clone(),
            variant: self.variant.clone(),
        }
    }
}

/// The layers of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// Digests of the uncompressed layer tars, bottom first.
    #[serde(default, deserialize_with = "null_default", serialize_with = "empty_as_null")]
    pub diff_ids: Vec<Digest>,
}

impl Default for RootFs {
    fn default() -> Self {
        Self { kind: "layers".into(), diff_ids: Vec::new() }
    }
}

/// One line of an image's history.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// When, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// By which command.
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "is_empty")]
    pub created_by: String,
    /// By whom.
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "is_empty")]
    pub author: String,
    /// By which program.
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "is_empty")]
    pub comment: String,
    /// Whether the command made no layer.
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "is_empty")]
    pub empty_layer: bool,
}

/// An empty JSON object: the value of Docker's sets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Empty {}

/// How to run a container of an image.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ContainerConfig {
    /// The user, by name or number, with an optional group.
    #[serde(deserialize_with = "null_default", skip_serializing_if = "is_empty")]
    pub user: String,
    /// Ports the container listens on, `80/tcp`.
    #[serde(deserialize_with = "null_default", skip_serializing_if = "is_empty")]
    pub exposed_ports: BTreeMap<String, Empty>,
    /// The environment, `NAME=value`.
    #[serde(deserialize_with = "null_default", skip_serializing_if = "is_empty")]
    pub env: Vec<String>,
    /// The program and its fixed arguments.
    #[serde(deserialize_with = "null_default", skip_serializing_if = "is_empty")]
    pub entrypoint: Vec<String>,
    /// The default arguments.
    #[serde(deserialize_with = "null_default", skip_serializing_if = "is_empty")]
    pub cmd: Vec<String>,
    /// Paths that are volumes.
    #[serde(deserialize_with = "null_default", skip_serializing_if = "is_empty")]
    pub volumes: BTreeMap<String, Empty>,
    /// The current directory.
    #[serde(deserialize_with = "null_default", skip_serializing_if = "is_empty")]
    pub working_dir: String,
    /// Labels.
    #[serde(deserialize_with = "null_default", skip_serializing_if = "is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The signal that asks the program to end.
    #[serde(deserialize_with = "null_default", skip_serializing_if = "is_empty")]
    pub stop_signal: String,
    /// Windows: `cmd` is one escaped command line.
    #[serde(deserialize_with = "null_default", skip_serializing_if = "is_empty")]
    pub args_escaped: bool,
    /// Docker: how to see whether the container is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// Docker: instructions for builds on top of this image.
    #[serde(deserialize_with = "null_default", skip_serializing_if = "is_empty")]
    pub on_build: Vec<String>,
    /// Docker: the shell of the shell forms.
    #[serde(deserialize_with = "null_default", skip_serializing_if = "is_empty")]
    pub shell: Vec<String>,
    /// Fields that this program does not know (`Hostname`, `Image` …).
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// Docker: how to see whether a container is well. Durations in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Healthcheck {
    /// `NONE`, `CMD` with arguments, or `CMD-SHELL` with one command line; empty inherits.
    #[serde(deserialize_with = "null_default", skip_serializing_if = "is_empty")]
    pub test: Vec<String>,
    /// Time between checks.
    #[serde(skip_serializing_if = "is_empty")]
    pub interval: i64,
    /// Time after which a check has failed.
    #[serde(skip_serializing_if = "is_empty")]
    pub timeout: i64,
    /// Time to start in which failures do not count.
    #[serde(skip_serializing_if = "is_empty")]
    pub start_period: i64,
    /// Time between checks while starting.
    #[serde(skip_serializing_if = "is_empty")]
    pub start_interval: i64,
    /// Failures in a row that make the container unwell.
    #[serde(skip_serializing_if = "is_empty")]
    pub retries: i64,
}
