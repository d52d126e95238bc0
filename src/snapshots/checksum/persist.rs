//! Digests on the disk: one file beside the snapshot's own folder.
//!
//! A header with the snapshot's id, then the root folder. An entry is its kind and what it has as
//! bits of one byte, its digests, its length-prefixed target and, for a folder, the number of its
//! entries and each with its length-prefixed name. A file that cannot be read counts as none.

use super::tree::{Dir, Entry, Raw, Tree};
use std::io::Write;
use std::path::Path;

const MAGIC: &[u8; 8] = b"cksums1\n";

const LINK: u8 = 1;
const DIR: u8 = 2;
const HAS_DIGEST: u8 = 4;
const HAS_HEADER: u8 = 8;
const COMPLETE: u8 = 16;

/// Deepest folder that is read. Paths end at 4096 bytes.
const MAX_DEPTH: usize = 2100;

/// Writes the digests of snapshot `id`, if there is a folder to write them into.
pub(crate) fn save(file: &Path, id: &str, tree: &Tree) {
    let mut bytes = Vec::with_capacity(tree.entries() * 64);
    bytes.extend_from_slice(MAGIC);
    put_bytes(&mut bytes, id.as_bytes());
    put_dir(&mut bytes, &tree.root);
    let temporary = file.with_extension(format!("new{}", std::process::id()));
    let write = || {
        std::fs::File::create(&temporary)?.write_all(&bytes)?;
        std::fs::rename(&temporary, file)
    };
    if let Err(why) = write() {
        // Made again when needed. A merge has no folder at all.
        tracing::debug!(path = %file.display(), %why, "digests were not kept");
        drop(std::fs::remove_file(&temporary));
    }
}

/// Reads the digests of snapshot `id`.
pub(crate) fn load(file: &Path, id: &str) -> Option<Tree> {
    let bytes = std::fs::read(file).ok()?;
    let mut reader = Reader(bytes.strip_prefix(MAGIC)?);
    if reader.bytes()? != id.as_bytes() {
        return None;
    }
    let flags = reader.byte()?;
    let root = reader.dir(flags, 0)?;
    reader.0.is_empty().then(|| Tree::of(root))
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes);
}

fn put_dir(out: &mut Vec<u8>, dir: &Dir) {
    let bit = |set: bool, bit: u8| if set { bit } else { 0 };
    out.push(
        DIR | bit(dir.digest.is_some(), HAS_DIGEST)
            | bit(dir.header.is_some(), HAS_HEADER)
            | bit(dir.complete, COMPLETE),
    );
    dir.digest.iter().chain(&dir.header).for_each(|d| out.extend_from_slice(d));
    out.extend_from_slice(&(dir.children.len() as u32).to_le_bytes());
    for (name, entry) in &dir.children {
        put_bytes(out, name);
        match entry {
            Entry::Dir(dir) => put_dir(out, dir),
            Entry::File { digest } => {
                out.push(bit(digest.is_some(), HAS_DIGEST));
                digest.iter().for_each(|d| out.extend_from_slice(d));
            }
            Entry::Link { target, digest } => {
                out.push(LINK | bit(digest.is_some(), HAS_DIGEST));
                digest.iter().for_each(|d| out.extend_from_slice(d));
                put_bytes(out, target);
            }
        }
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(length)?;
        self.0 = tail;
        Some(head)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|b| b[0])
    }

    fn number(&mut self) -> Option<usize> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?) as usize)
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.number()?;
        self.take(length)
    }

    /// Some(None) where there is none.
    fn digest(&mut self, flags: u8, bit: u8) -> Option<Option<Raw>> {
        match flags & bit {
            0 => Some(None),
            _ => Some(Some(self.take(32)?.try_into().ok()?)),
        }
    }

    fn dir(&mut self, flags: u8, depth: usize) -> Option<Dir> {
        if flags & DIR == 0 || depth > MAX_DEPTH {
            return None;
        }
        let digest = self.digest(flags, HAS_DIGEST)?;
        let header = self.digest(flags, HAS_HEADER)?;
        let count = self.number()?;
        let mut dir = Dir { header, digest, complete: flags & COMPLETE != 0, ..Dir::default() };
        let mut entries = Vec::with_capacity(count.min(1 << 16));
        for _ in 0..count {
            let name: Box<[u8]> = self.bytes()?.into();
            let flags = self.byte()?;
            let entry = match flags & (LINK | DIR) {
                DIR => Entry::Dir(Box::new(self.dir(flags, depth + 1)?)),
                LINK => {
                    let digest = self.digest(flags, HAS_DIGEST)?;
                    Entry::Link { target: self.bytes()?.into(), digest }
                }
                _ => Entry::File { digest: self.digest(flags, HAS_DIGEST)? },
            };
            entries.push((name, entry));
        }
        // In order already, which makes the map at once.
        dir.children = entries.into_iter().collect();
        Some(dir)
    }
}
