//! The digest of one file, symbolic link, device or folder by itself.
//!
//! It is the sha256 of the header that such an entry has in a tar stream, written as Docker's old
//! "tarsum" did (version 1: without times), and of the content behind it.

use crosskit_images::Digest;
use sha2::{Digest as _, Sha256};

/// Go's `os.FileMode`, as it is on the wire (fsutil types/stat.proto).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GoMode(pub u32);

impl GoMode {
    const DIR: u32 = 1 << 31;
    const SYMLINK: u32 = 1 << 27;
    const DEVICE: u32 = 1 << 26;
    const NAMED_PIPE: u32 = 1 << 25;
    const SETUID: u32 = 1 << 23;
    const SETGID: u32 = 1 << 22;
    const CHAR_DEVICE: u32 = 1 << 21;
    const STICKY: u32 = 1 << 20;
    const SOCKET: u32 = 1 << 24;

    /// From `st_mode`.
    pub fn from_unix(mode: u32) -> GoMode {
        let mut go = mode & 0o777;
        go |= match mode & 0o170000 {
            0o040000 => Self::DIR,
            0o120000 => Self::SYMLINK,
            0o060000 => Self::DEVICE,
            0o020000 => Self::DEVICE | Self::CHAR_DEVICE,
            0o010000 => Self::NAMED_PIPE,
            0o140000 => Self::SOCKET,
            _ => 0,
        };
        for (unix, bit) in [(0o4000, Self::SETUID), (0o2000, Self::SETGID), (0o1000, Self::STICKY)] {
            go |= if mode & unix != 0 { bit } else { 0 };
        }
        GoMode(go)
    }

    /// To `st_mode`.
    pub fn to_unix(self) -> u32 {
        let kind = match self.0 {
            m if m & Self::DIR != 0 => 0o040000,
            m if m & Self::SYMLINK != 0 => 0o120000,
            m if m & Self::DEVICE != 0 && m & Self::CHAR_DEVICE != 0 => 0o020000,
            m if m & Self::DEVICE != 0 => 0o060000,
            m if m & Self::NAMED_PIPE != 0 => 0o010000,
            m if m & Self::SOCKET != 0 => 0o140000,
            _ => 0o100000,
        };
        kind | self.permissions()
    }

    /// The twelve permission bits as tar and `chmod` have them.
    fn permissions(self) -> u32 {
        let mut mode = self.0 & 0o777;
        for (unix, bit) in [(0o4000, Self::SETUID), (0o2000, Self::SETGID), (0o1000, Self::STICKY)] {
            mode |= if self.0 & bit != 0 { unix } else { 0 };
        }
        mode
    }

    /// Whether it is a folder.
    pub fn is_dir(self) -> bool {
        self.0 & Self::DIR != 0
    }

    /// Whether it is a symbolic link.
    pub fn is_symlink(self) -> bool {
        self.0 & Self::SYMLINK != 0
    }

    /// The type in a tar header. Sockets have none and count as files.
    fn typeflag(self) -> u8 {
        match self.to_unix() & 0o170000 {
            0o040000 => b'5',
            0o120000 => b'2',
            0o020000 => b'3',
            0o060000 => b'4',
            0o010000 => b'6',
            _ => b'0',
        }
    }
}

/// What of an entry's metadata counts.
#[derive(Debug, Clone)]
pub struct EntryHeader<'a> {
    /// Type and permissions.
    pub mode: GoMode,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes of content; counts for files only.
    pub size: u64,
    /// Where a symbolic link points.
    pub linkname: &'a [u8],
    /// Device numbers, of devices.
    pub device: (u32, u32),
    /// Extended attributes, in any order.
    pub xattrs: Vec<(&'a [u8], &'a [u8])>,
}

/// The digest of an entry in the making: its header is in, the content follows.
#[derive(Clone)]
pub struct FileHasher(Sha256);

impl FileHasher {
    /// Begins with a header.
    pub fn new(header: &EntryHeader<'_>) -> FileHasher {
        let mut text = Vec::with_capacity(128);
        let mut field = |name: &str, value: &[u8]| {
            text.extend_from_slice(name.as_bytes());
            text.extend_from_slice(value);
        };
        let typeflag = header.mode.typeflag();
        let size = if typeflag == b'0' { header.size } else { 0 };
        field("name", b"");
        field("mode", header.mode.permissions().to_string().as_bytes());
        field("uid", header.uid.to_string().as_bytes());
        field("gid", header.gid.to_string().as_bytes());
        field("size", size.to_string().as_bytes());
        field("typeflag", &[typeflag]);
        field("linkname", if typeflag == b'2' { header.linkname } else { b"" });
        field("uname", b"");
        field("gname", b"");
        field("devmajor", header.device.0.to_string().as_bytes());
        field("devminor", header.device.1.to_string().as_bytes());
        let mut xattrs: Vec<_> = header.xattrs.iter().filter(|(name, _)| counts(name)).collect();
        xattrs.sort();
        for (name, value) in xattrs {
            text.extend_from_slice(name);
            text.extend_from_slice(value);
        }
        FileHasher(Sha256::new_with_prefix(&text))
    }

    /// Takes content.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest.
    pub fn finish(self) -> Digest {
        Digest::from_bytes(self.finish_raw())
    }

    pub(crate) fn finish_raw(self) -> [u8; 32] {
        self.0.finalize().into()
    }
}

/// Attributes that the system sets by itself say nothing about the content.
fn counts(name: &[u8]) -> bool {
    name == b"security.capability" || !name.starts_with(b"security.") && !name.starts_with(b"system.")
}
