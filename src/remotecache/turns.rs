//! Whose turn it is to write to a cache in a registry, as a tag beside it tells.
//!
//! Fischer's way: who finds the tag free puts itself there, waits for longer than another one may have been on its
//! way between looking and writing, and looks again: whoever is there then has the turn. How long that is, each takes
//! from how long it was on its way itself. Nobody has to be trusted to be in time: who has the turn looks once more before
//! it writes. A turn that nobody ends is over after a while.

use crate::error::{ErrorKind, Result};
use crate::manifests::{Manifests, Place, Spot, json};
use crosskit_images::{Descriptor, Digest, Manifest, media_types};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

/// What a manifest without content has as its config and its only layer (image-spec 1.1, "Guidance for an empty descriptor").
const EMPTY: &str = "application/vnd.oci.empty.v1+json";
const NOTHING: &[u8] = b"{}";

/// What the manifest behind the tag is.
const KIND: &str = "application/vnd.crosskit.cache.turn.v1";

/// The annotation that says whose turn it is.
const WHOSE: &str = "dev.crosskit.cache.turn";

/// The shortest wait before it is looked again whether one has the turn.
const SETTLED: Duration = Duration::from_millis(150);

/// How many times longer than one was on its way oneself others may have been.
const SLOWER: u32 = 4;

/// The longest wait before it is looked again whether nobody has the turn.
const LOOK_AGAIN: Duration = Duration::from_millis(60);

/// How long a turn may take. Whoever is slower begins anew; who died holds nobody up for longer.
const LIMIT: Duration = Duration::from_secs(10);

/// How long others are waited for: a hundred of them at their usual pace.
const PATIENCE: Duration = Duration::from_secs(60);

/// Turns that are taken within this daemon, by the cache's name.
#[derive(Clone, Default)]
pub(crate) struct Turns(Arc<Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>>);

impl Turns {
    /// Waits for the other builds of this daemon that write to the same cache.
    pub async fn within(&self, cache: &str) -> tokio::sync::OwnedMutexGuard<()> {
        let lock = {
            let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            known.retain(|_, lock| lock.strong_count() > 0);
            match known.get(cache).and_then(Weak::upgrade) {
                Some(lock) => lock,
                None => {
                    let lock = Arc::default();
                    known.insert(cache.to_owned(), Arc::downgrade(&lock));
                    lock
                }
            }
        };
        lock.lock_owned().await
    }
}

/// The turn of whoever has it.
pub(crate) struct Turn {
    digest: Digest,
    since: Instant,
    /// When it was found to last.
    seen: Instant,
    lost: bool,
}

impl Turn {
    fn new(digest: Digest) -> Self {
        let now = Instant::now();
        Self { digest, since: now, seen: now, lost: false }
    }

    /// What the tag stands for while it lasts.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Whether others may take it for over soon.
    pub fn is_late(&self) -> bool {
        self.since.elapsed() > LIMIT / 2
    }

    /// It lasts.
    pub fn seen(&mut self) {
        self.seen = Instant::now();
    }

    /// Somebody else has taken it.
    pub fn lose(&mut self) {
        self.lost = true;
    }

    /// Whether it has to be taken again.
    pub fn is_over(&self) -> bool {
        self.lost
    }
}

/// What the tag stands for while it is somebody's turn, or nobody's.
fn sign(whose: &str) -> Result<(Descriptor, Vec<u8>)> {
    let nothing = Descriptor::of(EMPTY, NOTHING);
    let mut manifest = Manifest::new(media_types::OCI_MANIFEST, nothing.clone(), vec![nothing]);
    manifest.artifact_type = KIND.to_owned();
    manifest.annotations.insert(WHOSE.to_owned(), whose.to_owned());
    let bytes = json(&manifest)?;
    Ok((Descriptor::of(media_types::OCI_MANIFEST, &bytes), bytes))
}

impl<P: Place> Manifests<P> {
    /// Waits for one's turn; none where turns can't be taken.
    pub(crate) async fn turn(&self) -> Result<Option<Turn>> {
        let (ours, bytes) = sign(&format!("{:032x}", rand::random::<u128>()))?;
        let (nobodys, _) = sign("")?;
        let nothing = Descriptor::of(EMPTY, NOTHING);
        self.place.give_document(&nothing, NOTHING.to_vec()).await?;
        let begun = Instant::now();
        let mut others: Option<(Digest, Instant)> = None;
        while begun.elapsed() < PATIENCE {
            let started = Instant::now();
            let there = match self.place.standing(Spot::Turn).await {
                Ok(there) => there.filter(|there| *there != nobodys.digest),
                Err(error) if error.kind() == ErrorKind::User => return Ok(refused(&error)),
                Err(error) => return Err(error),
            };
            if let Some(there) = there {
                let since = match others {
                    Some((known, since)) if known == there => since,
                    _ => started,
                };
                others = Some((there, since));
                if since.elapsed() < LIMIT {
                    tokio::time::sleep(LOOK_AGAIN.mul_f64(0.3 + 0.7 * rand::random::<f64>())).await;
                    continue;
                }
            }
            match self.place.give_manifest(Spot::Turn, &ours, bytes.clone()).await {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::User => return Ok(refused(&error)),
                Err(error) => return Err(error),
            }
            tokio::time::sleep(SETTLED.max(started.elapsed() * SLOWER)).await;
            if self.place.standing(Spot::Turn).await? == Some(ours.digest) {
                return Ok(Some(Turn::new(ours.digest)));
            }
        }
        tracing::warn!(
            "others have written to the cache for {} s: it is written without a turn",
            PATIENCE.as_secs()
        );
        Ok(None)
    }

    /// Ends one's turn. Where that fails, others wait until it is over.
    pub(crate) async fn end_turn(&self, turn: &Turn) {
        let ended = async {
            let lasts = || async {
                let just_seen = turn.seen.elapsed() < SETTLED;
                Ok::<_, crate::RemoteCacheError>(
                    just_seen || self.place.standing(Spot::Turn).await? == Some(turn.digest),
                )
            };
            if !turn.lost && lasts().await? {
                let (nobodys, bytes) = sign("")?;
                self.place.give_manifest(Spot::Turn, &nobodys, bytes).await?;
            }
            Ok::<_, crate::RemoteCacheError>(())
        };
        if let Err(error) = ended.await {
            tracing::debug!("others have to wait: {error}");
        }
    }
}

fn refused(error: &crate::RemoteCacheError) -> Option<Turn> {
    tracing::debug!("no turns are taken: {error}");
    None
}
