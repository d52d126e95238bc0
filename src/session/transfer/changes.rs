//! What a receiver tells of its changes, so that checksums need not read the files again.

use crosskit_api::fsutil::Stat;

/// What happened to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// It was not there, or its content is new.
    Add,
    /// It was there and differs.
    Modify,
    /// It is gone, with everything in it.
    Delete,
}

/// One change of a received tree.
#[derive(Debug)]
pub struct Change<'a> {
    /// What happened.
    pub kind: ChangeKind,
    /// The path, relative, without a leading slash.
    pub path: &'a str,
    /// What the sender said about the file; none for a deletion.
    pub stat: Option<&'a Stat>,
    /// SHA-256 over what [`ChangeSink::header`] gave and the file's bytes; none for a deletion. For
    /// a hard link (a file with a `linkname`), that of its header alone: its content is that of
    /// the file linked to, which was told before.
    pub digest: Option<[u8; 32]>,
}

/// Who wants to know about changes. Called from several threads at once, in no particular order
/// but: a folder before its entries, and the target of a hard link before the link.
pub trait ChangeSink: Send + Sync {
    /// What the checksum of a file begins with.
    fn header(&self, stat: &Stat) -> Vec<u8>;

    /// Takes note of a change that is now on disk.
    fn changed(&self, change: Change<'_>);
}
