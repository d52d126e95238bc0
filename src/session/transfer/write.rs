//! Files as they arrive: hashed, written, and put in their place when complete.

use super::changes::{Change, ChangeKind, ChangeSink, Checksum};
use super::existing::{CONFINED, open_dir};
use super::modes::mode_to_unix;
use crate::SessionError;
use bytes::Bytes;
use crosskit_api::fsutil::Stat;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use std::collections::HashMap;
use std::io::IoSlice;
use std::sync::{Arc, Mutex};

/// What one file may hold in memory before it is written, in bytes. Most files fit, and so take
/// one call to write.
const HELD: usize = 256 << 10;

/// Pieces of one writing call. The system takes 1024.
const PIECES: usize = 512;

/// A file that was asked for.
pub(crate) struct Target {
    pub(crate) path: String,
    /// As it is to be on disk.
    pub(crate) stat: Stat,
    /// As the sender has it, where that is not the same.
    pub(crate) original: Option<Stat>,
    /// Whether something is in its place.
    pub(crate) replaces: bool,
}

/// Files that were asked for and have not begun to arrive, by number.
#[derive(Default)]
pub(crate) struct Wanted(Mutex<HashMap<u32, Target>>);

impl Wanted {
    pub(crate) fn insert(&self, id: u32, target: Target) {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(id, target);
    }

    fn take(&self, id: u32) -> Option<Target> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).remove(&id)
    }
}

/// Writes the files whose data is given to it. One per thread; a file stays with its writer.
pub(crate) struct Writer {
    pub(crate) root: Arc<OwnedFd>,
    pub(crate) wanted: Arc<Wanted>,
    pub(crate) sink: Option<Arc<dyn ChangeSink>>,
    open: HashMap<u32, Arriving>,
}

struct Arriving {
    target: Target,
    hash: Option<Box<dyn Checksum>>,
    held: Vec<Bytes>,
    held_len: usize,
    file: Option<Created>,
}

/// A file on disk that is not complete.
struct Created {
    file: OwnedFd,
    /// Where it waits under another name, if it replaces something: folder, that name, final name.
    beside: Option<Beside>,
}

pub(crate) struct Beside {
    dir: OwnedFd,
    temporary: String,
    name: String,
    renamed: bool,
}

impl Beside {
    /// Chooses a name next to `path` for what will replace it, and makes it with `make`.
    pub(crate) fn make<T>(
        root: BorrowedFd<'_>,
        path: &str,
        mut make: impl FnMut(BorrowedFd<'_>, &str) -> rustix::io::Result<T>,
    ) -> rustix::io::Result<(Self, T)> {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let dir = open_dir(root, parent)?;
        loop {
            let temporary = format!(".tmp.{:09}", rand::random_range(0..1_000_000_000u32));
            match make(dir.as_fd(), &temporary) {
                Ok(made) => {
                    return Ok((Self { dir, temporary, name: name.to_string(), renamed: false }, made));
                }
                Err(rustix::io::Errno::EXIST) => continue,
                Err(err) => return Err(err),
            }
        }
    }

    /// Puts it in its place.
    pub(crate) fn rename(mut self) -> rustix::io::Result<()> {
        rustix::fs::renameat(&self.dir, &self.temporary, &self.dir, &self.name)?;
        self.renamed = true;
        Ok(())
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        if !self.renamed {
            let _ = rustix::fs::unlinkat(&self.dir, &self.temporary, AtFlags::empty());
        }
    }
}

impl Writer {
    pub(crate) fn new(root: Arc<OwnedFd>, wanted: Arc<Wanted>, sink: Option<Arc<dyn ChangeSink>>) -> Self {
        Self { root, wanted, sink, open: HashMap::new() }
    }

    /// Takes a piece of file `id`; an empty one ends it. Returns the length of a file that is
    /// complete now.
    pub(crate) fn data(&mut self, id: u32, data: Bytes) -> Result<Option<()>, SessionError> {
        let mut arriving = match self.open.remove(&id) {
            Some(arriving) => arriving,
            None => self.begin(id)?,
        };
        let end = data.is_empty();
        if !end {
            if let Some(hash) = &mut arriving.hash {
                hash.update(&data);
            }
            arriving.held_len += data.len();
            arriving.held.push(data);
        }
        if end {
            self.finish(arriving)?;
            return Ok(Some(()));
        }
        if arriving.held_len >= HELD {
            self.flush(&mut arriving)?;
        }
        self.open.insert(id, arriving);
        Ok(None)
    }

