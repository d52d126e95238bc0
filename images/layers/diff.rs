//! Finds what a layer changes, in the order continuity's walkers tell it: by name, folders before what is in them.

use std::cmp::Ordering;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, openat};
use tokio_util::sync::CancellationToken;

use super::changes::{Change, ChangeWriter, Changes, Level};
use super::dirs::list;
use super::errors::LayerError;
use super::lower::{LowerView, open_dir};
use super::names::join;
use super::same::{Place, same};
use super::stat::Meta;
use super::xattrs::{self, XattrFilter};

/// How a layer is written.
#[derive(Clone, Debug, Default)]
pub struct DiffOptions {
    /// Later times become this one, in seconds since 1970 (`SOURCE_DATE_EPOCH`).
    pub epoch: Option<i64>,
    /// Which extended attributes are written.
    pub xattrs: XattrFilter,
    /// Gives the work up.
    pub cancel: Option<CancellationToken>,
}

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Entries of the tar.
    pub entries: u64,
    /// Bytes of file content.
    pub size: u64,
}

/// Writes the tar of an overlay layer: `upper` is the layer's folder, `lowers` are those below, topmost first.
///
/// Blocking: meant for a thread of its own.
pub fn diff_layer(
    upper: &Path,
    lowers: &[impl AsRef<Path>],
    out: impl Write,
    options: &DiffOptions,
) -> Result<Written, LayerError> {
    Ok(walk_layer(upper, lowers, ChangeWriter::new(out, options))?.finish()?.0)
}

/// Writes the tar that turns the tree `lower` into the tree `upper`, both complete and without overlayfs's marks.
pub fn diff_trees(
    lower: &LowerView,
    upper: &Path,
    out: impl Write,
    options: &DiffOptions,
) -> Result<Written, LayerError> {
    Ok(walk_trees(lower, upper, ChangeWriter::new(out, options))?.finish()?.0)
}

/// Tells what an overlay layer changes; `lowers` are the layers below, topmost first.
pub(super) fn walk_layer<C: Changes>(
    upper: &Path,
    lowers: &[impl AsRef<Path>],
    out: C,
) -> Result<C, LayerError> {
    let lower = LowerView::open(lowers)?;
    let root = level(Vec::new(), open_dir(upper)?, &lower)?;
    let mut walk = Walk { out, levels: vec![root] };
    walk.overlay()?;
    Ok(walk.out)
}

/// Tells what turns a tree into another, both complete and without overlayfs's marks.
pub(super) fn walk_trees<C: Changes>(lower: &LowerView, upper: &Path, out: C) -> Result<C, LayerError> {
    let root = level(Vec::new(), open_dir(upper)?, lower)?;
    let mut walk = Walk { out, levels: vec![root] };
    walk.both()?;
    Ok(walk.out)
}

fn level(path: Vec<u8>, fd: OwnedFd, lower: &LowerView) -> Result<Level, LayerError> {
    let meta = Meta::of(&fd).map_err(|e| LayerError::io("look at", &path, e))?;
    let lower = match lower.root() {
        Some(root) => open_folder(root, b".").map_err(|e| LayerError::io("open below", &path, e))?,
        None => None,
    };
    Ok(Level { path, fd, meta, lower })
}

struct Walk<C> {
    out: C,
    /// The folders from the root to where the walk stands; never empty.
    levels: Vec<Level>,
}

impl<C: Changes> Walk<C> {
    fn top(&self) -> &Level {
        self.levels.last().expect("the root's level is never taken off")
    }

    /// Walks the folder on top of the stack as a part of an overlay layer.
    fn overlay(&mut self) -> Result<(), LayerError> {
        for (name, _) in sorted(self.top().fd.as_fd(), &self.top().path)? {
            let at = self.levels.len() - 1;
            let here = &self.levels[at];
            let path = join(&here.path, &name);
            let failed = |doing| {
                let path = &path;
                move |e: std::io::Error| LayerError::io(doing, path, e)
            };
            let meta = Meta::at(here.fd.as_fd(), &name).map_err(|e| failed("look at")(e.into()))?;
            let below = match &here.lower {
                Some(lower) => below(lower.as_fd(), &name).map_err(|e| failed("look below at")(e.into()))?,
                None => None,
            };
            if meta.is_whiteout() {
                if below.is_some() {
                    self.out.removed(&self.levels, &path)?;
                }
                continue;
            }
            let place = Place { dir: here.fd.as_fd(), base: &name };
            let unchanged = match (&below, &here.lower) {
                (Some(below), Some(lower)) => {
                    same((Place { dir: lower.as_fd(), base: &name }, below), (place, &meta))
                        .map_err(failed("compare"))?
                }
                _ => false,
            };
            if !unchanged {
                self.out.changed(&self.levels, Change::Present, place, &path, &meta)?;
            }
            if !meta.is_dir() {
                continue;
            }
            let marks = overlay_marks(place).map_err(|e| failed("read attributes of")(e.into()))?;
            if marks.redirect {
                return Err(LayerError::Redirect { path: String::from_utf8_lossy(&path).into_owned() });
            }
            self.enter(&name, path, meta, below.as_ref())?;
            if marks.opaque && below.is_some() {
                self.both()?
            } else {
                self.overlay()?
            }
            self.levels.pop();
        }
        Ok(())
    }

