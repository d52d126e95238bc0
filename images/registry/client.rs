//! Requests to a registry, with whatever it wants to see.

use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode, header};
use reqwest::{RequestBuilder, Response};

use super::auth::Tokens;
use super::challenge;
use super::credentials::Credentials;
use super::errors::{RegistryError, said};
use super::hosts::{Endpoint, RegistryHosts};
use super::transfer::cause;
use crate::errors::Result;

/// Most bytes of an error answer that are read.
const MAX_WORDS: usize = 64 << 10;

/// How long whether something is there may take to be told.
const PATIENCE: Duration = Duration::from_secs(60);

/// The same for something to be fetched: registries that stand before others have to get it first.
const PATIENCE_FOR_CONTENT: Duration = Duration::from_secs(300);

/// Speaks to registries for one build. Clones share what was learnt.
#[derive(Clone)]
pub struct Client {
    pub(super) hosts: RegistryHosts,
    credentials: Arc<dyn Credentials>,
    tokens: Arc<Tokens>,
}

/// What a request is for: whom it goes to and what a token for it must allow.
#[derive(Clone, Copy)]
pub(super) struct Purpose<'a> {
    pub(super) endpoint: &'a Endpoint,
    pub(super) scopes: &'a [String],
}

impl Client {
    /// A client with a build's credentials.
    pub fn new(hosts: RegistryHosts, credentials: Arc<dyn Credentials>) -> Self {
        Self { hosts, credentials, tokens: Arc::default() }
    }

    /// Makes a request below the registry's root. `build` adds headers and body, again for each try.
    pub(super) async fn send(
        &self,
        purpose: Purpose<'_>,
        method: Method,
        path: &str,
        build: impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> Result<Response> {
        self.send_to(purpose, method, |endpoint| format!("{}{path}", endpoint.base()), build).await
    }

    /// Makes a request to a URL that may depend on whether the registry has TLS.
    pub(super) async fn send_to(
        &self,
        purpose: Purpose<'_>,
        method: Method,
        url: impl Fn(&Endpoint) -> String,
        build: impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> Result<Response> {
        let Purpose { endpoint, scopes } = purpose;
        let mut refused = false;
        loop {
            let target = url(endpoint);
            let mut parsed = reqwest::Url::parse(&target).map_err(|e| RegistryError::Answer {
                host: endpoint.host.clone(),
                reason: format!("{target}: {e}"),
            })?;
            if let Some(namespace) = &endpoint.mirror_of {
                parsed.query_pairs_mut().append_pair("ns", namespace);
            }
            let same_host = host_of(&parsed) == host_of_text(&endpoint.base());
            let shown = shown(&parsed);
            let mut request = build(endpoint.http.request(method.clone(), parsed));
            let mut proof = None;
            if same_host
                && let Some(value) =
                    self.tokens.header(&endpoint.http, &endpoint.host, scopes, &*self.credentials).await?
            {
                request = request.header(header::AUTHORIZATION, &value);
                proof = Some(value);
            }
            let limit = patience(&method);
            let answer = match tokio::time::timeout(limit, request.send()).await.ok() {
                None => {
                    let why = format!("no answer within {} s", limit.as_secs());
                    let source = std::io::Error::other(why);
                    return Err(
                        RegistryError::Transport { method: method.to_string(), url: shown, source }.into()
                    );
                }
                Some(Ok(answer)) => answer,
                Some(Err(error))
                    if (error.is_connect() || error.is_request()) && endpoint.fall_back(&target) =>
                {
                    continue;
                }
                Some(Err(error)) => {
                    let source = cause(&error);
                    return Err(
                        RegistryError::Transport { method: method.to_string(), url: shown, source }.into()
                    );
                }
            };
            if answer.status() != StatusCode::UNAUTHORIZED || refused || !same_host {
                return Ok(answer);
            }
            refused = true;
            let challenges = answer
                .headers()
                .get_all(header::WWW_AUTHENTICATE)
                .iter()
                .filter_map(|value| value.to_str().ok())
                .flat_map(challenge::parse)
                .collect();
            if !self.tokens.challenged(&endpoint.host, scopes, challenges, proof.as_deref()).await {
                return Ok(answer);
            }
        }
    }
}

/// The error that an answer is. `action` is `pull` or `push`, `what` the thing asked for.
pub(super) async fn refused(
    mut answer: Response,
    method: &Method,
    action: &'static str,
    what: &str,
) -> RegistryError {
    let (status, url) = (answer.status(), shown(answer.url()));
    let mut body = Vec::new();
    while let Ok(Some(piece)) = answer.chunk().await {
        body.extend_from_slice(&piece);
        if body.len() > MAX_WORDS {
            break;
        }
    }
    let words = said(&body);
    match status {
        StatusCode::NOT_FOUND => RegistryError::NotFound { what: what.to_owned() },
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            let words = if words.is_empty() { format!("{status}") } else { words };
            RegistryError::Denied { action, said: format!("server message: {words}") }
        }
        _ => {
            let said = if words.is_empty() { words } else { format!(": {words}") };
            RegistryError::Status { method: method.to_string(), url, status, said }
        }
    }
}

/// How long an answer may take to begin. What is sent has its own time, however long.
fn patience(method: &Method) -> Duration {
    match *method {
        Method::HEAD => PATIENCE,
        Method::GET => PATIENCE_FOR_CONTENT,
        _ => Duration::MAX,
    }
}

/// A URL for messages: queries hold signatures and states.
fn shown(url: &reqwest::Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.to_string()
}

fn host_of(url: &reqwest::Url) -> (Option<String>, Option<u16>) {
    (url.host_str().map(str::to_owned), url.port_or_known_default())
}

fn host_of_text(url: &str) -> (Option<String>, Option<u16>) {
    reqwest::Url::parse(url).map_or((None, None), |url| host_of(&url))
}
