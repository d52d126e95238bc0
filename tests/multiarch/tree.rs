//! A tree of files as a value: from a folder, or from layers.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// One thing in a tree.
#[derive(Clone, PartialEq, Eq)]
pub struct Entry {
    /// The tar type letter: `0` file, `2` symbolic link, `5` folder, `3` `4` device, `6` fifo.
    pub kind: char,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u64,
    /// Group.
    pub gid: u64,
    /// A file's bytes, a link's target, a device's `major:minor`.
    pub content: Vec<u8>,
}

impl fmt::Debug for Entry {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {:04o} {}:{} ", self.kind, self.mode, self.uid, self.gid)?;
        match std::str::from_utf8(&self.content) {
            Ok(text) if text.len() <= 200 => write!(out, "{text:?}"),
            _ => write!(out, "{} bytes", self.content.len()),
        }
    }
}

/// Paths without a leading slash, and what is there. The root itself is not in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tree(pub BTreeMap<String, Entry>);

impl Tree {
    /// Everything below a folder.
    pub fn of_folder(folder: &Path) -> Tree {
        let mut tree = Tree::default();
        tree.gather(folder, "");
        tree
    }

    /// The text of every file, by path: for expectations that are about contents only.
    pub fn texts(&self) -> BTreeMap<&str, String> {
        let files = self.0.iter().filter(|(_, entry)| entry.kind == '0');
        files
            .map(|(path, entry)| (path.as_str(), String::from_utf8_lossy(&entry.content).into_owned()))
            .collect()
    }

    /// The text of one file.
    #[track_caller]
    pub fn text(&self, path: &str) -> String {
        let entry = self.0.get(path).unwrap_or_else(|| panic!("no {path} among {:?}", self.0.keys()));
        String::from_utf8(entry.content.clone()).expect("text")
    }

    /// Whether there is something at a path.
    pub fn has(&self, path: &str) -> bool {
        self.0.contains_key(path)
    }

    /// Puts one layer, a plain tar, over the tree.
    pub fn apply(&mut self, layer: &[u8]) {
        let mut archive = tar::Archive::new(layer);
        for entry in archive.entries().expect("a tar") {
            let mut entry = entry.expect("an entry of a layer");
            let path = entry.path().expect("a path").to_string_lossy().into_owned();
            let path = path.trim_start_matches("./").trim_matches('/').to_owned();
            if path.is_empty() || path == "." {
                continue;
            }
            let (folder, name) = path.rsplit_once('/').unwrap_or(("", &path));
            if name == ".wh..wh..opq" {
                self.remove_below(folder);
                continue;
            }
            if let Some(hidden) = name.strip_prefix(".wh.") {
                let hidden = if folder.is_empty() { hidden.to_owned() } else { format!("{folder}/{hidden}") };
                self.0.remove(&hidden);
                self.remove_below(&hidden);
                continue;
            }
            let found = self.read_entry(&mut entry);
            if found.kind != '5' {
                self.remove_below(&path);
            }
            self.0.insert(path, found);
        }
    }

    fn read_entry(&self, entry: &mut tar::Entry<'_, &[u8]>) -> Entry {
        let header = entry.header().clone();
        let kind = header.entry_type();
        if kind.is_hard_link() {
            let target =
                entry.link_name().expect("a target").expect("a target").to_string_lossy().into_owned();
            let target = target.trim_start_matches("./").trim_start_matches('/');
            return self
                .0
                .get(target)
                .unwrap_or_else(|| panic!("hard link to {target}, which is not there"))
                .clone();
        }
        let mut content = Vec::new();
        if kind.is_symlink() {
            content = entry.link_name_bytes().expect("a link has a target").into_owned();
        } else if kind.is_character_special() || kind.is_block_special() {
            let number = |part: std::io::Result<Option<u32>>| part.ok().flatten().unwrap_or_default();
            content =
                format!("{}:{}", number(header.device_major()), number(header.device_minor())).into_bytes();
        } else {
            entry.read_to_end(&mut content).expect("an entry's content");
        }
        let letter = match kind.as_byte() as char {
            '\0' => '0',
            letter => letter,
        };
        Entry {
            kind: letter,
            mode: header.mode().expect("a mode") & 0o7777,
            uid: header.uid().expect("an owner"),
            gid: header.gid().expect("a group"),
            content,
        }
    }

    fn remove_below(&mut self, folder: &str) {
        let prefix = if folder.is_empty() { String::new() } else { format!("{folder}/") };
        self.0.retain(|path, _| !path.starts_with(&prefix));
    }

    fn gather(&mut self, folder: &Path, prefix: &str) {
        let entries =
            std::fs::read_dir(folder).unwrap_or_else(|error| panic!("list {}: {error}", folder.display()));
        for entry in entries {
            let entry = entry.expect("an entry of a folder");
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
            let about = entry.metadata().expect("what an entry is");
            let kind = about.file_type();
            let device =
                || format!("{}:{}", rustix::fs::major(about.rdev()), rustix::fs::minor(about.rdev()));
            let (letter, content) = if kind.is_symlink() {
                let target = std::fs::read_link(entry.path()).expect("a link's target");
                ('2', target.into_os_string().into_encoded_bytes())
            } else if kind.is_dir() {
                ('5', Vec::new())
            } else if kind.is_char_device() {
                ('3', device().into_bytes())
            } else if kind.is_block_device() {
                ('4', device().into_bytes())
            } else if kind.is_fifo() {
                ('6', Vec::new())
            } else {
                ('0', std::fs::read(entry.path()).expect("a file's content"))
            };
            let found = Entry {
                kind: letter,
                mode: about.mode() & 0o7777,
                uid: about.uid().into(),
                gid: about.gid().into(),
                content,
            };
            if letter == '5' {
                self.gather(&entry.path(), &path);
            }
            self.0.insert(path, found);
        }
    }
}
