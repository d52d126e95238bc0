//! The changes of a layer, or between two trees, as the folder of an overlay layer whose files are further names of
//! those that are there: a layer that can be put over something else than it was made on.
//!
//! What an overlay layer holds is more than it changes: folders that were only walked through, files opened and left
//! as they were, and folders that hide all below them because that was cheaper for the kernel than to look. Over its
//! own base none of that is seen; over another it would be.

use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Uid, fchmod, fchown, futimens, linkat, mkdirat, mknodat, openat,
};
use rustix::io::Errno;
use tokio_util::sync::CancellationToken;

use super::apply::stamps;
use super::changes::{Change, Changes, Level};
use super::copy::copy_file;
use super::diff::{walk_layer, walk_trees};
use super::dirs::{Dirs, OpenDir};
use super::errors::LayerError;
use super::hardlinks::{HardLinks, Name};
use super::lower::{LowerView, open_dir};
use super::names::split;
use super::same::Place;
use super::stat::Meta;
use super::xattrs::{self, XattrFilter};

/// Makes of an overlay layer one with nothing but its changes, in the empty folder `to`. `lowers` are the layers that
/// it was made on, topmost first; a removal is kept where `below`, what it is put over, shows something.
///
/// Blocking: meant for a thread of its own.
pub fn link_layer(
    upper: &Path,
    lowers: &[impl AsRef<Path>],
    below: &LowerView,
    to: &Path,
    cancel: &CancellationToken,
) -> Result<(), LayerError> {
    let linked = Linked::new(to, Some(below), cancel)?;
    walk_layer(upper, lowers, linked)?.finish(upper)
}

/// Makes the overlay layer that turns the tree `lower` into the tree `upper`, both complete, in the empty folder `to`.
///
/// Blocking: meant for a thread of its own.
pub fn link_difference(
    lower: &LowerView,
    upper: &Path,
    to: &Path,
    cancel: &CancellationToken,
) -> Result<(), LayerError> {
    let linked = Linked::new(to, None, cancel)?;
    walk_trees(lower, upper, linked)?.finish(upper)
}

/// How many entries of an overlay layer say something over the layers below, topmost first.
pub fn count_changes(upper: &Path, lowers: &[impl AsRef<Path>]) -> Result<u64, LayerError> {
    let counted = walk_layer(upper, lowers, Count::default())?;
    Ok(counted.entries)
}

/// Counts what is told, with the folders on the way.
#[derive(Default)]
struct Count {
    entries: u64,
    folders: HashSet<Vec<u8>>,
}

impl Count {
    fn within(&mut self, levels: &[Level]) {
        for level in levels.iter().skip(1).rev() {
            if !self.folders.insert(level.path.clone()) {
                return;
            }
            self.entries += 1;
        }
    }
}

impl Changes for Count {
    fn removed(&mut self, levels: &[Level], _path: &[u8]) -> Result<(), LayerError> {
        self.within(levels);
        self.entries += 1;
        Ok(())
    }

    fn changed(
        &mut self,
        levels: &[Level],
        change: Change,
        _place: Place<'_>,
        path: &[u8],
        meta: &Meta,
    ) -> Result<(), LayerError> {
        if change == Change::Present {
            self.within(levels);
            if !meta.is_dir() || self.folders.insert(path.to_vec()) {
                self.entries += 1;
            }
        }
        Ok(())
    }
}

/// Writes changes into a folder.
struct Linked<'a> {
    dirs: Dirs,
    /// What removals are for; None where all are kept.
    below: Option<&'a LowerView>,
    folders: HashMap<Vec<u8>, Meta>,
    names: HardLinks,
    cancel: &'a CancellationToken,
}

impl<'a> Linked<'a> {
    fn new(
        to: &Path,
        below: Option<&'a LowerView>,
        cancel: &'a CancellationToken,
    ) -> Result<Self, LayerError> {
        let dirs = Dirs::new(open_dir(to)?).map_err(|e| LayerError::io("look at", b"/", e))?;
        Ok(Self { dirs, below, folders: HashMap::new(), names: HardLinks::default(), cancel })
    }

    /// Gives folders the times that filling them has changed.
    fn finish(mut self, upper: &Path) -> Result<(), LayerError> {
        let from = open_dir(upper)?;
        let meta = Meta::of(&from).map_err(|e| LayerError::io("look at", b"/", e))?;
        let root = self.dirs.root().clone();
        dress(&root, Place { dir: from.as_fd(), base: b"." }, &meta, b"/")?;
        for (path, meta) in self.folders.iter().chain([(&Vec::new(), &meta)]) {
            let failed = |e| LayerError::io("set time of", path, e);
            let Some(dir) = self.dirs.find(path)? else { continue };
            futimens(dir.fd(), &stamps(meta.mtime())).map_err(failed)?;
        }
        Ok(())
    }

