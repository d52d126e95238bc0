//! Getting images: names resolved, manifests and blobs fetched into the content store.

use std::io::Write;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, StatusCode, header};
use tokio::sync::mpsc;

use super::client::{Client, Purpose, refused};
use super::errors::RegistryError;
use super::hosts::Endpoint;
use super::progress::{BlobState, Progress};
use super::reference::Reference;
use super::transfer::{STALLED_AFTER, TRIES, is_passing, reason, retried, wait};
use crate::content::{ContentStore, Ingest};
use crate::descriptor::Descriptor;
use crate::digest::Digest;
use crate::errors::{Error, Result};
use crate::manifest::MAX_MANIFEST_SIZE;
use crate::media_types;

/// All kinds of manifest this program reads, and whatever else there is, to refuse it by name.
const ACCEPT: &str = "application/vnd.docker.distribution.manifest.v2+json, \
                      application/vnd.docker.distribution.manifest.list.v2+json, \
                      application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, */*";
/// Pieces of a blob that wait to be written.
const WAITING: usize = 32;

/// What a name stands for now.
#[derive(Clone, Debug, PartialEq)]
pub struct Resolved {
    /// The manifest or index.
    pub desc: Descriptor,
    /// Its bytes, where the registry gave them along.
    pub bytes: Option<Bytes>,
}

impl Client {
    /// Asks what a name stands for.
    pub async fn resolve(&self, name: &Reference) -> Result<Resolved> {
        let name = name.clone().with_default_tag();
        let tag = name.digest().map_or_else(|| name.tag().unwrap_or("latest").to_owned(), Digest::to_string);
        let (name, tag) = (&name, tag.as_str());
        self.at_any(name, |endpoint| async move { self.resolve_at(&endpoint, name, tag).await }).await
    }

