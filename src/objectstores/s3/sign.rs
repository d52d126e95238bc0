//! AWS's signatures of requests, version 4.

use super::credentials::Credentials;
use crate::encoding::query;
use crate::http::Request;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use ring::hmac;

/// The SHA-256 of no bytes.
pub(crate) const OF_NOTHING: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// For whom and what requests are signed.
#[derive(Clone, Copy)]
pub(crate) struct Scope<'a> {
    pub region: &'a str,
    /// `s3` or `sts`.
    pub service: &'a str,
}

/// A request's address: what is signed of it is how it is sent.
#[derive(Clone, Copy)]
pub(crate) struct Target<'a> {
    /// `https://HOST[:PORT]`.
    pub base: &'a str,
    /// Encoded.
    pub path: &'a str,
    pub query: &'a [(&'a str, &'a str)],
}

impl Target<'_> {
    pub fn url(&self) -> String {
        match self.query {
            [] => format!("{}{}", self.base, self.path),
            pairs => format!("{}{}?{}", self.base, self.path, query(pairs)),
        }
    }

    fn host(&self) -> &str {
        self.base.split_once("://").map_or(self.base, |(_, host)| host)
    }
}

/// Signs a request with all its headers. `payload` is the SHA-256 of the body.
pub(crate) fn sign(
    request: Request,
    target: Target<'_>,
    payload: &str,
    scope: Scope<'_>,
    credentials: &Credentials,
    at: Timestamp,
) -> Request {
    let time = at.to_zoned(TimeZone::UTC).strftime("%Y%m%dT%H%M%SZ").to_string();
    let day = &time[..8];
    let mut request = request.header("x-amz-date", &*time);
    if scope.service == "s3" {
        request = request.header("x-amz-content-sha256", payload);
    }
    if let Some(token) = &credentials.session_token {
        request = request.header("x-amz-security-token", &**token);
    }
    let mut headers: Vec<(&str, &str)> =
        request.headers.iter().map(|(name, value)| (name.as_str(), value.trim())).collect();
    headers.push(("host", target.host()));
    headers.sort_unstable();
    let names: Vec<&str> = headers.iter().map(|(name, _)| *name).collect();
    let names = names.join(";");
    let headers: String = headers.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
    let canonical = format!(
        "{}\n{}\n{}\n{headers}\n{names}\n{payload}",
        request.method,
        target.path,
        query(target.query)
    );
    let within = format!("{day}/{}/{}/aws4_request", scope.region, scope.service);
    let to_sign =
        format!("AWS4-HMAC-SHA256\n{time}\n{within}\n{}", crate::pieces::sha256(canonical.as_bytes()));
    let start = format!("AWS4{}", credentials.secret_access_key);
    let key = [day, scope.region, scope.service, "aws4_request"]
        .iter()
        .fold(start.into_bytes(), |key, part| hmac(&key, part.as_bytes()));
    let signature = hex::encode(hmac(&key, to_sign.as_bytes()));
    let id = &credentials.access_key_id;
    request.header(
        "authorization",
        format!("AWS4-HMAC-SHA256 Credential={id}/{within}, SignedHeaders={names}, Signature={signature}"),
    )
}

fn hmac(key: &[u8], text: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text).as_ref().to_vec()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // A test ends where something is not as it should be.
mod tests {
    use super::*;
    use crate::http::Method;

    /// The examples of Amazon's S3 reference, "Authenticating Requests: Using the Authorization Header".
    #[test]
    fn signatures_are_amazons() {
        let credentials = Credentials {
            access_key_id: "AKIAIOSFODNN7EXAMPLE".to_owned(),
            secret_access_key: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".to_owned(),
            session_token: None,
            expires: None,
        };
        let put = "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072";
        let date = ("date", "Fri, 24 May 2013 00:00:00 GMT");
        type Case<'a> =
            (Method, &'a str, &'a [(&'a str, &'a str)], &'a [(&'a str, &'a str)], &'a str, &'a str);
        let cases: [Case<'_>; 4] = [
            (
                Method::GET,
                "/test.txt",
                &[],
                &[("range", "bytes=0-9")],
                OF_NOTHING,
                "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
            ),
            (
                Method::PUT,
                "/test%24file.text",
                &[],
                &[date, ("x-amz-storage-class", "REDUCED_REDUNDANCY")],
                put,
                "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
            ),
            (
                Method::GET,
                "/",
                &[("lifecycle", "")],
                &[],
                OF_NOTHING,
                "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
            ),
            (
                Method::GET,
                "/",
                &[("prefix", "J"), ("max-keys", "2")],
                &[],
                OF_NOTHING,
                "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
            ),
        ];
        for (method, path, query, headers, payload, expected) in cases {
            let target = Target { base: "https://examplebucket.s3.amazonaws.com", path, query };
            let mut request = Request::new(method, target.url());
            for (name, value) in headers {
                request = request.header(name, *value);
            }
            let scope = Scope { region: "us-east-1", service: "s3" };
            let at = "2013-05-24T00:00:00Z".parse().unwrap();
            let signed = sign(request, target, payload, scope, &credentials, at);
            let (_, told) = signed.headers.iter().find(|(name, _)| name == "authorization").unwrap();
            assert!(told.ends_with(&format!("Signature={expected}")), "{path} {query:?}: {told}");
        }
    }

    /// As botocore signs it.
    #[test]
    fn whatever_keys_have_in_them_is_signed_as_it_is_sent() {
        let credentials = Credentials {
            access_key_id: "AKID".to_owned(),
            secret_access_key: "SECRET".to_owned(),
            session_token: Some("TOKEN".to_owned()),
            expires: None,
        };
        let path = format!("/caches/{}", crate::encode("blobs/sha256:ab c", true));
        let query = [("uploadId", "a/b+c="), ("partNumber", "2")];
        let target = Target { base: "http://127.0.0.1:9000", path: &path, query: &query };
        let url = "http://127.0.0.1:9000/caches/blobs/sha256%3Aab%20c?partNumber=2&uploadId=a%2Fb%2Bc%3D";
        assert_eq!(target.url(), url);
        let request = Request::new(Method::PUT, target.url());
        let request = request.header("x-amz-copy-source", "caches/blobs/sha256%3Aab");
        let (scope, payload) = (Scope { region: "eu-west-1", service: "s3" }, crate::pieces::sha256(b"hi"));
        let at = "2026-11-22T05:00:00Z".parse().unwrap();
        let signed = sign(request, target, &payload, scope, &credentials, at);
        let (_, told) = signed.headers.last().unwrap();
        let expected = "AWS4-HMAC-SHA256 Credential=AKID/20261122/eu-west-1/s3/aws4_request, \
            SignedHeaders=host;x-amz-content-sha256;x-amz-copy-source;x-amz-date;x-amz-security-token, \
            Signature=f99feda5b7e68a7c69b430ab0e66d14afa7faf3bafcb4568ea4deb9561a78e41";
        assert_eq!(told, expected);
    }
}
