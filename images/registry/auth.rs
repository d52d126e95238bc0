//! Tokens: got when a registry asks for one, kept until they expire.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use base64::Engine as _;
use tokio::sync::Mutex;

use super::challenge::Challenge;
use super::credentials::{Credentials, Login, Token, TokenRequest};
use super::errors::{RegistryError, said};
use crate::errors::Result;

/// What a token is good for where nobody says (distribution's token specification).
const DEFAULT_LIFE: Duration = Duration::from_secs(60);
/// A token is no longer used so shortly before its end.
const MARGIN: Duration = Duration::from_secs(10);
/// A token's answer is larger than this only by mistake.
const MAX_ANSWER: usize = 1 << 20;

/// A token server that takes longer will not answer any more; others wait for the token meanwhile.
const PATIENCE: Duration = Duration::from_secs(60);

/// What was learnt about registries that want to see something.
#[derive(Default)]
pub(super) struct Tokens {
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// The last challenge of each host: later requests answer it before it is made.
    challenges: HashMap<String, Challenge>,
    tokens: HashMap<(String, Vec<String>), (String, Option<Instant>)>,
}

impl Tokens {
    /// The `Authorization` header for a host and scopes; none if it never asked for one.
    pub(super) async fn header(
        &self,
        http: &reqwest::Client,
        host: &str,
        scopes: &[String],
        credentials: &dyn Credentials,
    ) -> Result<Option<String>> {
        let mut known = self.known.lock().await;
        let key = (host.to_owned(), scopes.to_vec());
        if let Some((header, end)) = known.tokens.get(&key)
            && end.is_none_or(|end| end > Instant::now())
        {
            return Ok(Some(header.clone()));
        }
        let Some(challenge) = known.challenges.get(host).cloned() else { return Ok(None) };
        let (header, end) = if challenge.scheme == "basic" {
            let Some(login) = credentials.login(host).await? else { return Ok(None) };
            (basic(&login), None)
        } else {
            let token = bearer(http, host, scopes, &challenge, credentials).await?;
            let life = token.expires_in.unwrap_or(DEFAULT_LIFE).max(DEFAULT_LIFE);
            (format!("Bearer {}", token.token), Some(Instant::now() + (life - MARGIN)))
        };
        known.tokens.insert(key, (header.clone(), end));
        Ok(Some(header))
    }

    /// Takes note of what a host asks for, having refused `shown`. False if nothing can answer it.
    pub(super) async fn challenged(
        &self,
        host: &str,
        scopes: &[String],
        challenges: Vec<Challenge>,
        shown: Option<&str>,
    ) -> bool {
        let mut known = self.known.lock().await;
        let key = (host.to_owned(), scopes.to_vec());
        // Another request may have got a token meanwhile: only the refused one goes.
        if known.tokens.get(&key).is_some_and(|(header, _)| Some(header.as_str()) == shown) {
            known.tokens.remove(&key);
        }
        let answerable = |c: &Challenge| c.scheme == "bearer" && !c.get("realm").is_empty();
        let best =
            challenges.iter().find(|c| answerable(c)).or(challenges.iter().find(|c| c.scheme == "basic"));
        match best {
            Some(challenge) => {
                known.challenges.insert(host.to_owned(), challenge.clone());
                true
            }
            None => false,
        }
    }
}

fn basic(login: &Login) -> String {
    let text = format!("{}:{}", login.user, login.secret);
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(text))
}

async fn bearer(
    http: &reqwest::Client,
    host: &str,
    scopes: &[String],
    challenge: &Challenge,
    credentials: &dyn Credentials,
) -> Result<Token> {
    let request = TokenRequest {
        host: host.to_owned(),
        realm: challenge.get("realm").to_owned(),
        service: challenge.get("service").to_owned(),
        scopes: if scopes.is_empty() {
            challenge.get("scope").split(' ').filter(|s| !s.is_empty()).map(str::to_owned).collect()
        } else {
            scopes.to_vec()
        },
    };
    if let Some(token) = credentials.token(&request).await? {
        return Ok(token);
    }
    let login = credentials.login(host).await?;
    let identity = if login.is_some() { "oauth" } else { "anonymous" };
    let failed = |reason: String| RegistryError::Token { identity, realm: request.realm.clone(), reason };
    let mut url = reqwest::Url::parse(&request.realm).map_err(|e| failed(e.to_string()))?;
    let refresh = login.as_ref().filter(|login| login.user.is_empty());
    let call = if let Some(login) = refresh {
        // The url crate's query is form encoding; the request's own URL stays as it is.
        let mut form = reqwest::Url::parse("form:x").map_err(|e| failed(e.to_string()))?;
        form.query_pairs_mut()
            .append_pair("grant_type", "refresh_token")
            .append_pair("refresh_token", &login.secret)
            .append_pair("service", &request.service)
            .append_pair("client_id", "crosskit")
            .append_pair("scope", &request.scopes.join(" "));
        http.post(url)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(form.query().unwrap_or_default().to_owned())
    } else {
        {
            let mut query = url.query_pairs_mut();
            if !request.service.is_empty() {
                query.append_pair("service", &request.service);
            }
            // One token for all scopes: a mount needs to read one repository and write another.
            for scope in &request.scopes {
                query.append_pair("scope", scope);
            }
        }
        let call = http.get(url);
        match &login {
            Some(login) => call.header("authorization", basic(login)),
            None => call,
        }
    };
    let given = async {
        let mut answer = call.send().await.map_err(|e| super::transfer::reason(&e))?;
        let mut body = Vec::new();
        while let Some(piece) = answer.chunk().await.map_err(|e| super::transfer::reason(&e))? {
            if body.len() + piece.len() > MAX_ANSWER {
                return Err(format!("the answer has more than {MAX_ANSWER} bytes"));
            }
            body.extend_from_slice(&piece);
        }
        Ok((answer.status(), body))
    };
    let given = tokio::time::timeout(PATIENCE, given).await;
    let given = given.unwrap_or_else(|_| Err(format!("no answer within {} s", PATIENCE.as_secs())));
    let (status, body) = given.map_err(failed)?;
    if !status.is_success() {
        let words = said(&body);
        let words = if words.is_empty() { String::new() } else { format!(": {words}") };
        return Err(failed(format!("unexpected status: {status}{words}")).into());
    }
    parse_token(&body)
        .ok_or_else(|| failed("authorization server did not include a token in the response".into()).into())
}

fn parse_token(body: &[u8]) -> Option<Token> {
    #[derive(serde::Deserialize)]
    struct Answer {
        token: Option<String>,
        access_token: Option<String>,
        expires_in: Option<u64>,
    }
    let answer: Answer = serde_json::from_slice(body).ok()?;
    let token = answer.token.filter(|t| !t.is_empty()).or(answer.access_token).filter(|t| !t.is_empty())?;
    Some(Token { token, expires_in: answer.expires_in.map(Duration::from_secs) })
}
