//! Asking the client for registry credentials, or for tokens in place of them.

use crate::{Session, SessionError};
use crosskit_api::filesync::auth_client::AuthClient;
use crosskit_api::filesync::{
    CredentialsRequest, FetchTokenRequest, GetTokenAuthorityRequest, VerifyTokenAuthorityRequest,
};
use ring::signature::{ED25519, UnparsedPublicKey};
use std::sync::LazyLock;
use std::time::Duration;
use tonic::Code;

/// A person may have to unlock a keychain; longer than this nobody waits.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Different for every run of the daemon, so that no key of a client stays the same.
static SALT: LazyLock<[u8; 32]> = LazyLock::new(rand::random);

/// A name and a secret. With an empty name the secret is a token that stands for the account;
/// with both empty there are none.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    /// The account.
    pub username: String,
    /// Its password, or a token.
    pub secret: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("username", &self.username).finish_non_exhaustive()
    }
}

/// A token to be fetched by the client.
#[derive(Debug, Clone, Default)]
pub struct TokenRequest {
    /// Who asks.
    pub client_id: String,
    /// The registry.
    pub host: String,
    /// Where tokens are to be had.
    pub realm: String,
    /// The service as the registry names it.
    pub service: String,
    /// What the token is for.
    pub scopes: Vec<String>,
}

/// A token that the client fetched.
#[derive(Clone)]
pub struct Token {
    /// The token.
    pub token: String,
    /// How long it is good for, in seconds.
    pub expires_in: i64,
    /// When it was issued, in seconds since 1970; 0 if that is not known.
    pub issued_at: i64,
}

impl Session {
    fn auth(&self) -> AuthClient<crate::Channel> {
        AuthClient::with_origin(self.channel(), self.origin())
    }

    /// The client's credentials for a registry. None where the client offers no credentials at all.
    pub async fn credentials(&self, host: &str) -> Result<Option<Credentials>, SessionError> {
        let request = with_timeout(CredentialsRequest { host: host.to_string() });
        match in_time(self.auth().credentials(request)).await {
            Ok(answer) => {
                let answer = answer.into_inner();
                Ok(Some(Credentials { username: answer.username, secret: answer.secret }))
            }
            Err(status) if status.code() == Code::Unimplemented => Ok(None),
            Err(status) => Err(SessionError::call(format!("get credentials for {host}"))(status)),
        }
    }

    /// Has the client fetch a token, so that its secret stays with it.
    pub async fn fetch_token(&self, request: TokenRequest) -> Result<Token, SessionError> {
        let doing = format!("fetch token for {}", request.host);
        let request = with_timeout(FetchTokenRequest {
            client_id: request.client_id,
            host: request.host,
            realm: request.realm,
            service: request.service,
            scopes: request.scopes,
        });
        let answer =
            in_time(self.auth().fetch_token(request)).await.map_err(SessionError::call(doing))?.into_inner();
        Ok(Token { token: answer.token, expires_in: answer.expires_in, issued_at: answer.issued_at })
    }

    /// The key that stands for the client's credentials for `host`: who can sign with it may use
    /// tokens fetched with them. None if the client fetches no tokens.
    pub async fn token_authority(&self, host: &str) -> Result<Option<[u8; 32]>, SessionError> {
        let doing = format!("get token authority for {host}");
        let request = with_timeout(GetTokenAuthorityRequest { host: host.to_string(), salt: SALT.to_vec() });
        let key = match in_time(self.auth().get_token_authority(request)).await {
            Ok(answer) => answer.into_inner().public_key,
            Err(status) if matches!(status.code(), Code::Unimplemented | Code::Unavailable) => {
                return Ok(None);
            }
            Err(status) => return Err(SessionError::call(doing)(status)),
        };
        let len = key.len();
        let key =
            key.try_into().map_err(|_| SessionError::Protocol(format!("invalid pubkey length {len}")))?;
        Ok(Some(key))
    }

    /// Whether the client holds the credentials that `key` stands for.
    pub async fn verify_token_authority(&self, host: &str, key: &[u8; 32]) -> Result<bool, SessionError> {
        let payload: [u8; 32] = rand::random();
        let request = with_timeout(VerifyTokenAuthorityRequest {
            host: host.to_string(),
            payload: payload.to_vec(),
            salt: SALT.to_vec(),
        });
        let signed = match in_time(self.auth().verify_token_authority(request)).await {
            Ok(answer) => answer.into_inner().signed,
            Err(status) if status.code() == Code::Unimplemented => return Ok(false),
            Err(status) => {
                return Err(SessionError::call(format!("verify token authority for {host}"))(status));
            }
        };
        // The signature (64 bytes), then what was signed (NaCl's crypto_sign).
        let Some((signature, message)) = signed.split_at_checked(64) else { return Ok(false) };
        Ok(message == payload && UnparsedPublicKey::new(&ED25519, key).verify(message, signature).is_ok())
    }
}

/// The answer to a call, unless nobody gives one.
async fn in_time<T>(
    call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
) -> Result<tonic::Response<T>, tonic::Status> {
    match tokio::time::timeout(TIMEOUT, call).await {
        Ok(answer) => answer,
        Err(_) => Err(tonic::Status::deadline_exceeded(format!(
            "context deadline exceeded: the client has not answered for {} s",
            TIMEOUT.as_secs()
        ))),
    }
}

/// A request that tells the client how long somebody waits for the answer.
fn with_timeout<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(TIMEOUT);
    request
}
