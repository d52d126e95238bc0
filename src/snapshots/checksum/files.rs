//! Looking at the files of a snapshot.

use super::header::{EntryHeader, FileHasher, GoMode};
use super::tree::{Dir, Entry, Raw, Tree};
use crate::{Error, Mounted, Result};
use rustix::fs::{AtFlags, Dir as Listing, FileType, Mode, OFlags, RawMode, ResolveFlags, Stat};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Entries that one thread takes at a time.
const BATCH: usize = 64;

/// How much of a file is read at once.
const BUFFER: usize = 256 << 10;

/// The files of a snapshot.
pub(crate) struct Files {
    root: OwnedFd,
    path: PathBuf,
    _mounted: Option<Mounted>,
}

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC).union(OFlags::NOFOLLOW);

impl Files {
    pub(crate) fn open(mounted: Mounted) -> Result<Files> {
        let files = Files::at(mounted.path())?;
        Ok(Files { _mounted: Some(mounted), ..files })
    }

    pub(crate) fn at(path: &Path) -> Result<Files> {
        let root =
            rustix::fs::open(path, DIRECTORY, Mode::empty()).map_err(|e| Error::file("opening", path, e))?;
        Ok(Files { root, path: path.to_path_buf(), _mounted: None })
    }

    fn failed(&self, doing: &'static str, path: &[u8], errno: Errno) -> Error {
        let relative = path.strip_prefix(b"/").unwrap_or(path);
        Error::file(doing, self.path.join(OsStr::from_bytes(relative)), errno)
    }

    fn open_dir(&self, path: &[u8]) -> Result<OwnedFd> {
        if path.is_empty() {
            return rustix::io::fcntl_dupfd_cloexec(&self.root, 0)
                .map_err(|e| self.failed("opening", path, e));
        }
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        rustix::fs::openat2(&self.root, path, DIRECTORY, Mode::empty(), resolve)
            .map_err(|e| self.failed("opening folder", path, e))
    }

    /// Looks at one name of a folder; none if it is not there.
    pub(crate) fn look(&self, dir: &[u8], name: &[u8]) -> Result<Option<Entry>> {
        let fd = match self.open_dir(dir) {
            Ok(fd) => fd,
            Err(Error::File { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                return Ok(None);
            }
            Err(why) => return Err(why),
        };
        match rustix::fs::statat(&fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if is_whiteout(&stat) => Ok(None),
            Ok(stat) => self.entry(&fd, dir, name, FileType::from_raw_mode(stat.st_mode)).map(Some),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG) => Ok(None),
            Err(e) => Err(self.failed("looking at", &join(dir, name), e)),
        }
    }

