use std::collections::hash_map::Entry;
use std::sync::Arc;

use crosskit_api::pb;

use crate::caps::Caps;
use crate::exec::Exec;
use crate::file::FileActionSpec;
use crate::source::Described;
use crate::{
    Digest, DigestMap, Edge, GitSource, Graph, HttpSource, ImageSource, LlbError, LocalSource,
    OciLayoutSource, SourceLocation, Vertex, encode_op, merge_metadata,
};

/// A vertex of the builder that made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(u32);

/// A filesystem: an output of a vertex of the builder that made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Output {
    node: NodeId,
    index: u32,
}

impl Output {
    /// The vertex that it is an output of.
    pub fn node(self) -> NodeId {
        self.node
    }
}

/// What holds for a vertex whatever it does.
#[derive(Debug, Clone, Default)]
pub struct Constraints {
    /// Where it executes. Operations that run anywhere leave it out of their bytes.
    pub platform: Option<pb::Platform>,
    /// Filters that a worker has to match.
    pub worker_filters: Vec<String>,
    /// What is said about it.
    pub metadata: pb::OpMetadata,
    /// Where it was written.
    pub locations: Vec<SourceLocation>,
    pub(crate) caps: Caps,
}

impl Constraints {
    /// For this platform.
    pub fn on(platform: pb::Platform) -> Self {
        Constraints { platform: Some(platform), ..Constraints::default() }
    }

    /// The same with a name for people to see.
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.metadata.description.insert(crate::names::CUSTOM_NAME.to_owned(), name.into());
        self
    }

    /// Requires a capability of the daemon.
    pub fn cap(&mut self, name: &'static str) {
        self.caps.add(name);
    }
}

#[derive(Debug, Clone, Default)]
enum Spec {
    /// A vertex that was marshaled.
    #[default]
    Gone,
    Source {
        source: Described,
        on_platform: bool,
    },
    Exec(Box<Exec>),
    File {
        base: Option<Output>,
        actions: Vec<FileActionSpec>,
    },
    Merge(Vec<Output>),
    Diff {
        lower: Option<Output>,
        upper: Option<Output>,
    },
    Passthrough {
        id: String,
        inputs: Vec<Output>,
        outputs: Vec<i64>,
    },
    /// A vertex of another graph.
    Known {
        vertex: Arc<Vertex>,
        inputs: Vec<Output>,
    },
}

#[derive(Debug, Clone, Default)]
struct Node {
    spec: Spec,
    constraints: Constraints,
}

/// Makes graphs. Vertices are added after those that they use; [`Builder::graph`] gives the
/// part that one result needs.
#[derive(Debug, Clone, Default)]
pub struct Builder {
    nodes: Vec<Node>,
}

/// What an exec leaves behind.
#[derive(Debug, Clone)]
pub struct ExecOutputs {
    /// The root filesystem afterwards; the one before when it was read-only.
    pub root: Option<Output>,
    /// The other mounts afterwards, in the order given; none for those that leave nothing.
    pub mounts: Vec<Option<Output>>,
}

impl Builder {
    /// Without any vertex.
    pub fn new() -> Self {
        Builder::default()
    }

    fn push(&mut self, spec: Spec, constraints: Constraints) -> NodeId {
        self.nodes.push(Node { spec, constraints });
        NodeId((self.nodes.len() - 1) as u32)
    }

    fn source(&mut self, source: Described, on_platform: bool, mut constraints: Constraints) -> Output {
        source.add_caps(&mut constraints);
        let node = self.push(Spec::Source { source, on_platform }, constraints);
        Output { node, index: 0 }
    }

    /// An image.
    pub fn image(&mut self, image: &ImageSource, constraints: Constraints) -> Output {
        self.source(image.describe(), true, constraints)
    }

    /// An image of a client's OCI layout.
    pub fn oci_layout(&mut self, layout: &OciLayoutSource, constraints: Constraints) -> Output {
        self.source(layout.describe(), true, constraints)
    }

    /// A folder of a client.
    pub fn local(&mut self, local: &LocalSource, constraints: Constraints) -> Output {
        self.source(local.describe(), false, constraints)
    }

