//! What servers said before, so that they can say that it is still so.

use super::HttpSource;
use crate::SourceError;
use crosskit_images::Digest;
use crosskit_metadata::Change;
use crosskit_snapshots::Ref;
use reqwest::header::HeaderMap;
use serde::{Deserialize, Serialize};

/// The hash of a request, a zero byte, and the snapshot that holds its file.
const TABLE: &str = "sources.http";

/// An answer whose file is kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Answer {
    pub(super) etag: String,
    pub(super) digest: Digest,
    pub(super) modified: Option<String>,
}

impl HttpSource {
    /// Stands for everything that makes the snapshot what it is, but not for what the server says.
    pub(super) fn request_hash(&self) -> Digest {
        let headers: Vec<_> = self.headers.iter().map(|h| (&h.name, &h.value)).collect();
        Digest::of(format!("{:?}", (&self.url, &self.filename, &self.form, &self.auth_secret, headers)))
    }

    /// The answers whose files are still here.
    pub(super) fn kept(&self) -> Result<Vec<(Ref, Answer)>, SourceError> {
        let database = &self.shared.parts.database;
        let prefix = format!("{}\0", self.request_hash());
        let mut kept = Vec::new();
        for (key, value) in database.scan(TABLE, prefix.as_bytes())? {
            let id = String::from_utf8_lossy(&key[prefix.len()..]).into_owned();
            match (self.shared.parts.snapshots.get(&id)?, serde_json::from_slice(&value)) {
                (Some(file), Ok(answer)) => kept.push((file, answer)),
                _ => database.write(vec![Change::delete(TABLE, key)])?,
            }
        }
        Ok(kept)
    }

    pub(super) fn keep(&self, file: &Ref, answer: Answer) -> Result<(), SourceError> {
        let key = format!("{}\0{}", self.request_hash(), file.id());
        let answer = Answer { etag: comparable(&answer.etag).to_string(), ..answer };
        let value = serde_json::to_vec(&answer)
            .map_err(|err| SourceError::Invalid(format!("{}: cannot be remembered: {err}", self.url)))?;
        Ok(self.shared.parts.database.write(vec![Change::put(TABLE, key, value)])?)
    }
}

/// A tag without the mark of a weak one.
fn comparable(etag: &str) -> &str {
    etag.strip_prefix("W/").unwrap_or(etag)
}

/// The answer that the server's tag belongs to. Some servers leave the tag out when they say that
/// nothing changed: where only one was asked about, it is that one.
pub(super) fn matching<'a>(
    kept: &'a [(Ref, Answer)],
    headers: &HeaderMap,
    unchanged: bool,
) -> Option<&'a (Ref, Answer)> {
    let etag = headers.get("etag").and_then(|v| v.to_str().ok()).map(comparable).unwrap_or_default();
    match kept {
        [only] if etag.is_empty() && unchanged => Some(only),
        kept => kept.iter().find(|(_, answer)| !etag.is_empty() && answer.etag == etag),
    }
}
