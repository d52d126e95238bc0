//! What a frontend yields: one result, or one for each platform, and what it says of them.

use crosskit_api::pb;
use crosskit_llb::Graph;
use crosskit_snapshots::Ref;
use crosskit_solver::{Known, ResultHandle, SolveError};
use indexmap::IndexMap;
use std::collections::BTreeMap;
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
    definition: OnceLock<Arc<pb::Definition>>,
}

impl Handle {
    /// A result of a graph.
    pub fn new(result: ResultHandle<Option<Ref>>, graph: Arc<Graph>) -> Self {
        Handle { result, origin: Arc::new(Origin { graph, definition: OnceLock::new() }) }
    }

    /// The result; the first call starts the work. None is an empty filesystem.
    ///
    /// # Errors
    /// The first failure of a vertex that it needs.
    pub async fn result(&self) -> Result<Option<Ref>, SolveError> {
        self.result.result().await
    }

    /// By which keys the result, and all that it depends on, is known: see [`ResultHandle::trail`].
    pub async fn trail(&self) -> Vec<Known<Option<Ref>>> {
        self.result.trail().await
    }

    /// The graph as it goes over the wire.
    pub fn definition(&self) -> &Arc<pb::Definition> {
        let Origin { graph, definition } = self.origin.as_ref();
        definition.get_or_init(|| Arc::new(graph.to_definition()))
    }
}

/// What a frontend yields. A missing handle is an empty result.
#[derive(Clone, Default)]
pub struct FrontendResult {
    /// The results.
    pub refs: Refs,
    /// What is said of them, by the field's keys: `containerimage.config`, `refs.platforms` …
    pub metadata: BTreeMap<String, Vec<u8>>,
}

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
        FrontendResult { refs: Refs::One(handle), metadata: BTreeMap::new() }
    }

    /// All results.
    pub fn handles(&self) -> Vec<&Handle> {
        match &self.refs {
            Refs::One(handle) => handle.iter().collect(),
            Refs::ByPlatform(handles) => handles.values().flatten().collect(),
        }
    }
}
