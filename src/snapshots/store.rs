//! All snapshots below one root folder.

use crate::checksum::Checksums;
use crate::courtesy::{Building, Courtesy};
use crate::drivers::{self, Driver, DriverChoice};
use crate::mounts::{Points, take_down_leftovers};
use crate::node::{Node, Parents};
use crate::record::{CHAINS, KEYS, Origin, RECORDS, Record};
use crate::removal::Remover;
use crate::{About, Error, MutableRef, Ref, Result, ids};
use crosskit_images::ContentStore;
use crosskit_metadata::{Change, Database};
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// All snapshots below one root folder. Cheap to clone.
#[derive(Clone)]
pub struct Snapshots(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    /// Folders `ID/fs` with files, and beside them what belongs to the snapshot.
    dir: PathBuf,
    /// Where removed snapshots wait; a move there is at once, removing takes its time.
    trash: PathBuf,
    work: PathBuf,
    next_work: AtomicU64,
    /// A folder with nothing in it.
    empty: PathBuf,
    pub(crate) db: Database,
    pub(crate) content: ContentStore,
    pub(crate) driver: Box<dyn Driver>,
    pub(crate) points: Points,
    pub(crate) remover: Remover,
    pub(crate) courtesy: Courtesy,
    pub(crate) checksums: Checksums,
    state: Mutex<State>,
    /// Rung when a mutable snapshot that is kept becomes free.
    pub(crate) freed: tokio::sync::Notify,
    /// Cache mounts that are in use by several at once.
    pub(crate) shared: Mutex<HashMap<String, Weak<MutableRef>>>,
}

#[derive(Default)]
pub(crate) struct State {
    live: HashMap<String, Weak<Node>>,
    /// Size of `live` at which the dead are cleared out.
    clear_at: usize,
    /// Snapshots that are written to and have no record yet.
    making: HashSet<String>,
    /// Mutable snapshots that are kept, and being written to now.
    writing: HashSet<String>,
}

impl Snapshots {
    /// Opens the snapshots below `root`, with records in `db` and blobs in `content`. Mounts that
    /// a killed daemon left are taken down; folders without a record are removed in the background.
    pub fn open(root: impl AsRef<Path>, db: Database, content: ContentStore) -> Result<Snapshots> {
        Self::open_with(root, db, content, DriverChoice::Auto)
    }

    /// The same with a certain driver.
    pub fn open_with(
        root: impl AsRef<Path>,
        db: Database,
        content: ContentStore,
        choice: DriverChoice,
    ) -> Result<Snapshots> {
        let root = root.as_ref();
        let [dir, trash, work, points, empty] =
            ["snapshots", "trash", "work", "mounts", "empty"].map(|name| root.join(name));
        for path in [&dir, &trash, &work, &points, &empty] {
            std::fs::create_dir_all(path).map_err(|e| Error::file("making folder", path, e))?;
        }
        take_down_leftovers(root)?;
        set_leftovers_aside(&work, &trash)?;
        let courtesy = Courtesy::default();
        let inner = Inner {
            driver: drivers::make(choice, root)?,
            points: Points::new(points),
            remover: Remover::start(courtesy.clone())?,
            courtesy,
            checksums: Checksums::default(),
            state: Mutex::default(),
            freed: tokio::sync::Notify::new(),
            shared: Mutex::default(),
            next_work: AtomicU64::new(0),
            dir,
            trash,
            work,
            empty,
            db,
            content,
        };
        let snapshots = Snapshots(Arc::new(inner));
        crate::orphans::collect_in_background(&snapshots)?;
        Ok(snapshots)
    }

    /// The driver in use, by the name of BuildKit's snapshotter: `overlayfs` or `native`.
    pub fn driver(&self) -> &'static str {
        self.0.driver.name()
    }

    /// How a layer's folder holds removals.
    pub fn layer_form(&self) -> crosskit_images::layers::ApplyForm {
        use crosskit_images::layers::ApplyForm;
        match (self.0.driver.stacks(), self.0.driver.user_xattrs()) {
            (false, _) => ApplyForm::Merged,
            (true, false) => ApplyForm::Overlay,
            (true, true) => ApplyForm::OverlayUserXattr,
        }
    }

    /// The store that holds layers' blobs.
    pub fn content(&self) -> &ContentStore {
        &self.0.content
    }

    /// The snapshot with an id, or none if it was pruned or never was.
    pub fn get(&self, id: &str) -> Result<Option<Ref>> {
        Ok(self.0.node(id)?.map(Ref::new))
    }

    /// Whether there is a snapshot with an id. Cheaper than [`Snapshots::get`], and no use of it.
    pub fn contains(&self, id: &str) -> bool {
        self.0.db.get(RECORDS, id.as_bytes()).is_ok_and(|found| found.is_some())
    }

    /// A snapshot to be written to: the changes over `parent`, or over nothing. Nothing of it
    /// stays unless it is committed.
    pub fn new_mutable(&self, parent: Option<&Ref>, about: About) -> Result<MutableRef> {
        MutableRef::new(self, parent, about)
    }

    /// A folder with nothing in it, for whatever needs a tree and has none.
    pub fn empty_dir(&self) -> &Path {
        self.0.empty_dir()
    }

    /// Says that somebody builds, as long as the answer is held: what is pruned and removed
    /// meanwhile takes no more than a tenth of the machine.
    pub fn building(&self) -> Building {
        self.0.courtesy.building()
    }

    /// Waits until everything that was given up is gone from the disk. Blocks.
    pub fn settle(&self) {
        self.0.remover.settle();
    }
}

