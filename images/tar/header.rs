//! What a tar says about one entry.

use std::collections::BTreeMap;

use super::XATTR_PREFIX;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A regular file.
    File,
    /// A further name of a file earlier in the archive.
    HardLink,
    /// A symbolic link.
    Symlink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
    /// Something else, by its type byte; its data can be skipped.
    Other(u8),
}

impl Kind {
    /// The type byte.
    pub const fn flag(self) -> u8 {
        match self {
            Self::File => b'0',
            Self::HardLink => b'1',
            Self::Symlink => b'2',
            Self::CharDevice => b'3',
            Self::BlockDevice => b'4',
            Self::Directory => b'5',
            Self::Fifo => b'6',
            Self::Other(flag) => flag,
        }
    }

    /// Whether data follows the header.
    pub const fn has_data(self) -> bool {
        matches!(self, Self::File | Self::Other(_))
    }
}

/// A point in time: seconds since 1970 and nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    /// Seconds since 1970-01-01, negative before.
    pub seconds: i64,
    /// Nanoseconds, less than 1 000 000 000.
    pub nanos: u32,
}

impl Timestamp {
    /// A whole second.
    pub const fn from_seconds(seconds: i64) -> Self {
        Self { seconds, nanos: 0 }
    }

    /// The second it lies in.
    #[must_use]
    pub const fn truncated(self) -> Self {
        Self { seconds: self.seconds, nanos: 0 }
    }

    /// The nearest second; a half goes up, as Go's `Time.Round` does.
    #[must_use]
    pub const fn rounded(self) -> Self {
        Self { seconds: self.seconds + (self.nanos >= 500_000_000) as i64, nanos: 0 }
    }
}

/// One entry of a tar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The path, as written: a directory's ends with `/`.
    pub name: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Permission bits with set-id and sticky bits.
    pub mode: u32,
    /// The owner's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
    /// The file's size in bytes.
    pub size: u64,
    /// When it was changed.
    pub mtime: Timestamp,
    /// Where a link points.
    pub link: Vec<u8>,
    /// The owner's name; empty in layers.
    pub user: Vec<u8>,
    /// The group's name; empty in layers.
    pub group: Vec<u8>,
    /// A device's major and minor number.
    pub device: (u32, u32),
    /// PAX records that none of the fields stands for: extended attributes and foreign records.
    pub records: BTreeMap<Vec<u8>, Vec<u8>>,
    /// For a sparse file the (offset, length) of each piece of data that the archive holds, in order.
    pub pieces: Option<Vec<(u64, u64)>>,
}

impl Header {
    /// An entry of nobody's, with nothing in it.
    pub fn new(name: impl Into<Vec<u8>>, kind: Kind) -> Self {
        Self {
            name: name.into(),
            kind,
            mode: 0,
            uid: 0,
            gid: 0,
            size: 0,
            mtime: Timestamp::default(),
            link: Vec::new(),
            user: Vec::new(),
            group: Vec::new(),
            device: (0, 0),
            records: BTreeMap::new(),
            pieces: None,
        }
    }

    /// Adds an extended attribute.
    pub fn set_xattr(&mut self, name: &[u8], value: impl Into<Vec<u8>>) {
        self.records.insert([XATTR_PREFIX.as_bytes(), name].concat(), value.into());
    }

    /// The extended attributes.
    pub fn xattrs(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.records
            .iter()
            .filter_map(|(key, value)| Some((key.strip_prefix(XATTR_PREFIX.as_bytes())?, value.as_slice())))
    }
}
