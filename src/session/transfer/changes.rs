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
    /// What [`ChangeSink::checksum`] came to over the file's bytes; none for a deletion. For a hard
    /// link (a file with a `linkname`) it is over no bytes: its content is that of the file linked
    /// to, which was told before.
    pub digest: Option<[u8; 32]>,
}

/// The checksum of a file in the making.
pub trait Checksum: Send {
    /// Takes the next bytes of the file.
    fn update(&mut self, bytes: &[u8]);

    /// What it comes to.
    fn finish(self: Box<Self>) -> [u8; 32];
}

/// Who wants to know about changes. Called from several threads at once, in no particular order
/// but: a folder before its entries, and the target of a hard link before the link.
pub trait ChangeSink: Send + Sync {
    /// Begins the checksum of a file.
    fn checksum(&self, stat: &Stat) -> Box<dyn Checksum>;

    /// Takes note of a change that is now on disk.
    fn changed(&self, change: Change<'_>);
}
