//! A folder tree that no path leaves.
//!
//! [`Root::resolve`] turns a path that somebody gave into a real one: without links and dots, and
//! below the root. Everything else takes real paths only and refuses to follow a link, so that a
//! tree which is changed meanwhile gives an error and never another place.

use crate::{Error, Result};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, Uid};
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// How many links a path may lead through.
const MAX_LINKS: usize = 255;

/// For opening folders by their real names.
pub(crate) const FOLDER: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC).union(OFlags::NOFOLLOW);

/// An owner by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}

/// A folder tree.
#[derive(Debug)]
pub(crate) struct Root {
    fd: OwnedFd,
}

impl Root {
    pub(crate) fn open(path: &Path) -> Result<Root> {
        let fd = rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        fd.map(|fd| Root { fd }).map_err(|e| Error::path("open", path.as_os_str().as_encoded_bytes(), e))
    }

    /// The real path that a path means; what does not exist is taken by its letters.
    pub(crate) fn resolve(&self, path: &[u8], follow_last: bool) -> Result<Vec<u8>> {
        let mut remaining: Vec<Vec<u8>> = parts(path);
        remaining.reverse();
        let mut real: Vec<Vec<u8>> = Vec::new();
        let mut links = 0;
        while let Some(part) = remaining.pop() {
            if part == b".." {
                real.pop();
                continue;
            }
            real.push(part);
            if remaining.is_empty() && !follow_last {
                break;
            }
            let here = real.join(&b'/');
            let Some(target) = self.link_target(&here)? else { continue };
            links += 1;
            if links > MAX_LINKS {
                return Err(Error::TooManyLinks { path: path.to_vec() });
            }
            real.pop();
            if target.starts_with(b"/") {
                real.clear();
            }
            remaining.extend(parts(&target).into_iter().rev());
        }
        Ok(real.join(&b'/'))
    }

    fn link_target(&self, real: &[u8]) -> Result<Option<Vec<u8>>> {
        match self.stat(real)? {
            Some(stat) if FileType::from_raw_mode(stat.st_mode).is_symlink() => {
                let (dir, name) = self.parent(real)?;
                let target = rustix::fs::readlinkat(dir, name, Vec::new())
                    .map_err(|e| Error::path("readlink", real, e))?;
                Ok(Some(target.into_bytes()))
            }
            _ => Ok(None),
        }
    }

    /// The tree below a real path, which nothing in it leaves.
    pub(crate) fn below(&self, real: &[u8]) -> Result<Root> {
        self.open_folder(real).map(|fd| Root { fd })
    }

    /// Opens the folder at a real path.
    pub(crate) fn open_folder(&self, real: &[u8]) -> Result<OwnedFd> {
        self.open_raw(real, FOLDER).map_err(|e| Error::path("open", real, e))
    }

    pub(crate) fn open_raw(&self, real: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let path: &[u8] = if real.is_empty() { b"." } else { real };
        // A link at the end is an error, or itself if only its place is wanted.
        let links =
            if flags.contains(OFlags::PATH) { ResolveFlags::empty() } else { ResolveFlags::NO_SYMLINKS };
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | links;
        rustix::fs::openat2(
            &self.fd,
            path,
            flags | OFlags::CLOEXEC | OFlags::NOFOLLOW,
            Mode::empty(),
            resolve,
        )
    }

