//! The certificate of a step's proxy, in the files where programs look for those that they trust: there while the step
//! runs, and not in what the step leaves.

use std::{
    fs::File,
    io::{self, Read},
    os::{
        fd::OwnedFd,
        unix::fs::{FileExt, MetadataExt},
    },
    path::Path,
};

use rustix::{
    fs::{OFlags, Timespec, Timestamps, futimens},
    io::Errno,
};

use crate::{Error, Mount, Result, error::file_error, rootfs::Rootfs};

/// Where systems keep the certificates that programs trust, in one file.
const BUNDLES: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// More than any real one has, in bytes.
const LIMIT: u64 = 10 << 20;
/// Before and after our certificate; people and scripts know BuildKit's.
const BEGIN: &str = "\n# buildkit proxy CA begin\n";
const END: &str = "# buildkit proxy CA end\n";

/// A certificate that was added to the files of a root filesystem.
#[derive(Debug)]
pub(crate) struct Trusted {
    certificate: String,
    added: Vec<Added>,
}

/// A file that something was added to.
#[derive(Debug)]
struct Added {
    path: &'static str,
    before: Vec<u8>,
    times: Timestamps,
}

fn failed(doing: &'static str, path: &str) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Rootfs { doing, path, source }
}

impl Trusted {
    /// Adds a certificate to those files that there are.
    pub(crate) fn add(rootfs: &Rootfs, certificate: &str) -> Result<Self> {
        let mut trusted = Self { certificate: certificate.to_owned(), added: Vec::new() };
        for (path, before) in bundles(rootfs)? {
            if let Err(error) = trusted.append(rootfs, path, before) {
                let _ = trusted.remove(rootfs);
                return Err(error);
            }
        }
        Ok(trusted)
    }

    fn append(&mut self, rootfs: &Rootfs, path: &'static str, before: Vec<u8>) -> Result<()> {
        let Some(file) = open(rootfs, path, OFlags::RDWR)? else { return Ok(()) };
        let times = times(&file).map_err(failed("looking at", path))?;
        let block = block(&before, &self.certificate);
        let end = before.len() as u64;
        // First of all, so that it is taken out again if it was written in part only.
        self.added.push(Added { path, before, times });
        file.write_all_at(block.as_bytes(), end).map_err(failed("adding the proxy's certificate to", path))
    }

    /// Takes it out of every file, also out of those that the step has made or changed. Files that the step has not
    /// touched are what they were, times included.
    pub(crate) fn remove(&self, rootfs: &Rootfs) -> Result<()> {
        for path in BUNDLES {
            let Some(file) = open(rootfs, path, OFlags::RDONLY)? else { continue };
            let now = read(&file, path)?;
            let added = self.added.iter().find(|added| added.path == path);
            let untouched = added.filter(|added| {
                let rest = now.strip_prefix(added.before.as_slice());
                rest.is_some_and(|rest| block(&added.before, &self.certificate).as_bytes().starts_with(rest))
            });
            let without = match untouched {
                Some(added) => added.before.clone(),
                None => self.cleaned(&now),
            };
            if without == now && untouched.is_none() {
                continue;
            }
            let Some(file) = open(rootfs, path, OFlags::RDWR)? else { continue };
            let doing = "taking the proxy's certificate out of";
            let kept = times(&file).map_err(failed(doing, path))?;
            let same = without.iter().zip(&now).take_while(|(one, other)| one == other).count();
            let rest = without.get(same..).unwrap_or_default();
            file.write_all_at(rest, same as u64).map_err(failed(doing, path))?;
            file.set_len(without.len() as u64).map_err(failed(doing, path))?;
            let kept = untouched.map_or(kept, |added| added.times.clone());
            futimens(&file, &kept).map_err(|e| failed(doing, path)(e.into()))?;
        }
        Ok(())
    }

    /// A text without the certificate, wherever it is in it.
    fn cleaned(&self, text: &[u8]) -> Vec<u8> {
        let whole = format!("{BEGIN}{}{END}", self.certificate);
        without(&without(text, whole.as_bytes()), self.certificate.as_bytes())
    }
}

/// Shows a process a root filesystem that must not be written to with a certificate more: the files are made in a folder.
pub(crate) fn shown(rootfs: &Rootfs, certificate: &str, folder: &Path) -> Result<Vec<Mount>> {
    let mut mounts = Vec::new();
    for (number, (path, mut text)) in bundles(rootfs)?.into_iter().enumerate() {
        let file = folder.join(format!("trust-{number}"));
        text.extend_from_slice(block(&text, certificate).as_bytes());
        std::fs::write(&file, text).map_err(file_error("writing", &file))?;
        mounts.push(Mount::bind(file, path, true));
    }
    Ok(mounts)
}

/// What is added to a text.
fn block(before: &[u8], certificate: &str) -> String {
    let gap = if before.last().is_some_and(|last| *last != b'\n') { "\n" } else { "" };
    format!("{gap}{BEGIN}{certificate}{END}")
}

fn without(text: &[u8], piece: &[u8]) -> Vec<u8> {
    let mut rest = text.to_vec();
    while let Some(at) = rest.windows(piece.len()).position(|window| window == piece) {
        rest.drain(at..at + piece.len());
    }
    rest
}

/// The files that there are, each once even if it has several names, with what is in them.
fn bundles(rootfs: &Rootfs) -> Result<Vec<(&'static str, Vec<u8>)>> {
    let (mut known, mut found) = (Vec::new(), Vec::new());
    for path in BUNDLES {
        let Some(file) = open(rootfs, path, OFlags::RDONLY)? else { continue };
        let about = file.metadata().map_err(failed("looking at", path))?;
        let id = (about.dev(), about.ino());
        if !known.contains(&id) {
            known.push(id);
            found.push((path, read(&file, path)?));
        }
    }
    Ok(found)
}

/// A regular file; None where there is none.
fn open(rootfs: &Rootfs, path: &str, access: OFlags) -> Result<Option<File>> {
    // NONBLOCK: a FIFO in its place must not make us wait.
    let file: OwnedFd = match rootfs.open_at(path, access | OFlags::NONBLOCK) {
        Ok(file) => file,
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::ISDIR | Errno::NXIO) => return Ok(None),
        Err(errno) => return Err(failed("opening", path)(errno.into())),
    };
    let file = File::from(file);
    let about = file.metadata().map_err(failed("looking at", path))?;
    Ok(about.is_file().then_some(file))
}

fn read(file: &File, path: &str) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    file.take(LIMIT + 1).read_to_end(&mut text).map_err(failed("reading", path))?;
    if text.len() as u64 > LIMIT {
        let source = io::Error::new(io::ErrorKind::FileTooLarge, format!("it exceeds {LIMIT} bytes"));
        return Err(failed("reading", path)(source));
    }
    Ok(text)
}

fn times(file: &File) -> io::Result<Timestamps> {
    let about = file.metadata()?;
    Ok(Timestamps {
        last_access: Timespec { tv_sec: about.atime(), tv_nsec: about.atime_nsec() as _ },
        last_modification: Timespec { tv_sec: about.mtime(), tv_nsec: about.mtime_nsec() as _ },
    })
}
