use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::{Mutex, PoisonError};

use crosskit_metadata::{Change, Database};

use crate::CacheError;

/// A new value for a row, or none to remove it.
pub type RowChange = (u64, Option<Vec<u8>>);

/// Where keys are kept between starts: rows by number.
pub trait KeyStore: Send + Sync + 'static {
    /// Reads all rows.
    fn load(&self, each: &mut dyn FnMut(u64, &[u8])) -> Result<(), CacheError>;

    /// Changes rows, all or none of them. May become durable later.
    fn write(&self, changes: Vec<RowChange>) -> Result<(), CacheError>;
}

/// The table of the keys. Its name counts the changes of the rows' form.
const TABLE: &str = "cache-keys-2";

impl KeyStore for Database {
    fn load(&self, each: &mut dyn FnMut(u64, &[u8])) -> Result<(), CacheError> {
        self.for_each(TABLE, &[], |key, value| {
            if let Ok(id) = key.try_into() {
                each(u64::from_be_bytes(id), value);
            }
            ControlFlow::Continue(())
        })
        .map_err(|source| CacheError::Store { doing: "read", source })
    }

    fn write(&self, changes: Vec<RowChange>) -> Result<(), CacheError> {
        let change = |(id, row): RowChange| match row {
            Some(row) => Change::put(TABLE, id.to_be_bytes(), row),
            None => Change::delete(TABLE, id.to_be_bytes()),
        };
        Database::write(self, changes.into_iter().map(change).collect())
            .map_err(|source| CacheError::Store { doing: "write", source })
    }
}

/// Rows in memory, for caches that do not outlive the daemon.
#[derive(Debug, Default)]
pub struct MemoryStore(Mutex<BTreeMap<u64, Vec<u8>>>);

impl MemoryStore {
    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

impl KeyStore for MemoryStore {
    fn load(&self, each: &mut dyn FnMut(u64, &[u8])) -> Result<(), CacheError> {
        let rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        rows.iter().for_each(|(id, row)| each(*id, row));
        Ok(())
    }

    fn write(&self, changes: Vec<RowChange>) -> Result<(), CacheError> {
        let mut rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (id, row) in changes {
            match row {
                Some(row) => rows.insert(id, row),
                None => rows.remove(&id),
            };
        }
        Ok(())
    }
}
