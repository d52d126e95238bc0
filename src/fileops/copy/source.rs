//! Where files come from.

use crate::Result;
use crate::root::{FOLDER, Root};
use crosskit_snapshots::Mounted;
use rustix::fs::Mode;
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A snapshot's tree and the folders that it is made of.
pub(crate) struct Source {
    pub(crate) root: Root,
    /// Top first. Empty if files may still change, and so must not be shared.
    layers: Vec<Root>,
}

/// A folder of it.
pub(crate) struct SourceFolder {
    pub(crate) fd: OwnedFd,
    /// The same folder in each layer that shows something of it, top first.
    layers: Vec<OwnedFd>,
    /// The tree is one layer, and not a mount.
    plain: bool,
}

impl Source {
    pub(crate) fn open(mounted: &Mounted) -> Result<Source> {
        let root = Root::open(mounted.path())?;
        let layers = match mounted.upper() {
            Some(_) => Vec::new(),
            None => mounted.layers().iter().map(|layer| Root::open(layer)).collect::<Result<_>>()?,
        };
        Ok(Source { root, layers })
    }

    /// A plain folder, whose files are not shared.
    pub(crate) fn at(path: &std::path::Path) -> Result<Source> {
        Ok(Source { root: Root::open(path)?, layers: Vec::new() })
    }

    pub(crate) fn folder(&self, real: &[u8]) -> Result<SourceFolder> {
        let fd = self.root.open_folder(real)?;
        let plain = self.layers.len() == 1;
        let mut layers = Vec::new();
        if !plain {
            for layer in &self.layers {
                match layer.open_raw(real, FOLDER) {
                    Ok(fd) => {
                        let opaque = is_opaque(fd.as_fd());
                        layers.push(fd);
                        if opaque {
                            break;
                        }
                    }
                    // Not in this layer; those below may show it.
                    Err(Errno::NOENT) => {}
                    // Something else hides what is below; or it is too odd to reason about.
                    Err(_) => break,
                }
            }
        }
        Ok(SourceFolder { fd, layers, plain })
    }
}

impl SourceFolder {
    /// Gives a file of this folder a further name. False if that cannot be done here.
    pub(crate) fn link(&self, name: &[u8], to: BorrowedFd<'_>, as_name: &[u8]) -> rustix::io::Result<bool> {
        let link = |from: BorrowedFd<'_>| {
            rustix::fs::linkat(from, name, to, as_name, rustix::fs::AtFlags::empty()).map(|()| true)
        };
        if self.plain {
            return give_up_quietly(link(self.fd.as_fd()));
        }
        for layer in &self.layers {
            match link(layer.as_fd()) {
                Err(Errno::NOENT) => {}
                other => return give_up_quietly(other),
            }
        }
        Ok(false)
    }

    pub(crate) fn open(&self, name: &[u8]) -> rustix::io::Result<OwnedFd> {
        use rustix::fs::OFlags;
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        match rustix::fs::openat(&self.fd, name, flags | OFlags::NOATIME, Mode::empty()) {
            Err(Errno::PERM) => rustix::fs::openat(&self.fd, name, flags, Mode::empty()),
            other => other,
        }
    }
}

/// Another filesystem, too many names, or a filesystem without links: a copy does it.
fn give_up_quietly(outcome: rustix::io::Result<bool>) -> rustix::io::Result<bool> {
    match outcome {
        Err(Errno::XDEV | Errno::MLINK | Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS) => Ok(false),
        other => other,
    }
}

/// Whether a folder of a layer hides those below.
fn is_opaque(folder: BorrowedFd<'_>) -> bool {
    let mut value = [0; 4];
    ["trusted.overlay.opaque", "user.overlay.opaque"]
        .iter()
        .any(|name| rustix::fs::fgetxattr(folder, *name, &mut value[..]).is_ok_and(|n| value[..n] == *b"y"))
}
