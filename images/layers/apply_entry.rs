//! One entry of a layer put in place.

use std::fs::File;
use std::io::{BufRead, Write};
use std::os::unix::fs::FileExt;
use std::rc::Rc;

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Uid, chownat, fchmod, fchown, futimens, linkat, makedev, mkdirat,
    mknodat, openat, symlinkat, utimensat,
};
use rustix::io::Errno;

use super::apply::{Applier, stamps};
use super::dirs::OpenDir;
use super::errors::LayerError;
use super::names::{WHITEOUT, WHITEOUT_META, shown, split};
use super::stat::Meta;
use super::xattrs;
use crate::tar::{Header, Kind, Reader};

impl Applier<'_> {
    pub(super) fn entry(
        &mut self,
        header: &Header,
        tar: &mut Reader<impl BufRead>,
    ) -> Result<(), LayerError> {
        if let Kind::Other(flag) = header.kind {
            return Err(LayerError::UnknownType { entry: shown(&header.name), flag: flag as char });
        }
        let path = Self::path(&header.name)?;
        let (parent, base) = split(&path);
        if base.is_empty() {
            // The root folder itself. Go's differs never write it, GNU tar does.
            if header.kind == Kind::Directory {
                let root = self.dirs.root().clone();
                self.looks_of_open(&root.fd, &root, header, &path)?;
                self.set_time_later(&path, header.mtime);
            }
            return Ok(());
        }
        if base.starts_with(WHITEOUT) {
            return self.whiteout(header, parent, base);
        }
        if path.split(|b| *b == b'/').any(|part| part.starts_with(WHITEOUT_META)) {
            return Ok(());
        }
        let dir = self.dir(parent)?;
        match header.kind {
            Kind::Directory => self.directory(header, &dir, base, &path)?,
            Kind::File => self.file(header, tar, &dir, base, &path)?,
            Kind::HardLink => self.hard_link(header, &dir, base, &path)?,
            _ => self.special(header, &dir, base, &path)?,
        }
        if self.merged() {
            self.made.insert(path);
        }
        Ok(())
    }

    fn directory(
        &mut self,
        header: &Header,
        dir: &Rc<OpenDir>,
        base: &[u8],
        path: &[u8],
    ) -> Result<(), LayerError> {
        let mut replaced_marker = false;
        match mkdirat(dir.fd(), base, Mode::from_raw_mode(0o700)) {
            Ok(()) => {}
            Err(Errno::EXIST) => {
                let there = Meta::at(dir.fd(), base).map_err(|e| LayerError::io("look at", path, e))?;
                if !there.is_dir() {
                    replaced_marker = self.marked.remove(path);
                    self.dirs.remove(dir, base, path)?;
                    mkdirat(dir.fd(), base, Mode::from_raw_mode(0o700))
                        .map_err(|e| LayerError::io("create folder", path, e))?;
                }
            }
            Err(e) => return Err(LayerError::io("create folder", path, e)),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = openat(dir.fd(), base, flags, Mode::empty())
            .map_err(|e| LayerError::io("open folder", path, e))?;
        self.looks_of_open(&fd, dir, header, path)?;
        if replaced_marker {
            // Removed and made anew: what lower layers have in it stays removed.
            self.make_opaque(&fd, path)?;
        }
        self.set_time_later(path, header.mtime);
        // The group bit of a folder that may be open already can have changed.
        if header.mode & 0o2000 != 0 {
            self.dirs.forget();
        }
        Ok(())
    }

    fn file(
        &mut self,
        header: &Header,
        tar: &mut Reader<impl BufRead>,
        dir: &Rc<OpenDir>,
        base: &[u8],
        path: &[u8],
    ) -> Result<(), LayerError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = self.replacing(dir, base, path, "create file", || {
            openat(dir.fd(), base, flags, Mode::from_raw_mode(0o600))
        })?;
        let mut file = File::from(fd);
        let written = |e| LayerError::io("write file", path, e);
        let next_piece = |tar: &mut Reader<_>| -> Result<usize, LayerError> {
            Ok(BufRead::fill_buf(tar).map_err(LayerError::Archive)?.len())
        };
        if let Some(pieces) = &header.pieces {
            file.set_len(header.size).map_err(written)?;
            for (mut offset, mut left) in pieces.iter().copied() {
                while left > 0 {
                    let have = next_piece(tar)?.min(usize::try_from(left).unwrap_or(usize::MAX));
                    let bytes = tar.fill_buf().map_err(LayerError::Archive)?;
                    file.write_all_at(&bytes[..have], offset).map_err(written)?;
                    tar.consume(have);
                    offset += have as u64;
                    left -= have as u64;
                }
            }
        } else {
            let mut chunks = 0_u32;
            loop {
                let bytes = tar.fill_buf().map_err(LayerError::Archive)?;
                let len = bytes.len();
                if len == 0 {
                    break;
                }
                file.write_all(bytes).map_err(written)?;
                tar.consume(len);
                chunks += 1;
                if chunks.is_multiple_of(64) {
                    self.check_canceled()?;
                }
            }
        }
        self.looks_of_open(&file, dir, header, path)?;
        futimens(&file, &stamps(header.mtime)).map_err(|e| LayerError::io("set time of", path, e))
    }

    fn hard_link(
        &mut self,
        header: &Header,
        dir: &Rc<OpenDir>,
        base: &[u8],
        path: &[u8],
    ) -> Result<(), LayerError> {
        let target = Self::path(&header.link)?;
        let (target_parent, target_base) = split(&target);
        let missing = || LayerError::LinkTarget { entry: shown(&header.name), target: shown(&header.link) };
        if target == path {
            return Ok(());
        }
        if target_base.is_empty() {
            return Err(missing());
        }
        let link = |this: &mut Self| -> Result<bool, LayerError> {
            let Some(from) = this.dirs.find(target_parent)? else { return Ok(false) };
            match linkat(from.fd(), target_base, dir.fd(), base, AtFlags::empty()) {
                Ok(()) => Ok(true),
                Err(Errno::EXIST) => {
                    // Only what exists may take the place of what is there.
                    if Meta::at(from.fd(), target_base).is_err() {
                        return Ok(false);
                    }
                    this.marked.remove(path);
                    this.dirs.remove(dir, base, path)?;
                    linkat(from.fd(), target_base, dir.fd(), base, AtFlags::empty())
                        .map_err(|e| LayerError::io("create hard link", path, e))?;
                    Ok(true)
                }
                Err(Errno::NOENT) => Ok(false),
                Err(e) => Err(LayerError::io("create hard link", path, e)),
            }
        };
        if link(self)? {
            return Ok(());
        }
        // The target is in a layer below: it comes up as overlayfs would bring it up, then there is something to link to.
        if !self.copy_up(&target)? || !link(self)? {
            return Err(missing());
        }
        Ok(())
    }

    fn special(
        &mut self,
        header: &Header,
        dir: &Rc<OpenDir>,
        base: &[u8],
        path: &[u8],
    ) -> Result<(), LayerError> {
        let mode = Mode::from_raw_mode(header.mode & 0o7777);
        let device = makedev(header.device.0, header.device.1);
        let node = |kind, device| mknodat(dir.fd(), base, kind, mode, device);
        let done = self.replacing(dir, base, path, "create", || match header.kind {
            Kind::Symlink => symlinkat(&header.link[..], dir.fd(), base),
            Kind::Fifo => node(FileType::Fifo, 0),
            Kind::BlockDevice => node(FileType::BlockDevice, device),
            _ => node(FileType::CharacterDevice, device),
        });
        match done {
            // Only the real root may make devices; without them most images still run.
            Err(LayerError::Io { ref source, .. })
                if source.raw_os_error() == Some(Errno::PERM.raw_os_error())
                    && crosskit_rootless::is_inside() =>
            {
                tracing::warn!("device {} left out: devices cannot be made in a user namespace", shown(path));
                return Ok(());
            }
            done => done?,
        }
        self.looks_of_name(header, dir, base, path)
    }

    /// Makes something where something may be already, which then goes. Only a folder is kept, by [`Self::directory`].
    fn replacing<T>(
        &mut self,
        dir: &Rc<OpenDir>,
        base: &[u8],
        path: &[u8],
        doing: &'static str,
        mut make: impl FnMut() -> rustix::io::Result<T>,
    ) -> Result<T, LayerError> {
        match make() {
            Err(Errno::EXIST) => {
                self.marked.remove(path);
                self.dirs.remove(dir, base, path)?;
                make().map_err(|e| LayerError::io(doing, path, e))
            }
            other => other.map_err(|e| LayerError::io(doing, path, e)),
        }
    }

    /// Owner, attributes and mode, in this order: a change of the owner takes set-id bits and capabilities away.
    fn looks_of_open(
        &self,
        file: impl std::os::fd::AsFd,
        dir: &OpenDir,
        header: &Header,
        path: &[u8],
    ) -> Result<(), LayerError> {
        let owner = (header.uid, header.gid);
        if owner != self.owner || dir.set_gid || header.kind == Kind::Directory {
            fchown(&file, Some(Uid::from_raw(owner.0)), Some(Gid::from_raw(owner.1)))
                .map_err(|e| LayerError::io("set owner of", path, e))?;
        }
        if !header.records.is_empty() {
            xattrs::apply(header.xattrs(), |name, value| xattrs::set(&file, name, value))
                .map_err(|e| LayerError::io("set attributes of", path, e))?;
        }
        fchmod(&file, Mode::from_raw_mode(header.mode & 0o7777))
            .map_err(|e| LayerError::io("set mode of", path, e))
    }

    /// The same for what cannot be opened, and the time.
    fn looks_of_name(
        &self,
        header: &Header,
        dir: &OpenDir,
        base: &[u8],
        path: &[u8],
    ) -> Result<(), LayerError> {
        if (header.uid, header.gid) != self.owner || dir.set_gid {
            let owner = (Uid::from_raw(header.uid), Gid::from_raw(header.gid));
            chownat(dir.fd(), base, Some(owner.0), Some(owner.1), AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|e| LayerError::io("set owner of", path, e))?;
        }
        if !header.records.is_empty() {
            xattrs::apply(header.xattrs(), |name, value| xattrs::set_at(dir.fd(), base, name, value))
                .map_err(|e| LayerError::io("set attributes of", path, e))?;
        }
        if header.kind != Kind::Symlink {
            rustix::fs::chmodat(dir.fd(), base, Mode::from_raw_mode(header.mode & 0o7777), AtFlags::empty())
                .map_err(|e| LayerError::io("set mode of", path, e))?;
        }
        utimensat(dir.fd(), base, &stamps(header.mtime), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|e| LayerError::io("set time of", path, e))
    }
}
