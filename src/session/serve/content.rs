//! Lending content stores: folders with blobs, as in an OCI layout.

use super::files::AbortOnDrop;
use crate::{SessionError, headers};
use bytes::Bytes;
use crosskit_api::content::content_server::Content;
use crosskit_api::content::{
    AbortRequest, DeleteContentRequest, Info, InfoRequest, InfoResponse, ListContentRequest,
    ListContentResponse, ListStatusesRequest, ListStatusesResponse, ReadContentRequest, ReadContentResponse,
    StatusRequest, StatusResponse, UpdateRequest, UpdateResponse, WriteAction, WriteContentRequest,
    WriteContentResponse,
};
use futures::{Stream, StreamExt};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

/// Bytes of a blob that one message carries.
const PIECE: usize = 1 << 20;

/// Blobs in one message of a list.
const LISTED: usize = 100;

/// The content stores that a client lends, by id: folders with `blobs/sha256/…`.
#[derive(Debug, Clone, Default)]
pub struct ContentStores {
    stores: HashMap<String, Store>,
}

#[derive(Debug, Clone)]
struct Store {
    path: PathBuf,
    writable: bool,
}

impl ContentStores {
    /// Lends the store in the folder `path` as `id`. The daemon can add blobs if it is writable,
    /// and can never remove any.
    pub fn add(&mut self, id: impl Into<String>, path: impl Into<PathBuf>, writable: bool) {
        self.stores.insert(id.into(), Store { path: path.into(), writable });
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.stores.is_empty()
    }

    fn choose(&self, metadata: &MetadataMap) -> Result<&Store, Status> {
        let Some(id) = headers::take(metadata, headers::STORE_ID).into_iter().next() else {
            return Err(Status::invalid_argument(format!("request lacks metadata {:?}", headers::STORE_ID)));
        };
        self.stores.get(&id).ok_or_else(|| Status::not_found(format!("unknown store {id}: not found")))
    }
}

