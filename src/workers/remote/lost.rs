//! Why a connection to a worker was lost.

use super::tls;
use std::error::Error as StdError;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Without the system's number.
pub(super) fn words(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}

/// Why a connection was lost, once it is.
#[derive(Clone, Debug, Default)]
pub(super) struct Lost(Arc<OnceLock<String>>);

impl Lost {
    /// What the other side had against us, if that is why a call failed.
    pub(super) fn why(&self, error: &(dyn StdError + 'static)) -> Option<String> {
        self.0.get().cloned().or_else(|| tls::plainly(error))
    }

    fn note(&self, error: &io::Error) {
        if let Some(why) = tls::plainly(error) {
            self.0.get_or_init(|| why);
        }
    }
}

/// A stream that notes why it can be read no more: whoever refuses our certificate says so only
/// after the connection seems to stand, and what HTTP/2 makes of that is nothing but an end.
pub(super) struct Noting<S> {
    stream: S,
    lost: Lost,
}

impl<S: AsyncRead + Unpin> Noting<S> {
    pub(super) fn new(stream: S, lost: Lost) -> Self {
        Noting { stream, lost }
    }

    /// What a write came to. One that failed ends only when it is known what the other side said
    /// before it stopped reading: of a connection that is dead, the end can be read.
    fn written<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if !matches!(written, Poll::Ready(Err(_))) {
            return written;
        }
        let mut buffer = [0; 1024];
        match Pin::new(&mut self.stream).poll_read(cx, &mut ReadBuf::new(&mut buffer)) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Err(error)) => self.lost.note(&error),
            Poll::Ready(Ok(())) => {}
        }
        written
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Noting<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, out);
        if let Poll::Ready(Err(error)) = &read {
            self.lost.note(error);
        }
        read
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Noting<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, data);
        self.written(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, data);
        self.written(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let written = Pin::new(&mut self.stream).poll_flush(cx);
        self.written(cx, written)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
