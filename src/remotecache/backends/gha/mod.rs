//! A cache in the cache service of GitHub's runners.

mod first;
mod service;
mod signed;
mod token;

use super::{Backend, Way};
use crate::error::{RemoteCacheError, Result};
use crate::manifests::LARGEST;
use crate::objects::{Document, Documents, OnShelf, Shelf};
use crate::{CacheOptions, RemoteCaches};
use crosskit_images::{Descriptor, Digest};
use crosskit_objectstores::{Environment, PieceStream, StoreError, read_all};
use futures::future::BoxFuture;
use jiff::Timestamp;
use service::{Content, Entry, Protocol, Service};
use signed::LARGEST_SIGNATURE;
pub use signed::Verification;
use std::collections::HashSet;
use std::fs::File;
use std::sync::Arc;
use std::time::Duration;
use token::Scope;
use tokio::sync::OnceCell;

/// What the keys of blobs begin with.
const BLOBS: &str = "buildkit-blob-1-";

/// For how long a service that asks to be slower is asked again, unless `timeout` says otherwise.
const TIMEOUT: Duration = Duration::from_secs(600);

/// What the address of the second version's service has in it, for clients that do not tell the version.
const SECOND: &str = "results-receiver.actions.githubusercontent.com";

/// Where GitHub's REST API is, unless `GITHUB_API_URL` says otherwise.
const API: &str = "https://api.github.com";

/// Layers that are given at once.
const AT_ONCE: usize = 4;

/// How long somebody else may take who has reserved the next number of the index.
const OTHERS: Duration = Duration::from_secs(15);

/// How long it is waited before it is looked again whether they are done.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// The same for the first time; it doubles.
const FIRST_LOOK: Duration = Duration::from_millis(250);

/// Numbers that are passed over which somebody has reserved and left.
const MAX_LEFT: u64 = 100;

/// What the daemon is told of caches with GitHub.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GithubCaches {
    /// The program that signs indexes, with its arguments; none if they are not signed.
    pub sign: Vec<String>,
    /// Whose signatures indexes need to be used; none if they need none.
    pub verify: Option<Verification>,
}

struct InService {
    service: Service,
    scopes: Vec<Scope>,
    /// `scope`.
    name: String,
    /// The repository, and a token for GitHub's REST API.
    listed: Option<(String, String)>,
    api: String,
    /// The keys of the blobs that there are, if they could be listed.
    known: OnceCell<Option<HashSet<String>>>,
    signatures: GithubCaches,
}

/// `type=gha`.
pub(super) fn resolve(
    caches: &RemoteCaches,
    way: Way,
    options: &CacheOptions,
    _: &[String],
) -> Result<Box<dyn Backend>> {
    let lacks = |what: &str| RemoteCacheError::Options(format!("{what} not set for github actions cache"));
    let token = options.get("token").ok_or_else(|| lacks("token"))?;
    let (url, protocol) = url(options)?.ok_or_else(|| lacks("url"))?;
    let timeout = options.duration("timeout")?.unwrap_or(TIMEOUT);
    let scopes = token::scopes(token, Timestamp::now())?;
    if way == Way::Export && !scopes.iter().any(Scope::is_writable) {
        let text = "the token of github actions cache lets nobody write: it is a run for somebody else's fork, maybe";
        return Err(RemoteCacheError::Options(text.to_owned()));
    }
    let service = Service::new(url, protocol, token, timeout);
    let (repository, rest) = (options.get("repository"), options.get("ghtoken"));
    let shelf = InService {
        service: service.map_err(RemoteCacheError::store("github actions cache"))?,
        scopes,
        name: options.get("scope").unwrap_or("buildkit").to_owned(),
        listed: repository.zip(rest).map(|(repository, token)| (repository.to_owned(), token.to_owned())),
        api: Environment::of_process().get("GITHUB_API_URL").unwrap_or_else(|| API.to_owned()),
        known: OnceCell::new(),
        signatures: caches.github.clone(),
    };
    Ok(Box::new(OnShelf {
        name: "exporting to GitHub Actions Cache",
        at_once: AT_ONCE,
        merging: options.merging()?,
        shelf: Arc::new(shelf),
        content: caches.snapshots.content().clone(),
    }))
}

/// The address of the service, and what is spoken there; none if there is no address at all.
fn url(options: &CacheOptions) -> Result<Option<(&str, Protocol)>> {
    let version = match options.get("version") {
        None => None,
        Some(text) => Some(text.parse::<u32>().map_err(|_| {
            let why = format!("failed to parse api version {text:?}, expected positive integer");
            RemoteCacheError::Options(why)
        })?),
    };
    if let Some(second) = options.get("url_v2").filter(|_| version != Some(1)) {
        return Ok(Some((second, Protocol::Second)));
    }
    let Some(url) = options.get("url") else { return Ok(None) };
    let second = version.map_or(url.contains(SECOND), |version| version != 1);
    Ok(Some((url, if second { Protocol::Second } else { Protocol::First })))
}

fn blob(digest: &Digest) -> String {
    format!("{BLOBS}{digest}")
}

