//! Blobs in the client's content stores.

use crate::{Session, SessionError, headers};
use bytes::Bytes;
use crosskit_api::MAX_MESSAGE;
use crosskit_api::content::content_client::ContentClient;
use crosskit_api::content::{
    AbortRequest, InfoRequest, ReadContentRequest, UpdateRequest, WriteAction, WriteContentRequest,
    WriteContentResponse,
};
use futures::{Stream, StreamExt};
use std::collections::BTreeMap;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::{Code, Streaming};

/// Bytes that one message of a write carries at most.
const PIECE: usize = 1 << 20;

/// Pieces that may be on their way before the answer to the first has come: enough for a line of
/// 1 Gbit/s and 50 ms.
const IN_FLIGHT: usize = 6;

/// What a store knows of a blob.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BlobInfo {
    /// Its digest.
    pub digest: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// A content store of a client. Cheap to clone.
#[derive(Clone)]
pub struct SessionContent {
    session: Session,
    store: MetadataValue<Ascii>,
    name: String,
}

impl Session {
    /// The client's content store with this id.
    pub fn content(&self, store: &str) -> Result<SessionContent, SessionError> {
        // What gRPC allows in a header, and what clients in Go insist on.
        let plain = store.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        let value = MetadataValue::try_from(store).ok().filter(|_| plain);
        let value = value.ok_or_else(|| {
            SessionError::Invalid(format!(
                "header key {:?} contains value with non-printable ASCII characters: {store:?}",
                headers::STORE_ID
            ))
        })?;
        Ok(SessionContent { session: self.clone(), store: value, name: store.to_string() })
    }
}

impl SessionContent {
    fn client(&self) -> ContentClient<crate::Channel> {
        ContentClient::with_origin(self.session.channel(), self.session.origin())
            .max_decoding_message_size(MAX_MESSAGE)
    }

    fn request<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        request.metadata_mut().insert(headers::STORE_ID, self.store.clone());
        request
    }

    fn failed(&self, doing: &str, what: &str) -> impl FnOnce(tonic::Status) -> SessionError + use<> {
        let (doing, missing) = (format!("{doing} {what} in content store {}", self.name), what.to_string());
        move |status| match status.code() {
            Code::NotFound => SessionError::NotFound(format!("{doing}: {missing}")),
            _ => SessionError::call(doing)(status),
        }
    }

    /// What the store knows of a blob. [`SessionError::NotFound`] if it has none.
    pub async fn info(&self, digest: &str) -> Result<BlobInfo, SessionError> {
        let request = self.request(InfoRequest { digest: digest.to_string() });
        let answer = self.client().info(request).await.map_err(self.failed("look up", digest))?;
        let info = answer.into_inner().info.unwrap_or_default();
        Ok(BlobInfo { digest: info.digest, size: info.size.max(0) as u64, labels: info.labels })
    }

    /// The bytes of a blob from `offset` on. Not verified: whoever keeps them has to check them.
    pub async fn read(
        &self,
        digest: &str,
        offset: u64,
    ) -> Result<impl Stream<Item = Result<Bytes, SessionError>> + Send + Unpin + use<>, SessionError> {
        let request = ReadContentRequest { digest: digest.to_string(), offset: offset as i64, size: 0 };
        let answer = self.client().read(self.request(request)).await.map_err(self.failed("read", digest))?;
        let doing = format!("read {digest} in content store {}", self.name);
        Ok(answer.into_inner().map(move |message| match message {
            Ok(message) => Ok(message.data),
            Err(status) => Err(SessionError::call(doing.clone())(status)),
        }))
    }

    /// A whole small blob. An error if it has more than `limit` bytes.
    pub async fn read_all(&self, digest: &str, limit: usize) -> Result<Vec<u8>, SessionError> {
        let mut pieces = self.read(digest, 0).await?;
        let mut all = Vec::new();
        while let Some(piece) = pieces.next().await {
            let piece = piece?;
            if all.len() + piece.len() > limit {
                return Err(SessionError::Protocol(format!("{digest} has more than {limit} bytes")));
            }
            all.extend_from_slice(&piece);
        }
        Ok(all)
    }

    /// Begins to write a blob. None if the store has it already.
    pub async fn write(&self, digest: &str, size: u64) -> Result<Option<BlobWriter>, SessionError> {
        let name = format!("crosskit-{:016x}-{digest}", rand::random::<u64>());
        let (sender, messages) = mpsc::channel(4);
        let begin = WriteContentRequest {
            action: WriteAction::Stat as i32,
            r#ref: name.clone(),
            total: size as i64,
            expected: digest.to_string(),
            ..WriteContentRequest::default()
        };
        // A new channel has room for the first message.
        let _ = sender.try_send(begin);
        let request = self.request(ReceiverStream::new(messages));
        let mut answers = match self.client().write(request).await {
            Ok(answer) => answer.into_inner(),
            Err(status) if status.code() == Code::AlreadyExists => return Ok(None),
            Err(status) => return Err(self.failed("write", digest)(status)),
        };
        match answers.message().await {
            Ok(_) => {}
            Err(status) if status.code() == Code::AlreadyExists => return Ok(None),
            Err(status) => return Err(self.failed("write", digest)(status)),
        }
        let writer = BlobWriter {
            store: self.clone(),
            name,
            digest: digest.to_string(),
            size,
            offset: 0,
            unanswered: 0,
            sender,
            answers,
        };
        Ok(Some(writer))
    }

    /// Sets labels of a blob.
    pub async fn set_labels(
        &self,
        digest: &str,
        labels: BTreeMap<String, String>,
    ) -> Result<(), SessionError> {
        let paths = labels.keys().map(|key| format!("labels.{key}")).collect();
        let info = crosskit_api::content::Info { digest: digest.to_string(), labels, ..Default::default() };
        let request = UpdateRequest { info: Some(info), update_mask: Some(prost_types::FieldMask { paths }) };
        let answer = self.client().update(self.request(request)).await;
        answer.map(drop).map_err(self.failed("label", digest))
    }
}

