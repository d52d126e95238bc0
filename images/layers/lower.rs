//! What lies below a layer: the tree its changes are changes to.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags, open, openat2};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string,
    fsmount, fsopen,
};

use super::errors::LayerError;
use super::names::shown;

/// The layers below, seen as one tree: nothing, one folder, or a read-only overlay of several that is mounted
/// nowhere and gone when this value is.
#[derive(Debug)]
pub struct LowerView {
    root: Option<OwnedFd>,
}

impl LowerView {
    /// A tree without anything.
    pub const fn empty() -> Self {
        Self { root: None }
    }

    /// A tree that is already there, mounted or plain.
    pub fn of_tree(root: OwnedFd) -> Self {
        Self { root: Some(root) }
    }

    /// The tree of some overlay layers, topmost first.
    pub fn open(layers: &[impl AsRef<Path>]) -> Result<Self, LayerError> {
        let root = match layers {
            [] => None,
            [one] => Some(open_dir(one.as_ref())?),
            several => Some(mount(several)?),
        };
        Ok(Self { root })
    }

    /// The tree's root, if it has anything.
    pub fn root(&self) -> Option<BorrowedFd<'_>> {
        self.root.as_ref().map(AsFd::as_fd)
    }

    /// Opens a path without following any link; none if it is not there.
    pub(super) fn open_at(&self, path: &[u8], flags: OFlags) -> rustix::io::Result<Option<OwnedFd>> {
        let Some(root) = &self.root else { return Ok(None) };
        let path = if path.is_empty() { b"." } else { path };
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
        match openat2(root, path, flags | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty(), resolve) {
            Ok(file) => Ok(Some(file)),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Opens a folder by a path of this program's own.
pub(super) fn open_dir(path: &Path) -> Result<OwnedFd, LayerError> {
    open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| LayerError::io("open layer folder", path.as_os_str().as_encoded_bytes(), e))
}

fn mount(layers: &[impl AsRef<Path>]) -> Result<OwnedFd, LayerError> {
    let all = || shown(layers[0].as_ref().as_os_str().as_encoded_bytes());
    let failed = |doing| move |e: Errno| LayerError::Io { doing, path: all(), source: e.into() };
    let overlay =
        fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).map_err(failed("open overlay of the layers below"))?;
    fsconfig_set_string(overlay.as_fd(), "source", "crosskit")
        .map_err(failed("name overlay of the layers below"))?;
    for layer in layers {
        let path = layer.as_ref();
        match fsconfig_set_string(overlay.as_fd(), "lowerdir+", path) {
            Ok(()) => {}
            // Kernels before 6.5 take only the whole list, in which colons and backslashes need a backslash.
            Err(Errno::INVAL) if path.as_os_str() == layers[0].as_ref().as_os_str() => {
                let list: Vec<String> = layers
                    .iter()
                    .map(|l| l.as_ref().to_string_lossy().replace('\\', "\\\\").replace(':', "\\:"))
                    .collect();
                fsconfig_set_string(overlay.as_fd(), "lowerdir", list.join(":").as_str())
                    .map_err(failed("overlay the layers below"))?;
                break;
            }
            Err(e) => return Err(failed("overlay the layers below")(e)),
        }
    }
    fsconfig_set_flag(overlay.as_fd(), "ro").map_err(failed("overlay the layers below"))?;
    fsconfig_create(overlay.as_fd()).map_err(failed("overlay the layers below"))?;
    let mounted = fsmount(overlay.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_RDONLY)
        .map_err(failed("mount the layers below"))?;
    // A descriptor for reading: the mount's own is a path only, which cannot be listed.
    rustix::fs::openat(&mounted, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(failed("open the layers below"))
}
