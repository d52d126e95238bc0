//! What is already in the folder that a tree is received into.

use super::folder::stat_of;
use crate::SessionError;
use crosskit_api::fsutil::Stat;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, ResolveFlags};
use std::collections::{HashMap, VecDeque};
use std::ffi::{CStr, CString};

/// Paths inside a received tree are never followed through links.
pub(crate) const CONFINED: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS);

/// Opens a folder inside `root` for listing and for names in it.
pub(crate) fn open_dir(root: BorrowedFd<'_>, path: &str) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat2(root, if path.is_empty() { "." } else { path }, flags, Mode::empty(), CONFINED)
}

/// The names in a folder, sorted.
pub(crate) fn names(dir: BorrowedFd<'_>, path: &str) -> Result<VecDeque<CString>, SessionError> {
    let mut names = Vec::new();
    let mut buffer = Vec::with_capacity(16 << 10);
    let mut listing = RawDir::new(dir, buffer.spare_capacity_mut());
    while let Some(entry) = listing.next() {
        let entry = entry.map_err(SessionError::io(format!("readdir {path}")))?;
        if entry.file_name() != c"." && entry.file_name() != c".." {
            names.push(entry.file_name().to_owned());
        }
    }
    names.sort_unstable();
    Ok(names.into())
}

/// First paths of the files that have several names.
#[derive(Default)]
pub(crate) struct Links(HashMap<(u64, u64), String>);

impl Links {
    /// What is there under `name`. A file that was seen under another name says so in `linkname`.
    pub(crate) fn stat(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &CStr,
        path: &str,
    ) -> Result<Stat, SessionError> {
        let found = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(SessionError::io(format!("lstat {path}")))?;
        let mut stat = stat_of(&found, path);
        match FileType::from_raw_mode(found.st_mode) {
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(dir, name, Vec::new())
                    .map_err(SessionError::io(format!("readlink {path}")))?;
                stat.linkname = target.to_string_lossy().into_owned();
            }
            FileType::Directory => {}
            _ if found.st_nlink > 1 => {
                let first = self.0.entry((found.st_dev, found.st_ino)).or_insert_with(|| path.to_string());
                if first != path {
                    stat.linkname = first.clone();
                    stat.size = 0;
                }
            }
            _ => {}
        }
        Ok(stat)
    }
}

/// Removes `name` and everything in it.
pub(crate) fn remove(dir: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<()> {
    use rustix::io::Errno;
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        // Which of the two a folder gives depends on the file system.
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(err) => return Err(err),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let sub = rustix::fs::openat(dir, name, flags, Mode::empty())?;
    let mut buffer = Vec::with_capacity(16 << 10);
    let mut inside = Vec::new();
    let mut listing = RawDir::new(&sub, buffer.spare_capacity_mut());
    while let Some(entry) = listing.next() {
        let entry = entry?;
        if entry.file_name() != c"." && entry.file_name() != c".." {
            inside.push(entry.file_name().to_owned());
        }
    }
    inside.iter().try_for_each(|name| remove(sub.as_fd(), name))?;
    rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR)
}
