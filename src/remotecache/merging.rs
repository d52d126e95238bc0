//! Many writers of one cache where nobody can say "write this if nothing has changed": they take turns.
//!
//! A registry knows no such condition, so that a writer who has read may always write later than
//! another one and never know what went. Therefore a tag beside the cache says whose turn it is
//! (after Fischer's way of taking turns with one register: [`turns`](crate::turns)). Whoever has it reads what is there, adds
//! its own, makes sure that it still is its turn, and writes. At any moment there is a whole cache in its place,
//! an older or a newer one. Where no such tag can be had, a writer looks again later whether its own is still there.

use crate::error::{ErrorKind, RemoteCacheError, Result};
use crate::manifests::{Document, Listed, Manifests, Place, Spot, Whole, parse};
use crate::turns::Turn;
use crosskit_cacheconfig::{CacheConfig, Limits, covers, unite};
use crosskit_images::{Descriptor, Digest, media_types};
use crosskit_solver::VertexProgress;
use futures::future::{Either, join, select};
use std::collections::HashSet;
use std::pin::pin;
use std::time::Duration;
use tokio::sync::OwnedMutexGuard;

/// How often it is begun anew.
const ROUNDS: u32 = 64;

/// The longest wait after the first round; it doubles with each until it is 32 times as long.
const PAUSE: Duration = Duration::from_millis(20);

/// How long a writer who can't take turns waits until it looks again.
const SETTLED: Duration = Duration::from_millis(500);

/// How long others are held up by a writer whose layers are not there yet.
const EARLY: Duration = Duration::from_millis(500);

/// A cache that is there already.
struct Standing {
    digest: Digest,
    /// None for what is no cache.
    cache: Option<(CacheConfig, Listed)>,
}

impl Standing {
    fn covers(&self, own: &CacheConfig) -> bool {
        self.cache.as_ref().is_some_and(|(config, _)| covers(config, own).unwrap_or(false))
    }
}

/// Lets others go first, for a time that is nobody else's.
pub(crate) async fn pause(round: u32) {
    let longest = PAUSE * 2_u32.pow(round.min(5));
    tokio::time::sleep(longest.mul_f64(rand::random::<f64>())).await;
}

/// What is told when it takes too many rounds.
pub(crate) fn too_many(rounds: u32) -> RemoteCacheError {
    RemoteCacheError::Invalid(format!(
        "others have written to the cache each of {rounds} times that this build tried: export again, or to a name of its own"
    ))
}

/// The turn of one of this daemon's builds.
struct OwnTurn {
    _first: OwnedMutexGuard<()>,
    /// None where writers can't take turns.
    turn: Option<Turn>,
}

/// Somebody who has something to add.
struct Writer<'a> {
    own: &'a CacheConfig,
    layers: Listed,
    max_age: Duration,
    /// None where writers can't take turns.
    turn: Option<Turn>,
    /// Layers of others that are not there any more.
    lost: HashSet<String>,
}

impl<P: Place> Manifests<P> {
    /// Puts a cache into its place with what others have there, once `given` has put its layers there.
    pub(crate) async fn give_merged(
        &self,
        own: &CacheConfig,
        layers: Listed,
        max_age: Duration,
        given: impl Future<Output = Result<()>>,
        step: &VertexProgress,
    ) -> Result<Descriptor> {
        let OwnTurn { _first, turn } = self.turn_beside(given, step).await?;
        let mut writer = Writer { own, layers, max_age, turn, lost: HashSet::new() };
        let given = self.take_turns(&mut writer, step).await;
        if let Some(turn) = &writer.turn {
            self.end_turn(turn).await;
        }
        given
    }

    /// Waits for one's turn while `given` does what takes long. A turn that comes much too early is left to others and
    /// waited for again.
    async fn turn_beside(
        &self,
        given: impl Future<Output = Result<()>>,
        step: &VertexProgress,
    ) -> Result<OwnTurn> {
        // Whichever is not over goes on all the time: it may hold what the other one waits for.
        let mut given = pin!(given);
        let (own, done) = match select(given.as_mut(), pin!(self.own_turn(step))).await {
            Either::Left((done, own)) => (own.await, Some(done)),
            Either::Right((own, given)) => (own, tokio::time::timeout(EARLY, given).await.ok()),
        };
        if let Some(Ok(())) = done {
            return own;
        }
        let leave = async {
            if let Ok(OwnTurn { turn: Some(turn), .. }) = &own {
                self.end_turn(turn).await;
            }
        };
        match done {
            Some(failed) => {
                leave.await;
                failed?;
            }
            None => join(leave, given).await.1?,
        }
        drop(own);
        self.own_turn(step).await
    }

    async fn own_turn(&self, step: &VertexProgress) -> Result<OwnTurn> {
        // Builds of this daemon need not ask anybody.
        let _first = self.turns.within(&self.place.name()).await;
        let waiting = step.part("waiting for others who write to the cache");
        let turn = self.turn().await;
        drop(waiting);
        Ok(OwnTurn { _first, turn: turn? })
    }

