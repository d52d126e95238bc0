//! What the filesystem says about a file, in the shape this crate needs.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, FileType, Stat, statat};

use crate::tar::Timestamp;

/// A file's metadata.
#[derive(Clone, Copy, Debug)]
pub(super) struct Meta(pub(super) Stat);

impl Meta {
    /// Of a name within a folder, not following a link.
    pub(super) fn at(dir: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<Self> {
        statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).map(Self)
    }

    /// Of an open file.
    pub(super) fn of(file: impl AsFd) -> rustix::io::Result<Self> {
        rustix::fs::fstat(file).map(Self)
    }

    pub(super) fn file_type(&self) -> FileType {
        FileType::from_raw_mode(self.0.st_mode)
    }

    pub(super) fn is_dir(&self) -> bool {
        self.file_type() == FileType::Directory
    }

    /// Whether it is overlayfs's mark of a removed file: a character device 0:0.
    pub(super) fn is_whiteout(&self) -> bool {
        self.file_type() == FileType::CharacterDevice && self.0.st_rdev == 0
    }

    pub(super) fn mode(&self) -> u32 {
        self.0.st_mode & 0o7777
    }

    pub(super) fn size(&self) -> u64 {
        self.0.st_size as u64
    }

    pub(super) fn mtime(&self) -> Timestamp {
        Timestamp { seconds: self.0.st_mtime, nanos: self.0.st_mtime_nsec as u32 }
    }

    /// The inode's number where the file has further names.
    pub(super) fn shared_inode(&self) -> Option<u64> {
        (!self.is_dir() && self.0.st_nlink > 1).then_some(self.0.st_ino)
    }
}
