//! Reads tars made by anybody: ustar, PAX, GNU, and what came before them.

use std::io::{self, BufRead, Read};

use super::BLOCK;
use super::extensions::{Records, apply_records, bad, check_pieces, parse_map, parse_records, text_number};
use super::header::{Header, Kind, Timestamp};

/// How much a foreign archive may make this program keep in memory.
#[derive(Clone, Copy, Debug)]
pub struct ReaderLimits {
    /// Most bytes of PAX records, or of one long name, before an entry. Go's limit.
    pub extension: u64,
    /// Most pieces of a sparse file.
    pub pieces: usize,
}

impl Default for ReaderLimits {
    fn default() -> Self {
        Self { extension: 1 << 20, pieces: 1 << 16 }
    }
}

/// Reads entries one after the other. Between calls of [`Reader::next_entry`] it is itself a reader of the entry's data.
pub struct Reader<R> {
    input: R,
    limits: ReaderLimits,
    left: u64,
    padding: u64,
}

impl<R: BufRead> Reader<R> {
    /// A reader at the beginning of an archive.
    pub fn new(input: R, limits: ReaderLimits) -> Self {
        Self { input, limits, left: 0, padding: 0 }
    }

    /// The next entry, after what is left of the one before; none at the end of the archive.
    pub fn next_entry(&mut self) -> io::Result<Option<Header>> {
        let mut records = Records::new();
        let (mut long_name, mut long_link) = (None, None);
        loop {
            self.skip_data()?;
            let Some(block) = self.block()? else { return Ok(None) };
            let (mut header, flag, stored) = parse_block(&block)?;
            match flag {
                b'x' | b'X' => parse_records(&self.extension(stored)?, &mut records)?,
                // Global records: git puts a comment there; Go's readers ignore them, so layers cannot rely on them.
                b'g' => drop(self.extension(stored)?),
                b'L' => long_name = Some(until_nul(&self.extension(stored)?)),
                b'K' => long_link = Some(until_nul(&self.extension(stored)?)),
                _ => {
                    if let Some(name) = long_name.take() {
                        header.name = name;
                    }
                    if let Some(link) = long_link.take() {
                        header.link = link;
                    }
                    let stored = apply_records(&mut header, &records)?.unwrap_or(stored);
                    header.size = stored;
                    self.left = if header.kind.has_data() { stored } else { 0 };
                    self.padding = self.left.wrapping_neg() % BLOCK as u64;
                    self.sparse(&mut header, &records, &block, flag)?;
                    if header.kind == Kind::File && header.name.last() == Some(&b'/') && header.size == 0 {
                        header.kind = Kind::Directory;
                    }
                    return Ok(Some(header));
                }
            }
        }
    }

    /// The input, wherever it stands.
    pub fn into_inner(self) -> R {
        self.input
    }

    fn block(&mut self) -> io::Result<Option<[u8; BLOCK]>> {
        let mut block = [0; BLOCK];
        if self.input.fill_buf()?.is_empty() {
            // An archive without its two blocks of zeros: Go and GNU tar let it pass.
            return Ok(None);
        }
        self.input.read_exact(&mut block).map_err(truncated)?;
        Ok(block.iter().any(|byte| *byte != 0).then_some(block))
    }

    fn extension(&mut self, size: u64) -> io::Result<Vec<u8>> {
        if size > self.limits.extension {
            return Err(bad("extended header too large"));
        }
        let mut body = vec![0; size as usize];
        self.input.read_exact(&mut body).map_err(truncated)?;
        self.padding = size.wrapping_neg() % BLOCK as u64;
        Ok(body)
    }

    fn skip_data(&mut self) -> io::Result<()> {
        let mut skip = std::mem::take(&mut self.left) + std::mem::take(&mut self.padding);
        while skip > 0 {
            let available = self.input.fill_buf()?.len();
            if available == 0 {
                return Err(truncated(io::ErrorKind::UnexpectedEof.into()));
            }
            let step = available.min(usize::try_from(skip).unwrap_or(usize::MAX));
            self.input.consume(step);
            skip -= step as u64;
        }
        Ok(())
    }

