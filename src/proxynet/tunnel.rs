//! Requests within TLS: the proxy is the server that a step wanted to talk to, as far as the step can see.

use crate::bodies::Answer;
use crate::record::Asked;
use crate::serve::{Gate, told};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

/// How long the step's handshake may take.
const SHAKE_WITHIN: Duration = Duration::from_secs(30);

/// Answers a step that wants a tunnel, and the requests in it.
pub(crate) fn open(gate: Arc<Gate>, request: Request<Incoming>) -> Response<Answer> {
    let Some(to) = request.uri().authority().map(|authority| authority.as_str().to_owned()) else {
        return told(StatusCode::BAD_REQUEST, "a tunnel to nowhere: name a host and a port".to_owned());
    };
    let host = request.uri().host().unwrap_or_default().trim_matches(['[', ']']).to_lowercase();
    let config = match gate.authority.server(&host) {
        Ok(config) => config,
        Err(error) => return told(StatusCode::BAD_REQUEST, format!("a tunnel to {to}: {error}")),
    };
    let work = gate.work.clone();
    work.spawn(async move {
        let Ok(upgraded) = hyper::upgrade::on(request).await else { return };
        let shaking = TlsAcceptor::from(config).accept(TokioIo::new(upgraded));
        let why = match timeout(SHAKE_WITHIN, shaking).await {
            Ok(Ok(stream)) => {
                let to = Arc::from(to);
                return gate.serve(TokioIo::new(stream), Some(to)).await;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "nothing came".to_owned(),
        };
        let asked = Asked { method: Method::CONNECT, url: to };
        let why = format!("no TLS session: {why}; only http and https leave a step behind the proxy");
        gate.rules.record.refused(&asked, None, why);
    });
    Response::new(Either::Left(Full::new(Bytes::new())))
}
