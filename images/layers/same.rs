//! Whether a file of a layer says anything that the layers below do not say already.
//!
//! The rules are those of containerd's continuity library: other contents could be told apart only by reading, so
//! equal sizes and times pass for equal contents, unless both times are whole seconds, as after an unpacked tar.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::BorrowedFd;

use rustix::fs::{FileType, Mode, OFlags, openat, readlinkat};

use super::stat::Meta;
use super::xattrs;

/// A name in a folder.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) dir: BorrowedFd<'a>,
    pub(super) base: &'a [u8],
}

pub(super) fn same(lower: (Place<'_>, &Meta), upper: (Place<'_>, &Meta)) -> io::Result<bool> {
    let ((lower, below), (upper, above)) = (lower, upper);
    let (b, a) = (&below.0, &above.0);
    if b.st_dev == a.st_dev && b.st_ino == a.st_ino {
        return Ok(true);
    }
    if (b.st_mode, b.st_uid, b.st_gid, b.st_rdev) != (a.st_mode, a.st_uid, a.st_gid, a.st_rdev) {
        return Ok(false);
    }
    let capability = |place: Place<'_>| xattrs::get_at(place.dir, place.base, b"security.capability");
    if capability(lower)? != capability(upper)? {
        return Ok(false);
    }
    if above.is_dir() {
        return Ok(true);
    }
    if below.size() != above.size() || below.mtime() != above.mtime() {
        return Ok(false);
    }
    if above.mtime().nanos != 0 {
        return Ok(true);
    }
    match above.file_type() {
        FileType::Symlink => {
            Ok(readlinkat(lower.dir, lower.base, Vec::new())?
                == readlinkat(upper.dir, upper.base, Vec::new())?)
        }
        FileType::RegularFile if above.size() > 0 => same_contents(lower, upper),
        _ => Ok(true),
    }
}

fn same_contents(lower: Place<'_>, upper: Place<'_>) -> io::Result<bool> {
    const CHUNK: usize = 64 << 10;
    let (mut lower, mut upper) = (open(lower)?, open(upper)?);
    let (mut left, mut right) = (vec![0; CHUNK], vec![0; CHUNK]);
    loop {
        let (l, r) = (fill(&mut lower, &mut left)?, fill(&mut upper, &mut right)?);
        if left[..l] != right[..r] {
            return Ok(false);
        }
        if l < CHUNK {
            return Ok(true);
        }
    }
}

/// Opens a regular file for reading.
pub(super) fn open(place: Place<'_>) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(File::from(openat(place.dir, place.base, flags, Mode::empty())?))
}

fn fill(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut have = 0;
    while have < buffer.len() {
        match file.read(&mut buffer[have..]) {
            Ok(0) => break,
            Ok(got) => have += got,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(have)
}
