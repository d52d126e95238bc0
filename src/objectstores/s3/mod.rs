//! Buckets of Amazon S3, and of what speaks its protocol.

mod credentials;
mod machine;
mod profiles;
mod sign;
mod tokens;
mod upload;

#[cfg(test)]
#[allow(clippy::unwrap_used)] // A test ends where something is not as it should be.
mod credentials_tests;

pub use credentials::{CredentialSource, Credentials};

use crate::encoding::encode;
use crate::environment::Environment;
use crate::error::{Result, StoreError};
use crate::http::{Answer, Http, Method, Request, Retries, StatusCode};
use crate::objects::{Described, Objects, Version};
use crate::reading::PieceStream;
use crate::{pieces, xml};
use bytes::Bytes;
use futures::future::BoxFuture;
use sign::{OF_NOTHING, Scope, Target, sign};
use std::fs::File;
use std::sync::Arc;

/// Where a bucket is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The bucket's name.
    pub bucket: String,
    /// The region, which signatures are for.
    pub region: String,
    /// Where the service is, if it is not Amazon's.
    pub endpoint: Option<String>,
    /// Whether the bucket's name goes into the path, not into the name of the host.
    pub path_style: bool,
}

/// A bucket.
pub struct Bucket {
    http: Http,
    credentials: CredentialSource,
    region: String,
    /// `https://HOST[:PORT]`.
    base: String,
    /// What comes before keys: a slash at least.
    path: String,
    name: String,
}

/// A request to a bucket, before it is signed.
struct Ask<'a> {
    method: Method,
    key: &'a str,
    query: &'a [(&'a str, &'a str)],
    headers: &'a [(&'a str, &'a str)],
    body: Bytes,
    /// The SHA-256 of the body.
    payload: &'a str,
    /// Whether the store may take its time.
    slow: bool,
}

impl<'a> Ask<'a> {
    fn new(method: Method, key: &'a str) -> Self {
        Ask { method, key, query: &[], headers: &[], body: Bytes::new(), payload: OF_NOTHING, slow: false }
    }
}

/// The end of the names of Amazon's hosts in a region.
fn domain(region: &str) -> &'static str {
    if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" }
}

