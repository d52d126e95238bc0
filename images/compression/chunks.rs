//! Bytes handed from one thread to the next.

use std::io::{self, BufRead, Read, Write};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender};

/// Bytes that travel together: large enough that handing over costs nothing, small enough for a core's cache.
pub(super) const CHUNK: usize = 256 << 10;
/// Chunks that wait between two threads, so that neither waits for the other at each one: 1 MiB.
pub(super) const WAITING: usize = 4;

/// A chunk that several threads read.
pub(super) type Chunk = Arc<Vec<u8>>;

/// Collects bytes into chunks of an exact size and hands each on.
pub(super) struct ChunkWriter<F> {
    chunk: Vec<u8>,
    size: usize,
    give: F,
}

impl<F: FnMut(Vec<u8>) -> io::Result<()>> ChunkWriter<F> {
    pub(super) fn new(size: usize, give: F) -> Self {
        Self { chunk: Vec::with_capacity(size), size, give }
    }

    /// What is left, shorter than a chunk.
    pub(super) fn finish(self) -> Vec<u8> {
        self.chunk
    }
}

impl<F: FnMut(Vec<u8>) -> io::Result<()>> Write for ChunkWriter<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(self.size - self.chunk.len());
        self.chunk.extend_from_slice(&bytes[..taken]);
        if self.chunk.len() == self.size {
            (self.give)(std::mem::replace(&mut self.chunk, Vec::with_capacity(self.size)))?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads chunks that another thread makes.
pub(super) struct ChunkReader {
    chunks: Receiver<io::Result<Chunk>>,
    used: SyncSender<Vec<u8>>,
    now: Chunk,
    at: usize,
    ended: bool,
}

impl ChunkReader {
    /// Buffers that nobody reads any more go to `used`.
    pub(super) fn new(chunks: Receiver<io::Result<Chunk>>, used: SyncSender<Vec<u8>>) -> Self {
        Self { chunks, used, now: Arc::default(), at: 0, ended: false }
    }
}

impl BufRead for ChunkReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.at == self.now.len() && !self.ended {
            match self.chunks.recv() {
                Ok(chunk) => {
                    recycle(std::mem::replace(&mut self.now, chunk?), &self.used);
                    self.at = 0;
                }
                Err(_) => self.ended = true,
            }
        }
        Ok(&self.now[self.at..])
    }

    fn consume(&mut self, amount: usize) {
        self.at += amount;
    }
}

impl Read for ChunkReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let bytes = self.fill_buf()?;
        let len = bytes.len().min(out.len());
        out[..len].copy_from_slice(&bytes[..len]);
        self.consume(len);
        Ok(len)
    }
}

/// Gives a chunk's buffer back to whoever fills them, if nobody else reads it.
pub(super) fn recycle(chunk: Chunk, used: &SyncSender<Vec<u8>>) {
    if let Ok(buffer) = Arc::try_unwrap(chunk)
        && buffer.capacity() > 0
    {
        // Too many, or nobody left to fill it: it is freed.
        drop(used.try_send(buffer));
    }
}

/// Hands a chunk to a thread that may have ended; its own error says why.
pub(super) fn give<T>(to: &SyncSender<T>, chunk: T) -> io::Result<()> {
    to.send(chunk).map_err(|_| io::ErrorKind::BrokenPipe.into())
}
