//! Pulling what a client uploads, such as a context on its standard input.

use crate::{Session, SessionError, headers};
use bytes::Bytes;
use crosskit_api::MAX_MESSAGE;
use crosskit_api::upload::upload_client::UploadClient;
use futures::{Stream, StreamExt};
use tonic::metadata::MetadataValue;

impl Session {
    /// Pulls the upload that the client calls `http://HOST/PATH`. It can be pulled once.
    pub async fn pull_upload(
        &self,
        host: &str,
        path: &str,
    ) -> Result<impl Stream<Item = Result<Bytes, SessionError>> + Send + Unpin + use<>, SessionError> {
        let doing = format!("pull http://{host}{path}");
        // The client sends; there is nothing to tell it but the name.
        let mut call = tonic::Request::new(futures::stream::pending());
        for (key, value) in [(headers::UPLOAD_PATH, path), (headers::UPLOAD_HOST, host)] {
            let value = MetadataValue::try_from(value)
                .map_err(|_| SessionError::Invalid(format!("{doing}: not a plain name")))?;
            call.metadata_mut().insert(key, value);
        }
        let mut client =
            UploadClient::with_origin(self.channel(), self.origin()).max_decoding_message_size(MAX_MESSAGE);
        let answer = client.pull(call).await.map_err(SessionError::call(doing.clone()))?.into_inner();
        Ok(answer.map(move |message| match message {
            Ok(message) => Ok(Bytes::from(message.data)),
            Err(status) => Err(SessionError::call(doing.clone())(status)),
        }))
    }
}
