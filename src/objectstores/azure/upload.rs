//! Blobs that are written in blocks.

use super::{Address, Ask, Blobs};
use crate::error::Result;
use crate::http::Method;
use crate::pieces;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{StreamExt, TryStreamExt};
use std::fs::File;
use std::sync::Arc;

/// Blocks that a blob may have (Azure Blob Storage, Put Block List).
const MAX_BLOCKS: u64 = 50_000;

impl Blobs {
    pub(super) async fn write_in_blocks(
        &self,
        what: &str,
        address: &Address,
        file: Arc<File>,
        size: u64,
    ) -> Result<()> {
        let doing = format!("write {what}");
        // Whoever else writes the same blob now has blocks of other names.
        let mine: u64 = rand::random();
        let mut blocks: Vec<BoxFuture<'_, Result<String>>> = Vec::new();
        for (at, (from, length)) in pieces::plan(size, MAX_BLOCKS).into_iter().enumerate() {
            let (file, doing) = (file.clone(), &doing);
            blocks.push(Box::pin(async move {
                let name = STANDARD.encode(format!("{mine:016x}-{at:05}"));
                let piece = pieces::read(file, from, length).await?;
                let query = [("comp", "block"), ("blockid", name.as_str())];
                let body = piece.bytes.clone();
                self.send(doing, Ask { query: &query, body, ..Ask::new(Method::PUT, address) }).await?;
                Ok(name)
            }));
        }
        let names = futures::stream::iter(blocks).buffered(pieces::AT_ONCE).try_collect::<Vec<_>>().await?;
        let names: String = names.iter().map(|name| format!("<Latest>{name}</Latest>")).collect();
        let body = format!("<?xml version=\"1.0\" encoding=\"utf-8\"?><BlockList>{names}</BlockList>");
        let query = [("comp", "blocklist")];
        let ask = Ask { query: &query, body: Bytes::from(body), ..Ask::new(Method::PUT, address) };
        let written = self.send(&doing, ask).await;
        match written {
            // Somebody else has written the same meanwhile, at which our blocks went.
            Err(error) if error.code() == Some("InvalidBlockList") => {
                match self.describe(what, address).await? {
                    Some(there) if there.size == size => Ok(()),
                    _ => Err(error),
                }
            }
            other => other.map(drop),
        }
    }
}
