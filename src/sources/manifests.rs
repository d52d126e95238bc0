//! From a name to the layers of an image for one platform.

use crate::context::{Status, Transfer};
use crate::{ErrorKind, SourceContext, SourceError};
use crosskit_images::registry::{BlobState, Progress};
use crosskit_images::{Descriptor, Digest, ImageConfig, Index, Manifest, media_types, resolve_platform};
use crosskit_platforms::{Matcher, Platform};
use crosskit_snapshots::{BlobProvider, Kind, ProvideError};
use futures::future::BoxFuture;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// A place that has an image. What is got is in the content store afterwards.
pub(crate) trait Remote: Send + Sync {
    /// What the name stands for now: a manifest or an index.
    fn resolve(&self) -> BoxFuture<'_, Result<Descriptor, SourceError>>;

    /// The bytes of a manifest or an index.
    fn manifest<'a>(&'a self, desc: &'a Descriptor) -> BoxFuture<'a, Result<Vec<u8>, SourceError>>;

    /// The bytes of a config.
    fn config<'a>(&'a self, desc: &'a Descriptor) -> BoxFuture<'a, Result<Vec<u8>, SourceError>>;

    /// The manifests that refer to another one, such as signatures of it.
    fn referrers<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<Vec<Descriptor>, SourceError>>;

    /// Who gets the layers, when somebody needs them.
    fn provider(&self, cx: &Arc<dyn SourceContext>) -> Arc<dyn BlobProvider>;
}

/// An image for one platform.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    /// What the name stands for: the manifest, or the index that it was found in.
    pub(crate) main: Descriptor,
    /// The config's bytes.
    pub(crate) config: Vec<u8>,
    /// The layers' blobs and the digests of their contents, bottom first.
    pub(crate) layers: Vec<(Descriptor, Digest)>,
}

/// Finds the image for `platform`.
pub(crate) async fn load(remote: &dyn Remote, name: &str, platform: &Platform) -> Result<Image, SourceError> {
    let main = remote.resolve().await?;
    let manifest = choose(remote, name, &main, platform).await?;
    let config = remote.config(&manifest.config).await?;
    // An artifact's config need not be an image's; such an artifact has no layers to be unpacked.
    let diff_ids = match ImageConfig::parse(&config) {
        Ok(parsed) => parsed.rootfs.diff_ids,
        Err(_) if manifest.layers.is_empty() => Vec::new(),
        Err(err) => return Err(SourceError::image(format!("failed to resolve rootfs of {name}"))(err)),
    };
    if diff_ids.len() != manifest.layers.len() {
        return Err(SourceError::Invalid(format!(
            "{name}: mismatched image rootfs and manifest layers: {} and {}",
            diff_ids.len(),
            manifest.layers.len()
        )));
    }
    Ok(Image { main, config, layers: manifest.layers.into_iter().zip(diff_ids).collect() })
}

/// The manifest for a platform, from itself or from the index that it is in.
pub(crate) async fn choose(
    remote: &dyn Remote,
    name: &str,
    main: &Descriptor,
    platform: &Platform,
) -> Result<Manifest, SourceError> {
    let failed = || SourceError::image(format!("failed to read {name}"));
    let mut desc = main.clone();
    // An index may hold indexes; nobody nests them deeper.
    for _ in 0..4 {
        let bytes = remote.manifest(&desc).await?;
        if !media_types::is_index(&desc.media_type) {
            return Manifest::parse(&bytes).map_err(failed());
        }
        let index = Index::parse(&bytes).map_err(failed())?;
        let fitting = resolve_platform(&index, &Matcher::only(platform), platform);
        desc = fitting.map_err(SourceError::NamedImage)?.clone();
    }
    Err(SourceError::Invalid(format!("{name}: indexes nested too deep")))
}

/// What a document is, as it says itself or as it looks.
pub(crate) fn media_type_of(bytes: &[u8]) -> Option<String> {
    let value: serde_json::Value = serde_json::from_slice(bytes).ok()?;
    let is_manifest = value.get("config").is_some() || value.get("layers").is_some();
    let is_index = value.get("manifests").is_some();
    let said = value.get("mediaType").and_then(|v| v.as_str());
    match (is_manifest, is_index, said) {
        (true, true, _) => None,
        (_, _, Some(said)) => {
            let fits = if is_manifest { media_types::is_manifest(said) } else { media_types::is_index(said) };
            fits.then(|| said.to_string())
        }
        (true, ..) => Some(media_types::DOCKER_MANIFEST.to_string()),
        (false, ..) => Some(media_types::DOCKER_MANIFEST_LIST.to_string()),
    }
}

/// Tells a build how far its layers are.
pub(crate) struct Provider {
    cx: Arc<dyn SourceContext>,
    transfers: Mutex<HashMap<Digest, Arc<Transfer>>>,
}

impl Provider {
    pub(crate) fn new(cx: &Arc<dyn SourceContext>) -> Arc<Self> {
        Arc::new(Self { cx: cx.clone(), transfers: Mutex::default() })
    }

    pub(crate) fn at(&self, digest: &Digest, current: u64, total: u64, done: bool) {
        let transfer = {
            let mut transfers = self.transfers.lock().unwrap_or_else(PoisonError::into_inner);
            transfers
                .entry(*digest)
                .or_insert_with(|| Arc::new(Transfer::new(&self.cx, digest.to_string(), "")))
                .clone()
        };
        transfer.at(current, total, done);
    }

    pub(crate) fn unpacking(&self, desc: &Descriptor, done: bool) {
        let id = format!("extracting {}", desc.digest);
        self.cx.status(Status { id: &id, name: "extract", current: 0, total: 0, done });
    }

    pub(crate) fn failed(err: SourceError) -> ProvideError {
        let kind = match err.kind() {
            ErrorKind::User => Kind::User,
            ErrorKind::Environment => Kind::Environment,
            ErrorKind::Unavailable => Kind::Unavailable,
            ErrorKind::Canceled => Kind::Canceled,
            ErrorKind::Internal => Kind::Internal,
        };
        ProvideError { kind, source: Box::new(err) }
    }
}

impl Progress for Provider {
    fn blob(&self, digest: &Digest, state: BlobState, current: u64, total: u64) {
        self.at(digest, current, total, state != BlobState::Transferring);
    }
}
