//! eStargz: gzip layers from which a reader can have one file without the others (the format is described in
//! stargz-snapshotter's docs/estargz.md).
//!
//! Every file's content begins a gzip member, or several if it is large. After the tar comes a table of contents as one
//! more entry of a tar, and a footer that says where it is. What eStargz adds lies behind the end of the layer's own
//! archive, so that whoever unpacks the layer as what it also is, gzip, finds the layer's files and nothing else.

mod members;
mod reading;
mod toc;

#[cfg(test)]
mod estargz_tests;

use std::io::{self, Write};
use std::thread;

use super::pack::{PackOptions, Packed, finish, gzip_level, joined, pack_gzip};
use crate::digest::{Digest, Digester};
use crate::tar::{BLOCK, Header, Kind, Part, Scanner, Writer};
use members::Members;
use toc::{Entry, FileEntry};

pub use reading::{Stripped, layer_size};
pub use toc::{TOC_DIGEST, UNCOMPRESSED_SIZE};

/// Bytes of a file that a member holds at most, as in stargz-snapshotter's writer.
const CHUNK: usize = 4 << 20;

/// The entry that says that no file of the layer is wanted before the others.
const NO_PREFETCH: &str = ".no.prefetch.landmark";

/// The entry that says that the files before it are wanted before the others.
const PREFETCH: &str = ".prefetch.landmark";

/// What either of them holds.
const LANDMARK: [u8; 1] = [0xf];

/// Packs the tar that `produce` writes, as [`super::pack()`] does. What comes after that tar's end is left out.
pub(super) fn pack_estargz<W: Write + Send, T, E: From<io::Error>>(
    out: W,
    options: &PackOptions,
    produce: impl FnOnce(&mut dyn Write) -> Result<T, E>,
) -> Result<(T, Packed, W), E> {
    let (produced, layer, (out, begun, at)) = thread::scope(|scope| {
        let (members, writer) = Members::start(scope, options.threads.max(1), gzip_level(options), out);
        let mut layer = Layer::new(members);
        let produced = produce(&mut layer);
        let ended = layer.end();
        finish(produced, ended, joined(writer))
    })?;
    let Packable { entries, mut hasher, mut size } = layer;
    let (toc, digest) = toc::tar(entries, &begun)?;
    hasher.update(&toc);
    size += toc.len() as u64;
    let ((), _, mut out) = pack_gzip(out, options, |out| out.write_all(&toc))?;
    out.write_all(&toc::footer(at))?;
    out.flush()?;
    Ok((produced, Packed { diff_id: hasher.finish(), size, toc: Some(digest) }, out))
}

/// A layer whose members are being written.
struct Layer {
    members: Members,
    scanner: Scanner,
    entries: Vec<Entry>,
    hasher: Digester,
    size: u64,
    /// The file whose data comes.
    file: Option<Open>,
    landmark: bool,
}

/// What is left of it when its members are written.
struct Packable {
    entries: Vec<Entry>,
    hasher: Digester,
    size: u64,
}

struct Open {
    size: u64,
    at: u64,
    /// Hashes a file of several chunks; the digest of one that has a single chunk is the chunk's.
    whole: Option<Digester>,
    /// Where the file is among the entries.
    entry: usize,
}

impl Layer {
    fn new(members: Members) -> Self {
        Self {
            members,
            scanner: Scanner::default(),
            entries: Vec::new(),
            hasher: Digester::new(),
            size: 0,
            file: None,
            landmark: false,
        }
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
        self.members.write(bytes)
    }

    fn entry(&mut self, raw: &[u8], header: &Header) -> io::Result<()> {
        match cleaned(&header.name) {
            name if name == toc::NAME.as_bytes() => {
                let why = format!("the layer has a file {}, which eStargz keeps for itself", toc::NAME);
                return Err(io::Error::new(io::ErrorKind::InvalidData, why));
            }
            name if [PREFETCH, NO_PREFETCH].map(str::as_bytes).contains(&name) => self.landmark = true,
            _ => {}
        }
        // Nothing but headers, without end: a reader needs none of them, but this program has a member in memory.
        if self.members.len() > CHUNK {
            self.members.begin()?;
        }
        self.put(raw)?;
        self.file = None;
        let Some(entry) = Entry::of(header) else { return Ok(()) };
        self.entries.push(entry);
        if header.kind == Kind::File {
            let whole = (header.size > CHUNK as u64).then(Digester::new);
            let entry = self.entries.len() - 1;
            if header.size == 0 {
                self.entries[entry].file.digest = Some(Digest::of([]));
            } else {
                self.file = Some(Open { size: header.size, at: 0, whole, entry });
            }
        }
        Ok(())
    }

    fn data(&mut self, mut data: &[u8]) -> io::Result<()> {
        let Some(mut file) = self.file.take() else { return self.put(data) };
        while !data.is_empty() {
            let in_chunk = (file.at % CHUNK as u64) as usize;
            if in_chunk == 0 {
                let part = FileEntry {
                    member: Some(self.members.begin()?),
                    offset: file.at,
                    size: Some(CHUNK as u64).filter(|chunk| file.at + chunk < file.size),
                    digest: None,
                };
                match file.at {
                    0 => self.entries[file.entry].file = part,
                    _ => self.entries.push(Entry::chunk(&self.entries[file.entry].name, part)),
                }
            }
            let (now, rest) = data.split_at(data.len().min(CHUNK - in_chunk));
            data = rest;
            file.at += now.len() as u64;
            if let Some(whole) = &mut file.whole {
                whole.update(now);
            }
            self.hasher.update(now);
            self.size += now.len() as u64;
            self.members.data(now)?;
        }
        match file.whole.take() {
            Some(whole) if file.at == file.size => {
                self.entries[file.entry].file.digest = Some(whole.finish());
            }
            whole => file.whole = whole,
        }
        self.file = Some(file);
        Ok(())
    }

    /// Ends the layer's archive and puts a landmark behind it.
    fn end(mut self) -> io::Result<Packable> {
        if !self.scanner.is_between_entries() {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "unexpected end of the tar archive"));
        }
        self.put(&[0; 2 * BLOCK])?;
        if !self.landmark {
            let mut header = Header::new(NO_PREFETCH, Kind::File);
            header.mode = 0o644;
            header.size = LANDMARK.len() as u64;
            let mut tar = Writer::new(Vec::new());
            tar.entry(&header)?;
            tar.data(&LANDMARK)?;
            let tar = tar.finish()?;
            self.entry(&tar[..BLOCK], &header)?;
            self.data(&LANDMARK)?;
            self.put(&tar[BLOCK + LANDMARK.len()..2 * BLOCK])?;
        }
        self.members.end()?;
        Ok(Packable { entries: self.entries, hasher: self.hasher, size: self.size })
    }
}

/// A name without what makes no difference at its ends.
fn cleaned(name: &[u8]) -> &[u8] {
    let mut name = name;
    while let Some(rest) = name.strip_prefix(b"./").or(name.strip_prefix(b"/")) {
        name = rest;
    }
    name.strip_suffix(b"/").unwrap_or(name)
}

impl Write for Layer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut input = bytes;
        while let Some(part) = self.scanner.step(&mut input)? {
            match part {
                Part::Entry(raw, header) => self.entry(&raw, &header)?,
                Part::Data(data) => self.data(data)?,
                Part::Padding(padding) => self.put(padding)?,
                Part::End => {}
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