    /// Changes what is asked of a folder that is in use already, for callers that know the
    /// paths only in the end.
    pub fn update_local(&mut self, output: Output, local: &LocalSource) {
        let node = &mut self.nodes[output.node.0 as usize];
        let described = local.describe();
        described.add_caps(&mut node.constraints);
        node.spec = Spec::Source { source: described, on_platform: false };
    }

    /// A file of the web.
    pub fn http(&mut self, http: &HttpSource, constraints: Constraints) -> Output {
        self.source(http.describe(), false, constraints)
    }

    /// A git repository.
    pub fn git(&mut self, git: &GitSource, constraints: Constraints) -> Output {
        self.source(git.describe(), false, constraints)
    }

    /// A process.
    pub fn exec(&mut self, mut exec: Exec, mut constraints: Constraints) -> ExecOutputs {
        let order = exec.sort_mounts();
        exec.caps(|cap| constraints.cap(cap));
        if constraints.metadata.linux_resources.is_some() {
            constraints.cap("exec.meta.linux.resources");
        }
        let node = NodeId(self.nodes.len() as u32);
        let mut outputs = vec![None; order.len()];
        for ((position, index), mount) in order.iter().zip(exec.output_indices()).zip(&exec.mounts) {
            outputs[*position] = match index {
                Some(index) => Some(Output { node, index }),
                None if mount.readonly => mount.source,
                None => None,
            };
        }
        self.push(Spec::Exec(Box::new(exec)), constraints);
        let mounts = outputs.split_off(1);
        ExecOutputs { root: outputs[0], mounts }
    }

    /// File operations on `base`, one after the other.
    pub fn file(
        &mut self,
        base: Option<Output>,
        actions: Vec<FileActionSpec>,
        mut constraints: Constraints,
    ) -> Output {
        constraints.cap("file.base");
        let node = self.push(Spec::File { base, actions }, constraints);
        Output { node, index: 0 }
    }

    /// Layers laid over one another. Empty ones do not count: of none nothing is left, of one
    /// that one.
    pub fn merge(&mut self, inputs: &[Option<Output>], mut constraints: Constraints) -> Option<Output> {
        let inputs: Vec<Output> = inputs.iter().copied().flatten().collect();
        if inputs.len() < 2 {
            return inputs.first().copied();
        }
        constraints.cap("mergeop");
        let node = self.push(Spec::Merge(inputs), constraints);
        Some(Output { node, index: 0 })
    }

    /// What `upper` adds to `lower`.
    pub fn diff(
        &mut self,
        lower: Option<Output>,
        upper: Option<Output>,
        mut constraints: Constraints,
    ) -> Option<Output> {
        if lower.is_none() {
            return upper;
        }
        constraints.cap("diffop");
        let node = self.push(Spec::Diff { lower, upper }, constraints);
        Some(Output { node, index: 0 })
    }

    /// `main`, available only once all of `required` are.
    pub fn passthrough(
        &mut self,
        id: &str,
        main: Output,
        required: &[Output],
        mut constraints: Constraints,
    ) -> Output {
        constraints.cap("passthroughop");
        let inputs = std::iter::once(main).chain(required.iter().copied()).collect();
        let spec = Spec::Passthrough { id: id.to_owned(), inputs, outputs: vec![0] };
        let node = self.push(spec, constraints);
        Output { node, index: 0 }
    }

    /// Brings the result of another graph in; none when that is empty.
    pub fn import(&mut self, graph: &Graph) -> Option<Output> {
        let head = graph.head()?;
        let mut nodes: DigestMap<NodeId> = DigestMap::default();
        for vertex in graph.vertices() {
            let inputs = vertex.inputs.iter().filter_map(|edge| {
                let node = *nodes.get(&edge.vertex)?;
                Some(Output { node, index: edge.index as u32 })
            });
            let spec = Spec::Known { vertex: vertex.clone(), inputs: inputs.collect() };
            let constraints = Constraints {
                locations: graph.source_locations(&vertex.digest).to_vec(),
                ..Constraints::default()
            };
            let node = self.push(spec, constraints);
            nodes.insert(vertex.digest, node);
        }
        Some(Output { node: *nodes.get(&head.vertex)?, index: head.index as u32 })
    }

    /// Says more about the vertex of an output.
    pub fn add_metadata(&mut self, output: Output, more: pb::OpMetadata) {
        let node = &mut self.nodes[output.node.0 as usize];
        match &mut node.spec {
            Spec::Known { vertex, .. } => {
                merge_metadata(&mut Arc::make_mut(vertex).metadata, more);
            }
            _ => merge_metadata(&mut node.constraints.metadata, more),
        }
    }

