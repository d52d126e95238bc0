//! Whole copies of folder trees, as they are to the last attribute.

use crate::{Error, Result};
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags};
use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// How files are copied.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Files {
    /// As further names of the same.
    Link,
    /// As files of their own, with blocks shared where the filesystem can.
    Copy,
}

/// Copies what is in folder `from` into the new folder `to`, without some paths.
pub(crate) fn clone_tree(from: &Path, to: &Path, files: Files, without: &HashSet<PathBuf>) -> Result<()> {
    match rustix::fs::mkdir(to, Mode::RWXU) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(e) => return Err(Error::file("making folder", to, e)),
    }
    Clone { from, to, files, without, linked: HashMap::new() }.folder(Path::new(""))
}

struct Clone<'a> {
    from: &'a Path,
    to: &'a Path,
    files: Files,
    without: &'a HashSet<PathBuf>,
    /// Where a file with several names is already, by its number.
    linked: HashMap<(u64, u64), PathBuf>,
}

impl Clone<'_> {
    fn folder(&mut self, at: &Path) -> Result<()> {
        let here = self.from.join(at);
        for entry in std::fs::read_dir(&here).map_err(|e| Error::file("listing", &here, e))? {
            let entry = entry.map_err(|e| Error::file("listing", &here, e))?;
            let path = at.join(entry.file_name());
            if self.without.contains(&path) {
                continue;
            }
            let (source, target) = (self.from.join(&path), self.to.join(&path));
            let stat = rustix::fs::lstat(&source).map_err(|e| Error::file("looking at", &source, e))?;
            if FileType::from_raw_mode(stat.st_mode).is_dir() {
                rustix::fs::mkdir(&target, Mode::RWXU)
                    .map_err(|e| Error::file("making folder", &target, e))?;
                self.folder(&path)?;
            } else {
                self.file(&source, &target, &stat)?;
            }
        }
        let stat = rustix::fs::lstat(&here).map_err(|e| Error::file("looking at", &here, e))?;
        copy_attributes(&here, &self.to.join(at), &stat)
    }

    fn file(&mut self, source: &Path, target: &Path, stat: &Stat) -> Result<()> {
        let link = |from: &Path| {
            rustix::fs::linkat(CWD, from, CWD, target, AtFlags::empty())
                .map_err(|e| Error::file("linking", target, e))
        };
        if self.files == Files::Link {
            return link(source);
        }
        if stat.st_nlink > 1 {
            if let Some(there) = self.linked.get(&(stat.st_dev, stat.st_ino)) {
                return link(there);
            }
            self.linked.insert((stat.st_dev, stat.st_ino), target.to_path_buf());
        }
        let failed = |e: rustix::io::Errno| Error::file("making", target, e);
        match FileType::from_raw_mode(stat.st_mode) {
            // Shares blocks, or lets the kernel copy them.
            FileType::RegularFile => {
                std::fs::copy(source, target).map(drop).map_err(|e| Error::file("copying", source, e))?;
            }
            FileType::Symlink => {
                let points =
                    std::fs::read_link(source).map_err(|e| Error::file("reading link", source, e))?;
                rustix::fs::symlink(&points, target).map_err(failed)?;
            }
            kind => rustix::fs::mknodat(CWD, target, kind, Mode::from_raw_mode(stat.st_mode), stat.st_rdev)
                .map_err(failed)?,
        }
        copy_attributes(source, target, stat)
    }
}

/// Gives a file or folder the owner, mode, extended attributes and times of another.
fn copy_attributes(from: &Path, to: &Path, stat: &Stat) -> Result<()> {
    let failed = |e: rustix::io::Errno| Error::file("setting attributes of", to, e);
    let owner = (Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)));
    rustix::fs::chownat(CWD, to, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
    let mut names = vec![0; 64 << 10];
    let length = rustix::fs::llistxattr(from, &mut names[..]).unwrap_or(0);
    for name in names[..length].split(|b| *b == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0; 64 << 10];
        let length = rustix::fs::lgetxattr(from, name, &mut value[..]).map_err(failed)?;
        let name = OsStr::from_bytes(name);
        rustix::fs::lsetxattr(to, name, &value[..length], XattrFlags::empty()).map_err(failed)?;
    }
    if !FileType::from_raw_mode(stat.st_mode).is_symlink() {
        rustix::fs::chmod(to, Mode::from_raw_mode(stat.st_mode)).map_err(failed)?;
    }
    // Nanoseconds of a stat are of another type than a timespec's on some architectures and of the same on others.
    let times = Timestamps {
        last_access: Timespec { tv_sec: stat.st_atime, tv_nsec: stat.st_atime_nsec as _ },
        last_modification: Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec as _ },
    };
    rustix::fs::utimensat(CWD, to, &times, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)
}

/// Makes the root folder of a new layer look like the one below.
pub(crate) fn copy_root_attributes(from: &Path, to: &Path) -> Result<()> {
    let of = |path: &Path| rustix::fs::stat(path).map_err(|e| Error::file("looking at", path, e));
    let (wanted, there) = (of(from)?, of(to)?);
    let failed = |e| Error::file("setting owner and mode of", to, e);
    if (wanted.st_uid, wanted.st_gid) != (there.st_uid, there.st_gid) {
        let dir = rustix::fs::open(to, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        let (uid, gid) = (Uid::from_raw(wanted.st_uid), Gid::from_raw(wanted.st_gid));
        rustix::fs::fchown(dir.map_err(failed)?, Some(uid), Some(gid)).map_err(failed)?;
    }
    if wanted.st_mode & 0o7777 != there.st_mode & 0o7777 {
        rustix::fs::chmod(to, Mode::from_raw_mode(wanted.st_mode & 0o7777)).map_err(failed)?;
    }
    Ok(())
}
