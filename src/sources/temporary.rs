//! Folders that go with what needs them.

use crate::SourceError;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// How often a folder is emptied again in which a program that is just being ended still writes.
const ATTEMPTS: usize = 100;

/// A folder that goes with its handle. Nobody else may look into it.
pub(crate) struct Temporary(pub(crate) PathBuf);

impl Temporary {
    /// A new one in `scratch`. What it is for begins its name.
    pub(crate) fn new(scratch: &Path, purpose: &str) -> Result<Self, SourceError> {
        let path = scratch.join(format!("{purpose}-{:016x}", rand::random::<u64>()));
        let made = std::fs::DirBuilder::new().mode(0o700).create(&path);
        made.map_err(SourceError::io(format!("make {}", path.display())))?;
        Ok(Self(path))
    }

    /// As git names it.
    pub(crate) fn url(&self) -> String {
        format!("file://{}", self.0.display())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let path = std::mem::take(&mut self.0);
        // It may be large, and this may be a thread of the runtime.
        std::thread::spawn(move || {
            for _ in 0..ATTEMPTS {
                match std::fs::remove_dir_all(&path) {
                    Err(err) if err.kind() == ErrorKind::DirectoryNotEmpty => std::thread::yield_now(),
                    Ok(()) => return,
                    Err(err) => {
                        tracing::warn!(path = %path.display(), error = %err, "a temporary folder stays");
                        return;
                    }
                }
            }
        });
    }
}
