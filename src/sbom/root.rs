//! The folder that is scanned: nothing in it leads out of it, and nothing but plain files is opened.

use crate::SbomError;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, openat2, statat};
use std::collections::VecDeque;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// Entries that a walk looks at. A large distribution with a large application has a million.
const MAX_ENTRIES: usize = 8_000_000;

/// Folders in folders. Deeper ones are left out: the paths that the kernel takes in one piece are not longer.
const MAX_DEPTH: usize = 512;

/// The folder that is scanned.
pub(crate) struct Root<'s> {
    folder: OwnedFd,
    stop: &'s AtomicBool,
}

/// A plain file that a walk has found.
pub(crate) struct Entry<'a> {
    /// From the root, without a slash before it.
    pub path: &'a [u8],
    /// Whether somebody may run it.
    pub executable: bool,
}

/// Why a file was not read.
pub(crate) type Unread = String;

impl<'s> Root<'s> {
    pub(crate) fn open(path: &Path, stop: &'s AtomicBool) -> Result<Self, SbomError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::open(path, flags, Mode::empty())
            .map_err(|e| SbomError::Root { path: path.to_path_buf(), source: e.into() })?;
        Ok(Root { folder, stop })
    }

    /// An error once nobody wants the answer any more.
    pub(crate) fn go_on(&self) -> Result<(), SbomError> {
        match self.stop.load(Ordering::Relaxed) {
            true => Err(SbomError::Canceled),
            false => Ok(()),
        }
    }

    fn at(&self, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let start = path.iter().position(|byte| *byte != b'/').unwrap_or(path.len());
        let inner = match path.get(start..) {
            None | Some(b"") => b".",
            Some(inner) => inner,
        };
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        openat2(&self.folder, inner, flags | OFlags::CLOEXEC, Mode::empty(), resolve)
    }

    /// A plain file; links are followed within the root. None if there is none.
    pub(crate) fn file(&self, path: &[u8]) -> Result<Option<(File, u64)>, Unread> {
        // What is no plain file is not opened for reading: that may wait, or make a device do something.
        let found = match self.at(path, OFlags::PATH) {
            Ok(found) => found,
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(None),
            Err(e) => return Err(format!("{}: {e}", shown(path))),
        };
        let failed = |e: rustix::io::Errno| format!("{}: {e}", shown(path));
        let stat = rustix::fs::fstat(&found).map_err(failed)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Ok(None);
        }
        let file = self.at(path, OFlags::RDONLY | OFlags::NONBLOCK).map_err(failed)?;
        Ok(Some((File::from(file), u64::try_from(stat.st_size).unwrap_or(0))))
    }

    /// A plain file that the path names itself: the last part of it is no link.
    pub(crate) fn plain(&self, path: &[u8]) -> Result<Option<(File, u64)>, Unread> {
        match self.at(path, OFlags::PATH | OFlags::NOFOLLOW) {
            Ok(found) => {
                let stat = rustix::fs::fstat(&found).map_err(|e| format!("{}: {e}", shown(path)))?;
                match FileType::from_raw_mode(stat.st_mode) {
                    FileType::RegularFile => self.file(path),
                    _ => Ok(None),
                }
            }
            Err(_) => Ok(None),
        }
    }

    /// A plain file's content of at most `limit` bytes. None if there is none.
    pub(crate) fn read(&self, path: &[u8], limit: u64) -> Result<Option<Vec<u8>>, Unread> {
        let Some((file, _)) = self.file(path)? else { return Ok(None) };
        let mut bytes = Vec::new();
        file.take(limit + 1).read_to_end(&mut bytes).map_err(|e| format!("{}: {e}", shown(path)))?;
        match bytes.len() as u64 > limit {
            true => Err(format!("{}: it has more than {limit} bytes", shown(path))),
            false => Ok(Some(bytes)),
        }
    }

    /// The names in a folder, in order; none if there is no such folder.
    pub(crate) fn names(&self, folder: &[u8]) -> Vec<Vec<u8>> {
        let Ok(opened) = self.at(folder, OFlags::RDONLY | OFlags::DIRECTORY) else { return Vec::new() };
        let Ok(entries) = Dir::read_from(&opened) else { return Vec::new() };
        let names = entries.flatten().map(|entry| entry.file_name().to_bytes().to_vec());
        let mut names: Vec<_> =
            names.filter(|name| name != b"." && name != b"..").take(MAX_ENTRIES).collect();
        names.sort();
        names
    }

    /// Calls `found` for every plain file, in order. Links are not followed. Returns what was left out.
    pub(crate) fn walk(&self, mut found: impl FnMut(Entry<'_>)) -> Result<Vec<Unread>, SbomError> {
        let mut left_out = Vec::new();
        let mut looked_at = 0usize;
        let mut folders = VecDeque::from([(Vec::new(), 0usize)]);
        while let Some((folder, depth)) = folders.pop_front() {
            self.go_on()?;
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
            let opened = match self.at(&folder, flags) {
                Ok(opened) => opened,
                Err(e) => {
                    left_out.push(format!("{}: {e}", shown(&folder)));
                    continue;
                }
            };
            let below = |name: &[u8]| match folder.is_empty() {
                true => name.to_vec(),
                false => [&folder, b"/".as_slice(), name].concat(),
            };
            for name in self.names(&folder) {
                looked_at += 1;
                if looked_at > MAX_ENTRIES {
                    left_out.push(format!("what follows {}: more than {MAX_ENTRIES} files", shown(&folder)));
                    return Ok(left_out);
                }
                let Ok(stat) = statat(&opened, name.as_slice(), AtFlags::SYMLINK_NOFOLLOW) else { continue };
                match FileType::from_raw_mode(stat.st_mode) {
                    FileType::Directory if depth < MAX_DEPTH => folders.push_back((below(&name), depth + 1)),
                    FileType::Directory => left_out.push(format!("{}: it is too deep", shown(&below(&name)))),
                    FileType::RegularFile => {
                        let path = below(&name);
                        found(Entry { path: &path, executable: stat.st_mode & 0o111 != 0 });
                    }
                    _ => {}
                }
            }
        }
        Ok(left_out)
    }
}

/// A path for people.
pub(crate) fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}
