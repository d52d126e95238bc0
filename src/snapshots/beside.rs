//! What others have found out about a snapshot, kept beside its files: it goes when the snapshot goes.

use crate::node::Parents;
use crate::{Error, Ref, Result};
use std::io::ErrorKind;
use std::path::PathBuf;

impl Ref {
    /// What is kept beside it under a name. None of what can still change, and if there is nothing. Blocks.
    pub fn beside(&self, name: &str) -> Option<Vec<u8>> {
        std::fs::read(self.place_beside(name)?).ok()
    }

    /// Keeps something beside it, in place of what was there. What can still change, and what only consists of others, keeps
    /// nothing. A name is that of a file; `fs` and `checksums` are taken. Blocks.
    ///
    /// # Errors
    /// A full disk, for example: nothing is kept then.
    pub fn keep_beside(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let Some(path) = self.place_beside(name) else { return Ok(()) };
        let temporary = path.with_extension(format!("new{:x}", rand::random::<u64>()));
        let written = std::fs::write(&temporary, bytes).and_then(|()| std::fs::rename(&temporary, &path));
        match written {
            // It has no folder.
            Err(why) if why.kind() == ErrorKind::NotFound => Ok(()),
            Err(why) => {
                let _ = std::fs::remove_file(&temporary);
                Err(Error::file("keeping", path, why))
            }
            Ok(()) => Ok(()),
        }
    }

    fn place_beside(&self, name: &str) -> Option<PathBuf> {
        let node = self.node();
        match &node.parents {
            Parents::View(_) => None,
            _ => Some(node.store.snapshot_dir(&node.id).join(name)),
        }
    }
}
