//! Making what is not a plain file, and what has to be done after all files are there.

use super::changes::{Change, ChangeKind, ChangeSink};
use super::existing::{CONFINED, open_dir};
use super::modes::{FileKind, kind_of, mode_to_unix};
use super::plan::METADATA;
use super::write::{Beside, owner, set_attributes, times};
use crate::SessionError;
use crosskit_api::fsutil::Stat;
use prost::Message;
use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, makedev};
use rustix::io::Errno;

/// Makes a folder, unless it is there. Its attributes are set in the end, when nothing more is put
/// into it. Returns whether it is new.
pub(crate) fn dir(root: BorrowedFd<'_>, stat: &Stat, there: bool) -> Result<bool, SessionError> {
    if there {
        return Ok(false);
    }
    let (parent, name) = stat.path.rsplit_once('/').unwrap_or(("", &stat.path));
    let make = || {
        let dir = open_dir(root, parent)?;
        match rustix::fs::mkdirat(&dir, name, Mode::from_raw_mode(mode_to_unix(stat.mode) & 0o777 | 0o700)) {
            Ok(()) => Ok(true),
            // Another transfer into the same place was faster.
            Err(Errno::EXIST) => open_dir(root, &stat.path).map(|_| false),
            Err(err) => Err(err),
        }
    };
    make().map_err(SessionError::io(format!("failed to create dir {}", stat.path)))
}

/// Makes a symbolic link.
pub(crate) fn symlink(root: BorrowedFd<'_>, stat: &Stat, replaces: bool) -> Result<(), SessionError> {
    node(root, &stat.path, replaces, |dir, name| {
        rustix::fs::symlinkat(stat.linkname.as_str(), dir, name)?;
        let (uid, gid) = owner(stat);
        rustix::fs::chownat(dir, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
        rustix::fs::utimensat(dir, name, &times(stat), AtFlags::SYMLINK_NOFOLLOW)
    })
    .map_err(SessionError::io(format!("failed to symlink {}", stat.path)))
}

/// Makes a device or a named pipe.
pub(crate) fn special(root: BorrowedFd<'_>, stat: &Stat, replaces: bool) -> Result<(), SessionError> {
    let kind = match kind_of(stat.mode) {
        FileKind::CharDevice => FileType::CharacterDevice,
        FileKind::BlockDevice => FileType::BlockDevice,
        _ => FileType::Fifo,
    };
    node(root, &stat.path, replaces, |dir, name| {
        let mode = Mode::from_raw_mode(mode_to_unix(stat.mode));
        rustix::fs::mknodat(dir, name, kind, mode, makedev(stat.devmajor as u32, stat.devminor as u32))?;
        let (uid, gid) = owner(stat);
        rustix::fs::chownat(dir, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
        rustix::fs::chmodat(dir, name, mode, AtFlags::empty())?;
        rustix::fs::utimensat(dir, name, &times(stat), AtFlags::SYMLINK_NOFOLLOW)
    })
    .map_err(SessionError::io(format!("failed to create device {}", stat.path)))
}

/// Runs `make` with the folder and the name that belong to `path`, or with another name that is
/// then renamed.
fn node(
    root: BorrowedFd<'_>,
    path: &str,
    replaces: bool,
    mut make: impl FnMut(BorrowedFd<'_>, &str) -> rustix::io::Result<()>,
) -> rustix::io::Result<()> {
    if !replaces {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let dir = open_dir(root, parent)?;
        match make(dir.as_fd(), name) {
            Err(Errno::EXIST) => {}
            done => return done,
        }
    }
    let (beside, ()) = Beside::make(root, path, make)?;
    beside.rename()
}

/// A hard link to be made.
pub(crate) struct Link {
    pub(crate) path: String,
    pub(crate) target: String,
    pub(crate) replaces: bool,
    /// As the sender has it.
    pub(crate) original: Stat,
}

/// What is left when all files are there.
#[derive(Default)]
pub(crate) struct Last {
    pub(crate) links: Vec<Link>,
    /// Folders whose attributes are not what they are to be.
    pub(crate) dirs: Vec<Stat>,
    /// What to write about the entries of which only that was wanted.
    pub(crate) metadata: Option<Vec<u8>>,
}

impl Last {
    /// Does it.
    pub(crate) fn apply(
        self,
        root: BorrowedFd<'_>,
        sink: Option<&dyn ChangeSink>,
    ) -> Result<(), SessionError> {
        for link in self.links {
            make_link(root, &link)
                .map_err(SessionError::io(format!("failed to link {} to {}", link.path, link.target)))?;
            if let Some(sink) = sink {
                let digest = Some(sink.checksum(&link.original).finish());
                sink.changed(Change {
                    kind: ChangeKind::Add,
                    path: &link.path,
                    stat: Some(&link.original),
                    digest,
                });
            }
        }
        for dir in self.dirs {
            open_dir(root, &dir.path)
                .and_then(|fd| set_attributes(fd.as_fd(), &dir))
                .map_err(SessionError::io(format!("error setting metadata for {}", dir.path)))?;
        }
        match self.metadata {
            Some(metadata) => {
                write_metadata(root, &metadata).map_err(SessionError::io(format!("write {METADATA}")))
            }
            None => Ok(()),
        }
    }
}

fn make_link(root: BorrowedFd<'_>, link: &Link) -> rustix::io::Result<()> {
    let (parent, name) = link.target.rsplit_once('/').unwrap_or(("", &link.target));
    let target = open_dir(root, parent)?;
    node(root, &link.path, link.replaces, |dir, new| {
        rustix::fs::linkat(&target, name, dir, new, AtFlags::empty())
    })
}

fn write_metadata(root: BorrowedFd<'_>, metadata: &[u8]) -> std::io::Result<()> {
    let _ = rustix::fs::unlinkat(root, METADATA, AtFlags::empty());
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = rustix::fs::openat2(root, METADATA, flags, Mode::from_raw_mode(0o644), CONFINED)?;
    std::io::Write::write_all(&mut std::fs::File::from(file), metadata)
}

/// Adds a stat as it is kept: its length (32 bits, little endian) and its message.
pub(crate) fn frame(out: &mut Vec<u8>, stat: &Stat) {
    out.extend_from_slice(&(stat.encoded_len() as u32).to_le_bytes());
    stat.encode(out).expect("a Vec grows");
}
