//! Writes tars, byte for byte as Go's `archive/tar` writes headers of its PAX format:
//! plain ustar where that can say everything, else with a PAX header before it.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use super::BLOCK;
use super::header::{Header, Kind, Timestamp};

/// Longest name in the name field.
const NAME_SIZE: usize = 100;
/// Longest directory part in ustar's prefix field.
const PREFIX_SIZE: usize = 155;
/// Bytes copied at once from a file: large enough that system calls do not count, small enough for the cache.
const COPY_CHUNK: usize = 256 << 10;

/// Writes entries one after the other.
pub struct Writer<W> {
    out: W,
    left: u64,
    padding: usize,
    buffer: Vec<u8>,
}

impl<W: Write> Writer<W> {
    /// An archive without entries.
    pub fn new(out: W) -> Self {
        Self { out, left: 0, padding: 0, buffer: Vec::new() }
    }

    /// Begins an entry; a file's data follows with [`Self::data`] or [`Self::copy_from`].
    pub fn entry(&mut self, header: &Header) -> io::Result<()> {
        self.end_entry()?;
        let mut records = header.records.clone();
        let mut block = Block::new();
        let long_name = !fits_text(&header.name, NAME_SIZE);
        let split = split_name(&header.name);
        if long_name && split.is_none() {
            records.insert(b"path".to_vec(), header.name.clone());
        }
        for (text, size, key) in
            [(&header.link, NAME_SIZE, "linkpath"), (&header.user, 32, "uname"), (&header.group, 32, "gname")]
        {
            if !fits_text(text, size) {
                records.insert(key.into(), text.clone());
            }
        }
        let size = if header.kind.has_data() { header.size } else { 0 };
        for (number, digits, key) in
            [(u64::from(header.uid), 7, "uid"), (u64::from(header.gid), 7, "gid"), (size, 11, "size")]
        {
            if !fits_octal(number, digits) {
                records.insert(key.into(), number.to_string().into_bytes());
            }
        }
        let mtime = u64::try_from(header.mtime.seconds).ok().filter(|seconds| fits_octal(*seconds, 11));
        if mtime.is_none() || header.mtime.nanos != 0 {
            records.insert(b"mtime".to_vec(), pax_time(header.mtime).into_bytes());
        }
        let (prefix, name) = match split {
            Some(parts) if records.is_empty() => parts,
            _ => (&[][..], &header.name[..]),
        };
        if !records.is_empty() {
            if long_name {
                records.insert(b"path".to_vec(), header.name.clone());
            }
            self.records(&header.name, &records)?;
        }
        block.name(name);
        block.text(157, NAME_SIZE, &ascii(&header.link));
        block.octal(100, 8, u64::from(header.mode & 0o7777));
        block.octal(108, 8, u64::from(header.uid));
        block.octal(116, 8, u64::from(header.gid));
        block.octal(124, 12, size);
        block.octal(136, 12, mtime.unwrap_or(0));
        block.0[156] = header.kind.flag();
        block.text(265, 32, &ascii(&header.user));
        block.text(297, 32, &ascii(&header.group));
        block.octal(329, 8, u64::from(header.device.0));
        block.octal(337, 8, u64::from(header.device.1));
        block.text(345, PREFIX_SIZE, prefix);
        self.out.write_all(&block.sealed())?;
        self.left = size;
        self.padding = padding(size);
        Ok(())
    }

    /// Writes a PAX header.
    fn records(&mut self, name: &[u8], records: &BTreeMap<Vec<u8>, Vec<u8>>) -> io::Result<()> {
        let mut body = Vec::new();
        for (key, value) in records {
            record(&mut body, key, value);
        }
        let (dir, file) = match name.iter().rposition(|byte| *byte == b'/') {
            Some(at) => name.split_at(at + 1),
            None => (&[][..], name),
        };
        let mut name = ascii(&clean_join(dir, file));
        name.truncate(NAME_SIZE);
        while name.last() == Some(&b'/') {
            name.pop();
        }
        let mut block = Block::new();
        block.text(0, NAME_SIZE, &name);
        for (at, size) in [(100, 8), (108, 8), (116, 8), (136, 12)] {
            block.octal(at, size, 0);
        }
        block.octal(124, 12, body.len() as u64);
        block.0[156] = b'x';
        self.out.write_all(&block.sealed())?;
        body.resize(body.len() + padding(body.len() as u64), 0);
        self.out.write_all(&body)
    }

    /// Writes a piece of the current file's data.
    pub fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.len() as u64 > self.left {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "file grew while it was being archived"));
        }
        self.out.write_all(bytes)?;
        self.left -= bytes.len() as u64;
        Ok(())
    }

    /// Copies the current file's data from a reader that holds at least as much as announced.
    pub fn copy_from(&mut self, mut data: impl Read) -> io::Result<()> {
        if self.buffer.is_empty() {
            self.buffer.resize(COPY_CHUNK, 0);
        }
        while self.left > 0 {
            let want = self.buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
            let got = match data.read(&mut self.buffer[..want]) {
                Ok(0) => {
                    return Err(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        "file shrank while it was being archived",
                    ));
                }
                Ok(got) => got,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            self.out.write_all(&self.buffer[..got])?;
            self.left -= got as u64;
        }
        Ok(())
    }

    /// Writes an entry with all its data.
    pub fn file(
        &mut self,
        name: impl AsRef<[u8]>,
        mode: u32,
        mtime: Timestamp,
        bytes: &[u8],
    ) -> io::Result<()> {
        let mut header = Header::new(name.as_ref(), Kind::File);
        header.mode = mode;
        header.mtime = mtime;
        header.size = bytes.len() as u64;
        self.entry(&header)?;
        self.data(bytes)
    }

    fn end_entry(&mut self) -> io::Result<()> {
        if self.left > 0 {
            return Err(io::Error::other(format!(
                "{} bytes of a tar entry's data were not written",
                self.left
            )));
        }
        self.out.write_all(&[0; BLOCK][..std::mem::take(&mut self.padding)])
    }

    /// Ends the archive and gives back what it was written to.
    pub fn finish(mut self) -> io::Result<W> {
        self.end_entry()?;
        self.out.write_all(&[0; 2 * BLOCK])?;
        self.out.flush()?;
        Ok(self.out)
    }
}