    /// The folder at a path; what is missing on the way is made as it is in the layer.
    fn folder(&mut self, levels: &[Level], path: &[u8]) -> Result<std::rc::Rc<OpenDir>, LayerError> {
        let slashes = path.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(at, _)| at);
        let ends: Vec<usize> = slashes.chain((!path.is_empty()).then_some(path.len())).collect();
        for folder in ends.into_iter().map(|end| &path[..end]) {
            if self.folders.contains_key(folder) {
                continue;
            }
            if let Some(level) = levels.iter().find(|level| level.path == folder) {
                self.make(Place { dir: level.fd.as_fd(), base: b"." }, folder, &level.meta)?;
            } else if let Some(root) = levels.first() {
                // The further names of a file can lie elsewhere than where the walk stands.
                let failed = |e: Errno| LayerError::io("open folder", folder, e);
                let tree =
                    LowerView::of_tree(root.fd.try_clone().map_err(|e| LayerError::io("open", b"/", e))?);
                let flags = OFlags::RDONLY | OFlags::DIRECTORY;
                let fd = tree.open_at(folder, flags).map_err(failed)?.ok_or_else(|| failed(Errno::NOENT))?;
                let meta = Meta::of(&fd).map_err(failed)?;
                self.make(Place { dir: fd.as_fd(), base: b"." }, folder, &meta)?;
            }
        }
        self.dirs.find(path)?.ok_or_else(|| LayerError::io("open folder", path, Errno::NOENT))
    }

    fn make(&mut self, from: Place<'_>, path: &[u8], meta: &Meta) -> Result<(), LayerError> {
        let (parent, base) = split(path);
        let failed = |e: Errno| LayerError::io("create folder", path, e);
        let within = self.dirs.find(parent)?.ok_or_else(|| failed(Errno::NOENT))?;
        mkdirat(within.fd(), base, Mode::RWXU).map_err(failed)?;
        let made = self.dirs.find(path)?.ok_or_else(|| failed(Errno::NOENT))?;
        dress(&made, from, meta, path)?;
        self.folders.insert(path.to_vec(), *meta);
        Ok(())
    }

    fn link(&mut self, levels: &[Level], first: &[u8], path: &[u8]) -> Result<(), LayerError> {
        let failed = |e: Errno| LayerError::io("link", path, e);
        let to = self.folder(levels, split(path).0)?;
        let from = self.dirs.find(split(first).0)?.ok_or_else(|| failed(Errno::NOENT))?;
        linkat(from.fd(), split(first).1, to.fd(), split(path).1, AtFlags::empty()).map_err(failed)
    }
}

/// Gives a folder owner, mode and attributes of another.
fn dress(dir: &OpenDir, from: Place<'_>, meta: &Meta, path: &[u8]) -> Result<(), LayerError> {
    let failed = |doing| move |e: Errno| LayerError::io(doing, path, e);
    let owner = (Some(Uid::from_raw(meta.0.st_uid)), Some(Gid::from_raw(meta.0.st_gid)));
    fchown(dir.fd(), owner.0, owner.1).map_err(failed("set owner of"))?;
    let attributes =
        xattrs::read_at(from.dir, from.base, XattrFilter::All).map_err(failed("read attributes of"))?;
    let attributes = attributes.iter().map(|(k, v)| (&k[..], &v[..]));
    xattrs::apply(attributes, |k, v| xattrs::set(dir.fd(), k, v)).map_err(failed("set attributes of"))?;
    fchmod(dir.fd(), Mode::from_raw_mode(meta.mode())).map_err(failed("set mode of"))
}

/// Makes a file one of a folder's too: as a further name, or as a copy where there can be none.
fn take(from: Place<'_>, meta: &Meta, to: BorrowedFd<'_>, path: &[u8]) -> Result<(), LayerError> {
    match linkat(from.dir, from.base, to, split(path).1, AtFlags::empty()) {
        Ok(()) => Ok(()),
        Err(Errno::XDEV | Errno::MLINK | Errno::PERM) => copy_file(from, meta, to, path),
        Err(e) => Err(LayerError::io("link", path, e)),
    }
}

impl Changes for Linked<'_> {
    fn removed(&mut self, levels: &[Level], path: &[u8]) -> Result<(), LayerError> {
        let failed = |doing| move |e: Errno| LayerError::io(doing, path, e);
        let folder = self.folder(levels, split(path).0)?;
        if let Some(below) = self.below
            && below.open_at(path, OFlags::PATH).map_err(failed("look below at"))?.is_none()
        {
            return Ok(());
        }
        mknodat(folder.fd(), split(path).1, FileType::CharacterDevice, Mode::empty(), 0)
            .map_err(failed("create whiteout"))
    }

    fn changed(
        &mut self,
        levels: &[Level],
        change: Change,
        place: Place<'_>,
        path: &[u8],
        meta: &Meta,
    ) -> Result<(), LayerError> {
        if self.cancel.is_cancelled() {
            return Err(LayerError::Canceled);
        }
        if meta.is_dir() {
            self.folder(levels, split(path).0)?;
            if self.folders.contains_key(path) {
                return Ok(());
            }
            let fd = openat(
                place.dir,
                place.base,
                OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
                Mode::empty(),
            )
            .map_err(|e| LayerError::io("open folder", path, e))?;
            return self.make(Place { dir: fd.as_fd(), base: b"." }, path, meta);
        }
        let further = match self.names.meet(path, meta, change) {
            Name::First(further) => further,
            Name::Further(first) => return self.link(levels, &first, path),
            Name::Unchanged => return Ok(()),
        };
        let folder = self.folder(levels, split(path).0)?;
        take(place, meta, folder.fd(), path)?;
        further.iter().try_for_each(|name| self.link(levels, path, name))
    }
}
