//! The way to a worker: addresses, sockets, TLS.

use super::error::deepest;
use super::lost::{Lost, Noting, words};
use super::{RemoteOptions, Tls, tls};
use crosskit_api::MAX_MESSAGE;
use crosskit_api::control::control_client::ControlClient;
use hyper_util::rt::TokioIo;
use std::io;
use std::path::PathBuf;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tonic::Status;
use tonic::transport::{Channel, Endpoint, Uri};

/// What one call may have in flight, in bytes: whole layers go through the session's.
const STREAM_WINDOW: u32 = 8 << 20;

/// What all calls of a connection may have in flight, in bytes.
const CONNECTION_WINDOW: u32 = 32 << 20;

/// An error's details travel in headers, in bytes.
const MAX_HEADERS: u32 = 16 << 20;

/// Where a worker is and how it is talked to.
#[derive(Debug)]
pub(super) struct Target {
    address: Address,
    tls: Option<Tls>,
    /// How long connecting may take.
    limit: Duration,
}

#[derive(Debug)]
enum Address {
    Unix(PathBuf),
    Tcp { host: String, port: u16 },
}

impl Target {
    /// Understands an address.
    pub(super) fn new(options: &RemoteOptions) -> Result<Self, String> {
        let address = Address::parse(&options.addr)?;
        if options.tls.is_none() && !options.insecure && matches!(address, Address::Tcp { .. }) {
            return Err(format!(
                "{} would be used without TLS: set tls, or insecure = true if the network is trusted",
                options.addr
            ));
        }
        Ok(Target { address, tls: options.tls.clone(), limit: options.dead_after })
    }

    /// Connects. The connection is one: once it is lost, every call fails.
    pub(super) async fn connect(&self) -> Result<Line, String> {
        match tokio::time::timeout(self.limit, self.dial()).await {
            Ok(connected) => connected,
            Err(_) => Err(format!("no answer from {} within {:?}", self.address, self.limit)),
        }
    }

    async fn dial(&self) -> Result<Line, String> {
        let refused = |e: io::Error| format!("connecting to {}: {}", self.address, words(&e));
        match &self.address {
            Address::Unix(path) => over(UnixStream::connect(path).await.map_err(refused)?, "localhost").await,
            Address::Tcp { host, port } => {
                let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(refused)?;
                // Small messages go back and forth; none of them shall wait for company.
                stream.set_nodelay(true).map_err(refused)?;
                let authority = self.address.authority();
                let Some(files) = &self.tls else { return over(stream, &authority).await };
                let name = if files.server_name.is_empty() { host } else { &files.server_name };
                let name = ServerName::try_from(name.clone())
                    .map_err(|e| format!("server name {name:?}: {e}: see server-name"))?;
                let connector = TlsConnector::from(tls::client_config(files)?);
                let stream = connector
                    .connect(name, stream)
                    .await
                    .map_err(|e| tls::plainly(&e).unwrap_or_else(|| format!("TLS failed: {e}")))?;
                over(stream, &authority).await
            }
        }
    }
}

impl Address {
    fn parse(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| format!("address {text:?}: {why}; write unix:///path or tcp://host:port");
        match text.split_once("://") {
            Some(("unix", path)) if path.starts_with('/') => Ok(Address::Unix(path.into())),
            Some(("unix", _)) => Err(wrong("it has no absolute path")),
            Some(("tcp", rest)) => {
                let (host, port) =
                    rest.trim_end_matches('/').rsplit_once(':').ok_or_else(|| wrong("it has no port"))?;
                let port = port.parse().map_err(|_| wrong("its port is no number"))?;
                let host = host.trim_start_matches('[').trim_end_matches(']').to_string();
                if host.is_empty() { Err(wrong("it has no host")) } else { Ok(Address::Tcp { host, port }) }
            }
            Some(_) => Err(wrong("its scheme is unknown")),
            None => Err(wrong("it has no scheme")),
        }
    }

    fn authority(&self) -> String {
        match self {
            Address::Unix(_) => "localhost".to_string(),
            Address::Tcp { host, port } if host.contains(':') => format!("[{host}]:{port}"),
            Address::Tcp { host, port } => format!("{host}:{port}"),
        }
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Address::Unix(path) => write!(f, "unix://{}", path.display()),
            Address::Tcp { .. } => write!(f, "tcp://{}", self.authority()),
        }
    }
}

/// Speaks HTTP/2 on a stream that is there already.
async fn over<S>(stream: S, authority: &str) -> Result<Line, String>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let uri: Uri =
        format!("http://{authority}").parse().unwrap_or_else(|_| Uri::from_static("http://localhost"));
    let endpoint = Endpoint::from(uri)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_max_header_list_size(MAX_HEADERS);
    let lost = Lost::default();
    let mut stream = Some(TokioIo::new(Noting::new(stream, lost.clone())));
    let connector = tower::service_fn(move |_: Uri| {
        let again = || io::Error::new(io::ErrorKind::NotConnected, "the worker closed the connection");
        let stream = stream.take().ok_or_else(again);
        async move { stream }
    });
    match endpoint.connect_with_connector(connector).await {
        Ok(channel) => Ok(Line { channel, lost }),
        Err(e) => Err(lost.why(&e).unwrap_or_else(|| format!("no HTTP/2: {}", deepest(&e)))),
    }
}

/// A connection to a worker. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Line {
    channel: Channel,
    lost: Lost,
}

impl Line {
    /// For services of the worker.
    pub(super) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// The daemon's main service.
    pub(super) fn control(&self) -> ControlClient<Channel> {
        ControlClient::new(self.channel())
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE)
    }

    /// Why the connection is gone, if that is what the end of a call means: a status with a
    /// source was made here.
    pub(super) fn broken(&self, status: &Status) -> Option<String> {
        let source = std::error::Error::source(status)?;
        let plain = || format!("the connection is lost: {}", deepest(source));
        Some(self.lost.why(source).unwrap_or_else(plain))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_wrong_ones_are_told_what_to_write() {
        for (text, shown) in [
            ("unix:///run/w.sock", "unix:///run/w.sock"),
            ("tcp://host:1234", "tcp://host:1234"),
            ("tcp://[::1]:1234/", "tcp://[::1]:1234"),
        ] {
            assert_eq!(Address::parse(text).unwrap().to_string(), shown);
        }
        for text in ["unix://w.sock", "tcp://host", "tcp://host:x", "tcp://:1", "ssh://host", "host:1"] {
            let why = Address::parse(text).unwrap_err();
            assert!(why.ends_with("write unix:///path or tcp://host:port"), "{why}");
        }
    }

    #[test]
    fn plain_tcp_has_to_be_allowed() {
        let mut options = RemoteOptions::new("w", "tcp://host:1234");
        assert!(Target::new(&options).unwrap_err().contains("insecure = true"));
        options.insecure = true;
        Target::new(&options).unwrap();
    }

    #[tokio::test]
    async fn nobody_there_is_said_plainly() {
        let target = Target::new(&RemoteOptions::new("w", "unix:///nope.sock")).unwrap();
        let why = target.connect().await.unwrap_err();
        assert_eq!(why, "connecting to unix:///nope.sock: no such file or directory");
    }
}
