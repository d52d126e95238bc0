//! The table of contents, and the footer that says where it is.

use std::collections::BTreeMap;
use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use super::members::Begun;
use crate::digest::Digest;
use crate::gojson;
use crate::tar::{Header, Kind, Timestamp, Writer};

/// The annotation of a layer with the digest of its table of contents, without which a reader does not trust it.
pub const TOC_DIGEST: &str = "containerd.io/snapshot/stargz/toc.digest";

/// The annotation of a layer with the number of bytes in it before packing.
pub const UNCOMPRESSED_SIZE: &str = "io.containers.estargz.uncompressed-size";

/// The table's name in its tar.
pub(super) const NAME: &str = "stargz.index.json";

/// Bytes of the footer.
pub(super) const FOOTER: usize = 51;

/// The footer up to the table's place: an empty gzip member that has an extra field `SG` of 22 bytes.
const FOOTER_BEGIN: [u8; 16] = [0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 0xff, 26, 0, b'S', b'G', 22, 0];

/// What follows the table's place in the extra field.
const MAGIC: [u8; 6] = *b"STARGZ";

/// One stored deflate block of no bytes, then their checksum and number.
const FOOTER_END: [u8; 13] = [1, 0, 0, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0];

/// The footer of a blob whose table begins at `at`.
pub(super) fn footer(at: u64) -> Vec<u8> {
    [&FOOTER_BEGIN[..], format!("{at:016x}").as_bytes(), &MAGIC, &FOOTER_END].concat()
}

/// Where a footer says that the table begins; none if it is no footer. What gzip leaves to the writer may be anything.
pub(super) fn table_at(footer: &[u8; FOOTER]) -> Option<u64> {
    let known = footer[..4] == FOOTER_BEGIN[..4] && footer[10..16] == FOOTER_BEGIN[10..];
    let digits = str::from_utf8(&footer[16..32]).ok().filter(|_| known && footer[32..38] == MAGIC)?;
    u64::from_str_radix(digits, 16).ok()
}

/// The part of a file that an entry tells of.
#[derive(Clone, Debug, Default)]
pub(super) struct FileEntry {
    /// The member that begins with it; none if the file is empty.
    pub(super) member: Option<usize>,
    /// Where the part begins in the file.
    pub(super) offset: u64,
    /// Bytes of the part; none if it goes to the file's end.
    pub(super) size: Option<u64>,
    /// The digest of the whole file, where it is not that of its only part.
    pub(super) digest: Option<Digest>,
}

/// A line of the table.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) file: FileEntry,
    kind: &'static str,
    /// All that is in the tar's header; not repeated for further parts of a file.
    header: Option<Box<Header>>,
}

impl Entry {
    /// The entry of a header; none if it is of a kind that the table does not know.
    pub(super) fn of(header: &Header) -> Option<Self> {
        let kind = match header.kind {
            Kind::File => "reg",
            Kind::HardLink => "hardlink",
            Kind::Symlink => "symlink",
            Kind::CharDevice => "char",
            Kind::BlockDevice => "block",
            Kind::Directory => "dir",
            Kind::Fifo => "fifo",
            Kind::Other(_) => return None,
        };
        let name = text(&header.name);
        Some(Entry { name, file: FileEntry::default(), kind, header: Some(Box::new(header.clone())) })
    }

    /// The entry of a further part of a file.
    pub(super) fn chunk(name: &str, file: FileEntry) -> Self {
        Entry { name: name.to_owned(), file, kind: "chunk", header: None }
    }
}

/// JSON has no bytes that are no text; Go's writers replace them, too.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// An entry as it is written.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    name: String,
    r#type: &'static str,
    #[serde(skip_serializing_if = "is_default")]
    size: u64,
    #[serde(rename = "modtime", skip_serializing_if = "String::is_empty")]
    modified: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    link_name: String,
    #[serde(skip_serializing_if = "is_default")]
    mode: u32,
    #[serde(skip_serializing_if = "is_default")]
    uid: u32,
    #[serde(skip_serializing_if = "is_default")]
    gid: u32,
    #[serde(skip_serializing_if = "String::is_empty")]
    user_name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    group_name: String,
    #[serde(skip_serializing_if = "is_default")]
    offset: u64,
    #[serde(skip_serializing_if = "is_default")]
    dev_major: u32,
    #[serde(skip_serializing_if = "is_default")]
    dev_minor: u32,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    xattrs: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<Digest>,
    #[serde(skip_serializing_if = "is_default")]
    chunk_offset: u64,
    #[serde(skip_serializing_if = "is_default")]
    chunk_size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    chunk_digest: Option<Digest>,
}

#[derive(Serialize)]
struct Table {
    version: u32,
    entries: Vec<Written>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// The names of users and groups: a name is told where a number first has it.
#[derive(Default)]
struct Names(BTreeMap<u32, Vec<u8>>);

impl Names {
    fn new_of(&mut self, id: u32, name: &[u8]) -> String {
        if name.is_empty() || self.0.get(&id).is_some_and(|known| known == name) {
            return String::new();
        }
        self.0.insert(id, name.to_vec());
        text(name)
    }
}

/// A time in UTC, to the second; nothing for one that nobody set.
fn time(at: Timestamp) -> String {
    match at.rounded().seconds {
        _ if at == Timestamp::default() => String::new(),
        seconds => jiff::Timestamp::from_second(seconds).map(|time| time.to_string()).unwrap_or_default(),
    }
}

/// The tar that holds the table, and the table's digest. `begun` tells of each member of the blob.
pub(super) fn tar(entries: Vec<Entry>, begun: &[Begun]) -> io::Result<(Vec<u8>, Digest)> {
    let (mut users, mut groups) = (Names::default(), Names::default());
    let written = entries.into_iter().map(|Entry { name, file, kind, header }| {
        let member = file.member.and_then(|member| begun.get(member));
        let single = file.offset == 0 && file.size.is_none();
        let part = member.map(|member| member.data);
        let header = header.unwrap_or_else(|| Box::new(Header::new("", Kind::File)));
        let xattr = |(name, value): (&[u8], &[u8])| (text(name), STANDARD.encode(value));
        let is_device = matches!(header.kind, Kind::CharDevice | Kind::BlockDevice);
        let device = if is_device { header.device } else { (0, 0) };
        Written {
            name,
            r#type: kind,
            size: if header.kind == Kind::File { header.size } else { 0 },
            modified: time(header.mtime),
            link_name: text(&header.link),
            mode: header.mode,
            uid: header.uid,
            gid: header.gid,
            user_name: users.new_of(header.uid, &header.user),
            group_name: groups.new_of(header.gid, &header.group),
            offset: member.map_or(0, |member| member.at),
            dev_major: device.0,
            dev_minor: device.1,
            xattrs: header.xattrs().map(xattr).collect(),
            digest: file.digest.or(part.filter(|_| single && kind == "reg")),
            chunk_offset: file.offset,
            chunk_size: file.size.unwrap_or(0),
            chunk_digest: part,
        }
    });
    let table = Table { version: 1, entries: written.collect() };
    let json = gojson::to_vec(&table).map_err(io::Error::other)?;
    let mut tar = Writer::new(Vec::with_capacity(json.len() + 2048));
    let mut header = Header::new(NAME, Kind::File);
    header.size = json.len() as u64;
    tar.entry(&header)?;
    tar.data(&json)?;
    Ok((tar.finish()?, Digest::of(&json)))
}