    /// Walks the folder on top of the stack beside the same folder below. Marks of overlayfs in it are no files: they
    /// are left out.
    fn both(&mut self) -> Result<(), LayerError> {
        let mut above = sorted(self.top().fd.as_fd(), &self.top().path)?.into_iter().peekable();
        let mut below = match &self.top().lower {
            Some(lower) => sorted(lower.as_fd(), &self.top().path)?,
            None => Vec::new(),
        }
        .into_iter()
        .peekable();
        loop {
            let order = match (above.peek(), below.peek()) {
                (Some((a, _)), Some((b, _))) => a.cmp(b),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => return Ok(()),
            };
            let upper = if order.is_le() { above.next() } else { None };
            let lower = if order.is_ge() { below.next() } else { None };
            let Some((name, _)) = upper.as_ref().or(lower.as_ref()).cloned() else { continue };
            self.pair(&name, upper.is_some(), lower.is_some())?;
        }
    }

    /// One name that is above, below, or both.
    fn pair(&mut self, name: &[u8], above: bool, below_too: bool) -> Result<(), LayerError> {
        let here = self.levels.last().expect("the root's level is never taken off");
        let path = join(&here.path, name);
        let failed = |doing| {
            let path = &path;
            move |e: rustix::io::Errno| LayerError::io(doing, path, e)
        };
        let meta = if above {
            Some(Meta::at(here.fd.as_fd(), name).map_err(failed("look at"))?)
                .filter(|meta| !meta.is_whiteout())
        } else {
            None
        };
        let lower = match &here.lower {
            Some(lower) if below_too => below(lower.as_fd(), name).map_err(failed("look below at"))?,
            _ => None,
        };
        let Some(meta) = meta else {
            return if lower.is_some() { self.out.removed(&self.levels, &path) } else { Ok(()) };
        };
        let place = Place { dir: here.fd.as_fd(), base: name };
        let unchanged = match (&lower, &here.lower) {
            (Some(below), Some(dir)) => same((Place { dir: dir.as_fd(), base: name }, below), (place, &meta))
                .map_err(|e| LayerError::io("compare", &path, e))?,
            _ => false,
        };
        let change = if unchanged { Change::Unmodified } else { Change::Present };
        if !unchanged || meta.shared_inode().is_some() {
            self.out.changed(&self.levels, change, place, &path, &meta)?;
        }
        if meta.is_dir() {
            self.enter(name, path, meta, lower.as_ref())?;
            self.both()?;
            self.levels.pop();
        }
        Ok(())
    }

    /// Puts a folder on top of the stack.
    fn enter(
        &mut self,
        name: &[u8],
        path: Vec<u8>,
        meta: Meta,
        below: Option<&Meta>,
    ) -> Result<(), LayerError> {
        let here = self.top();
        let fd = open_folder(here.fd.as_fd(), name)
            .and_then(|fd| fd.ok_or(rustix::io::Errno::NOTDIR))
            .map_err(|e| LayerError::io("open folder", &path, e))?;
        let lower = match (&here.lower, below) {
            (Some(lower), Some(below)) if below.is_dir() => {
                open_folder(lower.as_fd(), name).map_err(|e| LayerError::io("open folder below", &path, e))?
            }
            _ => None,
        };
        self.levels.push(Level { path, fd, meta, lower });
        Ok(())
    }
}

/// A folder within a folder; none if it is something else.
fn open_folder(dir: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<Option<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat(dir, name, flags, Mode::empty()) {
        Ok(fd) => Ok(Some(fd)),
        Err(rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP) => Ok(None),
        Err(error) => Err(error),
    }
}

/// What the layers below have by a name.
fn below(dir: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<Option<Meta>> {
    match Meta::at(dir, name) {
        Ok(meta) => Ok(Some(meta).filter(|meta| !meta.is_whiteout())),
        Err(rustix::io::Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

fn sorted(dir: BorrowedFd<'_>, path: &[u8]) -> Result<Vec<(Vec<u8>, FileType)>, LayerError> {
    let mut all = list(dir).map_err(|e| LayerError::io("list", path, e))?;
    all.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    Ok(all)
}

/// What overlayfs notes on a folder of an upper layer.
struct OverlayMarks {
    opaque: bool,
    redirect: bool,
}

fn overlay_marks(place: Place<'_>) -> rustix::io::Result<OverlayMarks> {
    let get = |name: &[u8]| xattrs::get_at(place.dir, place.base, name);
    let opaque = |name| get(name).map(|value| value.as_deref() == Some(b"y"));
    Ok(OverlayMarks {
        opaque: opaque(b"trusted.overlay.opaque")? || opaque(b"user.overlay.opaque")?,
        redirect: get(b"trusted.overlay.redirect")?.is_some_and(|v| !v.is_empty()),
    })
}
