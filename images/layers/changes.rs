//! Changes written as a layer's tar, in the form containerd's differ gives it.

use std::collections::HashSet;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, major, minor, openat2, readlinkat};

use super::diff::{DiffOptions, Written};
use super::errors::LayerError;
use super::hardlinks::{HardLinks, Name};
use super::names::{WHITEOUT, join, split};
use super::same::{Place, open};
use super::stat::Meta;
use super::xattrs;
use crate::tar::{Header, Kind, Timestamp, Writer};

/// What happened to a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// It is new or changed.
    Present,
    /// It is as before, but has further names that may be new.
    Unmodified,
}

/// An open folder on the way from the root to where the walk stands.
pub(super) struct Level {
    pub(super) path: Vec<u8>,
    pub(super) fd: OwnedFd,
    pub(super) meta: Meta,
    /// The same folder below, if there is one.
    pub(super) lower: Option<OwnedFd>,
}

/// Who is told what a layer changes: by name, folders before what is in them.
pub(super) trait Changes {
    /// A path was removed. `levels` are the folders it lies in, root first.
    fn removed(&mut self, levels: &[Level], path: &[u8]) -> Result<(), LayerError>;

    /// A file as it is now, which `place` names; `levels` are the folders it lies in, root first.
    fn changed(
        &mut self,
        levels: &[Level],
        change: Change,
        place: Place<'_>,
        path: &[u8],
        meta: &Meta,
    ) -> Result<(), LayerError>;
}

/// Writes changes in the order they are told.
pub(super) struct ChangeWriter<'a, W> {
    tar: Writer<W>,
    options: &'a DiffOptions,
    names: HardLinks,
    folders: HashSet<Vec<u8>>,
    written: Written,
}

impl<W: Write> Changes for ChangeWriter<'_, W> {
    /// Its time is 1970 whatever was asked, as nobody can see it.
    fn removed(&mut self, levels: &[Level], path: &[u8]) -> Result<(), LayerError> {
        let (parent, base) = split(path);
        self.include_folders(levels, parent)?;
        self.write(&Header::new(join(parent, &[WHITEOUT, base].concat()), Kind::File))
    }

    fn changed(
        &mut self,
        levels: &[Level],
        change: Change,
        place: Place<'_>,
        path: &[u8],
        meta: &Meta,
    ) -> Result<(), LayerError> {
        let kind = match meta.file_type() {
            FileType::RegularFile => Kind::File,
            FileType::Directory => Kind::Directory,
            FileType::Symlink => Kind::Symlink,
            FileType::CharacterDevice => Kind::CharDevice,
            FileType::BlockDevice => Kind::BlockDevice,
            FileType::Fifo => Kind::Fifo,
            // A socket means nothing without the process behind it.
            _ => return Ok(()),
        };
        let failed = |doing| move |e: rustix::io::Errno| LayerError::io(doing, path, e);
        let mut header = Header::new(path, kind);
        header.mode = meta.mode();
        (header.uid, header.gid) = (meta.0.st_uid, meta.0.st_gid);
        header.mtime = self.time(meta);
        match kind {
            Kind::Directory => header.name.push(b'/'),
            Kind::File => header.size = meta.size(),
            Kind::Symlink => {
                let target = readlinkat(place.dir, place.base, Vec::new()).map_err(failed("read link"))?;
                header.link = target.into_bytes();
            }
            Kind::CharDevice | Kind::BlockDevice => {
                header.device = (major(meta.0.st_rdev), minor(meta.0.st_rdev));
            }
            _ => {}
        }
        let further = match self.names.meet(path, meta, change) {
            Name::First(further) => further,
            Name::Further(first) => {
                header.kind = Kind::HardLink;
                header.link = first;
                header.size = 0;
                Vec::new()
            }
            Name::Unchanged => return Ok(()),
        };
        for (name, value) in xattrs::read_at(place.dir, place.base, self.options.xattrs)
            .map_err(failed("read attributes of"))?
        {
            header.set_xattr(&name, value);
        }
        self.include_folders(levels, split(path).0)?;
        if kind == Kind::Directory {
            self.folders.insert(path.to_vec());
        }
        self.write(&header)?;
        if header.kind == Kind::File && header.size > 0 {
            let file = open(place).map_err(|e| LayerError::io("open", path, e))?;
            self.tar.copy_from(file).map_err(LayerError::Write)?;
            self.written.size += header.size;
        }
        for name in further {
            header.kind = Kind::HardLink;
            header.link = path.to_vec();
            header.size = 0;
            header.name = name;
            self.include_folders(levels, split(&header.name.clone()).0)?;
            self.write(&header)?;
        }
        Ok(())
    }
}

impl<'a, W: Write> ChangeWriter<'a, W> {
    pub(super) fn new(out: W, options: &'a DiffOptions) -> Self {
        Self {
            tar: Writer::new(out),
            options,
            names: HardLinks::default(),
            folders: HashSet::new(),
            written: Written::default(),
        }
    }

    pub(super) fn finish(self) -> Result<(Written, W), LayerError> {
        let out = self.tar.finish().map_err(LayerError::Write)?;
        Ok((self.written, out))
    }

    /// A changed file's folders come before it, changed or not, so that whoever unpacks knows how they look.
    fn include_folders(&mut self, levels: &[Level], path: &[u8]) -> Result<(), LayerError> {
        let Some(root) = levels.first() else { return Ok(()) };
        let slashes = path.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(at, _)| at);
        for end in slashes.chain((!path.is_empty()).then_some(path.len())) {
            let folder = &path[..end];
            if self.folders.contains(folder) {
                continue;
            }
            // Nearly always a folder the walk stands in; the further names of a file can lie elsewhere.
            if let Some(level) = levels.iter().find(|level| level.path == folder) {
                let place = Place { dir: level.fd.as_fd(), base: b"." };
                self.changed(&[], Change::Present, place, folder, &level.meta)?;
            } else {
                let failed = |e: rustix::io::Errno| LayerError::io("open folder", folder, e);
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
                let fd = openat2(&root.fd, folder, flags, Mode::empty(), resolve).map_err(failed)?;
                let meta = Meta::of(&fd).map_err(failed)?;
                self.changed(&[], Change::Present, Place { dir: fd.as_fd(), base: b"." }, folder, &meta)?;
            }
        }
        Ok(())
    }

    fn write(&mut self, header: &Header) -> Result<(), LayerError> {
        if self.options.cancel.as_ref().is_some_and(tokio_util::sync::CancellationToken::is_cancelled) {
            return Err(LayerError::Canceled);
        }
        self.written.entries += 1;
        self.tar.entry(header).map_err(LayerError::Write)
    }

    fn time(&self, meta: &Meta) -> Timestamp {
        let time = meta.mtime();
        match self.options.epoch.map(Timestamp::from_seconds) {
            Some(epoch) if time > epoch => epoch,
            _ => time.truncated(),
        }
    }
}
