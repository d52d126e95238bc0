//! Archives that are unpacked instead of copied, as ADD does.

use crate::archive::{self, Opened};
use crate::copy::Target;
use crate::root::{Owner, Root, join, set_owner, split, timestamps};
use crate::{Error, Result};
use crosskit_images::tar::{Header, Kind, Reader};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io::{BufRead, Read, Seek};
use std::os::fd::{AsFd, AsRawFd};
use tokio_util::sync::CancellationToken;

/// Unpacks the archive at a path into a folder of the target. False if it is no archive.
pub(crate) fn unpack(
    source: &Root,
    path: &[u8],
    target: &mut Target,
    dest: &str,
    owner: Option<Owner>,
    time: Option<i64>,
    cancel: &CancellationToken,
) -> Result<bool> {
    let Some(Opened { first, mut reader, shown, helper }) = archive::open(source, path)? else {
        return Ok(false);
    };
    let wrong = |reason: String| Error::Archive { path: shown.clone(), reason };
    let real_dest = target.root.resolve(dest.as_bytes(), true)?;
    target.root.make_folders(&real_dest, 0o755, owner, time)?;
    let root = target.root.below(&real_dest)?;
    let mut unpacking = Unpacking { root, owner, times: Vec::new() };
    let mut next = Some(first);
    while let Some(header) = next {
        if cancel.is_cancelled() {
            return Err(Error::Canceled);
        }
        unpacking.entry(&header, &mut reader, &shown)?;
        next = reader.next_entry().map_err(|e| wrong(e.to_string()))?;
    }
    unpacking.finish()?;
    drop(reader);
    drop(helper);
    Ok(true)
}

struct Unpacking {
    /// The destination: nothing in the archive means a place outside.
    root: Root,
    owner: Option<Owner>,
    /// Folders whose time is set when nothing more comes into them.
    times: Vec<(Vec<u8>, Timestamps)>,
}

impl Unpacking {
    fn entry<R: BufRead>(&mut self, header: &Header, data: &mut Reader<R>, archive: &str) -> Result<()> {
        let (parent, name) = split_name(&header.name);
        let parent = self.root.resolve(&parent, true)?;
        self.root.make_folders(&parent, 0o755, None, None)?;
        let real = if name.is_empty() { parent.clone() } else { join(&parent, &name) };
        let there = self.root.stat(&real)?;
        let is_folder = there.is_some_and(|stat| FileType::from_raw_mode(stat.st_mode).is_dir());
        if there.is_some() && !(is_folder && header.kind == Kind::Directory) {
            self.root.remove(&real)?;
        }
        let failed = |op| {
            let real = &real;
            move |e: Errno| Error::path(op, real, e)
        };
        let (dir, base) = self.root.parent(&real)?;
        let mode = Mode::from_raw_mode(header.mode & 0o7777);
        match header.kind {
            Kind::Directory if is_folder => {}
            Kind::Directory => rustix::fs::mkdirat(&dir, base, mode).map_err(failed("mkdir"))?,
            Kind::File => self.file(header, data, &real, archive)?,
            Kind::HardLink => {
                let target = self.root.resolve(&header.link, false)?;
                let (from, target) = self.root.parent(&target)?;
                rustix::fs::linkat(&from, target, &dir, base, AtFlags::empty()).map_err(failed("link"))?;
                // Its attributes are those of the first name.
                return Ok(());
            }
            Kind::Symlink => {
                rustix::fs::symlinkat(&header.link[..], &dir, base).map_err(failed("symlink"))?
            }
            Kind::CharDevice | Kind::BlockDevice | Kind::Fifo => {
                let kind = match header.kind {
                    Kind::CharDevice => FileType::CharacterDevice,
                    Kind::BlockDevice => FileType::BlockDevice,
                    _ => FileType::Fifo,
                };
                let device = rustix::fs::makedev(header.device.0, header.device.1);
                match rustix::fs::mknodat(&dir, base, kind, mode, device) {
                    // Only the real root may make devices; without them most archives still serve.
                    Err(Errno::PERM) if crosskit_rootless::is_inside() => {
                        let name = String::from_utf8_lossy(&real);
                        tracing::warn!(%name, "a device was left out: devices cannot be made in a user namespace");
                        return Ok(());
                    }
                    made => made.map_err(failed("mknod"))?,
                }
            }
            Kind::Other(_) => return Ok(()),
        }
        let owner = self.owner.unwrap_or(Owner { uid: header.uid, gid: header.gid });
        let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
        rustix::fs::chownat(&dir, base, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(failed("lchown"))?;
        let path = [format!("/proc/self/fd/{}/", dir.as_raw_fd()).as_bytes(), base].concat();
        for (name, value) in header.xattrs() {
            // As far as they can be set here.
            if let Err(why) = rustix::fs::lsetxattr(&path[..], name, value, XattrFlags::empty()) {
                tracing::debug!(name = %String::from_utf8_lossy(name), %why, "an extended attribute was not unpacked");
            }
        }
        if header.kind != Kind::Symlink {
            rustix::fs::chmodat(&dir, base, mode, AtFlags::empty()).map_err(failed("chmod"))?;
        }
        let time = Timespec { tv_sec: header.mtime.seconds, tv_nsec: header.mtime.nanos.into() };
        let times = Timestamps { last_access: time, last_modification: time };
        if header.kind == Kind::Directory {
            self.times.push((real, times));
            return Ok(());
        }
        self.root.set_time(&real, &times)
    }

    fn file<R: BufRead>(
        &self,
        header: &Header,
        data: &mut Reader<R>,
        real: &[u8],
        archive: &str,
    ) -> Result<()> {
        let (dir, base) = self.root.parent(real)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&dir, base, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|e| Error::path("open", real, e))?;
        let mut file = File::from(file);
        let wrong = |e: std::io::Error| match Errno::from_io_error(&e) {
            Some(errno) => Error::path("write", real, errno),
            None => Error::Archive { path: archive.to_string(), reason: e.to_string() },
        };
        match &header.pieces {
            None => drop(std::io::copy(data, &mut file).map_err(wrong)?),
            Some(pieces) => {
                for (offset, length) in pieces {
                    file.seek(std::io::SeekFrom::Start(*offset)).map_err(wrong)?;
                    std::io::copy(&mut data.take(*length), &mut file).map_err(wrong)?;
                }
                file.set_len(header.size).map_err(wrong)?;
            }
        }
        set_owner(file.as_fd(), self.owner.unwrap_or(Owner { uid: header.uid, gid: header.gid }))
            .map_err(|e| Error::path("chown", real, e))?;
        let time = timestamps(header.mtime.seconds.saturating_mul(1_000_000_000));
        rustix::fs::futimens(&file, &time).map_err(|e| Error::path("utimensat", real, e))
    }

    fn finish(self) -> Result<()> {
        // The last first: it is below an earlier one.
        self.times.iter().rev().try_for_each(|(real, times)| self.root.set_time(real, times))
    }
}

/// The folder and the last part of an entry's name, taken by its letters.
fn split_name(name: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in name.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    let whole = parts.join(&b'/');
    let (dir, base) = split(&whole);
    (dir.to_vec(), base.to_vec())
}
