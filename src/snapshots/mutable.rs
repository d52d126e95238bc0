//! Snapshots that are being written to.

use crate::checksum::{ChecksumUpdate, save, start};
use crate::clone::copy_root_attributes;
use crate::kept::{Past, view};
use crate::mounts::{Attached, Mounted};
use crate::node::{Node, Parents};
use crate::record::{Origin, Record};
use crate::refs::{note_use, stack};
use crate::store::Snapshots;
use crate::{About, Error, Ref, Result, ids, lazy};
use rustix::fs::Mode;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// A snapshot that is being written to. Dropped without a commit, it leaves nothing, unless it
/// came by a key: then it is kept as it is, for the next one who asks for that key.
///
/// Files in it must never be changed in place if they may have been there before: other
/// snapshots can share them by hard links. Write a new file and rename it.
pub struct MutableRef {
    id: String,
    snapshots: Snapshots,
    parent: Option<Ref>,
    about: About,
    mounted: Mutex<Weak<Attached>>,
    /// Whether the folder is ready to be mounted.
    prepared: AtomicBool,
    committed: bool,
    /// For one that is kept: what it was before.
    kept: Option<Past>,
}

impl std::fmt::Debug for MutableRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MutableRef({})", self.id)
    }
}

impl MutableRef {
    pub(crate) fn new(snapshots: &Snapshots, parent: Option<&Ref>, about: About) -> Result<MutableRef> {
        let id = ids::new_id();
        snapshots.0.lock().start_making(&id);
        let mutable = MutableRef {
            id,
            snapshots: snapshots.clone(),
            parent: parent.cloned(),
            about,
            mounted: Mutex::default(),
            prepared: AtomicBool::new(parent.is_none()),
            committed: false,
            kept: None,
        };
        make_folders(snapshots, &mutable.id)?;
        Ok(mutable)
    }

    /// One that is kept, and claimed by the caller.
    pub(crate) fn kept(
        snapshots: &Snapshots,
        id: String,
        parent: Option<Ref>,
        about: About,
        past: Past,
    ) -> MutableRef {
        MutableRef {
            id,
            snapshots: snapshots.clone(),
            prepared: AtomicBool::new(matches!(past, Past::Of(_)) || parent.is_none()),
            parent,
            about,
            mounted: Mutex::default(),
            committed: false,
            kept: Some(past),
        }
    }

    /// The name that the snapshot will have.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What it is written over.
    pub fn parent(&self) -> Option<&Ref> {
        self.parent.as_ref()
    }

    /// The folder that holds what this snapshot changes. Filled in directly, without a mount, by
    /// those who know the driver's form of a layer (see [`Snapshots::layer_form`]).
    pub fn layer_dir(&self) -> PathBuf {
        self.snapshots.0.files_dir(&self.id)
    }

    /// Its tree, to be written to. Mounts that are held at the same time are the same one.
    pub async fn mount(&self) -> Result<Mounted> {
        self.prepare().await?;
        let mut shared = self.mounted.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(attached) = shared.upgrade() {
            return Ok(Mounted(attached));
        }
        let store = &self.snapshots.0;
        let folder = self.layer_dir();
        let attached = match &self.parent {
            Some(parent) if store.driver.stacks() => {
                let lowers = stack(parent.node());
                if lowers.is_empty() {
                    Attached::folder(store.clone(), folder, true, None)
                } else {
                    Attached::stack(store.clone(), lowers, Some(folder), self.parent.clone())?
                }
            }
            _ => Attached::folder(store.clone(), folder, true, None),
        };
        let attached = Arc::new(attached);
        *shared = Arc::downgrade(&attached);
        Ok(Mounted(attached))
    }

    /// Gives the folder what it starts from: the parent's root attributes if the driver stacks,
    /// else its whole tree.
    async fn prepare(&self) -> Result<()> {
        let Some(parent) = &self.parent else { return Ok(()) };
        lazy::materialize(parent.node()).await?;
        if self.prepared.load(Ordering::Acquire) {
            return Ok(());
        }
        let (below, folder) = (stack(parent.node()), self.layer_dir());
        if self.snapshots.0.driver.stacks() {
            if let Some(top) = below.last() {
                copy_root_attributes(top, &folder)?;
            }
        } else if let Some(tree) = below.into_iter().next() {
            let store = self.snapshots.0.clone();
            let task = tokio::task::spawn_blocking(move || store.driver.copy_tree(&tree, &folder));
            task.await.unwrap_or(Err(Error::Canceled))?;
        }
        self.prepared.store(true, Ordering::Release);
        Ok(())
    }

    /// Makes it a snapshot that no longer changes. Its mounts must be gone. One that is kept
    /// cannot be written to as long as this snapshot is in use, and is no longer this snapshot
    /// when it is written to again.
    pub async fn commit(mut self) -> Result<Ref> {
        self.prepare_to_commit().await?;
        if self.kept.is_some() {
            return view(&self.snapshots, &self.id, &ids::new_id(), &self.about).map(Ref::new);
        }
        self.enter()
    }

