//! Where files go.

use crate::root::{FOLDER, Root, join, names, remove_at, split, stat_at};
use crate::{Error, Result};
use crosskit_snapshots::Mounted;
use rustix::fs::{FileType, Mode, Stat};
use rustix::io::Errno;
use std::collections::HashSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A snapshot that is being written to.
pub struct Target {
    /// Its tree as everybody sees it.
    pub(crate) root: Root,
    /// The folder that takes its changes, if that is another one.
    upper: Option<Root>,
    /// Files of others that have a name here already. A second one would make two files of the
    /// snapshot the same file.
    pub(crate) shared: HashSet<u64>,
    /// Something was put into the upper folder that the mount may not have noticed.
    pub(crate) behind: bool,
}

/// A folder of it.
pub(crate) struct TargetFolder {
    pub(crate) real: Vec<u8>,
    /// The folder to put things into.
    pub(crate) fd: OwnedFd,
    /// The folder as everybody sees it, unless that is the same.
    seen: Option<OwnedFd>,
    /// It was made just now and holds only what this copy put there.
    pub(crate) fresh: bool,
}

impl Target {
    pub(crate) fn open(mounted: &Mounted) -> Result<Target> {
        let root = Root::open(mounted.path())?;
        let upper = match mounted.upper() {
            Some(upper) if !mounted.is_plain_folder() => Some(Root::open(upper)?),
            _ => None,
        };
        Ok(Target { root, upper, shared: HashSet::new(), behind: false })
    }

    /// Opens a folder that exists.
    pub(crate) fn folder(&self, real: &[u8]) -> Result<TargetFolder> {
        let seen = self.root.open_folder(real)?;
        let Some(upper) = &self.upper else {
            return Ok(TargetFolder { real: real.to_vec(), fd: seen, seen: None, fresh: false });
        };
        let failed = |e| Error::path("open", real, e);
        let fd = match upper.open_raw(real, FOLDER) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => {
                // It is only below so far. Setting the mode it has brings it up.
                let stat = rustix::fs::fstat(&seen).map_err(failed)?;
                rustix::fs::fchmod(&seen, Mode::from_raw_mode(stat.st_mode)).map_err(failed)?;
                upper.open_raw(real, FOLDER).map_err(failed)?
            }
            Err(e) => return Err(failed(e)),
        };
        Ok(TargetFolder { real: real.to_vec(), fd, seen: Some(seen), fresh: false })
    }

    /// The same, for many things to be put into. An empty one is as good as one made just now.
    pub(crate) fn folder_to_fill(&self, real: &[u8]) -> Result<TargetFolder> {
        let mut folder = self.folder(real)?;
        let failed = |e| Error::path("readdirent", real, e);
        folder.fresh = names(folder.seen()).map_err(failed)?.is_empty()
            && (folder.seen.is_none() || names(folder.fd.as_fd()).map_err(failed)?.is_empty());
        Ok(folder)
    }

    /// Opens a folder that this copy has put something into, to finish it.
    pub(crate) fn filled(&self, real: &[u8]) -> Result<OwnedFd> {
        let root = self.upper.as_ref().unwrap_or(&self.root);
        root.open_folder(real)
    }
}

/// A mark that something below is gone.
pub(crate) fn is_mark(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

impl TargetFolder {
    fn seen(&self) -> BorrowedFd<'_> {
        self.seen.as_ref().unwrap_or(&self.fd).as_fd()
    }

    /// What is there under a name.
    pub(crate) fn stat(&self, name: &[u8]) -> Result<Option<Stat>> {
        if self.fresh {
            return Ok(None);
        }
        // Put there by this copy, and thus unknown to the mount; or a mark that something is gone.
        if self.seen.is_some()
            && let Ok(stat) = stat_at(self.fd.as_fd(), name)
        {
            return Ok((!is_mark(&stat)).then_some(stat));
        }
        match stat_at(self.seen(), name) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(Error::path("lstat", &join(&self.real, name), e)),
        }
    }

    /// Makes the place of a name free for something new.
    pub(crate) fn clear(&self, name: &[u8], there: Option<&Stat>) -> Result<()> {
        let failed = |e| Error::path("unlinkat", &join(&self.real, name), e);
        if there.is_some_and(|stat| FileType::from_raw_mode(stat.st_mode).is_dir()) {
            remove_at(self.seen(), name).map_err(failed)?;
        }
        if self.fresh {
            return Ok(());
        }
        // Whatever is put into the upper folder hides what is below; what is there must go, and
        // so must a mark.
        match rustix::fs::unlinkat(&self.fd, name, rustix::fs::AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(Errno::ISDIR | Errno::PERM) => remove_at(self.fd.as_fd(), name).map_err(failed),
            Err(e) => Err(failed(e)),
        }
    }

    /// The same for a folder, of which the mount must know.
    pub(crate) fn clear_for_folder(&self, name: &[u8], there: Option<&Stat>) -> Result<()> {
        if there.is_some() {
            let failed = |e| Error::path("unlinkat", &join(&self.real, name), e);
            remove_at(self.seen(), name).map_err(failed)?;
            // What this copy put there, the mount may not know. A mark stays: it hides what is below.
            let left = self.seen.is_some().then(|| stat_at(self.fd.as_fd(), name).ok()).flatten();
            if left.is_some_and(|stat| !is_mark(&stat)) {
                remove_at(self.fd.as_fd(), name).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// Makes a folder in this one, whose place is free.
    pub(crate) fn make_folder(&self, name: &[u8]) -> Result<TargetFolder> {
        let real = join(&self.real, name);
        let failed = |op| {
            let real = &real;
            move |e| Error::path(op, real, e)
        };
        // Where something may be below, the mount knows what must be hidden.
        let through = if self.fresh { self.fd.as_fd() } else { self.seen() };
        match rustix::fs::mkdirat(through, name, Mode::RWXU) {
            Err(Errno::EXIST) if self.seen.is_some() => {
                rustix::fs::mkdirat(&self.fd, name, Mode::RWXU).map_err(failed("mkdir"))?;
            }
            other => other.map_err(failed("mkdir"))?,
        }
        let fd = rustix::fs::openat(&self.fd, name, FOLDER, Mode::empty()).map_err(failed("open"))?;
        Ok(TargetFolder { real, fd, seen: None, fresh: true })
    }
}

/// The folder that a real path is in, and its name there.
pub(crate) fn place<'a>(target: &Target, real: &'a [u8]) -> Result<(TargetFolder, &'a [u8])> {
    let (dir, name) = split(real);
    Ok((target.folder(dir)?, name))
}
