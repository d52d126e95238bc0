//! The files.

use crate::arguments::{AUTHORITY, Name};
use crate::authority::{Authority, Pair};
use crate::error::CertsError;
use rustix::fs::{FlockOperation, flock};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// What a daemon or a client has.
pub(crate) const FILES: [&str; 3] = ["ca.pem", "cert.pem", "key.pem"];

/// Everybody may read certificates, nobody else keys.
const OPEN: u32 = 0o644;
const SECRET: u32 = 0o600;

/// The folder with all of them. Nobody else writes to it while this is there.
pub(crate) struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    /// Opens it, and makes it if that is wanted.
    pub(crate) fn open(path: &Path, make: bool) -> Result<Folder, CertsError> {
        if make {
            fs::create_dir_all(path).map_err(CertsError::file("creating the folder", path))?;
        }
        let lock = File::open(path).map_err(CertsError::file("opening the folder", path))?;
        flock(&lock, FlockOperation::LockExclusive)
            .map_err(|e| CertsError::file("locking the folder", path)(e.into()))?;
        Ok(Folder { path: path.into(), _lock: lock })
    }

    pub(crate) fn place(&self) -> &Path {
        &self.path
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The first file that there is of a daemon or a client.
    pub(crate) fn has(&self, name: &Name) -> Option<PathBuf> {
        FILES
            .map(|file| self.path(name.as_str()).join(file))
            .into_iter()
            .find(|file| file.symlink_metadata().is_ok())
    }

    /// The names of those that are whole.
    pub(crate) fn names(&self) -> Result<Vec<String>, CertsError> {
        let failed = || CertsError::file("reading the folder", &self.path);
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(failed())? {
            let entry = entry.map_err(failed())?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name != AUTHORITY && FILES.iter().all(|file| entry.path().join(file).is_file()) {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    pub(crate) fn write_authority(&self, authority: &Authority) -> Result<(), CertsError> {
        let files = [("key.pem", SECRET, authority.key()), ("ca.pem", OPEN, authority.cert.clone())];
        self.write(AUTHORITY, 0o700, &files)
    }

    pub(crate) fn write_pair(
        &self,
        name: &Name,
        authority: &Authority,
        pair: &Pair,
    ) -> Result<(), CertsError> {
        let [ca, cert, key] = FILES;
        let files = [
            (key, SECRET, pair.key.clone()),
            (cert, OPEN, pair.cert.clone()),
            (ca, OPEN, authority.cert.clone()),
        ];
        self.write(name.as_str(), 0o755, &files)
    }

    /// Writes all of these files, each whole, or none.
    fn write(&self, name: &str, mode: u32, files: &[(&str, u32, String)]) -> Result<(), CertsError> {
        let folder = self.path(name);
        match DirBuilder::new().mode(mode).create(&folder) {
            Err(e) if e.kind() != ErrorKind::AlreadyExists => {
                return Err(CertsError::file("creating the folder", &folder)(e));
            }
            _ => {}
        }
        let beside = |file: &str| folder.join(format!(".{file}.new"));
        let written = files.iter().try_for_each(|(file, mode, text)| {
            let new = beside(file);
            // Of a run that was killed; nobody else is here.
            let _ = fs::remove_file(&new);
            OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(*mode)
                .open(&new)
                .and_then(|mut out| out.write_all(text.as_bytes()).and_then(|()| out.sync_all()))
                .map_err(CertsError::file("writing", folder.join(file)))
        });
        let placed = written.and_then(|()| {
            files.iter().try_for_each(|(file, ..)| {
                fs::rename(beside(file), folder.join(file))
                    .map_err(CertsError::file("putting in place", folder.join(file)))
            })
        });
        if placed.is_err() {
            for (file, ..) in files {
                // The error of the writing is the one to tell.
                let _ = fs::remove_file(beside(file));
            }
        }
        placed
    }
}
