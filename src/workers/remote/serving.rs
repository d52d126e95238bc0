//! The content stores of our session: blobs of inputs for the worker to read, and a place for
//! those of results.

use super::lent::{Blob, INPUTS, Lent};
use super::received;
use crate::ops::snapshot_error;
use bytes::Bytes;
use crosskit_api::content::content_server::Content;
use crosskit_api::content::{
    AbortRequest, DeleteContentRequest, Info, InfoRequest, InfoResponse, ListContentRequest,
    ListContentResponse, ListStatusesRequest, ListStatusesResponse, ReadContentRequest, ReadContentResponse,
    StatusRequest, StatusResponse, UpdateRequest, UpdateResponse, WriteContentRequest, WriteContentResponse,
};
use crosskit_images::{ContentStore, Digest};
use crosskit_session::STORE_ID;
use futures::Stream;
use std::pin::Pin;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

/// What peers put in front of the names of stores that sources read from (BuildKit
/// `client/solve.go`).
const LAYOUT: &str = "oci:";

/// The store that exporters write to (BuildKit `exporter/oci`).
const EXPORT: &str = "export";

/// Bytes of a blob that one message carries.
const PIECE: u64 = 1 << 20;

/// Pieces of a blob that wait to be sent.
const WAITING: usize = 4;

enum Store {
    Inputs,
    Export,
}

fn missing(digest: &str) -> Status {
    Status::not_found(format!("content {digest}: not found"))
}

fn parse(digest: &str) -> Result<Digest, Status> {
    digest.parse().map_err(|_| missing(digest))
}

/// Which store a call is about.
fn choose(metadata: &MetadataMap) -> Result<Store, Status> {
    let named = metadata.get(STORE_ID).and_then(|value| value.to_str().ok());
    match named {
        Some(EXPORT) => Ok(Store::Export),
        Some(id) if id.strip_prefix(LAYOUT) == Some(INPUTS) => Ok(Store::Inputs),
        Some(id) => Err(Status::not_found(format!("unknown store {id}: not found"))),
        None => Err(Status::invalid_argument(format!("request lacks metadata {STORE_ID:?}"))),
    }
}

type Pieces<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Content for Lent {
    type ListStream = Pieces<ListContentResponse>;
    type ReadStream = Pieces<ReadContentResponse>;
    type WriteStream = Pieces<WriteContentResponse>;

    async fn info(&self, request: Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
        let digest = &request.get_ref().digest;
        let parsed = parse(digest)?;
        let size = match choose(request.metadata())? {
            Store::Inputs => self.blob(&parsed).map(|blob| blob.size()),
            Store::Export => self.size_of_received(&parsed),
        };
        let size = size.ok_or_else(|| missing(digest))? as i64;
        let info = Info { digest: digest.clone(), size, ..Info::default() };
        Ok(Response::new(InfoResponse { info: Some(info) }))
    }

    async fn update(&self, request: Request<UpdateRequest>) -> Result<Response<UpdateResponse>, Status> {
        choose(request.metadata())?;
        Err(Status::failed_precondition("labels of these blobs cannot be changed"))
    }

    async fn list(&self, request: Request<ListContentRequest>) -> Result<Response<Self::ListStream>, Status> {
        choose(request.metadata())?;
        Ok(Response::new(Box::pin(futures::stream::empty())))
    }

    async fn delete(&self, request: Request<DeleteContentRequest>) -> Result<Response<()>, Status> {
        choose(request.metadata())?;
        Err(Status::permission_denied("blobs cannot be deleted through a session"))
    }

    async fn read(&self, request: Request<ReadContentRequest>) -> Result<Response<Self::ReadStream>, Status> {
        let Store::Inputs = choose(request.metadata())? else {
            return Err(Status::permission_denied("results are only written"));
        };
        let ReadContentRequest { digest, offset, size } = request.into_inner();
        let blob = self.blob(&parse(&digest)?).ok_or_else(|| missing(&digest))?;
        let digest = parse(&digest)?;
        let total = blob.size();
        let offset = u64::try_from(offset).unwrap_or(0);
        if offset > total {
            return Err(Status::out_of_range(format!("read past object length {total} bytes")));
        }
        let size = u64::try_from(size).ok().filter(|size| *size > 0).unwrap_or(u64::MAX).min(total - offset);
        self.goes(size);
        match blob {
            Blob::Document(bytes) => {
                let data = bytes.slice(offset as usize..(offset + size) as usize);
                let piece = ReadContentResponse { offset: offset as i64, data };
                Ok(Response::new(Box::pin(futures::stream::iter([Ok(piece)]))))
            }
            Blob::Layer(layer) => {
                if let Err(error) = layer.fetch().await {
                    let error = snapshot_error(error);
                    let status = Status::unavailable(format!("content {digest}: {error}"));
                    self.failed(error);
                    return Err(status);
                }
                Ok(Response::new(Box::pin(file_pieces(self.content().clone(), digest, offset, size))))
            }
        }
    }

    async fn status(&self, request: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        choose(request.metadata())?;
        // A write that breaks off leaves nothing behind to be continued.
        Err(Status::not_found(format!("status {:?}: not found", request.get_ref().r#ref)))
    }

    async fn list_statuses(
        &self,
        request: Request<ListStatusesRequest>,
    ) -> Result<Response<ListStatusesResponse>, Status> {
        choose(request.metadata())?;
        Ok(Response::new(ListStatusesResponse::default()))
    }

    async fn write(
        &self,
        request: Request<Streaming<WriteContentRequest>>,
    ) -> Result<Response<Self::WriteStream>, Status> {
        match choose(request.metadata())? {
            Store::Export => Ok(Response::new(received::receive(self.clone(), request.into_inner()))),
            Store::Inputs => Err(Status::permission_denied("inputs can only be read")),
        }
    }

    async fn abort(&self, request: Request<AbortRequest>) -> Result<Response<()>, Status> {
        choose(request.metadata())?;
        Ok(Response::new(()))
    }
}

/// A part of a blob in the content store.
fn file_pieces(
    content: ContentStore,
    digest: Digest,
    offset: u64,
    size: u64,
) -> impl Stream<Item = Result<ReadContentResponse, Status>> {
    let (out, pieces) = mpsc::channel(WAITING);
    tokio::task::spawn_blocking(move || {
        let read = || -> Result<(), Status> {
            let reader = content.reader(&digest).map_err(|e| Status::unavailable(e.to_string()))?;
            let end = offset + size;
            let mut at = offset;
            while at < end {
                let mut data = vec![0; (end - at).min(PIECE) as usize];
                let got = reader
                    .read_at(&mut data, at)
                    .map_err(|e| Status::unavailable(format!("content {digest}: {e}")))?;
                if got == 0 {
                    return Err(Status::data_loss(format!("content {digest} is shorter than its size")));
                }
                data.truncate(got);
                let piece = ReadContentResponse { offset: at as i64, data: Bytes::from(data) };
                at += got as u64;
                if out.blocking_send(Ok(piece)).is_err() {
                    // The worker wants no more of it.
                    return Ok(());
                }
            }
            Ok(())
        };
        if let Err(status) = read() {
            let _ = out.blocking_send(Err(status));
        }
    });
    ReceiverStream::new(pieces)
}
