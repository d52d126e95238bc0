//! Taking results.

use super::files::AbortOnDrop;
use crate::transfer::{Differ, Receive, receive};
use crate::{SessionError, headers};
use bytes::{Buf, Bytes};
use crosskit_api::MAX_MESSAGE;
use crosskit_api::filesync::BytesMessage;
use crosskit_api::fsutil::Packet;
use futures::{Stream, StreamExt};
use prost::Message;
use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

/// A file that a result is written to.
pub trait FileOutput: Send {
    /// Adds bytes.
    fn write(&mut self, data: &[u8]) -> io::Result<()>;

    /// Everything was written. A file that is dropped without this is incomplete.
    fn finish(self: Box<Self>) -> io::Result<()>;
}

/// Opens a file for a result with this metadata; none means that it is not wanted again.
pub type OpenFile =
    Arc<dyn Fn(BTreeMap<String, String>) -> io::Result<Option<Box<dyn FileOutput>>> + Send + Sync>;

/// Where a result goes.
#[derive(Clone)]
pub enum Output {
    /// Into a folder.
    Dir {
        /// The folder; made if it is not there.
        path: PathBuf,
        /// Whether to delete what is not in the result.
        delete: bool,
    },
    /// Into a file.
    File(OpenFile),
}

impl Output {
    /// A file at `path`, which appears when it is complete. Where something else than a file is
    /// there already, such as a pipe, it is written to that.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        Output::File(Arc::new(move |_| open_file(&path).map(Some)))
    }

    /// Everything is written to `writer`, once.
    pub fn writer(writer: impl Write + Send + 'static) -> Self {
        let once = std::sync::Mutex::new(Some(Box::new(Plain(writer)) as Box<dyn FileOutput>));
        Output::File(Arc::new(move |_| {
            Ok(once.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take())
        }))
    }
}

struct Plain<W>(W);

impl<W: Write + Send> FileOutput for Plain<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<()> {
        self.0.write_all(data)
    }

    fn finish(mut self: Box<Self>) -> io::Result<()> {
        self.0.flush()
    }
}

/// A file under another name until it is complete.
struct Replacing {
    file: std::fs::File,
    temporary: PathBuf,
    path: PathBuf,
    done: bool,
}

fn open_file(path: &Path) -> io::Result<Box<dyn FileOutput>> {
    match std::fs::metadata(path) {
        Ok(there) if !there.is_file() => {
            return Ok(Box::new(Plain(std::fs::OpenOptions::new().write(true).open(path)?)));
        }
        _ => {}
    }
    // A link stays one.
    let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_string_lossy().into_owned();
    let temporary = path.with_file_name(format!(".{name}.{:08x}", rand::random::<u32>()));
    let file = std::fs::OpenOptions::new().write(true).create_new(true).open(&temporary)?;
    Ok(Box::new(Replacing { file, temporary, path, done: false }))
}

impl FileOutput for Replacing {
    fn write(&mut self, data: &[u8]) -> io::Result<()> {
        self.file.write_all(data)
    }

    fn finish(mut self: Box<Self>) -> io::Result<()> {
        std::fs::rename(&self.temporary, &self.path)?;
        self.done = true;
        Ok(())
    }
}

impl Drop for Replacing {
    fn drop(&mut self) {
        if !self.done {
            let _ = std::fs::remove_file(&self.temporary);
        }
    }
}

/// The places for results, by the number of the exporter in the request.
#[derive(Clone, Default)]
pub struct Outputs {
    outputs: HashMap<usize, Output>,
}

impl Outputs {
    /// Adds the place for exporter `id`.
    pub fn add(&mut self, id: usize, output: Output) {
        self.outputs.insert(id, output);
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.outputs.is_empty()
    }
}

/// The service, by hand: its one method is declared for bytes, but carries the packets of a tree
/// where the place is a folder.
#[derive(Clone)]
pub(super) struct Service {
    outputs: Arc<Outputs>,
}

impl Service {
    pub(super) fn new(outputs: Outputs) -> Self {
        Self { outputs: Arc::new(outputs) }
    }
}

impl tonic::server::NamedService for Service {
    const NAME: &'static str = "moby.filesync.v1.FileSend";
}

impl tower::Service<http::Request<tonic::body::Body>> for Service {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move {
            if !request.uri().path().ends_with("/DiffCopy") {
                return Ok(Status::unimplemented("").into_http());
            }
            let mut grpc =
                tonic::server::Grpc::new(RawCodec).apply_max_message_size_config(Some(MAX_MESSAGE), None);
            Ok(grpc.streaming(service, request).await)
        })
    }
}

type Answers = Pin<Box<dyn Stream<Item = Result<Packet, Status>> + Send>>;

