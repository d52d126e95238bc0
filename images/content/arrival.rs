//! Blobs that arrive in pieces from somebody else.

use bytes::Bytes;
use futures::{Stream, StreamExt};
use std::io::Write;
use tokio::sync::mpsc;

use super::ContentStore;
use crate::digest::Digest;
use crate::errors::Error;

/// Pieces of a blob that wait to be written.
const WAITING: usize = 16;

/// Why a blob did not arrive.
#[derive(Debug)]
pub enum NotArrived<E> {
    /// Whoever sends it failed.
    Sender(E),
    /// What came is not the blob, or it could not be kept.
    Store(Error),
}

impl ContentStore {
    /// Takes in a blob in the pieces in which it comes, checked. `told` hears how many bytes are here.
    pub async fn arrive<E>(
        &self,
        digest: Digest,
        size: Option<u64>,
        mut pieces: impl Stream<Item = Result<Bytes, E>> + Unpin,
        mut told: impl FnMut(u64),
    ) -> Result<(), NotArrived<E>> {
        let mut ingest = self.off_runtime(|store| store.ingest()).await.map_err(NotArrived::Store)?;
        let (sender, mut waiting) = mpsc::channel::<Bytes>(WAITING);
        let writing = self.off_runtime(move |_| {
            while let Some(piece) = waiting.blocking_recv() {
                ingest.write_all(&piece).map_err(|e| Error::io("write blob", e))?;
            }
            Ok(ingest)
        });
        let sending = async move {
            let mut here = 0;
            while let Some(piece) = pieces.next().await {
                let piece = piece?;
                here += piece.len() as u64;
                // Somebody who sends too much is not listened to; a writer that is gone says why.
                if size.is_some_and(|size| here > size) || sender.send(piece).await.is_err() {
                    break;
                }
                told(here);
            }
            Ok(())
        };
        let (sent, written) = futures::join!(sending, writing);
        sent.map_err(NotArrived::Sender)?;
        let ingest = written.map_err(NotArrived::Store)?;
        let committed = self.off_runtime(move |_| ingest.commit_expecting(&digest, size)).await;
        committed.map_err(NotArrived::Store)
    }
}