/// The key of the signature of a document.
fn signature(document: &[u8]) -> String {
    format!("{}-sig", blob(&Digest::of(document)))
}

impl InService {
    /// The key of the index of a scope, without its number. Signed and unsigned ones are kept apart.
    fn index(&self, scope: &str, signed: bool) -> String {
        let hash = Digest::of(scope).to_string();
        let hash = &hash["sha256:".len()..][..8];
        let end = if signed { "-sig" } else { "" };
        format!("index-{}-1-{hash}{end}#", self.name)
    }

    async fn document(&self, scope: &Scope) -> Result<Option<(String, Vec<u8>)>> {
        let failed = || RemoteCacheError::store(format!("failed to load the cache of {}", scope.name));
        let signed = !self.signatures.sign.is_empty() || self.signatures.verify.is_some();
        let key = self.index(&scope.name, signed);
        let Some(entry) = self.service.find(&key).await.map_err(failed())? else { return Ok(None) };
        let Some(bytes) = self.bytes(&entry, LARGEST).await.map_err(failed())? else { return Ok(None) };
        let bytes = self.verified(bytes).await?;
        Ok(Some((format!("of {}", scope.name), bytes)))
    }

    async fn bytes(&self, entry: &Entry, limit: u64) -> Result<Option<Vec<u8>>, StoreError> {
        match self.service.read(entry, 0).await? {
            Some(stream) => Ok(Some(read_all(&entry.key, stream, limit).await?)),
            None => Ok(None),
        }
    }

    /// A document whose signature is one of those that are believed, if any has to be.
    async fn verified(&self, document: Vec<u8>) -> Result<Vec<u8>> {
        let Some(verification) = &self.signatures.verify else { return Ok(document) };
        let failed = || RemoteCacheError::store("get its signature");
        let key = signature(&document);
        let found = match self.service.find_exactly(&key).await.map_err(failed())? {
            Some(entry) => self.bytes(&entry, LARGEST_SIGNATURE).await.map_err(failed())?,
            None => None,
        };
        let missing = || RemoteCacheError::Invalid("missing signature for github actions cache".to_owned());
        verification.check(document, found.ok_or_else(missing)?).await
    }

    /// The keys of blobs, where a list may be had.
    async fn listed(&self) -> Option<&HashSet<String>> {
        let list = || async {
            let (repository, token) = self.listed.as_ref()?;
            match service::keys(&self.api, repository, token, BLOBS).await {
                Ok(keys) => Some(keys.into_iter().collect()),
                Err(error) => {
                    tracing::warn!("caches are looked for one by one: {error}");
                    None
                }
            }
        };
        self.known.get_or_init(list).await.as_ref()
    }

    /// Puts an index under the next number of its key, made anew of whatever has the highest one.
    async fn replace(&self, scope: &Scope, document: &Document<'_>) -> Result<()> {
        let failed = || RemoteCacheError::store("give it to the service");
        let key = self.index(&scope.name, !self.signatures.sign.is_empty());
        let (mut waited, mut waited_for) = (Duration::ZERO, 0);
        for round in 0.. {
            let newest = self.service.find(&key).await.map_err(failed())?;
            let last =
                newest.as_ref().and_then(|entry| entry.key[key.len()..].parse::<u64>().ok()).unwrap_or(0);
            if waited_for != last {
                (waited, waited_for) = (Duration::ZERO, last);
            }
            let bytes = match (document, newest) {
                (Document::Alone(bytes), _) => bytes.clone(),
                (Document::After(both), None) => both(None)?,
                (Document::After(both), Some(entry)) => {
                    let there = self.others(&entry).await.map_err(failed())?;
                    let bytes = both(there.as_deref())?;
                    if there.as_ref() == Some(&bytes) {
                        return Ok(());
                    }
                    bytes
                }
            };
            self.sign(&bytes).await?;
            let bytes = bytes::Bytes::from(bytes);
            // Others who have reserved the next one are waited for, and passed over if they do not come to an end.
            let patient = waited < OTHERS;
            for number in last + 1..=last + if patient { 1 } else { MAX_LEFT } {
                let own = format!("{key}{number}");
                if self.service.save(&own, Content::Bytes(bytes.clone())).await.map_err(failed())? {
                    // Whoever was passed over and came to an end after all has to begin anew. It is written, though
                    // nobody may tell.
                    let newest = self.service.find(&key).await.ok().flatten();
                    if matches!(document, Document::Alone(_)) || newest.is_none_or(|entry| entry.key == own) {
                        return Ok(());
                    }
                    break;
                }
                if number == last + MAX_LEFT {
                    let reason = "all numbers are taken by others".to_owned();
                    return Err(failed()(StoreError::Answer { doing: format!("write {key}"), reason }));
                }
            }
            let wait = LOOK_AGAIN.min(FIRST_LOOK * 2_u32.pow(round.min(3)));
            waited += wait;
            tokio::time::sleep(wait.mul_f64(0.5 + rand::random::<f64>() / 2.0)).await;
        }
        Ok(())
    }

