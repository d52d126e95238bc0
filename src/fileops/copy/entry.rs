//! Copying one file, link or device, and the attributes of folders.

use super::Rules;
use super::source::SourceFolder;
use super::target::TargetFolder;
use crate::root::{Owner, join, set_owner};
use crate::{Error, Result};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Uid, XattrFlags};
use rustix::io::Errno;
use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// Up to this many bytes, reading and writing costs less than asking the kernel to do it.
const SMALL: u64 = 64 << 10;

/// Sharing blocks failed once: this machine's filesystem does not do it.
static CANNOT_CLONE: AtomicBool = AtomicBool::new(false);

/// Files that were met under one name may be met under another.
#[derive(Default)]
pub(crate) struct Links {
    /// Where a file with several names was copied to, by its number.
    copied: Mutex<HashMap<u64, Vec<u8>>>,
    /// Numbers of files that got a further name here.
    pub(crate) shared: Mutex<Vec<u64>>,
}

/// What one file's copy is about.
pub(crate) struct Entry<'a> {
    pub(crate) from: &'a SourceFolder,
    pub(crate) name: &'a [u8],
    pub(crate) stat: &'a Stat,
    pub(crate) to: &'a TargetFolder,
    pub(crate) as_name: &'a [u8],
}

impl Entry<'_> {
    fn failed(&self, op: &'static str) -> impl Fn(Errno) -> Error + use<> {
        let path = join(&self.to.real, self.as_name);
        move |errno| Error::Path { op, path: path.clone(), errno }
    }

    /// Copies something that is no folder to a place that is free.
    pub(crate) fn copy(
        &self,
        rules: &Rules,
        links: &Links,
        before: &HashSet<u64>,
        root: &OwnedFd,
    ) -> Result<()> {
        match FileType::from_raw_mode(self.stat.st_mode) {
            FileType::RegularFile => {
                if self.unchanged(rules) && !before.contains(&self.stat.st_ino) && self.share(links)? {
                    return Ok(());
                }
                if self.stat.st_nlink <= 1 {
                    return self.copy_content(rules);
                }
                // Held while it is copied: its other names must find it whole.
                let mut copied = links.copied.lock().unwrap_or_else(|e| e.into_inner());
                if let Some(there) = copied.get(&self.stat.st_ino) {
                    return rustix::fs::linkat(root, &there[..], &self.to.fd, self.as_name, AtFlags::empty())
                        .map_err(self.failed("link"));
                }
                self.copy_content(rules)?;
                copied.insert(self.stat.st_ino, join(&self.to.real, self.as_name));
                Ok(())
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(&self.from.fd, self.name, Vec::new());
                let target = target.map_err(self.failed("readlink"))?;
                rustix::fs::symlinkat(target, &self.to.fd, self.as_name).map_err(self.failed("symlink"))?;
                self.attributes_by_name(rules, true)
            }
            kind => {
                // A socket stands for nothing without its server: an empty file takes its place.
                let kind = if kind == FileType::Socket { FileType::RegularFile } else { kind };
                let mode = Mode::from_raw_mode(self.stat.st_mode & 0o7777);
                rustix::fs::mknodat(&self.to.fd, self.as_name, kind, mode, self.stat.st_rdev)
                    .map_err(self.failed("mknod"))?;
                self.attributes_by_name(rules, false)
            }
        }
    }

    /// Whether the copy is the same in everything.
    fn unchanged(&self, rules: &Rules) -> bool {
        let stat = self.stat;
        let same_time = |time: i64| {
            let own = stat.st_mtime.checked_mul(1_000_000_000);
            own.and_then(|own| own.checked_add(stat.st_mtime_nsec as i64)) == Some(time)
        };
        rules.owner.is_none_or(|o| (o.uid, o.gid) == (stat.st_uid, stat.st_gid))
            && rules.mode.apply(stat.st_mode, false) == stat.st_mode & 0o7777
            && rules.time.is_none_or(same_time)
    }

    fn share(&self, links: &Links) -> Result<bool> {
        let shared =
            self.from.link(self.name, self.to.fd.as_fd(), self.as_name).map_err(self.failed("link"))?;
        if shared {
            links.shared.lock().unwrap_or_else(|e| e.into_inner()).push(self.stat.st_ino);
        }
        Ok(shared)
    }

    fn copy_content(&self, rules: &Rules) -> Result<()> {
        let from = self.from.open(self.name).map_err(self.failed("open"))?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let to = rustix::fs::openat(&self.to.fd, self.as_name, flags, Mode::RUSR | Mode::WUSR)
            .map_err(self.failed("open"))?;
        copy_bytes(&from, &to, self.stat).map_err(self.failed("write"))?;
        set_attributes(from.as_fd(), to.as_fd(), self.stat, rules).map_err(self.failed("chmod"))?;
        rustix::fs::futimens(&to, &rules.times(self.stat)).map_err(self.failed("utimensat"))
    }

    /// For what is not opened.
    fn attributes_by_name(&self, rules: &Rules, is_link: bool) -> Result<()> {
        let owner = owner(rules, self.stat);
        let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
        rustix::fs::chownat(&self.to.fd, self.as_name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(self.failed("lchown"))?;
        if !is_link {
            let mode = Mode::from_raw_mode(rules.mode.apply(self.stat.st_mode, false));
            // No link: it was made just now, in a folder that nobody else writes to.
            rustix::fs::chmodat(&self.to.fd, self.as_name, mode, AtFlags::empty())
                .map_err(self.failed("chmod"))?;
        }
        let at = |dir: BorrowedFd<'_>, name: &[u8]| {
            [format!("/proc/self/fd/{}/", dir.as_raw_fd()).as_bytes(), name].concat()
        };
        let (from, to) = (at(self.from.fd.as_fd(), self.name), at(self.to.fd.as_fd(), self.as_name));
        copy_xattrs(
            |names| rustix::fs::llistxattr(&from[..], names),
            |name, value| rustix::fs::lgetxattr(&from[..], name, value),
            |name, value| rustix::fs::lsetxattr(&to[..], name, value, XattrFlags::empty()),
        );
        rustix::fs::utimensat(&self.to.fd, self.as_name, &rules.times(self.stat), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(self.failed("utimensat"))
    }
}

