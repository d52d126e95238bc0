//! The way to a daemon: addresses, sockets, TLS.

use crate::error::{ClientError, errno};
use crate::flags::Parsed;
use crate::greeting::Greeted;
use crate::through::Through;
use crate::tls::{self, TlsFiles};
use crosskit_api::MAX_MESSAGE;
use crosskit_api::control::InfoRequest;
use crosskit_api::control::control_client::ControlClient;
use hyper_util::rt::TokioIo;
use std::io;
use std::path::PathBuf;
use std::time::Duration;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tonic::transport::{Channel, Endpoint, Uri};

/// Where daemons listen if nobody says otherwise.
pub const DEFAULT_ADDRESS: &str = "unix:///run/buildkit/buildkitd.sock";
/// How long a daemon may take to say its first word where nobody says otherwise, as in gRPC's library for Go.
const GREETING: Duration = Duration::from_secs(20);
/// How often `--wait` tries.
const RETRY: Duration = Duration::from_millis(50);
/// Bytes in flight for one call: a layer's transfer shall not wait for each window.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;
/// An error's details hold whole source files, and travel in headers.
const MAX_HEADERS: u32 = 16 << 20;

/// A parsed address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A socket in the file system.
    Unix(PathBuf),
    /// `host:port`.
    Tcp(String),
    /// Through a program.
    Through(Through),
}

impl Address {
    /// Reads `unix://PATH`, `tcp://HOST:PORT`, and what is reached through a program.
    ///
    /// # Errors
    /// Other schemes, and addresses without a port.
    pub fn parse(text: &str) -> Result<Address, ClientError> {
        if let Some(through) = Through::parse(text)? {
            return Ok(Address::Through(through));
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(ClientError::invalid(format!(
                "address {text:?} has no scheme; write unix:///path/to/buildkitd.sock or tcp://host:port"
            )));
        };
        match scheme {
            "unix" if !rest.is_empty() => Ok(Address::Unix(rest.into())),
            "tcp" => {
                let host = rest.trim_end_matches('/');
                let port = host.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
                match port {
                    Some(Ok(_)) => Ok(Address::Tcp(host.to_owned())),
                    _ => Err(ClientError::invalid(format!(
                        "address {text:?} has no port; write tcp://host:port"
                    ))),
                }
            }
            "npipe" => {
                Err(ClientError::invalid("npipe:// addresses are a Windows matter; use unix:// or tcp://"))
            }
            _ => Err(ClientError::invalid(format!(
                "unknown scheme {scheme:?} in address {text:?}; use unix://, tcp://, docker-container://, \
                 podman-container://, nerdctl-container://, kube-pod:// or ssh://"
            ))),
        }
    }

    /// Whether somebody listens there, found out at once. Always so for a host elsewhere.
    #[must_use]
    pub fn answers(&self) -> bool {
        match self {
            Address::Unix(path) => std::os::unix::net::UnixStream::connect(path).is_ok(),
            Address::Tcp(_) | Address::Through(_) => true,
        }
    }

    fn host(&self) -> &str {
        match self {
            Address::Unix(_) | Address::Through(_) => "",
            Address::Tcp(host) => host.rsplit_once(':').map_or(host, |(host, _)| host),
        }
    }

    /// A failed dial in the words of the field.
    pub(crate) fn failed(&self, error: &io::Error) -> String {
        let target = match self {
            Address::Unix(path) => format!("unix {}", path.display()),
            Address::Tcp(host) => format!("tcp {host}"),
            Address::Through(through) => return format!("{:?}: {error}", through.command()),
        };
        format!("dial {target}: connect: {}", errno(error))
    }
}

/// How to reach the daemon, from the program's flags.
#[derive(Clone, Debug)]
pub struct Target {
    /// The address as it was given.
    pub text: String,
    /// The same, understood.
    pub address: Address,
    tls: Option<TlsFiles>,
    timeout: Option<Duration>,
    wait: bool,
}

impl Target {
    /// Reads `--addr`, `--tls…`, `--timeout` and `--wait`.
    pub(crate) fn from_flags(flags: &Parsed) -> Result<Target, ClientError> {
        let text = flags.text("addr").to_owned();
        let address = Address::parse(&text)?;
        let server = match flags.text("tlsservername") {
            "" => address.host().trim_matches(['[', ']']).to_owned(),
            name => name.to_owned(),
        };
        let tls = TlsFiles::choose(
            server,
            flags.text("tlsdir"),
            [flags.text("tlscacert"), flags.text("tlscert"), flags.text("tlskey")],
        )?;
        let timeout = u64::try_from(flags.int("timeout")).ok().filter(|s| *s > 0).map(Duration::from_secs);
        Ok(Target { text, address, tls, timeout, wait: flags.on("wait") })
    }

