//! Giving images: what a registry lacks goes up, blobs before the manifests that name them, the tag last.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use http::{Method, header};

use super::client::{Client, Purpose, refused};
use super::hosts::Endpoint;
use super::progress::Progress;
use super::push_blob::push_scope;
use super::reference::Reference;
use super::transfer::retried;
use crate::content::ContentStore;
use crate::descriptor::Descriptor;
use crate::digest::Digest;
use crate::errors::{Error, Result};
use crate::manifest::{Index, MAX_MANIFEST_SIZE, Manifest};
use crate::media_types;

/// Blobs on their way at once; the host's own limit holds besides.
const AT_ONCE: usize = 4;
/// Indexes within indexes; one level is usual.
const MAX_DEPTH: usize = 4;

/// How an image is pushed.
#[derive(Clone, Debug, Default)]
pub struct PushOptions {
    /// Without a tag.
    pub by_digest: bool,
    /// Repositories that are known to have a blob, which the registry may then take from there.
    pub sources: HashMap<Digest, Vec<Reference>>,
}

/// What was pushed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// The image's name with its digest.
    pub name: Reference,
}

impl Client {
    /// Pushes an image, or an index with all its images, out of a content store.
    pub async fn push(
        &self,
        store: &ContentStore,
        root: &Descriptor,
        name: &Reference,
        options: &PushOptions,
        progress: Arc<dyn Progress>,
    ) -> Result<Pushed> {
        if options.by_digest && (name.tag().is_some() || name.digest().is_some()) {
            return Err(Error::invalid("push", format!("can't push tagged ref {name} by digest")));
        }
        let name = if options.by_digest { name.clone() } else { name.clone().with_default_tag() };
        let start = root.clone();
        let plan = store.off_runtime(move |store| Plan::of(&store, &start)).await?;
        let endpoint = self.hosts.for_push(name.domain()).map_err(Error::from)?;
        // Owned items: closures over borrowed ones are not `Send` enough for callers that box the future.
        futures::stream::iter(plan.blobs.into_iter().map(Ok))
            .try_for_each_concurrent(AT_ONCE, |blob| {
                let (endpoint, name, progress) = (&endpoint, &name, &progress);
                async move {
                    let _permit = endpoint.transfers.acquire().await;
                    let sources = options.sources.get(&blob.digest).map_or(&[][..], Vec::as_slice);
                    self.push_blob(endpoint, name, &blob, sources, store, progress).await
                }
            })
            .await?;
        // Each level needs the one below it.
        for level in plan.manifests {
            futures::stream::iter(level)
                .map(|manifest| {
                    let (endpoint, name) = (&endpoint, &name);
                    async move {
                        let tag = name.tag().filter(|_| manifest.digest == root.digest);
                        self.push_manifest(endpoint, name, &manifest, tag, store).await
                    }
                })
                .buffer_unordered(AT_ONCE)
                .try_collect::<()>()
                .await?;
        }
        Ok(Pushed { name: name.with_digest(root.digest) })
    }

    /// Gives a repository a manifest that the store holds, under the tag of the name if it has one.
    /// What the manifest names has to be there already.
    pub async fn give_manifest(
        &self,
        name: &Reference,
        desc: &Descriptor,
        store: &ContentStore,
    ) -> Result<()> {
        let endpoint = self.hosts.for_push(name.domain()).map_err(Error::from)?;
        self.push_manifest(&endpoint, name, desc, name.tag(), store).await
    }

    async fn push_manifest(
        &self,
        endpoint: &Endpoint,
        name: &Reference,
        desc: &Descriptor,
        tag: Option<&str>,
        store: &ContentStore,
    ) -> Result<()> {
        let bytes = bytes::Bytes::from(store.read_async(desc.digest, MAX_MANIFEST_SIZE).await?);
        let scopes = push_scope(name);
        let purpose = Purpose { endpoint, scopes: &scopes };
        let path = format!(
            "/{}/manifests/{}",
            name.path(),
            tag.map_or_else(|| desc.digest.to_string(), str::to_owned)
        );
        retried(|| async {
            let there = self
                .send(purpose, Method::HEAD, &path, |r| r.header(header::ACCEPT, &desc.media_type))
                .await?;
            let digest = there.headers().get("docker-content-digest").and_then(|v| v.to_str().ok());
            if there.status().is_success() && digest == Some(&desc.digest.to_string()) {
                return Ok(());
            }
            let build = |r: reqwest::RequestBuilder| {
                r.header(header::CONTENT_TYPE, &desc.media_type).body(bytes.clone())
            };
            let answer = self.send(purpose, Method::PUT, &path, build).await?;
            if !answer.status().is_success() {
                return Err(refused(answer, &Method::PUT, "push", &name.to_string()).await.into());
            }
            Ok(())
        })
        .await
    }
}

/// Everything that an image is made of.
#[derive(Default)]
struct Plan {
    blobs: Vec<Descriptor>,
    /// Manifests by height: those without manifests below them first.
    manifests: Vec<Vec<Descriptor>>,
    seen: HashSet<Digest>,
}

impl Plan {
    fn of(store: &ContentStore, root: &Descriptor) -> Result<Self> {
        let mut plan = Self::default();
        plan.add(store, root, 0)?;
        Ok(plan)
    }

    /// Adds what a descriptor leads to and returns its height: 0 for blobs.
    fn add(&mut self, store: &ContentStore, desc: &Descriptor, depth: usize) -> Result<usize> {
        let is_index = media_types::is_index(&desc.media_type);
        if depth > MAX_DEPTH {
            return Err(Error::invalid("image index", "indexes are nested too deeply"));
        }
        if !is_index && !media_types::is_manifest(&desc.media_type) {
            if !media_types::is_nondistributable(&desc.media_type) && self.seen.insert(desc.digest) {
                self.blobs.push(desc.clone());
            }
            return Ok(0);
        }
        let bytes = store.read(&desc.digest, MAX_MANIFEST_SIZE)?;
        let children = if is_index {
            Index::parse(&bytes)?.manifests
        } else {
            let manifest = Manifest::parse(&bytes)?;
            let mut children = vec![manifest.config];
            children.extend(manifest.layers);
            children
        };
        let mut height = 0;
        for child in &children {
            height = height.max(self.add(store, child, depth + 1)?);
        }
        if self.seen.insert(desc.digest) {
            self.manifests.resize_with(self.manifests.len().max(height + 1), Vec::new);
            self.manifests[height].push(desc.clone());
        }
        Ok(height + 1)
    }
}