    fn entry(&self, fd: &OwnedFd, dir: &[u8], name: &[u8], kind: FileType) -> Result<Entry> {
        Ok(match kind {
            FileType::Directory => Entry::Dir(Box::default()),
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(fd, name, Vec::new())
                    .map_err(|e| self.failed("reading link", &join(dir, name), e))?;
                Entry::Link { target: target.into_bytes().into(), digest: None }
            }
            _ => Entry::File { digest: None },
        })
    }

    /// Lists a folder, and those below if wanted, unless that was done before.
    pub(crate) fn list(&self, dir: &mut Dir, path: &[u8], deep: bool) -> Result<()> {
        if !dir.complete {
            let fd = self.open_dir(path)?;
            let listing = Listing::read_from(&fd).map_err(|e| self.failed("listing", path, e))?;
            for found in listing {
                let found = found.map_err(|e| self.failed("listing", path, e))?;
                let name = found.file_name().to_bytes();
                if matches!(name, b"." | b"..") || dir.children.contains_key(name) {
                    continue;
                }
                let mut kind = found.file_type();
                if matches!(kind, FileType::Unknown | FileType::CharacterDevice) {
                    match rustix::fs::statat(&fd, name, AtFlags::SYMLINK_NOFOLLOW) {
                        Ok(stat) if !is_whiteout(&stat) => kind = FileType::from_raw_mode(stat.st_mode),
                        Ok(_) | Err(Errno::NOENT) => continue,
                        Err(e) => return Err(self.failed("looking at", &join(path, name), e)),
                    }
                }
                dir.children.insert(name.into(), self.entry(&fd, path, name, kind)?);
            }
            dir.complete = true;
        }
        if deep {
            for (name, entry) in &mut dir.children {
                if let Entry::Dir(below) = entry
                    && below.digest.is_none()
                {
                    self.list(below, &join(path, name), true)?;
                }
            }
        }
        Ok(())
    }

    /// Hashes entries, named by their folder and their name; an empty name is the folder itself.
    /// Several threads share the work if it is worth it.
    pub(crate) fn hash_all(&self, tree: &mut Tree, wanted: Vec<Wanted>) -> Result<()> {
        if wanted.is_empty() {
            return Ok(());
        }
        tree.set_changed();
        let next = AtomicUsize::new(0);
        let done: Mutex<Vec<(usize, Vec<Raw>)>> = Mutex::default();
        let work = || -> Result<()> {
            let mut buffer = vec![0; BUFFER];
            let mut at: Option<(&[u8], OwnedFd)> = None;
            loop {
                let from = next.fetch_add(BATCH, Ordering::Relaxed);
                let Some(batch) = wanted.get(from..wanted.len().min(from + BATCH)).filter(|b| !b.is_empty())
                else {
                    return Ok(());
                };
                let mut digests = Vec::with_capacity(batch.len());
                for Wanted { dir, name } in batch {
                    let folder = match at.take().filter(|(path, _)| path == dir) {
                        Some(open) => open.1,
                        None => self.open_dir(dir)?,
                    };
                    digests.push(self.hash_one(folder.as_fd(), dir, name, &mut buffer)?);
                    at = Some((dir, folder));
                }
                done.lock().unwrap_or_else(|e| e.into_inner()).push((from, digests));
            }
        };
        let threads =
            std::thread::available_parallelism().map_or(1, usize::from).min(wanted.len() / BATCH + 1);
        std::thread::scope(|scope| -> Result<()> {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
            let mut outcome = work();
            for other in others {
                outcome = outcome.and(other.join().unwrap_or(Err(Error::Canceled)));
            }
            outcome
        })?;
        for (from, digests) in done.into_inner().unwrap_or_else(|e| e.into_inner()) {
            for (Wanted { dir, name }, digest) in wanted[from..].iter().zip(digests) {
                let Some(dir) = tree.dir_mut(&super::resolve::parts(dir)) else { continue };
                if name.is_empty() {
                    dir.header = Some(digest);
                } else if let Some(entry) = dir.children.get_mut(&name[..]) {
                    entry.set_digest(digest);
                }
            }
        }
        Ok(())
    }

    fn hash_one(&self, dir: BorrowedFd<'_>, path: &[u8], name: &[u8], buffer: &mut [u8]) -> Result<Raw> {
        let failed = |doing| move |e: Errno| self.failed(doing, &join(path, name), e);
        if name.is_empty() {
            let stat = rustix::fs::fstat(dir).map_err(failed("looking at"))?;
            return self.finish(
                &stat,
                &[],
                xattrs(dir, b"").map_err(failed("reading attributes of"))?,
                |_| Ok(()),
            );
        }
        let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed("looking at"))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {
                let mut file = File::from(open_quietly(dir, name).map_err(failed("opening"))?);
                let attributes = xattrs(file.as_fd(), b"").map_err(failed("reading attributes of"))?;
                self.finish(&stat, &[], attributes, |hasher| {
                    if stat.st_size == 0 {
                        return Ok(());
                    }
                    loop {
                        match file.read(buffer) {
                            Ok(0) => return Ok(()),
                            Ok(got) => hasher.update(&buffer[..got]),
                            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                            Err(e) => {
                                return Err(Error::file(
                                    "reading",
                                    self.path.join(OsStr::from_bytes(name)),
                                    e,
                                ));
                            }
                        }
                    }
                })
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(dir, name, Vec::new()).map_err(failed("reading link"))?;
                let attributes = xattrs(dir, name).map_err(failed("reading attributes of"))?;
                self.finish(&stat, target.to_bytes(), attributes, |_| Ok(()))
            }
            FileType::Directory => {
                let below =
                    rustix::fs::openat(dir, name, DIRECTORY, Mode::empty()).map_err(failed("opening"))?;
                let attributes = xattrs(below.as_fd(), b"").map_err(failed("reading attributes of"))?;
                self.finish(&stat, &[], attributes, |_| Ok(()))
            }
            _ => {
                let attributes = xattrs(dir, name).map_err(failed("reading attributes of"))?;
                self.finish(&stat, &[], attributes, |_| Ok(()))
            }
        }
    }

    fn finish(
        &self,
        stat: &Stat,
        linkname: &[u8],
        xattrs: Vec<(Vec<u8>, Vec<u8>)>,
        content: impl FnOnce(&mut FileHasher) -> Result<()>,
    ) -> Result<Raw> {
        let kind = FileType::from_raw_mode(stat.st_mode);
        // Links have no permissions; here they count as all of them.
        let all = if kind.is_symlink() { 0o777 as RawMode } else { 0 };
        let mut hasher = FileHasher::new(&EntryHeader {
            mode: GoMode::from_unix(stat.st_mode | all),
            uid: stat.st_uid,
            gid: stat.st_gid,
            size: stat.st_size as u64,
            linkname,
            // BuildKit's scan means to take them but tests bits that links and devices share.
            device: (0, 0),
            xattrs: xattrs.iter().map(|(k, v)| (&k[..], &v[..])).collect(),
        });
        content(&mut hasher)?;
        Ok(hasher.finish_raw())
    }
}

