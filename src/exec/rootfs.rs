//! A container's root filesystem, seen from outside: nothing in it can lead out of it.

use std::{
    fs::File,
    io::{self, Read},
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{
        AtFlags, Gid, Mode, OFlags, ResolveFlags, Uid, chownat, mkdirat, open, openat2, readlinkat, statat,
    },
    io::Errno,
};

use crate::{Error, Result, error::file_error};

/// More than any real passwd or group file has, in bytes.
const USER_FILE_LIMIT: u64 = 10 << 20;
/// Symbolic links that are followed in one path, as the kernel does.
const LINK_LIMIT: usize = 40;

/// The root folder; every path is resolved by the kernel with it as `/`.
#[derive(Debug)]
pub(crate) struct Rootfs {
    root: OwnedFd,
}

/// A path's place in the root filesystem.
#[derive(Debug)]
pub(crate) enum Place {
    /// It exists.
    Exists,
    /// It does not, its folder may or may not: the path with the links of its last component followed.
    Missing(String),
}

impl Rootfs {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root =
            open(path, flags, Mode::empty()).map_err(|errno| file_error("opening", path)(errno.into()))?;
        Ok(Self { root })
    }

    /// Opens a path in it.
    pub(crate) fn open_at(&self, path: &str, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let path = if path.trim_matches('/').is_empty() { "." } else { path };
        openat2(&self.root, path, flags | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::IN_ROOT)
    }

    /// Opens the folder that a path's last component is in; gives it with that component. None for the root itself and
    /// for paths that end in a parent folder.
    pub(crate) fn parent<'a>(&self, path: &'a str) -> Option<rustix::io::Result<(OwnedFd, &'a str)>> {
        let path = path.trim_end_matches('/');
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        if name.is_empty() || name == "." || name == ".." {
            return None;
        }
        Some(self.open_at(parent, OFlags::PATH | OFlags::DIRECTORY).map(|folder| (folder, name)))
    }

    /// Text of a regular file of reasonable size; None if there is no such file.
    pub(crate) fn read(&self, path: &str) -> Result<Option<String>> {
        let failed = |doing| move |source| Error::Rootfs { doing, path: path.to_owned(), source };
        // NONBLOCK: a FIFO in its place must not make us wait.
        let file = match self.open_at(path, OFlags::RDONLY | OFlags::NONBLOCK) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Err(errno) => return Err(failed("opening")(errno.into())),
        };
        let about = file.metadata().map_err(failed("reading"))?;
        if !about.is_file() {
            let source = io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file");
            return Err(failed("reading")(source));
        }
        let mut bytes = Vec::new();
        file.take(USER_FILE_LIMIT + 1).read_to_end(&mut bytes).map_err(failed("reading"))?;
        if bytes.len() as u64 > USER_FILE_LIMIT {
            let source =
                io::Error::new(io::ErrorKind::FileTooLarge, format!("it exceeds {USER_FILE_LIMIT} bytes"));
            return Err(failed("reading")(source));
        }
        Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// Whether a path exists, and where it would be if not.
    pub(crate) fn place(&self, path: &str) -> Result<Place> {
        let mut path = path.trim_end_matches('/').to_owned();
        for _ in 0..LINK_LIMIT {
            let failed = |errno: Errno| Error::Rootfs {
                doing: "looking for",
                path: path.clone(),
                source: errno.into(),
            };
            match self.open_at(&path, OFlags::PATH) {
                Ok(_) => return Ok(Place::Exists),
                Err(Errno::NOENT | Errno::NOTDIR) => {}
                Err(errno) => return Err(failed(errno)),
            }
            let target = match self.parent(&path) {
                None => return Ok(Place::Exists),
                Some(Err(_)) => return Ok(Place::Missing(path)),
                Some(Ok((folder, name))) => match readlinkat(&folder, name, Vec::new()) {
                    Ok(target) => target.to_string_lossy().into_owned(),
                    Err(_) => return Ok(Place::Missing(path)),
                },
            };
            // A link that leads nowhere: what would be made is what it names.
            path = match path.rsplit_once('/') {
                Some((parent, _)) if !target.starts_with('/') => format!("{parent}/{target}"),
                _ => target,
            };
        }
        let source = Errno::LOOP.into();
        Err(Error::Rootfs { doing: "looking for", path, source })
    }

    /// Makes a folder and those above it unless they exist; new ones belong to this user and group.
    pub(crate) fn make_folders(&self, path: &str, uid: u32, gid: u32) -> Result<()> {
        if self.open_at(path, OFlags::PATH | OFlags::DIRECTORY).is_ok() {
            return Ok(());
        }
        let mut made = String::new();
        for name in path.split('/').filter(|name| !name.is_empty() && *name != ".") {
            let above = made.clone();
            made.push('/');
            made.push_str(name);
            let failed = |errno: Errno| Error::Rootfs {
                doing: "making folder",
                path: made.clone(),
                source: errno.into(),
            };
            match self.open_at(&made, OFlags::PATH | OFlags::DIRECTORY) {
                Ok(_) => continue,
                Err(Errno::NOENT) if name != ".." => {}
                Err(errno) => return Err(failed(errno)),
            }
            let folder = self.open_at(&above, OFlags::PATH | OFlags::DIRECTORY).map_err(failed)?;
            mkdirat(&folder, name, Mode::from_raw_mode(0o755)).map_err(failed)?;
            let owner = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
            chownat(folder.as_fd(), name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
        }
        Ok(())
    }

    /// What an entry of a folder is, without following it.
    pub(crate) fn stat(folder: &OwnedFd, name: &str) -> rustix::io::Result<rustix::fs::Stat> {
        statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)
    }
}
