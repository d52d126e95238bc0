//! A stand-in of the cache service of GitHub's runners, by its public protocol: methods of Twirp in JSON
//! for entries by key, whose bytes lie under addresses of Azure's kind that carry their own permission. The first
//! version is spoken, too.

use super::served::{Asked, Served};
use crate::http::Response;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// What a path of the first version begins with.
const FIRST: &str = "/_apis/artifactcache/";

/// What a path of the second version begins with.
const METHODS: &str = "/twirp/github.actions.results.api.v1.CacheService/";

/// A cache service.
pub struct GithubStore {
    /// The service itself.
    pub front: Served,
    entries: Arc<Mutex<Vec<Entry>>>,
}

struct Entry {
    key: String,
    version: String,
    content: Vec<u8>,
    blocks: HashMap<String, Vec<u8>>,
    finished: bool,
}

/// Not signed by anybody: only the service could tell.
fn token(claims: &Value) -> String {
    use base64::Engine as _;
    let part = |bytes: &[u8]| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes);
    format!(
        "{}.{}.{}",
        part(br#"{"alg":"HS256","typ":"JWT"}"#),
        part(claims.to_string().as_bytes()),
        part(b"signature")
    )
}

impl GithubStore {
    /// Starts one.
    pub fn start() -> GithubStore {
        let entries: Arc<Mutex<Vec<Entry>>> = Arc::default();
        let (shared, allowed) = (entries.clone(), GithubStore::token());
        let front = Served::start(move |asked| {
            let mut entries = shared.lock().unwrap_or_else(PoisonError::into_inner);
            match (asked.path.strip_prefix(METHODS), asked.path.strip_prefix(FIRST)) {
                (Some(method), _) => call(&mut entries, method, asked, &allowed),
                (_, Some(path)) => first(&mut entries, path, asked, &allowed),
                _ => blob(&mut entries, asked),
            }
        });
        GithubStore { front, entries }
    }

    /// A token that is good for a branch, and for reading another one.
    pub fn token() -> String {
        let scopes =
            r#"[{"Scope":"refs/heads/work","Permission":3},{"Scope":"refs/heads/main","Permission":1}]"#;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time after 1970").as_secs();
        // The same all day, as it is compared.
        let day = now / 86_400 * 86_400;
        token(&json!({ "ac": scopes, "exp": day + 4 * 86_400, "nbf": day - 86_400 }))
    }

    /// The keys of a cache here, for `--export-cache` and `--import-cache`.
    pub fn keys(&self) -> String {
        format!("type=gha,url_v2=http://{}/,token={}", self.front.address(), GithubStore::token())
    }

    /// The same for whoever speaks the first version.
    pub fn keys_first(&self) -> String {
        format!("type=gha,url=http://{}/,token={}", self.front.address(), GithubStore::token())
    }

    /// The newest entry whose key begins so: its key and its bytes.
    pub fn get(&self, key: &str) -> Option<(String, Vec<u8>)> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let found = entries.iter().rfind(|entry| entry.finished && entry.key.starts_with(key))?;
        Some((found.key.clone(), found.content.clone()))
    }

    /// Replaces the bytes of an entry, which the service itself would never do.
    pub fn put(&self, key: &str, content: &[u8]) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let found = entries.iter_mut().rfind(|entry| entry.finished && entry.key.starts_with(key));
        found.expect("such an entry").content = content.to_vec();
    }

    /// Reserves a key and leaves it.
    pub fn reserve(&self, key: &str, version: &str) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let (content, blocks) = Default::default();
        entries.push(Entry { key: key.into(), version: version.into(), content, blocks, finished: false });
    }
}

fn say(status: u16, body: &Value) -> Response {
    let headers = vec![("content-type".to_owned(), "application/json".to_owned())];
    let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    Response { status, headers, body }
}

