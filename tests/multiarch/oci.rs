//! Reading images where builds put them: a layout folder, an archive, a registry.

use crate::registry::Registry;
use crate::tree::Tree;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

/// `sha256:…` of some bytes.
pub fn digest_of(content: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(content)))
}

/// A place that holds blobs by digest. Every blob read is checked against its digest.
pub enum Images<'a> {
    /// An OCI layout folder.
    Folder(PathBuf),
    /// The files of an OCI or docker archive, by their paths.
    Archive(BTreeMap<String, Vec<u8>>),
    /// A repository of a registry.
    Repository(&'a Registry, String),
}

impl Images<'_> {
    /// Reads an archive into memory.
    pub fn archive(path: &Path) -> Images<'static> {
        let file =
            std::fs::File::open(path).unwrap_or_else(|error| panic!("open {}: {error}", path.display()));
        let mut archive = tar::Archive::new(file);
        let mut files = BTreeMap::new();
        for entry in archive.entries().expect("an archive") {
            let mut entry = entry.expect("an entry of the archive");
            let name = entry.path().expect("a name").to_string_lossy().into_owned();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).expect("an entry's content");
            files.insert(name, content);
        }
        Images::Archive(files)
    }

    /// A file beside the blobs: `index.json`, `oci-layout`, `manifest.json`, `repositories`.
    pub fn file(&self, name: &str) -> Vec<u8> {
        match self {
            Images::Folder(folder) => {
                std::fs::read(folder.join(name)).unwrap_or_else(|error| panic!("read {name}: {error}"))
            }
            Images::Archive(files) => files.get(name).unwrap_or_else(|| panic!("no {name}")).clone(),
            Images::Repository(..) => panic!("a registry has no file {name}"),
        }
    }

    /// `index.json` of a layout or an archive.
    pub fn index_json(&self) -> Value {
        serde_json::from_slice(&self.file("index.json")).expect("index.json is JSON")
    }

    /// The bytes behind a digest; a manifest's too.
    pub fn blob(&self, digest: &str) -> Vec<u8> {
        let path = format!("blobs/{}", digest.replace(':', "/"));
        let content = match self {
            Images::Folder(_) | Images::Archive(_) => self.file(&path),
            Images::Repository(registry, name) => {
                registry.manifest(name, digest).unwrap_or_else(|| registry.blob(name, digest))
            }
        };
        assert_eq!(digest_of(&content), digest, "a blob has another digest than its name");
        content
    }

    /// The JSON behind a descriptor, whose size is checked as well.
    pub fn json(&self, descriptor: &Value) -> Value {
        let content = self.blob(text(descriptor, "digest"));
        assert_eq!(descriptor["size"], content.len(), "the size of {descriptor}");
        serde_json::from_slice(&content).expect("JSON behind a descriptor")
    }

    /// The entry of an index for a platform (`linux/arm/v7`).
    pub fn entry<'v>(index: &'v Value, platform: &str) -> &'v Value {
        let entries = index["manifests"].as_array().expect("an index has manifests");
        entries
            .iter()
            .find(|entry| Images::platform_of(entry) == platform)
            .unwrap_or_else(|| panic!("no {platform} in {index}"))
    }

    /// The platform of an index entry, `linux/arm/v7`.
    pub fn platform_of(entry: &Value) -> String {
        let platform = &entry["platform"];
        let words = ["os", "architecture", "variant"].map(|key| platform[key].as_str().unwrap_or_default());
        words.join("/").trim_end_matches('/').to_owned()
    }

    /// The files of an image: its layers one over the other.
    pub fn tree(&self, manifest: &Value) -> Tree {
        let mut tree = Tree::default();
        for layer in manifest["layers"].as_array().expect("a manifest has layers") {
            tree.apply(&self.layer_tar(layer));
        }
        tree
    }

    /// A layer as plain tar.
    pub fn layer_tar(&self, layer: &Value) -> Vec<u8> {
        let content = self.blob(text(layer, "digest"));
        assert_eq!(layer["size"], content.len(), "the size of {layer}");
        let kind = text(layer, "mediaType");
        if kind.ends_with("+zstd") {
            zstd::decode_all(content.as_slice()).expect("zstd")
        } else if kind.ends_with("gzip") {
            let mut plain = Vec::new();
            flate2::read::MultiGzDecoder::new(content.as_slice()).read_to_end(&mut plain).expect("gzip");
            plain
        } else {
            content
        }
    }
}

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value[key].as_str().unwrap_or_else(|| panic!("no {key} in {value}"))
}
