//! Differences without the removal marks that have nothing to remove.
//!
//! A difference put over something else than it was made from can hold marks in folders that are
//! not below it there. The kernel shows such marks when the folder is listed. So a stack takes
//! such a layer as a copy without them, whose files are hard links to the layer's.

use crate::clone::{Files, clone_tree};
use crate::node::{Node, Parents};
use crate::{Error, Result};
use rustix::fs::FileType;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The snapshot made of others that the lowest layers of `node` come from, if any.
pub(crate) fn joined(node: &Arc<Node>) -> Option<Arc<Node>> {
    let mut at = node;
    loop {
        match &at.parents {
            Parents::Layer(Some(parent)) => at = parent,
            Parents::Merge(_) | Parents::Diff { .. } => return Some(at.clone()),
            Parents::Layer(None) | Parents::View(_) => return None,
        }
    }
}

/// Makes the copies that the stack of `node`, a merge or difference, needs. All its layers are on
/// the disk. Blocks.
pub(crate) fn make_copies(node: &Arc<Node>) -> Result<HashMap<String, PathBuf>> {
    let mut from_differences = HashSet::new();
    note_differences(node, &mut from_differences);
    let mut copies = HashMap::new();
    let layers = crate::node::without_covered(node.layers());
    for (at, layer) in layers.iter().enumerate() {
        if !from_differences.contains(&layer.id) {
            continue;
        }
        let below: Vec<PathBuf> = layers[..at].iter().rev().map(|l| l.files_dir()).collect();
        let folder = layer.files_dir();
        let mut idle = HashSet::new();
        idle_marks(&folder, Path::new(""), &below, &mut idle)?;
        if idle.is_empty() {
            continue;
        }
        let own = node.store.snapshot_dir(&node.id);
        let copy = own.join(format!("without-marks-{}", layer.id));
        if !copy.exists() {
            let part = own.join(format!("part-{}", layer.id));
            std::fs::create_dir_all(&own).map_err(|e| Error::file("making folder", &own, e))?;
            if part.exists() {
                std::fs::remove_dir_all(&part).map_err(|e| Error::file("removing", &part, e))?;
            }
            clone_tree(&folder, &part, Files::Link, &idle)?;
            std::fs::rename(&part, &copy).map_err(|e| Error::file("putting in place", &copy, e))?;
        }
        copies.insert(layer.id.clone(), copy);
    }
    Ok(copies)
}

fn note_differences(node: &Arc<Node>, noted: &mut HashSet<String>) {
    match &node.parents {
        Parents::Diff { .. } => noted.extend(node.layers().iter().map(|l| l.id.clone())),
        Parents::Merge(parents) => parents.iter().for_each(|parent| note_differences(parent, noted)),
        // What is below was made over the same as here.
        Parents::Layer(Some(parent)) => note_differences(parent, noted),
        Parents::Layer(None) | Parents::View(_) => {}
    }
}

/// Finds marks in folders that no layer below has.
fn idle_marks(folder: &Path, at: &Path, below: &[PathBuf], idle: &mut HashSet<PathBuf>) -> Result<()> {
    let here = folder.join(at);
    let has_below = is_folder_below(at, below);
    for entry in std::fs::read_dir(&here).map_err(|e| Error::file("listing", &here, e))? {
        let entry = entry.map_err(|e| Error::file("listing", &here, e))?;
        let path = at.join(entry.file_name());
        let stat = look(&folder.join(&path))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => idle_marks(folder, &path, below, idle)?,
            FileType::CharacterDevice if stat.st_rdev == 0 && !has_below => drop(idle.insert(path)),
            _ => {}
        }
    }
    Ok(())
}

/// Whether the layers below, top first, show a folder at a path.
fn is_folder_below(at: &Path, below: &[PathBuf]) -> bool {
    let visible = |layer: &PathBuf| {
        let mut path = layer.clone();
        for part in at.components() {
            path.push(part);
            match path.symlink_metadata() {
                Ok(meta) if meta.is_dir() => {}
                // Something else, or a mark, hides what is further below.
                Ok(_) => return Some(false),
                Err(_) => return None,
            }
        }
        Some(true)
    };
    below.iter().find_map(visible).unwrap_or(false)
}

fn look(path: &Path) -> Result<rustix::fs::Stat> {
    rustix::fs::lstat(path).map_err(|e| Error::file("looking at", path, e))
}
