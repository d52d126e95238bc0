//! What the token of a runner of GitHub's tells: for which branches it may read and write.

use crate::error::{RemoteCacheError, Result};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde::Deserialize;

/// The bit of a permission to write.
const WRITE: u32 = 2;

/// A branch or what stands for one.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Scope {
    #[serde(rename = "Scope", alias = "scope")]
    pub name: String,
    #[serde(rename = "Permission", alias = "permission")]
    permission: u32,
}

impl Scope {
    /// Whether it may be written to.
    pub fn is_writable(&self) -> bool {
        self.permission & WRITE != 0
    }
}

/// Reads the scopes of a token that is good now. Nobody here can check who has made it: the service does.
pub(super) fn scopes(token: &str, now: Timestamp) -> Result<Vec<Scope>> {
    #[derive(Deserialize)]
    struct Claims {
        ac: Option<String>,
        exp: Option<f64>,
        nbf: Option<f64>,
    }
    let invalid = |why: &str| RemoteCacheError::Options(format!("invalid token {why}"));
    let mut parts = token.split('.');
    let (Some(_), Some(claims), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(invalid("of GitHub's runner: it is no JSON web token"));
    };
    let claims = URL_SAFE_NO_PAD.decode(claims.trim_end_matches('='));
    let claims = claims.map_err(|_| invalid("of GitHub's runner: its claims are not in base64"))?;
    let claims = serde_json::from_slice::<Claims>(&claims);
    let claims = claims.map_err(|e| invalid(&format!("of GitHub's runner: its claims: {e}")))?;
    let scopes = claims.ac.ok_or_else(|| invalid("without access controls"))?;
    let moment = |seconds: f64| Timestamp::from_second(seconds as i64).unwrap_or_default();
    let until = moment(claims.exp.ok_or_else(|| invalid("without expiration time"))?);
    if now > until {
        return Err(RemoteCacheError::Options(format!("cache token expired at {until}")));
    }
    if let Some(from) = claims.nbf.map(moment).filter(|from| now < *from) {
        return Err(invalid(&format!("which is good from {from} on: check this machine's clock")));
    }
    serde_json::from_str(&scopes).map_err(|e| invalid(&format!("with access controls that say nothing: {e}")))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // A test ends where something is not as it should be.
mod tests {
    use super::*;

    #[test]
    fn tokens_tell_their_scopes() {
        let token = |claims: &str| format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims));
        let now = Timestamp::from_second(1000).unwrap();
        let good = r#"{"ac":"[{\"Scope\":\"refs/heads/a\",\"Permission\":3},{\"Scope\":\"refs/heads/main\",\"Permission\":1}]","exp":2000,"nbf":500}"#;
        let found = scopes(&token(good), now).unwrap();
        let found: Vec<_> = found.iter().map(|scope| (scope.name.as_str(), scope.is_writable())).collect();
        assert_eq!(found, [("refs/heads/a", true), ("refs/heads/main", false)]);
        for (text, expected) in [
            ("x".to_owned(), "it is no JSON web token"),
            ("a.!.b".to_owned(), "its claims are not in base64"),
            (token(r#"{"exp":2000}"#), "invalid token without access controls"),
            (token(r#"{"ac":"[]"}"#), "invalid token without expiration time"),
            (token(r#"{"ac":"[]","exp":900}"#), "cache token expired at 1970-01-01T00:15:00Z"),
            (token(r#"{"ac":"[]","exp":2000,"nbf":1500}"#), "is good from 1970-01-01T00:25:00Z on"),
            (token(r#"{"ac":"{}","exp":2000}"#), "access controls that say nothing"),
        ] {
            let told = scopes(&text, now).unwrap_err().to_string();
            assert!(told.contains(expected), "{told}");
        }
    }
}
