//! An OCI layout in a folder.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::{IMAGE_NAME, OCI_LAYOUT, REF_NAME, parts};
use crate::content::ContentStore;
use crate::descriptor::Descriptor;
use crate::errors::{Error, Result};
use crate::gojson;
use crate::manifest::Index;
use crate::registry::Reference;

/// A folder with `oci-layout`, `index.json` and `blobs/`.
#[derive(Clone, Debug)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// A layout that is there.
    pub fn open(root: impl AsRef<Path>) -> Result<Self> {
        let root = root.as_ref().to_owned();
        let bytes = fs::read(root.join("oci-layout"))
            .map_err(|e| Error::io(format!("open OCI layout {}", root.display()), e))?;
        Self::check_version(&bytes)?;
        Ok(Self { root })
    }

    /// A layout that is there, or a new one.
    pub fn open_or_create(root: impl AsRef<Path>) -> Result<Self> {
        let root = root.as_ref().to_owned();
        let failed = |e| Error::io(format!("create OCI layout {}", root.display()), e);
        fs::create_dir_all(root.join("blobs/sha256")).map_err(failed)?;
        if !root.join("oci-layout").exists() {
            replace(&root.join("oci-layout"), OCI_LAYOUT).map_err(failed)?;
        }
        Self::open(root)
    }

    pub(super) fn check_version(bytes: &[u8]) -> Result<()> {
        #[derive(serde::Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Version {
            image_layout_version: String,
        }
        let version: Version = serde_json::from_slice(bytes)
            .map_err(|source| Error::Parse { what: "oci-layout".into(), source })?;
        if !version.image_layout_version.starts_with("1.") {
            return Err(Error::Unsupported {
                what: format!("OCI layout version {}", version.image_layout_version),
                hint: "this program reads version 1".into(),
            });
        }
        Ok(())
    }

    /// The images in it. An index that was never written is empty.
    pub fn index(&self) -> Result<Index> {
        match fs::read(self.root.join("index.json")) {
            Ok(bytes) => Index::parse(&bytes),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Index::new(Vec::new())),
            Err(e) => Err(Error::io(format!("read {}", self.root.join("index.json").display()), e)),
        }
    }

    /// The image of a full name, or else of a tag.
    pub fn find(&self, name: &str) -> Result<Option<Descriptor>> {
        let manifests = self.index()?.manifests;
        let with =
            |key: &str| manifests.iter().find(|m| m.annotations.get(key).map(String::as_str) == Some(name));
        Ok(with(IMAGE_NAME).or_else(|| with(REF_NAME)).cloned())
    }

    /// Where a blob is, or would be.
    pub fn blob_path(&self, desc: &Descriptor) -> PathBuf {
        self.root.join("blobs/sha256").join(desc.digest.hex())
    }

    /// Copies an image with all it is made of out of the layout into a content store, checked on the way. What the
    /// store holds is not read again.
    ///
    /// Blocking: meant for a thread of its own.
    pub fn import(&self, store: &ContentStore, root: &Descriptor) -> Result<()> {
        self.import_one(store, root)?;
        for child in parts::children(store, root)? {
            self.import(store, &child)?;
        }
        Ok(())
    }

    /// Copies one blob out of the layout.
    pub fn import_one(&self, store: &ContentStore, desc: &Descriptor) -> Result<()> {
        if store.holds(desc) {
            return Ok(());
        }
        let mut file = match File::open(self.blob_path(desc)) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(Error::MissingBlob { digest: desc.digest });
            }
            Err(e) => return Err(Error::io(format!("open blob {}", desc.digest), e)),
        };
        let mut ingest = store.ingest()?;
        io::copy(&mut file, &mut ingest).map_err(|e| Error::io(format!("copy blob {}", desc.digest), e))?;
        ingest.commit_expecting(&desc.digest, Some(desc.size))
    }

    /// Copies an image with all it is made of into the layout, and names it.
    ///
    /// Blocking: meant for a thread of its own.
    pub fn export(&self, store: &ContentStore, root: &Descriptor, names: &[Reference]) -> Result<()> {
        for desc in parts::all(store, root)?.into_values() {
            let target = self.blob_path(&desc);
            if fs::metadata(&target).is_ok_and(|m| m.len() == desc.size) {
                continue;
            }
            let failed = |e| Error::io(format!("copy blob {}", desc.digest), e);
            let mut file = tempfile_beside(&target).map_err(failed)?;
            store.copy_to(&desc, |blob| io::copy(blob, &mut file.0))?;
            fs::rename(&file.1, &target).map_err(failed)?;
        }
        self.put(root, names)
    }

    /// Adds an image whose blobs are there to the index. An earlier one of the same name loses it.
    pub fn put(&self, root: &Descriptor, names: &[Reference]) -> Result<()> {
        let path = self.root.join("index.json");
        let failed = |e| Error::io(format!("write {}", path.display()), e);
        // Several builds may write to one layout.
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(self.root.join("index.json.lock"))
            .map_err(failed)?;
        flock(&lock, FlockOperation::LockExclusive).map_err(|e| failed(e.into()))?;
        let mut index = self.index()?;
        let mut add = |desc: Descriptor, name: Option<&str>| {
            index.manifests.retain(|old| match name {
                Some(name) => old.annotations.get(IMAGE_NAME).map(String::as_str) != Some(name),
                None => old.digest != desc.digest || old.annotations.contains_key(IMAGE_NAME),
            });
            index.manifests.push(desc);
        };
        if names.is_empty() {
            add(root.clone(), None);
        }
        for name in names {
            let mut desc = root.clone();
            desc.annotations.insert(IMAGE_NAME.into(), name.to_string());
            if let Some(tag) = name.tag() {
                desc.annotations.insert(REF_NAME.into(), tag.to_owned());
            }
            add(desc, Some(&name.to_string()));
        }
        replace(&path, &gojson::to_vec(&index)?).map_err(failed)
    }
}

/// Writes a file so that readers see the old or the new one, never a part.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let (mut file, temporary) = tempfile_beside(path)?;
    file.write_all(bytes)?;
    fs::rename(temporary, path)
}

fn tempfile_beside(path: &Path) -> io::Result<(File, PathBuf)> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}-{:?}", std::process::id(), std::thread::current().id()));
    let path = path.with_file_name(name);
    Ok((File::create(&path)?, path))
}