    /// The graph that `result` needs.
    pub fn graph(&self, result: Option<Output>) -> Result<Graph, LlbError> {
        self.clone().into_graph(result)
    }

    /// The graph that `result` needs, when nothing else is wanted of the builder.
    pub fn into_graph(mut self, result: Option<Output>) -> Result<Graph, LlbError> {
        let Some(result) = result else {
            return Ok(Graph::empty());
        };
        let needed = self.needed(result)?;
        let mut digests: Vec<Option<Digest>> = vec![None; self.nodes.len()];
        let mut vertices: Vec<Arc<Vertex>> = Vec::with_capacity(needed.len());
        let mut positions: DigestMap<usize> = DigestMap::default();
        positions.reserve(needed.len());
        let mut locations: DigestMap<Vec<SourceLocation>> = DigestMap::default();
        locations.reserve(needed.len());
        for position in needed {
            let node = std::mem::take(&mut self.nodes[position]);
            let (vertex, places) = node.marshal(&digests)?;
            let digest = vertex.digest;
            digests[position] = Some(digest);
            if !places.is_empty() {
                match locations.entry(digest) {
                    Entry::Occupied(mut known) => known.get_mut().extend(places),
                    Entry::Vacant(slot) => drop(slot.insert(places)),
                }
            }
            match positions.entry(digest) {
                Entry::Occupied(known) => {
                    let known = Arc::make_mut(&mut vertices[*known.get()]);
                    known.caps.extend(vertex.caps);
                    merge_metadata(&mut known.metadata, vertex.metadata.clone());
                }
                Entry::Vacant(slot) => {
                    slot.insert(vertices.len());
                    vertices.push(vertex);
                }
            }
        }
        let head = resolve(result, &digests)?;
        Ok(Graph::assemble(vertices, positions, Some(head), locations))
    }

    /// The vertices below `result`, inputs first, in the order in which BuildKit's client library visits them. The order
    /// says which of two equal vertices has the last word about their name.
    fn needed(&self, result: Output) -> Result<Vec<usize>, LlbError> {
        let foreign = || LlbError::Construct("an output is of another builder".to_owned());
        let last = result.node.0 as usize;
        if last >= self.nodes.len() {
            return Err(foreign());
        }
        let mut order = Vec::with_capacity(last + 1);
        let mut seen = vec![false; self.nodes.len()];
        seen[last] = true;
        let mut stack = vec![(last, self.nodes[last].inputs(), 0)];
        while let Some((position, inputs, next)) = stack.last_mut() {
            let Some(input) = inputs.get(*next) else {
                order.push(*position);
                stack.pop();
                continue;
            };
            *next += 1;
            let input = input.node.0 as usize;
            // Vertices are added after what they use.
            if input >= *position {
                return Err(foreign());
            }
            if !std::mem::replace(&mut seen[input], true) {
                stack.push((input, self.nodes[input].inputs(), 0));
            }
        }
        Ok(order)
    }
}

fn resolve(output: Output, digests: &[Option<Digest>]) -> Result<Edge, LlbError> {
    let digest = digests.get(output.node.0 as usize).copied().flatten();
    let vertex = digest.ok_or_else(|| LlbError::Construct("an input was not marshaled first".to_owned()))?;
    Ok(Edge { vertex, index: output.index as usize })
}

/// The inputs of a vertex under construction, each listed once.
struct Inputs<'a> {
    digests: &'a [Option<Digest>],
    edges: Vec<Edge>,
    failed: Option<LlbError>,
}

impl Inputs<'_> {
    fn shared(&mut self, output: Output) -> i64 {
        match resolve(output, self.digests) {
            Ok(edge) => match self.edges.iter().position(|known| *known == edge) {
                Some(position) => position as i64,
                None => self.append(edge),
            },
            Err(error) => {
                self.failed = Some(error);
                -1
            }
        }
    }

    fn own(&mut self, output: Output) -> i64 {
        match resolve(output, self.digests) {
            Ok(edge) => self.append(edge),
            Err(error) => {
                self.failed = Some(error);
                -1
            }
        }
    }

    fn append(&mut self, edge: Edge) -> i64 {
        self.edges.push(edge);
        self.edges.len() as i64 - 1
    }
}