    /// Finds the pieces of a sparse file in whichever of the four ways they are written.
    fn sparse(
        &mut self,
        header: &mut Header,
        records: &Records,
        block: &[u8; BLOCK],
        flag: u8,
    ) -> io::Result<()> {
        let get = |key: &str| records.get(key.as_bytes()).filter(|value| !value.is_empty());
        let number =
            |key: &str| get(key).map(|v| text_number(v).ok_or_else(|| bad("sparse size"))).transpose();
        let stored = self.left;
        let (size, pieces) = if flag == b'S' {
            let size = octal(&block[483..495])?;
            let mut pieces = Vec::new();
            let mut more = self.old_pieces(&block[386..482], block[482], &mut pieces)?;
            while more {
                let Some(next) = self.block()? else { return Err(bad("sparse map ends early")) };
                more = self.old_pieces(&next[..504], next[504], &mut pieces)?;
            }
            (size, pieces)
        } else if let Some(size) = number("GNU.sparse.realsize")? {
            (size, self.leading_map()?)
        } else if let (Some(size), Some(map)) = (number("GNU.sparse.size")?, get("GNU.sparse.map")) {
            (size, parse_map(map)?)
        } else {
            return Ok(());
        };
        if let Some(name) = get("GNU.sparse.name") {
            header.name = name.clone();
        }
        if pieces.len() > self.limits.pieces {
            return Err(bad("sparse file has too many pieces"));
        }
        let stored = if flag == b'S' { stored } else { self.left };
        check_pieces(&pieces, size, stored)?;
        header.kind = Kind::File;
        header.size = size;
        header.pieces = Some(pieces);
        Ok(())
    }

    fn old_pieces(&self, area: &[u8], more: u8, pieces: &mut Vec<(u64, u64)>) -> io::Result<bool> {
        for pair in area.chunks_exact(24) {
            if pair[0] == 0 {
                break;
            }
            pieces.push((octal(&pair[..12])?, octal(&pair[12..])?));
            if pieces.len() > self.limits.pieces {
                return Err(bad("sparse file has too many pieces"));
            }
        }
        Ok(more != 0)
    }

    /// PAX sparse 1.0: the map is at the beginning of the data, one decimal a line, padded to a block.
    fn leading_map(&mut self) -> io::Result<Vec<(u64, u64)>> {
        let mut used = 0_u64;
        let mut line = |reader: &mut Self| -> io::Result<u64> {
            let mut text = Vec::new();
            loop {
                let mut byte = [0];
                reader.read_exact(&mut byte).map_err(truncated)?;
                used += 1;
                match byte[0] {
                    b'\n' => return text_number(&text).ok_or_else(|| bad("sparse map")),
                    digit if text.len() < 20 => text.push(digit),
                    _ => return Err(bad("sparse map")),
                }
            }
        };
        let count = line(self)?;
        if count > self.limits.pieces as u64 {
            return Err(bad("sparse file has too many pieces"));
        }
        let pieces = (0..count).map(|_| Ok((line(self)?, line(self)?))).collect::<io::Result<Vec<_>>>()?;
        let mut rest = vec![0; (used.wrapping_neg() % BLOCK as u64) as usize];
        self.read_exact(&mut rest).map_err(truncated)?;
        Ok(pieces)
    }
}

impl<R: BufRead> Read for Reader<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let want = out.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if want == 0 {
            return Ok(0);
        }
        let got = self.input.read(&mut out[..want])?;
        if got == 0 {
            return Err(truncated(io::ErrorKind::UnexpectedEof.into()));
        }
        self.left -= got as u64;
        Ok(got)
    }
}

impl<R: BufRead> BufRead for Reader<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.left == 0 {
            return Ok(&[]);
        }
        let bytes = self.input.fill_buf()?;
        if bytes.is_empty() {
            return Err(truncated(io::ErrorKind::UnexpectedEof.into()));
        }
        let len = bytes.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        Ok(&bytes[..len])
    }

    fn consume(&mut self, amount: usize) {
        self.input.consume(amount);
        self.left -= amount as u64;
    }
}

