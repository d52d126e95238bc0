//! Answers a step's requests, from its start to its end.

use crate::authority::Authority;
use crate::bodies::{Answer, Passed};
use crate::record::Asked;
use crate::requests::{self, Refusal};
use crate::upstream::{Outside, Sender, Work, sender};
use crate::{ProxyError, Rules, tunnel};
use bytes::Bytes;
use futures::FutureExt;
use http::{Method, Request, Response, StatusCode, Version, header};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::rt::{Read, Write};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::DropGuard;
use url::Url;

/// Connections of a step at a time; more wait.
const CONNECTIONS: usize = 512;
/// How long a connection may be without a request.
const IDLE: Duration = Duration::from_secs(120);
/// What a step does not ask the proxy for.
const DIRECT: &str = "127.0.0.1,localhost,::1";

/// A proxy that runs. Dropping it ends it.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    certificate: String,
    work: Work,
    _end: DropGuard,
}

impl Proxy {
    /// Answers at a socket.
    ///
    /// # Errors
    /// A socket that is none, and certificates that can't be made.
    pub fn start(
        listener: std::net::TcpListener,
        outside: Outside,
        rules: Rules,
    ) -> Result<Self, ProxyError> {
        let address = listener.local_addr()?;
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let (work, authority) = (Work::default(), Authority::new()?);
        let certificate = authority.pem().to_owned();
        let sender = sender(outside, work.clone());
        let gate = Arc::new(Gate { rules, authority, sender, work: work.clone() });
        work.spawn(listen(listener, gate));
        let end = work.stop.clone().drop_guard();
        Ok(Proxy { address, certificate, work, _end: end })
    }

    /// What the step's environment has to say.
    pub fn environment(&self) -> Vec<String> {
        let address = format!("http://{}", self.address);
        let both =
            |name: &str, value: &str| [format!("{name}={value}"), format!("{}={value}", name.to_lowercase())];
        [("HTTP_PROXY", address.as_str()), ("HTTPS_PROXY", address.as_str()), ("NO_PROXY", DIRECT)]
            .into_iter()
            .flat_map(|(name, value)| both(name, value))
            .collect()
    }

    /// The certificate, as PEM, that the step has to trust.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Ends everything that it does. What was under way is incomplete.
    pub async fn end(self) {
        self.work.stop.cancel();
        self.work.tasks.close();
        self.work.tasks.wait().await;
    }
}

/// What lets requests of one step out.
pub(crate) struct Gate {
    pub(crate) rules: Rules,
    pub(crate) authority: Authority,
    pub(crate) work: Work,
    sender: Sender,
}

async fn listen(listener: TcpListener, gate: Arc<Gate>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        // The semaphore is never closed.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let _ = stream.set_nodelay(true);
                let served = Arc::clone(&gate);
                gate.work.spawn(async move {
                    served.serve(TokioIo::new(stream), None).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "accepting a connection of a step");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

impl Gate {
    /// Answers what comes on a connection; `tunnel` is where it leads.
    pub(crate) async fn serve(
        self: Arc<Self>,
        stream: impl Read + Write + Unpin + Send + 'static,
        tunnel: Option<Arc<str>>,
    ) {
        let gate = Arc::clone(&self);
        let service = service_fn(move |request| {
            let (gate, tunnel) = (Arc::clone(&gate), tunnel.clone());
            // Boxed, as a tunnel is served within.
            async move { Ok::<_, Infallible>(gate.answer(request, tunnel.as_deref()).await) }.boxed()
        });
        let served = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(IDLE)
            .half_close(true)
            .serve_connection(stream, service)
            .with_upgrades()
            .await;
        if let Err(error) = served {
            tracing::debug!(%error, "a connection of a step");
        }
    }

    async fn answer(
        self: Arc<Self>,
        mut request: Request<Incoming>,
        tunnel: Option<&str>,
    ) -> Response<Answer> {
        if request.method() == Method::CONNECT && tunnel.is_none() {
            return tunnel::open(self, request);
        }
        let from = match requests::target(&request, tunnel) {
            Ok(url) => url,
            Err(Refusal(status, why)) => return told(status, why),
        };
        let method = request.method().clone();
        let asked = |url: &Url| Asked { method: method.clone(), url: url.to_string() };
        let record = &self.rules.record;
        let to = match self.judged(&method, &from).await {
            Ok(url) => url,
            Err(why) => {
                record.refused(&asked(&from), Some(StatusCode::FORBIDDEN), why.clone());
                return told(StatusCode::FORBIDDEN, why);
            }
        };
        if let Err(Refusal(status, why)) = requests::direct(&mut request, &from, &to) {
            return told(status, why);
        }
        let asked = asked(&to);
        match self.sender.request(request).await {
            Ok(answer) => self.passed(answer, &to, asked),
            Err(error) => {
                let why = format!("the proxy got no answer: {}", reason(&error));
                record.refused(&asked, Some(StatusCode::BAD_GATEWAY), why.clone());
                record.lacks(&asked, "upstream_error");
                told(StatusCode::BAD_GATEWAY, why)
            }
        }
    }

    /// The address to use for a request.
    async fn judged(&self, method: &Method, url: &Url) -> Result<Url, String> {
        let Some(judge) = &self.rules.judge else { return Ok(url.clone()) };
        let Some(other) = judge.judge(url.as_str()).await? else { return Ok(url.clone()) };
        if method != Method::GET {
            return Err(format!("source policy converts {url}, which is for GET only, not for {method}"));
        }
        requests::converted(&other).map_err(|why| format!("source policy converts {url}: {why}"))
    }

    fn passed(&self, answer: Response<Incoming>, from: &Url, asked: Asked) -> Response<Answer> {
        let (mut head, body) = answer.into_parts();
        let (record, status) = (&self.rules.record, head.status);
        record.answered(&asked, status, requests::redirect(from, status, &head.headers));
        requests::strip(&mut head.headers);
        head.version = Version::HTTP_11;
        Response::from_parts(head, Either::Right(Passed::new(body, record, asked, status)))
    }
}

/// An answer of the proxy itself.
pub(crate) fn told(status: StatusCode, text: String) -> Response<Answer> {
    let mut answer = Response::new(Either::Left(Full::new(Bytes::from(format!("{text}\n")))));
    *answer.status_mut() = status;
    let plain = header::HeaderValue::from_static("text/plain; charset=utf-8");
    answer.headers_mut().insert(header::CONTENT_TYPE, plain);
    answer
}

/// What an error is about: its causes, each once. Of the outermost, which all have, only if there is none.
fn reason(error: &(dyn Error + 'static)) -> String {
    let mut text = String::new();
    let mut at = error.source().or(Some(error));
    while let Some(cause) = at {
        let said = cause.to_string();
        if !text.contains(&said) {
            text = if text.is_empty() { said } else { format!("{text}: {said}") };
        }
        at = cause.source();
    }
    text
}
