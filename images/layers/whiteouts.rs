//! Removals: how a layer's markers become what overlayfs or a plain tree has in their place.

use std::os::fd::AsFd;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid, XattrFlags, chownat, mknodat};
use rustix::io::Errno;

use super::apply::{Applier, ApplyForm};
use super::copy::copy_file;
use super::dirs::list;
use super::errors::LayerError;
use super::names::{OPAQUE, WHITEOUT, WHITEOUT_META, join, shown, split};
use super::same::Place;
use super::stat::Meta;
use crate::tar::Header;

impl Applier<'_> {
    /// A removal marker.
    pub(super) fn whiteout(&mut self, header: &Header, parent: &[u8], base: &[u8]) -> Result<(), LayerError> {
        if base == OPAQUE {
            return if self.merged() { self.empty_folder(parent) } else { self.opaque(parent) };
        }
        if base.starts_with(WHITEOUT_META) {
            return Ok(());
        }
        let target = &base[WHITEOUT.len()..];
        if matches!(target, b"" | b"." | b"..") {
            return Err(LayerError::Whiteout { entry: shown(&header.name) });
        }
        let path = join(parent, target);
        if self.merged() {
            return match self.dirs.find(parent)? {
                Some(dir) => self.remove_spared(&dir, target, &path),
                None => Ok(()),
            };
        }
        let dir = self.dir(parent)?;
        match mknodat(dir.fd(), target, FileType::CharacterDevice, Mode::empty(), 0) {
            Ok(()) => {
                let owner = (Uid::from_raw(header.uid), Gid::from_raw(header.gid));
                if (header.uid, header.gid) != self.owner {
                    chownat(dir.fd(), target, Some(owner.0), Some(owner.1), AtFlags::SYMLINK_NOFOLLOW)
                        .map_err(|e| LayerError::io("set owner of whiteout", &path, e))?;
                }
                self.marked.insert(path);
                Ok(())
            }
            // A marker removes what is below, not what this layer has put in place; a folder of this layer then
            // shows nothing from below.
            Err(Errno::EXIST) => {
                let there = Meta::at(dir.fd(), target).map_err(|e| LayerError::io("look at", &path, e))?;
                if there.is_dir() { self.opaque(&path) } else { Ok(()) }
            }
            Err(e) => Err(LayerError::io("create whiteout", &path, e)),
        }
    }

    /// Overlay: a folder that shows nothing from below.
    fn opaque(&mut self, path: &[u8]) -> Result<(), LayerError> {
        if path.is_empty() {
            self.opaque_root = true;
            return Ok(());
        }
        let dir = self.dir(path)?;
        self.make_opaque(&dir.fd, path)
    }

    pub(super) fn make_opaque(&self, dir: impl AsFd, path: &[u8]) -> Result<(), LayerError> {
        let name = match self.options.form {
            ApplyForm::OverlayUserXattr => "user.overlay.opaque",
            _ => "trusted.overlay.opaque",
        };
        rustix::fs::fsetxattr(dir, name, b"y", XattrFlags::empty())
            .map_err(|e| LayerError::io("make opaque", path, e))
    }

    /// Overlay: the root of a layer cannot be opaque, so each name that is below is hidden on its own.
    pub(super) fn hide_all_below(&mut self) -> Result<(), LayerError> {
        let names = match self.lower()?.root() {
            Some(root) => list(root).map_err(|e| LayerError::io("list the layers below", b"/", e))?,
            None => return Ok(()),
        };
        let root = self.dirs.root().clone();
        for (name, _) in names {
            match mknodat(root.fd(), &name[..], FileType::CharacterDevice, Mode::empty(), 0) {
                Ok(()) => {}
                Err(Errno::EXIST) => {
                    let there =
                        Meta::at(root.fd(), &name).map_err(|e| LayerError::io("look at", &name, e))?;
                    if there.is_dir() {
                        self.opaque(&name)?;
                    }
                }
                Err(e) => return Err(LayerError::io("create whiteout", &name, e)),
            }
        }
        Ok(())
    }

    /// Merged: removes what was there before this layer.
    fn empty_folder(&mut self, path: &[u8]) -> Result<(), LayerError> {
        let Some(dir) = self.dirs.find(path)? else { return Ok(()) };
        for (name, _) in list(dir.fd()).map_err(|e| LayerError::io("list", path, e))? {
            self.remove_spared(&dir, &name, &join(path, &name))?;
        }
        Ok(())
    }

    /// Merged: removes one name and all below it, except what this layer has put in place.
    fn remove_spared(
        &mut self,
        dir: &super::dirs::OpenDir,
        base: &[u8],
        path: &[u8],
    ) -> Result<(), LayerError> {
        if self.made.contains(path) {
            let is_dir = Meta::at(dir.fd(), base).is_ok_and(|m| m.is_dir());
            return if is_dir { self.empty_folder(path) } else { Ok(()) };
        }
        self.dirs.remove(dir, base, path)
    }

    /// Overlay: brings a file of the layers below into this one. False if it is not there or cannot be linked.
    pub(super) fn copy_up(&mut self, path: &[u8]) -> Result<bool, LayerError> {
        let failed = |doing| move |e: Errno| LayerError::io(doing, path, e);
        let (parent, base) = split(path);
        let lower_dir = self.lower()?.open_at(parent, OFlags::RDONLY | OFlags::DIRECTORY);
        let Some(lower_dir) = lower_dir.map_err(failed("look below at"))? else { return Ok(false) };
        let meta = match Meta::at(lower_dir.as_fd(), base) {
            Ok(meta) if !meta.is_whiteout() && !meta.is_dir() => meta,
            Ok(_) | Err(Errno::NOENT) => return Ok(false),
            Err(e) => return Err(failed("look below at")(e)),
        };
        let dir = self.dir(parent)?;
        copy_file(Place { dir: lower_dir.as_fd(), base }, &meta, dir.fd(), path)?;
        Ok(true)
    }
}