    fn begin(&self, id: u32) -> Result<Arriving, SessionError> {
        let target = self
            .wanted
            .take(id)
            .ok_or_else(|| SessionError::Protocol(format!("invalid file request {id}")))?;
        let stat = target.original.as_ref().unwrap_or(&target.stat);
        let hash = self.sink.as_ref().map(|sink| sink.checksum(stat));
        Ok(Arriving { target, hash, held: Vec::new(), held_len: 0, file: None })
    }

    /// Writes what is held.
    fn flush(&self, arriving: &mut Arriving) -> Result<(), SessionError> {
        let path = &arriving.target.path;
        if arriving.file.is_none() {
            let created = create(self.root.as_fd(), &arriving.target);
            arriving.file = Some(created.map_err(SessionError::io(format!("failed to create {path}")))?);
        }
        let file = &arriving.file.as_ref().expect("created above").file;
        let mut held = std::mem::take(&mut arriving.held);
        arriving.held_len = 0;
        let mut rest = &mut held[..];
        while !rest.is_empty() {
            let slices: Vec<IoSlice<'_>> = rest.iter().take(PIECES).map(|b| IoSlice::new(b)).collect();
            let mut written = rustix::io::writev(file, &slices)
                .map_err(SessionError::io(format!("failed to write {path}")))?;
            while let Some(first) = rest.first_mut() {
                if written < first.len() {
                    bytes::Buf::advance(first, written);
                    break;
                }
                written -= first.len();
                rest = &mut rest[1..];
            }
        }
        Ok(())
    }

    fn finish(&self, mut arriving: Arriving) -> Result<(), SessionError> {
        self.flush(&mut arriving)?;
        let Arriving { target, hash, file, .. } = arriving;
        let created = file.expect("flush creates it");
        set_attributes(created.file.as_fd(), &target.stat)
            .map_err(SessionError::io(format!("error setting metadata for {}", target.path)))?;
        if let Some(beside) = created.beside {
            beside.rename().map_err(SessionError::io(format!("failed to rename to {}", target.path)))?;
        }
        if let (Some(sink), Some(hash)) = (&self.sink, hash) {
            let digest = Some(hash.finish());
            let stat = Some(target.original.as_ref().unwrap_or(&target.stat));
            sink.changed(Change { kind: ChangeKind::Add, path: &target.path, stat, digest });
        }
        Ok(())
    }
}

fn create(root: BorrowedFd<'_>, target: &Target) -> rustix::io::Result<Created> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let mode = Mode::from_raw_mode(mode_to_unix(target.stat.mode) & 0o777);
    if !target.replaces {
        match rustix::fs::openat2(root, &target.path, flags, mode, CONFINED) {
            Ok(file) => return Ok(Created { file, beside: None }),
            // Another transfer into the same folder was faster.
            Err(rustix::io::Errno::EXIST) => {}
            Err(err) => return Err(err),
        }
    }
    let (beside, file) =
        Beside::make(root, &target.path, |dir, name| rustix::fs::openat(dir, name, flags, mode))?;
    Ok(Created { file, beside: Some(beside) })
}

/// The time of modification, for both times of a file.
pub(crate) fn times(stat: &Stat) -> Timestamps {
    let time = Timespec {
        tv_sec: stat.mod_time.div_euclid(1_000_000_000),
        tv_nsec: stat.mod_time.rem_euclid(1_000_000_000) as _,
    };
    Timestamps { last_access: time, last_modification: time }
}

/// Owner and group as the system's calls want them.
pub(crate) fn owner(stat: &Stat) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(stat.uid)), Some(Gid::from_raw(stat.gid)))
}

/// Gives an open file its owner, attributes, mode and times. In this order: a change of owner
/// takes the special bits and capabilities away, and the times come last because the rest is a
/// sign of an incomplete file. What a new file has already is not set again: looking is far
/// cheaper than a change of an inode.
pub(crate) fn set_attributes(file: BorrowedFd<'_>, stat: &Stat) -> rustix::io::Result<()> {
    let now = rustix::fs::fstat(file)?;
    let owned = (now.st_uid, now.st_gid) == (stat.uid, stat.gid);
    if !owned {
        let (uid, gid) = owner(stat);
        rustix::fs::fchown(file, uid, gid)?;
    }
    for (key, value) in &stat.xattrs {
        // Many are only for some file systems or for the privileged.
        let _ = rustix::fs::fsetxattr(file, key.as_str(), value, XattrFlags::empty());
    }
    let mode = Mode::from_raw_mode(mode_to_unix(stat.mode));
    if !owned || Mode::from_raw_mode(now.st_mode) != mode {
        rustix::fs::fchmod(file, mode)?;
    }
    rustix::fs::futimens(file, &times(stat))
}
