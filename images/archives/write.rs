//! Tars of images, with the entries, modes and order of containerd's exporter, which BuildKit uses.

use std::collections::BTreeMap;
use std::io::Write;

use serde::Serialize;

use super::{IMAGE_NAME, OCI_LAYOUT, REF_NAME, parts};
use crate::content::ContentStore;
use crate::descriptor::Descriptor;
use crate::errors::{Error, Result};
use crate::gojson;
use crate::manifest::{Index, MAX_MANIFEST_SIZE, Manifest};
use crate::media_types;
use crate::registry::Reference;
use crate::tar::{Header, Kind, Timestamp, Writer};

/// Who is to read an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArchiveFormat {
    /// Readers of OCI layouts.
    Oci,
    /// `docker load` as well: `manifest.json` besides, for the image of one platform.
    Docker,
}

/// Docker's `manifest.json`, one object per image.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct DockerManifest {
    config: String,
    #[serde(serialize_with = "gojson::empty_as_null")]
    repo_tags: Vec<String>,
    #[serde(serialize_with = "gojson::empty_as_null")]
    layers: Vec<String>,
}

enum Entry {
    Folder,
    Bytes(u32, Vec<u8>),
    Blob(Box<Descriptor>),
}

/// Writes an image, or an index with all its images, out of a content store. Each name makes an entry in
/// `index.json`; the descriptor's annotations go with it.
///
/// Blocking: meant for a thread of its own.
pub fn write_archive<W: Write>(
    store: &ContentStore,
    root: &Descriptor,
    names: &[Reference],
    format: ArchiveFormat,
    out: W,
) -> Result<W> {
    // By path: containerd sorts its entries.
    let mut entries = BTreeMap::from([
        ("oci-layout".to_owned(), Entry::Bytes(0o444, OCI_LAYOUT.to_vec())),
        ("blobs/".to_owned(), Entry::Folder),
        ("blobs/sha256/".to_owned(), Entry::Folder),
        ("index.json".to_owned(), Entry::Bytes(0o644, gojson::to_vec(&Index::new(named(root, names)))?)),
    ]);
    if format == ArchiveFormat::Docker && media_types::is_manifest(&root.media_type) {
        let manifest = Manifest::parse(&store.read(&root.digest, MAX_MANIFEST_SIZE)?)?;
        let docker = DockerManifest {
            config: blob_path(&manifest.config),
            repo_tags: names.iter().map(Reference::familiar).collect(),
            layers: manifest.layers.iter().map(blob_path).collect(),
        };
        entries.insert("manifest.json".to_owned(), Entry::Bytes(0o644, gojson::to_vec(&[docker])?));
    }
    for desc in parts::all(store, root)?.into_values() {
        entries.insert(blob_path(&desc), Entry::Blob(Box::new(desc)));
    }
    let mut tar = Writer::new(out);
    let failed = |e| Error::io("write image archive", e);
    for (path, entry) in entries {
        match entry {
            Entry::Folder => {
                let mut header = Header::new(path, Kind::Directory);
                header.mode = 0o755;
                tar.entry(&header).map_err(failed)?;
            }
            Entry::Bytes(mode, bytes) => {
                tar.file(&path, mode, Timestamp::default(), &bytes).map_err(failed)?
            }
            Entry::Blob(desc) => {
                let mut header = Header::new(path, Kind::File);
                (header.mode, header.size) = (0o444, desc.size);
                tar.entry(&header).map_err(failed)?;
                store.copy_to(&desc, |blob| tar.copy_from(blob))?;
            }
        }
    }
    tar.finish().map_err(failed)
}

fn blob_path(desc: &Descriptor) -> String {
    format!("blobs/sha256/{}", desc.digest.hex())
}

/// A descriptor for each name, or the one without where there are none.
fn named(root: &Descriptor, names: &[Reference]) -> Vec<Descriptor> {
    if names.is_empty() {
        return vec![root.clone()];
    }
    names
        .iter()
        .map(|name| {
            let mut desc = root.clone();
            desc.annotations.insert(IMAGE_NAME.into(), name.to_string());
            desc.annotations
                .insert(REF_NAME.into(), name.tag().map_or_else(|| name.to_string(), str::to_owned));
            desc
        })
        .collect()
}
