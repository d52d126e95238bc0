//! A part of a mounted tree under a name of its own. The part is found once, within the tree,
//! and mounted by its descriptor: whoever changes the tree meanwhile, a neighbour that shares a
//! cache mount say, cannot make the name mean something else.

use crosskit_solver::{ErrorKind, OpError};
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, openat2};
use rustix::mount::{MountFlags, UnmountFlags};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

/// A part of a tree, mounted until this is dropped.
pub struct Pinned {
    path: PathBuf,
    is_dir: bool,
}

impl Pinned {
    /// Mounts what is at `selector` in `root` at `at`, which must not exist.
    ///
    /// # Errors
    /// A path that isn't there, and a machine that can't mount.
    pub fn new(root: &Path, selector: &str, at: PathBuf) -> Result<Self, OpError> {
        let failed = |doing: String, e: rustix::io::Errno| {
            let kind = if e == rustix::io::Errno::NOENT { ErrorKind::User } else { ErrorKind::Environment };
            OpError::new(kind, format!("{doing}: {e}"))
        };
        let dir = rustix::fs::open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|e| failed(format!("opening {}", root.display()), e))?;
        let inner = selector.trim_start_matches('/');
        let inner = if inner.is_empty() { "." } else { inner };
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let found = openat2(&dir, inner, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve)
            .map_err(|e| failed(format!("mounting {selector:?} of an input"), e))?;
        let kind = rustix::fs::fstat(&found).map_err(|e| failed(format!("looking at {selector:?}"), e))?;
        let is_dir = FileType::from_raw_mode(kind.st_mode) == FileType::Directory;
        let io =
            |e: std::io::Error| OpError::new(ErrorKind::Environment, format!("making {}: {e}", at.display()));
        match is_dir {
            true => std::fs::create_dir(&at).map_err(io)?,
            false => drop(std::fs::File::create_new(&at).map_err(io)?),
        }
        let pinned = Pinned { path: at, is_dir };
        let source = format!("/proc/self/fd/{}", found.as_raw_fd());
        rustix::mount::mount(source, &pinned.path, "", MountFlags::BIND | MountFlags::REC, None)
            .map_err(|e| failed(format!("mounting {selector:?} of an input"), e))?;
        Ok(pinned)
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // Not mounted at all if making it failed half-way.
        let _ = rustix::mount::unmount(&self.path, UnmountFlags::DETACH);
        let removed =
            if self.is_dir { std::fs::remove_dir(&self.path) } else { std::fs::remove_file(&self.path) };
        if let Err(e) = removed {
            tracing::warn!("removing {}: {e}", self.path.display());
        }
    }
}

#[cfg(test)]
#[path = "pinned_tests.rs"]
mod tests;