    fn enter(&mut self) -> Result<Ref> {
        let origin = Origin::Layer { parent: self.parent.as_ref().map(|p| p.id().to_string()) };
        let record = Record { files: true, ..Record::new(origin, self.about.clone()) };
        let parents = Parents::Layer(self.parent.as_ref().map(|p| p.node().clone()));
        if let Some(Parents::View(of)) = self.parent.as_ref().map(|p| &p.node().parents) {
            of.update(|record| record.built_upon = true)?;
        }
        let node = self.snapshots.0.enter(self.id.clone(), parents, record)?;
        self.committed = true;
        Ok(Ref::new(node))
    }

    /// The digests of its files, to be told of everything that a transfer changes in them. After a
    /// transfer before, they are known of what it left.
    pub fn checksums(&self) -> ChecksumUpdate {
        let store = &self.snapshots.0;
        let file = store.snapshot_dir(&self.id).join("checksums");
        match &self.kept {
            None | Some(Past::None) => start(&store.checksums, &file, None, true),
            Some(Past::Of(before)) => start(&store.checksums, &file, before.as_deref(), false),
        }
    }

    /// [`MutableRef::commit`] with the digests of its files, which then need not be read.
    pub async fn commit_with(mut self, checksums: ChecksumUpdate) -> Result<Ref> {
        self.prepare_to_commit().await?;
        let store = self.snapshots.0.clone();
        let kept = self.kept.is_some();
        let id = if kept { ids::new_id() } else { self.id.clone() };
        let file = store.snapshot_dir(&self.id).join("checksums");
        let tree = store.checksums.put(&id, checksums.finish());
        let reference =
            if kept { Ref::new(view(&self.snapshots, &self.id, &id, &self.about)?) } else { self.enter()? };
        // Kept for later builds; this one has them in memory.
        tokio::task::spawn_blocking(move || save(&file, &id, &tree));
        Ok(reference)
    }

    async fn prepare_to_commit(&self) -> Result<()> {
        if self.mounted.lock().unwrap_or_else(PoisonError::into_inner).strong_count() > 0 {
            return Err(Error::StillMounted { id: self.id.clone() });
        }
        if self.snapshots.0.driver.marks_its_own_way() {
            let (store, folder) = (self.snapshots.0.clone(), self.layer_dir());
            let finishing = tokio::task::spawn_blocking(move || store.driver.finish(&folder));
            finishing.await.unwrap_or(Err(Error::Canceled))?;
        }
        if !self.snapshots.0.driver.stacks() {
            self.prepare().await?;
        } else if !self.prepared.load(Ordering::Acquire)
            && let Some(top) = self.parent.as_ref().and_then(|p| top_with_files(p.node()))
        {
            // Never mounted: an empty layer over a parent that may not even be here.
            copy_root_attributes(&top, &self.layer_dir())?;
        }
        Ok(())
    }
}

impl Drop for MutableRef {
    fn drop(&mut self) {
        if self.kept.is_some() {
            // Gone where it was pruned meanwhile, or never written to.
            if let Ok(Some(node)) = self.snapshots.0.node(&self.id) {
                note_use(&node);
            }
            self.snapshots.0.lock().release(&self.id);
            self.snapshots.0.freed.notify_waiters();
        } else if !self.committed {
            // No record exists, so that nothing can be half there.
            self.snapshots.0.remover.remove(self.snapshots.0.snapshot_dir(&self.id));
            self.snapshots.0.lock().stop_making(&self.id);
        }
    }
}

fn top_with_files(node: &Arc<Node>) -> Option<PathBuf> {
    let top = node.layers().pop()?;
    let here = top.record().files;
    here.then(|| top.files_dir())
}

/// Makes the folder of a snapshot and the one for its files.
pub(crate) fn make_folders(snapshots: &Snapshots, id: &str) -> Result<()> {
    let folder = snapshots.0.snapshot_dir(id);
    rustix::fs::mkdir(&folder, Mode::from_raw_mode(0o700))
        .map_err(|e| Error::file("making folder", &folder, e))?;
    let files = snapshots.0.files_dir(id);
    rustix::fs::mkdir(&files, Mode::from_raw_mode(0o755))
        .map_err(|e| Error::file("making folder", &files, e))?;
    if !umask_is_clear(&files) {
        rustix::fs::chmod(&files, Mode::from_raw_mode(0o755))
            .map_err(|e| Error::file("setting mode of", &files, e))?;
    }
    Ok(())
}

/// Whether folders get the mode they are made with. Asked once.
fn umask_is_clear(made_with_755: &Path) -> bool {
    static CLEAR: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    *CLEAR.get_or_init(|| rustix::fs::stat(made_with_755).is_ok_and(|s| s.st_mode & 0o777 == 0o755))
}
