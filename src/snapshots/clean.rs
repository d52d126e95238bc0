//! Layers that are put over something else than they were made on.
//!
//! Such a layer can hold more than it changes: removal marks in folders that are not below it there, which the kernel
//! shows when the folder is listed; folders that hide all below them; folders that a step has only walked through. So a
//! stack takes such a layer as a copy with nothing but its changes, whose files are hard links to the layer's.

use crate::clone::{Files, clone_tree};
use crate::node::{Node, Parents};
use crate::{Error, Result};
use crosskit_images::layers::{LayerError, LowerView, count_changes, link_layer};
use rustix::fs::FileType;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

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

/// What the layers of a merge or difference that are put over something else were made on. Its files
/// have to be on the disk too, to tell what such a layer changes.
pub(crate) fn made_on(joined: &Arc<Node>) -> Vec<Arc<Node>> {
    let layers = crate::node::without_covered(joined.layers());
    let own = own_base(&layers);
    layers[own..].iter().filter_map(|layer| below_of(layer).cloned()).collect()
}

fn below_of(layer: &Arc<Node>) -> Option<&Arc<Node>> {
    match &layer.parents {
        Parents::Layer(parent) => parent.as_ref(),
        Parents::Merge(_) | Parents::Diff { .. } | Parents::View(_) => None,
    }
}

/// How many of the lowest layers lie over what they were made on.
fn own_base(layers: &[Arc<Node>]) -> usize {
    let stands = |at: &usize| match &layers[*at].parents {
        Parents::Layer(parent) => {
            let below = at.checked_sub(1).map(|below| &layers[below].id);
            parent.as_ref().map(|parent| &parent.id) == below
        }
        Parents::Merge(_) | Parents::Diff { .. } | Parents::View(_) => false,
    };
    (0..layers.len()).take_while(stands).count()
}

/// Makes the copies that the stack of `node`, a merge or difference, needs. All its layers are on
/// the disk, and all of [`made_on`]. Blocks.
pub(crate) fn make_copies(node: &Arc<Node>, cancel: &CancellationToken) -> Result<HashMap<String, PathBuf>> {
    let mut copies = HashMap::new();
    let layers = crate::node::without_covered(node.layers());
    let own = own_base(&layers);
    // Top first.
    let mut below: Vec<PathBuf> = layers[..own].iter().rev().map(|l| l.files_dir()).collect();
    for layer in &layers[own..] {
        let folder = layer.files_dir();
        let copy = node.store.snapshot_dir(&node.id).join(format!("changes-{}", layer.id));
        let taken = match copy.exists() || copied(node, layer, &below, &copy, cancel)? {
            true => {
                copies.insert(layer.id.clone(), copy.clone());
                copy
            }
            false => folder,
        };
        below.insert(0, taken);
    }
    Ok(copies)
}

/// Makes a copy of a layer with nothing but its changes, if it holds more.
fn copied(
    node: &Arc<Node>,
    layer: &Arc<Node>,
    below: &[PathBuf],
    copy: &Path,
    cancel: &CancellationToken,
) -> Result<bool> {
    let folder = layer.files_dir();
    let failed = |source: LayerError| Error::Content {
        doing: format!("telling the changes of layer {}", layer.id),
        source: source.into(),
    };
    let made_on = below_of(layer).map(crate::refs::lower_dirs);
    if made_on.is_none() && matches!(layer.parents, Parents::Layer(None)) {
        // Made on nothing, so it hides nothing.
        return Ok(false);
    }
    let mut held = Held::default();
    held.look(&folder, Path::new(""), below)?;
    let is_bare = match &made_on {
        _ if !held.idle.is_empty() || held.hides => false,
        Some(made_on) => count_changes(&folder, made_on).map_err(failed)? == held.entries,
        None => true,
    };
    if is_bare {
        return Ok(false);
    }
    let own = node.store.snapshot_dir(&node.id);
    let part = own.join(format!("part-{}", layer.id));
    let made = |path: &Path| std::fs::create_dir_all(path).map_err(|e| Error::file("making folder", path, e));
    made(&own)?;
    if part.exists() {
        std::fs::remove_dir_all(&part).map_err(|e| Error::file("removing", &part, e))?;
    }
    match made_on {
        Some(made_on) => {
            made(&part)?;
            let below = LowerView::open(below).map_err(failed)?;
            link_layer(&folder, &made_on, &below, &part, cancel).map_err(failed)?;
        }
        None => clone_tree(&folder, &part, Files::Link, &held.idle)?,
    }
    std::fs::rename(&part, copy).map_err(|e| Error::file("putting in place", copy, e))?;
    Ok(true)
}

/// What the folder of a layer holds.
#[derive(Default)]
struct Held {
    entries: u64,
    /// Whether a folder hides what is below it.
    hides: bool,
    /// Removal marks in folders that no layer below has.
    idle: HashSet<PathBuf>,
}

impl Held {
    fn look(&mut self, folder: &Path, at: &Path, below: &[PathBuf]) -> Result<()> {
        let here = folder.join(at);
        let has_below = is_folder_below(at, below);
        for entry in std::fs::read_dir(&here).map_err(|e| Error::file("listing", &here, e))? {
            let entry = entry.map_err(|e| Error::file("listing", &here, e))?;
            let path = at.join(entry.file_name());
            let stat = look(&folder.join(&path))?;
            self.entries += 1;
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => {
                    self.hides |= hides(&folder.join(&path));
                    self.look(folder, &path, below)?;
                }
                FileType::CharacterDevice if stat.st_rdev == 0 && !has_below => drop(self.idle.insert(path)),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Whether overlayfs shows nothing of what is below a folder.
fn hides(folder: &Path) -> bool {
    ["trusted.overlay.opaque", "user.overlay.opaque"].into_iter().any(|name| {
        let mut value = [0_u8; 2];
        matches!(rustix::fs::lgetxattr(folder, name, &mut value[..]), Ok(1) if value[0] == b'y')
    })
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