    /// Asks the registry that a name is pushed to, and no mirror, what it stands for there; none if there is nothing.
    pub async fn resolve_where_pushed(&self, name: &Reference) -> Result<Option<Resolved>> {
        let endpoint = self.hosts.for_push(name.domain()).map_err(Error::from)?;
        match self.resolve_at(&endpoint, name, name.tag().unwrap_or("latest")).await {
            Ok(found) => Ok(Some(found)),
            Err(Error::Registry(RegistryError::NotFound { .. })) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A manifest by digest, from the store or else the registry; it is in the store afterwards.
    pub async fn fetch_manifest(
        &self,
        name: &Reference,
        digest: &Digest,
        store: &ContentStore,
    ) -> Result<Vec<u8>> {
        let lock = self.hosts.fetch_lock(digest);
        let _only = lock.lock().await;
        if let Ok(bytes) = store.read_async(*digest, MAX_MANIFEST_SIZE).await {
            return Ok(bytes);
        }
        let tag = digest.to_string();
        let tag = tag.as_str();
        let ask = |endpoint: Arc<Endpoint>| async move {
            self.get_manifest(&endpoint, name, tag, Some(digest)).await
        };
        let (bytes, _) = self.at_any(name, ask).await?;
        store.put_async(bytes.to_vec()).await?;
        Ok(bytes.to_vec())
    }

    /// A blob, from the registry unless the store holds it; whoever else wants it waits for the same transfer.
    pub async fn fetch_blob(
        &self,
        name: &Reference,
        desc: &Descriptor,
        store: &ContentStore,
        progress: Arc<dyn Progress>,
    ) -> Result<()> {
        let lock = self.hosts.fetch_lock(&desc.digest);
        let _only = lock.lock().await;
        let wanted = desc.clone();
        if store.off_runtime(move |store| Ok(store.holds(&wanted))).await? {
            progress.blob(&desc.digest, BlobState::Exists, desc.size, desc.size);
            return Ok(());
        }
        let told = &*progress;
        self.at_any(name, |endpoint| async move {
            let _permit = endpoint.transfers.acquire().await;
            self.fetch_from(&endpoint, name, desc, store, told).await
        })
        .await?;
        progress.blob(&desc.digest, BlobState::Done, desc.size, desc.size);
        Ok(())
    }

    /// Tries mirrors, then the registry itself. What the registry says counts, for a mirror may know less; unless nobody
    /// answers there.
    pub(super) async fn at_any<T, F: Future<Output = Result<T>>>(
        &self,
        name: &Reference,
        ask: impl Fn(Arc<Endpoint>) -> F,
    ) -> Result<T> {
        let endpoints = self.hosts.for_pull(name.domain()).map_err(Error::from)?;
        let mut failed = None;
        for endpoint in endpoints {
            let error = match ask(endpoint.clone()).await {
                Ok(found) => return Ok(found),
                Err(error) => error,
            };
            tracing::debug!("{} from {}: {error}", name, endpoint.base());
            if failed.as_ref().is_none_or(|before| answer_in(&error) >= answer_in(before)) {
                failed = Some(error);
            }
        }
        Err(failed.unwrap_or_else(|| Error::invalid("registry", "has no address")))
    }

    async fn resolve_at(&self, endpoint: &Endpoint, name: &Reference, tag: &str) -> Result<Resolved> {
        let path = format!("/{}/manifests/{tag}", name.path());
        let scopes = pull_scope(name);
        let purpose = Purpose { endpoint, scopes: &scopes };
        let answer = retried(|| async {
            let answer =
                self.send(purpose, Method::HEAD, &path, |r| r.header(header::ACCEPT, ACCEPT)).await?;
            if answer.status().is_server_error() {
                return Err(refused(answer, &Method::HEAD, "pull", &name.to_string()).await.into());
            }
            Ok(answer)
        })
        .await?;
        let text = |key: &str| {
            answer.headers().get(key).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned()
        };
        let (media_type, digest, size) =
            (plain_type(&text("content-type")), text("docker-content-digest"), text("content-length"));
        if answer.status().is_success()
            && let (Ok(digest), Ok(size)) = (digest.parse::<Digest>(), size.parse::<u64>())
            && size > 0
            && (media_types::is_manifest(&media_type) || media_types::is_index(&media_type))
        {
            check_digest(name, &digest)?;
            return Ok(Resolved { desc: Descriptor::new(media_type, digest, size), bytes: None });
        }
        if matches!(answer.status(), StatusCode::NOT_FOUND | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
        {
            return Err(refused(answer, &Method::HEAD, "pull", &name.to_string()).await.into());
        }
        // Registries that answer HEAD poorly have to give the manifest itself.
        let (bytes, media_type) = self.get_manifest(endpoint, name, tag, name.digest()).await?;
        if media_types::is_schema1(&media_type) {
            return Err(Error::Unsupported {
                what: format!("{name}: media type {media_type:?}"),
                hint: "this image has Docker's first manifest format, which no builder reads any more; push it again with a current tool".into(),
            });
        }
        Ok(Resolved { desc: Descriptor::of(media_type, &bytes), bytes: Some(bytes) })
    }

    async fn get_manifest(
        &self,
        endpoint: &Endpoint,
        name: &Reference,
        tag: &str,
        expected: Option<&Digest>,
    ) -> Result<(Bytes, String)> {
        let path = format!("/{}/manifests/{tag}", name.path());
        let (bytes, media_type) = self.get_document(endpoint, name, &path, ACCEPT).await?;
        let actual = Digest::of(&bytes);
        if let Some(expected) = expected
            && *expected != actual
        {
            return Err(Error::DigestMismatch {
                what: format!("manifest of {name}"),
                expected: *expected,
                actual,
            });
        }
        Ok((bytes, media_type))
    }

    /// A document of the size of a manifest, and its type.
    pub(super) async fn get_document(
        &self,
        endpoint: &Endpoint,
        name: &Reference,
        path: &str,
        accept: &'static str,
    ) -> Result<(Bytes, String)> {
        let scopes = pull_scope(name);
        retried(|| async {
            let purpose = Purpose { endpoint, scopes: &scopes };
            let mut answer =
                self.send(purpose, Method::GET, path, |r| r.header(header::ACCEPT, accept)).await?;
            if !answer.status().is_success() {
                return Err(refused(answer, &Method::GET, "pull", &name.to_string()).await.into());
            }
            let media_type = answer.headers().get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok());
            let media_type = plain_type(media_type.unwrap_or_default());
            let mut bytes = Vec::new();
            while let Some(piece) = next_piece(&mut answer, path).await? {
                bytes.extend_from_slice(&piece);
                if bytes.len() as u64 > MAX_MANIFEST_SIZE {
                    return Err(Error::TooLarge {
                        what: format!("manifest of {name}"),
                        limit: MAX_MANIFEST_SIZE,
                    });
                }
            }
            Ok((Bytes::from(bytes), media_type))
        })
        .await
    }

    async fn fetch_from(
        &self,
        endpoint: &Endpoint,
        name: &Reference,
        desc: &Descriptor,
        store: &ContentStore,
        progress: &dyn Progress,
    ) -> Result<()> {
        let ingest = store.off_runtime(|store| store.ingest()).await?;
        let (pieces, to_write) = mpsc::channel(WAITING);
        let expected = desc.clone();
        let writer = tokio::task::spawn_blocking(move || write(ingest, to_write, &expected));
        let sent = self.send_pieces(endpoint, name, desc, &pieces, progress).await;
        if sent.is_ok() {
            drop(pieces.send(Piece::End).await);
        }
        drop(pieces);
        let written = writer.await.unwrap_or_else(|e| Err(Error::io("write blob", std::io::Error::other(e))));
        match (sent, written) {
            // The writer went first: its reason is the reason.
            (Err(Error::Io { .. }), Err(error)) => Err(error),
            (Err(error), _) | (Ok(()), Err(error)) => Err(error),
            (Ok(()), Ok(())) => Ok(()),
        }
    }

    /// Streams a blob, taking it up again where a connection breaks.
    async fn send_pieces(
        &self,
        endpoint: &Endpoint,
        name: &Reference,
        desc: &Descriptor,
        pieces: &mpsc::Sender<Piece>,
        progress: &dyn Progress,
    ) -> Result<()> {
        let (mut have, mut tried) = (0, 0);
        loop {
            let before = have;
            match self.one_stream(endpoint, name, desc, pieces, progress, &mut have).await {
                Ok(()) => return Ok(()),
                Err(error) if is_passing(&error) => {
                    tried = if have > before { 1 } else { tried + 1 };
                    if tried >= TRIES {
                        return Err(error);
                    }
                    tracing::debug!("{} at {have} of {}: {error}", desc.digest, desc.size);
                    wait(tried).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn one_stream(
        &self,
        endpoint: &Endpoint,
        name: &Reference,
        desc: &Descriptor,
        pieces: &mpsc::Sender<Piece>,
        progress: &dyn Progress,
        have: &mut u64,
    ) -> Result<()> {
        let gone = || Error::io("write blob", std::io::ErrorKind::BrokenPipe);
        let path = format!("/{}/blobs/{}", name.path(), desc.digest);
        let what = format!("{}@{}", name.repository(), desc.digest);
        let scopes = pull_scope(name);
        let from = *have;
        let ask = |request: reqwest::RequestBuilder| {
            if from > 0 { request.header(header::RANGE, format!("bytes={from}-")) } else { request }
        };
        let purpose = Purpose { endpoint, scopes: &scopes };
        let mut answer = self.send(purpose, Method::GET, &path, ask).await?;
        if answer.status() == StatusCode::NOT_FOUND && !desc.urls.is_empty() {
            answer = self.send_to(purpose, Method::GET, |_| desc.urls[0].clone(), ask).await?;
        }
        if answer.status() == StatusCode::RANGE_NOT_SATISFIABLE {
            answer = self.send(purpose, Method::GET, &path, |r| r).await?;
        }
        if !answer.status().is_success() {
            return Err(refused(answer, &Method::GET, "pull", &what).await.into());
        }
        if *have > 0 && answer.status() != StatusCode::PARTIAL_CONTENT {
            pieces.send(Piece::Restart).await.map_err(|_| gone())?;
            *have = 0;
        }
        while let Some(piece) = next_piece(&mut answer, &path).await? {
            *have += piece.len() as u64;
            if *have > desc.size {
                return Err(Error::SizeMismatch { what, expected: desc.size, actual: *have });
            }
            pieces.send(Piece::Bytes(piece)).await.map_err(|_| gone())?;
            progress.blob(&desc.digest, BlobState::Transferring, *have, desc.size);
        }
        if *have < desc.size {
            return Err(broken(&path, "the connection ended early".into()).into());
        }
        Ok(())
    }
}

/// What the writer of a blob is told.
enum Piece {
    Bytes(Bytes),
    Restart,
    End,
}

fn write(mut ingest: Ingest, mut pieces: mpsc::Receiver<Piece>, expected: &Descriptor) -> Result<()> {
    while let Some(piece) = pieces.blocking_recv() {
        match piece {
            Piece::Bytes(bytes) => {
                ingest
                    .write_all(&bytes)
                    .map_err(|e| Error::io(format!("write blob {}", expected.digest), e))?;
            }
            Piece::Restart => ingest.restart()?,
            Piece::End => return ingest.commit_expecting(&expected.digest, Some(expected.size)),
        }
    }
    // The transfer was given up: what there is of the blob goes.
    Err(Error::Canceled { doing: format!("fetch blob {}", expected.digest) })
}

async fn next_piece(answer: &mut reqwest::Response, url: &str) -> Result<Option<Bytes>> {
    match tokio::time::timeout(STALLED_AFTER, answer.chunk()).await {
        Ok(Ok(piece)) => Ok(piece),
        Ok(Err(error)) => Err(broken(url, reason(&error)).into()),
        Err(_) => Err(broken(url, format!("nothing came for {} s", STALLED_AFTER.as_secs())).into()),
    }
}

/// How much of an answer is in an error: none at all, that it is not there, any other.
fn answer_in(error: &Error) -> u8 {
    match error {
        Error::Registry(RegistryError::Transport { .. } | RegistryError::Token { .. }) => 0,
        Error::Registry(RegistryError::NotFound { .. }) => 1,
        _ => 2,
    }
}

fn broken(url: &str, reason: String) -> RegistryError {
    let source = std::io::Error::new(std::io::ErrorKind::ConnectionReset, reason);
    RegistryError::Transport { method: "GET".into(), url: url.to_owned(), source }
}

fn pull_scope(name: &Reference) -> Vec<String> {
    vec![format!("repository:{}:pull", name.path())]
}

/// A media type without its parameters.
fn plain_type(text: &str) -> String {
    text.split(';').next().unwrap_or_default().trim().to_owned()
}

fn check_digest(name: &Reference, actual: &Digest) -> Result<()> {
    match name.digest() {
        Some(expected) if expected != actual => Err(Error::DigestMismatch {
            what: format!("manifest of {name}"),
            expected: *expected,
            actual: *actual,
        }),
        _ => Ok(()),
    }
}
