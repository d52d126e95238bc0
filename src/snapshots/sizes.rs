//! How much room snapshots take.

use crate::node::Node;
use crate::{Error, Result};
use rustix::fs::{AtFlags, Dir, Mode, OFlags};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

/// A snapshot's size, counted now if it was not yet.
pub(crate) async fn size(node: &Arc<Node>) -> Result<u64> {
    let counting = node.clone();
    let task = tokio::task::spawn_blocking(move || count(&counting));
    task.await.unwrap_or(Err(Error::Canceled))
}

/// The same, blocking.
pub(crate) fn count(node: &Arc<Node>) -> Result<u64> {
    let record = node.record().clone();
    if let Some(known) = record.size.filter(|_| !record.is_mutable()) {
        return Ok(known);
    }
    let size = of_record(&node.store, &node.id, &record)?;
    if !record.is_mutable() {
        node.update(|record| record.size = Some(size))?;
    }
    Ok(size)
}

/// The size of a snapshot that may not be alive.
pub(crate) fn of_record(
    store: &crate::store::Inner,
    id: &str,
    record: &crate::record::Record,
) -> Result<u64> {
    // Blobs of a layer count with it, for they go when it goes.
    let blobs: u64 = record.all_blobs().filter_map(|b| store.content.size(&b.desc.digest).ok()).sum();
    let files = match &record.origin {
        crate::record::Origin::View { .. } => 0,
        _ if record.files => folder_size(&store.files_dir(id))?,
        _ => 0,
    };
    Ok(blobs + files)
}

/// Bytes of the blocks that a folder tree takes. A file that other snapshots share by hard links
/// counts here with its part, so that all together count it once.
pub(crate) fn folder_size(path: &Path) -> Result<u64> {
    let failed = |e: rustix::io::Errno| Error::file("measuring", path, e);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let root = match rustix::fs::open(path, flags, Mode::empty()) {
        Err(rustix::io::Errno::NOENT) => return Ok(0),
        other => other.map_err(failed)?,
    };
    let own = rustix::fs::fstat(&root).map_err(failed)?.st_blocks as u64 * 512;
    let mut folders: Vec<OwnedFd> = vec![root];
    let mut total = own;
    while let Some(folder) = folders.pop() {
        for entry in Dir::read_from(folder.as_fd()).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let stat = match rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(rustix::io::Errno::NOENT) => continue,
                other => other.map_err(failed)?,
            };
            let bytes = stat.st_blocks as u64 * 512;
            if rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir() {
                total += bytes;
                match rustix::fs::openat(&folder, name, flags, Mode::empty()) {
                    Err(rustix::io::Errno::NOENT) => {}
                    other => folders.push(other.map_err(failed)?),
                }
            } else {
                total += bytes / (stat.st_nlink as u64).max(1);
            }
        }
    }
    Ok(total)
}
