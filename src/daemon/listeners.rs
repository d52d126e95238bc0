//! Where clients reach the daemon: unix sockets, TCP with or without TLS, and sockets that
//! systemd hands over.

use crate::config::{Config, Tls};
use std::io::{self, ErrorKind};
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

/// Connections that wait for the server to take them; more are left to the kernel's queue.
const WAITING_CONNECTIONS: usize = 64;

/// How long a TLS handshake may take. A client that says nothing must not hold a place.
const HANDSHAKE: std::time::Duration = std::time::Duration::from_secs(10);

/// How long a client that is refused may take to hear of it.
const PARTING: std::time::Duration = std::time::Duration::from_secs(1);

/// The first descriptor that systemd hands over (sd_listen_fds(3)).
const FIRST_ACTIVATED: i32 = 3;

/// Why an address can't be listened at.
#[derive(Debug, thiserror::Error)]
#[error("listening at {address}: {why}")]
pub struct ListenError {
    /// The address as it was given.
    pub address: String,
    /// What went wrong, and what to do.
    pub why: String,
}

/// Sockets that clients connect to. Unix sockets are removed again when this is dropped.
pub struct Listeners {
    bound: Vec<Bound>,
    sockets: Vec<PathBuf>,
    addresses: Vec<String>,
}

enum Bound {
    Unix(UnixListener),
    Tcp(TcpListener, Option<TlsAcceptor>),
}

impl Listeners {
    /// Binds every address of the config. Nothing is served before [`Listeners::accept`].
    ///
    /// # Errors
    /// The first address that can't be bound, with the reason.
    pub fn bind(config: &Config) -> Result<Self, ListenError> {
        let mut activated = None;
        let mut listeners = Listeners { bound: Vec::new(), sockets: Vec::new(), addresses: Vec::new() };
        for address in &config.addresses {
            let failed = |why: String| ListenError { address: address.clone(), why };
            match address.split_once("://") {
                Some(("unix", path)) => {
                    listeners
                        .bound
                        .push(Bound::Unix(unix(Path::new(path), config).map_err(|e| failed(e.to_string()))?));
                    listeners.sockets.push(PathBuf::from(path));
                    listeners.addresses.push(address.clone());
                }
                Some(("tcp", place)) => {
                    let acceptor = tls(&config.tls).map_err(failed)?;
                    let listener = tcp(place).map_err(|e| failed(e.to_string()))?;
                    if let Ok(bound) = listener.local_addr() {
                        listeners.addresses.push(format!("tcp://{bound}"));
                    }
                    listeners.bound.push(Bound::Tcp(listener, acceptor));
                }
                Some(("fd", name)) => {
                    let acceptor = tls(&config.tls).map_err(failed)?;
                    let activated = match &mut activated {
                        Some(known) => known,
                        none => none.insert(Activated::take().map_err(failed)?),
                    };
                    for socket in activated.called(name).map_err(failed)? {
                        listeners
                            .bound
                            .push(handed_over(socket, acceptor.as_ref()).map_err(|e| failed(e.to_string()))?);
                    }
                    listeners.addresses.push(address.clone());
                }
                _ => {
                    return Err(failed(
                        "unknown kind of address; use unix://PATH, tcp://HOST:PORT, fd:// or fd://NAME"
                            .to_string(),
                    ));
                }
            }
        }
        Ok(listeners)
    }

    /// The addresses, with the ports that were really taken.
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// Whether anybody who reaches some port may use the daemon.
    pub fn is_open_to_all(&self) -> bool {
        self.bound.iter().any(|bound| matches!(bound, Bound::Tcp(_, None)))
    }

    /// Takes connections in tasks of their own, until the receiver is dropped. The sender takes
    /// connections that come from elsewhere, such as from this process itself.
    pub fn accept(
        &mut self,
    ) -> (mpsc::Sender<io::Result<Connection>>, mpsc::Receiver<io::Result<Connection>>) {
        let (send, receive) = mpsc::channel(WAITING_CONNECTIONS);
        for bound in self.bound.drain(..) {
            tokio::spawn(accept(bound, send.clone()));
        }
        (send, receive)
    }
}

