//! Cache mounts: folders that steps keep between builds.

use crate::clone::{Files, clone_tree};
use crate::kept::Found;
use crate::mounts::Mounted;
use crate::record::{KEYS, RecordType};
use crate::{About, Error, MutableRef, Ref, Result, Snapshots};
use crosskit_metadata::Change;
use std::collections::HashSet;
use std::sync::{Arc, PoisonError, Weak};

/// What happens when several steps use one cache at the same time (BuildKit's CacheSharingOpt).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sharing {
    /// They all use it.
    #[default]
    Shared,
    /// Each has its own; a free one that was left earlier is taken up.
    Private,
    /// One waits for the other.
    Locked,
}

/// A cache mount in use. Kept as it is when dropped.
pub struct CacheMount {
    // In this order: unmounted first, freed for others then.
    mounted: Mounted,
    _mutable: Arc<MutableRef>,
}

impl CacheMount {
    /// Its tree, to be written to.
    pub fn mounted(&self) -> &Mounted {
        &self.mounted
    }
}

/// Does work on files, which blocks.
async fn off_runtime<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(Error::Canceled))
}

impl Snapshots {
    /// The cache named `name`, which starts with the files of `base`. Waits for others if sharing
    /// says so; dropping the future gives up waiting.
    pub async fn cache_mount(
        &self,
        name: &str,
        base: Option<&Ref>,
        sharing: Sharing,
        description: &str,
    ) -> Result<CacheMount> {
        let key = match base {
            Some(base) => format!("cache:{name}:{}", base.id()),
            None => format!("cache:{name}"),
        };
        let about = About::new(description).of_type(RecordType::CacheMount);
        let mutable = match sharing {
            Sharing::Shared => self.shared_cache(&key, base, about)?,
            Sharing::Private => Arc::new(self.free_or_new(&key, base, about)?),
            Sharing::Locked => Arc::new(self.wait_for_cache(&key, base, about).await?),
        };
        Ok(CacheMount { mounted: mutable.mount().await?, _mutable: mutable })
    }

    /// A copy of what the cache named `name` holds now, of those that start empty. None if there is none, or
    /// if somebody has it who does not share it.
    pub async fn copy_cache_mount(&self, name: &str) -> Result<Option<Ref>> {
        let key = format!("cache:{name}");
        let shared = {
            let shared = self.0.shared.lock().unwrap_or_else(PoisonError::into_inner);
            shared.get(&key).and_then(Weak::upgrade)
        };
        let cache = match shared {
            Some(cache) => cache,
            None => match self.free_by_key(&key)? {
                Found::Free(cache) => Arc::new(*cache),
                Found::InUse | Found::Nothing => return Ok(None),
            },
        };
        let copy = self.new_mutable(None, About::new(format!("copy of cache mount {name}")))?;
        let (from, to) = (cache.mount().await?, copy.mount().await?);
        off_runtime(move || clone_tree(from.path(), to.path(), Files::Copy, &HashSet::new())).await?;
        copy.commit().await.map(Some)
    }

    /// Has the cache named `name` begin with the files of a snapshot, unless it has any already; true if so.
    pub async fn fill_cache_mount(&self, name: &str, with: &Ref) -> Result<bool> {
        let key = format!("cache:{name}");
        let from = with.mount_readonly().await?;
        let about = About::new(format!("cached mount with id {name:?}")).of_type(RecordType::CacheMount);
        let cache = match self.free_by_key(&key)? {
            Found::Free(cache) => *cache,
            Found::InUse => return Ok(false),
            Found::Nothing => self.new_by_key(&key, None, about)?,
        };
        let to = cache.mount().await?;
        let filled = move || {
            let failed = |e| Error::file("listing", to.path(), e);
            if std::fs::read_dir(to.path()).map_err(failed)?.next().is_some() {
                return Ok(false);
            }
            clone_tree(from.path(), to.path(), Files::Copy, &HashSet::new()).map(|()| true)
        };
        let filled = off_runtime(filled).await;
        drop(cache);
        if filled.is_err() {
            // A part of it is worse than nothing.
            self.forget_cache_mount(name)?;
        }
        filled
    }

    /// Forgets what the cache named `name` holds, whatever it started from: the next step that
    /// wants it begins anew. Steps that use it now go on.
    pub fn forget_cache_mount(&self, name: &str) -> Result<()> {
        let own = format!("cache:{name}\0");
        let with_base = format!("cache:{name}:");
        let mut gone = Vec::new();
        for prefix in [own, with_base] {
            gone.extend(
                self.0
                    .db
                    .scan(KEYS, prefix.as_bytes())?
                    .into_iter()
                    .map(|(entry, _)| Change::delete(KEYS, entry)),
            );
        }
        let mut shared = self.0.shared.lock().unwrap_or_else(PoisonError::into_inner);
        shared
            .retain(|key, _| key != &format!("cache:{name}") && !key.starts_with(&format!("cache:{name}:")));
        Ok(self.0.db.write(gone)?)
    }

    fn free_or_new(&self, key: &str, base: Option<&Ref>, about: About) -> Result<MutableRef> {
        match self.free_by_key(key)? {
            Found::Free(mutable) => Ok(*mutable),
            Found::InUse | Found::Nothing => self.new_by_key(key, base, about),
        }
    }

    fn shared_cache(&self, key: &str, base: Option<&Ref>, about: About) -> Result<Arc<MutableRef>> {
        let mut shared = self.0.shared.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mutable) = shared.get(key).and_then(Weak::upgrade) {
            return Ok(mutable);
        }
        let mutable = Arc::new(self.free_or_new(key, base, about)?);
        shared.retain(|_, mutable| mutable.strong_count() > 0);
        shared.insert(key.to_string(), Arc::downgrade(&mutable));
        Ok(mutable)
    }

    async fn wait_for_cache(&self, key: &str, base: Option<&Ref>, about: About) -> Result<MutableRef> {
        loop {
            let mut freed = std::pin::pin!(self.0.freed.notified());
            // Listening before looking: nobody can be missed in between.
            freed.as_mut().enable();
            match self.free_by_key(key)? {
                Found::Free(mutable) => return Ok(*mutable),
                Found::Nothing => return self.new_by_key(key, base, about),
                Found::InUse => freed.await,
            }
        }
    }
}
