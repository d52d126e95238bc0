//! Mounts and where they are attached.

use crate::store::Inner;
use crate::{Error, Result};
use rustix::mount::UnmountFlags;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// A snapshot's tree, ready for use. Clones share it; the last one to go unmounts it.
#[derive(Clone)]
pub struct Mounted(pub(crate) Arc<Attached>);

/// One mount, or a folder that needs none.
pub(crate) struct Attached {
    store: Arc<Inner>,
    pub(crate) path: PathBuf,
    /// What to take down at the end.
    point: Option<Point>,
    /// Folders whose stack the tree is, top first.
    pub(crate) layers: Vec<PathBuf>,
    pub(crate) upper: Option<PathBuf>,
    /// What must stay as long as this is used.
    _keep: Option<crate::Ref>,
}

struct Point {
    name: u64,
    work: Option<PathBuf>,
}

impl Mounted {
    /// The root folder of the tree.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// For a tree that can be written to: the folder that takes the changes. It is the tree
    /// itself where nothing is below it.
    pub fn upper(&self) -> Option<&Path> {
        self.0.upper.as_deref()
    }

    /// The folders that make up the tree, top first, without [`Mounted::upper`]. Files in them
    /// never change. A driver that does not stack gives the tree itself.
    pub fn layers(&self) -> &[PathBuf] {
        &self.0.layers
    }

    /// Whether [`Mounted::path`] is a plain folder rather than a mount.
    pub fn is_plain_folder(&self) -> bool {
        self.0.point.is_none()
    }
}

impl Attached {
    /// A folder as it is.
    pub(crate) fn folder(
        store: Arc<Inner>,
        path: PathBuf,
        writable: bool,
        keep: Option<crate::Ref>,
    ) -> Attached {
        let (layers, upper) =
            if writable { (vec![], Some(path.clone())) } else { (vec![path.clone()], None) };
        Attached { store, path, point: None, layers, upper, _keep: keep }
    }

    /// A stack of folders, bottom first, with one on top to write to if given.
    pub(crate) fn stack(
        store: Arc<Inner>,
        lowers: Vec<PathBuf>,
        upper: Option<PathBuf>,
        keep: Option<crate::Ref>,
    ) -> Result<Attached> {
        let points = &store.points;
        let name = points.take();
        let target = points.path(name);
        let work = upper.as_ref().map(|_| store.work_dir());
        let outcome = make_folder(&target).and_then(|()| {
            work.as_deref().map_or(Ok(()), make_folder)?;
            let upper = upper.as_deref().zip(work.as_deref());
            store.driver.mount(&crate::drivers::MountPlan { lowers: &lowers, upper, target: &target })
        });
        let point = Some(Point { name, work });
        let layers = lowers.into_iter().rev().collect();
        match outcome {
            Ok(()) => Ok(Attached { store, path: target, point, layers, upper, _keep: keep }),
            Err(why) => {
                if let Some(work) = point.and_then(|p| p.work) {
                    store.remover.remove(work);
                }
                store.points.give_back(name);
                Err(why)
            }
        }
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        let Some(point) = self.point.take() else { return };
        // Detached, so that a straggler with an open file cannot keep the build waiting.
        match rustix::mount::unmount(&self.path, UnmountFlags::DETACH) {
            Ok(()) => self.store.points.give_back(point.name),
            Err(why) => {
                tracing::error!(path = %self.path.display(), %why, "a snapshot could not be unmounted")
            }
        }
        if let Some(work) = point.work {
            self.store.remover.remove(work);
        }
    }
}

fn make_folder(path: &Path) -> Result<()> {
    match rustix::fs::mkdir(path, 0o700.into()) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
        Err(e) => Err(Error::file("making folder", path, e)),
    }
}

/// Folders to mount at. They are used again, for making one costs as much as the mount.
pub(crate) struct Points {
    dir: PathBuf,
    free: Mutex<(Vec<u64>, u64)>,
}

impl Points {
    pub(crate) fn new(dir: PathBuf) -> Points {
        Points { dir, free: Mutex::default() }
    }

    fn path(&self, name: u64) -> PathBuf {
        self.dir.join(name.to_string())
    }

    fn take(&self) -> u64 {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.0.pop().unwrap_or_else(|| {
            free.1 += 1;
            free.1 - 1
        })
    }

    fn give_back(&self, name: u64) {
        self.free.lock().unwrap_or_else(PoisonError::into_inner).0.push(name);
    }
}

/// Takes down what a daemon that was killed has left mounted below a folder. Whether nothing is left: where something is,
/// to remove the folder would be to remove what is mounted in it.
///
/// # Errors
/// A table of mounts that can't be read. A folder that is not there has nothing in it.
pub fn take_down_leftovers(folder: &Path) -> Result<bool> {
    let folder = match folder.canonicalize() {
        Ok(folder) => folder,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(true),
        Err(e) => return Err(Error::file("looking at", folder, e)),
    };
    // The newest first: it may be on top of an older one.
    for path in mounts_below(&folder)?.into_iter().rev() {
        if let Err(why) = rustix::mount::unmount(&path, UnmountFlags::DETACH) {
            tracing::warn!(path = %path.display(), %why, "a mount of an earlier run could not be taken down");
        }
    }
    Ok(mounts_below(&folder)?.is_empty())
}

/// Where something is mounted below a folder, the oldest first.
fn mounts_below(folder: &Path) -> Result<Vec<PathBuf>> {
    const TABLE: &str = "/proc/self/mountinfo";
    let table = std::fs::read(TABLE).map_err(|e| Error::file("reading", TABLE, e))?;
    let points = table.split(|b| *b == b'\n').filter_map(|line| line.split(|b| *b == b' ').nth(4));
    let points = points.map(|field| PathBuf::from(std::ffi::OsStr::from_bytes(&unescaped(field))));
    Ok(points.filter(|path| path.starts_with(folder) && path != folder).collect())
}

/// mountinfo writes space, tab, newline and backslash as three octal digits behind a backslash.
fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        let octal = tail.get(..3).filter(|_| *first == b'\\');
        let code = octal.and_then(|d| u8::from_str_radix(std::str::from_utf8(d).ok()?, 8).ok());
        match code {
            Some(byte) => {
                out.push(byte);
                rest = &tail[3..];
            }
            None => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    out
}
