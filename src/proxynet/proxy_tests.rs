//! The proxy between a client and servers that say exactly what the tests want, over real sockets.

use crate::authority::Authority;
use crate::{Dial, Judge, Outside, Proxy, Record, Rules, Trust};
use futures::future::BoxFuture;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use rustls::{ClientConfig, RootCertStore};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A server that reads one request and writes what it is told to; what comes back is what it has read.
async fn server(answer: &'static str, tls: Option<Arc<rustls::ServerConfig>>) -> (SocketAddr, Heard) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let heard = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream: Box<dyn Stream> = match tls {
            None => Box::new(stream),
            Some(config) => Box::new(TlsAcceptor::from(config).accept(stream).await.unwrap()),
        };
        let head = head(&mut stream).await;
        stream.write_all(answer.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        head
    });
    (address, heard)
}

type Heard = tokio::task::JoinHandle<String>;

async fn head(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n\r\n") {
        text.push(stream.read_u8().await.expect("a whole head"));
    }
    String::from_utf8(text).unwrap()
}

/// Leads everything to one server.
struct To(SocketAddr);

impl Dial for To {
    fn dial(&self, _host: String, _port: u16) -> BoxFuture<'static, io::Result<TcpStream>> {
        Box::pin(TcpStream::connect(self.0))
    }
}

struct Says(fn(&str) -> Result<Option<String>, String>);

impl Judge for Says {
    fn judge<'a>(&'a self, url: &'a str) -> BoxFuture<'a, Result<Option<String>, String>> {
        Box::pin(std::future::ready((self.0)(url)))
    }
}

struct Place {
    proxy: Proxy,
    record: Arc<Record>,
    address: String,
}

impl Place {
    fn new(to: SocketAddr, judge: Option<Says>, trusted: Option<&str>) -> Place {
        let trust = Trust::default();
        if let Some(pem) = trusted {
            trust.set(client_config(pem));
        }
        let outside = Outside { dial: Arc::new(To(to)), trust };
        let record = Arc::new(Record::default());
        let judge = judge.map(|judge| Arc::new(judge) as Arc<dyn Judge>);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let rules = Rules { judge, record: Arc::clone(&record) };
        let proxy = Proxy::start(listener, outside, rules).unwrap();
        let told = proxy.environment();
        let address = told[0].strip_prefix("HTTP_PROXY=http://").unwrap().to_owned();
        Place { proxy, record, address }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(&self.address).await.unwrap()
    }

    /// Sends a request whose connection is to be closed, and gives the whole answer.
    async fn ask(&self, request: &str) -> String {
        ask(&mut self.connect().await, request).await
    }

    /// A TLS session in a tunnel.
    async fn tunnel(&self, to: &str, host: &'static str) -> impl Stream + use<> {
        let mut stream = self.connect().await;
        let asked = format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n\r\n");
        stream.write_all(asked.as_bytes()).await.unwrap();
        let answer = head(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        let mut config = client_config(self.proxy.certificate());
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let name = ServerName::try_from(host).unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
    }

    fn materials(&self) -> Vec<String> {
        self.record.materials().into_iter().map(|m| format!("{} {}", m.url, m.digest)).collect()
    }

    fn incomplete(&self) -> Vec<String> {
        let told = self.record.incomplete().into_iter();
        told.map(|i| format!("{} {} {}", i.method, i.url, i.reason)).collect()
    }

    fn summary(&self) -> String {
        self.record.summary().unwrap_or_default()
    }
}

async fn ask(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), request: &str) -> String {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    // Servers of our own may end without a farewell.
    let _ = stream.read_to_string(&mut answer).await;
    answer
}

fn client_config(pem: &str) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).unwrap();
    ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

const HELLO: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Type: text/plain\r\n\r\nhello";
/// Of `hello`.
const HELLO_DIGEST: &str = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

fn get(url: &str) -> String {
    format!("GET {url} HTTP/1.1\r\nHost: files.test\r\nConnection: close\r\n\r\n")
}

