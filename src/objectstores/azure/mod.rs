//! Blobs of Azure's storage.

mod identity;
mod shared_key;
mod upload;

#[cfg(test)]
#[allow(clippy::unwrap_used)] // A test ends where something is not as it should be.
mod identity_tests;

pub use identity::Identity;
pub use shared_key::SharedKey;

use crate::encoding::{encode, query};
use crate::error::{Result, StoreError};
use crate::http::{Answer, Http, Method, Request, Retries, StatusCode};
use crate::objects::{Described, Objects, Version};
use crate::pieces;
use crate::reading::PieceStream;
use bytes::Bytes;
use futures::future::BoxFuture;
use jiff::Timestamp;
use std::fs::File;
use std::sync::Arc;
use tokio::sync::OnceCell;

/// The version of the protocol, old enough for everybody who speaks it.
const VERSION: &str = "2021-12-02";

/// What lets one in.
pub enum Permission {
    /// The account's key.
    Key(SharedKey),
    /// Tokens for whoever the daemon is.
    Identity(Identity),
    /// Addresses that say it themselves.
    InAddress,
}

/// Where a blob is, or what blobs are in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// `https://HOST[:PORT]`.
    base: String,
    /// Encoded.
    path: String,
    /// The query that it came with.
    permit: String,
}

impl Address {
    /// Reads an address, with or without a query.
    ///
    /// # Errors
    /// It is none of HTTP's.
    pub fn parse(url: &str) -> Result<Self> {
        let invalid = |why: &str| {
            // A query is as good as a password.
            let shown = url.split('?').next().unwrap_or_default();
            StoreError::Options(format!("{shown:?} is no address of blobs: {why}"))
        };
        let parsed = reqwest::Url::parse(url).map_err(|e| invalid(&e.to_string()))?;
        if !matches!(parsed.scheme(), "http" | "https") {
            return Err(invalid("it has to be http:// or https://"));
        }
        let host = parsed.host_str().ok_or_else(|| invalid("it has no host"))?;
        let port = parsed.port().map(|port| format!(":{port}")).unwrap_or_default();
        Ok(Address {
            base: format!("{}://{host}{port}", parsed.scheme()),
            path: parsed.path().to_owned(),
            permit: parsed.query().unwrap_or_default().to_owned(),
        })
    }

    /// The account that a name of Azure's hosts begins with.
    pub fn account(&self) -> &str {
        let host = self.base.split_once("://").map_or("", |(_, host)| host);
        host.split(['.', ':']).next().unwrap_or_default()
    }

    /// The host with its scheme and port.
    pub fn host(&self) -> &str {
        &self.base
    }

    /// The address of something below.
    fn below(&self, name: &str) -> Address {
        let path = format!("{}/{}", self.path.trim_end_matches('/'), encode(name, true));
        Address { path, ..self.clone() }
    }

    fn url(&self, pairs: &[(&str, &str)]) -> String {
        let queries = [self.permit.clone(), query(pairs)];
        let queries: Vec<String> = queries.into_iter().filter(|query| !query.is_empty()).collect();
        match queries.is_empty() {
            true => format!("{}{}", self.base, self.path),
            false => format!("{}{}?{}", self.base, self.path, queries.join("&")),
        }
    }
}

/// A client for blobs.
pub struct Blobs {
    http: Http,
    permission: Permission,
}

/// A request, before it is signed.
struct Ask<'a> {
    method: Method,
    address: &'a Address,
    query: &'a [(&'a str, &'a str)],
    headers: &'a [(&'a str, &'a str)],
    body: Bytes,
}

impl<'a> Ask<'a> {
    fn new(method: Method, address: &'a Address) -> Self {
        Ask { method, address, query: &[], headers: &[], body: Bytes::new() }
    }
}

impl Blobs {
    /// A client for what is at an address and beside it.
    ///
    /// # Errors
    /// Certificates that can't be used; a token that would be sent without TLS.
    pub fn new(at: &Address, permission: Permission) -> Result<Self> {
        if matches!(permission, Permission::Identity(_)) && at.base.starts_with("http://") {
            let text =
                format!("{} has no TLS, without which no token is sent: give the account's key", at.base);
            return Err(StoreError::Options(text));
        }
        Ok(Blobs { http: Http::new(&at.base, Retries::default())?, permission })
    }

