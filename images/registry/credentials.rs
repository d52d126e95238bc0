//! What lets a build into a registry. The secrets are the client's; here they only pass through.

use std::time::Duration;

use futures::future::BoxFuture;

use crate::errors::Result;

/// A user and a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// The user. Empty where the secret is an identity token.
    pub user: String,
    /// The password, or the identity token.
    pub secret: String,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Login({}, …)", self.user)
    }
}

/// What a registry asks a token for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TokenRequest {
    /// The registry.
    pub host: String,
    /// Where tokens are given.
    pub realm: String,
    /// The service's name for itself.
    pub service: String,
    /// What the token must allow, `repository:NAME:pull,push`.
    pub scopes: Vec<String>,
}

/// A token and how long it is good for.
#[derive(Clone)]
pub struct Token {
    /// The token.
    pub token: String,
    /// How long from now; none where nobody said.
    pub expires_in: Option<Duration>,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Token(…, {:?})", self.expires_in)
    }
}

/// Whoever knows the secrets: a client's session.
pub trait Credentials: Send + Sync {
    /// The login for a registry; none for anonymous access.
    fn login<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Result<Option<Login>>>;

    /// A token, where the client rather fetches it itself than give its secret away; none if it does not.
    fn token<'a>(&'a self, _request: &'a TokenRequest) -> BoxFuture<'a, Result<Option<Token>>> {
        Box::pin(async { Ok(None) })
    }
}

/// Nobody's credentials.
#[derive(Clone, Copy, Debug, Default)]
pub struct Anonymous;

impl Credentials for Anonymous {
    fn login<'a>(&'a self, _host: &'a str) -> BoxFuture<'a, Result<Option<Login>>> {
        Box::pin(async { Ok(None) })
    }
}
