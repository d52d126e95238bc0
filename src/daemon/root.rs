//! The root folder: where state is kept, and the lock that keeps a second daemon out.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Why a root folder can't be used.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// It can't be made or opened.
    #[error("root folder {}: {source}", path.display())]
    Unusable {
        /// The folder, or the file in it.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another daemon has it.
    #[error(
        "could not lock {}, another instance running? Stop that one, or give this one a folder of its own (--root)",
        path.display()
    )]
    InUse {
        /// The lock file.
        path: PathBuf,
    },
}

/// A locked root folder; the lock goes with this value, or with the process.
#[derive(Debug)]
pub struct Root {
    path: PathBuf,
    _lock: File,
}

impl Root {
    /// Makes the folder where it isn't there, and locks it.
    ///
    /// # Errors
    /// A folder that can't be made, and one that another daemon uses.
    pub fn open(path: &Path) -> Result<Self, RootError> {
        let unusable = |path: &Path| {
            let path = path.to_path_buf();
            move |source| RootError::Unusable { path, source }
        };
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(unusable(path))?;
        let file = path.join("buildkitd.lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&file)
            .map_err(unusable(&file))?;
        match lock.try_lock() {
            Ok(()) => Ok(Root { path: path.to_path_buf(), _lock: lock }),
            Err(std::fs::TryLockError::WouldBlock) => Err(RootError::InUse { path: file }),
            Err(std::fs::TryLockError::Error(source)) => Err(RootError::Unusable { path: file, source }),
        }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_daemon_is_kept_out_until_the_first_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        let first = Root::open(&path).unwrap();
        let refused = Root::open(&path).unwrap_err().to_string();
        let what = format!("could not lock {}/buildkitd.lock, another instance running?", path.display());
        assert!(refused.starts_with(&what) && refused.contains("--root"), "{refused}");
        drop(first);
        Root::open(&path).unwrap();
    }
}
