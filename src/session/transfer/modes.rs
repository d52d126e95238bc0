//! File modes as they travel: the bits of Go's `fs.FileMode`, not those of Unix.

/// A folder.
pub(crate) const DIR: u32 = 1 << 31;
const SYMLINK: u32 = 1 << 27;
const DEVICE: u32 = 1 << 26;
const FIFO: u32 = 1 << 25;
const SOCKET: u32 = 1 << 24;
const SETUID: u32 = 1 << 23;
const SETGID: u32 = 1 << 22;
const CHAR_DEVICE: u32 = 1 << 21;
const STICKY: u32 = 1 << 20;
const IRREGULAR: u32 = 1 << 19;
/// All bits that say that something is not a plain file.
const TYPE: u32 = DIR | SYMLINK | DEVICE | FIFO | SOCKET | CHAR_DEVICE | IRREGULAR;

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// Bytes.
    File,
    /// A folder.
    Dir,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// Something that cannot be made again: a socket, or what is unknown here.
    Other,
}

/// What a travelling mode says a file is.
pub fn kind_of(mode: u32) -> FileKind {
    match mode & TYPE {
        0 => FileKind::File,
        bits if bits & DIR != 0 => FileKind::Dir,
        bits if bits & SYMLINK != 0 => FileKind::Symlink,
        bits if bits & FIFO != 0 => FileKind::Fifo,
        bits if bits & CHAR_DEVICE != 0 => FileKind::CharDevice,
        bits if bits & DEVICE != 0 => FileKind::BlockDevice,
        _ => FileKind::Other,
    }
}

/// The travelling form of `st_mode`. A socket travels as an empty file: archives know none.
pub fn mode_from_unix(mode: u32) -> u32 {
    let kind = match mode & libc::S_IFMT {
        libc::S_IFDIR => DIR,
        libc::S_IFLNK => SYMLINK,
        libc::S_IFIFO => FIFO,
        libc::S_IFBLK => DEVICE,
        libc::S_IFCHR => DEVICE | CHAR_DEVICE,
        _ => 0,
    };
    let special = [(libc::S_ISUID, SETUID), (libc::S_ISGID, SETGID), (libc::S_ISVTX, STICKY)];
    special.iter().filter(|(unix, _)| mode & unix != 0).fold(kind | mode & 0o777, |all, (_, go)| all | go)
}

/// The permissions of a travelling mode as Unix has them, with setuid, setgid and sticky.
pub fn mode_to_unix(mode: u32) -> u32 {
    let special = [(libc::S_ISUID, SETUID), (libc::S_ISGID, SETGID), (libc::S_ISVTX, STICKY)];
    special.iter().filter(|(_, go)| mode & go != 0).fold(mode & 0o777, |all, (unix, _)| all | unix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_travel_as_go_writes_them() {
        // Values printed by Go's fs.FileMode for these files.
        for (unix, go, kind) in [
            (0o100644, 0o644, FileKind::File),
            (0o040755, 0x8000_01ed, FileKind::Dir),
            (0o120777, 0x0800_01ff, FileKind::Symlink),
            (0o104755, 0x0080_01ed, FileKind::File),
            (0o041777, 0x8010_01ff, FileKind::Dir),
            (0o020666, 0x0420_01b6, FileKind::CharDevice),
            (0o060660, 0x0400_01b0, FileKind::BlockDevice),
            (0o010600, 0x0200_0180, FileKind::Fifo),
            (0o140755, 0o755, FileKind::File),
        ] {
            assert_eq!(mode_from_unix(unix), go, "{unix:o}");
            assert_eq!(kind_of(go), kind);
            assert_eq!(mode_to_unix(go), unix & 0o7777);
        }
    }
}
