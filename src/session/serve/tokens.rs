//! Fetching registry tokens with the person's credentials.

use super::keychain::Known;
use crate::SessionError;
use crosskit_api::filesync::{FetchTokenRequest, FetchTokenResponse};
use reqwest::StatusCode;
use reqwest::header::{CONTENT_TYPE, USER_AGENT};
use serde::Deserialize;

/// How long a token is good for where the answer does not say, in seconds.
const USUAL_LIFE: i64 = 60;

/// The name under which tokens are asked for.
const CLIENT: &str = "buildkit-client";

/// The largest answer, in bytes.
const LARGEST: usize = 1 << 20;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Answer {
    token: String,
    access_token: String,
    expires_in: i64,
    issued_at: String,
}

enum Failure {
    Refused(StatusCode),
    Other(String),
}

impl From<reqwest::Error> for Failure {
    fn from(err: reqwest::Error) -> Self {
        Failure::Other(err.to_string())
    }
}

/// Fetches a token: as OAuth does it where there are credentials, in the old way where the
/// registry knows no other, anonymously where there are none.
pub(super) async fn fetch(
    http: &reqwest::Client,
    request: &FetchTokenRequest,
    known: &Known,
) -> Result<FetchTokenResponse, SessionError> {
    if !known.registry_token.is_empty() {
        return Ok(FetchTokenResponse {
            token: known.registry_token.clone(),
            expires_in: USUAL_LIFE,
            issued_at: 0,
        });
    }
    let credentials = &known.credentials;
    let (answer, what) = if credentials.secret.is_empty() {
        (get(http, request, known).await, "anonymous")
    } else {
        let answer = match post(http, request, known).await {
            // Registries that know only the old way answer like this.
            Err(Failure::Refused(StatusCode::NOT_FOUND | StatusCode::UNAUTHORIZED)) => {
                get(http, request, known).await
            }
            Err(Failure::Refused(StatusCode::METHOD_NOT_ALLOWED)) if !credentials.username.is_empty() => {
                get(http, request, known).await
            }
            answer => answer,
        };
        (answer, "oauth")
    };
    let answer = answer.map_err(|failure| {
        let reason = match failure {
            Failure::Refused(code) => format!("unexpected status from {}: {code}", request.realm),
            Failure::Other(text) => text,
        };
        SessionError::Peer { side: "registry", message: format!("failed to fetch {what} token: {reason}") }
    })?;
    Ok(FetchTokenResponse {
        token: answer.token,
        expires_in: if answer.expires_in == 0 { USUAL_LIFE } else { answer.expires_in },
        issued_at: seconds(&answer.issued_at).unwrap_or(0),
    })
}

async fn post(http: &reqwest::Client, request: &FetchTokenRequest, known: &Known) -> Result<Answer, Failure> {
    let credentials = &known.credentials;
    let mut form: Vec<(&str, String)> = Vec::new();
    if !request.scopes.is_empty() {
        form.push(("scope", request.scopes.join(" ")));
    }
    form.push(("service", request.service.clone()));
    form.push(("client_id", CLIENT.to_string()));
    if credentials.username.is_empty() {
        form.push(("grant_type", "refresh_token".into()));
        form.push(("refresh_token", credentials.secret.clone()));
    } else {
        form.push(("grant_type", "password".into()));
        form.push(("username", credentials.username.clone()));
        form.push(("password", credentials.secret.clone()));
    }
    let body: Vec<String> =
        form.iter().map(|(key, value)| format!("{key}={}", crate::headers::escape(value))).collect();
    let call = http
        .post(&request.realm)
        .header(USER_AGENT, CLIENT)
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded; charset=utf-8")
        .body(body.join("&"));
    read(call.send().await?).await
}

async fn get(http: &reqwest::Client, request: &FetchTokenRequest, known: &Known) -> Result<Answer, Failure> {
    let mut url = reqwest::Url::parse(&request.realm).map_err(|err| Failure::Other(err.to_string()))?;
    {
        let mut query = url.query_pairs_mut();
        if !request.service.is_empty() {
            query.append_pair("service", &request.service);
        }
        for scope in &request.scopes {
            query.append_pair("scope", scope);
        }
    }
    let mut call = http.get(url).header(USER_AGENT, CLIENT);
    let credentials = &known.credentials;
    if !credentials.secret.is_empty() {
        call = call.basic_auth(&credentials.username, Some(&credentials.secret));
    }
    read(call.send().await?).await
}

async fn read(mut response: reqwest::Response) -> Result<Answer, Failure> {
    let code = response.status();
    if code.as_u16() < 200 || code.as_u16() >= 400 {
        return Err(Failure::Refused(code));
    }
    let mut body = Vec::new();
    while let Some(piece) = response.chunk().await? {
        body.extend_from_slice(&piece);
        if body.len() > LARGEST {
            return Err(Failure::Other("the token's answer is too long".into()));
        }
    }
    let mut answer: Answer = serde_json::from_slice(&body)
        .map_err(|err| Failure::Other(format!("unable to decode token response: {err}")))?;
    if !answer.access_token.is_empty() {
        answer.token = std::mem::take(&mut answer.access_token);
    }
    if answer.token.is_empty() {
        return Err(Failure::Other("authorization server did not include a token in the response".into()));
    }
    Ok(answer)
}

/// Seconds since 1970 of a time such as `2026-01-31T12:00:00.5Z`.
fn seconds(text: &str) -> Option<i64> {
    text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_second)
}