fn truncated(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        io::Error::new(io::ErrorKind::UnexpectedEof, "unexpected end of the tar archive")
    } else {
        error
    }
}

fn until_nul(text: &[u8]) -> Vec<u8> {
    text.iter().copied().take_while(|byte| *byte != 0).collect()
}

/// A number in octal text, or in GNU's base 256 where the first bit is set.
pub(super) fn octal(field: &[u8]) -> io::Result<u64> {
    let number = signed(field)?;
    u64::try_from(number).map_err(|_| bad("negative number in a header"))
}

fn signed(field: &[u8]) -> io::Result<i64> {
    if field[0] & 0x80 != 0 {
        let negative = field[0] & 0x40 != 0;
        let mut number: i128 = if negative { -1 } else { 0 };
        for (i, byte) in field.iter().enumerate() {
            let byte = if i == 0 { (byte & 0x7f) | if negative { 0x80 } else { 0 } } else { *byte };
            number = (number << 8) | i128::from(byte);
        }
        return i64::try_from(number).map_err(|_| bad("number in a header too large"));
    }
    let text: Vec<u8> = field
        .iter()
        .copied()
        .skip_while(|b| matches!(b, b' ' | 0))
        .take_while(|b| !matches!(b, b' ' | 0))
        .collect();
    text.iter().try_fold(0_i64, |number, digit| match digit {
        b'0'..=b'7' => number
            .checked_mul(8)
            .map(|n| n + i64::from(digit - b'0'))
            .ok_or_else(|| bad("number in a header too large")),
        _ => Err(bad("number in a header")),
    })
}

fn parse_block(block: &[u8; BLOCK]) -> io::Result<(Header, u8, u64)> {
    let told = octal(&block[148..156])?;
    let sum = |cast: fn(u8) -> i64| -> i64 {
        block.iter().enumerate().map(|(i, b)| cast(if (148..156).contains(&i) { b' ' } else { *b })).sum()
    };
    // Some old writers added the bytes up as signed ones.
    if ![sum(i64::from), sum(|b| i64::from(b as i8))].contains(&i64::try_from(told).unwrap_or(-1)) {
        return Err(bad("header checksum"));
    }
    let flag = block[156];
    let kind = match flag {
        b'0' | 0 | b'7' | b'S' => Kind::File,
        b'1' => Kind::HardLink,
        b'2' => Kind::Symlink,
        b'3' => Kind::CharDevice,
        b'4' => Kind::BlockDevice,
        b'5' => Kind::Directory,
        b'6' => Kind::Fifo,
        other => Kind::Other(other),
    };
    let mut header = Header::new(until_nul(&block[..100]), kind);
    header.mode = (octal(&block[100..108])? & 0o7777) as u32;
    let id = |field| octal(field).and_then(|n| u32::try_from(n).map_err(|_| bad("owner in a header")));
    header.uid = id(&block[108..116])?;
    header.gid = id(&block[116..124])?;
    let size = octal(&block[124..136])?;
    header.mtime = Timestamp::from_seconds(signed(&block[136..148])?);
    header.link = until_nul(&block[157..257]);
    if &block[257..262] == b"ustar" {
        header.user = until_nul(&block[265..297]);
        header.group = until_nul(&block[297..329]);
        if matches!(kind, Kind::CharDevice | Kind::BlockDevice) {
            let part =
                |field| octal(field).and_then(|n| u32::try_from(n).map_err(|_| bad("device in a header")));
            header.device = (part(&block[329..337])?, part(&block[337..345])?);
        }
        // GNU has no prefix; it uses the place for times and sparse maps.
        let prefix = if block[262] == 0 { until_nul(&block[345..500]) } else { Vec::new() };
        if !prefix.is_empty() {
            header.name = [&prefix[..], b"/", &header.name].concat();
        }
    }
    Ok((header, flag, size))
}
