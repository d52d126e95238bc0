//! HTTP/2 over the one connection of a session: the daemon is its client, the client its server.

use crate::SessionError;
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::body::Body;
use tonic::service::Routes;

/// What one stream may have in flight, in bytes. Whole trees go through one stream.
const STREAM_WINDOW: u32 = 4 << 20;

/// What all streams together may have in flight, in bytes.
const CONNECTION_WINDOW: u32 = 16 << 20;

/// The largest frame taken, in bytes. Fewer frames are fewer copies.
const FRAME: u32 = 256 << 10;

/// What a stream buffers before its writer has to wait, in bytes.
const SEND_BUFFER: usize = 1 << 20;

/// How much all headers of one call may take, in bytes. Patterns of ignore files travel there.
const HEADERS: u32 = 16 << 20;

/// The way to a session's services: a gRPC channel over its one connection. It never dials again;
/// when the connection is gone, every call fails. Cheap to clone.
#[derive(Clone)]
pub struct Channel(SendRequest<Body>);

impl Channel {
    /// Whether the connection is gone.
    pub fn is_closed(&self) -> bool {
        self.0.is_closed()
    }
}

impl tower::Service<http::Request<Body>> for Channel {
    type Response = http::Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

/// A line that can be cut: hyper drives it in a task of its own, which nobody else can end.
struct Cut<T> {
    io: T,
    over: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl<T: AsyncRead + Unpin> AsyncRead for Cut<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.over.as_mut().poll(cx).is_ready() {
            let why = "the session is over";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, why)));
        }
        Pin::new(&mut self.io).poll_read(cx, into)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Cut<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, from)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, from)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

/// The name by which services are asked for inside a tunnel.
pub(crate) fn origin() -> http::Uri {
    http::Uri::from_static("http://localhost")
}

/// Begins to talk as a client over `io`. The future that is returned drives the connection and
/// ends with it; once `over` is cancelled, all that is under way over it fails.
pub(crate) async fn connect<T>(
    io: T,
    over: CancellationToken,
) -> Result<(Channel, impl Future<Output = Result<(), hyper::Error>> + Send + 'static), SessionError>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME)
        .max_send_buf_size(SEND_BUFFER)
        .max_header_list_size(HEADERS)
        .handshake(TokioIo::new(Cut { io, over: Box::pin(over.cancelled_owned()) }))
        .await
        .map_err(|err| SessionError::Registration(format!("HTTP/2 handshake failed: {err}")))?;
    Ok((Channel(sender), connection))
}

/// Serves `routes` over `io` until the connection ends.
pub(crate) async fn serve<T>(io: T, routes: Routes) -> Result<(), SessionError>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let routes = TowerToHyperService::new(routes.prepare());
    hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME)
        .max_send_buf_size(SEND_BUFFER)
        .max_header_list_size(HEADERS)
        .serve_connection(TokioIo::new(io), routes)
        .await
        .map_err(|err| SessionError::Peer { side: "daemon", message: err.to_string() })
}
