//! Everything an image is made of.

use std::collections::{BTreeMap, HashSet};

use crate::content::ContentStore;
use crate::descriptor::Descriptor;
use crate::digest::Digest;
use crate::errors::{Error, Result};
use crate::manifest::{Index, MAX_MANIFEST_SIZE, Manifest};
use crate::media_types;

/// Indexes within indexes; one level is usual.
const MAX_DEPTH: usize = 4;

/// The blobs that a descriptor leads to, itself included, by digest.
pub(super) fn all(store: &ContentStore, root: &Descriptor) -> Result<BTreeMap<Digest, Descriptor>> {
    let mut found = BTreeMap::new();
    add(store, root, 0, &mut found)?;
    Ok(found)
}

/// The documents that a descriptor leads to as far as they are there, itself included: all blobs but layers.
pub fn documents(store: &ContentStore, root: &Descriptor) -> HashSet<Digest> {
    let mut found = HashSet::new();
    let mut next = vec![(root.clone(), 0)];
    while let Some((desc, depth)) = next.pop() {
        if depth <= MAX_DEPTH && !media_types::is_layer(&desc.media_type) && found.insert(desc.digest) {
            // What is not there leads nowhere.
            let children = children(store, &desc).unwrap_or_default();
            next.extend(children.into_iter().map(|child| (child, depth + 1)));
        }
    }
    found
}

fn add(
    store: &ContentStore,
    desc: &Descriptor,
    depth: usize,
    found: &mut BTreeMap<Digest, Descriptor>,
) -> Result<()> {
    if depth > MAX_DEPTH {
        return Err(Error::invalid("image index", "indexes are nested too deeply"));
    }
    if found.insert(desc.digest, desc.clone()).is_some() {
        return Ok(());
    }
    for child in children(store, desc)? {
        add(store, &child, depth + 1, found)?;
    }
    Ok(())
}

/// What a manifest or index names directly.
pub(super) fn children(store: &ContentStore, desc: &Descriptor) -> Result<Vec<Descriptor>> {
    if media_types::is_index(&desc.media_type) {
        return Ok(Index::parse(&store.read(&desc.digest, MAX_MANIFEST_SIZE)?)?.manifests);
    }
    if media_types::is_manifest(&desc.media_type) {
        let manifest = Manifest::parse(&store.read(&desc.digest, MAX_MANIFEST_SIZE)?)?;
        return Ok([manifest.config].into_iter().chain(manifest.layers).collect());
    }
    Ok(Vec::new())
}
