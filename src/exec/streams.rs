//! What a process reads and writes.

use std::{fmt, pin::Pin};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::mpsc,
};

/// The standard streams of a process, and what reaches it besides.
#[derive(Default)]
pub struct Stdio {
    /// Read by the process; nothing (`/dev/null`) if None.
    pub stdin: Option<Pin<Box<dyn AsyncRead + Send>>>,
    /// What it writes to its standard output. With a terminal, all that it writes.
    pub stdout: Output,
    /// What it writes to its standard error.
    pub stderr: Output,
    /// Gives it a terminal.
    pub terminal: Option<Terminal>,
    /// Signals to pass to it, by number.
    pub signals: Option<mpsc::Receiver<i32>>,
}

impl fmt::Debug for Stdio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stdio")
            .field("stdin", &self.stdin.is_some())
            .field("terminal", &self.terminal.is_some())
            .finish_non_exhaustive()
    }
}

/// Where output goes.
#[derive(Default)]
pub enum Output {
    /// Nowhere.
    #[default]
    Discard,
    /// To this function, a piece at a time, in order. It must not block.
    Call(Box<dyn FnMut(Bytes) + Send>),
    /// Into this writer. A slow one slows the process down.
    Write(Pin<Box<dyn AsyncWrite + Send>>),
}

impl Output {
    /// Into a function.
    pub fn call(function: impl FnMut(Bytes) + Send + 'static) -> Self {
        Self::Call(Box::new(function))
    }

    pub(crate) async fn take(&mut self, piece: Bytes) {
        match self {
            Self::Discard => {}
            Self::Call(function) => function(piece),
            Self::Write(writer) => {
                // Whoever does not want to read any more gets nothing; the process goes on.
                if writer.write_all(&piece).await.is_err() {
                    *self = Self::Discard;
                }
            }
        }
    }
}

impl Output {
    pub(crate) async fn flush(&mut self) {
        if let Self::Write(writer) = self {
            let _ = writer.flush().await;
        }
    }
}

/// A terminal for a process.
#[derive(Debug)]
pub struct Terminal {
    /// Its size at the start.
    pub size: Option<WindowSize>,
    /// Later sizes.
    pub resize: Option<mpsc::Receiver<WindowSize>>,
}

/// Size of a terminal in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowSize {
    /// Lines.
    pub rows: u16,
    /// Columns.
    pub cols: u16,
}

/// Bytes that are read at once: the size of a pipe.
pub(crate) const PIECE: usize = 64 << 10;

/// Bytes that are remembered of the end of an output: more than a runtime says when it fails.
const TAIL: usize = 4 << 10;

/// An output that has been read to its end.
#[derive(Default)]
pub(crate) struct Drained {
    /// Where it went.
    pub(crate) to: Output,
    /// How it ended.
    pub(crate) tail: Vec<u8>,
}

/// Passes on all that can be read, in order, until the end.
pub(crate) async fn pump(mut from: impl AsyncRead + Unpin, mut to: Output) -> Drained {
    let mut buffer = BytesMut::new();
    let mut tail = Vec::new();
    loop {
        buffer.reserve(PIECE);
        match from.read_buf(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(_) => {
                let piece = buffer.split().freeze();
                tail.extend_from_slice(&piece[piece.len().saturating_sub(TAIL)..]);
                tail.drain(..tail.len().saturating_sub(TAIL));
                to.take(piece).await;
            }
        }
    }
    to.flush().await;
    Drained { to, tail }
}

/// Passes on all that is given, as long as somebody takes it.
pub(crate) async fn feed(mut from: Pin<Box<dyn AsyncRead + Send>>, mut to: impl AsyncWrite + Unpin) {
    // Who stops reading closes the pipe; that is its business.
    let _ = tokio::io::copy(&mut from, &mut to).await;
}

/// The next message; never, when there will be none.
pub(crate) async fn next<T>(channel: &mut Option<mpsc::Receiver<T>>) -> Option<T> {
    match channel {
        Some(open) => {
            let message = open.recv().await;
            if message.is_none() {
                *channel = None;
            }
            message
        }
        None => std::future::pending().await,
    }
}
