//! The clients' credentials for registries.

use crosskit_images::Result;
use crosskit_images::registry::{Credentials, Login, Token, TokenRequest};
use crosskit_session::{SessionError, SessionManager};
use futures::future::BoxFuture;
use std::time::Duration;

/// Asks the sessions of a build, the first that answers.
pub(crate) struct SessionCredentials {
    pub(crate) sessions: SessionManager,
    pub(crate) ids: Vec<String>,
}

fn failed(host: &str) -> impl FnOnce(SessionError) -> crosskit_images::Error {
    let doing = format!("get credentials for {host} from the client");
    move |err| crosskit_images::Error::io(doing, std::io::Error::other(err))
}

impl Credentials for SessionCredentials {
    fn login<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Result<Option<Login>>> {
        Box::pin(async move {
            if self.ids.is_empty() {
                return Ok(None);
            }
            let found = self.sessions.any(&self.ids, async |session| session.credentials(host).await).await;
            let found = found.map_err(failed(host))?.unwrap_or_default();
            if found.secret.is_empty() {
                return Ok(None);
            }
            Ok(Some(Login { user: found.username, secret: found.secret }))
        })
    }

    fn token<'a>(&'a self, request: &'a TokenRequest) -> BoxFuture<'a, Result<Option<Token>>> {
        Box::pin(async move {
            if self.ids.is_empty() {
                return Ok(None);
            }
            let host = &request.host;
            let fetched = self.sessions.any(&self.ids, async |session| {
                // A client that has no key for its credentials does not fetch tokens.
                if session.token_authority(host).await?.is_none() {
                    return Ok(None);
                }
                let request = crosskit_session::TokenRequest {
                    client_id: String::new(),
                    host: host.clone(),
                    realm: request.realm.clone(),
                    service: request.service.clone(),
                    scopes: request.scopes.clone(),
                };
                session.fetch_token(request).await.map(Some)
            });
            let fetched = fetched.await.map_err(failed(host))?;
            Ok(fetched.map(|token| Token {
                token: token.token,
                expires_in: u64::try_from(token.expires_in).ok().filter(|s| *s > 0).map(Duration::from_secs),
            }))
        })
    }
}
