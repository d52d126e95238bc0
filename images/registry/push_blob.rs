//! One blob given to a registry.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::StreamExt;
use http::{Method, StatusCode, header};
use tokio_util::io::ReaderStream;

use super::client::{Client, Purpose, refused};
use super::errors::RegistryError;
use super::hosts::Endpoint;
use super::progress::{BlobState, Progress};
use super::reference::Reference;
use super::transfer::retried;
use crate::content::ContentStore;
use crate::descriptor::Descriptor;
use crate::errors::{Error, Result};

/// Bytes read from disk at once for an upload.
const READ: usize = 256 << 10;

impl Client {
    /// Whether a repository has a blob, or takes it from one of the `sources`: then it need not be
    /// given it.
    pub async fn offer_blob(
        &self,
        name: &Reference,
        desc: &Descriptor,
        sources: &[Reference],
    ) -> Result<bool> {
        let endpoint = self.hosts.for_push(name.domain()).map_err(Error::from)?;
        let lock = self.hosts.push_lock(name, &desc.digest);
        let _alone = lock.lock().await;
        retried(|| async {
            if self.has_blob(&endpoint, name, desc).await? {
                return Ok(true);
            }
            Ok(matches!(self.mount(&endpoint, name, desc, sources).await?, Mount::Mounted))
        })
        .await
    }

    /// Gives a repository a blob that the store holds, unless it has it or takes it from one of the `sources`.
    pub async fn give_blob(
        &self,
        name: &Reference,
        desc: &Descriptor,
        sources: &[Reference],
        store: &ContentStore,
        progress: Arc<dyn Progress>,
    ) -> Result<()> {
        let endpoint = self.hosts.for_push(name.domain()).map_err(Error::from)?;
        let _permit = endpoint.transfers.acquire().await;
        self.push_blob(&endpoint, name, desc, sources, store, &progress).await
    }

    /// Makes sure that a repository has a blob: it has it, takes it from another one, or is given it.
    pub(super) async fn push_blob(
        &self,
        endpoint: &Endpoint,
        name: &Reference,
        desc: &Descriptor,
        sources: &[Reference],
        store: &ContentStore,
        progress: &Arc<dyn Progress>,
    ) -> Result<()> {
        let lock = self.hosts.push_lock(name, &desc.digest);
        let _alone = lock.lock().await;
        let state = retried(|| async {
            if self.has_blob(endpoint, name, desc).await? {
                return Ok(BlobState::Exists);
            }
            let upload = match self.mount(endpoint, name, desc, sources).await? {
                Mount::Mounted => return Ok(BlobState::Mounted),
                Mount::Upload(url) => url,
                Mount::Refused => self.begin_upload(endpoint, name, desc).await?,
            };
            self.upload(endpoint, name, desc, &upload, store, progress).await?;
            Ok(BlobState::Done)
        })
        .await?;
        progress.blob(&desc.digest, state, desc.size, desc.size);
        Ok(())
    }

    async fn has_blob(&self, endpoint: &Endpoint, name: &Reference, desc: &Descriptor) -> Result<bool> {
        let scopes = push_scope(name);
        let purpose = Purpose { endpoint, scopes: &scopes };
        let path = format!("/{}/blobs/{}", name.path(), desc.digest);
        let answer = self.send(purpose, Method::HEAD, &path, |r| r).await?;
        match answer.status() {
            status if status.is_success() => Ok(true),
            StatusCode::NOT_FOUND => Ok(false),
            _ => Err(refused(answer, &Method::HEAD, "push", &name.repository()).await.into()),
        }
    }

