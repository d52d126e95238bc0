//! What was there before the first change, so that it can be brought back.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::mounted::user_namespace;
use crate::{Binfmt, Entry, Error, Result, file_error, write_whole};

/// Entries of the kernel before and since the first change, until the next restart takes them all.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Which start of the machine they belong to.
    boot: String,
    /// Entries that were there.
    before: Vec<Entry>,
    /// Names of entries that were put there since.
    pub(crate) ours: Vec<String>,
}

/// Numbers of namespaces are used again: what tells two of them apart is when their instance came to be.
fn boot(binfmt: &Binfmt) -> String {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let own = user_namespace().and_then(|_| fs::metadata(binfmt.dir.join("status")).ok());
    let since = own.map(|about| format!(" {}.{:09}", about.ctime(), about.ctime_nsec()));
    boot.trim().to_owned() + &since.unwrap_or_default()
}

/// Entries of a user namespace's own go with it, and so does what is written down of them.
fn file(root: &Path) -> PathBuf {
    let Some(number) = user_namespace() else { return root.join("var/lib/crosskit/binfmt.json") };
    let own =
        std::env::var_os("XDG_RUNTIME_DIR").filter(|folder| root == Path::new("/") && !folder.is_empty());
    let folder = own.map_or_else(|| root.join("run"), PathBuf::from);
    folder.join(format!("crosskit/binfmt-{number}.json"))
}

impl Record {
    /// What was written down since the machine was started; none when nothing was.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub(crate) fn read(root: &Path, binfmt: &Binfmt) -> Result<Option<Record>> {
        let path = file(root);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            // Nor has this user written anything there.
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => return Ok(None),
            Err(error) => return Err(file_error("reading", &path)(error)),
        };
        let record: Record =
            serde_json::from_slice(&text).map_err(|error| file_error("reading", &path)(error.into()))?;
        Ok(Some(record).filter(|record| record.boot == boot(binfmt)))
    }

    /// What was written down, or else what is there now.
    pub(crate) fn begin(root: &Path, binfmt: &Binfmt) -> Result<Record> {
        match Record::read(root, binfmt)? {
            Some(record) => Ok(record),
            None => {
                let record = Record { boot: boot(binfmt), before: binfmt.entries()?, ours: Vec::new() };
                // Already now, in case that this process is killed. Where it cannot be, `finish` says so.
                let _ = record.write(root);
                Ok(record)
            }
        }
    }

    /// Writes down which entries are there that were not, or not so.
    pub(crate) fn finish(mut self, root: &Path, binfmt: &Binfmt) -> Result<()> {
        let now = binfmt.entries()?;
        self.ours = now.into_iter().filter(|e| !self.before.contains(e)).map(|e| e.name).collect();
        self.write(root)
    }

    fn write(&self, root: &Path) -> Result<()> {
        let path = file(root);
        let text =
            serde_json::to_vec_pretty(self).map_err(|error| file_error("writing", &path)(error.into()))?;
        write_whole(&path, &text)
    }

    /// Takes out what was put there and puts in what was taken. Gives the names of both.
    pub(crate) fn restore(root: &Path, binfmt: &Binfmt) -> Result<(Vec<String>, Vec<String>)> {
        let Some(record) = Record::read(root, binfmt)? else {
            return Err(Error::NoRecord { path: file(root) });
        };
        let now = binfmt.entries()?;
        let (mut removed, mut added) = (Vec::new(), Vec::new());
        for entry in now.iter().filter(|e| record.ours.contains(&e.name) && !record.before.contains(e)) {
            binfmt.unregister(&entry.name)?;
            removed.push(entry.name.clone());
        }
        for entry in record.before.iter().filter(|entry| !now.contains(entry)) {
            binfmt.register_again(entry)?;
            added.push(entry.name.clone());
        }
        let path = file(root);
        fs::remove_file(&path).map_err(file_error("removing", &path))?;
        Ok((removed, added))
    }
}
