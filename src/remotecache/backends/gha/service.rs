//! GitHub's cache service: entries by key, whose bytes lie elsewhere, with the second version among Azure's blobs.
//!
//! A key that was reserved is taken for good, so that something that changes has a number at the end
//! of its key, and the highest one counts.

use crosskit_images::Digest;
use crosskit_objectstores::azure::{Address, Blobs, Permission};
use crosskit_objectstores::http::{Http, Method, Request, Retries, StatusCode};
use crosskit_objectstores::{PieceStream, Result, StoreError};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What is hashed for the version that all entries of BuildKit's have (its library go-actions-cache).
const VERSION: &str = "|go-actionscache-1.0";

/// The path of the second version's methods.
const METHODS: &str = "twirp/github.actions.results.api.v1.CacheService";

/// The protocol that is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// GitHub's own servers for firms have it, and what others have built.
    First,
    /// GitHub's.
    Second,
}

/// The service, for whoever has a token.
pub(super) struct Service {
    pub(super) http: Http,
    protocol: Protocol,
    pub(super) base: String,
    pub(super) token: String,
    pub(super) version: String,
    /// Stores of blobs, by host.
    stores: Mutex<HashMap<String, Arc<Blobs>>>,
}

/// An entry that was found.
pub(super) struct Entry {
    /// Its whole key.
    pub key: String,
    pub(super) url: String,
}

/// What an entry is made of.
pub(super) enum Content {
    Bytes(bytes::Bytes),
    File(Arc<std::fs::File>, u64),
}

impl Content {
    pub fn size(&self) -> u64 {
        match self {
            Content::Bytes(bytes) => bytes.len() as u64,
            Content::File(_, size) => *size,
        }
    }
}

impl Service {
    /// The service at an address. While it asks to be slower, requests are made again for so long.
    pub fn new(base: &str, protocol: Protocol, token: &str, patience: Duration) -> Result<Self> {
        let retries = Retries { patience, ..Retries::default() };
        let version = Digest::of(VERSION).to_string();
        Ok(Service {
            http: Http::new(base, retries)?,
            protocol,
            base: base.trim_end_matches('/').to_owned(),
            token: token.to_owned(),
            version: version.trim_start_matches("sha256:").to_owned(),
            stores: Mutex::default(),
        })
    }

    async fn call<T: for<'de> Deserialize<'de>>(&self, doing: &str, method: &str, body: &Value) -> Result<T> {
        let url = format!("{}/{METHODS}/{method}", self.base);
        let body = body.to_string();
        let make = |_| {
            Request::new(Method::POST, &*url)
                .header("authorization", format!("Bearer {}", self.token))
                .header("content-type", "application/json")
                .body(body.clone().into())
        };
        self.http.send(doing, make).await?.json().await
    }

    /// The newest entry whose key begins so.
    pub async fn find(&self, key: &str) -> Result<Option<Entry>> {
        let found = match self.protocol {
            Protocol::First => self.find_first(key).await?,
            Protocol::Second => self.find_second(key).await?,
        };
        Ok(found.filter(|entry| entry.key.starts_with(key)))
    }

