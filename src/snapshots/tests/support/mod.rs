//! What the tests of this folder share.
#![allow(dead_code, clippy::unwrap_used)]

use crosskit_images::ContentStore;
use crosskit_metadata::Database;
use crosskit_snapshots::{About, DriverChoice, Ref, Snapshots};
use std::path::{Path, PathBuf};

/// A root folder that goes with the test.
pub struct Root {
    pub dir: tempfile::TempDir,
    pub choice: DriverChoice,
}

impl Root {
    pub fn new(choice: DriverChoice) -> Root {
        Root { dir: tempfile::tempdir().unwrap(), choice }
    }

    pub fn open(&self) -> Snapshots {
        open_at(self.dir.path(), self.choice)
    }

    pub fn mounts(&self) -> Vec<String> {
        mounts_below(self.dir.path())
    }

    /// Names in one of the root's folders.
    pub fn names(&self, folder: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.dir.path().join(folder)).unwrap();
        entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    }
}

pub fn open_at(root: &Path, choice: DriverChoice) -> Snapshots {
    let db = database(root);
    let content = ContentStore::open(root.join("content")).unwrap();
    Snapshots::open_with(root, db, content, choice).unwrap()
}

/// The database, once those who had it before have finished what they do in the background.
fn database(root: &Path) -> Database {
    let patience = std::time::Instant::now() + std::time::Duration::from_secs(10);
    loop {
        match Database::open(root.join("metadata.db")) {
            Err(crosskit_metadata::Error::InUse { .. }) if std::time::Instant::now() < patience => {
                std::thread::yield_now();
            }
            opened => return opened.unwrap(),
        }
    }
}

pub fn mounts_below(root: &Path) -> Vec<String> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let root = root.to_str().unwrap();
    table.lines().filter(|line| line.contains(root)).map(str::to_string).collect()
}

pub const BOTH: [DriverChoice; 2] = [DriverChoice::Overlay, DriverChoice::Native];

/// A snapshot over `parent` with what `change` does to its tree.
pub async fn step(snapshots: &Snapshots, parent: Option<&Ref>, change: impl FnOnce(&Path)) -> Ref {
    let mutable = snapshots.new_mutable(parent, About::new("step")).unwrap();
    let mounted = mutable.mount().await.unwrap();
    change(mounted.path());
    drop(mounted);
    mutable.commit().await.unwrap()
}

/// All paths of a snapshot's tree with the content of files, sorted.
pub async fn tree(reference: &Ref) -> Vec<String> {
    let mounted = reference.mount_readonly().await.unwrap();
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(mounted.path().join(&folder)).unwrap() {
            let path = folder.join(entry.unwrap().file_name());
            let full = mounted.path().join(&path);
            let meta = full.symlink_metadata().unwrap();
            found.push(if meta.is_dir() {
                folders.push(path.clone());
                format!("{}/", path.display())
            } else if meta.is_symlink() {
                format!("{}->{}", path.display(), std::fs::read_link(&full).unwrap().display())
            } else if meta.is_file() {
                format!("{}={}", path.display(), std::fs::read_to_string(&full).unwrap())
            } else {
                format!("{}?", path.display())
            });
        }
    }
    found.sort();
    found
}

pub fn write(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}
