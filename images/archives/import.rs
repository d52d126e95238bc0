//! Images out of archives that others made.

use std::io::{BufReader, Read, Write};

use super::layout::Layout;
use crate::content::ContentStore;
use crate::digest::Digest;
use crate::errors::{Error, Result};
use crate::manifest::{Index, MAX_MANIFEST_SIZE};
use crate::tar::{Kind, Reader, ReaderLimits};

/// Puts the blobs of an OCI archive (what [`super::write_archive`] writes, and `docker save` since version 25) into
/// a content store and returns its index. Every blob is checked against the digest it is filed under.
///
/// Blocking: meant for a thread of its own.
pub fn import_archive(store: &ContentStore, archive: impl Read) -> Result<Index> {
    let failed = |e| Error::io("read image archive", e);
    let mut tar = Reader::new(BufReader::with_capacity(256 << 10, archive), ReaderLimits::default());
    let (mut index, mut layout) = (None, false);
    while let Some(header) = tar.next_entry().map_err(failed)? {
        if header.kind != Kind::File || header.pieces.is_some() {
            continue;
        }
        let name = String::from_utf8_lossy(&header.name).into_owned();
        let name = name.trim_start_matches("./");
        if let Some(hex) = name.strip_prefix("blobs/sha256/") {
            let digest = Digest::from_hex(hex)?;
            let mut ingest = store.ingest()?;
            std::io::copy(&mut tar, &mut ingest).and_then(|_| ingest.flush()).map_err(failed)?;
            ingest.commit_expecting(&digest, Some(header.size))?;
        } else if matches!(name, "index.json" | "oci-layout") {
            if header.size > MAX_MANIFEST_SIZE {
                return Err(Error::TooLarge { what: name.to_owned(), limit: MAX_MANIFEST_SIZE });
            }
            let mut bytes = Vec::new();
            tar.read_to_end(&mut bytes).map_err(failed)?;
            if name == "index.json" {
                index = Some(Index::parse(&bytes)?);
            } else {
                Layout::check_version(&bytes)?;
                layout = true;
            }
        }
    }
    match index {
        Some(index) if layout => Ok(index),
        _ => {
            Err(Error::invalid("image archive", "it has no OCI layout: oci-layout or index.json is missing"))
        }
    }
}
