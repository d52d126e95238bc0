//! Changes that are not in the file yet.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;

/// The newest change of each key: a value, or `None` for removed.
#[derive(Debug, Default, Clone)]
pub(crate) struct Pending {
    tables: HashMap<&'static str, BTreeMap<Vec<u8>, Option<Vec<u8>>>>,
    bytes: usize,
}

impl Pending {
    pub(crate) fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }

    /// About how much memory the changes take; what was written over counts too.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn set(&mut self, table: &'static str, key: Vec<u8>, value: Option<Vec<u8>>) {
        self.bytes += key.len() + value.as_ref().map_or(0, Vec::len) + 64;
        self.tables.entry(table).or_default().insert(key, value);
    }

    /// What is known of a key: nothing, that it was removed, or its value.
    pub(crate) fn get(&self, table: &str, key: &[u8]) -> Option<Option<&[u8]>> {
        Some(self.tables.get(table)?.get(key)?.as_deref())
    }

    /// The changes of keys that begin with `prefix`.
    pub(crate) fn below(&self, table: &str, prefix: &[u8]) -> BTreeMap<Vec<u8>, Option<Vec<u8>>> {
        let Some(changes) = self.tables.get(table) else { return BTreeMap::new() };
        let from = changes.range::<[u8], _>((Bound::Included(prefix), Bound::Unbounded));
        from.take_while(|(key, _)| key.starts_with(prefix)).map(|(k, v)| (k.clone(), v.clone())).collect()
    }

    /// These changes, and over them newer ones.
    pub(crate) fn overlaid(mut self, newer: Pending) -> Pending {
        self.bytes += newer.bytes;
        for (table, changes) in newer.tables {
            self.tables.entry(table).or_default().extend(changes);
        }
        self
    }

    pub(crate) fn tables(&self) -> impl Iterator<Item = (&'static str, &BTreeMap<Vec<u8>, Option<Vec<u8>>>)> {
        self.tables.iter().map(|(table, changes)| (*table, changes))
    }
}
