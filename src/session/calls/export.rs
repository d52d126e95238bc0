//! Sending results to the client.

use crate::transfer::{Batch, Progress, Tree, send};
use crate::{Session, SessionError, headers};
use bytes::Bytes;
use crosskit_api::MAX_MESSAGE;
use crosskit_api::filesync::BytesMessage;
use crosskit_api::filesync::file_send_client::FileSendClient;
use crosskit_api::fsutil::Packet;
use futures::StreamExt;
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use tokio::io::AsyncWrite;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::PollSender;
use tonic::metadata::{Ascii, MetadataKey, MetadataMap, MetadataValue};

/// The method that takes a result.
const DIFF_COPY: &str = "/moby.filesync.v1.FileSend/DiffCopy";

/// Batches of packets that may wait for the line.
const WAITING: usize = 8;

/// Bytes that one message of a file carries at most.
const PIECE: usize = 1 << 20;

impl Session {
    /// Sends `tree` to the client's output `exporter`, a folder. `whole` says that this is
    /// everything that the output gets, so that the client may delete what is not in it.
    pub async fn send_dir(
        &self,
        tree: Arc<dyn Tree>,
        exporter: usize,
        whole: bool,
        progress: Option<Progress>,
    ) -> Result<(), SessionError> {
        self.require(DIFF_COPY)?;
        let (out, batches) = mpsc::channel::<Batch>(WAITING);
        let outgoing = ReceiverStream::new(batches).flat_map(futures::stream::iter);
        let mut call = tonic::Request::new(outgoing);
        call.metadata_mut().insert(headers::EXPORTER_ID, MetadataValue::from(exporter as u64));
        if whole {
            call.metadata_mut().insert(headers::EXPORTER_MULTI_PLATFORM, MetadataValue::from_static("1"));
        }
        // The method is declared for bytes; a folder's packets are what really goes through it.
        let mut client = tonic::client::Grpc::with_origin(self.channel(), self.origin())
            .max_decoding_message_size(MAX_MESSAGE);
        let failed = SessionError::call("send files to the client");
        let ready = client.ready().await;
        ready.map_err(|err| SessionError::Peer { side: "client", message: err.to_string() })?;
        let codec = tonic_prost::ProstCodec::<Packet, Packet>::default();
        let path = http::uri::PathAndQuery::from_static(DIFF_COPY);
        // The client may answer only once it has seen the first packet.
        let answer = client.streaming(call, path, codec);
        let packets = Box::pin(futures::stream::once(answer).flat_map(|answer| match answer {
            Ok(answer) => answer.into_inner().left_stream(),
            Err(status) => futures::stream::once(async { Err(status) }).right_stream(),
        }));
        let mut packets = packets;
        send(tree, &mut packets, out, progress).await?;
        // Our end is closed; the client confirms by closing its own.
        match packets.next().await {
            Some(Err(status)) => Err(failed(status)),
            _ => Ok(()),
        }
    }

    /// Begins a file at the client's output `exporter`. `metadata` describes it to the client.
    pub async fn send_file(
        &self,
        exporter: usize,
        metadata: &BTreeMap<String, String>,
    ) -> Result<FileWriter, SessionError> {
        self.require(DIFF_COPY)?;
        let (sender, messages) = mpsc::channel::<BytesMessage>(WAITING);
        // A stream that just ended would look like a complete file; one that never does is reset.
        let complete = Arc::new(AtomicBool::new(false));
        let end = complete.clone();
        let end = futures::stream::poll_fn(move |_| match end.load(Ordering::Acquire) {
            true => Poll::Ready(None),
            false => Poll::Pending,
        });
        let mut call = tonic::Request::new(ReceiverStream::new(messages).chain(end));
        describe(call.metadata_mut(), metadata)?;
        call.metadata_mut().insert(headers::EXPORTER_ID, MetadataValue::from(exporter as u64));
        let mut client = FileSendClient::with_origin(self.channel(), self.origin());
        let answer = tokio::spawn(async move {
            let mut answer = client.diff_copy(call).await?.into_inner();
            while answer.message().await?.is_some() {}
            Ok(())
        });
        Ok(FileWriter { sender: PollSender::new(sender), answer: Some(answer), complete })
    }
}

fn describe(headers: &mut MetadataMap, metadata: &BTreeMap<String, String>) -> Result<(), SessionError> {
    for (key, value) in metadata {
        let name = format!("{}{key}", headers::EXPORTER_METADATA).to_lowercase();
        let key = MetadataKey::<Ascii>::from_bytes(name.as_bytes());
        let value = MetadataValue::<Ascii>::try_from(value.as_str());
        let (Ok(key), Ok(value)) = (key, value) else {
            return Err(SessionError::Invalid(format!("{name} cannot be sent to the client as a header")));
        };
        headers.insert(key, value);
    }
    Ok(())
}

/// A file that is being written at the client. It is complete only after [`FileWriter::finish`];
/// dropping it before breaks the transfer off.
pub struct FileWriter {
    sender: PollSender<BytesMessage>,
    answer: Option<tokio::task::JoinHandle<Result<(), tonic::Status>>>,
    complete: Arc<AtomicBool>,
}

impl FileWriter {
    /// Adds bytes.
    pub async fn write(&mut self, mut data: Bytes) -> Result<(), SessionError> {
        while !data.is_empty() {
            let piece = data.split_to(data.len().min(PIECE));
            let reserved = std::future::poll_fn(|cx| self.sender.poll_reserve(cx)).await;
            if reserved.is_err() || self.sender.send_item(BytesMessage { data: piece }).is_err() {
                return Err(self.reason().await);
            }
        }
        Ok(())
    }

    /// Waits until the client has everything.
    pub async fn finish(mut self) -> Result<(), SessionError> {
        self.complete.store(true, Ordering::Release);
        self.sender.close();
        match self.answer().await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(err)) | Err(err) => Err(err),
        }
    }

    /// What the client said in the end. The outer error is ours.
    async fn answer(&mut self) -> Result<Result<(), SessionError>, SessionError> {
        let Some(answer) = &mut self.answer else {
            return Err(SessionError::Canceled);
        };
        let result = answer.await;
        self.answer = None;
        match result {
            Ok(result) => Ok(result.map_err(SessionError::call("send file to the client"))),
            Err(err) => Err(SessionError::Internal(err.to_string())),
        }
    }

    /// Why the client takes no more.
    async fn reason(&mut self) -> SessionError {
        match self.answer().await {
            Ok(Ok(())) => SessionError::Peer { side: "client", message: "it closed the file early".into() },
            Ok(Err(err)) | Err(err) => err,
        }
    }
}

impl Drop for FileWriter {
    fn drop(&mut self) {
        if let Some(answer) = &self.answer {
            answer.abort();
        }
    }
}

impl AsyncWrite for FileWriter {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let closed = || std::io::Error::new(std::io::ErrorKind::BrokenPipe, "the client closed the file");
        ready!(self.sender.poll_reserve(cx)).map_err(|_| closed())?;
        let len = buf.len().min(PIECE);
        let data = Bytes::copy_from_slice(&buf[..len]);
        self.sender.send_item(BytesMessage { data }).map_err(|_| closed())?;
        Poll::Ready(Ok(len))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