    async fn send(&self, doing: &str, ask: Ask<'_>) -> Result<Answer> {
        let token = match &self.permission {
            Permission::Identity(identity) => Some(identity.token().await?),
            Permission::Key(_) | Permission::InAddress => None,
        };
        let make = |at: Timestamp| {
            let mut request = Request::new(ask.method.clone(), ask.address.url(ask.query));
            request = request.body(ask.body.clone()).header("x-ms-version", VERSION);
            let date = jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&at);
            request = request.header("x-ms-date", date.unwrap_or_default());
            for (name, value) in ask.headers {
                request = request.header(name, *value);
            }
            match (&self.permission, &token) {
                (Permission::Key(key), _) => key.sign(request, &ask.address.path, ask.query),
                (_, Some(token)) => request.header("authorization", format!("Bearer {token}")),
                (_, None) => request,
            }
        };
        self.http.send(doing, make).await
    }

    /// What there is at an address.
    ///
    /// # Errors
    /// The store refuses or can't be reached.
    pub async fn describe(&self, what: &str, address: &Address) -> Result<Option<Described>> {
        let doing = format!("look for {what}");
        let asked = self.send(&doing, Ask::new(Method::HEAD, address)).await;
        found(asked)?.map(|answer| answer.described()).transpose()
    }

    /// How large a blob is, where an address lets one read and nothing else.
    ///
    /// # Errors
    /// The store refuses or can't be reached.
    pub async fn size(&self, what: &str, address: &Address) -> Result<Option<u64>> {
        let doing = format!("look for {what}");
        let headers = [("range", "bytes=0-0")];
        let asked = self.send(&doing, Ask { headers: &headers, ..Ask::new(Method::GET, address) }).await;
        let Some(answer) = found(asked)? else { return Ok(None) };
        let told = match answer.status() {
            StatusCode::PARTIAL_CONTENT => {
                let range = answer.header("content-range").unwrap_or_default();
                range.rsplit('/').next().and_then(|all| all.parse().ok())
            }
            _ => answer.header("content-length").and_then(|text| text.parse().ok()),
        };
        told.map(Some).ok_or_else(|| StoreError::answer(doing, "the answer does not tell the size"))
    }

    /// The bytes of a blob from a place on.
    ///
    /// # Errors
    /// The store refuses or can't be reached.
    pub async fn read(&self, what: &str, address: &Address, from: u64) -> Result<Option<PieceStream>> {
        let doing = format!("read {what}");
        let range = format!("bytes={from}-");
        let headers = [("range", range.as_str())];
        let headers = if from == 0 { &[][..] } else { &headers[..] };
        let asked = self.send(&doing, Ask { headers, ..Ask::new(Method::GET, address) }).await;
        found(asked)?.map(|answer| answer.stream_from(from)).transpose()
    }

    /// Writes a small blob.
    ///
    /// # Errors
    /// The store refuses or can't be reached.
    pub async fn write(&self, what: &str, address: &Address, body: Bytes) -> Result<()> {
        let headers = [("x-ms-blob-type", "BlockBlob")];
        let ask = Ask { headers: &headers, body, ..Ask::new(Method::PUT, address) };
        self.send(&format!("write {what}"), ask).await.map(drop)
    }

    /// Writes what is in a file. Nobody sees it before it is whole.
    ///
    /// # Errors
    /// The store refuses or can't be reached, and a file that can't be read.
    pub async fn write_file(&self, what: &str, address: &Address, file: Arc<File>, size: u64) -> Result<()> {
        if size > pieces::PIECE {
            return self.write_in_blocks(what, address, file, size).await;
        }
        let piece = pieces::read(file, 0, size).await?;
        self.write(what, address, piece.bytes.clone()).await
    }
}

/// What an answer means in which nothing was found.
fn found(asked: Result<Answer>) -> Result<Option<Answer>> {
    match asked {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if error.status() == Some(StatusCode::NOT_FOUND) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A container, with the blobs in it.
pub struct Container {
    blobs: Blobs,
    address: Address,
    name: String,
    made: OnceCell<()>,
}

impl Container {
    /// A container of the account at an address. Nothing is asked there yet.
    ///
    /// # Errors
    /// As with [`Blobs::new`].
    pub fn new(account: &Address, name: &str, permission: Permission) -> Result<Self> {
        let blobs = Blobs::new(account, permission)?;
        Ok(Container { blobs, address: account.below(name), name: name.to_owned(), made: OnceCell::new() })
    }

    /// Makes the container unless it is there.
    async fn make(&self) -> Result<()> {
        let make = || async {
            let query = [("restype", "container")];
            let ask = |method| Ask { query: &query, ..Ask::new(method, &self.address) };
            let doing = format!("look for container {}", self.name);
            if found(self.blobs.send(&doing, ask(Method::HEAD)).await)?.is_some() {
                return Ok(());
            }
            match self.blobs.send(&format!("make container {}", self.name), ask(Method::PUT)).await {
                // Somebody else was quicker.
                Err(error) if error.code() == Some("ContainerAlreadyExists") => Ok(()),
                other => other.map(drop),
            }
        };
        self.made.get_or_try_init(make).await?;
        Ok(())
    }

    fn what(&self, key: &str) -> String {
        format!("{key} of container {}", self.name)
    }
}

impl Objects for Container {
    fn describe<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Described>>> {
        Box::pin(async move { self.blobs.describe(&self.what(key), &self.address.below(key)).await })
    }

    fn read<'a>(&'a self, key: &'a str, from: u64) -> BoxFuture<'a, Result<Option<PieceStream>>> {
        Box::pin(async move { self.blobs.read(&self.what(key), &self.address.below(key), from).await })
    }

    fn read_version<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<(Version, PieceStream)>>> {
        Box::pin(async move {
            let address = self.address.below(key);
            let doing = format!("read {}", self.what(key));
            let asked = self.blobs.send(&doing, Ask::new(Method::GET, &address)).await;
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
            self.make().await?;
            let mut headers = vec![("x-ms-blob-type", "BlockBlob")];
            headers.extend(Version::condition(read));
            let address = self.address.below(key);
            let ask = Ask { headers: &headers, body: content, ..Ask::new(Method::PUT, &address) };
            Version::written(self.blobs.send(&format!("write {}", self.what(key)), ask).await)
        })
    }

    fn write<'a>(&'a self, key: &'a str, content: Bytes) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            self.make().await?;
            self.blobs.write(&self.what(key), &self.address.below(key), content).await
        })
    }

    /// Rules of Azure's go by the last use if they are told to, which a question is none of: a blob is left as it is.
    fn touch<'a>(&'a self, _: &'a str, _: u64) -> BoxFuture<'a, Result<()>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn write_file<'a>(&'a self, key: &'a str, file: Arc<File>, size: u64) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            self.make().await?;
            self.blobs.write_file(&self.what(key), &self.address.below(key), file, size).await
        })
    }
}