/// Empties a folder by a move, which takes no time, so that its names are free again.
fn set_leftovers_aside(dir: &Path, trash: &Path) -> Result<()> {
    let mut entries = std::fs::read_dir(dir).map_err(|e| Error::file("listing", dir, e))?;
    if entries.next().is_none() {
        return Ok(());
    }
    std::fs::rename(dir, trash.join(ids::new_id())).map_err(|e| Error::file("setting aside", dir, e))?;
    std::fs::create_dir(dir).map_err(|e| Error::file("making folder", dir, e))
}

impl Inner {
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        // Changes under the lock are single map operations.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn snapshot_dir(&self, id: &str) -> PathBuf {
        self.dir.join(id)
    }

    pub(crate) fn files_dir(&self, id: &str) -> PathBuf {
        self.dir.join(id).join("fs")
    }

    /// The folder of all snapshots.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where removed folders wait.
    pub(crate) fn trash(&self) -> &Path {
        &self.trash
    }

    pub(crate) fn empty_dir(&self) -> &Path {
        &self.empty
    }

    /// A name for a mount's private folder, never used before.
    pub(crate) fn work_dir(&self) -> PathBuf {
        self.work.join(self.next_work.fetch_add(1, Ordering::Relaxed).to_string())
    }

    pub(crate) fn put(&self, id: &str, record: Vec<u8>) -> Result<()> {
        Ok(self.db.write(vec![Change::put(RECORDS, id, record)])?)
    }

    /// The living snapshot with an id, brought to life if its record is there.
    pub(crate) fn node(self: &Arc<Self>, id: &str) -> Result<Option<Arc<Node>>> {
        // Nodes whose loading fails half-way end outside the lock.
        let mut loaded = Vec::new();
        let mut state = self.lock();
        let outcome = self.load(&mut state, id, &mut loaded);
        drop(state);
        match outcome {
            Err(Error::Gone { .. }) => Ok(None),
            other => other.map(Some),
        }
    }

    fn load(self: &Arc<Self>, state: &mut State, id: &str, loaded: &mut Vec<Arc<Node>>) -> Result<Arc<Node>> {
        if let Some(node) = state.live.get(id).and_then(Weak::upgrade) {
            return Ok(node);
        }
        let gone = || Error::Gone { id: id.to_string() };
        let bytes = self.db.get(RECORDS, id.as_bytes())?.ok_or_else(gone)?;
        let record = Record::decode(id, &bytes)?;
        if !self.is_whole(id, &record) {
            self.forget(id, &record)?;
            return Err(gone());
        }
        let mut parent = |id: &String| self.load(state, id, loaded);
        let parents = match &record.origin {
            Origin::Layer { parent: below } => Parents::Layer(below.as_ref().map(&mut parent).transpose()?),
            Origin::Merge { parents } => {
                Parents::Merge(parents.iter().map(&mut parent).collect::<Result<_>>()?)
            }
            Origin::Diff { lower, upper } => Parents::Diff {
                lower: lower.as_ref().map(&mut parent).transpose()?,
                upper: upper.as_ref().map(&mut parent).transpose()?,
            },
            Origin::View { of } => Parents::View(parent(of)?),
        };
        let node = Arc::new(Node::new(id.to_string(), self.clone(), parents, record));
        loaded.push(node.clone());
        state.enter(&node);
        Ok(node)
    }

    /// Whether what the record promises is on the disk: a crash can lose the last moments of the
    /// database while the folders are as they were, and the other way round.
    pub(crate) fn is_whole(&self, id: &str, record: &Record) -> bool {
        match &record.origin {
            Origin::View { of } => crate::kept::current_view(self, of).as_deref() == Some(id),
            _ => !record.files || self.files_dir(id).exists(),
        }
    }

    /// Takes a new snapshot up.
    pub(crate) fn enter(self: &Arc<Self>, id: String, parents: Parents, record: Record) -> Result<Arc<Node>> {
        let bytes = record.encode();
        let node = Arc::new(Node::new(id, self.clone(), parents, record));
        let mut state = self.lock();
        state.enter(&node);
        state.making.remove(&node.id);
        drop(state);
        self.put(&node.id, bytes)?;
        Ok(node)
    }

    /// The snapshot that stands for a chain, or the one that `make` makes for it.
    pub(crate) fn chain(
        self: &Arc<Self>,
        chain: crosskit_images::Digest,
        make: impl FnOnce() -> (Parents, Record),
    ) -> Result<Arc<Node>> {
        let mut loaded = Vec::new();
        let mut state = self.lock();
        if let Some(id) = self.db.get(CHAINS, chain.as_bytes())? {
            let id = String::from_utf8_lossy(&id).into_owned();
            match self.load(&mut state, &id, &mut loaded) {
                Ok(node) => return Ok(node),
                Err(Error::Gone { .. }) => {}
                Err(why) => tracing::warn!(%why, "a layer's record is replaced"),
            }
        }
        let (parents, mut record) = make();
        record.chain = Some(chain);
        let id = ids::new_id();
        let bytes = record.encode();
        let node = Arc::new(Node::new(id.clone(), self.clone(), parents, record));
        state.enter(&node);
        self.db.write(vec![
            Change::put(RECORDS, id.as_bytes(), bytes),
            Change::put(CHAINS, chain.as_bytes().to_vec(), id.as_bytes()),
        ])?;
        Ok(node)
    }

    /// Removes a record, and its folder in the background. The caller knows that nobody uses it.
    pub(crate) fn forget(&self, id: &str, record: &Record) -> Result<()> {
        self.forget_record(id, record)?;
        self.discard_folder(id);
        Ok(())
    }

    /// Removes a record. The folder is the caller's to discard.
    pub(crate) fn forget_record(&self, id: &str, record: &Record) -> Result<()> {
        let mut changes = vec![Change::delete(RECORDS, id)];
        if let Some(chain) = &record.chain
            && self.db.get(CHAINS, chain.as_bytes())?.as_deref() == Some(id.as_bytes())
        {
            changes.push(Change::delete(CHAINS, chain.as_bytes().to_vec()));
        }
        if let Some(key) = &record.key {
            changes.push(Change::delete(KEYS, crate::kept::key_entry(key, id)));
        }
        Ok(self.db.write(changes)?)
    }

    /// Moves a snapshot's folder out of the way at once, so that no crash leaves half of it in
    /// place, and removes it in the background.
    pub(crate) fn discard_folder(&self, id: &str) {
        let (from, to) = (self.snapshot_dir(id), self.trash.join(id));
        match std::fs::rename(&from, &to) {
            Ok(()) => self.remover.remove(to),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(_) => self.remover.remove(from),
        }
    }
}

