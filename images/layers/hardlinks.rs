//! Files with several names, as they are met by name.

use std::collections::HashMap;

use super::changes::Change;
use super::stat::Meta;

/// What was met so far, by inode.
#[derive(Default)]
pub(super) struct HardLinks {
    /// The first name of each file that is told.
    first: HashMap<u64, Vec<u8>>,
    /// Names of files that are unchanged so far; they come along if a changed one turns up.
    unchanged: HashMap<u64, Vec<Vec<u8>>>,
}

/// What a name is.
pub(super) enum Name {
    /// The first of a file that is told, with the unchanged ones that come along.
    First(Vec<Vec<u8>>),
    /// A further one of a file that is told under this name.
    Further(Vec<u8>),
    /// One of a file that is not told, so far.
    Unchanged,
}

impl HardLinks {
    pub(super) fn meet(&mut self, path: &[u8], meta: &Meta, change: Change) -> Name {
        let Some(inode) = meta.shared_inode() else {
            return match change {
                Change::Present => Name::First(Vec::new()),
                Change::Unmodified => Name::Unchanged,
            };
        };
        if let Some(first) = self.first.get(&inode) {
            return Name::Further(first.clone());
        }
        match change {
            Change::Present => {
                self.first.insert(inode, path.to_vec());
                Name::First(self.unchanged.remove(&inode).unwrap_or_default())
            }
            Change::Unmodified => {
                self.unchanged.entry(inode).or_default().push(path.to_vec());
                Name::Unchanged
            }
        }
    }
}