    /// What others have written, as far as it may be taken over. With a signature one vouches for it.
    async fn others(&self, entry: &Entry) -> Result<Option<Vec<u8>>, StoreError> {
        let signs = !self.signatures.sign.is_empty();
        if signs && self.signatures.verify.is_none() {
            tracing::debug!("what is there is not signed anew, as nobody has verified it");
            return Ok(None);
        }
        let there = match self.service.read(entry, 0).await? {
            Some(stream) => read_all(&entry.key, stream, LARGEST).await.ok(),
            None => None,
        };
        let Some(there) = there else { return Ok(None) };
        if !signs {
            return Ok(Some(there));
        }
        match self.verified(there).await {
            Ok(there) => Ok(Some(there)),
            Err(why) => {
                tracing::warn!("what is there is passed over: {why}");
                Ok(None)
            }
        }
    }

    /// Puts the signature of a document there, if such are wanted. One that does not hold does not get there, and neither
    /// does the document.
    async fn sign(&self, bytes: &[u8]) -> Result<()> {
        let Some((program, arguments)) = self.signatures.sign.split_first() else { return Ok(()) };
        let made = signed::sign(program, arguments, bytes).await?;
        if let Some(verification) = &self.signatures.verify {
            verification.check(bytes.to_vec(), made.clone()).await?;
        }
        let saved = self.service.save(&signature(bytes), Content::Bytes(made.into())).await;
        if !saved.map_err(RemoteCacheError::store("give it to the service"))? {
            // Somebody has signed the same before.
            self.verified(bytes.to_vec()).await?;
        }
        Ok(())
    }
}

impl Shelf for InService {
    fn documents(&self) -> BoxFuture<'_, Result<Documents>> {
        Box::pin(async move {
            let mut found = Vec::with_capacity(self.scopes.len());
            for scope in &self.scopes {
                found.extend(self.document(scope).await?);
            }
            Ok(found)
        })
    }

    fn size<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<Option<u64>, StoreError>> {
        Box::pin(async move {
            match self.service.find_exactly(&blob(digest)).await? {
                Some(entry) => self.service.size(&entry).await,
                None => Ok(None),
            }
        })
    }

    fn read<'a>(
        &'a self,
        digest: &'a Digest,
        from: u64,
    ) -> BoxFuture<'a, Result<Option<PieceStream>, StoreError>> {
        Box::pin(async move {
            match self.service.find_exactly(&blob(digest)).await? {
                Some(entry) => self.service.read(&entry, from).await,
                None => Ok(None),
            }
        })
    }

    fn keep<'a>(&'a self, desc: &'a Descriptor) -> BoxFuture<'a, Result<bool>> {
        Box::pin(async move {
            let key = blob(&desc.digest);
            if let Some(keys) = self.listed().await {
                return Ok(keys.contains(&key));
            }
            let found = self.service.find_exactly(&key).await;
            Ok(found.map_err(RemoteCacheError::store("ask the service"))?.is_some())
        })
    }

    fn give_layer<'a>(&'a self, desc: &'a Descriptor, file: Arc<File>) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            // A key that is taken is somebody else's, who gives the same.
            let saved = self.service.save(&blob(&desc.digest), Content::File(file, desc.size)).await;
            saved.map(drop).map_err(RemoteCacheError::store("give it to the service"))
        })
    }

    fn give_document<'a>(&'a self, document: &'a Document<'a>) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            // The last one counts, as for BuildKit: the branch itself comes after what it was made from.
            match self.scopes.iter().rfind(|scope| scope.is_writable()) {
                Some(scope) => self.replace(scope, document).await,
                None => Ok(()),
            }
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // A test ends where something is not as it should be.
mod tests {
    use super::*;

    #[test]
    fn addresses_say_what_is_spoken_there() {
        use Protocol::{First, Second};
        let (first, second) = ("https://cache.example.com/", "https://results.example.com/");
        let receiver = "https://results-receiver.actions.githubusercontent.com/";
        type Case<'a> = (&'a [(&'a str, &'a str)], Result<Option<(&'a str, Protocol)>, &'a str>);
        let cases: [Case<'_>; 8] = [
            (&[], Ok(None)),
            (&[("url", first), ("url_v2", second)], Ok(Some((second, Second)))),
            (&[("url", second), ("version", "2")], Ok(Some((second, Second)))),
            (&[("url", receiver)], Ok(Some((receiver, Second)))),
            (&[("url", first)], Ok(Some((first, First)))),
            (&[("url", first), ("url_v2", second), ("version", "1")], Ok(Some((first, First)))),
            (&[("url_v2", second), ("version", "1")], Ok(None)),
            (&[("version", "two")], Err("failed to parse api version \"two\", expected positive integer")),
        ];
        for (attrs, expected) in cases {
            let attrs = attrs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
            let options = CacheOptions { kind: "gha".to_owned(), attrs };
            match (url(&options), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{options:?}"),
                (Err(error), Err(expected)) => assert!(error.to_string().contains(expected), "{error}"),
                (found, _) => panic!("{options:?}: {found:?}"),
            }
        }
    }
}
