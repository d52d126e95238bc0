//! Objects that are written in parts.

use super::{Ask, Bucket, whole};
use crate::error::{Result, StoreError};
use crate::http::Method;
use crate::{pieces, xml};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{StreamExt, TryStreamExt};
use std::fs::File;
use std::sync::Arc;

/// Parts that an object may have (Amazon S3, limits of multipart uploads).
const MAX_PARTS: u64 = 10_000;

/// What is copied at once, in bytes (Amazon S3, CopyObject).
pub(super) const MAX_COPY: u64 = 5 << 30;

impl Bucket {
    /// Writes a large file.
    pub(super) async fn write_in_parts(&self, key: &str, file: Arc<File>, size: u64) -> Result<()> {
        let doing = self.doing("write", key);
        let upload = self.begin(key, &doing).await?;
        let mut parts: Vec<BoxFuture<'_, Result<String>>> = Vec::new();
        for (at, (from, length)) in pieces::plan(size, MAX_PARTS).into_iter().enumerate() {
            let (file, upload, doing) = (file.clone(), &upload, &doing);
            parts.push(Box::pin(async move {
                let piece = pieces::read(file, from, length).await?;
                let number = (at + 1).to_string();
                let query = [("partNumber", number.as_str()), ("uploadId", upload)];
                let (body, payload) = (piece.bytes.clone(), piece.sha256.as_str());
                let ask = Ask { query: &query, body, payload, ..Ask::new(Method::PUT, key) };
                let answer = self.send(doing, ask).await?;
                answer.header("etag").ok_or_else(|| StoreError::answer(doing, "a part has no ETag"))
            }));
        }
        self.finish(key, &upload, &doing, parts).await
    }

    /// Copies a huge object onto itself.
    pub(super) async fn touch_in_parts(&self, key: &str, size: u64, source: &str, doing: &str) -> Result<()> {
        let upload = self.begin(key, doing).await?;
        let mut parts: Vec<BoxFuture<'_, Result<String>>> = Vec::new();
        for at in 0..size.div_ceil(MAX_COPY) {
            let upload = &upload;
            let range = format!("bytes={}-{}", at * MAX_COPY, (size - 1).min((at + 1) * MAX_COPY - 1));
            parts.push(Box::pin(async move {
                let number = (at + 1).to_string();
                let query = [("partNumber", number.as_str()), ("uploadId", upload)];
                let headers = [("x-amz-copy-source", source), ("x-amz-copy-source-range", &range)];
                let ask = Ask { query: &query, headers: &headers, slow: true, ..Ask::new(Method::PUT, key) };
                let text = whole(doing, self.send(doing, ask).await?).await?;
                xml::text(&text, "ETag").ok_or_else(|| StoreError::answer(doing, "a part has no ETag"))
            }));
        }
        self.finish(key, &upload, doing, parts).await
    }

    async fn begin(&self, key: &str, doing: &str) -> Result<String> {
        let ask = Ask { query: &[("uploads", "")], ..Ask::new(Method::POST, key) };
        let text = self.send(doing, ask).await?.text().await?;
        xml::text(&text, "UploadId").ok_or_else(|| StoreError::answer(doing, "the answer has no UploadId"))
    }

    /// Sends the parts, and has them taken for one object; or for nothing, if one of them fails.
    async fn finish(
        &self,
        key: &str,
        upload: &str,
        doing: &str,
        parts: Vec<BoxFuture<'_, Result<String>>>,
    ) -> Result<()> {
        let query = [("uploadId", upload)];
        let sent = futures::stream::iter(parts).buffered(pieces::AT_ONCE).try_collect::<Vec<_>>().await;
        let made = match sent {
            Ok(tags) => {
                let parts = tags.iter().zip(1..).map(|(tag, number): (_, u32)| {
                    let tag = xml::escaped(tag);
                    format!("<Part><PartNumber>{number}</PartNumber><ETag>{tag}</ETag></Part>")
                });
                let parts: String = parts.collect();
                let body = format!(
                    "<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">{parts}</CompleteMultipartUpload>"
                );
                let payload = pieces::sha256(body.as_bytes());
                let body = Bytes::from(body);
                let ask =
                    Ask { query: &query, body, payload: &payload, slow: true, ..Ask::new(Method::POST, key) };
                match self.send(doing, ask).await {
                    Ok(answer) => whole(doing, answer).await.map(drop),
                    Err(error) => Err(error),
                }
            }
            Err(error) => Err(error),
        };
        if made.is_err() {
            // Parts that nobody puts together cost money.
            drop(self.send(doing, Ask { query: &query, ..Ask::new(Method::DELETE, key) }).await);
        }
        made
    }
}
