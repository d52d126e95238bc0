//! The folder of blobs.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Ingest;
use crate::descriptor::Descriptor;
use crate::digest::{Digest, Digester};
use crate::errors::{Error, Result};

/// A handle to the folder; clones are cheap and share it.
#[derive(Clone, Debug)]
pub struct ContentStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    blobs: PathBuf,
    ingest: PathBuf,
    next: AtomicU64,
}

impl ContentStore {
    /// Opens or makes the store under `root` and removes what an earlier process left half-written.
    pub fn open(root: impl AsRef<Path>) -> Result<Self> {
        let blobs = root.as_ref().join("blobs/sha256");
        let ingest = root.as_ref().join("ingest");
        if ingest.exists() {
            fs::remove_dir_all(&ingest).map_err(|e| Error::io(format!("clear {}", ingest.display()), e))?;
        }
        for dir in [&blobs, &ingest] {
            fs::create_dir_all(dir).map_err(|e| Error::io(format!("create {}", dir.display()), e))?;
        }
        Ok(Self { inner: Arc::new(Inner { blobs, ingest, next: AtomicU64::new(0) }) })
    }

    /// Where a blob is, or would be.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.inner.blobs.join(digest.hex())
    }

    /// Whether a blob is here.
    pub fn contains(&self, digest: &Digest) -> bool {
        self.path(digest).exists()
    }

    /// Whether a blob is here in the size it should have; one that is not is removed.
    pub fn holds(&self, desc: &Descriptor) -> bool {
        match self.size(&desc.digest) {
            Ok(size) if size == desc.size => true,
            Ok(_) => {
                drop(self.delete(&desc.digest));
                false
            }
            Err(_) => false,
        }
    }

    /// A blob's size in bytes.
    pub fn size(&self, digest: &Digest) -> Result<u64> {
        fs::metadata(self.path(digest)).map(|m| m.len()).map_err(|e| missing(digest, e))
    }

    /// A reader of a blob.
    pub fn reader(&self, digest: &Digest) -> Result<BlobReader> {
        let file = File::open(self.path(digest)).map_err(|e| missing(digest, e))?;
        let size = file.metadata().map_err(|e| missing(digest, e))?.len();
        Ok(BlobReader { file, size })
    }

    /// A small blob as a whole, refused beyond `limit` bytes and checked against its digest. A damaged one is removed, so
    /// that it is fetched anew by whoever wants it next.
    pub fn read(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>> {
        let mut reader = self.reader(digest)?;
        if reader.size > limit {
            return Err(Error::TooLarge { what: format!("content {digest}"), limit });
        }
        let mut bytes = Vec::with_capacity(reader.size as usize);
        reader.read_to_end(&mut bytes).map_err(|e| Error::io(format!("read content {digest}"), e))?;
        self.check(digest, &Digest::of(&bytes))?;
        Ok(bytes)
    }

    /// Whether stored content is what it was when it was put there, by the digest of what has been read of it. What is
    /// damaged is removed, so that it is made or fetched anew by whoever wants it next.
    pub fn check(&self, digest: &Digest, actual: &Digest) -> Result<()> {
        if actual == digest {
            return Ok(());
        }
        tracing::warn!(%digest, "stored content was damaged: it was removed and will be made or fetched anew");
        self.delete(digest)?;
        Err(Error::Damaged { digest: *digest })
    }

    /// The same for a blob that has not been read.
    pub fn verify(&self, digest: &Digest) -> Result<()> {
        let mut hasher = Digester::new();
        let failed = |e| Error::io(format!("read content {digest}"), e);
        io::copy(&mut self.reader(digest)?, &mut Hashing { to: io::sink(), hasher: &mut hasher })
            .map_err(failed)?;
        self.check(digest, &hasher.finish())
    }

    /// Gives a blob to `to`, from its beginning to its end, and checks it on the way: what was given is worth nothing if
    /// this fails.
    pub fn copy_to<T>(
        &self,
        desc: &Descriptor,
        to: impl FnOnce(&mut dyn Read) -> io::Result<T>,
    ) -> Result<T> {
        let reader = self.reader(&desc.digest)?;
        if reader.size() != desc.size {
            let (what, actual) = (format!("content {}", desc.digest), reader.size());
            return Err(Error::SizeMismatch { what, expected: desc.size, actual });
        }
        let mut hasher = Digester::new();
        let given = to(&mut Hashing { to: reader, hasher: &mut hasher })
            .map_err(|e| Error::io(format!("copy content {}", desc.digest), e))?;
        self.check(&desc.digest, &hasher.finish())?;
        Ok(given)
    }

    /// Begins a blob.
    pub fn ingest(&self) -> Result<Ingest> {
        self.begin(true)
    }

    /// Begins a blob whose writer hashes its bytes itself and will say the digest at [`Ingest::commit_expecting`].
    pub fn ingest_hashed_elsewhere(&self) -> Result<Ingest> {
        self.begin(false)
    }

    fn begin(&self, hashing: bool) -> Result<Ingest> {
        let number = self.inner.next.fetch_add(1, Ordering::Relaxed);
        let path = self.inner.ingest.join(format!("{}-{number}", std::process::id()));
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(|e| Error::io(format!("create {}", path.display()), e))?;
        Ok(Ingest::new(self.clone(), file, path, hashing))
    }

    /// Stores bytes.
    pub fn put(&self, bytes: &[u8]) -> Result<Digest> {
        let digest = Digest::of(bytes);
        if self.size(&digest).is_ok_and(|size| size == bytes.len() as u64) {
            return Ok(digest);
        }
        let mut ingest = self.ingest_hashed_elsewhere()?;
        ingest.write_all(bytes).map_err(|e| Error::io(format!("write content {digest}"), e))?;
        ingest.commit_expecting(&digest, None)?;
        Ok(digest)
    }

    /// Stores bytes of a type and describes them.
    pub fn put_as(&self, media_type: &str, bytes: &[u8]) -> Result<Descriptor> {
        Ok(Descriptor::new(media_type, self.put(bytes)?, bytes.len() as u64))
    }

    /// Removes a blob; one that is not there is no error. Whoever reads it keeps reading.
    pub fn delete(&self, digest: &Digest) -> Result<()> {
        match fs::remove_file(self.path(digest)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(Error::io(format!("delete content {digest}"), e))
            }
            _ => Ok(()),
        }
    }

    /// All blobs with their sizes, in no order.
    pub fn list(&self) -> Result<Vec<(Digest, u64)>> {
        let failed = |e| Error::io(format!("list {}", self.inner.blobs.display()), e);
        let mut all = Vec::new();
        for entry in fs::read_dir(&self.inner.blobs).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if let Some(digest) = entry.file_name().to_str().and_then(|name| Digest::from_hex(name).ok()) {
                match entry.metadata() {
                    Ok(meta) => all.push((digest, meta.len())),
                    // Deleted meanwhile.
                    Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                    Err(e) => return Err(failed(e)),
                }
            }
        }
        Ok(all)
    }

    /// [`Self::read`] off the runtime's threads.
    pub async fn read_async(&self, digest: Digest, limit: u64) -> Result<Vec<u8>> {
        self.off_runtime(move |store| store.read(&digest, limit)).await
    }

    /// [`Self::put`] off the runtime's threads.
    pub async fn put_async(&self, bytes: Vec<u8>) -> Result<Digest> {
        self.off_runtime(move |store| store.put(&bytes)).await
    }

    /// Runs blocking work with the store off the runtime's threads.
    pub async fn off_runtime<T: Send + 'static>(
        &self,
        work: impl FnOnce(Self) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let store = self.clone();
        tokio::task::spawn_blocking(move || work(store))
            .await
            .unwrap_or_else(|e| Err(Error::io("work on stored content", io::Error::other(e))))
    }
}

