//! Handles to snapshots that no longer change.

use crate::lazy;
use crate::mounts::{Attached, Mounted};
use crate::node::{Node, without_covered};
use crate::record::{now, time};
use crate::store::Snapshots;
use crate::{About, MadeBy, Result};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::SystemTime;

/// A snapshot that no longer changes. As long as one of its handles, or of those that build on
/// it, is there, it is not pruned. Cheap to clone.
#[derive(Clone)]
pub struct Ref(Arc<Held>);

/// One use of a snapshot; its end is what counts as the use.
struct Held {
    node: Arc<Node>,
}

impl Drop for Held {
    fn drop(&mut self) {
        note_use(&self.node);
    }
}

/// Notes that a snapshot has been used, which pruning goes by.
pub(crate) fn note_use(node: &Node) {
    let noted = node.update(|record| {
        record.used += 1;
        record.last_used = Some(now());
    });
    if let Err(why) = noted {
        tracing::warn!(id = node.id, %why, "the use of a snapshot could not be noted");
    }
}

impl PartialEq for Ref {
    fn eq(&self, other: &Ref) -> bool {
        self.id() == other.id()
    }
}

impl Eq for Ref {}

impl std::fmt::Debug for Ref {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ref({})", self.id())
    }
}

impl Ref {
    pub(crate) fn new(node: Arc<Node>) -> Ref {
        Ref(Arc::new(Held { node }))
    }

    pub(crate) fn node(&self) -> &Arc<Node> {
        &self.0.node
    }

    /// The snapshot's name, which [`Snapshots::get`] takes.
    pub fn id(&self) -> &str {
        &self.0.node.id
    }

    /// The snapshots it belongs to.
    pub fn snapshots(&self) -> Snapshots {
        Snapshots(self.0.node.store.clone())
    }

    /// What people are told about it.
    pub fn about(&self) -> About {
        self.0.node.record().about.clone()
    }

    /// Changes what people are told about it.
    pub fn set_about(&self, about: About) -> Result<()> {
        self.0.node.update(|record| record.about = about)
    }

    /// Who has made it, as far as that was said.
    pub fn made_by(&self) -> Option<MadeBy> {
        self.0.node.record().made_by.clone()
    }

    /// Says who has made it.
    pub fn set_made_by(&self, made_by: MadeBy) -> Result<()> {
        self.0.node.update(|record| record.made_by = Some(made_by))
    }

    /// When it was made.
    pub fn created(&self) -> SystemTime {
        time(self.0.node.record().created)
    }

    /// The ids of what it was made from.
    pub fn parents(&self) -> Vec<String> {
        self.0.node.parent_nodes().iter().map(|parent| parent.id.clone()).collect()
    }

    /// The snapshot of each of its layers, bottom first.
    pub fn layer_refs(&self) -> Vec<Ref> {
        self.0.node.layers().into_iter().map(Ref::new).collect()
    }

    /// Makes sure that its files are on the disk: layers that were not needed so far are fetched
    /// and unpacked.
    pub async fn materialize(&self) -> Result<()> {
        lazy::materialize(&self.0.node).await
    }

    /// The folders that hold its layers, top first, each with what it changes over those below;
    /// with a driver that does not stack, the one folder that holds all.
    pub async fn lowerdirs(&self) -> Result<Vec<PathBuf>> {
        self.materialize().await?;
        Ok(lower_dirs(&self.0.node))
    }

    /// Its tree, to be read only. One layer is its own folder, without a mount.
    pub async fn mount_readonly(&self) -> Result<Mounted> {
        self.materialize().await?;
        let node = &self.0.node;
        let mut shared = node.mounted.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(attached) = shared.upgrade() {
            return Ok(Mounted(attached));
        }
        let attached = attach(node, stack(node), None, Some(self.clone()))?;
        let attached = Arc::new(attached);
        *shared = Arc::downgrade(&attached);
        Ok(Mounted(attached))
    }

    /// The bytes it takes on the disk, without its parents.
    pub async fn size(&self) -> Result<u64> {
        crate::sizes::size(&self.0.node).await
    }
}

/// The folders to mount for a snapshot whose files are there, bottom first.
pub(crate) fn stack(node: &Arc<Node>) -> Vec<PathBuf> {
    if !node.store.driver.stacks() {
        return vec![node.files_dir()];
    }
    let joined = crate::clean::joined(node);
    let copies = joined.as_ref().and_then(|joined| joined.copies.get());
    let folder = |layer: &Arc<Node>| {
        copies.and_then(|copies| copies.get(&layer.id).cloned()).unwrap_or_else(|| layer.files_dir())
    };
    without_covered(node.layers()).iter().map(folder).collect()
}

/// The same, top first.
pub(crate) fn lower_dirs(node: &Arc<Node>) -> Vec<PathBuf> {
    let mut dirs = stack(node);
    dirs.reverse();
    dirs
}

/// Makes a tree of folders, with a mount where one is needed.
pub(crate) fn attach(
    node: &Arc<Node>,
    mut lowers: Vec<PathBuf>,
    upper: Option<PathBuf>,
    keep: Option<Ref>,
) -> Result<Attached> {
    let store = node.store.clone();
    if lowers.is_empty() && upper.is_none() {
        // A merge of nothing, or the difference between two that are the same.
        lowers.push(store.empty_dir().to_path_buf());
    }
    match (lowers.as_slice(), &upper) {
        ([only], None) => Ok(Attached::folder(store, only.clone(), false, keep)),
        _ => Attached::stack(store, lowers, upper, keep),
    }
}
