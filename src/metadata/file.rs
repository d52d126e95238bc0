//! The database file.

use crate::Error;
use crate::pending::Pending;
use redb::{ReadableDatabase, TableDefinition, TableError};
use std::ops::{Bound, ControlFlow};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

/// Memory for pages of the file. Lookups are rare and records small; the kernel caches the rest.
const CACHE_BYTES: usize = 4 << 20;

/// How long those who read may take to the end, when the file has to be opened anew.
const READERS_TAKE: Duration = Duration::from_secs(2);

type Table = redb::ReadOnlyTable<&'static [u8], &'static [u8]>;
type Definition = TableDefinition<'static, &'static [u8], &'static [u8]>;

pub(crate) struct File {
    path: PathBuf,
    /// None after a commit failed, until it was opened anew: redb refuses work after an I/O error.
    database: RwLock<Option<redb::Database>>,
}

impl File {
    pub(crate) fn open(path: &Path) -> Result<File, Error> {
        let file = File { path: path.to_path_buf(), database: RwLock::default() };
        let database = match file.open_checked() {
            Err(Opening::Damaged(why)) => {
                let aside = file.set_aside()?;
                tracing::error!(
                    path = %path.display(), aside = %aside.display(), why,
                    "the metadata database is damaged: it was set aside and an empty one takes its place; \
                     earlier results will be built again",
                );
                file.open_checked().map_err(|e| e.into_error(path))?
            }
            other => other.map_err(|e| e.into_error(path))?,
        };
        *file.database.write().unwrap_or_else(PoisonError::into_inner) = Some(database);
        Ok(file)
    }

    /// Opens the file and reads its list of tables, so that gross damage shows now.
    fn open_checked(&self) -> Result<redb::Database, Opening> {
        let attempt = std::panic::catch_unwind(|| -> Result<redb::Database, redb::Error> {
            let mut builder = redb::Builder::new();
            let database = builder.set_cache_size(CACHE_BYTES).create(&self.path)?;
            let reading = database.begin_read()?;
            for table in reading.list_tables()? {
                reading.open_untyped_table(table)?;
            }
            drop(reading);
            Ok(database)
        });
        match attempt {
            Ok(Ok(database)) => Ok(database),
            Ok(Err(redb::Error::DatabaseAlreadyOpen)) => Err(Opening::InUse),
            Ok(Err(redb::Error::Io(e))) if !is_damage(&e) => Err(Opening::Failed(redb::Error::Io(e))),
            Ok(Err(other)) => Err(Opening::Damaged(other.to_string())),
            Err(_) => Err(Opening::Damaged("its pages contradict each other".into())),
        }
    }

    fn set_aside(&self) -> Result<PathBuf, Error> {
        let mut number = 1;
        let aside = loop {
            let mut name = self.path.as_os_str().to_owned();
            name.push(format!(".corrupt-{number}"));
            let candidate = PathBuf::from(name);
            if !candidate.exists() {
                break candidate;
            }
            number += 1;
        };
        std::fs::rename(&self.path, &aside)
            .map_err(|source| Error::SetAside { path: self.path.clone(), source })?;
        Ok(aside)
    }

    fn failed(&self, doing: &'static str, source: impl Into<redb::Error>) -> Error {
        Error::File { path: self.path.clone(), doing, source: Arc::new(source.into()) }
    }

    pub(crate) fn snapshot(&self) -> Result<Snapshot, Error> {
        let reading = match self.begin_read() {
            // A write failed, mostly for want of space: what is in the file can be read all the same.
            Err(redb::Error::PreviousIo) => {
                self.reopen_if_needed()?;
                self.begin_read()
            }
            other => other,
        };
        let reading = reading.map_err(|e| self.failed("reading", e))?;
        Ok(Snapshot { path: self.path.clone(), reading })
    }

    fn begin_read(&self) -> Result<redb::ReadTransaction, redb::Error> {
        let open = self.database.read().unwrap_or_else(PoisonError::into_inner);
        Ok(open.as_ref().ok_or(redb::Error::PreviousIo)?.begin_read()?)
    }

