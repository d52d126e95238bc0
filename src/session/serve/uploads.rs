//! Lending streams that are read once, such as standard input.

use crosskit_api::upload::BytesMessage;
use crosskit_api::upload::upload_server::Upload;
use futures::Stream;
use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncRead, AsyncReadExt};
use tonic::{Request, Response, Status, Streaming};

use crate::headers;

/// Bytes that one message carries at most.
const PIECE: usize = 256 << 10;

/// The uploads of a client. Cheap to clone; uploads can be added while the session runs.
#[derive(Clone, Default)]
pub struct Uploads {
    waiting: Arc<Mutex<HashMap<String, Reader>>>,
}

type Reader = Pin<Box<dyn AsyncRead + Send>>;

impl Uploads {
    /// Adds one. Returns the URL by which a build names it.
    pub fn add(&self, reader: impl AsyncRead + Send + 'static) -> String {
        let id = super::new_id();
        self.locked().insert(id.clone(), Box::pin(reader));
        format!("http://buildkit-session/{id}")
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, HashMap<String, Reader>> {
        self.waiting.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[tonic::async_trait]
impl Upload for Uploads {
    type PullStream = Pin<Box<dyn Stream<Item = Result<BytesMessage, Status>> + Send>>;

    async fn pull(
        &self,
        request: Request<Streaming<BytesMessage>>,
    ) -> Result<Response<Self::PullStream>, Status> {
        let path =
            headers::take(request.metadata(), headers::UPLOAD_PATH).into_iter().next().unwrap_or_default();
        let id = path.rsplit('/').next().unwrap_or_default();
        let Some(reader) = self.locked().remove(id) else {
            return Err(Status::unknown(format!("no http response from session for {id}")));
        };
        let pieces = futures::stream::try_unfold(reader, |mut reader| async move {
            let mut data = vec![0; PIECE];
            let len =
                reader.read(&mut data).await.map_err(|err| Status::unknown(format!("read upload: {err}")))?;
            data.truncate(len);
            Ok((len > 0).then_some((BytesMessage { data }, reader)))
        });
        Ok(Response::new(Box::pin(pieces)))
    }
}