/// Zeros after so much data.
const fn padding(size: u64) -> usize {
    (size.wrapping_neg() % BLOCK as u64) as usize
}

/// One header block.
struct Block([u8; BLOCK]);

impl Block {
    fn new() -> Self {
        Self([0; BLOCK])
    }

    fn text(&mut self, at: usize, size: usize, text: &[u8]) {
        let len = text.len().min(size);
        self.0[at..at + len].copy_from_slice(&text[..len]);
    }

    /// The name field. Some readers take a cut name that ends in a slash for a directory, so Go removes it.
    fn name(&mut self, name: &[u8]) {
        let name = ascii(name);
        self.text(0, NAME_SIZE, &name);
        if name.len() > NAME_SIZE && self.0[NAME_SIZE - 1] == b'/' {
            let cut = name[..NAME_SIZE - 1].iter().rposition(|byte| *byte != b'/').map_or(0, |at| at + 1);
            self.0[cut] = 0;
        }
    }

    /// A number that fills its field but for the NUL at its end; one that does not fit is in a record, here 0 stands.
    fn octal(&mut self, at: usize, size: usize, number: u64) {
        let digits = size - 1;
        let number = if fits_octal(number, digits) { number } else { 0 };
        for (i, byte) in self.0[at..at + digits].iter_mut().rev().enumerate() {
            *byte = b'0' + ((number >> (3 * i)) & 7) as u8;
        }
    }

    fn sealed(mut self) -> [u8; BLOCK] {
        self.0[257..265].copy_from_slice(b"ustar\x0000");
        self.0[148..156].fill(b' ');
        let sum: u64 = self.0.iter().map(|byte| u64::from(*byte)).sum();
        self.octal(148, 7, sum);
        self.0[154] = 0;
        self.0
    }
}

fn is_ascii(text: &[u8]) -> bool {
    text.iter().all(|byte| matches!(byte, 1..=0x7f))
}

/// The text without what is not ASCII.
fn ascii(text: &[u8]) -> Vec<u8> {
    text.iter().copied().filter(|byte| matches!(byte, 1..=0x7f)).collect()
}

fn fits_text(text: &[u8], size: usize) -> bool {
    text.len() <= size && is_ascii(text)
}

fn fits_octal(number: u64, digits: usize) -> bool {
    digits >= 22 || number < 1 << (3 * digits)
}

/// Splits a long name into ustar's prefix and name fields, at the last slash that the prefix has room for.
fn split_name(name: &[u8]) -> Option<(&[u8], &[u8])> {
    if name.len() <= NAME_SIZE || !is_ascii(name) {
        return None;
    }
    let mut searched = name.len();
    if searched > PREFIX_SIZE + 1 {
        searched = PREFIX_SIZE + 1;
    } else if name[searched - 1] == b'/' {
        searched -= 1;
    }
    let at = name[..searched].iter().rposition(|byte| *byte == b'/')?;
    let rest = name.len() - at - 1;
    (at > 0 && at <= PREFIX_SIZE && rest > 0 && rest <= NAME_SIZE).then(|| (&name[..at], &name[at + 1..]))
}

/// `dir/PaxHeaders.0/file` without empty, `.` and `..` parts, as Go's `path.Join` gives it.
fn clean_join(dir: &[u8], file: &[u8]) -> Vec<u8> {
    let rooted = dir.first() == Some(&b'/');
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in dir.split(|byte| *byte == b'/').chain([&b"PaxHeaders.0"[..], file]) {
        match part {
            b"" | b"." => {}
            b".." if parts.last().is_some_and(|last| *last != b"..") => {
                parts.pop();
            }
            b".." if rooted => {}
            part => parts.push(part),
        }
    }
    let mut joined = parts.join(&b'/');
    if rooted {
        joined.insert(0, b'/');
    }
    joined
}

/// Adds `LENGTH key=value\n`, where the length counts itself.
fn record(body: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    // A space, an equals sign and a newline.
    let bare = key.len() + value.len() + 3;
    let mut length = bare + bare.to_string().len();
    length = bare + length.to_string().len();
    body.extend_from_slice(length.to_string().as_bytes());
    body.push(b' ');
    body.extend_from_slice(key);
    body.push(b'=');
    body.extend_from_slice(value);
    body.push(b'\n');
}

/// Seconds with as many decimals as needed.
fn pax_time(time: Timestamp) -> String {
    if time.nanos == 0 {
        return time.seconds.to_string();
    }
    // Before 1970 the decimals count away from zero.
    let (sign, seconds, nanos) = if time.seconds < 0 {
        ("-", -(time.seconds + 1), 1_000_000_000 - time.nanos)
    } else {
        ("", time.seconds, time.nanos)
    };
    format!("{sign}{seconds}.{nanos:09}").trim_end_matches('0').to_owned()
}
