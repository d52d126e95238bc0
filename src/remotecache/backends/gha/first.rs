//! The first version of GitHub's cache service, which its servers for firms speak, and those of others.

use super::service::{Content, Entry, Service, is_taken};
use crosskit_objectstores::http::{Answer, Method, Request, StatusCode};
use crosskit_objectstores::{Result, StoreError, encode, pieces};
use futures::future::BoxFuture;
use futures::{StreamExt, TryStreamExt};
use serde::Deserialize;
use serde_json::json;

/// The path of everything.
const PATH: &str = "_apis/artifactcache";

/// The form of answers.
const ACCEPT: &str = "application/json;api-version=6.0-preview.1";

impl Service {
    async fn ask(&self, doing: &str, request: Request) -> Result<Answer> {
        let request =
            request.header("accept", ACCEPT).header("authorization", format!("Bearer {}", self.token));
        self.http.send(doing, |_| request.clone()).await
    }

    fn path(&self, rest: &str) -> String {
        format!("{}/{PATH}/{rest}", self.base)
    }

    fn post(&self, rest: &str, body: &serde_json::Value) -> Request {
        let request = Request::new(Method::POST, self.path(rest)).header("content-type", "application/json");
        request.body(body.to_string().into())
    }

    /// The newest entry whose key begins so.
    pub(super) async fn find_first(&self, key: &str) -> Result<Option<Entry>> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Found {
            #[serde(default)]
            cache_key: String,
            #[serde(default)]
            archive_location: String,
        }
        let url = self.path(&format!("cache?keys={}&version={}", encode(key, false), self.version));
        let answer = self.ask(&format!("look for {key}"), Request::new(Method::GET, url)).await?;
        if answer.status() == StatusCode::NO_CONTENT {
            return Ok(None);
        }
        let found: Found = answer.json().await?;
        Ok(Some(Entry { key: found.cache_key, url: found.archive_location }))
    }

    /// Makes an entry; false if the key is taken.
    pub(super) async fn save_first(&self, key: &str, content: Content) -> Result<bool> {
        #[derive(Deserialize)]
        struct Reserved {
            #[serde(rename = "cacheId", alias = "cacheID")]
            id: u64,
        }
        let doing = format!("reserve {key}");
        let body = json!({ "key": key, "version": self.version });
        let reserved = match self.ask(&doing, self.post("caches", &body)).await {
            Ok(answer) => answer.json::<Reserved>().await?,
            Err(error) if is_taken(&error) => return Ok(false),
            Err(error) => return Err(error),
        };
        let (doing, place, size) =
            (format!("write {key}"), format!("caches/{}", reserved.id), content.size());
        let send = async |from: u64, bytes: bytes::Bytes| {
            let range = format!("bytes {from}-{}/*", from + (bytes.len() as u64).saturating_sub(1));
            let request = Request::new(Method::PATCH, self.path(&place)).header("content-range", range);
            let request = request.header("content-type", "application/octet-stream").body(bytes);
            self.ask(&doing, request).await.map(drop)
        };
        match content {
            Content::Bytes(bytes) => send(0, bytes).await?,
            Content::File(file, size) => {
                let mut parts: Vec<BoxFuture<'_, Result<(), StoreError>>> = Vec::new();
                for (from, length) in pieces::plan(size, u64::MAX) {
                    let (file, send) = (file.clone(), &send);
                    parts.push(Box::pin(async move {
                        let piece = pieces::read(file, from, length).await?;
                        send(from, piece.bytes.clone()).await
                    }));
                }
                futures::stream::iter(parts).buffer_unordered(pieces::AT_ONCE).try_collect::<()>().await?;
            }
        }
        self.ask(&format!("finish {key}"), self.post(&place, &json!({ "size": size }))).await?;
        Ok(true)
    }
}
