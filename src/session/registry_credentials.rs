//! What lets a build into registries: the credentials of its clients.

use crate::sessions::WAIT_FOR_SESSION;
use crate::{Session, SessionError, SessionManager, TokenRequest};
use crosskit_images::registry::{self, Login};
use futures::future::BoxFuture;
use std::io;
use std::time::Duration;

/// How a daemon names itself to token services.
const CLIENT_ID: &str = "buildkit-client";

/// How long a token is good for where nobody says (Docker's token specification), in seconds.
const DEFAULT_LIFETIME: i64 = 60;

/// The credentials of some clients, asked one after the other. Without any client there are none; a client that is
/// not there is a failure, for nobody knows what it would have said.
#[derive(Clone)]
pub struct SessionCredentials {
    sessions: SessionManager,
    ids: Vec<String>,
}

impl SessionCredentials {
    /// Of the sessions with these ids.
    pub fn new(sessions: SessionManager, ids: Vec<String>) -> Self {
        let ids = ids.into_iter().filter(|id| !id.is_empty()).collect();
        SessionCredentials { sessions, ids }
    }

    /// The first answer that is something. Clients that are there are asked first, and the others, which may be about
    /// to come, only if none of those could answer.
    async fn ask<T, F, Fut>(&self, mut with: F) -> Result<Option<T>, SessionError>
    where
        F: FnMut(Session) -> Fut,
        Fut: Future<Output = Result<Option<T>, SessionError>>,
    {
        let (open, others): (Vec<_>, Vec<_>) =
            self.ids.iter().partition(|id| self.sessions.get_now(id).is_some());
        let (mut answered, mut failure) = (self.ids.is_empty(), None);
        for (at, id) in open.iter().chain(&others).enumerate() {
            if answered && at >= open.len() {
                break;
            }
            let asked = async { with(self.sessions.get(id, WAIT_FOR_SESSION).await?).await };
            match asked.await {
                Ok(Some(found)) => return Ok(Some(found)),
                Ok(None) => answered = true,
                Err(error) => failure = Some(error),
            }
        }
        match failure {
            Some(failure) if !answered => Err(failure),
            _ => Ok(None),
        }
    }
}

impl registry::Credentials for SessionCredentials {
    fn login<'a>(&'a self, host: &'a str) -> BoxFuture<'a, crosskit_images::Result<Option<Login>>> {
        Box::pin(async move {
            let found = self.ask(async |session| {
                let found = session.credentials(host).await?;
                Ok(found.filter(|found| !found.secret.is_empty()))
            });
            let found = found.await.map_err(|e| failed(host, e))?;
            Ok(found.map(|found| Login { user: found.username, secret: found.secret }))
        })
    }

    fn token<'a>(
        &'a self,
        request: &'a registry::TokenRequest,
    ) -> BoxFuture<'a, crosskit_images::Result<Option<registry::Token>>> {
        Box::pin(async move {
            let token = self.ask(async |session| {
                // A client that has no key for the registry fetches no tokens for it.
                if session.token_authority(&request.host).await?.is_none() {
                    return Ok(None);
                }
                let request = TokenRequest {
                    client_id: CLIENT_ID.to_string(),
                    host: request.host.clone(),
                    realm: request.realm.clone(),
                    service: request.service.clone(),
                    scopes: request.scopes.clone(),
                };
                session.fetch_token(request).await.map(Some)
            });
            let Some(token) = token.await.map_err(|e| failed(&request.host, e))? else { return Ok(None) };
            let lifetime = if token.expires_in > 0 { token.expires_in } else { DEFAULT_LIFETIME };
            let expires_in = u64::try_from(lifetime).ok().map(Duration::from_secs);
            Ok(Some(registry::Token { token: token.token, expires_in }))
        })
    }
}

fn failed(host: &str, error: SessionError) -> crosskit_images::Error {
    let kind = match error {
        SessionError::NoSession { .. } | SessionError::NoSessions => io::ErrorKind::NotConnected,
        _ => io::ErrorKind::Other,
    };
    crosskit_images::Error::io(
        format!("get credentials for {host} from the client"),
        io::Error::new(kind, error),
    )
}
