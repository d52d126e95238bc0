//! Files' checksums, taken while the files arrive.

use crosskit_api::fsutil::Stat;
use crosskit_images::Digest;
use crosskit_session::transfer::{Change, ChangeKind, ChangeSink, Checksum, FileKind, kind_of};
use crosskit_snapshots::checksum::{ChecksumUpdate, EntryHeader, EntryKind, FileHasher, GoMode};

/// Hands what a transfer changes to the checksums of a snapshot.
pub(crate) struct Checksums(pub(crate) ChecksumUpdate);

struct Hasher(FileHasher);

impl Checksum for Hasher {
    fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(self: Box<Self>) -> [u8; 32] {
        *self.0.finish().as_bytes()
    }
}

impl ChangeSink for Checksums {
    fn checksum(&self, stat: &Stat) -> Box<dyn Checksum> {
        let xattrs = stat.xattrs.iter().map(|(key, value)| (key.as_bytes(), value.as_slice()));
        Box::new(Hasher(FileHasher::new(&EntryHeader {
            mode: GoMode(stat.mode),
            uid: stat.uid,
            gid: stat.gid,
            size: stat.size.max(0) as u64,
            linkname: stat.linkname.as_bytes(),
            device: (stat.devmajor as u32, stat.devminor as u32),
            xattrs: xattrs.collect(),
        })))
    }

    fn changed(&self, change: Change<'_>) {
        let (Some(stat), Some(digest)) = (change.stat, change.digest) else {
            if change.kind == ChangeKind::Delete {
                self.0.remove(change.path);
            }
            return;
        };
        let kind = match kind_of(stat.mode) {
            FileKind::Dir => EntryKind::Folder,
            FileKind::Symlink => EntryKind::Symlink(stat.linkname.as_bytes()),
            _ if !stat.linkname.is_empty() => EntryKind::HardLink(stat.linkname.as_bytes()),
            _ => EntryKind::File,
        };
        self.0.put(change.path, kind, Digest::from_bytes(digest));
    }
}
