//! Finds the entries of a tar that is handed over piece by piece, and keeps its bytes as they are.

use std::io;

use super::extensions::bad;
use super::reader::octal;
use super::{BLOCK, Header, Reader, ReaderLimits};

/// A part of a tar, in the order they come.
pub enum Part<'a> {
    /// An entry begins: its bytes, extended headers included, and what they say.
    Entry(Vec<u8>, Box<Header>),
    /// Data of the entry.
    Data(&'a [u8]),
    /// What fills the entry's last block.
    Padding(&'a [u8]),
    /// The archive is over; what comes after does not belong to it.
    End,
}

enum State {
    /// Collects the headers of an entry until there are so many bytes; the newest block begins at `block`.
    Headers {
        block: usize,
        wanted: usize,
    },
    Data {
        left: u64,
        padding: usize,
    },
    Padding {
        left: usize,
    },
    End,
}

/// Takes a tar apart.
pub struct Scanner {
    state: State,
    raw: Vec<u8>,
    limits: ReaderLimits,
}

impl Default for Scanner {
    fn default() -> Self {
        Self { state: Self::at_header(), raw: Vec::new(), limits: ReaderLimits::default() }
    }
}

impl Scanner {
    const fn at_header() -> State {
        State::Headers { block: 0, wanted: BLOCK }
    }

    /// The next part of what is in `input`, which is left with what comes after it; none if more input is needed.
    ///
    /// A sparse file is an error of kind [`io::ErrorKind::Unsupported`]: its bytes here are not its content.
    pub fn step<'a>(&mut self, input: &mut &'a [u8]) -> io::Result<Option<Part<'a>>> {
        loop {
            match &mut self.state {
                State::Headers { wanted, .. } => {
                    let more = take(input, *wanted - self.raw.len());
                    self.raw.extend_from_slice(more);
                    if self.raw.len() < *wanted {
                        return Ok(None);
                    }
                    if let Some(part) = self.headers()? {
                        return Ok(Some(part));
                    }
                }
                State::Data { left: 0, padding } => self.state = State::Padding { left: *padding },
                State::Data { .. } | State::Padding { left: 1.. } if input.is_empty() => return Ok(None),
                State::Data { left, .. } => {
                    let data = take(input, usize::try_from(*left).unwrap_or(usize::MAX));
                    *left -= data.len() as u64;
                    return Ok(Some(Part::Data(data)));
                }
                State::Padding { left: 0 } => self.state = Self::at_header(),
                State::Padding { left } => {
                    let padding = take(input, *left);
                    *left -= padding.len();
                    return Ok(Some(Part::Padding(padding)));
                }
                State::End => {
                    *input = &[];
                    return Ok(None);
                }
            }
        }
    }

    /// Whether it stands between two entries or behind the last: an archive that is over here is whole.
    pub fn is_between_entries(&self) -> bool {
        match self.state {
            State::Headers { .. } => self.raw.is_empty(),
            State::Data { left, padding } => left == 0 && padding == 0,
            State::Padding { left } => left == 0,
            State::End => true,
        }
    }

    /// Looks at what has been collected.
    fn headers<'a>(&mut self) -> io::Result<Option<Part<'a>>> {
        let State::Headers { block: at, wanted } = self.state else { return Ok(None) };
        let block = &self.raw[at..];
        if wanted > at + BLOCK {
            // The body of an extension is complete; another block follows.
            self.state = State::Headers { block: wanted, wanted: wanted + BLOCK };
            return Ok(None);
        }
        if block.iter().all(|byte| *byte == 0) {
            self.state = State::End;
            self.raw = Vec::new();
            return Ok(Some(Part::End));
        }
        let sparse = |raw: &[u8]| raw.windows(11).any(|piece| piece == b"GNU.sparse.");
        match block[156] {
            b'x' | b'X' | b'g' | b'L' | b'K' => {
                let size = octal(&block[124..136])?;
                if size > self.limits.extension || wanted as u64 > 4 * self.limits.extension {
                    return Err(bad("extended header too large"));
                }
                let body = (size as usize).next_multiple_of(BLOCK);
                self.state = State::Headers { block: at, wanted: wanted + body };
                if body == 0 {
                    self.state = State::Headers { block: wanted, wanted: wanted + BLOCK };
                }
                return Ok(None);
            }
            flag if flag == b'S' || sparse(&self.raw[..at]) => {
                return Err(io::Error::new(io::ErrorKind::Unsupported, "a sparse file in a tar"));
            }
            _ => {}
        }
        let raw = std::mem::take(&mut self.raw);
        let header = Reader::new(&raw[..], self.limits).next_entry()?.ok_or_else(|| bad("header"))?;
        let size = if header.kind.has_data() { header.size } else { 0 };
        self.state = State::Data { left: size, padding: (size.wrapping_neg() % BLOCK as u64) as usize };
        Ok(Some(Part::Entry(raw, Box::new(header))))
    }
}

/// At most so many bytes off the front.
fn take<'a>(input: &mut &'a [u8], most: usize) -> &'a [u8] {
    let (taken, rest) = input.split_at(most.min(input.len()));
    *input = rest;
    taken
}
