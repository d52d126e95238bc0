//! Files that a server sends compressed, as it was told that it may.

use super::request::Pieces;
use crate::SourceError;
use bytes::{Buf, Bytes};
use flate2::read::MultiGzDecoder;
use futures::{Stream, StreamExt};
use std::io::{self, Read};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// Pieces that may wait on either side of the work.
const WAITING: usize = 4;

/// Bytes of a piece that comes out.
const PIECE: usize = 64 << 10;

/// The bytes that were compressed. The work is done on a thread of its own, which ends with the stream.
pub(super) fn gunzip(
    url: String,
    mut pieces: impl Stream<Item = Result<Bytes, SourceError>> + Send + Unpin + 'static,
) -> Pieces {
    let (feed, incoming) = mpsc::channel(WAITING);
    let (give, out) = mpsc::channel(WAITING);
    tokio::spawn(async move {
        while let Some(piece) = pieces.next().await {
            if feed.send(piece).await.is_err() {
                return;
            }
        }
    });
    tokio::task::spawn_blocking(move || {
        let mut decoder =
            MultiGzDecoder::new(Incoming { pieces: incoming, piece: Bytes::new(), failed: None });
        loop {
            let mut plain = vec![0; PIECE];
            let told = match decoder.read(&mut plain) {
                Ok(0) => return,
                Ok(read) => {
                    plain.truncate(read);
                    Ok(Bytes::from(plain))
                }
                Err(e) => {
                    let broken = || SourceError::Http { url: url.clone(), reason: format!("gzip: {e}") };
                    Err(decoder.get_mut().failed.take().unwrap_or_else(broken))
                }
            };
            let ends = told.is_err();
            if give.blocking_send(told).is_err() || ends {
                return;
            }
        }
    });
    Box::pin(ReceiverStream::new(out))
}

/// What comes, to be read on a thread that may wait.
struct Incoming {
    pieces: mpsc::Receiver<Result<Bytes, SourceError>>,
    piece: Bytes,
    /// Why there is no more.
    failed: Option<SourceError>,
}

impl Read for Incoming {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.pieces.blocking_recv() {
                Some(Ok(piece)) => self.piece = piece,
                Some(Err(e)) => {
                    let why = io::Error::other(e.to_string());
                    self.failed = Some(e);
                    return Err(why);
                }
                None => return Ok(0),
            }
        }
        let length = into.len().min(self.piece.len());
        self.piece.copy_to_slice(&mut into[..length]);
        Ok(length)
    }
}
