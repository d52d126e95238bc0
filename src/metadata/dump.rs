//! Looking into the file of a database that nobody uses.

use crate::Error;
use redb::{ReadOnlyDatabase, ReadableDatabase, ReadableTable, TableDefinition, TableHandle};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

/// Calls `each` for every entry of every table, both in order, until it breaks: the table's name, the key, the value.
/// The file is not changed.
///
/// # Errors
/// A file that is not there, that somebody uses, or that is damaged.
pub fn dump(path: &Path, each: impl FnMut(&str, &[u8], &[u8]) -> ControlFlow<()>) -> Result<(), Error> {
    let path = path.to_path_buf();
    all(&path, each).map_err(|source| match source {
        redb::Error::DatabaseAlreadyOpen => Error::InUse { path },
        source => Error::File { path, doing: "reading", source: Arc::new(source) },
    })
}

fn all(path: &Path, mut each: impl FnMut(&str, &[u8], &[u8]) -> ControlFlow<()>) -> Result<(), redb::Error> {
    let reading = ReadOnlyDatabase::open(path)?.begin_read()?;
    let mut names: Vec<String> = reading.list_tables()?.map(|table| table.name().to_string()).collect();
    names.sort();
    for name in &names {
        let table = reading.open_table(TableDefinition::<&[u8], &[u8]>::new(name))?;
        for entry in table.iter()? {
            let (key, value) = entry?;
            if each(name, key.value(), value.value()).is_break() {
                return Ok(());
            }
        }
    }
    Ok(())
}