impl State {
    fn enter(&mut self, node: &Arc<Node>) {
        if self.live.len() >= self.clear_at {
            self.live.retain(|_, node| node.strong_count() > 0);
            self.clear_at = self.live.len() * 2 + 64;
        }
        self.live.insert(node.id.clone(), Arc::downgrade(node));
    }

    /// Whether somebody holds the snapshot or one that builds on it.
    pub(crate) fn is_live(&self, id: &str) -> bool {
        self.writing.contains(id) || self.live.get(id).is_some_and(|node| node.strong_count() > 0)
    }

    /// The snapshot, if somebody holds it.
    pub(crate) fn held(&self, id: &str) -> Option<Arc<Node>> {
        self.live.get(id).and_then(Weak::upgrade)
    }

    /// Whether the folder of this id is to be left alone, though there is no record of it.
    pub(crate) fn is_making(&self, id: &str) -> bool {
        self.making.contains(id) || self.is_live(id)
    }

    pub(crate) fn start_making(&mut self, id: &str) {
        self.making.insert(id.to_string());
    }

    pub(crate) fn stop_making(&mut self, id: &str) {
        self.making.remove(id);
    }

    /// Claims a kept snapshot for writing. False if it is in use.
    pub(crate) fn claim(&mut self, id: &str) -> bool {
        !self.is_live(id) && self.writing.insert(id.to_string())
    }

    pub(crate) fn release(&mut self, id: &str) {
        self.writing.remove(id);
    }
}
