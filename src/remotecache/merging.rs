//! Many writers of one cache where nobody can say "write this if nothing has changed": each reads what
//! is there, adds its own, writes, and looks again until its own is in what is there.
//!
//! A registry knows no such condition, so that a writer who has read may always write later than
//! another one and never know what went. Therefore all is written twice: first beside the cache,
//! then in its place. Who finds neither as written starts over, and takes in what it finds in both:
//! whoever overwrites somebody in the cache's place still finds their part beside it. At any moment
//! there is a whole cache in its place, an older or a newer one.

use crate::error::{ErrorKind, RemoteCacheError, Result};
use crate::manifests::{Document, Listed, Manifests, Place, Spot, Whole, parse};
use crosskit_cacheconfig::{CacheConfig, Limits, covers, unite};
use crosskit_images::{Descriptor, Digest, media_types};
use crosskit_solver::VertexProgress;
use std::collections::HashSet;
use std::time::Duration;

/// How often it is begun anew. Each time somebody else has come to an end.
const ROUNDS: u32 = 64;

/// The longest wait after the first round; it doubles with each until it is 32 times as long.
const PAUSE: Duration = Duration::from_millis(20);

/// How long a writer who can't leave word beside the cache waits until it looks again.
const SETTLED: Duration = Duration::from_millis(500);

/// A cache that is there already.
struct Standing {
    digest: Digest,
    /// None for what is no cache.
    cache: Option<(CacheConfig, Listed)>,
}

impl Standing {
    fn is(&self, digest: Digest) -> bool {
        self.digest == digest
    }

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

impl<P: Place> Manifests<P> {
    /// Puts a cache, whose layers are there, into its place with what others have there.
    pub(crate) async fn give_merged(
        &self,
        own: &CacheConfig,
        layers: Listed,
        max_age: Duration,
        step: &VertexProgress,
    ) -> Result<Descriptor> {
        let mut lost: HashSet<String> = HashSet::new();
        let mut leaves_word = true;
        for round in 0..ROUNDS {
            let standing = self.standing(Spot::Cache, None).await?;
            let beside = match leaves_word {
                true => self.standing(Spot::Beside, standing.as_ref().map(|there| there.digest)).await?,
                false => None,
            };
            if let Some(there) = &standing
                && round > 0
                && there.covers(own)
                && (!leaves_word || beside.as_ref().is_none_or(|beside| beside.covers(own)))
            {
                return self.described(there.digest).await;
            }
            let (mut united, mut listed) = (own.clone(), layers.clone());
            for (config, theirs) in
                [&standing, &beside].into_iter().flatten().filter_map(|s| s.cache.as_ref())
            {
                let there = |blob: &str| {
                    !lost.contains(blob) && (theirs.contains_key(blob) || layers.contains_key(blob))
                };
                match unite(&united, config, there, &Limits::new(max_age)) {
                    Ok(both) => united = both,
                    Err(why) => tracing::warn!("what is there is passed over: {why}"),
                }
                for (blob, desc) in theirs {
                    listed.entry(blob.clone()).or_insert_with(|| self.listed(desc));
                }
            }
            let whole = Whole::of(self.documents, &united, &listed)?;
            if standing.as_ref().is_some_and(|there| there.is(whole.manifest.digest)) && beside.is_none() {
                return Ok(whole.manifest);
            }
            self.give_config(&whole, step).await?;
            let before = standing.map(|there| there.digest);
            match self.put(&whole, before, leaves_word, step).await {
                Ok(true) => return Ok(whole.manifest),
                Ok(false) => pause(round).await,
                Err(error) if error.kind() == ErrorKind::User => {
                    // It may be that the registry has lost layers of others.
                    let foreign = united.layers.iter().map(|layer| &layer.blob);
                    let foreign = foreign.filter(|blob| !layers.contains_key(*blob) && !lost.contains(*blob));
                    let foreign: HashSet<Digest> = foreign.filter_map(|blob| blob.parse().ok()).collect();
                    let gone = self.place.lost(foreign.into_iter().collect()).await?;
                    if gone.is_empty() && !leaves_word {
                        return Err(error);
                    }
                    // Or that it takes nothing but the cache itself.
                    leaves_word &= !gone.is_empty();
                    lost.extend(gone.iter().map(Digest::to_string));
                }
                Err(error) => return Err(error),
            }
        }
        Err(too_many(ROUNDS))
    }

    /// Writes beside the cache and in its place; false if somebody else writes, too.
    async fn put(
        &self,
        whole: &Whole,
        before: Option<Digest>,
        leaves_word: bool,
        step: &VertexProgress,
    ) -> Result<bool> {
        if leaves_word {
            self.give_whole(whole, Spot::Beside, step).await?;
        }
        if self.place.standing(Spot::Cache).await? != before {
            return Ok(false);
        }
        self.give_whole(whole, Spot::Cache, step).await?;
        if !leaves_word {
            tokio::time::sleep(SETTLED).await;
        }
        let ours = Some(whole.manifest.digest);
        for spot in [Spot::Beside, Spot::Cache].into_iter().filter(|spot| leaves_word || *spot == Spot::Cache)
        {
            match self.place.standing(spot).await {
                Ok(there) if there == ours => {}
                Ok(_) => return Ok(false),
                Err(error) => tracing::warn!("it is written, but nobody tells whether it stays: {error}"),
            }
        }
        Ok(true)
    }

    /// What is at a spot, unless it is `known`.
    async fn standing(&self, spot: Spot, known: Option<Digest>) -> Result<Option<Standing>> {
        let digest = match self.place.standing(spot).await {
            Ok(Some(digest)) if Some(digest) != known => digest,
            Ok(_) => return Ok(None),
            // Who may write but not read, and registries that so tell of what is not there.
            Err(error) if error.kind() == ErrorKind::User => {
                tracing::warn!("what others have written is not looked at: {error}");
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let read = async {
            let (config, listed) = Document::parse(&self.place.manifest(digest).await?)?.cache();
            let Some(config) = config else { return Ok(None) };
            let config: CacheConfig = parse(&self.place.document(&config).await?, "cache config")?;
            let listed = listed.into_iter().map(|desc| (desc.digest.to_string(), desc));
            Ok(Some((config, listed.collect())))
        };
        let cache = match read.await {
            Ok(cache) => cache,
            // What is no cache, or one whose document is lost, gives way to one that is.
            Err(error @ (RemoteCacheError::Invalid(_) | RemoteCacheError::TooLarge { .. })) => {
                tracing::warn!("what is there is passed over: {error}");
                None
            }
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
