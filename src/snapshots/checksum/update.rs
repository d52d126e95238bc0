//! Digests of files as they arrive from a client.

use super::resolve::{Path, parts};
use super::tree::{Dir, Entry, Raw, Tree};
use super::{Checksums, SharedTree, persist};
use crosskit_images::Digest;
use sha2::{Digest as _, Sha256};
use std::sync::{Arc, Mutex, PoisonError};

/// What arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind<'a> {
    /// A file, device or pipe.
    File,
    /// Another name of a file, which is at this path.
    HardLink(&'a [u8]),
    /// A symbolic link with this target.
    Symlink(&'a [u8]),
    /// A folder. What is known of its entries stays.
    Folder,
}

/// Takes the digests of what a transfer changes in a snapshot. Can be told from several threads.
pub struct ChecksumUpdate(Mutex<State>);

struct State {
    tree: Tree,
    /// Names of files whose digest is that of another name.
    links: Vec<(Path, Path)>,
}

impl ChecksumUpdate {
    /// Of a snapshot with these digests so far.
    pub(crate) fn new(mut tree: Tree) -> ChecksumUpdate {
        // A transfer tells nothing of the root itself; it counts as if it were nothing.
        tree.root.header = Some(Sha256::digest([]).into());
        tree.answers.clear();
        ChecksumUpdate(Mutex::new(State { tree, links: Vec::new() }))
    }

    /// Something was added or replaced. The digest is that of [`super::FileHasher`].
    pub fn put(&self, path: impl AsRef<[u8]>, kind: EntryKind<'_>, digest: Digest) {
        let path = parts(path.as_ref());
        let Some((name, above)) = path.split_last() else { return };
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let EntryKind::HardLink(target) = kind {
            state.links.push((path.clone(), parts(target)));
        }
        let dir = touch(&mut state.tree.root, above);
        let digest = *digest.as_bytes();
        match (dir.children.get_mut(name), &kind) {
            (Some(Entry::Dir(dir)), EntryKind::Folder) => {
                dir.header = Some(digest);
                dir.digest = None;
            }
            (_, kind) => {
                dir.children.insert(name.clone(), entry(kind, digest));
            }
        }
    }

    /// Something was removed, with all below it.
    pub fn remove(&self, path: impl AsRef<[u8]>) {
        let path = parts(path.as_ref());
        let Some((name, above)) = path.split_last() else { return };
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        touch(&mut state.tree.root, above).children.remove(name);
    }

    /// The digests after the transfer.
    pub(crate) fn finish(self) -> Tree {
        let State { mut tree, links } = self.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        for (path, target) in links {
            let source = tree.get(&target).and_then(|found| match found {
                super::tree::Found::Leaf(entry) => entry.leaf_digest(),
                super::tree::Found::Dir(_) => None,
            });
            let Some((name, above)) = path.split_last() else { continue };
            if let (Some(digest), Some(dir)) = (source, tree.dir_mut(above))
                && let Some(entry @ Entry::File { .. }) = dir.children.get_mut(name)
            {
                entry.set_digest(digest);
            }
        }
        tree.set_changed();
        tree
    }
}

fn entry(kind: &EntryKind<'_>, digest: Raw) -> Entry {
    match kind {
        EntryKind::File | EntryKind::HardLink(_) => Entry::File { digest: Some(digest) },
        EntryKind::Symlink(target) => Entry::Link { target: (*target).into(), digest: Some(digest) },
        EntryKind::Folder => {
            Entry::Dir(Box::new(Dir { header: Some(digest), complete: true, ..Dir::default() }))
        }
    }
}

/// The folder at a path, made if need be; all above it have changed.
fn touch<'a>(root: &'a mut Dir, path: &[Box<[u8]>]) -> &'a mut Dir {
    root.digest = None;
    let mut dir = root;
    for name in path {
        let below = dir.children.entry(name.clone()).or_insert_with(|| Entry::Dir(Box::default()));
        if !matches!(below, Entry::Dir(_)) {
            *below = Entry::Dir(Box::default());
        }
        let Entry::Dir(next) = below else { unreachable!("just made a folder") };
        next.digest = None;
        dir = next;
    }
    dir
}

/// The digests of a snapshot as the transfer before left them, if they are known.
pub(crate) fn start(
    kept: &Checksums,
    file: &std::path::Path,
    before: Option<&str>,
    fresh: bool,
) -> ChecksumUpdate {
    let in_memory = before.and_then(|id| kept.take(id)).and_then(|tree| {
        let tree = Arc::try_unwrap(tree).ok()?;
        Some(tree.into_inner().unwrap_or_else(PoisonError::into_inner))
    });
    let tree = match in_memory.or_else(|| persist::load(file, before?)) {
        Some(tree) => tree,
        None if fresh => Tree::complete(),
        // Files without known digests: they are looked at when somebody asks.
        None => Tree::default(),
    };
    ChecksumUpdate::new(tree)
}

/// Keeps the digests of a snapshot on the disk.
pub(crate) fn save(file: &std::path::Path, id: &str, tree: &SharedTree) {
    let mut tree = tree.lock().unwrap_or_else(PoisonError::into_inner);
    if tree.take_changed() {
        persist::save(file, id, &tree);
    }
}