/// An entry whose digest is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) dir: Vec<u8>,
    pub(crate) name: Box<[u8]>,
}

/// A path of a folder, without a slash in front, and a name in it.
pub(crate) fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    match (dir.is_empty(), name.is_empty()) {
        (_, true) => dir.to_vec(),
        (true, _) => name.to_vec(),
        _ => [dir, b"/", name].concat(),
    }
}

/// A removal mark, which a layer's own folder shows as it is.
fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// Opens for reading without a note of the access, where that is allowed: it would be a write.
fn open_quietly(dir: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    match rustix::fs::openat(dir, name, flags | OFlags::NOATIME, Mode::empty()) {
        Err(Errno::PERM) => rustix::fs::openat(dir, name, flags, Mode::empty()),
        other => other,
    }
}

/// Extended attributes of an open file, or of a name that cannot be opened.
fn xattrs(at: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let by_path = (!name.is_empty()).then(|| {
        let mut path = format!("/proc/self/fd/{}/", at.as_raw_fd()).into_bytes();
        path.extend_from_slice(name);
        path
    });
    let list = |buffer: &mut [u8]| match &by_path {
        None => rustix::fs::flistxattr(at, buffer),
        Some(path) => rustix::fs::llistxattr(&path[..], buffer),
    };
    let mut names = vec![0; 256];
    let length = match list(&mut names) {
        Ok(0) | Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Ok(length) => length,
        Err(Errno::RANGE) => {
            names = vec![0; 64 << 10];
            list(&mut names)?
        }
        Err(e) => return Err(e),
    };
    let mut found = Vec::new();
    for name in names[..length].split(|b| *b == 0).filter(|name| !name.is_empty()) {
        if name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.") {
            // The driver's own, which a mount would hide.
            continue;
        }
        let mut value = vec![0; 64 << 10];
        let length = match &by_path {
            None => rustix::fs::fgetxattr(at, name, &mut value[..]),
            Some(path) => rustix::fs::lgetxattr(&path[..], name, &mut value[..]),
        };
        // One that cannot be read does not count, as it does not for BuildKit.
        if let Ok(length) = length {
            value.truncate(length);
            found.push((name.to_vec(), value));
        }
    }
    Ok(found)
}