async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(std::time::Duration::from_secs(20), work).await.expect("in time")
}

#[tokio::test]
async fn a_file_is_brought_and_noted_without_secrets() {
    let (to, heard) = server(HELLO, None).await;
    let place = Place::new(to, None, None);
    let request = "GET http://user:secret@files.test:80/a?b HTTP/1.1\r\nHost: files.test\r\n\
                   Authorization: Bearer secret\r\nProxy-Authorization: Basic secret\r\n\
                   Accept-Encoding: gzip\r\nConnection: close\r\n\r\n";
    let answer = place.ask(request).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nhello"), "{answer}");
    let heard = heard.await.unwrap().to_lowercase();
    assert!(
        heard.starts_with("get /a?b http/1.1\r\n") && heard.contains("\r\nhost: files.test\r\n"),
        "{heard}"
    );
    assert!(heard.contains("\r\nauthorization: bearer secret\r\n"), "it is for the server: {heard}");
    assert!(!heard.contains("proxy-") && !heard.contains("gzip"), "{heard}");
    assert_eq!(place.materials(), [format!("http://files.test/a?b {HELLO_DIGEST}")]);
    assert_eq!(place.incomplete(), Vec::<String>::new());
    assert_eq!(place.summary(), "proxy network requests:\n- GET http://files.test/a?b -> 200\n");
    place.proxy.end().await;
}

#[tokio::test]
async fn what_goes_through_tls_is_seen_and_servers_are_verified() {
    let theirs = Authority::new().unwrap();
    for trusted in [true, false] {
        let (to, heard) = server(HELLO, Some(theirs.server("files.test").unwrap())).await;
        let others = Authority::new().unwrap();
        let trust = if trusted { theirs.pem() } else { others.pem() };
        let place = Place::new(to, None, Some(trust));
        let mut stream = place.tunnel("files.test:443", "files.test").await;
        let answer = ask(&mut stream, &get("/a")).await;
        if trusted {
            assert!(answer.ends_with("\r\n\r\nhello"), "{answer}");
            assert!(heard.await.unwrap().starts_with("GET /a HTTP/1.1\r\n"));
            assert_eq!(place.materials(), [format!("https://files.test/a {HELLO_DIGEST}")]);
            assert_eq!(place.summary(), "proxy network requests:\n- GET https://files.test/a -> 200\n");
        } else {
            assert!(answer.starts_with("HTTP/1.1 502 Bad Gateway\r\n"), "{answer}");
            assert!(answer.contains("files.test:443: invalid peer certificate: "), "{answer}");
            assert_eq!(place.incomplete(), ["GET https://files.test/a upstream_error"]);
        }
        place.proxy.end().await;
    }
}