impl Drop for Listeners {
    fn drop(&mut self) {
        for socket in &self.sockets {
            if let Err(e) = std::fs::remove_file(socket)
                && e.kind() != ErrorKind::NotFound
            {
                tracing::warn!("removing {}: {e}", socket.display());
            }
        }
    }
}

async fn accept(bound: Bound, send: mpsc::Sender<io::Result<Connection>>) {
    loop {
        let taken = tokio::select! {
            () = send.closed() => return,
            taken = async {
                match &bound {
                    Bound::Unix(listener) => listener.accept().await.map(|(s, _)| Connection::Unix(s)),
                    Bound::Tcp(listener, _) => listener.accept().await.map(|(s, _)| Connection::Tcp(s)),
                }
            } => taken,
        };
        match (taken, &bound) {
            (Ok(Connection::Tcp(stream)), Bound::Tcp(_, Some(acceptor))) => {
                let (acceptor, send) = (acceptor.clone(), send.clone());
                tokio::spawn(async move {
                    match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream).into_fallible()).await {
                        Ok(Ok(stream)) => drop(send.send(Ok(Connection::Tls(Box::new(stream)))).await),
                        Ok(Err((e, stream))) => {
                            tracing::warn!("TLS handshake: {e}");
                            hear_out(stream).await;
                        }
                        Err(_) => tracing::warn!("TLS handshake: no answer within {HANDSHAKE:?}"),
                    }
                });
            }
            (Ok(connection), _) => {
                if let Connection::Tcp(stream) = &connection {
                    // Small messages go back and forth; waiting for more to send costs 40 ms.
                    let _ = stream.set_nodelay(true);
                }
                if send.send(Ok(connection)).await.is_err() {
                    return;
                }
            }
            // Out of descriptors, or a connection that went away again: the next one may work.
            (Err(e), _) => {
                tracing::warn!("accepting a connection: {e}");
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        }
    }
}

/// Ends a connection so that the last word arrives, which says what is wrong with the client's certificate: closed while the
/// client's first request is unread, it would be lost.
async fn hear_out(mut stream: TcpStream) {
    let heard = async {
        stream.shutdown().await?;
        tokio::io::copy(&mut stream, &mut tokio::io::sink()).await
    };
    // Whether it took notice is its own matter.
    let _ = tokio::time::timeout(PARTING, heard).await;
}

fn unix(path: &Path, config: &Config) -> io::Result<UnixListener> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    // Under another name until it has its owner and mode: who can connect finds it as it stays.
    let making = path.with_file_name(format!(".{}", std::process::id()));
    remove(&making)?;
    let listener = UnixListener::bind(&making)?;
    if config.uid.is_some() || config.gid.is_some() {
        std::os::unix::fs::chown(&making, config.uid, config.gid)?;
    }
    std::fs::set_permissions(&making, std::fs::Permissions::from_mode(0o660))?;
    // In place of a socket that a killed daemon left; the lock on the root folder says that it is dead.
    std::fs::rename(&making, path)?;
    Ok(listener)
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

