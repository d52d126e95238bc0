//! What can be sent: a tree of entries in order, whose files can be opened.

use crate::SessionError;
use crosskit_api::fsutil::Stat;
use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;

use super::modes::{DIR, FileKind, kind_of};
use super::order::compare_paths;

/// The content of a file.
pub type Content = Box<dyn Read + Send>;

/// Takes the entries of a tree, one by one.
pub type Visit<'a> = dyn FnMut(Stat) -> Result<(), SessionError> + 'a;

/// Changes what is known of an entry before it is sent, or leaves it out (false).
pub type MapEntry = Arc<dyn Fn(&mut Stat) -> bool + Send + Sync>;

/// A tree of files. Both methods may block; they are called from threads of their own.
pub trait Tree: Send + Sync {
    /// Calls `visit` for every entry, in the order of [`compare_paths`], folders first. Paths are
    /// relative to the tree's root, which is itself not visited.
    fn walk(&self, visit: &mut Visit<'_>) -> Result<(), SessionError>;

    /// Opens a file that was visited.
    fn open(&self, path: &str) -> std::io::Result<Content>;
}

/// Files that exist only in memory.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    entries: BTreeMap<Vec<String>, (Stat, Arc<[u8]>)>,
}

impl Memory {
    /// Adds a file, and the folders above it that are not there yet (mode 0755, the file's times).
    pub fn add(&mut self, mut stat: Stat, content: impl Into<Arc<[u8]>>) {
        let content = content.into();
        stat.size = content.len() as i64;
        let parts: Vec<String> = stat.path.split('/').map(String::from).collect();
        for depth in 1..parts.len() {
            let folder = Stat {
                path: parts[..depth].join("/"),
                mode: DIR | 0o755,
                mod_time: stat.mod_time,
                ..Stat::default()
            };
            self.entries.entry(parts[..depth].to_vec()).or_insert_with(|| (folder, Arc::from([])));
        }
        self.entries.insert(parts, (stat, content));
    }

    /// All files, folders left out, with their content.
    pub fn files(&self) -> impl Iterator<Item = (&Stat, &[u8])> {
        let all = self.entries.values().filter(|(stat, _)| kind_of(stat.mode) == FileKind::File);
        all.map(|(stat, content)| (stat, content.as_ref()))
    }
}

impl Tree for Memory {
    fn walk(&self, visit: &mut Visit<'_>) -> Result<(), SessionError> {
        self.entries.values().try_for_each(|(stat, _)| visit(stat.clone()))
    }

    fn open(&self, path: &str) -> std::io::Result<Content> {
        let parts: Vec<String> = path.split('/').map(String::from).collect();
        match self.entries.get(&parts) {
            Some((_, content)) => Ok(Box::new(std::io::Cursor::new(content.clone()))),
            None => Err(std::io::ErrorKind::NotFound.into()),
        }
    }
}

/// Several trees as folders of one.
pub struct Subfolders {
    folders: BTreeMap<String, (Stat, Arc<dyn Tree>)>,
}

impl Subfolders {
    /// Each tree goes into the folder that its stat describes; a stat's path is a plain name.
    pub fn new(folders: impl IntoIterator<Item = (Stat, Arc<dyn Tree>)>) -> Result<Self, SessionError> {
        let mut all = BTreeMap::new();
        for (stat, tree) in folders {
            let name = stat.path.clone();
            if name.contains('/') || matches!(name.as_str(), "" | "." | "..") {
                return Err(SessionError::Invalid(format!(
                    "invalid path {name:?}: not the name of a folder"
                )));
            }
            if kind_of(stat.mode) != FileKind::Dir {
                return Err(SessionError::Invalid(format!("walk subdir {name:?}: not a directory")));
            }
            if all.insert(name.clone(), (stat, tree)).is_some() {
                return Err(SessionError::Invalid(format!("duplicate path {name:?}: file exists")));
            }
        }
        Ok(Self { folders: all })
    }
}

impl Tree for Subfolders {
    fn walk(&self, visit: &mut Visit<'_>) -> Result<(), SessionError> {
        for (name, (stat, tree)) in &self.folders {
            visit(stat.clone())?;
            tree.walk(&mut |mut stat| {
                stat.path = format!("{name}/{}", stat.path);
                if !stat.linkname.is_empty() {
                    // An absolute symbolic link meant the root of its own tree.
                    match kind_of(stat.mode) {
                        FileKind::Symlink if !stat.linkname.starts_with('/') => {}
                        FileKind::Symlink => stat.linkname = format!("/{name}{}", stat.linkname),
                        _ => stat.linkname = format!("{name}/{}", stat.linkname),
                    }
                }
                visit(stat)
            })?;
        }
        Ok(())
    }

    fn open(&self, path: &str) -> std::io::Result<Content> {
        let found = path.split_once('/').and_then(|(name, rest)| Some((self.folders.get(name)?, rest)));
        match found {
            Some(((_, tree), rest)) => tree.open(rest),
            None => Err(std::io::ErrorKind::NotFound.into()),
        }
    }
}

/// Several trees laid over each other; an entry of a later one hides one of an earlier one, except
/// that folders are joined.
pub struct Merged {
    trees: Vec<Arc<dyn Tree>>,
}

impl Merged {
    /// The first tree is the lowest.
    pub fn new(trees: impl IntoIterator<Item = Arc<dyn Tree>>) -> Self {
        Self { trees: trees.into_iter().collect() }
    }

    /// Every entry with the tree it comes from, in order.
    fn entries(&self) -> Result<Vec<(Stat, usize)>, SessionError> {
        let mut all: Vec<(Stat, usize)> = Vec::new();
        for (at, tree) in self.trees.iter().enumerate() {
            tree.walk(&mut |stat| {
                all.push((stat, at));
                Ok(())
            })?;
        }
        all.sort_by(|(a, i), (b, j)| compare_paths(&a.path, &b.path).then(j.cmp(i)));
        all.dedup_by(|later, earlier| later.0.path == earlier.0.path);
        // What lies in a folder that a file hides is hidden with it.
        let mut hidden: Option<String> = None;
        all.retain(|(stat, _)| {
            if hidden.as_ref().is_some_and(|dir| stat.path.starts_with(dir.as_str())) {
                return false;
            }
            hidden = (kind_of(stat.mode) != FileKind::Dir).then(|| format!("{}/", stat.path));
            true
        });
        Ok(all)
    }
}

impl Tree for Merged {
    fn walk(&self, visit: &mut Visit<'_>) -> Result<(), SessionError> {
        self.entries()?.into_iter().try_for_each(|(stat, _)| visit(stat))
    }

    fn open(&self, path: &str) -> std::io::Result<Content> {
        let mut last = std::io::ErrorKind::NotFound.into();
        for tree in self.trees.iter().rev() {
            match tree.open(path) {
                Ok(content) => return Ok(content),
                Err(err) => last = err,
            }
        }
        Err(last)
    }
}
