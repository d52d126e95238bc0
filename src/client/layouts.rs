//! The index of an OCI layout folder on this machine: which image has which name.

use crate::error::ClientError;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde_json::{Map, Value, json};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

const IMAGE_NAME: &str = "io.containerd.image.name";
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// How long somebody else may be at the index.
const LOCKED: Duration = Duration::from_secs(30);

/// How long it is waited before it is looked again whether they are done.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// What an image in a layout is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Name {
    /// A whole name; its tag is noted beside it.
    Full(String),
    /// A tag alone.
    Tag(String),
}

impl Name {
    /// The image name, if any, and the tag.
    fn parts(&self) -> (Option<&str>, &str) {
        match self {
            Name::Tag(tag) => (None, tag),
            Name::Full(name) => {
                let object = name.split_once('@').map(|(_, digest)| digest);
                let tag = name.rsplit_once(':').map(|(_, tag)| tag).filter(|tag| !tag.contains('/'));
                (Some(name), object.or(tag).unwrap_or_default())
            }
        }
    }
}

/// The digest of the image that is called `name`, if the layout has one.
///
/// # Errors
/// The index can't be read.
pub(crate) fn find(layout: &Path, name: &str) -> Result<Option<String>, ClientError> {
    let path = layout.join("index.json");
    let index = read(&path)?;
    let manifests = index.get("manifests").and_then(Value::as_array).cloned().unwrap_or_default();
    let called = |key: &str| {
        manifests.iter().find(|m| {
            m.pointer("/annotations").and_then(|a| a.get(key)).and_then(Value::as_str) == Some(name)
        })
    };
    let found = called(IMAGE_NAME).or_else(|| called(REF_NAME));
    Ok(found.and_then(|m| m.get("digest")).and_then(Value::as_str).map(str::to_owned))
}

fn read(path: &Path) -> Result<Map<String, Value>, ClientError> {
    let bytes = fs::read(path).map_err(|e| ClientError::open(path, e))?;
    serde_json::from_slice(&bytes)
        .map_err(|e| ClientError::invalid(format!("could not unmarshal {}: {e}", path.display())))
}

/// Gives an image of the layout names; whoever had one of them before loses it.
///
/// # Errors
/// The index can't be read or written, or another program stays at it.
pub(crate) fn put(layout: &Path, descriptor: &Map<String, Value>, names: &[Name]) -> Result<(), ClientError> {
    put_made(layout, names, || Ok(descriptor.clone()))
}

/// The same for one that is made while nobody else changes the index.
///
/// # Errors
/// Those of [`put`], and whatever making it fails with.
pub(crate) fn put_made(
    layout: &Path,
    names: &[Name],
    make: impl FnOnce() -> Result<Map<String, Value>, ClientError>,
) -> Result<(), ClientError> {
    let lock_path = layout.join("index.json.lock");
    let _lock = lock(&lock_path)?;
    let written = make().and_then(|descriptor| write(layout, &layout.join("index.json"), &descriptor, names));
    // Left behind, it would only be in the way of nobody.
    let _ = fs::remove_file(&lock_path);
    written
}

/// Waits until nobody else has the lock.
fn lock(path: &Path) -> Result<File, ClientError> {
    let failed =
        |source: io::Error| ClientError::File { doing: "could not lock".into(), path: path.into(), source };
    let started = Instant::now();
    loop {
        let lock = File::create(path).map_err(failed)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                // Whoever had it may have taken the file away that we have locked.
                let ours = lock.metadata().map_err(failed)?.ino();
                if fs::metadata(path).is_ok_and(|there| there.ino() == ours) {
                    return Ok(lock);
                }
            }
            Err(error) if error == Errno::WOULDBLOCK && started.elapsed() < LOCKED => {
                std::thread::sleep(LOOK_AGAIN);
            }
            Err(error) => return Err(failed(error.into())),
        }
    }
}

fn write(
    layout: &Path,
    path: &Path,
    descriptor: &Map<String, Value>,
    names: &[Name],
) -> Result<(), ClientError> {
    let mark = layout.join("oci-layout");
    fs::write(&mark, br#"{"imageLayoutVersion":"1.0.0"}"#).map_err(|source| ClientError::File {
        doing: "write".into(),
        path: mark,
        source,
    })?;
    let mut index = match fs::metadata(path) {
        Ok(found) if found.len() > 0 => read(path)?,
        _ => Map::new(),
    };
    index.entry("schemaVersion").or_insert(json!(2));
    index.entry("mediaType").or_insert(json!("application/vnd.oci.image.index.v1+json"));
    let mut manifests = match index.remove("manifests") {
        Some(Value::Array(list)) => list,
        _ => Vec::new(),
    };
    for name in names {
        let (image, tag) = name.parts();
        let of = |m: &Value, key: &str| {
            m.get("annotations").and_then(|a| a.get(key)).and_then(Value::as_str).map(str::to_owned)
        };
        manifests
            .retain(|m| of(m, REF_NAME).as_deref() != Some(tag) || of(m, IMAGE_NAME).as_deref() != image);
        let mut entry = descriptor.clone();
        let annotations = entry.entry("annotations").or_insert_with(|| Value::Object(Map::new()));
        if let Value::Object(annotations) = annotations {
            if let Some(image) = image {
                annotations.insert(IMAGE_NAME.into(), json!(image));
            }
            annotations.insert(REF_NAME.into(), json!(tag));
            annotations.sort_keys();
        }
        manifests.push(Value::Object(entry));
    }
    index.insert("manifests".into(), Value::Array(manifests));
    crate::metadata_file::write_whole(path, Value::Object(index).to_string().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor(digest: &str) -> Map<String, Value> {
        serde_json::from_value(json!({"mediaType": "m", "digest": digest, "size": 1})).unwrap()
    }

    #[test]
    fn names_move_from_image_to_image() {
        let folder = tempfile::tempdir().unwrap();
        let layout = folder.path();
        assert!(find(layout, "latest").is_err());
        put(
            layout,
            &descriptor("sha256:1"),
            &[Name::Tag("latest".into()), Name::Full("docker.io/a/b:v1".into())],
        )
        .unwrap();
        put(layout, &descriptor("sha256:2"), &[Name::Tag("latest".into())]).unwrap();
        assert_eq!(find(layout, "latest").unwrap().unwrap(), "sha256:2");
        assert_eq!(find(layout, "docker.io/a/b:v1").unwrap().unwrap(), "sha256:1");
        assert_eq!(find(layout, "v1").unwrap().unwrap(), "sha256:1");
        assert_eq!(find(layout, "v2").unwrap(), None);
        let index = fs::read_to_string(layout.join("index.json")).unwrap();
        assert_eq!(index.matches("sha256:").count(), 2);
        assert!(layout.join("oci-layout").exists() && !layout.join("index.json.lock").exists());
    }
}
