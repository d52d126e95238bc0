//! Large images of registries, which a worker pulls itself rather than through this machine.

use super::inputs::InputImage;
use super::{Inner, RemoteWorker};
use crosskit_images::{ContentStore, Descriptor, Digest, Index, Manifest, resolve_platform};
use crosskit_platforms::{Matcher, Platform};
use std::sync::PoisonError;
use std::time::Duration;
use tokio::time::Instant;

/// From how many bytes on a worker pulls an image itself. A small one is here and there before a
/// registry has answered.
const LARGE: u64 = 32 << 20;

/// How long a worker that did not get an image of a registry is not asked to pull from it.
const AGAIN_AFTER: Duration = Duration::from_secs(600);

/// A manifest at most, in bytes.
const LARGEST_DOCUMENT: u64 = 8 << 20;

/// Indexes in indexes; nobody nests them deeper.
const DEPTH: usize = 4;

impl RemoteWorker {
    /// Whether the worker is to pull an image itself: it is worth it, the name stands for just
    /// these layers, and the worker has not failed to reach the registry before.
    pub(super) async fn pulls(
        &self,
        content: &ContentStore,
        name: &str,
        digest: &str,
        platform: &Platform,
        image: &InputImage,
    ) -> bool {
        let size: u64 = image.layers.iter().map(|layer| layer.blob.desc.size).sum();
        if size < LARGE || self.0.cannot_pull(registry(name)) {
            return false;
        }
        let layers: Vec<Digest> = image.layers.iter().map(|layer| layer.blob.desc.digest).collect();
        stands_for(content, digest, platform).await.is_some_and(|known| known == layers)
    }
}

impl Inner {
    fn cannot_pull(&self, registry: &str) -> bool {
        let known = self.out_of_reach.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(registry).is_some_and(|when| when.elapsed() < AGAIN_AFTER)
    }

    /// Notes that the worker does not get images of a registry.
    pub(super) fn note_out_of_reach(&self, name: &str) {
        let mut known = self.out_of_reach.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(registry(name).to_string(), Instant::now());
    }
}

/// The host in an image's name.
fn registry(name: &str) -> &str {
    name.split('/').next().unwrap_or_default()
}

/// The layers of the image for a platform, from the documents that are here.
async fn stands_for(content: &ContentStore, digest: &str, platform: &Platform) -> Option<Vec<Digest>> {
    let mut digest: Digest = digest.parse().ok()?;
    for _ in 0..DEPTH {
        let bytes = content.read_async(digest, LARGEST_DOCUMENT).await.ok()?;
        if let Ok(index) = Index::parse(&bytes)
            && !index.manifests.is_empty()
        {
            let found: &Descriptor = resolve_platform(&index, &Matcher::only(platform), platform).ok()?;
            digest = found.digest;
            continue;
        }
        let manifest = Manifest::parse(&bytes).ok()?;
        return Some(manifest.layers.into_iter().map(|layer| layer.digest).collect());
    }
    None
}