impl Bucket {
    /// A bucket at its place. Nothing is asked there yet.
    ///
    /// # Errors
    /// An endpoint that is no address.
    pub fn new(
        place: &Place,
        environment: &Environment,
        credentials: CredentialSource,
        retries: Retries,
    ) -> Result<Self> {
        let Place { bucket, region, .. } = place;
        let told = place.endpoint.clone();
        let told = told.or_else(|| environment.first(&["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"]));
        let own = told.is_none();
        let endpoint = told.unwrap_or_else(|| format!("https://s3.{region}.{}", domain(region)));
        let invalid = |why: &str| StoreError::Options(format!("invalid endpoint_url {endpoint:?}: {why}"));
        let url = reqwest::Url::parse(&endpoint).map_err(|e| invalid(&e.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") || url.query().is_some() {
            return Err(invalid("it has to be http:// or https:// and a host"));
        }
        let host = url.host_str().ok_or_else(|| invalid("it has no host"))?;
        let address = host.starts_with('[') || host.parse::<std::net::IpAddr>().is_ok();
        // No certificate is for names with further dots, and an address has no names below it.
        let in_path = place.path_style || address || (own && bucket.contains('.'));
        let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
        let prefix = url.path().trim_end_matches('/');
        let (host, path) = match in_path {
            true => (host.to_owned(), format!("{prefix}/{}/", encode(bucket, false))),
            false => (format!("{bucket}.{host}"), format!("{prefix}/")),
        };
        let base = format!("{}://{host}{port}", url.scheme());
        let http = Http::new(&base, retries)?;
        let (region, name) = (region.clone(), bucket.clone());
        Ok(Bucket { http, credentials, region, base, path, name })
    }

    /// Makes a request.
    async fn send(&self, doing: &str, ask: Ask<'_>) -> Result<Answer> {
        let credentials = self.credentials.get().await?;
        let path = format!("{}{}", self.path, encode(ask.key, true));
        let target = Target { base: &self.base, path: &path, query: ask.query };
        let make = |at| {
            let mut request = Request::new(ask.method.clone(), target.url()).body(ask.body.clone());
            request.slow |= ask.slow;
            for (name, value) in ask.headers {
                request = request.header(name, *value);
            }
            let scope = Scope { region: &self.region, service: "s3" };
            sign(request, target, ask.payload, scope, &credentials, at)
        };
        self.http.send(doing, make).await
    }

    fn doing(&self, what: &str, key: &str) -> String {
        format!("{what} {key} of bucket {}", self.name)
    }

    async fn put(&self, key: &str, body: Bytes, payload: &str) -> Result<()> {
        let ask = Ask { body, payload, ..Ask::new(Method::PUT, key) };
        self.send(&self.doing("write", key), ask).await.map(drop)
    }
}

/// The text of an answer that may turn into a refusal on its way.
async fn whole(doing: &str, answer: Answer) -> Result<String> {
    let status = answer.status();
    let text = answer.text().await?;
    match xml::has(&text, "Error") {
        false => Ok(text),
        true => Err(StoreError::Refused {
            doing: doing.to_owned(),
            status,
            code: xml::text(&text, "Code").unwrap_or_default(),
            message: xml::text(&text, "Message").unwrap_or_default(),
        }),
    }
}

/// What an answer means in which nothing was found.
fn found(asked: Result<Answer>) -> Result<Option<Answer>> {
    match asked {
        Ok(answer) => Ok(Some(answer)),
        Err(error)
            if error.status() == Some(StatusCode::NOT_FOUND) && error.code() != Some("NoSuchBucket") =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

impl Objects for Bucket {
    fn describe<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Described>>> {
        Box::pin(async move {
            let doing = self.doing("look for", key);
            let asked = self.send(&doing, Ask::new(Method::HEAD, key)).await;
            found(asked)?.map(|answer| answer.described()).transpose()
        })
    }

    fn read<'a>(&'a self, key: &'a str, from: u64) -> BoxFuture<'a, Result<Option<PieceStream>>> {
        Box::pin(async move {
            let range = format!("bytes={from}-");
            let headers = [("range", range.as_str())];
            let headers = if from == 0 { &[][..] } else { &headers[..] };
            let doing = self.doing("read", key);
            let asked = self.send(&doing, Ask { headers, ..Ask::new(Method::GET, key) }).await;
            found(asked)?.map(|answer| answer.stream_from(from)).transpose()
        })
    }

    fn read_version<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<(Version, PieceStream)>>> {
        Box::pin(async move {
            let asked = self.send(&self.doing("read", key), Ask::new(Method::GET, key)).await;
            Ok(found(asked)?.map(|answer| (answer.version(), answer.stream())))
        })
    }

    fn write_after<'a>(
        &'a self,
        key: &'a str,
        content: Bytes,
        read: Option<&'a Version>,
    ) -> BoxFuture<'a, Result<bool>> {
        Box::pin(async move {
            let payload = pieces::sha256(&content);
            let headers: Vec<_> = Version::condition(read).into_iter().collect();
            let ask = Ask {
                body: content.clone(),
                payload: &payload,
                headers: &headers,
                ..Ask::new(Method::PUT, key)
            };
            match self.send(&self.doing("write", key), ask).await {
                // One that knows no conditions: the last one counts.
                Err(error) if error.status() == Some(StatusCode::NOT_IMPLEMENTED) => {
                    self.put(key, content, &payload).await.map(|()| true)
                }
                asked => Version::written(asked),
            }
        })
    }

    fn write<'a>(&'a self, key: &'a str, content: Bytes) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let payload = pieces::sha256(&content);
            self.put(key, content, &payload).await
        })
    }

    fn touch<'a>(&'a self, key: &'a str, size: u64) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let doing = self.doing("touch", key);
            let source = encode(&format!("{}/{key}", self.name), true);
            if size >= upload::MAX_COPY {
                return self.touch_in_parts(key, size, &source, &doing).await;
            }
            let now = jiff::Timestamp::now().to_string();
            // A copy onto itself has to change something.
            let headers = [
                ("x-amz-copy-source", source.as_str()),
                ("x-amz-meta-updated-at", &now),
                ("x-amz-metadata-directive", "REPLACE"),
            ];
            let ask = Ask { headers: &headers, slow: true, ..Ask::new(Method::PUT, key) };
            let answer = self.send(&doing, ask).await?;
            whole(&doing, answer).await.map(drop)
        })
    }

    fn write_file<'a>(&'a self, key: &'a str, file: Arc<File>, size: u64) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            if size > pieces::PIECE {
                return self.write_in_parts(key, file, size).await;
            }
            let piece = pieces::read(file, 0, size).await?;
            self.put(key, piece.bytes.clone(), &piece.sha256).await
        })
    }
}
