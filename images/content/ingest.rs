//! A blob being written.

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;

use super::ContentStore;
use crate::digest::{Digest, Digester};
use crate::errors::{Error, Result};

/// Takes a blob's bytes, hashes them on the way, and gives the blob its name at the end. Dropped without
/// [`Ingest::commit`] it leaves nothing behind.
pub struct Ingest {
    store: ContentStore,
    file: Option<File>,
    path: PathBuf,
    hasher: Option<Digester>,
    size: u64,
}

impl Ingest {
    pub(super) fn new(store: ContentStore, file: File, path: PathBuf, hashing: bool) -> Self {
        let hasher = hashing.then(Digester::new);
        Self { store, file: Some(file), path, hasher, size: 0 }
    }

    /// Bytes written so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Forgets what was written: the sender starts again.
    pub fn restart(&mut self) -> Result<()> {
        let file = self.file.as_mut().ok_or_else(|| Error::io("restart blob", io::ErrorKind::BrokenPipe))?;
        io::Seek::rewind(file)
            .and_then(|()| file.set_len(0))
            .map_err(|e| Error::io("truncate a partial blob", e))?;
        if self.hasher.is_some() {
            self.hasher = Some(Digester::new());
        }
        self.size = 0;
        Ok(())
    }

    /// Ends the blob under the digest its bytes have.
    pub fn commit(self) -> Result<(Digest, u64)> {
        self.finish(None)
    }

    /// Ends the blob if its bytes have this digest and number.
    pub fn commit_expecting(self, digest: &Digest, size: Option<u64>) -> Result<()> {
        if let Some(expected) = size
            && expected != self.size
        {
            return Err(Error::SizeMismatch { what: format!("blob {digest}"), expected, actual: self.size });
        }
        self.finish(Some(*digest)).map(drop)
    }

    fn finish(mut self, expected: Option<Digest>) -> Result<(Digest, u64)> {
        let actual = self.hasher.take().map(Digester::finish);
        let digest = match (expected, actual) {
            (Some(expected), Some(actual)) if expected != actual => {
                return Err(Error::DigestMismatch {
                    what: format!("blob of {} bytes", self.size),
                    expected,
                    actual,
                });
            }
            // Without a hasher the caller hashed and vouches for the digest.
            (Some(digest), _) | (None, Some(digest)) => digest,
            (None, None) => return Err(Error::invalid("ingest", "neither hashed nor given a digest")),
        };
        drop(self.file.take());
        let target = self.store.path(&digest);
        std::fs::rename(&self.path, &target).map_err(|e| Error::io(format!("store blob {digest}"), e))?;
        self.path = PathBuf::new();
        Ok((digest, self.size))
    }
}

impl Write for Ingest {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let file = self.file.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        let written = file.write(bytes)?;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&bytes[..written]);
        }
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        if !self.path.as_os_str().is_empty() {
            drop(std::fs::remove_file(&self.path));
        }
    }
}
