//! gzip on all cores: one gzip member whose deflate blocks are made side by side.
//!
//! The input is cut at fixed places; each piece is deflated on its own with the 32 KiB before it as dictionary and
//! ended at a byte boundary, so that the pieces put one after the other are one deflate stream. Where it is cut does
//! not depend on the number of threads, and so neither do the bytes.

use std::io::{self, Write};
use std::sync::Arc;
use std::thread::{Scope, ScopedJoinHandle};

use flate2::{Compress, Compression, Crc, FlushCompress, Status};

use super::chunks::Chunk;
use super::in_order::{Results, Workers};

/// Bytes deflated on their own. Ending a piece costs some ten bytes and the start of new code tables.
pub(super) const PIECE: usize = 256 << 10;
/// How far back deflate looks.
const WINDOW: usize = 32 << 10;
/// gzip, deflate, no flags, no time, nothing about the level, unknown system: as Go writes it.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

struct Job {
    piece: Chunk,
    before: Chunk,
    last: bool,
}

struct Deflated {
    bytes: Vec<u8>,
    crc: Crc,
}

/// Deflates pieces on threads of a scope.
pub(super) struct ParallelGzip {
    workers: Workers<Job, Deflated>,
    before: Chunk,
}

impl ParallelGzip {
    /// Starts `threads` workers; what they make goes to `out` in order, on a thread whose result is `out` again.
    pub(super) fn start<'scope, 'env, W: Write + Send + 'scope>(
        scope: &'scope Scope<'scope, 'env>,
        threads: usize,
        level: u32,
        out: W,
    ) -> (Self, ScopedJoinHandle<'scope, io::Result<W>>) {
        let work = move |Job { piece, before, last }: Job| deflate(level, &before, &piece, last);
        let (workers, deflated) = Workers::start(scope, threads, work);
        let writer = scope.spawn(move || write(deflated, out));
        (Self { workers, before: Arc::default() }, writer)
    }

    /// Takes the next piece, which must be [`PIECE`] bytes unless it is the last.
    pub(super) fn piece(&mut self, piece: Vec<u8>, last: bool) -> io::Result<()> {
        let piece = Arc::new(piece);
        let before = std::mem::replace(&mut self.before, piece.clone());
        self.workers.give(Job { piece, before, last })
    }
}

/// A gzip member of its own.
pub(super) fn member(level: u32, bytes: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    let Deflated { bytes, crc } = deflate(level, &[], bytes, true)?;
    for part in [&HEADER[..], &bytes, &crc.sum().to_le_bytes(), &crc.amount().to_le_bytes()] {
        out.extend_from_slice(part);
    }
    Ok(())
}

fn deflate(level: u32, before: &[u8], piece: &[u8], last: bool) -> io::Result<Deflated> {
    // Always a new compressor: a reset one of zlib-rs keeps traces of the piece before, and then the bytes would
    // depend on which thread had which piece.
    let mut deflate = Compress::new(Compression::new(level), false);
    let window = &before[before.len().saturating_sub(WINDOW)..];
    if !window.is_empty() {
        deflate.set_dictionary(window).map_err(io::Error::other)?;
    }
    let mut crc = Crc::new();
    crc.update(piece);
    // Deflate never makes its input longer by more than five bytes in 16 KiB; the flush adds ten at most.
    let mut bytes = Vec::with_capacity(piece.len() / 2 + 1024);
    let flush = if last { FlushCompress::Finish } else { FlushCompress::Sync };
    loop {
        let taken = deflate.total_in() as usize;
        let status = deflate.compress_vec(&piece[taken..], &mut bytes, flush).map_err(io::Error::other)?;
        let room = bytes.len() < bytes.capacity();
        let done = if last {
            status == Status::StreamEnd
        } else {
            room && deflate.total_in() as usize == piece.len()
        };
        if done {
            return Ok(Deflated { bytes, crc });
        }
        bytes.reserve(piece.len() / 2 + 1024);
    }
}

fn write<W: Write>(deflated: Results<Deflated>, mut out: W) -> io::Result<W> {
    out.write_all(&HEADER)?;
    let mut crc = Crc::new();
    for piece in deflated {
        let Deflated { bytes, crc: piece } = piece?;
        out.write_all(&bytes)?;
        crc.combine(&piece);
    }
    out.write_all(&crc.sum().to_le_bytes())?;
    out.write_all(&crc.amount().to_le_bytes())?;
    out.flush()?;
    Ok(out)
}