    async fn find_second(&self, key: &str) -> Result<Option<Entry>> {
        #[derive(Deserialize)]
        struct Found {
            #[serde(default)]
            ok: bool,
            #[serde(default)]
            signed_download_url: String,
            #[serde(default)]
            matched_key: String,
        }
        let doing = format!("look for {key}");
        let body = json!({ "key": key, "restore_keys": [key], "version": self.version });
        match self.call::<Found>(&doing, "GetCacheEntryDownloadURL", &body).await {
            Ok(found) => {
                Ok(found.ok.then_some(Entry { key: found.matched_key, url: found.signed_download_url }))
            }
            Err(error) if error.code() == Some("not_found") => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The entry of just this key.
    pub async fn find_exactly(&self, key: &str) -> Result<Option<Entry>> {
        Ok(self.find(key).await?.filter(|entry| entry.key == key))
    }

    /// Makes an entry; false if the key is taken.
    pub async fn save(&self, key: &str, content: Content) -> Result<bool> {
        match self.protocol {
            Protocol::First => self.save_first(key, content).await,
            Protocol::Second => self.save_second(key, content).await,
        }
    }

    async fn save_second(&self, key: &str, content: Content) -> Result<bool> {
        #[derive(Deserialize)]
        struct Reserved {
            #[serde(default)]
            ok: bool,
            #[serde(default)]
            signed_upload_url: String,
        }
        #[derive(Deserialize)]
        struct Finished {
            #[serde(default)]
            ok: bool,
        }
        let doing = format!("reserve {key}");
        let refused = |doing: &str| StoreError::Answer {
            doing: doing.to_owned(),
            reason: "the service does not take it".to_owned(),
        };
        let body = json!({ "key": key, "version": self.version });
        let reserved = match self.call::<Reserved>(&doing, "CreateCacheEntry", &body).await {
            Ok(reserved) if reserved.ok => reserved,
            Ok(_) => return Err(refused(&doing)),
            Err(error) if is_taken(&error) => return Ok(false),
            Err(error) => return Err(error),
        };
        let (store, address) = self.store(&reserved.signed_upload_url)?;
        let size = content.size();
        match content {
            Content::Bytes(bytes) => store.write(key, &address, bytes).await?,
            Content::File(file, size) => store.write_file(key, &address, file, size).await?,
        }
        let doing = format!("finish {key}");
        let body = json!({ "key": key, "size_bytes": size, "version": self.version });
        let finished: Finished = self.call(&doing, "FinalizeCacheEntryUpload", &body).await?;
        if finished.ok { Ok(true) } else { Err(refused(&doing)) }
    }

    /// The bytes of an entry from a place on.
    pub async fn read(&self, entry: &Entry, from: u64) -> Result<Option<PieceStream>> {
        let (store, address) = self.store(&entry.url)?;
        store.read(&entry.key, &address, from).await
    }

    /// The size of an entry in bytes.
    pub async fn size(&self, entry: &Entry) -> Result<Option<u64>> {
        let (store, address) = self.store(&entry.url)?;
        store.size(&entry.key, &address).await
    }

    fn store(&self, url: &str) -> Result<(Arc<Blobs>, Address)> {
        let address = Address::parse(url)?;
        let mut stores = self.stores.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = stores.get(address.host()) {
            return Ok((known.clone(), address));
        }
        let made = Arc::new(Blobs::new(&address, Permission::InAddress)?);
        stores.insert(address.host().to_owned(), made.clone());
        Ok((made, address))
    }
}

/// Whether somebody else has a key already.
pub(super) fn is_taken(error: &StoreError) -> bool {
    let code = error.code().unwrap_or_default();
    error.status() == Some(StatusCode::CONFLICT) || code == "already_exists" || code.contains("AlreadyExists")
}

/// The keys of all entries of a repository that begin so, as GitHub's REST API lists them.
pub(super) async fn keys(api: &str, repository: &str, token: &str, prefix: &str) -> Result<Vec<String>> {
    #[derive(Deserialize)]
    struct Page {
        total_count: usize,
        actions_caches: Vec<Cache>,
    }
    #[derive(Deserialize)]
    struct Cache {
        key: String,
    }
    let http = Http::new(api, Retries::default())?;
    let mut keys = Vec::new();
    for page in 1.. {
        let doing = format!("list the caches of {repository}");
        let base = api.trim_end_matches('/');
        let prefix = crosskit_objectstores::encode(prefix, false);
        let url = format!("{base}/repos/{repository}/actions/caches?per_page=100&page={page}&key={prefix}");
        let make = |_| {
            Request::new(Method::GET, &*url)
                .header("accept", "application/vnd.github+json")
                .header("authorization", format!("Bearer {token}"))
                .header("x-github-api-version", "2022-11-28")
        };
        let found: Page = http.send(&doing, make).await?.json().await?;
        let none = found.actions_caches.is_empty();
        keys.extend(found.actions_caches.into_iter().map(|cache| cache.key));
        if none || keys.len() >= found.total_count {
            break;
        }
    }
    Ok(keys)
}