impl Node {
    /// In the order in which they are visited: for files the base, then sources from the last action to the first.
    fn inputs(&self) -> Vec<Output> {
        match &self.spec {
            Spec::Gone | Spec::Source { .. } => Vec::new(),
            Spec::Exec(exec) => exec.mounts.iter().filter_map(|mount| mount.source).collect(),
            Spec::File { base, actions } => {
                let sources = actions.iter().rev().filter_map(FileActionSpec::source);
                base.iter().copied().chain(sources).collect()
            }
            Spec::Merge(inputs) => inputs.clone(),
            Spec::Diff { lower, upper } => lower.iter().chain(upper).copied().collect(),
            Spec::Passthrough { inputs, .. } | Spec::Known { inputs, .. } => inputs.clone(),
        }
    }

    /// The vertex and where it was written.
    fn marshal(self, digests: &[Option<Digest>]) -> Result<(Arc<Vertex>, Vec<SourceLocation>), LlbError> {
        let Constraints { mut platform, worker_filters, metadata, locations, caps } = self.constraints;
        let mut inputs = Inputs { digests, edges: Vec::new(), failed: None };
        let op = match self.spec {
            Spec::Gone => return Err(LlbError::Construct("a vertex was marshaled twice".to_owned())),
            Spec::Known { vertex, .. } => return Ok((vertex, locations)),
            Spec::Source { source, on_platform } => {
                platform = platform.filter(|_| on_platform);
                pb::op::Op::Source(pb::SourceOp { identifier: source.identifier, attrs: source.attrs })
            }
            Spec::Exec(exec) => pb::op::Op::Exec(exec.into_op(|output| inputs.shared(output))),
            Spec::File { base, actions } => {
                platform = None;
                pb::op::Op::File(file_op(base, actions, &mut inputs))
            }
            Spec::Merge(list) => {
                platform = None;
                let list = list.iter().map(|o| pb::MergeInput { input: inputs.own(*o) });
                pb::op::Op::Merge(pb::MergeOp { inputs: list.collect() })
            }
            Spec::Diff { lower, upper } => {
                platform = None;
                let lower = lower.map_or(-1, |output| inputs.own(output));
                let upper = upper.map_or(-1, |output| inputs.own(output));
                pb::op::Op::Diff(pb::DiffOp {
                    lower: Some(pb::LowerDiffInput { input: lower }),
                    upper: Some(pb::UpperDiffInput { input: upper }),
                })
            }
            Spec::Passthrough { id, inputs: list, outputs } => {
                platform = None;
                for output in list {
                    inputs.own(output);
                }
                pb::op::Op::Passthrough(pb::PassthroughOp { id, outputs })
            }
        };
        if let Some(error) = inputs.failed {
            return Err(error);
        }
        let to_input = |edge: &Edge| pb::Input { digest: edge.vertex.to_string(), index: edge.index as i64 };
        let op = pb::Op {
            inputs: inputs.edges.iter().map(to_input).collect(),
            platform,
            constraints: Some(pb::WorkerConstraints { filter: worker_filters }),
            op: Some(op),
            ..pb::Op::default()
        };
        let raw = encode_op(&op);
        let digest = Digest::of(&raw);
        Ok((Arc::new(Vertex { digest, raw, op, inputs: inputs.edges, metadata, caps }), locations))
    }
}

fn file_op(base: Option<Output>, actions: Vec<FileActionSpec>, inputs: &mut Inputs<'_>) -> pb::FileOp {
    let base = base.map_or(-1, |output| inputs.shared(output));
    let secondary: Vec<i64> =
        actions.iter().map(|action| action.source().map_or(-1, |output| inputs.shared(output))).collect();
    let count = inputs.edges.len() as i64;
    let last = actions.len().saturating_sub(1);
    let action = |(position, (action, secondary_input)): (usize, (FileActionSpec, i64))| pb::FileAction {
        input: match position {
            0 => base,
            position => count + position as i64 - 1,
        },
        secondary_input,
        output: if position == last { 0 } else { -1 },
        action: Some(action.into_pb(base)),
    };
    pb::FileOp { actions: actions.into_iter().zip(secondary).enumerate().map(action).collect() }
}
