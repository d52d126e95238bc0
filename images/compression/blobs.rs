//! Layers as blobs of the content store: made, changed, put on disk.

use std::io::{self, BufRead, Read, Write};
use std::os::fd::AsFd;

use super::estargz::{Stripped, TOC_DIGEST, UNCOMPRESSED_SIZE, layer_size};
use super::pack::{PackOptions, pack};
use super::unpack::LayerReader;
use crate::content::ContentStore;
use crate::descriptor::Descriptor;
use crate::digest::Digest;
use crate::errors::{Error, Result};
use crate::layers::{Applied, ApplyOptions, LayerError, apply_layer, rewrite_timestamps};
use crate::media_types::{self, LayerPacking};

/// A layer in the content store.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerBlob {
    /// The blob, with OCI's media type; eStargz has its annotations.
    pub desc: Descriptor,
    /// Digest of the tar in it.
    pub diff_id: Digest,
    /// Bytes of the tar in it.
    pub size: u64,
}

/// Packs the tar that `produce` writes into a blob.
///
/// Blocking: meant for a thread of its own.
pub fn pack_layer<T>(
    store: &ContentStore,
    options: &PackOptions,
    produce: impl FnOnce(&mut dyn Write) -> Result<T>,
) -> Result<(T, LayerBlob)> {
    let plain = options.packing == LayerPacking::Plain;
    let ingest = if plain { store.ingest_hashed_elsewhere()? } else { store.ingest()? };
    let (produced, packed, ingest) =
        pack(ingest, options, |out| produce(out).map_err(Failure)).map_err(|Failure(error)| error)?;
    let (digest, size) = if plain {
        ingest.commit_expecting(&packed.diff_id, Some(packed.size))?;
        (packed.diff_id, packed.size)
    } else {
        ingest.commit()?
    };
    let mut desc = Descriptor::new(media_types::layer(options.packing, true), digest, size);
    if let Some(toc) = packed.toc {
        desc.annotations.insert(TOC_DIGEST.to_owned(), toc.to_string());
        desc.annotations.insert(UNCOMPRESSED_SIZE.to_owned(), packed.size.to_string());
    }
    Ok((produced, LayerBlob { desc, diff_id: packed.diff_id, size: packed.size }))
}

/// Carries this crate's errors through the packing.
struct Failure(Error);

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self(Error::io("write layer blob", error))
    }
}

/// Packs a layer that is a blob already in another way, its times no later than `epoch` if there is one. If `diff_id` is
/// given, a blob that does not hold that tar is damaged, and is removed.
///
/// Blocking: meant for a thread of its own.
pub fn repack_layer(
    store: &ContentStore,
    layer: &Digest,
    diff_id: Option<&Digest>,
    options: &PackOptions,
    epoch: Option<i64>,
) -> Result<LayerBlob> {
    match repacked(store, layer, diff_id, options, epoch) {
        // Sparse files are as long as they are before they get a place in a table of contents.
        Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::Unsupported && epoch.is_none() => {
            repacked(store, layer, diff_id, options, Some(i64::MAX))
        }
        repacked => repacked,
    }
}

fn repacked(
    store: &ContentStore,
    layer: &Digest,
    diff_id: Option<&Digest>,
    options: &PackOptions,
    epoch: Option<i64>,
) -> Result<LayerBlob> {
    let damaged = |source| Error::io(format!("unpack layer {layer}"), source);
    let file = store.reader(layer)?.into_file();
    let own = layer_size(&file).map_err(damaged)?;
    let mut reader = LayerReader::new(file.take(own.unwrap_or(u64::MAX))).map_err(damaged)?;
    let ((), blob) = pack_layer(store, options, |out| {
        if let Some(epoch) = epoch {
            rewrite_timestamps(&mut reader, out, epoch)?;
            return Ok(());
        }
        let mut stripped = Stripped::new(&mut *out);
        let out: &mut dyn Write = if own.is_some() { &mut stripped } else { out };
        loop {
            let bytes = reader.fill_buf().map_err(damaged)?;
            let len = bytes.len();
            if len == 0 {
                return Ok(());
            }
            out.write_all(bytes).map_err(|e| Error::io("write layer blob", e))?;
            reader.consume(len);
        }
    })?;
    let (unpacked, _) = reader.finish().map_err(damaged)?;
    // Of eStargz only the layer's own part was read, which gzip's checksums are for.
    if own.is_none() && diff_id.is_some_and(|diff_id| *diff_id != unpacked) {
        store.delete(&blob.desc.digest)?;
        store.delete(layer)?;
        return Err(Error::Damaged { digest: *layer });
    }
    Ok(blob)
}

/// Unpacks a blob and applies the layer in it to a folder, see [`apply_layer`]. If `diff_id` is given, what was
/// unpacked must be what the image's config promised. Returns what was applied and the diff ID.
///
/// Blocking: meant for a thread of its own.
pub fn unpack_layer(
    store: &ContentStore,
    layer: &Digest,
    diff_id: Option<&Digest>,
    root: impl AsFd,
    options: &ApplyOptions,
) -> Result<(Applied, Digest)> {
    let archive = |error| Error::from(LayerError::Archive(error));
    let mut reader = LayerReader::new(store.reader(layer)?.into_file()).map_err(archive)?;
    let applied = apply_layer(root, &mut reader, options)?;
    let (actual, _) = reader.finish().map_err(archive)?;
    match diff_id {
        Some(expected) if *expected != actual => Err(Error::DigestMismatch {
            what: format!("unpacked layer {layer}"),
            expected: *expected,
            actual,
        }),
        _ => Ok((applied, actual)),
    }
}