fn tcp(place: &str) -> io::Result<TcpListener> {
    let listener = std::net::TcpListener::bind(place)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// Sockets that systemd has handed over, by the names that their units give them, until an address asks for them.
struct Activated(Vec<(String, OwnedFd)>);

impl Activated {
    /// Takes all that are meant for this process.
    fn take() -> Result<Self, String> {
        let number = |name: &str| std::env::var(name).ok().and_then(|v| v.parse::<i32>().ok());
        let count = match (number("LISTEN_PID"), number("LISTEN_FDS")) {
            (Some(pid), Some(count)) if pid == std::process::id().cast_signed() => count,
            _ => {
                return Err("no sockets were handed over; start the daemon by its systemd socket unit".into());
            }
        };
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        // What systemd calls a socket without a name.
        let names = names.split(':').map(|name| if name.is_empty() { "unknown" } else { name });
        let names = names.chain(std::iter::repeat("unknown"));
        let sockets =
            (FIRST_ACTIVATED..FIRST_ACTIVATED.saturating_add(count)).zip(names).map(|(raw, name)| {
                // SAFETY: it is looked at only, and nothing else is done meanwhile.
                let there = unsafe { BorrowedFd::borrow_raw(raw) };
                // Programs that the daemon starts have no use for it, and would keep it open.
                rustix::io::fcntl_setfd(there, rustix::io::FdFlags::CLOEXEC)
                    .map_err(|e| format!("LISTEN_FDS is {count}, but there is no descriptor {raw}: {e}"))?;
                // SAFETY: systemd hands these descriptors to this process alone, and they are taken once.
                Ok((name.to_string(), unsafe { OwnedFd::from_raw_fd(raw) }))
            });
        Ok(Activated(sockets.collect::<Result<_, String>>()?))
    }

    /// Those of a name, or all that are left.
    fn called(&mut self, name: &str) -> Result<Vec<OwnedFd>, String> {
        let (found, left): (Vec<_>, Vec<_>) =
            self.0.drain(..).partition(|(known, _)| name.is_empty() || known == name);
        self.0 = left;
        if found.is_empty() {
            let left: Vec<&str> = self.0.iter().map(|(name, _)| name.as_str()).collect();
            return Err(match name {
                "" => "every socket that was handed over is another address's".to_string(),
                _ => format!(
                    "no socket of this name was handed over, or another address has it; left are {left:?}"
                ),
            });
        }
        Ok(found.into_iter().map(|(_, socket)| socket).collect())
    }
}

impl Drop for Activated {
    fn drop(&mut self) {
        for (name, _) in &self.0 {
            tracing::warn!("a socket called {name:?} was handed over, and no --addr fd:// takes it");
        }
    }
}

fn handed_over(socket: OwnedFd, acceptor: Option<&TlsAcceptor>) -> io::Result<Bound> {
    match rustix::net::sockopt::socket_domain(&socket)? {
        rustix::net::AddressFamily::UNIX => {
            let listener = std::os::unix::net::UnixListener::from(socket);
            listener.set_nonblocking(true)?;
            Ok(Bound::Unix(UnixListener::from_std(listener)?))
        }
        _ => {
            let listener = std::net::TcpListener::from(socket);
            listener.set_nonblocking(true)?;
            Ok(Bound::Tcp(TcpListener::from_std(listener)?, acceptor.cloned()))
        }
    }
}

/// The acceptor for TCP listeners, if there is a certificate.
fn tls(given: &Tls) -> Result<Option<TlsAcceptor>, String> {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let (cert, key) = match (&given.cert, &given.key) {
        (Some(cert), Some(key)) => (cert, key),
        (None, None) if given.ca.is_none() => return Ok(None),
        _ => return Err("TLS needs both a certificate and a key (--tlscert, --tlskey)".to_string()),
    };
    let certificates = |path: &Path| -> Result<Vec<CertificateDer<'static>>, String> {
        CertificateDer::pem_file_iter(path)
            .and_then(Iterator::collect)
            .map_err(|e| format!("reading certificate {}: {e}", path.display()))
    };
    let chain = certificates(cert)?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(|e| format!("reading key {}: {e}", key.display()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?;
    let builder = match &given.ca {
        None => builder.with_no_client_auth(),
        Some(ca) => {
            let mut roots = rustls::RootCertStore::empty();
            for certificate in certificates(ca)? {
                roots.add(certificate).map_err(|e| format!("authority {}: {e}", ca.display()))?;
            }
            let verifier =
                rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                    .build()
                    .map_err(|e| format!("authority {}: {e}", ca.display()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config =
        builder.with_single_cert(chain, key).map_err(|e| format!("certificate {}: {e}", cert.display()))?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Some(TlsAcceptor::from(Arc::new(config))))
}

/// A connection of any kind.
pub enum Connection {
    /// Over a unix socket.
    Unix(UnixStream),
    /// Over plain TCP.
    Tcp(TcpStream),
    /// Over TLS.
    Tls(Box<TlsStream<TcpStream>>),
    /// Within this process.
    Memory(DuplexStream),
}

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) -> Self::ConnectInfo {}
}

macro_rules! delegate {
    ($self:ident, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            Connection::Unix($stream) => $call,
            Connection::Tcp($stream) => $call,
            Connection::Tls($stream) => $call,
            Connection::Memory($stream) => $call,
        }
    };
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        delegate!(self, stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        delegate!(self, stream => Pin::new(stream).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        delegate!(self, stream => Pin::new(stream).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        matches!(self, Connection::Unix(_) | Connection::Tcp(_))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }
}
