//! What lets a build into registries: the credentials of its clients.

use crate::{Session, SessionError, SessionManager, TokenRequest};
use crosskit_images::registry::{self, Login};
use futures::future::BoxFuture;
use std::time::Duration;

/// How a daemon names itself to token services.
const CLIENT_ID: &str = "buildkit-client";

/// How long a token is good for where nobody says (Docker's token specification), in seconds.
const DEFAULT_LIFETIME: i64 = 60;

/// The credentials of some clients, asked one after the other.
#[derive(Clone)]
pub struct SessionCredentials {
    sessions: SessionManager,
    ids: Vec<String>,
}

impl SessionCredentials {
    /// Of the sessions with these ids.
    pub fn new(sessions: SessionManager, ids: Vec<String>) -> Self {
        SessionCredentials { sessions, ids }
    }

    /// Those that are open now. One that is gone has nothing to offer.
    fn open(&self) -> impl Iterator<Item = Session> + '_ {
        self.ids.iter().filter_map(|id| self.sessions.get_now(id))
    }
}

impl registry::Credentials for SessionCredentials {
    fn login<'a>(&'a self, host: &'a str) -> BoxFuture<'a, crosskit_images::Result<Option<Login>>> {
        Box::pin(async move {
            for session in self.open() {
                let found = session.credentials(host).await.map_err(|e| failed(host, &e))?;
                if let Some(found) = found.filter(|c| !c.secret.is_empty()) {
                    return Ok(Some(Login { user: found.username, secret: found.secret }));
                }
            }
            Ok(None)
        })
    }

    fn token<'a>(
        &'a self,
        request: &'a registry::TokenRequest,
    ) -> BoxFuture<'a, crosskit_images::Result<Option<registry::Token>>> {
        Box::pin(async move {
            for session in self.open() {
                let failed = |e: SessionError| failed(&request.host, &e);
                // A client that has no key for the registry fetches no tokens for it.
                if session.token_authority(&request.host).await.map_err(failed)?.is_none() {
                    continue;
                }
                let token = session
                    .fetch_token(TokenRequest {
                        client_id: CLIENT_ID.to_string(),
                        host: request.host.clone(),
                        realm: request.realm.clone(),
                        service: request.service.clone(),
                        scopes: request.scopes.clone(),
                    })
                    .await
                    .map_err(failed)?;
                let lifetime = if token.expires_in > 0 { token.expires_in } else { DEFAULT_LIFETIME };
                let expires_in = u64::try_from(lifetime).ok().map(Duration::from_secs);
                return Ok(Some(registry::Token { token: token.token, expires_in }));
            }
            Ok(None)
        })
    }
}

fn failed(host: &str, error: &SessionError) -> crosskit_images::Error {
    crosskit_images::Error::io(
        format!("ask the client for credentials of {host}"),
        std::io::Error::new(std::io::ErrorKind::NotConnected, error.to_string()),
    )
}
