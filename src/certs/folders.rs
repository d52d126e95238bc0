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

    /// Makes the authority's files, for [`Staged::place`].
    pub(crate) fn stage_authority(
        &self,
        authority: &Authority,
        staged: &mut Staged,
    ) -> Result<(), CertsError> {
        let folder = self.path(AUTHORITY);
        make_folder(&folder, 0o700, staged)?;
        staged.add(folder.join("key.pem"), SECRET, &authority.key())?;
        staged.add(folder.join("ca.pem"), OPEN, &authority.cert)
    }

    /// Makes the files of a daemon or a client, for [`Staged::place`].
    pub(crate) fn stage_pair(
        &self,
        name: &Name,
        authority: &Authority,
        pair: &Pair,
        staged: &mut Staged,
    ) -> Result<(), CertsError> {
        let folder = self.path(name.as_str());
        make_folder(&folder, 0o755, staged)?;
        let [ca, cert, key] = FILES.map(|file| folder.join(file));
        staged.add(key, SECRET, &pair.key)?;
        staged.add(cert, OPEN, &pair.cert)?;
        staged.add(ca, OPEN, &authority.cert)
    }
}

fn make_folder(folder: &Path, mode: u32, staged: &mut Staged) -> Result<(), CertsError> {
    match DirBuilder::new().mode(mode).create(folder) {
        Ok(()) => staged.folders.push(folder.into()),
        Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
        Err(e) => return Err(CertsError::file("creating the folder", folder)(e)),
    }
    Ok(())
}

/// Files that are written, but not where they are looked for yet. Those that do not get there are taken away.
#[derive(Default)]
pub(crate) struct Staged {
    files: Vec<PathBuf>,
    folders: Vec<PathBuf>,
}

impl Staged {
    fn beside(file: &Path) -> PathBuf {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        file.with_file_name(format!(".{name}.new"))
    }

    fn add(&mut self, file: PathBuf, mode: u32, text: &str) -> Result<(), CertsError> {
        let new = Staged::beside(&file);
        // Of a run that was killed; nobody else is here.
        let _ = fs::remove_file(&new);
        self.files.push(file.clone());
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(new)
            .and_then(|mut out| out.write_all(text.as_bytes()).and_then(|()| out.sync_all()))
            .map_err(CertsError::file("writing", file))
    }

    /// Puts all of them in their places.
    pub(crate) fn place(mut self) -> Result<(), CertsError> {
        // Nothing of what was made is to go away from here on.
        self.folders.clear();
        for file in &self.files {
            fs::rename(Staged::beside(file), file).map_err(CertsError::file("putting in place", file))?;
        }
        Ok(())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // What is in its place, or not empty, stays; what went wrong has been told.
        for file in &self.files {
            let _ = fs::remove_file(Staged::beside(file));
        }
        for folder in &self.folders {
            let _ = fs::remove_dir(folder);
        }
    }
}