    /// The folder that a real path is in, and its name there.
    pub(crate) fn parent<'a>(&self, real: &'a [u8]) -> Result<(OwnedFd, &'a [u8])> {
        let (dir, name) = split(real);
        Ok((self.open_folder(dir).map_err(|e| retarget(e, real))?, if name.is_empty() { b"." } else { name }))
    }

    /// What is at a real path, if anything is. A link is itself.
    pub(crate) fn stat(&self, real: &[u8]) -> Result<Option<Stat>> {
        let (dir, name) = split(real);
        let stat = if dir.is_empty() {
            stat_at(self.fd.as_fd(), if name.is_empty() { b"." } else { name })
        } else {
            self.open_raw(dir, FOLDER).and_then(|dir| stat_at(dir.as_fd(), name))
        };
        match stat {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(e) => Err(Error::path("lstat", real, e)),
        }
    }

    /// Makes the folder at a real path and those above it that are missing. Returns what it made.
    pub(crate) fn make_folders(
        &self,
        real: &[u8],
        mode: u32,
        owner: Option<Owner>,
        time: Option<i64>,
    ) -> Result<Vec<Vec<u8>>> {
        let mut made = Vec::new();
        let ends = real.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(at, _)| at).chain([real.len()]);
        for end in ends.filter(|end| *end > 0) {
            let at = &real[..end];
            match self.stat(at)? {
                Some(stat) if FileType::from_raw_mode(stat.st_mode).is_dir() => {}
                Some(_) => return Err(Error::path("mkdir", at, Errno::NOTDIR)),
                None => {
                    self.make_folder(at, mode, owner, time)?;
                    made.push(at.to_vec());
                }
            }
        }
        Ok(made)
    }

    /// Makes one folder.
    pub(crate) fn make_folder(
        &self,
        real: &[u8],
        mode: u32,
        owner: Option<Owner>,
        time: Option<i64>,
    ) -> Result<()> {
        let (dir, name) = self.parent(real).map_err(|e| retarget_op(e, "mkdir"))?;
        let failed = |op| move |e| Error::path(op, real, e);
        rustix::fs::mkdirat(&dir, name, Mode::from_raw_mode(mode & 0o777)).map_err(failed("mkdir"))?;
        let made = rustix::fs::openat(&dir, name, FOLDER, Mode::empty()).map_err(failed("open"))?;
        // Whatever this process's umask took away.
        rustix::fs::fchmod(&made, Mode::from_raw_mode(mode & 0o777)).map_err(failed("chmod"))?;
        if let Some(owner) = owner {
            set_owner(made.as_fd(), owner).map_err(failed("chown"))?;
        }
        if let Some(time) = time {
            rustix::fs::futimens(&made, &timestamps(time)).map_err(failed("utimensat"))?;
        }
        Ok(())
    }

    /// Sets the time of what is at a real path; a link's own.
    pub(crate) fn set_time(&self, real: &[u8], time: &Timestamps) -> Result<()> {
        let (dir, name) = self.parent(real)?;
        rustix::fs::utimensat(&dir, name, time, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|e| Error::path("utimensat", real, e))
    }

    /// Removes what is at a real path, with all below it. Nothing there is fine.
    pub(crate) fn remove(&self, real: &[u8]) -> Result<()> {
        let (dir, name) = match self.parent(real) {
            Ok(found) => found,
            Err(Error::Path { errno: Errno::NOENT | Errno::NOTDIR, .. }) => return Ok(()),
            Err(e) => return Err(e),
        };
        remove_at(dir.as_fd(), name).map_err(|e| Error::path("unlinkat", real, e))
    }
}

/// Removes a name of a folder, with all below it.
pub(crate) fn remove_at(dir: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<()> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(e) => return Err(e),
    }
    let folder = match rustix::fs::openat(dir, name, FOLDER, Mode::empty()) {
        Err(Errno::NOTDIR | Errno::LOOP) => return Err(Errno::PERM),
        other => other?,
    };
    for name in names(folder.as_fd())? {
        remove_at(folder.as_fd(), &name)?;
    }
    rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR)
}

/// The names in a folder.
pub(crate) fn names(folder: BorrowedFd<'_>) -> rustix::io::Result<Vec<Vec<u8>>> {
    let mut all = Vec::new();
    for entry in rustix::fs::Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if !matches!(name, b"." | b"..") {
            all.push(name.to_vec());
        }
    }
    Ok(all)
}

pub(crate) fn stat_at(dir: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<Stat> {
    rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)
}

pub(crate) fn set_owner(file: BorrowedFd<'_>, owner: Owner) -> rustix::io::Result<()> {
    rustix::fs::fchown(file, Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid)))
}

/// A time in nanoseconds since 1970, for both of a file's times.
pub(crate) fn timestamps(nanos: i64) -> Timestamps {
    let time = Timespec { tv_sec: nanos.div_euclid(1_000_000_000), tv_nsec: nanos.rem_euclid(1_000_000_000) };
    Timestamps { last_access: time, last_modification: time }
}

/// Names of a path, dots at their places left out but for `..`.
fn parts(path: &[u8]) -> Vec<Vec<u8>> {
    path.split(|b| *b == b'/').filter(|p| !matches!(*p, b"" | b".")).map(<[u8]>::to_vec).collect()
}

/// The folder and the name of a real path.
pub(crate) fn split(real: &[u8]) -> (&[u8], &[u8]) {
    match real.iter().rposition(|b| *b == b'/') {
        Some(at) => (&real[..at], &real[at + 1..]),
        None => (&[], real),
    }
}

/// A real path with one more name.
pub(crate) fn join(real: &[u8], name: &[u8]) -> Vec<u8> {
    match (real.is_empty(), name.is_empty()) {
        (_, true) => real.to_vec(),
        (true, _) => name.to_vec(),
        _ => [real, b"/", name].concat(),
    }
}

fn retarget(error: Error, path: &[u8]) -> Error {
    match error {
        Error::Path { op, errno, .. } => Error::path(op, path, errno),
        other => other,
    }
}

fn retarget_op(error: Error, op: &'static str) -> Error {
    match error {
        Error::Path { path, errno, .. } => Error::Path { op, path, errno },
        other => other,
    }
}

/// A path by its letters alone, with a slash in front; a slash or a dot behind it stays, for it
/// says that a folder is meant.
pub(crate) fn clean(path: &str) -> String {
    let clean = crosskit_patterns::clean_path(&format!("/{path}"));
    let root = clean == "/";
    if path.ends_with("/.") {
        return if root { "/.".into() } else { clean + "/." };
    }
    if path.ends_with('/') && !root { clean + "/" } else { clean }
}
