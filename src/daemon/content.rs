//! containerd's content service over the daemon's own blobs: clients read results and logs of
//! past builds through it. Clients can't change anything.

use crosskit_api::content::{self as api, content_server::Content};
use crosskit_images::{ContentStore, Digest};
use futures::stream::{BoxStream, StreamExt};
use std::sync::Arc;
use tonic::{Request, Response, Status, Streaming};

/// Bytes of one message of a read.
const PIECE: usize = 1 << 20;

/// Blobs of one message of a listing.
const LISTED: usize = 100;

/// The content service.
pub struct Service(pub ContentStore);

fn readonly() -> Status {
    Status::unimplemented("the daemon's content store is read-only for clients")
}

fn digest(text: &str) -> Result<Digest, Status> {
    text.parse().map_err(|e: crosskit_images::Error| Status::invalid_argument(e.to_string()))
}

fn failed(error: crosskit_images::Error) -> Status {
    match error.is_not_found() {
        true => Status::not_found(error.to_string()),
        false => Status::unknown(error.to_string()),
    }
}

impl Service {
    fn info_of(&self, digest: &Digest, size: u64) -> api::Info {
        let made = std::fs::metadata(self.0.path(digest)).and_then(|m| m.modified()).ok();
        api::Info {
            digest: digest.to_string(),
            size: i64::try_from(size).unwrap_or(i64::MAX),
            created_at: made.map(Into::into),
            updated_at: made.map(Into::into),
            labels: Default::default(),
        }
    }
}

type Stream<T> = BoxStream<'static, Result<T, Status>>;

#[tonic::async_trait]
impl Content for Service {
    async fn info(&self, request: Request<api::InfoRequest>) -> Result<Response<api::InfoResponse>, Status> {
        let digest = digest(&request.into_inner().digest)?;
        let size = self.0.size(&digest).map_err(failed)?;
        Ok(Response::new(api::InfoResponse { info: Some(self.info_of(&digest, size)) }))
    }

    async fn update(
        &self,
        _request: Request<api::UpdateRequest>,
    ) -> Result<Response<api::UpdateResponse>, Status> {
        Err(readonly())
    }

    type ListStream = Stream<api::ListContentResponse>;

    async fn list(
        &self,
        request: Request<api::ListContentRequest>,
    ) -> Result<Response<Self::ListStream>, Status> {
        if !request.into_inner().filters.is_empty() {
            return Err(Status::unimplemented("filters on content are not available; list all and choose"));
        }
        let content = self.0.clone();
        let all = tokio::task::spawn_blocking(move || content.list())
            .await
            .map_err(|e| Status::internal(e.to_string()))?
            .map_err(failed)?;
        let messages: Vec<_> = all
            .chunks(LISTED)
            .map(|some| {
                let info = some.iter().map(|(digest, size)| self.info_of(digest, *size)).collect();
                Ok(api::ListContentResponse { info })
            })
            .collect();
        Ok(Response::new(futures::stream::iter(messages).boxed()))
    }

    async fn delete(&self, _request: Request<api::DeleteContentRequest>) -> Result<Response<()>, Status> {
        Err(readonly())
    }

    type ReadStream = Stream<api::ReadContentResponse>;

    async fn read(
        &self,
        request: Request<api::ReadContentRequest>,
    ) -> Result<Response<Self::ReadStream>, Status> {
        let request = request.into_inner();
        let reader = Arc::new(self.0.reader(&digest(&request.digest)?).map_err(failed)?);
        let invalid = |_| Status::invalid_argument("a negative offset or size");
        let offset = u64::try_from(request.offset).map_err(invalid)?;
        let end = match u64::try_from(request.size).map_err(invalid)? {
            0 => reader.size(),
            size => reader.size().min(offset.saturating_add(size)),
        };
        let pieces = futures::stream::try_unfold(offset, move |offset| {
            let reader = Arc::clone(&reader);
            async move {
                if offset >= end {
                    return Ok(None);
                }
                let read = tokio::task::spawn_blocking(move || {
                    let wanted = usize::try_from(end - offset).unwrap_or(PIECE).min(PIECE);
                    let mut piece = vec![0; wanted];
                    let got = reader.read_at(&mut piece, offset)?;
                    piece.truncate(got);
                    Ok::<_, std::io::Error>(piece)
                });
                let piece = read
                    .await
                    .map_err(|e| Status::internal(e.to_string()))?
                    .map_err(|e| Status::unknown(e.to_string()))?;
                if piece.is_empty() {
                    return Ok(None);
                }
                let next = offset + piece.len() as u64;
                let offset = i64::try_from(offset).unwrap_or(i64::MAX);
                Ok(Some((api::ReadContentResponse { offset, data: piece.into() }, next)))
            }
        });
        Ok(Response::new(pieces.boxed()))
    }

    async fn status(
        &self,
        _request: Request<api::StatusRequest>,
    ) -> Result<Response<api::StatusResponse>, Status> {
        Err(Status::not_found("no write is under way"))
    }

    async fn list_statuses(
        &self,
        _request: Request<api::ListStatusesRequest>,
    ) -> Result<Response<api::ListStatusesResponse>, Status> {
        Ok(Response::new(api::ListStatusesResponse::default()))
    }

    type WriteStream = Stream<api::WriteContentResponse>;

    async fn write(
        &self,
        _request: Request<Streaming<api::WriteContentRequest>>,
    ) -> Result<Response<Self::WriteStream>, Status> {
        Err(readonly())
    }

    async fn abort(&self, _request: Request<api::AbortRequest>) -> Result<Response<()>, Status> {
        Err(readonly())
    }
}
