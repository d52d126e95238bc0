//! One file as it is elsewhere.

use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Uid, chownat, fchmod, fchown, futimens, mknodat, openat,
    readlinkat, symlinkat, utimensat,
};
use rustix::io::Errno;

use super::apply::stamps;
use super::errors::LayerError;
use super::same::Place;
use super::stat::Meta;
use super::xattrs::{self, XattrFilter};

/// Copies what is no folder, with owner, mode, time and attributes, to the last part of `path` in folder `to`.
pub(super) fn copy_file(
    from: Place<'_>,
    meta: &Meta,
    to: BorrowedFd<'_>,
    path: &[u8],
) -> Result<(), LayerError> {
    let failed = |doing| move |e: Errno| LayerError::io(doing, path, e);
    let base = super::names::split(path).1;
    let attributes =
        xattrs::read_at(from.dir, from.base, XattrFilter::All).map_err(failed("read attributes of"))?;
    let attributes = attributes.iter().map(|(k, v)| (&k[..], &v[..]));
    let owner = (Some(Uid::from_raw(meta.0.st_uid)), Some(Gid::from_raw(meta.0.st_gid)));
    let mode = Mode::from_raw_mode(meta.mode());
    match meta.file_type() {
        FileType::RegularFile => {
            let read = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let from = openat(from.dir, from.base, read, Mode::empty()).map_err(failed("open"))?;
            let write = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let to = openat(to, base, write, Mode::from_raw_mode(0o600)).map_err(failed("copy"))?;
            let mut to = File::from(to);
            io::copy(&mut File::from(from), &mut to).map_err(|e| LayerError::io("copy", path, e))?;
            fchown(&to, owner.0, owner.1).map_err(failed("set owner of"))?;
            xattrs::apply(attributes, |k, v| xattrs::set(&to, k, v)).map_err(failed("set attributes of"))?;
            fchmod(&to, mode).map_err(failed("set mode of"))?;
            futimens(&to, &stamps(meta.mtime())).map_err(failed("set time of"))
        }
        kind => {
            if kind == FileType::Symlink {
                let target = readlinkat(from.dir, from.base, Vec::new()).map_err(failed("read link"))?;
                symlinkat(target, to, base).map_err(failed("copy"))?;
            } else {
                mknodat(to, base, kind, mode, meta.0.st_rdev).map_err(failed("copy"))?;
                // The umask has no say in it.
                rustix::fs::chmodat(to, base, mode, AtFlags::empty()).map_err(failed("set mode of"))?;
            }
            chownat(to, base, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW).map_err(failed("set owner of"))?;
            xattrs::apply(attributes, |k, v| xattrs::set_at(to, base, k, v))
                .map_err(failed("set attributes of"))?;
            utimensat(to, base, &stamps(meta.mtime()), AtFlags::SYMLINK_NOFOLLOW)
                .map_err(failed("set time of"))
        }
    }
}
