//! The way out: connections to servers, and whom they are trusted by.

use futures::future::{BoxFuture, FutureExt};
use http::Uri;
use hyper::rt::{Executor, ReadBufCursor};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service;

/// How long a connection, and a handshake, may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(30);
/// How long an unused connection is kept.
const IDLE: Duration = Duration::from_secs(30);
/// Unused connections that are kept to one server.
const IDLE_PER_HOST: usize = 8;

/// Connects to servers, from wherever a step's requests leave.
pub trait Dial: Send + Sync + 'static {
    /// A connection to a host by name or address.
    fn dial(&self, host: String, port: u16) -> BoxFuture<'static, io::Result<TcpStream>>;
}

/// The authorities that this machine trusts, read when they are first needed. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Trust(Arc<OnceCell<Arc<ClientConfig>>>);

impl Trust {
    #[cfg(test)]
    pub(crate) fn set(&self, config: ClientConfig) {
        self.0.set(Arc::new(config)).expect("nothing was read yet");
    }

    async fn config(&self) -> io::Result<Arc<ClientConfig>> {
        let read = || async {
            tokio::task::spawn_blocking(read_roots).await.map_err(io::Error::other)?.map(Arc::new)
        };
        self.0.get_or_try_init(read).await.cloned()
    }
}

fn read_roots() -> io::Result<ClientConfig> {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "reading the certificate authorities of this machine");
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let lacking = "this machine trusts no certificate authority; install its ca-certificates";
        return Err(io::Error::other(lacking));
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// Where a step's requests leave.
#[derive(Clone)]
pub struct Outside {
    /// Who connects.
    pub dial: Arc<dyn Dial>,
    /// Who vouches for servers.
    pub trust: Trust,
}

impl fmt::Debug for Outside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outside").finish_non_exhaustive()
    }
}

/// What sends requests out.
pub(crate) type Sender = Client<Connector, hyper::body::Incoming>;

/// What sends requests out for a step whose work this is.
pub(crate) fn sender(outside: Outside, work: Work) -> Sender {
    Client::builder(work)
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(IDLE_PER_HOST)
        .build(Connector(outside))
}

/// Everything that runs for one step; it ends with the step.
#[derive(Clone, Debug, Default)]
pub(crate) struct Work {
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
}

impl Work {
    /// Runs something until it is done or the step is over.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = task => {}
            }
        });
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Work {
    fn execute(&self, task: F) {
        self.spawn(task);
    }
}

/// Connects to the servers of addresses.
#[derive(Clone)]
pub(crate) struct Connector(Outside);

impl Service<Uri> for Connector {
    type Response = Wire;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Wire>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        connect(self.0.clone(), to).boxed()
    }
}

async fn connect(outside: Outside, to: Uri) -> io::Result<Wire> {
    let secure = to.scheme_str() == Some("https");
    // An address of version 6 is in brackets.
    let host = to.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let port = to.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let late = |doing: &str| {
        let text = format!("{doing} {host}:{port}: no answer within {} seconds", CONNECT_WITHIN.as_secs());
        io::Error::new(io::ErrorKind::TimedOut, text)
    };
    let failed = |doing: &str, e: io::Error| io::Error::new(e.kind(), format!("{doing} {host}:{port}: {e}"));
    let doing = "connecting to";
    let dialled = timeout(CONNECT_WITHIN, outside.dial.dial(host.clone(), port)).await;
    let stream = dialled.map_err(|_| late(doing))?.map_err(|e| failed(doing, e))?;
    let _ = stream.set_nodelay(true);
    if !secure {
        return Ok(Wire { io: TokioIo::new(Box::new(stream)), is_h2: false });
    }
    let doing = "opening a TLS connection to";
    let config = outside.trust.config().await.map_err(|e| failed(doing, e))?;
    let name =
        ServerName::try_from(host.clone()).map_err(|e| failed(doing, io::Error::other(e.to_string())))?;
    let shaking = timeout(CONNECT_WITHIN, TlsConnector::from(config).connect(name, stream)).await;
    let stream = shaking.map_err(|_| late(doing))?.map_err(|e| failed(doing, e))?;
    let is_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    Ok(Wire { io: TokioIo::new(Box::new(stream)), is_h2 })
}

trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A connection to a server.
pub(crate) struct Wire {
    io: TokioIo<Box<dyn Duplex>>,
    is_h2: bool,
}

impl Connection for Wire {
    fn connected(&self) -> Connected {
        if self.is_h2 { Connected::new().negotiated_h2() } else { Connected::new() }
    }
}

impl hyper::rt::Read for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        hyper::rt::Read::poll_read(Pin::new(&mut self.io), cx, buffer)
    }
}

impl hyper::rt::Write for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