impl Store {
    /// Where a blob is. Digests come from the daemon and become names of files.
    fn blob(&self, digest: &str) -> Result<PathBuf, Status> {
        let hex = digest
            .strip_prefix("sha256:")
            .filter(|hex| hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')));
        match hex {
            Some(hex) => Ok(self.path.join("blobs/sha256").join(hex)),
            None => {
                Err(Status::invalid_argument(format!("{digest:?} failed validation: not a sha256 digest")))
            }
        }
    }

    fn info(&self, digest: &str) -> Result<Info, Status> {
        let there = std::fs::metadata(self.blob(digest)?).map_err(|err| failed(digest, &err))?;
        Ok(describe(digest, &there))
    }
}

fn failed(digest: &str, err: &std::io::Error) -> Status {
    match err.kind() {
        std::io::ErrorKind::NotFound => Status::not_found(format!("content {digest}: not found")),
        _ => Status::unknown(format!("content {digest}: {err}")),
    }
}

fn describe(digest: &str, there: &std::fs::Metadata) -> Info {
    let time = there.modified().ok().map(prost_types::Timestamp::from);
    Info {
        digest: digest.to_string(),
        size: there.len() as i64,
        created_at: time,
        updated_at: time,
        ..Info::default()
    }
}

type Pieces<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Content for ContentStores {
    type ListStream = Pieces<ListContentResponse>;
    type ReadStream = Pieces<ReadContentResponse>;
    type WriteStream = Pieces<WriteContentResponse>;

    async fn info(&self, request: Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
        let store = self.choose(request.metadata())?;
        Ok(Response::new(InfoResponse { info: Some(store.info(&request.get_ref().digest)?) }))
    }

    async fn update(&self, request: Request<UpdateRequest>) -> Result<Response<UpdateResponse>, Status> {
        self.choose(request.metadata())?;
        Err(Status::failed_precondition("update not supported on immutable content store"))
    }

    async fn list(&self, request: Request<ListContentRequest>) -> Result<Response<Self::ListStream>, Status> {
        let store = self.choose(request.metadata())?;
        let mut all = Vec::new();
        let entries = std::fs::read_dir(store.path.join("blobs/sha256")).into_iter().flatten().flatten();
        for entry in entries {
            let digest = format!("sha256:{}", entry.file_name().to_string_lossy());
            if store.blob(&digest).is_ok()
                && let Ok(there) = entry.metadata()
            {
                all.push(describe(&digest, &there));
            }
        }
        let blocks: Vec<_> =
            all.chunks(LISTED).map(|c| Ok(ListContentResponse { info: c.to_vec() })).collect();
        Ok(Response::new(Box::pin(futures::stream::iter(blocks))))
    }

    async fn delete(&self, request: Request<DeleteContentRequest>) -> Result<Response<()>, Status> {
        self.choose(request.metadata())?;
        Err(Status::permission_denied("blobs of a client cannot be deleted through its session"))
    }

    async fn read(&self, request: Request<ReadContentRequest>) -> Result<Response<Self::ReadStream>, Status> {
        let store = self.choose(request.metadata())?;
        let ReadContentRequest { digest, offset, size } = request.get_ref().clone();
        let mut file = std::fs::File::open(store.blob(&digest)?).map_err(|err| failed(&digest, &err))?;
        let total = file.metadata().map_err(|err| failed(&digest, &err))?.len();
        let offset = offset.max(0) as u64;
        if offset > total {
            return Err(Status::out_of_range(format!("read past object length {total} bytes")));
        }
        let left = total - offset;
        let mut left = if size <= 0 { left } else { left.min(size as u64) };
        let (out, pieces) = mpsc::channel(4);
        tokio::task::spawn_blocking(move || {
            let mut at = 0;
            let mut read = || -> std::io::Result<()> {
                file.seek(std::io::SeekFrom::Start(offset))?;
                while left > 0 {
                    let mut data = vec![0; (left.min(PIECE as u64)) as usize];
                    file.read_exact(&mut data)?;
                    left -= data.len() as u64;
                    let piece = ReadContentResponse { offset: at, data: Bytes::from(data) };
                    at += piece.data.len() as i64;
                    if out.blocking_send(Ok(piece)).is_err() {
                        return Ok(());
                    }
                }
                Ok(())
            };
            if let Err(err) = read() {
                let _ = out.blocking_send(Err(failed(&digest, &err)));
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(pieces))))
    }

    async fn status(&self, request: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        self.choose(request.metadata())?;
        // A write that breaks off leaves nothing behind to be continued.
        Err(Status::not_found(format!("status {:?}: not found", request.get_ref().r#ref)))
    }

    async fn list_statuses(
        &self,
        request: Request<ListStatusesRequest>,
    ) -> Result<Response<ListStatusesResponse>, Status> {
        self.choose(request.metadata())?;
        Ok(Response::new(ListStatusesResponse::default()))
    }

    async fn write(
        &self,
        request: Request<Streaming<WriteContentRequest>>,
    ) -> Result<Response<Self::WriteStream>, Status> {
        let store = self.choose(request.metadata())?.clone();
        if !store.writable {
            return Err(Status::permission_denied("the content store can only be read"));
        }
        let (out, answers) = mpsc::channel(1);
        let task = tokio::spawn(async move {
            match write(store, request.into_inner(), &out).await {
                Ok(()) => Ok(()),
                Err(status) => Err(SessionError::call("write")(status)),
            }
        });
        let end = futures::stream::once(AbortOnDrop(task).failure()).filter_map(|f| async { f.map(Err) });
        Ok(Response::new(Box::pin(ReceiverStream::new(answers).map(Ok).chain(end))))
    }

    async fn abort(&self, request: Request<AbortRequest>) -> Result<Response<()>, Status> {
        self.choose(request.metadata())?;
        Ok(Response::new(()))
    }
}

/// How often the folder for what is being written is made again.
const TRIES: usize = 100;

/// A blob that is being written, under a name that is not a digest.
struct Ingest {
    file: std::fs::File,
    path: PathBuf,
    hash: Sha256,
    written: u64,
}

impl Ingest {
    fn begin(store: &Path) -> std::io::Result<Self> {
        let dir = store.join("ingest");
        let path = dir.join(format!("{:032x}", rand::random::<u128>()));
        let mut tries = 0;
        let file = loop {
            std::fs::create_dir_all(&dir)?;
            tries += 1;
            match std::fs::OpenOptions::new().write(true).create_new(true).open(&path) {
                // Another program that writes here, too, has just taken the folder away.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound && tries < TRIES => {}
                opened => break opened?,
            }
        };
        Ok(Self { file, path, hash: Sha256::new(), written: 0 })
    }

    fn restart(&mut self) -> std::io::Result<()> {
        self.file.set_len(0)?;
        self.file.rewind()?;
        (self.hash, self.written) = (Sha256::new(), 0);
        Ok(())
    }

    fn add(&mut self, data: &[u8]) -> std::io::Result<()> {
        self.file.write_all(data)?;
        self.hash.update(data);
        self.written += data.len() as u64;
        Ok(())
    }

    fn digest(&self) -> String {
        format!("sha256:{}", hex::encode(self.hash.clone().finalize()))
    }

    fn commit(&mut self, to: &Path) -> std::io::Result<()> {
        std::fs::create_dir_all(to.parent().ok_or(std::io::ErrorKind::InvalidInput)?)?;
        std::fs::rename(&self.path, to)
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
        // Only if nobody else writes.
        let _ = self.path.parent().map(std::fs::remove_dir);
    }
}

async fn write(
    store: Store,
    mut messages: Streaming<WriteContentRequest>,
    out: &mpsc::Sender<WriteContentResponse>,
) -> Result<(), Status> {
    let mut ingest: Option<Ingest> = None;
    let (mut total, mut expected) = (0, String::new());
    while let Some(message) = messages.message().await? {
        if ingest.is_none() && message.r#ref.is_empty() {
            return Err(Status::invalid_argument("first message must have a reference"));
        }
        if !message.expected.is_empty() {
            if store.info(&message.expected).is_ok() {
                let text = format!("blob with expected digest {} exists: already exists", message.expected);
                return Err(Status::already_exists(text));
            }
            expected.clone_from(&message.expected);
        }
        if message.total > 0 {
            total = message.total;
        }
        let (store, expected) = (store.clone(), expected.clone());
        let current = ingest.take();
        let step = tokio::task::spawn_blocking(move || step(&store, current, message, total, &expected));
        let (next, answer) = step.await.map_err(|err| Status::internal(err.to_string()))??;
        ingest = next;
        let committed = ingest.is_none();
        if out.send(answer).await.is_err() || committed {
            return Ok(());
        }
    }
    Ok(())
}

/// Does what one message asks for. Without an ingest in the result, the blob is there.
fn step(
    store: &Store,
    ingest: Option<Ingest>,
    message: WriteContentRequest,
    total: i64,
    expected: &str,
) -> Result<(Option<Ingest>, WriteContentResponse), Status> {
    let broken = |err: std::io::Error| Status::unknown(format!("write to {}: {err}", store.path.display()));
    let mut ingest = match ingest {
        Some(ingest) => ingest,
        None => Ingest::begin(&store.path).map_err(broken)?,
    };
    let action = WriteAction::try_from(message.action).unwrap_or(WriteAction::Stat);
    if action != WriteAction::Stat {
        if message.offset > 0 && message.offset as u64 != ingest.written {
            let text = format!("write @{} must occur at current offset {}", message.offset, ingest.written);
            return Err(Status::out_of_range(text));
        }
        if message.offset == 0 && ingest.written > 0 {
            ingest.restart().map_err(broken)?;
        }
        ingest.add(&message.data).map_err(broken)?;
    }
    let digest = ingest.digest();
    let answer = WriteContentResponse {
        action: message.action,
        offset: ingest.written as i64,
        total,
        digest: digest.clone(),
        ..WriteContentResponse::default()
    };
    if action != WriteAction::Commit {
        return Ok((Some(ingest), answer));
    }
    if total > 0 && total as u64 != ingest.written {
        let text =
            format!("unexpected commit size {}, expected {total}: failed precondition", ingest.written);
        return Err(Status::failed_precondition(text));
    }
    if !expected.is_empty() && expected != digest {
        let text = format!("unexpected commit digest {digest}, expected {expected}: failed precondition");
        return Err(Status::failed_precondition(text));
    }
    let path = store.blob(&digest)?;
    if path.exists() {
        return Err(Status::already_exists(format!("content {digest}: already exists")));
    }
    ingest.commit(&path).map_err(broken)?;
    Ok((None, answer))
}