/// A blob that is being written. It is there only after [`BlobWriter::commit`].
pub struct BlobWriter {
    store: SessionContent,
    name: String,
    digest: String,
    size: u64,
    offset: u64,
    /// Messages on their way whose answers have not come.
    unanswered: usize,
    sender: mpsc::Sender<WriteContentRequest>,
    answers: Streaming<WriteContentResponse>,
}

impl BlobWriter {
    /// Adds bytes.
    pub async fn write(&mut self, mut data: Bytes) -> Result<(), SessionError> {
        while !data.is_empty() {
            let piece = data.split_to(data.len().min(PIECE));
            let len = piece.len() as u64;
            let message = WriteContentRequest {
                action: WriteAction::Write as i32,
                offset: self.offset as i64,
                data: piece,
                ..self.message()
            };
            self.send(message).await;
            self.offset += len;
            if self.unanswered > IN_FLIGHT {
                self.answer().await?;
            }
        }
        Ok(())
    }

    /// Makes the blob appear. The store checks its size and digest.
    pub async fn commit(mut self) -> Result<(), SessionError> {
        let message = WriteContentRequest {
            action: WriteAction::Commit as i32,
            total: self.size as i64,
            offset: self.offset as i64,
            expected: self.digest.clone(),
            ..self.message()
        };
        match self.finish(message).await {
            Err(err) if err.code() == Some(Code::AlreadyExists) => Ok(()),
            done => done,
        }
    }

    /// Gives it up.
    pub async fn abort(self) -> Result<(), SessionError> {
        drop(self.sender);
        let request = self.store.request(AbortRequest { r#ref: self.name.clone() });
        let answer = self.store.client().abort(request).await;
        answer.map(drop).map_err(self.store.failed("abort", &self.digest))
    }

    fn message(&self) -> WriteContentRequest {
        WriteContentRequest { r#ref: self.name.clone(), ..WriteContentRequest::default() }
    }

    async fn finish(&mut self, message: WriteContentRequest) -> Result<(), SessionError> {
        self.send(message).await;
        while self.unanswered > 0 {
            self.answer().await?;
        }
        Ok(())
    }

    async fn send(&mut self, message: WriteContentRequest) {
        // If the stream is gone, the next answer says why.
        let _ = self.sender.send(message).await;
        self.unanswered += 1;
    }

    async fn answer(&mut self) -> Result<(), SessionError> {
        self.unanswered -= 1;
        match self.answers.message().await {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err(SessionError::Protocol(format!("write {}: the stream ended early", self.digest))),
            Err(status) => Err(self.store.failed("write", &self.digest)(status)),
        }
    }
}
