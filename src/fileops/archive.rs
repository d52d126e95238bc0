//! Archives as they come: packed in one of several ways, or no archives at all.

use crate::root::Root;
use crate::{Error, Result};
use crosskit_images::compression::LayerReader;
use crosskit_images::tar::{Header, Kind, Reader, ReaderLimits};
use rustix::fs::{FileType, OFlags};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Formats that other programs unpack: the first bytes, the program, its package in Debian.
const PROGRAMS: [(&[u8], &str, &str); 2] =
    [(b"BZh", "bzip2", "bzip2"), (&[0xfd, b'7', b'z', b'X', b'Z', 0], "xz", "xz-utils")];

/// An archive whose first entry has been read.
pub(crate) struct Opened {
    /// The first entry.
    pub(crate) first: Header,
    /// Its data and what follows.
    pub(crate) reader: Reader<Box<dyn BufRead>>,
    /// The archive's path, for messages.
    pub(crate) shown: String,
    /// What unpacks it, where another program does.
    pub(crate) helper: Option<Helper>,
}

/// Opens the archive at a path. None if it is no archive, or nothing that can be read.
pub(crate) fn open(source: &Root, path: &[u8]) -> Result<Option<Opened>> {
    let real = source.resolve(path, true)?;
    let shown = crate::error::shown(&real);
    let wrong = |reason: String| Error::Archive { path: shown.clone(), reason };
    match source.stat(&real)? {
        Some(stat) if FileType::from_raw_mode(stat.st_mode).is_file() => {}
        // Whoever wanted to read it says what is wrong with it.
        _ => return Ok(None),
    }
    let file = source
        .open_raw(&real, OFlags::RDONLY | OFlags::NONBLOCK)
        .map_err(|e| Error::path("open", &real, e))?;
    let mut file = File::from(file);
    let mut first = [0; 6];
    let have = read_some(&mut file, &mut first).map_err(|e| wrong(e.to_string()))?;
    file.rewind().map_err(|e| wrong(e.to_string()))?;
    let program = PROGRAMS.iter().find(|(magic, ..)| first[..have].starts_with(magic));
    let (input, helper): (Box<dyn BufRead>, Option<Helper>) = match program {
        Some((_, program, package)) => {
            let missing = || {
                wrong(format!(
                    "{program} is not installed here; install the package {package}, or pack with gzip or zstd"
                ))
            };
            let mut child = Helper::start(program, file).map_err(|_| missing())?;
            let output = child.0.stdout.take().ok_or_else(missing)?;
            (Box::new(BufReader::with_capacity(256 << 10, output)), Some(child))
        }
        None => (Box::new(LayerReader::new(file).map_err(|e| wrong(e.to_string()))?), None),
    };
    let mut reader = Reader::new(input, ReaderLimits::default());
    Ok(match reader.next_entry() {
        Ok(Some(first)) => Some(Opened { first, reader, shown, helper }),
        Ok(None) | Err(_) => None,
    })
}

/// When the newest file of an archive was changed, in seconds since 1970. None for what is no
/// archive, is damaged, or has no files. Blocks.
///
/// # Errors
/// A path that can't be read.
pub fn newest_time(root: &Path, path: &str) -> Result<Option<i64>> {
    let Some(opened) = open(&Root::open(root)?, path.as_bytes())? else { return Ok(None) };
    let Opened { first, mut reader, helper, .. } = opened;
    let mut newest = None;
    let mut next = Ok(Some(first));
    loop {
        match next {
            Ok(Some(header)) if header.kind == Kind::File => newest = newest.max(Some(header.mtime.seconds)),
            Ok(Some(_)) => {}
            Ok(None) => break,
            // What looked like an archive is something else.
            Err(_) => return Ok(None),
        }
        next = reader.next_entry();
    }
    drop(reader);
    drop(helper);
    Ok(newest)
}

fn read_some(file: &mut File, out: &mut [u8]) -> std::io::Result<usize> {
    let mut have = 0;
    while have < out.len() {
        match file.read(&mut out[have..])? {
            0 => break,
            got => have += got,
        }
    }
    Ok(have)
}

/// A program that unpacks; it goes when this does.
pub(crate) struct Helper(Child);

impl Helper {
    fn start(program: &str, input: File) -> std::io::Result<Helper> {
        let mut command = Command::new(program);
        command.args(["-d", "-c", "-q"]).stdin(input).stdout(Stdio::piped()).stderr(Stdio::null());
        command.spawn().map(Helper)
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        // It has mostly ended by itself.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crosskit_images::tar::{Timestamp, Writer};

    #[test]
    fn the_newest_file_tells_an_archives_time() {
        let dir = tempfile::tempdir().unwrap();
        let mut archive = Writer::new(Vec::new());
        let mut folder = Header::new("later/", Kind::Directory);
        folder.mtime = Timestamp::from_seconds(900);
        archive.entry(&folder).unwrap();
        for (name, seconds) in [("later/a", 100), ("later/b", 300), ("later/c", 200)] {
            archive.file(name, 0o644, Timestamp::from_seconds(seconds), b"x").unwrap();
        }
        let mut bytes = archive.finish().unwrap();
        std::fs::write(dir.path().join("whole"), &bytes).unwrap();
        bytes.truncate(600);
        std::fs::write(dir.path().join("cut"), &bytes).unwrap();
        std::fs::write(dir.path().join("text"), "no archive").unwrap();
        std::fs::write(dir.path().join("empty"), "").unwrap();
        let newest = |name| newest_time(dir.path(), name).unwrap();
        assert_eq!(newest("whole"), Some(300));
        for none in ["cut", "text", "empty", "absent", "."] {
            assert_eq!(newest(none), None, "{none}");
        }
    }
}
