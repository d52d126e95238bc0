//! Folders, files, links and removals.

use crate::copy::{Target, time_of};
use crate::root::{Owner, clean, set_owner, split, stat_at, timestamps};
use crate::{Error, Result, wildcards};
use crosskit_api::pb;
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use std::io::Write;
use std::os::fd::AsFd;

/// Makes a folder; one that is there stays as it is.
pub(crate) fn mkdir(action: &pb::FileActionMkDir, target: &Target, owner: Option<Owner>) -> Result<()> {
    let root = &target.root;
    let real = root.resolve(action.path.as_bytes(), true)?;
    let (mode, time) = (action.mode as u32 & 0o777, time_of(action.timestamp));
    if action.make_parents {
        return root.make_folders(&real, mode, owner, time).map(drop);
    }
    match root.make_folder(&real, mode, owner, time) {
        Err(Error::Path { op: "mkdir", errno: Errno::EXIST, .. }) => Ok(()),
        other => other,
    }
}

/// Writes a file. One that is there gets the content and keeps its mode, as a new file: the old
/// one may be another snapshot's as well.
pub(crate) fn mkfile(action: &pb::FileActionMkFile, target: &Target, owner: Option<Owner>) -> Result<()> {
    let root = &target.root;
    let real = root.resolve(action.path.as_bytes(), true)?;
    let failed = |op| {
        let real = &real;
        move |e| Error::path(op, real, e)
    };
    let (dir, name) = root.parent(&real)?;
    let (mut mode, mut owner) = (action.mode as u32 & 0o777, owner);
    match stat_at(dir.as_fd(), name) {
        Ok(there) => {
            if FileType::from_raw_mode(there.st_mode).is_dir() {
                return Err(Error::path("open", &real, Errno::ISDIR));
            }
            mode = there.st_mode & 0o7777;
            owner.get_or_insert(Owner { uid: there.st_uid, gid: there.st_gid });
            rustix::fs::unlinkat(&dir, name, AtFlags::empty()).map_err(failed("open"))?;
        }
        Err(Errno::NOENT) => {}
        Err(e) => return Err(Error::path("open", &real, e)),
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(&dir, name, flags, Mode::RUSR | Mode::WUSR).map_err(failed("open"))?;
    let mut file = std::fs::File::from(file);
    file.write_all(&action.data)
        .map_err(|e| Error::path("write", &real, Errno::from_io_error(&e).unwrap_or(Errno::IO)))?;
    if let Some(owner) = owner {
        set_owner(file.as_fd(), owner).map_err(failed("chown"))?;
    }
    rustix::fs::fchmod(&file, Mode::from_raw_mode(mode)).map_err(failed("chmod"))?;
    match time_of(action.timestamp) {
        Some(time) => rustix::fs::futimens(&file, &timestamps(time)).map_err(failed("utimensat")),
        None => Ok(()),
    }
}

/// Makes a symbolic link.
pub(crate) fn symlink(action: &pb::FileActionSymlink, target: &Target, owner: Option<Owner>) -> Result<()> {
    let root = &target.root;
    let real = root.resolve(action.newpath.as_bytes(), true)?;
    let failed = |op| {
        let real = &real;
        move |e| Error::path(op, real, e)
    };
    let (dir, name) = root.parent(&real)?;
    rustix::fs::symlinkat(action.oldpath.as_str(), &dir, name).map_err(failed("symlink"))?;
    if let Some(owner) = owner {
        let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
        rustix::fs::chownat(&dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(failed("lchown"))?;
    }
    match time_of(action.timestamp) {
        Some(time) => root.set_time(&real, &timestamps(time)),
        None => Ok(()),
    }
}

/// Removes a path, or all that it means with its wildcards.
pub(crate) fn rm(action: &pb::FileActionRm, target: &Target) -> Result<()> {
    if !action.allow_wildcard {
        return remove(action.path.as_bytes(), target, action.allow_not_found);
    }
    for path in wildcards::expand(&target.root, &clean(&action.path), false)? {
        remove(&path, target, action.allow_not_found)?;
    }
    Ok(())
}

fn remove(path: &[u8], target: &Target, allow_not_found: bool) -> Result<()> {
    let root = &target.root;
    // What the path itself names goes, not what it points to.
    let real = root.resolve(path, false)?;
    if split(&real).1.is_empty() {
        return Err(Error::EmptyPath);
    }
    if !allow_not_found {
        // A link without an end counts as not there.
        let end = root.resolve(path, true)?;
        if root.stat(&end)?.is_none() {
            return Err(Error::path("stat", &real, Errno::NOENT));
        }
    }
    root.remove(&real)
}
