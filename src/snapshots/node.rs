//! Snapshots that somebody holds, as a graph in memory.
//!
//! A node is alive as long as a handle, or a living snapshot that builds on it, points to it.
//! Nothing that is alive is ever pruned.

use crate::lazy::Lazy;
use crate::mounts::Attached;
use crate::record::{LayerBlob, Record};
use crate::store::Inner;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use tokio::sync::{OnceCell, watch};

pub(crate) struct Node {
    pub(crate) id: String,
    pub(crate) store: Arc<Inner>,
    pub(crate) parents: Parents,
    record: Mutex<Record>,
    pub(crate) lazy: Lazy,
    /// For one made of others: layers that its stack takes as copies. See [`crate::clean`].
    pub(crate) copies: OnceCell<HashMap<String, PathBuf>>,
    /// The read-only mount that its users share.
    pub(crate) mounted: Mutex<Weak<Attached>>,
    /// Dropped with the node: who waits for its end is told.
    ended: Mutex<Option<watch::Sender<()>>>,
}

/// The living counterpart of [`crate::record::Origin`].
pub(crate) enum Parents {
    Layer(Option<Arc<Node>>),
    Merge(Vec<Arc<Node>>),
    Diff { lower: Option<Arc<Node>>, upper: Option<Arc<Node>> },
    View(Arc<Node>),
}

impl Node {
    pub(crate) fn new(id: String, store: Arc<Inner>, parents: Parents, record: Record) -> Node {
        Node {
            id,
            store,
            parents,
            record: Mutex::new(record),
            lazy: Lazy::default(),
            copies: OnceCell::new(),
            mounted: Mutex::default(),
            ended: Mutex::default(),
        }
    }

    /// What is closed when nobody holds the node any more.
    pub(crate) fn end(&self) -> watch::Receiver<()> {
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        ended.get_or_insert_with(|| watch::Sender::new(())).subscribe()
    }

    pub(crate) fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the record and puts it into the database.
    pub(crate) fn update(&self, change: impl FnOnce(&mut Record)) -> crate::Result<()> {
        let bytes = {
            let mut record = self.record();
            change(&mut record);
            record.encode()
        };
        self.store.put(&self.id, bytes)
    }

    /// The snapshot's own folder of files.
    pub(crate) fn files_dir(&self) -> PathBuf {
        match &self.parents {
            Parents::View(of) => of.files_dir(),
            _ => self.store.files_dir(&self.id),
        }
    }

    /// The layers that make up this snapshot, bottom first; the same one can be there twice.
    pub(crate) fn layers(self: &Arc<Self>) -> Vec<Arc<Node>> {
        match &self.parents {
            Parents::Layer(_) => {
                let mut layers = vec![self.clone()];
                let mut at = self.clone();
                while let Parents::Layer(Some(parent)) = &at.parents {
                    let parent = parent.clone();
                    if !matches!(parent.parents, Parents::Layer(_)) {
                        let mut all = parent.layers();
                        all.extend(layers.into_iter().rev());
                        return all;
                    }
                    layers.push(parent.clone());
                    at = parent;
                }
                layers.reverse();
                layers
            }
            Parents::Merge(parents) => parents.iter().flat_map(|p| p.layers()).collect(),
            Parents::Diff { .. } => self.reused().unwrap_or_else(|| vec![self.clone()]),
            Parents::View(_) => vec![self.clone()],
        }
    }

    /// For a difference whose upper side was made by putting layers over the lower one: those layers.
    fn reused(&self) -> Option<Vec<Arc<Node>>> {
        let Parents::Diff { lower, upper: Some(upper) } = &self.parents else { return None };
        if let Parents::Layer(parent) = &upper.parents
            && lower.as_ref().map(|l| &l.id) == parent.as_ref().map(|p| &p.id)
        {
            return Some(vec![upper.clone()]);
        }
        let (below, mut above) = (lower.as_ref()?.layers(), upper.layers());
        // One layer more that wasn't made on it is compared, as BuildKit does.
        let stands = above.len() > below.len() + 1 && below.iter().zip(&above).all(|(b, a)| b.id == a.id);
        stands.then(|| above.split_off(below.len()))
    }

    pub(crate) fn parent_nodes(&self) -> Vec<&Arc<Node>> {
        match &self.parents {
            Parents::Layer(parent) => parent.iter().collect(),
            Parents::Merge(parents) => parents.iter().collect(),
            Parents::Diff { lower, upper } => lower.iter().chain(upper).collect(),
            Parents::View(of) => vec![of],
        }
    }

    /// The layer with its times cut off, in a certain packing.
    pub(crate) fn variant(&self, form: crate::LayerForm) -> Option<LayerBlob> {
        let record = self.record();
        let mut fitting = record.variants.iter().filter(|(epoch, _)| Some(*epoch) == form.epoch);
        fitting.find(|(_, blob)| crate::blobs::fits(blob, form)).map(|(_, blob)| blob.clone())
    }

    /// A blob that the layer is known by.
    pub(crate) fn blob(&self, wanted: impl Fn(&LayerBlob) -> bool) -> Option<LayerBlob> {
        self.record().blobs.iter().find(|b| wanted(b)).cloned()
    }

    /// A blob that carries the layer between machines.
    pub(crate) fn carried(&self, wanted: impl Fn(&LayerBlob) -> bool) -> Option<LayerBlob> {
        self.record().carried.iter().find(|b| wanted(b)).cloned()
    }

    /// A blob with the layer's files, whatever it is there for.
    pub(crate) fn any_blob(&self, wanted: impl Fn(&LayerBlob) -> bool) -> Option<LayerBlob> {
        self.blob(&wanted).or_else(|| self.carried(&wanted))
    }
}

/// A stack of layers without those that a later mention of the same layer covers: files and
/// whiteouts of a layer hide whatever the same layer says further down.
pub(crate) fn without_covered(layers: Vec<Arc<Node>>) -> Vec<Arc<Node>> {
    let mut seen = std::collections::HashSet::new();
    let mut kept: Vec<Arc<Node>> = layers.into_iter().rev().filter(|l| seen.insert(l.id.clone())).collect();
    kept.reverse();
    kept
}
