//! What of an eStargz blob is the layer's own.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;

use super::toc::{FOOTER, table_at};
use crate::tar::{BLOCK, Part, Scanner};

/// How many bytes of a blob come before its table of contents; none if it is not eStargz.
pub fn layer_size(blob: &File) -> io::Result<Option<u64>> {
    let Some(at) = blob.metadata()?.len().checked_sub(FOOTER as u64) else { return Ok(None) };
    let mut footer = [0; FOOTER];
    blob.read_exact_at(&mut footer, at)?;
    Ok(table_at(&footer).filter(|table| *table < at))
}

/// Passes an archive on without what follows its end.
pub struct Stripped<W> {
    out: W,
    scanner: Scanner,
}

impl<W: Write> Stripped<W> {
    /// To `out`.
    pub fn new(out: W) -> Self {
        Self { out, scanner: Scanner::default() }
    }
}

impl<W: Write> Write for Stripped<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut input = bytes;
        while let Some(part) = self.scanner.step(&mut input)? {
            match part {
                Part::Entry(raw, _) => self.out.write_all(&raw)?,
                Part::Data(bytes) | Part::Padding(bytes) => self.out.write_all(bytes)?,
                Part::End => self.out.write_all(&[0; 2 * BLOCK])?,
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