fn first(entries: &mut Vec<Entry>, path: &str, asked: &Asked, allowed: &str) -> Response {
    let bearer = asked.header("authorization").and_then(|text| text.strip_prefix("Bearer "));
    if bearer != Some(allowed) {
        return say(401, &json!({ "typeKey": "Unauthorized", "message": "no such token" }));
    }
    let body = serde_json::from_slice::<Value>(&asked.body).unwrap_or_default();
    let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
    let number = path.strip_prefix("caches/").and_then(|text| text.parse::<usize>().ok());
    match (asked.method.as_str(), path.split_once("?keys="), number) {
        ("GET", Some(("cache", query)), None) => {
            let (key, version) = query.split_once("&version=").expect("a version");
            let key = key.replace("%3A", ":").replace("%23", "#");
            let found = entries
                .iter()
                .rposition(|entry| entry.finished && entry.version == version && entry.key.starts_with(&key));
            let Some(at) = found else { return say(204, &Value::Null) };
            let host = asked.header("host").expect("a host");
            let url = format!("http://{host}/entries/{at}?sig=permit%2F{at}");
            say(200, &json!({ "cacheKey": entries[at].key, "scope": "work", "archiveLocation": url }))
        }
        ("POST", None, None) => {
            let (key, version) = (text("key"), text("version"));
            if entries.iter().any(|entry| entry.key == key && entry.version == version) {
                let told =
                    json!({ "typeKey": "ArtifactCacheItemAlreadyExistsException", "message": "taken" });
                return say(409, &told);
            }
            let (content, blocks) = Default::default();
            entries.push(Entry { key, version, content, blocks, finished: false });
            // Nothing has the number 0 there.
            say(201, &json!({ "cacheId": entries.len() }))
        }
        ("PATCH", None, Some(number)) => {
            let range = asked.header("content-range").and_then(|text| text.strip_prefix("bytes "));
            let from = range.and_then(|text| text.split_once('-')?.0.parse::<usize>().ok()).expect("a range");
            let content = &mut entries[number - 1].content;
            content.resize(content.len().max(from + asked.body.len()), 0);
            content[from..from + asked.body.len()].copy_from_slice(&asked.body);
            say(204, &Value::Null)
        }
        ("POST", None, Some(number)) => {
            let entry = &mut entries[number - 1];
            if body["size"].as_u64() != Some(entry.content.len() as u64) {
                return say(400, &json!({ "typeKey": "InvalidSize", "message": "it has another size" }));
            }
            entry.finished = true;
            say(204, &Value::Null)
        }
        _ => say(404, &json!({ "typeKey": "NotFound", "message": path })),
    }
}

fn call(entries: &mut Vec<Entry>, method: &str, asked: &Asked, allowed: &str) -> Response {
    let bearer = asked.header("authorization").and_then(|text| text.strip_prefix("Bearer "));
    if asked.method != "POST" || bearer != Some(allowed) {
        return say(401, &json!({ "code": "unauthenticated", "msg": "no such token" }));
    }
    let Ok(body) = serde_json::from_slice::<Value>(&asked.body) else {
        return say(400, &json!({ "code": "malformed", "msg": "this is no JSON" }));
    };
    let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
    let (key, version) = (text("key"), text("version"));
    let address = |number: usize| {
        let host = asked.header("host").expect("a host");
        format!("http://{host}/entries/{number}?sp=crw&sig=permit%2F{number}")
    };
    let same = |entry: &Entry| entry.key == key && entry.version == version;
    match method {
        "CreateCacheEntry" if entries.iter().any(same) => {
            say(409, &json!({ "code": "already_exists", "msg": "cache entry with the same key exists" }))
        }
        "CreateCacheEntry" => {
            let (content, blocks) = Default::default();
            entries.push(Entry { key, version, content, blocks, finished: false });
            say(200, &json!({ "ok": true, "signed_upload_url": address(entries.len() - 1) }))
        }
        "FinalizeCacheEntryUpload" => {
            let size = match &body["size_bytes"] {
                Value::String(text) => text.parse().ok(),
                number => number.as_u64(),
            };
            let found = entries.iter().position(same);
            let found = found.filter(|at| size == Some(entries[*at].content.len() as u64));
            let Some(at) = found else {
                return say(400, &json!({ "code": "invalid_argument", "msg": "size" }));
            };
            entries[at].finished = true;
            say(200, &json!({ "ok": true, "entry_id": at.to_string() }))
        }
        "GetCacheEntryDownloadURL" => {
            let restore = body["restore_keys"].as_array().cloned().unwrap_or_default();
            let exact = entries.iter().rposition(|entry| entry.finished && same(entry));
            let found = exact.or_else(|| {
                restore.iter().filter_map(Value::as_str).find_map(|prefix| {
                    entries.iter().rposition(|entry| {
                        entry.finished && entry.version == version && entry.key.starts_with(prefix)
                    })
                })
            });
            say(
                200,
                &match found {
                    Some(at) => {
                        json!({ "ok": true, "signed_download_url": address(at), "matched_key": entries[at].key })
                    }
                    None => json!({ "ok": false, "signed_download_url": "", "matched_key": "" }),
                },
            )
        }
        other => say(404, &json!({ "code": "bad_route", "msg": other })),
    }
}

