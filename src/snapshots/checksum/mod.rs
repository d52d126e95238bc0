//! Digests of files and folders, as BuildKit computes them for cache keys (cache/contenthash), so
//! that caches of one are hit by the other.
//!
//! A file's digest covers its metadata but neither its name nor its times; a folder's covers the
//! names and digests of its entries. [`Tree`] remembers them; what it does not know yet it looks
//! up in the snapshot's files, no more than the question needs.

mod files;
mod header;
mod persist;
mod resolve;
mod select;
mod tree;
mod update;

pub use header::{EntryHeader, FileHasher, GoMode};
pub use update::{ChecksumUpdate, EntryKind};
pub(crate) use update::{save, start};

use crate::{Error, Ref, Result};
use crosskit_images::Digest;
use files::Files;
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use tree::Tree;

/// What is asked of a path.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct ContentQuery {
    /// `*`, `?` and `[…]` in the path stand for names.
    pub wildcard: bool,
    /// If the path ends at a symbolic link, what it points to is meant.
    pub follow_links: bool,
    /// Only what these select, below the path.
    pub include_patterns: Vec<String>,
    /// Not what these select, below the path.
    pub exclude_patterns: Vec<String>,
    /// Beginnings of paths of which each must have been selected.
    pub required_paths: Vec<String>,
}

/// How many snapshots' digests stay in memory, and how many entries in all.
const KEPT_TREES: usize = 32;
const KEPT_ENTRIES: usize = 400_000;

/// The digests of snapshots that were used last.
#[derive(Default)]
pub(crate) struct Checksums {
    recent: Mutex<VecDeque<(String, SharedTree)>>,
}

pub(crate) type SharedTree = Arc<Mutex<Tree>>;

impl Checksums {
    /// The tree of a snapshot: from memory, from its file, or new.
    fn tree(&self, id: &str, file: &std::path::Path) -> SharedTree {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = recent.iter().position(|(other, _)| other == id)
            && let Some(found) = recent.remove(at)
        {
            let tree = found.1.clone();
            recent.push_front(found);
            return tree;
        }
        let tree = Arc::new(Mutex::new(persist::load(file, id).unwrap_or_default()));
        self.insert(&mut recent, id, &tree);
        tree
    }

    pub(crate) fn put(&self, id: &str, tree: Tree) -> SharedTree {
        let tree = Arc::new(Mutex::new(tree));
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.retain(|(other, _)| other != id);
        self.insert(&mut recent, id, &tree);
        tree
    }

    pub(crate) fn take(&self, id: &str) -> Option<SharedTree> {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let at = recent.iter().position(|(other, _)| other == id)?;
        recent.remove(at).map(|(_, tree)| tree)
    }

    fn insert(&self, recent: &mut VecDeque<(String, SharedTree)>, id: &str, tree: &SharedTree) {
        recent.push_front((id.to_string(), tree.clone()));
        let mut entries = 0;
        let fits = recent.iter().take(KEPT_TREES).take_while(|(_, tree)| {
            // One that is being worked on counts when it is done.
            entries += tree.try_lock().map_or(0, |tree| tree.entries());
            entries <= KEPT_ENTRIES
        });
        let fits = fits.count().max(1);
        recent.truncate(fits);
    }
}

/// The digest of what `path` selects in a snapshot; of nothing at all if there is no snapshot.
pub async fn content_digest(reference: Option<&Ref>, path: &str, query: &ContentQuery) -> Result<Digest> {
    let Some(reference) = reference else {
        return match path {
            "/" => Ok(Digest::of([])),
            _ => Err(Error::NoSuchFile { path: path.to_string() }),
        };
    };
    let node = reference.node();
    let file = file_of(reference);
    let tree = node.store.checksums.tree(&node.id, &file);
    if let Ok(mut tree) = tree.try_lock()
        && let Some(known) = select::digest(&mut tree, None, path, query)?
    {
        return Ok(Digest::from_bytes(known));
    }
    let mounted = reference.mount_readonly().await?;
    let (path, query, id) = (path.to_string(), query.clone(), node.id.clone());
    let task = tokio::task::spawn_blocking(move || {
        let files = Files::open(mounted)?;
        let mut tree = tree.lock().unwrap_or_else(PoisonError::into_inner);
        let digest = select::digest(&mut tree, Some(&files), &path, &query)?;
        drop(files);
        if tree.take_changed() {
            persist::save(&file, &id, &tree);
        }
        digest.ok_or(Error::NotFound { path })
    });
    task.await.unwrap_or(Err(Error::Canceled)).map(Digest::from_bytes)
}

/// Where a snapshot's digests are kept on the disk.
pub(crate) fn file_of(reference: &Ref) -> PathBuf {
    let node = reference.node();
    let owner = match &node.parents {
        crate::node::Parents::View(of) => &of.id,
        _ => &node.id,
    };
    node.store.snapshot_dir(owner).join("checksums")
}

#[cfg(test)]
mod checksum_tests;
