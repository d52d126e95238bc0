//! A stream packed while it is made.

use std::io::{self, Write};
use std::num::NonZero;
use std::sync::mpsc::sync_channel;
use std::thread;

use super::chunks::{CHUNK, ChunkWriter, WAITING, give};
use super::estargz::pack_estargz;
use super::gzip::{PIECE, ParallelGzip};
use crate::digest::{Digest, Digester};
use crate::errors::{Error, Result};
use crate::media_types::LayerPacking;

/// Bytes that one of zstd's threads takes at once. Its own choice at level 3, 8 MiB, needs 60 MB of memory on two cores.
const ZSTD_JOB: u32 = 2 << 20;

/// gzip's level if nobody says: a fifth faster than 6, for layers that are 0.2 % larger (1 % at worst seen).
const GZIP_LEVEL: u32 = 5;

/// How a layer is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackOptions {
    /// Into what.
    pub packing: LayerPacking,
    /// How hard to try, in the compressor's own scale: gzip and eStargz 0 to 9 (5 if not said), zstd 1 to 22 (3 if not said).
    pub level: Option<i32>,
    /// Threads that compress; the bytes are the same for any number.
    pub threads: usize,
}

impl PackOptions {
    /// With the usual level, on all cores.
    pub fn new(packing: LayerPacking) -> Self {
        Self { packing, level: None, threads: thread::available_parallelism().map_or(1, NonZero::get) }
    }

    /// With a level, which is refused where the compressor does not know it.
    pub fn with_level(self, level: Option<i32>) -> Result<Self> {
        let known = match self.packing {
            LayerPacking::Plain => i32::MIN..=i32::MAX,
            LayerPacking::Gzip | LayerPacking::Estargz => -1..=9,
            LayerPacking::Zstd => 0..=22,
        };
        match level {
            Some(level) if !known.contains(&level) => Err(Error::invalid(
                "compression level",
                format!("{level} is not one of {} to {}", known.start(), known.end()),
            )),
            // gzip's -1 asks for the usual one, and so does zstd's 0.
            level => {
                let usual = if self.packing == LayerPacking::Zstd { 0 } else { -1 };
                Ok(Self { level: level.filter(|level| *level != usual), ..self })
            }
        }
    }
}

/// What went into a packed stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packed {
    /// Digest of the bytes before packing: a layer's diff ID.
    pub diff_id: Digest,
    /// Number of those bytes.
    pub size: u64,
    /// Digest of the table of contents, where there is one.
    pub toc: Option<Digest>,
}

/// Packs what `produce` writes into `out`, which is written to on another thread and given back.
///
/// Blocking: meant for a thread of its own. If `out` fails, its error comes back, not `produce`'s failure to go on.
pub fn pack<W: Write + Send, T, E: From<io::Error>>(
    out: W,
    options: &PackOptions,
    produce: impl FnOnce(&mut dyn Write) -> Result<T, E>,
) -> Result<(T, Packed, W), E> {
    match options.packing {
        LayerPacking::Gzip => pack_gzip(out, options, produce),
        LayerPacking::Estargz => pack_estargz(out, options, produce),
        LayerPacking::Zstd => {
            let mut encoder =
                zstd::Encoder::new(out, options.level.unwrap_or(zstd::DEFAULT_COMPRESSION_LEVEL))?;
            encoder.include_checksum(true)?;
            // With at least one worker the bytes depend on nothing but the input.
            encoder.multithread(u32::try_from(options.threads.max(1)).unwrap_or(1))?;
            encoder.set_parameter(zstd::zstd_safe::CParameter::JobSize(ZSTD_JOB))?;
            pack_through(encoder, zstd::Encoder::finish, produce)
        }
        LayerPacking::Plain => pack_through(
            out,
            |mut out: W| {
                out.flush()?;
                Ok(out)
            },
            produce,
        ),
    }
}

/// Hashes and counts what is written, then hands it on in chunks.
struct Counted<F> {
    chunks: ChunkWriter<F>,
    hasher: Digester,
    size: u64,
}

impl<F: FnMut(Vec<u8>) -> io::Result<()>> Write for Counted<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = self.chunks.write(bytes)?;
        self.hasher.update(&bytes[..taken]);
        self.size += taken as u64;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<F: FnMut(Vec<u8>) -> io::Result<()>> Counted<F> {
    fn new(size: usize, give: F) -> Self {
        Self { chunks: ChunkWriter::new(size, give), hasher: Digester::new(), size: 0 }
    }

    fn finish(self) -> (Packed, Vec<u8>) {
        (Packed { diff_id: self.hasher.finish(), size: self.size, toc: None }, self.chunks.finish())
    }
}

/// The level of gzip.
pub(super) fn gzip_level(options: &PackOptions) -> u32 {
    options.level.and_then(|level| u32::try_from(level).ok()).unwrap_or(GZIP_LEVEL)
}

/// Packs into one gzip member.
pub(super) fn pack_gzip<W: Write + Send, T, E: From<io::Error>>(
    out: W,
    options: &PackOptions,
    produce: impl FnOnce(&mut dyn Write) -> Result<T, E>,
) -> Result<(T, Packed, W), E> {
    thread::scope(|scope| {
        let (mut gzip, writer) = ParallelGzip::start(scope, options.threads.max(1), gzip_level(options), out);
        let mut counted = Counted::new(PIECE, |piece| gzip.piece(piece, false));
        let produced = produce(&mut counted);
        let (packed, rest) = counted.finish();
        let ended = gzip.piece(rest, true);
        drop(gzip);
        let out = joined(writer);
        finish(produced, ended.map(|()| packed), out)
    })
}

/// Packs on one thread beside the producing one.
fn pack_through<E2: Write + Send, W: Send, T, E: From<io::Error>>(
    mut encoder: E2,
    end: impl FnOnce(E2) -> io::Result<W> + Send,
    produce: impl FnOnce(&mut dyn Write) -> Result<T, E>,
) -> Result<(T, Packed, W), E> {
    thread::scope(|scope| {
        let (chunks, next) = sync_channel::<Vec<u8>>(WAITING);
        let writer = scope.spawn(move || -> io::Result<W> {
            for chunk in next {
                encoder.write_all(&chunk)?;
            }
            end(encoder)
        });
        let mut counted = Counted::new(CHUNK, |chunk| give(&chunks, chunk));
        let produced = produce(&mut counted);
        let (packed, rest) = counted.finish();
        let ended = if rest.is_empty() { Ok(()) } else { give(&chunks, rest) };
        drop(chunks);
        finish(produced, ended.map(|()| packed), joined(writer))
    })
}

pub(super) fn joined<W>(writer: thread::ScopedJoinHandle<'_, io::Result<W>>) -> io::Result<W> {
    writer.join().unwrap_or_else(|_| Err(io::Error::other("the thread that writes a layer panicked")))
}

/// The writer's error explains the producer's, whose pipe it broke.
pub(super) fn finish<T, P, W, E: From<io::Error>>(
    produced: Result<T, E>,
    ended: io::Result<P>,
    out: io::Result<W>,
) -> Result<(T, P, W), E> {
    let out = match out {
        Ok(out) => out,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
            produced?;
            return Err(error.into());
        }
        Err(error) => return Err(error.into()),
    };
    Ok((produced?, ended?, out))
}
