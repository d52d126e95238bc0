//! What a frontend yields: one result, or one for each platform, and what it says of them.

use crosskit_api::pb;
use crosskit_attest::{Attestation, Content};
use crosskit_llb::Graph;
use crosskit_snapshots::Layer;
use crosskit_snapshots::Ref;
use crosskit_solver::{Known, ResultHandle, SolveError, Step};
use indexmap::IndexMap;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

/// A result that may not have been computed yet, and the graph that it comes from.
#[derive(Clone)]
pub struct Handle {
    result: ResultHandle<Option<Ref>>,
    origin: Arc<Origin>,
}

/// The graph of a result. It is written down as a definition when somebody asks: few do, and of a
/// large graph that is a large part of the work.
struct Origin {
    graph: Arc<Graph>,
    /// The graph before policies, where they have changed it.
    asked: Option<Arc<Graph>>,
    definition: OnceLock<Arc<pb::Definition>>,
    /// Somebody has needed the result.
    computed: AtomicBool,
}

impl Handle {
    /// A result of a graph; `asked` is the graph before policies, where they have changed it.
    pub fn new(result: ResultHandle<Option<Ref>>, graph: Arc<Graph>, asked: Option<Arc<Graph>>) -> Self {
        let (definition, computed) = (OnceLock::new(), AtomicBool::new(false));
        Handle { result, origin: Arc::new(Origin { graph, asked, definition, computed }) }
    }

    /// The result; the first call starts the work. None is an empty filesystem.
    ///
    /// # Errors
    /// The first failure of a vertex that it needs.
    pub async fn result(&self) -> Result<Option<Ref>, SolveError> {
        let result = self.result.result().await?;
        self.origin.computed.store(true, Ordering::Relaxed);
        Ok(result)
    }

    /// Has the result made again if it can't be had any more: see [`ResultHandle::redo`].
    pub async fn redo(&self) -> bool {
        self.result.redo().await
    }

    /// All steps that the result depends on, inputs first; none if nobody has needed it.
    pub async fn steps(&self) -> Vec<Step<Option<Ref>>> {
        match self.origin.computed.load(Ordering::Relaxed) {
            true => self.result.steps().await,
            false => Vec::new(),
        }
    }

    /// Whether it is the same result, from the same call.
    pub fn is(&self, other: &Handle) -> bool {
        Arc::ptr_eq(&self.origin, &other.origin)
    }

    /// The graph that is solved.
    pub fn graph(&self) -> &Arc<Graph> {
        &self.origin.graph
    }

    /// The graph as it was asked for, to be used again: policies are applied to it then, too.
    pub fn asked(&self) -> &Arc<Graph> {
        self.origin.asked.as_ref().unwrap_or(&self.origin.graph)
    }

    /// By which keys the result, and all that it depends on, is known: see [`ResultHandle::trail`].
    pub async fn trail(&self) -> Vec<Known<Option<Ref>>> {
        self.result.trail().await
    }

    /// The graph that was asked for as it goes over the wire.
    pub fn definition(&self) -> &Arc<pb::Definition> {
        self.origin.definition.get_or_init(|| Arc::new(self.asked().to_definition()))
    }
}

/// What a frontend yields. A missing handle is an empty result.
#[derive(Clone, Default)]
pub struct FrontendResult {
    /// The results.
    pub refs: Refs,
    /// What is said of them, by the field's keys: `containerimage.config`, `refs.platforms` …
    pub metadata: BTreeMap<String, Vec<u8>>,
    /// What is attested of them, by platform id.
    pub attestations: BTreeMap<String, Vec<Attested>>,
    /// What a scan of them is to look at besides, by platform id. Those that are here are scanned even if they are empty.
    pub scans: BTreeMap<String, ScanExtras>,
}

/// What a frontend wants scanned besides a result.
#[derive(Clone, Default)]
pub struct ScanExtras {
    /// Stages and the context, by name.
    pub graphs: Vec<(String, Graph)>,
    /// Whether the scan ignores what is known.
    pub ignore_cache: bool,
}

/// Something that is attested of a result.
pub type Attested = Attestation<Handle, Layer>;

/// One result, or one for each platform.
#[derive(Clone)]
pub enum Refs {
    /// One.
    One(Option<Handle>),
    /// By platform id, in the order they were asked for.
    ByPlatform(IndexMap<String, Option<Handle>>),
}

impl Default for Refs {
    fn default() -> Self {
        Refs::One(None)
    }
}

impl FrontendResult {
    /// A single result without metadata.
    pub fn single(handle: Option<Handle>) -> Self {
        FrontendResult { refs: Refs::One(handle), ..FrontendResult::default() }
    }

    /// All results.
    pub fn handles(&self) -> Vec<&Handle> {
        match &self.refs {
            Refs::One(handle) => handle.iter().collect(),
            Refs::ByPlatform(handles) => handles.values().flatten().collect(),
        }
    }

    /// The results that something is attested in.
    pub fn attesting(&self) -> Vec<&Handle> {
        let mut all = Vec::new();
        for attested in self.attestations.values().flatten() {
            if let Content::Files(Some(handle)) = &attested.content {
                all.push(handle);
            }
        }
        all
    }

    /// The result of a platform.
    pub fn of(&self, platform: &str) -> Option<&Handle> {
        match &self.refs {
            Refs::One(handle) => handle.as_ref(),
            Refs::ByPlatform(handles) => handles.get(platform)?.as_ref(),
        }
    }
}