#[tokio::test]
async fn a_tunnel_leads_where_it_says_and_to_tls_only() {
    let (to, _) = server(HELLO, None).await;
    let place = Place::new(to, None, None);
    let mut stream = place.tunnel("other.test:443", "other.test").await;
    let answer = ask(&mut stream, &get("/a")).await;
    assert!(answer.starts_with("HTTP/1.1 421 "), "{answer}");
    let mut stream = place.connect().await;
    stream.write_all(b"CONNECT other.test:22 HTTP/1.1\r\nHost: other.test:22\r\n\r\n").await.unwrap();
    head(&mut stream).await;
    ask(&mut stream, "SSH-2.0-OpenSSH_9.6\r\n").await;
    let told = "- CONNECT other.test:22 (no TLS session: ";
    within(async {
        while !place.summary().contains(told) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    place.proxy.end().await;
}

#[tokio::test]
async fn policies_refuse_and_convert() {
    let judge = |url: &str| match url {
        "http://files.test/a" => Ok(Some("http://mirror.test/b".to_owned())),
        "http://files.test/odd" => Ok(Some("ftp://mirror.test/b".to_owned())),
        other => Err(format!("source {other:?} denied by policy")),
    };
    let (to, heard) = server(HELLO, None).await;
    let place = Place::new(to, Some(Says(judge)), None);
    let refused = place.ask(&get("http://files.test/secret")).await;
    assert!(refused.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{refused}");
    assert!(refused.ends_with("source \"http://files.test/secret\" denied by policy\n"), "{refused}");
    let odd = place.ask(&get("http://files.test/odd")).await;
    assert!(odd.starts_with("HTTP/1.1 403 ") && odd.contains("only http and https"), "{odd}");
    let posted = place.ask(&get("http://files.test/a").replace("GET", "DELETE")).await;
    assert!(posted.starts_with("HTTP/1.1 403 ") && posted.contains("for GET only"), "{posted}");
    let converted = place.ask(&get("http://files.test/a")).await;
    assert!(converted.ends_with("hello"), "{converted}");
    let heard = heard.await.unwrap();
    assert!(heard.starts_with("GET /b ") && heard.contains("mirror.test"), "{heard}");
    assert_eq!(place.materials(), [format!("http://mirror.test/b {HELLO_DIGEST}")]);
    let summary = place.summary();
    let told =
        "- GET http://files.test/secret -> 403 (source \"http://files.test/secret\" denied by policy)\n";
    assert!(summary.contains(told) && summary.ends_with("- GET http://mirror.test/b -> 200\n"), "{summary}");
    place.proxy.end().await;
}

#[tokio::test]
async fn what_is_not_known_exactly_is_incomplete() {
    for (method, answer, reason) in [
        ("GET", "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", Some("unsuccessful_response")),
        ("POST", HELLO, Some("method_not_materializable")),
        ("GET", "HTTP/1.1 206 Partial Content\r\nContent-Length: 1\r\n\r\nh", Some("partial_response")),
        ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", Some("body_read_failed")),
        ("GET", "HTTP/1.1 302 Found\r\nLocation: /b\r\nContent-Length: 0\r\n\r\n", None),
        ("GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", None),
    ] {
        let (to, heard) = server(answer, None).await;
        let place = Place::new(to, None, None);
        place.ask(&get("http://files.test/a").replace("GET", method)).await;
        heard.await.unwrap();
        let expected: Vec<String> =
            reason.into_iter().map(|reason| format!("{method} http://files.test/a {reason}")).collect();
        assert_eq!(place.incomplete(), expected, "{answer}");
        let materials = usize::from(answer.contains("chunked"));
        assert_eq!(place.materials().len(), materials, "{answer}");
        place.proxy.end().await;
    }
}

#[tokio::test]
async fn a_body_passes_piece_by_piece_and_ends_with_the_step() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let place = Place::new(listener.local_addr().unwrap(), None, None);
    let mut client = place.connect().await;
    client.write_all(get("http://files.test/a").as_bytes()).await.unwrap();
    let (mut server, _) = listener.accept().await.unwrap();
    head(&mut server).await;
    server.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst").await.unwrap();
    head(&mut client).await;
    let mut piece = [0; 5];
    within(client.read_exact(&mut piece)).await.unwrap();
    assert_eq!(&piece, b"first");
    // The rest never comes.
    within(place.proxy.end()).await;
    let told = place.record.incomplete();
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].reason, "body_read_failed");
    assert!(matches!(within(server.read(&mut piece)).await, Ok(0) | Err(_)), "the server hears of it");
}

#[tokio::test]
async fn what_no_server_answers_is_told() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = nobody.local_addr().unwrap();
    drop(nobody);
    let place = Place::new(to, None, None);
    let answer = place.ask(&get("http://files.test/a")).await;
    assert!(answer.starts_with("HTTP/1.1 502 Bad Gateway\r\n"), "{answer}");
    assert!(answer.contains("connecting to files.test:80: "), "{answer}");
    assert_eq!(place.incomplete(), ["GET http://files.test/a upstream_error"]);
    assert!(place.ask(&get("ftp://files.test/a")).await.starts_with("HTTP/1.1 501 "));
    place.proxy.end().await;
}
