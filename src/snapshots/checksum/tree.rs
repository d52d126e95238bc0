//! The digests that are known of a snapshot, by folders.

use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, HashMap};

pub(crate) type Raw = [u8; 32];

/// A file or folder that is known.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Entry {
    File { digest: Option<Raw> },
    Link { target: Box<[u8]>, digest: Option<Raw> },
    Dir(Box<Dir>),
}

/// A folder.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Dir {
    /// The digest of the folder itself, as of a file.
    pub(crate) header: Option<Raw>,
    /// The digest of the folder with all that is in it.
    pub(crate) digest: Option<Raw>,
    /// Whether every entry is known.
    pub(crate) complete: bool,
    pub(crate) children: BTreeMap<Box<[u8]>, Entry>,
}

/// All that is known of a snapshot.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    pub(crate) root: Dir,
    /// Answers to earlier questions that took a walk.
    pub(crate) answers: HashMap<(String, super::ContentQuery), Raw>,
    changed: bool,
}

impl Tree {
    /// A tree of which every entry will be told.
    pub(crate) fn complete() -> Tree {
        Tree { root: Dir { complete: true, ..Dir::default() }, ..Tree::default() }
    }

    pub(crate) fn of(root: Dir) -> Tree {
        Tree { root, ..Tree::default() }
    }

    /// What is known at a path without following links.
    pub(crate) fn get(&self, path: &[Box<[u8]>]) -> Option<Found<'_>> {
        let Some((last, above)) = path.split_last() else { return Some(Found::Dir(&self.root)) };
        let mut dir = &self.root;
        for name in above {
            match dir.children.get(name)? {
                Entry::Dir(below) => dir = below,
                _ => return None,
            }
        }
        dir.children.get(last).map(|entry| match entry {
            Entry::Dir(dir) => Found::Dir(dir),
            other => Found::Leaf(other),
        })
    }

    /// The folder at a path.
    pub(crate) fn dir_mut(&mut self, path: &[Box<[u8]>]) -> Option<&mut Dir> {
        let mut dir = &mut self.root;
        for name in path {
            match dir.children.get_mut(name)? {
                Entry::Dir(below) => dir = below,
                _ => return None,
            }
        }
        Some(dir)
    }

    pub(crate) fn set_changed(&mut self) {
        self.changed = true;
    }

    /// Whether there is more to keep than last time.
    pub(crate) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    pub(crate) fn entries(&self) -> usize {
        fn count(dir: &Dir) -> usize {
            let below = dir.children.values().map(|entry| match entry {
                Entry::Dir(dir) => count(dir),
                _ => 1,
            });
            1 + below.sum::<usize>()
        }
        count(&self.root)
    }
}

/// What is at a path.
pub(crate) enum Found<'a> {
    Dir(&'a Dir),
    Leaf(&'a Entry),
}

impl Entry {
    pub(crate) fn leaf_digest(&self) -> Option<Raw> {
        match self {
            Entry::File { digest } | Entry::Link { digest, .. } => *digest,
            Entry::Dir(dir) => dir.digest,
        }
    }

    pub(crate) fn set_digest(&mut self, value: Raw) {
        match self {
            Entry::File { digest } | Entry::Link { digest, .. } => *digest = Some(value),
            Entry::Dir(dir) => dir.header = Some(value),
        }
    }
}

impl Dir {
    /// Computes the digests of this folder and those below from what is known of files. False if
    /// some file's digest is not.
    pub(crate) fn sum_up(&mut self) -> bool {
        if self.digest.is_some() {
            return true;
        }
        let Some(header) = self.header.filter(|_| self.complete) else { return false };
        let mut sum = Sum::default();
        sum.add(b"\0", &header);
        let mut name = Vec::new();
        for (child, entry) in &mut self.children {
            if let Entry::Dir(dir) = entry
                && !dir.sum_up()
            {
                return false;
            }
            let Some(digest) = entry.leaf_digest() else { return false };
            name.clear();
            name.push(0);
            name.extend_from_slice(child);
            sum.add(&name, &digest);
        }
        self.digest = Some(sum.finish());
        true
    }
}

/// The digest of a list of names and digests.
#[derive(Default)]
pub(crate) struct Sum(Sha256);

impl Sum {
    /// Adds an entry. Names are paths with zero bytes for slashes; digests count as their text.
    pub(crate) fn add(&mut self, key: &[u8], digest: &Raw) {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let mut text = *b"sha256:0000000000000000000000000000000000000000000000000000000000000000";
        for (at, byte) in digest.iter().enumerate() {
            text[7 + at * 2] = HEX[usize::from(byte >> 4)];
            text[8 + at * 2] = HEX[usize::from(byte & 15)];
        }
        self.0.update(key);
        self.0.update(text);
    }

    pub(crate) fn finish(self) -> Raw {
        self.0.finalize().into()
    }
}
