//! Signatures with an account's key (Azure Storage, "Authorize with Shared Key").

use crate::error::{Result, StoreError};
use crate::http::Request;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;

/// The headers whose values are signed one a line, before those of Azure's own.
const SIGNED: [&str; 11] = [
    "content-encoding",
    "content-language",
    "content-length",
    "content-md5",
    "content-type",
    "date",
    "if-modified-since",
    "if-match",
    "if-none-match",
    "if-unmodified-since",
    "range",
];

/// An account's key.
pub struct SharedKey {
    account: String,
    key: hmac::Key,
}

impl SharedKey {
    /// The key of an account, in base64.
    ///
    /// # Errors
    /// It is no base64.
    pub fn new(account: &str, key: &str) -> Result<Self> {
        let key = STANDARD.decode(key.trim());
        let key = key.map_err(|e| StoreError::Options(format!("the account's key is not in base64: {e}")))?;
        Ok(SharedKey { account: account.to_owned(), key: hmac::Key::new(hmac::HMAC_SHA256, &key) })
    }

    /// Signs a request with all its headers.
    pub(super) fn sign(&self, request: Request, path: &str, query: &[(&str, &str)]) -> Request {
        let text = self.text(&request, path, query);
        let signature = STANDARD.encode(hmac::sign(&self.key, text.as_bytes()));
        request.header("authorization", format!("SharedKey {}:{signature}", self.account))
    }

    /// What is signed.
    fn text(&self, request: &Request, path: &str, query: &[(&str, &str)]) -> String {
        let length = match request.body.len() {
            0 => String::new(),
            length => length.to_string(),
        };
        let header = |name: &str| match name {
            "content-length" => length.as_str(),
            _ => request.headers.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value),
        };
        let mut text = format!("{}\n", request.method);
        for name in SIGNED {
            text.push_str(header(name));
            text.push('\n');
        }
        let mut own: Vec<_> = request.headers.iter().filter(|(name, _)| name.starts_with("x-ms-")).collect();
        own.sort();
        for (name, value) in own {
            text.push_str(&format!("{name}:{}\n", value.trim()));
        }
        text.push_str(&format!("/{}{path}", self.account));
        let mut query = query.to_vec();
        query.sort_unstable();
        for (name, value) in query {
            text.push_str(&format!("\n{name}:{value}"));
        }
        text
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // A test ends where something is not as it should be.
mod tests {
    use super::*;
    use crate::http::Method;

    /// The example of Azure's reference, "Authorize with Shared Key": metadata of a container.
    #[test]
    fn what_is_signed_is_what_azure_describes() {
        let key = SharedKey::new("myaccount", "a2V5").unwrap();
        let request = Request::new(Method::GET, "https://myaccount.blob.core.windows.net/mycontainer")
            .header("x-ms-version", "2015-02-21")
            .header("x-ms-date", "Fri, 26 Jun 2015 23:39:12 GMT");
        let query = [("restype", "container"), ("comp", "metadata"), ("timeout", "20")];
        let expected = "GET\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:Fri, 26 Jun 2015 23:39:12 GMT\nx-ms-version:2015-02-21\n\
                        /myaccount/mycontainer\ncomp:metadata\nrestype:container\ntimeout:20";
        assert_eq!(key.text(&request, "/mycontainer", &query), expected);
    }
}
