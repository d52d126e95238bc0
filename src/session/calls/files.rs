//! Receiving the client's folders.

use crate::transfer::{Receive, Received, Select, receive};
use crate::{Session, SessionError, headers};
use crosskit_api::MAX_MESSAGE;
use crosskit_api::filesync::file_sync_client::FileSyncClient;
use std::path::Path;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;

/// The method that sends a folder.
const DIFF_COPY: &str = "/moby.filesync.v1.FileSync/DiffCopy";

/// Which of the client's folders to receive, and how.
#[derive(Clone, Default)]
pub struct SyncDir {
    /// The name under which the client offers it.
    pub name: String,
    /// What of it.
    pub select: Select,
    /// How it is received.
    pub receive: Receive,
}

impl Session {
    /// Makes the folder `destination` equal to what is selected of the client's folder. Only files
    /// that differ are transferred, and none is changed in place: each is replaced as a whole.
    /// After a failure the folder is somewhere in between.
    pub async fn sync_dir(&self, request: SyncDir, destination: &Path) -> Result<Received, SessionError> {
        if !self.supports(DIFF_COPY) {
            return Err(SessionError::NoFolders);
        }
        let (answers, outgoing) = mpsc::unbounded_channel();
        let mut call = tonic::Request::new(UnboundedReceiverStream::new(outgoing));
        let metadata = call.metadata_mut();
        headers::put(metadata, headers::INCLUDE_PATTERNS, &request.select.include);
        headers::put(metadata, headers::EXCLUDE_PATTERNS, &request.select.exclude);
        headers::put(metadata, headers::FOLLOW_PATHS, &request.select.follow);
        headers::put(metadata, headers::DIR_NAME, std::slice::from_ref(&request.name));
        let mut client =
            FileSyncClient::with_origin(self.channel(), self.origin()).max_decoding_message_size(MAX_MESSAGE);
        let doing = format!("transfer {}", request.name);
        let answer = client.diff_copy(call).await.map_err(SessionError::call(doing.clone()))?;
        let mut packets = answer.into_inner();
        let received = receive(&mut packets, answers, destination, request.receive).await?;
        while packets.message().await.map_err(SessionError::call(doing.clone()))?.is_some() {}
        Ok(received)
    }
}