fn owner(rules: &Rules, stat: &Stat) -> Owner {
    rules.owner.unwrap_or(Owner { uid: stat.st_uid, gid: stat.st_gid })
}

/// Gives an open file or folder the owner, mode and extended attributes of another. Times come
/// last, when nothing more changes.
pub(crate) fn set_attributes(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    stat: &Stat,
    rules: &Rules,
) -> rustix::io::Result<()> {
    let (wanted, own) = (owner(rules, stat), rustix::fs::fstat(to)?);
    if (wanted.uid, wanted.gid) != (own.st_uid, own.st_gid) {
        set_owner(to, wanted)?;
    }
    let is_folder = FileType::from_raw_mode(stat.st_mode).is_dir();
    rustix::fs::fchmod(to, Mode::from_raw_mode(rules.mode.apply(stat.st_mode, is_folder)))?;
    copy_xattrs(
        |names| rustix::fs::flistxattr(from, names),
        |name, value| rustix::fs::fgetxattr(from, name, value),
        |name, value| rustix::fs::fsetxattr(to, name, value, XattrFlags::empty()),
    );
    Ok(())
}

/// Copies extended attributes. One that the target's filesystem refuses is left out, as by
/// BuildKit: it says nothing that a build could rely on.
fn copy_xattrs(
    list: impl Fn(&mut [u8]) -> rustix::io::Result<usize>,
    get: impl Fn(&[u8], &mut [u8]) -> rustix::io::Result<usize>,
    set: impl Fn(&[u8], &[u8]) -> rustix::io::Result<()>,
) {
    // Most files have none.
    if list(&mut []) == Ok(0) {
        return;
    }
    let mut names = vec![0; 1024];
    let mut found = list(&mut names);
    if found == Err(Errno::RANGE) {
        names = vec![0; 64 << 10];
        found = list(&mut names);
    }
    let Ok(length @ 1..) = found else { return };
    let mut value = vec![0; 64 << 10];
    for name in names[..length].split(|b| *b == 0).filter(|name| !name.is_empty()) {
        if name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.") {
            continue;
        }
        let copied = get(name, &mut value).and_then(|length| set(name, &value[..length]));
        if let Err(why) = copied {
            tracing::debug!(name = %String::from_utf8_lossy(name), %why, "an extended attribute was not copied");
        }
    }
}

/// Copies a file's bytes, its holes as holes: by sharing blocks, within the kernel, or by hand.
fn copy_bytes(from: &OwnedFd, to: &OwnedFd, stat: &Stat) -> rustix::io::Result<()> {
    let size = stat.st_size as u64;
    if size == 0 {
        return Ok(());
    }
    if size <= SMALL {
        return copy_by_hand(from, to, 0, size);
    }
    if !CANNOT_CLONE.load(Ordering::Relaxed) {
        match rustix::fs::ioctl_ficlone(to, from) {
            Ok(()) => return Ok(()),
            Err(_) => CANNOT_CLONE.store(true, Ordering::Relaxed),
        }
    }
    // Fewer blocks than bytes: there are holes.
    if (stat.st_blocks as u64) * 512 >= size {
        return copy_range(from, to, 0, size);
    }
    let mut at = 0;
    while at < size {
        use rustix::fs::{SeekFrom, seek};
        let data = match seek(from, SeekFrom::Data(at)) {
            Ok(data) => data,
            Err(Errno::NXIO) => break,
            Err(_) => return copy_range(from, to, at, size),
        };
        let hole = seek(from, SeekFrom::Hole(data))?;
        copy_range(from, to, data, hole.min(size))?;
        at = hole;
    }
    rustix::fs::ftruncate(to, size)
}

fn copy_range(from: &OwnedFd, to: &OwnedFd, mut at: u64, end: u64) -> rustix::io::Result<()> {
    while at < end {
        let (mut read, mut write) = (at, at);
        let length = (end - at).min(1 << 30) as usize;
        match rustix::fs::copy_file_range(from, Some(&mut read), to, Some(&mut write), length) {
            // Shorter than it was: somebody else's file.
            Ok(0) => return Ok(()),
            Ok(copied) => at += copied as u64,
            Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM | Errno::IO) => {
                return copy_by_hand(from, to, at, end);
            }
            Err(Errno::INTR) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

fn copy_by_hand(from: &OwnedFd, to: &OwnedFd, mut at: u64, end: u64) -> rustix::io::Result<()> {
    let mut buffer = vec![0; (end - at).min(256 << 10) as usize];
    while at < end {
        let wanted = buffer.len().min((end - at) as usize);
        let got = rustix::io::pread(from, &mut buffer[..wanted], at)?;
        if got == 0 {
            return Ok(());
        }
        let mut done = 0;
        while done < got {
            done += rustix::io::pwrite(to, &buffer[done..got], at + done as u64)?;
        }
        at += got as u64;
    }
    Ok(())
}
