//! Where inputs come from.
//!
//! A [`Source`] is one input of a build: it knows the key under which its content is found in the
//! cache, and brings the content here when nothing is found. [`Sources`] makes them from the
//! source operations of a graph, by the scheme of their identifier.

mod blob;
mod checksums;
mod context;
mod error;
mod git;
mod http;
mod identifiers;
mod image;
mod local;
mod manifests;
mod material;
mod memory;
mod meta;
mod oci_layout;
mod registry;
mod signatures;
mod single_file;
mod temporary;

pub use context::{SourceContext, Status};
pub use error::{ErrorKind, SourceError};
pub use identifiers::canonical_identifier;
pub use image::ImageMeta;
pub use material::Material;
pub use memory::BuildMemory;

use crosskit_api::pb;
use crosskit_images::registry::RegistryHosts;
use crosskit_metadata::Database;
use crosskit_platforms::Platform;
use crosskit_session::SessionManager;
use crosskit_snapshots::{Ref, Snapshots};
use futures::future::BoxFuture;
use std::any::Any;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

/// What a source is known by in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceKey {
    /// What goes into the cache key, as BuildKit writes it. One that begins with `session:` means
    /// something only in this build.
    pub key: String,
    /// What exactly the source stands for now: the digest of a manifest or a file, a commit.
    pub pin: String,
}

/// One input of a build. Shared by all builds that want it at the same time.
pub trait Source: Send + Sync {
    /// What it is known by. Further keys, counted from 0, are asked for while nothing is found
    /// under the earlier ones; none is returned after the last.
    fn key<'a>(
        &'a self,
        cx: &'a Arc<dyn SourceContext>,
        index: usize,
    ) -> BoxFuture<'a, Result<Option<SourceKey>, SourceError>>;

    /// Brings it here. None for an input without any files, such as an image without layers.
    fn snapshot<'a>(
        &'a self,
        cx: &'a Arc<dyn SourceContext>,
    ) -> BoxFuture<'a, Result<Option<Ref>, SourceError>>;

    /// What provenance says of it, with the pin from its key.
    fn material(&self, pin: &str) -> Material;

    /// What a cache needs to load results that build on it: where the blobs of an image come from.
    fn load_with(&self) -> Option<Arc<dyn Any + Send + Sync>> {
        None
    }
}

/// A client for the web that is made when it is needed first: the machine's certificates are read then.
pub type LazyHttp = Arc<LazyLock<reqwest::Client>>;

/// One that is not made yet.
pub fn lazy_http() -> LazyHttp {
    Arc::new(LazyLock::new(reqwest::Client::new))
}

/// What sources work with.
#[derive(Clone)]
pub struct Parts {
    /// The clients.
    pub sessions: SessionManager,
    /// Where files go.
    pub snapshots: Snapshots,
    /// Where it is kept what was found where.
    pub database: Database,
    /// How registries are reached.
    pub registries: RegistryHosts,
    /// A folder for temporary files and sockets; only the daemon may write there.
    pub scratch: PathBuf,
    /// For `http://` and `https://`.
    pub http: LazyHttp,
}

/// Makes sources. Cheap to clone.
#[derive(Clone)]
pub struct Sources {
    shared: Arc<Shared>,
}

/// What all sources share.
pub(crate) struct Shared {
    pub(crate) parts: Parts,
    pub(crate) clients: registry::Clients,
    pub(crate) git: git::Repositories,
}

impl Sources {
    /// With these parts.
    pub fn new(parts: Parts) -> Self {
        let clients = registry::Clients::new(parts.registries.clone(), parts.sessions.clone());
        Self { shared: Arc::new(Shared { parts, clients, git: git::Repositories::default() }) }
    }

    /// The source that an operation asks for. The platform counts for images.
    pub fn resolve(
        &self,
        op: &pb::SourceOp,
        platform: Option<&pb::Platform>,
    ) -> Result<Arc<dyn Source>, SourceError> {
        let invalid = || SourceError::Invalid(format!("failed to parse {}: invalid", op.identifier));
        let (scheme, rest) = op.identifier.split_once("://").ok_or_else(invalid)?;
        let platform = platform.map(platform_of);
        let shared = self.shared.clone();
        Ok(match scheme {
            "docker-image" => Arc::new(image::ImageSource::new(shared, rest, &op.attrs, platform)?),
            "oci-layout" => Arc::new(oci_layout::layout(shared, rest, &op.attrs, platform)?),
            "local" => Arc::new(local::LocalSource::new(shared, rest, &op.attrs)?),
            "git" => Arc::new(git::GitSource::new(shared, rest, &op.attrs)?),
            "http" | "https" => Arc::new(http::HttpSource::new(shared, &op.identifier, &op.attrs)?),
            "docker-image+blob" | "oci-layout+blob" => {
                Arc::new(blob::BlobSource::new(shared, scheme, rest, &op.attrs)?)
            }
            _ => return Err(SourceError::Invalid(format!("unknown scheme {scheme}: not found"))),
        })
    }
}

/// A platform as the rest of the program has it.
pub(crate) fn platform_of(platform: &pb::Platform) -> Platform {
    Platform {
        architecture: platform.architecture.clone(),
        os: platform.os.clone(),
        os_version: platform.os_version.clone(),
        os_features: platform.os_features.clone(),
        variant: platform.variant.clone(),
    }
}

/// The attribute `name`, read as a number in Go's notation (`0644` is octal); 0 if it is not there.
pub(crate) fn number(attrs: &Attrs, name: &str) -> Result<i64, SourceError> {
    let Some(text) = attrs.get(name) else { return Ok(0) };
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.as_str()),
    };
    let lower = digits.to_ascii_lowercase();
    let value = match lower.as_str() {
        d if d.starts_with("0x") => i64::from_str_radix(&d[2..], 16),
        d if d.starts_with("0b") => i64::from_str_radix(&d[2..], 2),
        d if d.starts_with("0o") => i64::from_str_radix(&d[2..], 8),
        d if d.len() > 1 && d.starts_with('0') => i64::from_str_radix(&d[1..], 8),
        d => d.parse(),
    };
    let value = value.map_err(|_| SourceError::Invalid(format!("{name}: {text:?} is not a number")))?;
    Ok(if negative { -value } else { value })
}

/// Attributes of a source operation.
pub(crate) type Attrs = std::collections::BTreeMap<String, String>;