    /// Writes changes as one durable transaction.
    pub(crate) fn commit(&self, changes: &Pending) -> Result<(), Error> {
        self.reopen_if_needed()?;
        let outcome = {
            let open = self.database.read().unwrap_or_else(PoisonError::into_inner);
            let database = open.as_ref().ok_or_else(|| self.failed("writing", redb::Error::PreviousIo))?;
            Self::write_all(database, changes)
        };
        outcome.map_err(|source| {
            *self.database.write().unwrap_or_else(PoisonError::into_inner) = None;
            self.failed("writing", source)
        })?;
        Ok(())
    }

    fn write_all(database: &redb::Database, changes: &Pending) -> Result<(), redb::Error> {
        let mut writing = database.begin_write()?;
        // Keeps a start after a crash fast: nothing has to be walked then.
        writing.set_quick_repair(true);
        for (name, changes) in changes.tables() {
            let mut table = writing.open_table(Definition::new(name))?;
            for (key, value) in changes {
                match value {
                    Some(value) => drop(table.insert(key.as_slice(), value.as_slice())?),
                    None => drop(table.remove(key.as_slice())?),
                }
            }
        }
        writing.commit()?;
        Ok(())
    }

    /// Opens the file anew if its last use has failed.
    fn reopen_if_needed(&self) -> Result<(), Error> {
        let mut open = self.database.write().unwrap_or_else(PoisonError::into_inner);
        let spoilt = |e: redb::TransactionError| matches!(redb::Error::from(e), redb::Error::PreviousIo);
        if open.as_ref().is_some_and(|database| !database.begin_read().is_err_and(spoilt)) {
            return Ok(());
        }
        *open = None;
        let since = Instant::now();
        let opened = loop {
            match self.open_checked() {
                // Readers of the old state hold the file until they are done.
                Err(Opening::InUse) if since.elapsed() < READERS_TAKE => {
                    std::thread::sleep(Duration::from_millis(2));
                }
                other => break other,
            }
        };
        *open = Some(opened.map_err(|e| e.into_error(&self.path))?);
        Ok(())
    }
}

/// Why the file did not open.
enum Opening {
    InUse,
    Damaged(String),
    Failed(redb::Error),
}

impl Opening {
    fn into_error(self, path: &Path) -> Error {
        let path = path.to_path_buf();
        let source = match self {
            Opening::InUse => return Error::InUse { path },
            Opening::Damaged(why) => redb::Error::Corrupted(why),
            Opening::Failed(source) => source,
        };
        Error::File { path, doing: "opening", source: Arc::new(source) }
    }
}

fn is_damage(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof)
}

/// One state of the file.
pub(crate) struct Snapshot {
    path: PathBuf,
    reading: redb::ReadTransaction,
}

impl Snapshot {
    fn failed(&self, source: impl Into<redb::Error>) -> Error {
        Error::File { path: self.path.clone(), doing: "reading", source: Arc::new(source.into()) }
    }

    fn table(&self, name: &'static str) -> Result<Option<Table>, Error> {
        match self.reading.open_table(Definition::new(name)) {
            Ok(table) => Ok(Some(table)),
            Err(TableError::TableDoesNotExist(_)) => Ok(None),
            Err(e) => Err(self.failed(e)),
        }
    }

    pub(crate) fn get(&self, table: &'static str, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let Some(table) = self.table(table)? else { return Ok(None) };
        let value = table.get(key).map_err(|e| self.failed(e))?;
        Ok(value.map(|value| value.value().to_vec()))
    }

    pub(crate) fn for_each(
        &self,
        table: &'static str,
        prefix: &[u8],
        mut each: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let Some(table) = self.table(table)? else { return Ok(()) };
        let range = (Bound::Included(prefix), Bound::Unbounded);
        for entry in table.range::<&[u8]>(range).map_err(|e| self.failed(e))? {
            let (key, value) = entry.map_err(|e| self.failed(e))?;
            if !key.value().starts_with(prefix) || each(key.value(), value.value()).is_break() {
                break;
            }
        }
        Ok(())
    }
}
