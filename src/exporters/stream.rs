//! Bytes that a thread writes, on their way to a file at the client.

use crate::{ErrorKind, ExportError, session_error};
use bytes::{Bytes, BytesMut};
use crosskit_session::FileWriter;
use std::io::{self, Write};
use tokio::sync::mpsc;

/// Bytes that are sent at once.
const PIECE: usize = 256 << 10;

/// Pieces that may wait for the client; more make the thread wait.
const WAITING: usize = 8;

/// Gathers bytes into pieces and hands them on.
pub struct Pieces {
    gathered: BytesMut,
    out: mpsc::Sender<Bytes>,
}

impl Pieces {
    fn send(&mut self) -> io::Result<()> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let piece = self.gathered.split().freeze();
        self.out.blocking_send(piece).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.gathered.extend_from_slice(bytes);
        if self.gathered.len() >= PIECE {
            self.send()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send()
    }
}

/// Sends to the client what `write` writes. The file is complete only if all went well.
///
/// # Errors
/// What `write` fails with, and a client that doesn't take it.
pub async fn send(
    mut file: FileWriter,
    write: impl FnOnce(&mut Pieces) -> Result<(), ExportError> + Send + 'static,
) -> Result<(), ExportError> {
    let (out, mut pieces) = mpsc::channel(WAITING);
    let writing = tokio::task::spawn_blocking(move || {
        let mut out = Pieces { gathered: BytesMut::with_capacity(PIECE), out };
        write(&mut out)?;
        out.flush().map_err(|_| ExportError::new(ErrorKind::Canceled, "the client takes no more"))
    });
    while let Some(piece) = pieces.recv().await {
        // The thread ends when it finds that nobody takes its pieces any more.
        file.write(piece).await.map_err(session_error)?;
    }
    writing.await.unwrap_or_else(|_| Err(ExportError::new(ErrorKind::Canceled, "context canceled")))?;
    file.finish().await.map_err(session_error)
}
