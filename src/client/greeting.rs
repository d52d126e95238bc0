//! Whoever takes a connection has to say something soon: a port of something else, or a daemon that hangs, is told as such.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// What TLS begins a complaint with (RFC 8446, ContentType), and HTTP/2 no frame that comes first.
const TLS_ALERT: u8 = 21;

/// A stream whose first byte has to come within a limit.
pub(crate) struct Greeted<S> {
    stream: S,
    /// None once something was said.
    limit: Option<Pin<Box<Sleep>>>,
    ended: Arc<OnceLock<String>>,
}

impl Greeted<()> {
    /// Without a limit.
    pub(crate) fn at_leisure() -> Self {
        Greeted { stream: (), limit: None, ended: Arc::default() }
    }

    /// The limit counts from now on.
    pub(crate) fn within(limit: Duration) -> Self {
        Greeted { stream: (), limit: Some(Box::pin(tokio::time::sleep(limit))), ended: Arc::default() }
    }

    /// Who has to keep it.
    pub(crate) fn by<S>(self, stream: S) -> Greeted<S> {
        Greeted { stream, limit: self.limit, ended: self.ended }
    }
}

impl<S> Greeted<S> {
    /// Where it is told why the stream has ended, if not in order.
    pub(crate) fn ended(&self) -> Arc<OnceLock<String>> {
        Arc::clone(&self.ended)
    }

    fn failed(&self, error: &io::Error) {
        // The first one is the cause of others.
        let _ = self.ended.set(error.to_string());
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Greeted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let mut read = Pin::new(&mut self.stream).poll_read(cx, buf);
        match (&read, &mut self.limit) {
            (Poll::Ready(Ok(())), Some(_)) if buf.filled().get(before) == Some(&TLS_ALERT) => {
                let why = "the daemon wants TLS; name certificates with --tlsdir, or --tlscacert, --tlscert and --tlskey";
                read = Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, why)));
            }
            (Poll::Ready(_), _) => self.limit = None,
            (Poll::Pending, Some(limit)) => {
                ready!(limit.as_mut().poll(cx));
                let why = "error reading server preface: context deadline exceeded";
                read = Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, why)));
            }
            _ => {}
        }
        if let Poll::Ready(Err(e)) = &read {
            self.failed(e);
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Greeted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test(start_paused = true)]
    async fn only_the_first_word_has_to_come_soon() {
        let (mut far, near) = tokio::io::duplex(64);
        let mut near = Greeted::within(Duration::from_secs(5)).by(near);
        far.write_all(b"a").await.unwrap();
        assert_eq!(near.read_u8().await.unwrap(), b'a');
        let later = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(60)).await;
            far.write_all(b"b").await.unwrap();
        });
        assert_eq!(near.read_u8().await.unwrap(), b'b');
        later.await.unwrap();
        let (_far, near) = tokio::io::duplex(64);
        let mut near = Greeted::within(Duration::from_secs(5)).by(near);
        assert_eq!(near.read_u8().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn tls_where_none_is_wanted_is_told() {
        let (mut far, near) = tokio::io::duplex(64);
        let mut near = Greeted::within(Duration::from_secs(5)).by(near);
        far.write_all(&[21, 3, 3, 0, 2]).await.unwrap();
        assert!(near.read_u8().await.unwrap_err().to_string().contains("wants TLS"));
        assert!(near.ended().get().unwrap().contains("--tlsdir"));
    }
}
