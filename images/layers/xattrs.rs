//! Extended attributes: which travel with a layer, and how they are read and set.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::fs::XattrFlags;
use rustix::io::Errno;

/// Largest attribute the kernel keeps, `XATTR_SIZE_MAX` in linux/limits.h.
const MAX_VALUE: usize = 64 << 10;
/// Largest list of names, `XATTR_LIST_MAX`.
const MAX_LIST: usize = 64 << 10;

/// Which attributes go into a layer made here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum XattrFilter {
    /// `security.capability` only: what containerd's differ, and so BuildKit, writes.
    Capability,
    /// That, and all others that mean something on another machine (`user.*`), so that what a build step sets is
    /// still there after a push and a pull. Files without such attributes come out the same either way.
    #[default]
    All,
}

/// Whether an attribute says something about this machine or mount only, and must come from no archive.
pub(super) fn is_local(name: &[u8]) -> bool {
    name.starts_with(b"trusted.")
        || name.starts_with(b"user.overlay.")
        || name.starts_with(b"system.")
        || matches!(name, b"security.selinux" | b"security.ima" | b"security.evm" | b"security.apparmor")
}

/// Whether an attribute out of a foreign archive is set: everything but what steers overlayfs or needs the host's trust.
pub(super) fn may_apply(name: &[u8]) -> bool {
    !name.starts_with(b"trusted.") && !name.starts_with(b"user.overlay.")
}

/// A path that names an entry of an open folder without resolving anything else.
pub(super) fn path_of(dir: BorrowedFd<'_>, name: &[u8]) -> Vec<u8> {
    let mut path = format!("/proc/self/fd/{}/", dir.as_raw_fd()).into_bytes();
    path.extend_from_slice(name);
    path
}

/// Sets attributes through `set`; those the filesystem or the kind of file cannot have are left out.
pub(super) fn apply<'a>(
    attributes: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    set: impl Fn(&[u8], &[u8]) -> rustix::io::Result<()>,
) -> rustix::io::Result<()> {
    for (name, value) in attributes.filter(|(name, _)| may_apply(name)) {
        match set(name, value) {
            Err(Errno::OPNOTSUPP) => tracing::debug!(
                "attribute {} left out: the filesystem has none",
                String::from_utf8_lossy(name)
            ),
            // Only files and folders can have attributes of users.
            Err(Errno::PERM) if name.starts_with(b"user.") => {}
            other => other?,
        }
    }
    Ok(())
}

/// Sets an attribute of an open file.
pub(super) fn set(file: impl AsFd, name: &[u8], value: &[u8]) -> rustix::io::Result<()> {
    rustix::fs::fsetxattr(file, name, value, XattrFlags::empty())
}

/// Sets an attribute of whatever a folder has by that name, a link itself included.
pub(super) fn set_at(dir: BorrowedFd<'_>, base: &[u8], name: &[u8], value: &[u8]) -> rustix::io::Result<()> {
    rustix::fs::lsetxattr(path_of(dir, base), name, value, XattrFlags::empty())
}

/// Reads one attribute; none if it is not there or cannot be.
pub(super) fn get_at(dir: BorrowedFd<'_>, base: &[u8], name: &[u8]) -> rustix::io::Result<Option<Vec<u8>>> {
    let mut value = [0_u8; 256];
    match rustix::fs::lgetxattr(path_of(dir, base), name, &mut value[..]) {
        Ok(size) => Ok(Some(value[..size].to_vec())),
        Err(Errno::RANGE) => {
            let mut value = vec![0; MAX_VALUE];
            let size = rustix::fs::lgetxattr(path_of(dir, base), name, &mut value[..])?;
            value.truncate(size);
            Ok(Some(value))
        }
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The attributes that a filter lets into a layer.
pub(super) fn read_at(
    dir: BorrowedFd<'_>,
    base: &[u8],
    filter: XattrFilter,
) -> rustix::io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    const CAPABILITY: &[u8] = b"security.capability";
    let path = path_of(dir, base);
    let mut few = [0_u8; 256];
    let list = match rustix::fs::llistxattr(&path, &mut few[..]) {
        Ok(0) | Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Ok(size) => few[..size].to_vec(),
        Err(Errno::RANGE) => {
            let mut many = vec![0; MAX_LIST];
            let size = rustix::fs::llistxattr(&path, &mut many[..])?;
            many.truncate(size);
            many
        }
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for name in list.split(|b| *b == 0).filter(|name| !name.is_empty()) {
        let wanted = match filter {
            XattrFilter::Capability => name == CAPABILITY,
            XattrFilter::All => !is_local(name),
        };
        if wanted && let Some(value) = get_at(dir, base, name)? {
            found.push((name.to_vec(), value));
        }
    }
    Ok(found)
}