    async fn take_turns(&self, writer: &mut Writer<'_>, step: &VertexProgress) -> Result<Descriptor> {
        for round in 0..ROUNDS {
            if round > 0 && writer.turn.as_ref().is_some_and(Turn::is_over) {
                writer.turn = self.turn().await?;
            }
            let standing = self.standing().await?;
            if let Some(there) = standing.as_ref().filter(|there| round > 0 && there.covers(writer.own)) {
                return self.described(there.digest).await;
            }
            let before = standing.as_ref().map(|there| there.digest);
            let (united, listed) = self.united(writer, standing.and_then(|there| there.cache));
            let whole = Whole::of(self.documents, &united, &listed)?;
            if before == Some(whole.manifest.digest) {
                return Ok(whole.manifest);
            }
            self.give_config(&whole, step).await?;
            if !self.is_still(writer, before).await? {
                pause(round).await;
                continue;
            }
            match self.give_whole(&whole, step).await {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::User => {
                    // It may be that the registry has lost layers of others.
                    let lost = self.lost(writer, &united).await?;
                    if lost.is_empty() {
                        return Err(error);
                    }
                    writer.lost.extend(lost);
                    continue;
                }
                Err(error) => return Err(error),
            }
            if writer.turn.is_none() {
                tokio::time::sleep(SETTLED).await;
            }
            match self.is_still(writer, Some(whole.manifest.digest)).await {
                Ok(true) => return Ok(whole.manifest),
                Ok(false) => pause(round).await,
                Err(error) => {
                    tracing::warn!("it is written, but nobody tells whether it stays: {error}");
                    return Ok(whole.manifest);
                }
            }
        }
        Err(too_many(ROUNDS))
    }

    /// One's own with what is there.
    fn united(&self, writer: &Writer<'_>, there: Option<(CacheConfig, Listed)>) -> (CacheConfig, Listed) {
        let (own, mut listed) = (writer.own.clone(), writer.layers.clone());
        let Some((config, theirs)) = there else { return (own, listed) };
        let has = |blob: &str| {
            !writer.lost.contains(blob) && (theirs.contains_key(blob) || writer.layers.contains_key(blob))
        };
        match unite(&own, &config, has, &Limits::new(writer.max_age)) {
            Ok(both) => {
                for (blob, desc) in theirs {
                    listed.entry(blob).or_insert_with(|| self.listed(&desc));
                }
                (both, listed)
            }
            Err(why) => {
                tracing::warn!("what is there is passed over: {why}");
                (own, listed)
            }
        }
    }

    /// Whether it still is a writer's turn or, where none can be had, whether what it knows is still there.
    async fn is_still(&self, writer: &mut Writer<'_>, known: Option<Digest>) -> Result<bool> {
        match &mut writer.turn {
            Some(turn) => {
                let lasts = self.place.standing(Spot::Turn).await? == Some(turn.digest()) && !turn.is_late();
                match lasts {
                    true => turn.seen(),
                    false => turn.lose(),
                }
                Ok(lasts)
            }
            None => Ok(self.place.standing(Spot::Cache).await? == known),
        }
    }

    /// Which layers of others are not there any more.
    async fn lost(&self, writer: &Writer<'_>, united: &CacheConfig) -> Result<Vec<String>> {
        let foreign = united.layers.iter().map(|layer| &layer.blob);
        let foreign = foreign.filter(|blob| !writer.layers.contains_key(*blob));
        let foreign: HashSet<Digest> = foreign.filter_map(|blob| blob.parse().ok()).collect();
        let lost = self.place.lost(foreign.into_iter().collect()).await?;
        Ok(lost.iter().map(Digest::to_string).collect())
    }

    /// What is in the cache's place.
    async fn standing(&self) -> Result<Option<Standing>> {
        let digest = match self.place.standing(Spot::Cache).await {
            Ok(Some(digest)) => digest,
            Ok(None) => return Ok(None),
            // Who may write but not read, and registries that so tell of what is not there.
            Err(error) if error.kind() == ErrorKind::User => {
                tracing::warn!("what others have written is not looked at: {error}");
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let read = async {
            let (config, listed) = Document::parse(&self.place.manifest(digest).await?)?.cache();
            let Some(config) = config else { return Ok::<_, RemoteCacheError>(None) };
            let config: CacheConfig = parse(&self.place.document(&config).await?, "cache config")?;
            let listed = listed.into_iter().map(|desc| (desc.digest.to_string(), desc));
            Ok(Some((config, listed.collect())))
        };
        let cache = match read.await {
            Ok(cache) => cache,
            // What is no cache, or one whose document is lost, gives way to one that is.
            Err(error) if error.kind() == ErrorKind::User => {
                tracing::warn!("what is there is passed over: {error}");
                None
            }
            Err(error) => return Err(error),
        };
        Ok(Some(Standing { digest, cache }))
    }

    /// Another's layer as our manifest lists it.
    fn listed(&self, desc: &Descriptor) -> Descriptor {
        let media_type = media_types::convert_layer(&desc.media_type, self.documents.oci());
        Descriptor { media_type: media_type.to_string(), ..desc.clone() }
    }

    /// A manifest that somebody else has written.
    async fn described(&self, digest: Digest) -> Result<Descriptor> {
        let bytes = self.place.manifest(digest).await?;
        let media_type = Document::parse(&bytes)?.media_type().to_owned();
        Ok(Descriptor::of(media_type, &bytes))
    }
}