/// Hashes what goes through it.
struct Hashing<'a, T> {
    to: T,
    hasher: &'a mut Digester,
}

impl<T: Write> Write for Hashing<'_, T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = self.to.write(bytes)?;
        self.hasher.update(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

impl<T: Read> Read for Hashing<'_, T> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let got = self.to.read(out)?;
        self.hasher.update(&out[..got]);
        Ok(got)
    }
}

fn missing(digest: &Digest, source: io::Error) -> Error {
    if source.kind() == io::ErrorKind::NotFound {
        Error::MissingBlob { digest: *digest }
    } else {
        Error::io(format!("open content {digest}"), source)
    }
}

/// Reads a blob from its beginning, or anywhere.
#[derive(Debug)]
pub struct BlobReader {
    file: File,
    size: u64,
}

impl BlobReader {
    /// The blob's size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Fills a buffer from an offset, as far as there are bytes.
    pub fn read_at(&self, mut out: &mut [u8], mut offset: u64) -> io::Result<usize> {
        let wanted = out.len();
        while !out.is_empty() {
            match self.file.read_at(out, offset) {
                Ok(0) => break,
                Ok(got) => {
                    out = &mut out[got..];
                    offset += got as u64;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(wanted - out.len())
    }

    /// The file itself.
    pub fn into_file(self) -> File {
        self.file
    }
}

impl Read for BlobReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.file.read(out)
    }
}