/// What Azure's blobs do for whoever has an address with its permission.
fn blob(entries: &mut [Entry], asked: &Asked) -> Response {
    let headers = vec![("x-ms-request-id".to_owned(), "0".to_owned())];
    let refuse = |status: u16, code: &str| {
        let told = ("x-ms-error-code".to_owned(), code.to_owned());
        Response { status, headers: vec![told], body: Vec::new() }
    };
    let (path, query) = asked.path.split_once('?').unwrap_or((&asked.path, ""));
    let number = path.strip_prefix("/entries/").and_then(|text| text.parse::<usize>().ok());
    let Some((number, entry)) = number.and_then(|at| Some((at, entries.get_mut(at)?))) else {
        return refuse(404, "BlobNotFound");
    };
    let told = |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
    if told("sig") != Some(&format!("permit%2F{number}")) {
        return refuse(403, "AuthenticationFailed");
    }
    match (asked.method.as_str(), told("comp")) {
        ("PUT", None) => {
            entry.content.clone_from(&asked.body);
            Response { status: 201, headers, body: Vec::new() }
        }
        ("PUT", Some("block")) => {
            let id = told("blockid").expect("a block has an id").replace("%3D", "=").replace("%2B", "+");
            entry.blocks.insert(id.replace("%2F", "/"), asked.body.clone());
            Response { status: 201, headers, body: Vec::new() }
        }
        ("PUT", Some("blocklist")) => {
            let list = String::from_utf8_lossy(&asked.body);
            let ids = list.split("<Latest>").skip(1).filter_map(|rest| rest.split("</Latest>").next());
            let blocks: Option<Vec<&Vec<u8>>> = ids.map(|id| entry.blocks.get(id)).collect();
            let Some(blocks) = blocks else { return refuse(400, "InvalidBlockList") };
            entry.content = blocks.into_iter().flatten().copied().collect();
            Response { status: 201, headers, body: Vec::new() }
        }
        ("GET" | "HEAD", None) => {
            let range = asked.header("x-ms-range").or(asked.header("range"));
            let range = range.and_then(|text| text.strip_prefix("bytes=")?.split_once('-'));
            let all = entry.content.len();
            let Some((from, to)) = range else {
                let body = entry.content.clone();
                return Response { status: 200, headers, body };
            };
            let from: usize = from.parse().expect("a number");
            let to = to.parse().map_or(all, |to: usize| (to + 1).min(all));
            if from >= to {
                return refuse(416, "InvalidRange");
            }
            let told = ("content-range".to_owned(), format!("bytes {from}-{}/{all}", to - 1));
            let headers = headers.into_iter().chain([told]).collect();
            Response { status: 206, headers, body: entry.content[from..to].to_vec() }
        }
        _ => refuse(405, "UnsupportedHttpVerb"),
    }
}