    /// Connects. `action` says in an error what was being done.
    ///
    /// # Errors
    /// Nobody listens there, or TLS could not be agreed on.
    pub async fn connect(&self, action: &str) -> Result<Channel, ClientError> {
        let deadline = self.timeout.map(|t| tokio::time::Instant::now() + t);
        loop {
            let attempt = self.connect_once(action);
            let result = match deadline {
                Some(deadline) => tokio::time::timeout_at(deadline, attempt)
                    .await
                    .unwrap_or_else(|_| Err(ClientError::invalid("context deadline exceeded"))),
                None => attempt.await,
            };
            match result {
                Err(ClientError::Unreachable { .. }) if self.wait => {
                    if deadline.is_some_and(|deadline| tokio::time::Instant::now() + RETRY > deadline) {
                        return Err(ClientError::invalid("context deadline exceeded"));
                    }
                    tokio::time::sleep(RETRY).await;
                }
                result => return result,
            }
        }
    }

    async fn connect_once(&self, action: &str) -> Result<Channel, ClientError> {
        let greeted = Greeted::within(self.timeout.unwrap_or(GREETING));
        let unreachable = |why: String| ClientError::Unreachable { action: action.to_owned(), why };
        let channel = match &self.address {
            Address::Unix(path) => {
                let stream = UnixStream::connect(path).await;
                let stream = stream.map_err(|e| {
                    unreachable(format!("transport: Error while dialing: {}", self.address.failed(&e)))
                })?;
                channel_over(greeted.by(stream), "localhost").await
            }
            Address::Through(through) => {
                let stream = through.open().map_err(|e| {
                    unreachable(format!("transport: Error while dialing: {}", self.address.failed(&e)))
                })?;
                channel_over(greeted.by(stream), "localhost").await
            }
            Address::Tcp(host) => {
                let stream = TcpStream::connect(host).await;
                let stream = stream.map_err(|e| {
                    unreachable(format!("transport: Error while dialing: {}", self.address.failed(&e)))
                })?;
                // Small messages go back and forth; none of them shall wait for company.
                let _ = stream.set_nodelay(true);
                match &self.tls {
                    None => channel_over(greeted.by(stream), host).await,
                    Some(files) => {
                        let name = ServerName::try_from(files.server.clone()).map_err(|e| {
                            ClientError::invalid(format!(
                                "server name {:?}: {e}; set --tlsservername",
                                files.server
                            ))
                        })?;
                        let connector = TlsConnector::from(tls::client_config(files)?);
                        let stream = connector.connect(name, stream).await;
                        let stream = stream.map_err(|e| {
                            unreachable(format!("transport: authentication handshake failed: {e}"))
                        })?;
                        channel_over(greeted.by(stream), &files.server).await
                    }
                }
            }
        };
        let channel = channel.map_err(|e| unreachable(format!("error reading server preface: {e}")))?;
        if self.wait {
            // A daemon that starts may accept before it answers.
            match control(&channel).info(InfoRequest {}).await {
                Err(status) if status.code() == tonic::Code::Unavailable => {
                    return Err(unreachable(status.message().to_owned()));
                }
                _ => {}
            }
        }
        Ok(channel)
    }
}

/// Speaks HTTP/2 on a stream that is there already.
pub(crate) async fn channel_over<S>(
    stream: Greeted<S>,
    authority: &str,
) -> Result<Channel, tonic::transport::Error>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let uri: Uri =
        format!("http://{authority}").parse().unwrap_or_else(|_| Uri::from_static("http://localhost"));
    let endpoint = Endpoint::from(uri)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_max_header_list_size(MAX_HEADERS);
    let ended = stream.ended();
    let mut stream = Some(TokioIo::new(stream));
    let connector = tower::service_fn(move |_: Uri| {
        let stream = stream.take().ok_or_else(|| {
            let why = ended.get().map_or("the daemon closed the connection", String::as_str);
            io::Error::new(io::ErrorKind::NotConnected, why)
        });
        async move { stream }
    });
    endpoint.connect_with_connector(connector).await
}

/// The daemon's main service on a channel.
pub(crate) fn control(channel: &Channel) -> ControlClient<Channel> {
    ControlClient::new(channel.clone())
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        assert_eq!(Address::parse("unix:///a/b.sock").unwrap(), Address::Unix("/a/b.sock".into()));
        assert_eq!(Address::parse("tcp://1.2.3.4:5").unwrap(), Address::Tcp("1.2.3.4:5".into()));
        for (bad, part) in [
            ("npipe:////./pipe/x", "unix://"),
            ("tcp://h", "no port"),
            ("x", "no scheme"),
            ("foo://x", "unknown scheme"),
        ] {
            let told = Address::parse(bad).unwrap_err().to_string();
            assert!(told.contains(part), "{told}");
        }
    }

    #[tokio::test]
    async fn nobody_there_is_told_in_the_words_that_scripts_know() {
        let target = Target {
            text: String::new(),
            address: Address::Unix("/nope.sock".into()),
            tls: None,
            timeout: Some(Duration::from_secs(5)),
            wait: false,
        };
        assert_eq!(
            target.connect("failed to list workers").await.unwrap_err().to_string(),
            r#"failed to list workers: Unavailable: connection error: desc = "transport: Error while dialing: dial unix /nope.sock: connect: no such file or directory""#
        );
    }
}
