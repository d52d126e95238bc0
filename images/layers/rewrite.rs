//! A layer with other times.

use std::io::{BufRead, Write};

use super::diff::Written;
use super::errors::LayerError;
use crate::tar::{Kind, Reader, ReaderLimits, Timestamp, Writer};

/// Copies a layer's tar with every time later than `epoch` (seconds since 1970) set to it, and nothing else changed:
/// what `rewrite-timestamp` does to layers that exist already.
pub fn rewrite_timestamps(tar: impl BufRead, out: impl Write, epoch: i64) -> Result<Written, LayerError> {
    let mut reader = Reader::new(tar, ReaderLimits::default());
    let mut writer = Writer::new(out);
    let mut written = Written::default();
    let latest = Timestamp::from_seconds(epoch);
    while let Some(mut header) = reader.next_entry().map_err(LayerError::Archive)? {
        header.mtime = header.mtime.min(latest);
        if let Some(pieces) = header.pieces.take() {
            writer.entry(&header).map_err(LayerError::Write)?;
            fill_holes(&mut reader, &mut writer, &pieces, header.size)?;
        } else {
            writer.entry(&header).map_err(LayerError::Write)?;
            if header.kind.has_data() {
                loop {
                    let bytes = reader.fill_buf().map_err(LayerError::Archive)?;
                    let len = bytes.len();
                    if len == 0 {
                        break;
                    }
                    writer.data(bytes).map_err(LayerError::Write)?;
                    reader.consume(len);
                }
            }
        }
        written.entries += 1;
        written.size += if header.kind == Kind::File { header.size } else { 0 };
    }
    writer.finish().map_err(LayerError::Write)?;
    Ok(written)
}

/// A sparse file is written out in full, as Go's writer knows no sparse files.
fn fill_holes<R: BufRead, W: Write>(
    reader: &mut Reader<R>,
    writer: &mut Writer<W>,
    pieces: &[(u64, u64)],
    size: u64,
) -> Result<(), LayerError> {
    const ZEROS: [u8; 4096] = [0; 4096];
    let mut at = 0;
    let zeros_to = |at: &mut u64, to: u64, writer: &mut Writer<W>| -> Result<(), LayerError> {
        while *at < to {
            let step = (to - *at).min(ZEROS.len() as u64);
            writer.data(&ZEROS[..step as usize]).map_err(LayerError::Write)?;
            *at += step;
        }
        Ok(())
    };
    for (offset, length) in pieces {
        zeros_to(&mut at, *offset, writer)?;
        let end = offset + length;
        while at < end {
            let bytes = reader.fill_buf().map_err(LayerError::Archive)?;
            let step = bytes.len().min(usize::try_from(end - at).unwrap_or(usize::MAX));
            if step == 0 {
                return Err(LayerError::Archive(std::io::ErrorKind::UnexpectedEof.into()));
            }
            writer.data(&bytes[..step]).map_err(LayerError::Write)?;
            reader.consume(step);
            at += step as u64;
        }
    }
    zeros_to(&mut at, size, writer)
}