impl tonic::server::StreamingService<Bytes> for Service {
    type Response = Packet;
    type ResponseStream = Answers;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Answers>, Status>> + Send>>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        let outputs = self.outputs.clone();
        Box::pin(async move {
            let id = request.metadata().get(headers::EXPORTER_ID).and_then(|v| v.to_str().ok()?.parse().ok());
            let id = id.unwrap_or(0usize);
            let whole = request.metadata().get(headers::EXPORTER_MULTI_PLATFORM).is_some_and(|v| v == "1");
            let metadata = description(request.metadata());
            let messages = request.into_inner();
            let (answers, answered) = mpsc::unbounded_channel();
            let task = match outputs.outputs.get(&id).cloned() {
                Some(Output::Dir { delete: true, .. }) if !whole => {
                    return Err(Status::unknown(
                        "local exporter mode=delete requires a BuildKit daemon with multi-platform local export support",
                    ));
                }
                Some(Output::Dir { path, delete }) => tokio::spawn(take_dir(messages, answers, path, delete)),
                Some(Output::File(open)) => {
                    drop(answers);
                    tokio::spawn(take_file(messages, open, metadata))
                }
                None => return Err(Status::unknown(format!("exporter {id} not found"))),
            };
            let end = futures::stream::once(AbortOnDrop(task).failure()).filter_map(|f| async { f.map(Err) });
            let answers: Answers = Box::pin(UnboundedReceiverStream::new(answered).map(Ok).chain(end));
            Ok(Response::new(answers))
        })
    }
}

/// What describes a file.
fn description(metadata: &MetadataMap) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for (key, value) in metadata.as_ref() {
        if let Some(key) = key.as_str().strip_prefix(headers::EXPORTER_METADATA) {
            let all: &mut String = found.entry(key.to_string()).or_default();
            if !all.is_empty() {
                all.push(',');
            }
            all.push_str(&String::from_utf8_lossy(value.as_bytes()));
        }
    }
    found
}

async fn take_dir(
    messages: Streaming<Bytes>,
    answers: mpsc::UnboundedSender<Packet>,
    path: PathBuf,
    delete: bool,
) -> Result<(), SessionError> {
    let failed = SessionError::io(format!("failed to create synctarget dest dir {}", path.display()));
    make_dir(&path).map_err(failed)?;
    let packets = messages.map(|message| {
        Packet::decode(message?).map_err(|err| Status::invalid_argument(format!("not a packet: {err}")))
    });
    // What comes out of a build belongs to whoever asked for it.
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    let options = Receive {
        merge: !delete,
        differ: if delete { Differ::None } else { Differ::Metadata },
        map: Some(Arc::new(move |stat| (stat.uid, stat.gid) = (uid, gid))),
        ..Receive::default()
    };
    receive(packets, answers, &path, options).await.map(drop)
}

fn make_dir(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

async fn take_file(
    mut messages: Streaming<Bytes>,
    open: OpenFile,
    metadata: BTreeMap<String, String>,
) -> Result<(), SessionError> {
    let (sender, mut pieces) = mpsc::channel::<Option<Bytes>>(8);
    let writing = tokio::task::spawn_blocking(move || {
        let failed = || SessionError::io("write result");
        let Some(mut file) = open(metadata).map_err(failed())? else {
            let status = Status::already_exists("target already exists");
            return Err(SessionError::call("write result")(status));
        };
        while let Some(piece) = pieces.blocking_recv() {
            match piece {
                Some(piece) => file.write(&piece).map_err(failed())?,
                None => return file.finish().map_err(failed()),
            }
        }
        Err(SessionError::Canceled)
    });
    loop {
        let message = messages.message().await.map_err(SessionError::call("receive result"))?;
        let piece = match message {
            Some(raw) => Some(
                BytesMessage::decode(raw)
                    .map_err(|err| SessionError::Protocol(format!("not a piece of a file: {err}")))?
                    .data,
            ),
            None => None,
        };
        let end = piece.is_none();
        if sender.send(piece).await.is_err() || end {
            break;
        }
    }
    drop(sender);
    writing.await.map_err(|err| SessionError::Internal(err.to_string()))?
}

/// Messages as they are on the wire.
#[derive(Debug, Clone, Copy, Default)]
struct RawCodec;

impl Codec for RawCodec {
    type Encode = Packet;
    type Decode = Bytes;
    type Encoder = RawCodec;
    type Decoder = RawCodec;

    fn encoder(&mut self) -> Self::Encoder {
        RawCodec
    }

    fn decoder(&mut self) -> Self::Decoder {
        RawCodec
    }
}

impl Encoder for RawCodec {
    type Item = Packet;
    type Error = Status;

    fn encode(&mut self, item: Packet, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        item.encode(buffer).map_err(|err| Status::internal(err.to_string()))
    }
}

impl Decoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}
