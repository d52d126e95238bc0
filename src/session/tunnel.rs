//! A byte stream made of the messages of a gRPC stream.

use bytes::{Buf, Bytes, BytesMut};
use crosskit_api::control::BytesMessage;
use futures::{Stream, StreamExt, ready};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::PollSender;

/// The largest message that is made of written bytes. Every peer takes 4 MiB.
const LARGEST: usize = 256 << 10;

/// How many written messages may wait for the transport.
const WAITING: usize = 8;

/// One end of a tunnel: reads what comes in as messages, and writes as messages.
pub struct Tunnel<S> {
    incoming: S,
    unread: Bytes,
    outgoing: PollSender<BytesMessage>,
}

/// Makes a byte stream of the messages in `incoming`; what is written to it comes out of the
/// stream that is returned, which ends when the byte stream is shut down or dropped.
pub fn tunnel<S>(incoming: S) -> (Tunnel<S>, ReceiverStream<BytesMessage>)
where
    S: Stream<Item = Result<BytesMessage, tonic::Status>> + Unpin,
{
    let (sender, receiver) = mpsc::channel(WAITING);
    let tunnel = Tunnel { incoming, unread: Bytes::new(), outgoing: PollSender::new(sender) };
    (tunnel, ReceiverStream::new(receiver))
}

/// The messages of a stream that does not exist yet.
pub(crate) type Messages = Pin<Box<dyn Stream<Item = Result<BytesMessage, tonic::Status>> + Send>>;

/// A stream whose source is given later. It ends if none is given.
pub(crate) fn later() -> (Messages, oneshot::Sender<Messages>) {
    let (sender, receiver) = oneshot::channel::<Messages>();
    let stream = futures::stream::once(receiver).filter_map(|source| async { source.ok() }).flatten();
    (Box::pin(stream), sender)
}

impl<S> AsyncRead for Tunnel<S>
where
    S: Stream<Item = Result<BytesMessage, tonic::Status>> + Unpin,
{
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.unread.is_empty() {
            match ready!(Pin::new(&mut self.incoming).poll_next(cx)) {
                Some(Ok(message)) => self.unread = message.data,
                Some(Err(status)) => {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionReset, status)));
                }
                None => return Poll::Ready(Ok(())),
            }
        }
        let len = self.unread.len().min(buf.remaining());
        buf.put_slice(&self.unread[..len]);
        self.unread.advance(len);
        Poll::Ready(Ok(()))
    }
}

impl<S: Unpin> Tunnel<S> {
    fn poll_send(&mut self, cx: &mut Context<'_>, data: impl FnOnce() -> Bytes) -> Poll<io::Result<usize>> {
        let closed = || io::Error::new(io::ErrorKind::BrokenPipe, "the session's stream is closed");
        ready!(self.outgoing.poll_reserve(cx)).map_err(|_| closed())?;
        let data = data();
        let len = data.len();
        self.outgoing.send_item(BytesMessage { data }).map_err(|_| closed())?;
        Poll::Ready(Ok(len))
    }
}

impl<S: Unpin> AsyncWrite for Tunnel<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.poll_send(cx, || Bytes::copy_from_slice(&buf[..buf.len().min(LARGEST)]))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let total = bufs.iter().map(|b| b.len()).sum::<usize>().min(LARGEST);
        if total == 0 {
            return Poll::Ready(Ok(0));
        }
        self.poll_send(cx, || {
            let mut data = BytesMut::with_capacity(total);
            for buf in bufs {
                let len = buf.len().min(total - data.len());
                data.extend_from_slice(&buf[..len]);
            }
            data.freeze()
        })
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.outgoing.close();
        Poll::Ready(Ok(()))
    }
}