    /// Asks the registry to take a blob from another of its repositories.
    async fn mount(
        &self,
        endpoint: &Endpoint,
        name: &Reference,
        desc: &Descriptor,
        sources: &[Reference],
    ) -> Result<Mount> {
        let here = |source: &&Reference| source.domain() == name.domain() && source.path() != name.path();
        for source in sources.iter().filter(here) {
            let mut scopes = push_scope(name);
            scopes.push(format!("repository:{}:pull", source.path()));
            let path =
                format!("/{}/blobs/uploads/?mount={}&from={}", name.path(), desc.digest, source.path());
            let purpose = Purpose { endpoint, scopes: &scopes };
            // Whoever may not read the other repository uploads: no error, whichever way it is refused.
            match self.send(purpose, Method::POST, &path, |r| r.header(header::CONTENT_LENGTH, 0)).await {
                Ok(answer) if answer.status() == StatusCode::CREATED => return Ok(Mount::Mounted),
                Ok(answer) if answer.status() == StatusCode::ACCEPTED => {
                    return Ok(Mount::Upload(location(&answer, endpoint)?));
                }
                Ok(answer) if answer.status().is_server_error() => {
                    return Err(refused(answer, &Method::POST, "push", &name.repository()).await.into());
                }
                Ok(_) | Err(Error::Registry(RegistryError::Token { .. })) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Mount::Refused)
    }

    async fn begin_upload(
        &self,
        endpoint: &Endpoint,
        name: &Reference,
        _desc: &Descriptor,
    ) -> Result<String> {
        let scopes = push_scope(name);
        let purpose = Purpose { endpoint, scopes: &scopes };
        let path = format!("/{}/blobs/uploads/", name.path());
        let answer = self.send(purpose, Method::POST, &path, |r| r.header(header::CONTENT_LENGTH, 0)).await?;
        if answer.status() != StatusCode::ACCEPTED {
            return Err(refused(answer, &Method::POST, "push", &name.repository()).await.into());
        }
        location(&answer, endpoint)
    }

    async fn upload(
        &self,
        endpoint: &Endpoint,
        name: &Reference,
        desc: &Descriptor,
        to: &str,
        store: &ContentStore,
        progress: &Arc<dyn Progress>,
    ) -> Result<()> {
        let digest = desc.digest;
        let reader = store.off_runtime(move |store| store.reader(&digest)).await?;
        if reader.size() != desc.size {
            let what = format!("content {digest}");
            return Err(Error::SizeMismatch { what, expected: desc.size, actual: reader.size() });
        }
        let file = reader.into_file();
        let mut url = reqwest::Url::parse(to).map_err(|e| bad_location(endpoint, e.to_string()))?;
        url.query_pairs_mut().append_pair("digest", &digest.to_string());
        let scopes = push_scope(name);
        let purpose = Purpose { endpoint, scopes: &scopes };
        // Each try reads from the beginning, by a descriptor of its own.
        let build = |request: reqwest::RequestBuilder| {
            let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
            let (progress, size, sent) = (progress.clone(), desc.size, AtomicU64::new(0));
            let bytes = futures::stream::once(async move { tokio::fs::File::open(path).await })
                .map(|opened| match opened {
                    Ok(file) => ReaderStream::with_capacity(file, READ).left_stream(),
                    Err(error) => futures::stream::once(async { Err(error) }).right_stream(),
                })
                .flatten()
                .inspect(move |piece| {
                    if let Ok(piece) = piece {
                        let now = sent.fetch_add(piece.len() as u64, Ordering::Relaxed) + piece.len() as u64;
                        progress.blob(&digest, BlobState::Transferring, now, size);
                    }
                });
            request
                .header(header::CONTENT_TYPE, "application/octet-stream")
                .header(header::CONTENT_LENGTH, size)
                .body(reqwest::Body::wrap_stream(bytes))
        };
        let answer = self.send_to(purpose, Method::PUT, |_| url.to_string(), build).await?;
        if !answer.status().is_success() {
            if answer.status() == StatusCode::BAD_REQUEST {
                // Perhaps it says that the digest is another one: then it is here that something is wrong.
                store.off_runtime(move |store| store.verify(&digest)).await?;
            }
            return Err(refused(answer, &Method::PUT, "push", &name.repository()).await.into());
        }
        Ok(())
    }
}

enum Mount {
    Mounted,
    /// It did not mount, but has begun an upload.
    Upload(String),
    Refused,
}

pub(super) fn push_scope(name: &Reference) -> Vec<String> {
    vec![format!("repository:{}:pull,push", name.path())]
}

fn bad_location(endpoint: &Endpoint, reason: String) -> RegistryError {
    RegistryError::Answer { host: endpoint.host.clone(), reason: format!("upload location: {reason}") }
}

/// Where an upload goes on; registries may answer with a path only.
fn location(answer: &reqwest::Response, endpoint: &Endpoint) -> Result<String> {
    let text = answer.headers().get(header::LOCATION).and_then(|v| v.to_str().ok());
    let text = text.ok_or_else(|| bad_location(endpoint, "missing".into()))?;
    Ok(answer.url().join(text).map_err(|e| bad_location(endpoint, e.to_string()))?.to_string())
}
