//! A packed stream read ahead.

use std::io::{self, BufRead, BufReader, Read};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use super::chunks::{CHUNK, Chunk, ChunkReader, WAITING, recycle};
use crate::digest::{Digest, Digester};
use crate::media_types::LayerPacking;

/// How a stream is packed, by its first four bytes.
pub fn detect(first: &[u8]) -> LayerPacking {
    match first {
        [0x1f, 0x8b, 8, ..] => LayerPacking::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => LayerPacking::Zstd,
        // A skippable frame: zstd:chunked and seekable streams may begin with one.
        [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => LayerPacking::Zstd,
        _ => LayerPacking::Plain,
    }
}

/// Reads a packed stream: one thread unpacks, one hashes, the reader applies.
pub struct LayerReader {
    chunks: ChunkReader,
    hasher: JoinHandle<(Digest, u64)>,
}

impl LayerReader {
    /// Begins to unpack a stream, whichever of gzip, zstd and plain it is.
    pub fn new(input: impl Read + Send + 'static) -> io::Result<Self> {
        let (to_reader, from_unpacker) = sync_channel(WAITING);
        let (to_hasher, to_hash) = sync_channel::<Chunk>(WAITING);
        let (used, buffers) = sync_channel(2 * WAITING);
        let hashed = used.clone();
        thread::Builder::new().name("unpack".into()).spawn(move || {
            if let Err(error) = unpack(input, &to_reader, &to_hasher, &buffers) {
                drop(to_reader.send(Err(error)));
            }
        })?;
        let hasher = thread::Builder::new().name("hash".into()).spawn(move || {
            let (mut hasher, mut size) = (Digester::new(), 0);
            for chunk in to_hash {
                hasher.update(&*chunk);
                size += chunk.len() as u64;
                recycle(chunk, &hashed);
            }
            (hasher.finish(), size)
        })?;
        Ok(Self { chunks: ChunkReader::new(from_unpacker, used), hasher })
    }

    /// Reads to the end of the stream and returns the digest and size of everything in it.
    pub fn finish(mut self) -> io::Result<(Digest, u64)> {
        loop {
            let len = self.chunks.fill_buf()?.len();
            if len == 0 {
                break;
            }
            self.chunks.consume(len);
        }
        drop(self.chunks);
        self.hasher.join().map_err(|_| io::Error::other("the thread that hashes a layer panicked"))
    }
}

impl Read for LayerReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.chunks.read(out)
    }
}

impl BufRead for LayerReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.chunks.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        self.chunks.consume(amount);
    }
}

fn unpack(
    input: impl Read,
    to_reader: &SyncSender<io::Result<Chunk>>,
    to_hasher: &SyncSender<Chunk>,
    buffers: &Receiver<Vec<u8>>,
) -> io::Result<()> {
    let mut input = BufReader::with_capacity(CHUNK, input);
    let mut first = [0; 4];
    let mut have = 0;
    while have < 4 {
        match input.read(&mut first[have..])? {
            0 => break,
            got => have += got,
        }
    }
    let begin = io::Cursor::new(first[..have].to_vec());
    let whole = begin.chain(input);
    match detect(&first[..have]) {
        LayerPacking::Gzip | LayerPacking::Estargz => {
            hand_on(flate2::bufread::MultiGzDecoder::new(whole), to_reader, to_hasher, buffers)
        }
        LayerPacking::Zstd => hand_on(zstd::Decoder::with_buffer(whole)?, to_reader, to_hasher, buffers),
        LayerPacking::Plain => hand_on(whole, to_reader, to_hasher, buffers),
    }
}

fn hand_on(
    mut from: impl Read,
    to_reader: &SyncSender<io::Result<Chunk>>,
    to_hasher: &SyncSender<Chunk>,
    buffers: &Receiver<Vec<u8>>,
) -> io::Result<()> {
    loop {
        let mut chunk = buffers.try_recv().unwrap_or_default();
        chunk.resize(CHUNK, 0);
        let mut have = 0;
        while have < CHUNK {
            match from.read(&mut chunk[have..]) {
                Ok(0) => break,
                Ok(got) => have += got,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        if have == 0 {
            return Ok(());
        }
        chunk.truncate(have);
        let chunk = Arc::new(chunk);
        // Either end may have gone: the reader has seen enough, or failed.
        if to_hasher.send(chunk.clone()).is_err() || to_reader.send(Ok(chunk)).is_err() {
            return Ok(());
        }
    }
}
