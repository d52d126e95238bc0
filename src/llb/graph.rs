use std::ops::Index;
use std::sync::Arc;

use crosskit_api::pb;
use prost::Message;

use crate::{Caps, Digest, DigestMap, LlbError, encode_op, merge_metadata, validate_op};

/// How large a graph may be. The defaults are well above what fits into one request.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Operations in a definition.
    pub vertices: usize,
    /// Bytes of one operation. A message has 16 MiB at most.
    pub op_bytes: usize,
    /// Inputs of one operation.
    pub inputs: usize,
    /// Mounts of one exec.
    pub mounts: usize,
    /// Actions of one file operation.
    pub actions: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { vertices: 250_000, op_bytes: 16 << 20, inputs: 20_000, mounts: 20_000, actions: 50_000 }
    }
}

impl Limits {
    pub(crate) fn check(&self, what: &'static str, found: usize, limit: usize) -> Result<(), LlbError> {
        if found > limit {
            return Err(LlbError::Limit { what, found, limit });
        }
        Ok(())
    }
}

/// Output `index` of a vertex.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Edge {
    /// The vertex.
    pub vertex: Digest,
    /// Which of its outputs.
    pub index: usize,
}

/// One operation of a graph.
#[derive(Debug, Clone)]
pub struct Vertex {
    /// Of `raw`.
    pub digest: Digest,
    /// The bytes as they came or go.
    pub raw: Vec<u8>,
    /// What they say.
    pub op: pb::Op,
    /// The inputs of `op`.
    pub inputs: Vec<Edge>,
    /// What is said about it without being part of it.
    pub metadata: pb::OpMetadata,
    /// Capabilities that it needs besides those in `metadata`, where only the wire has them all.
    pub caps: Caps,
}

impl Vertex {
    /// Where it executes; none for operations that run anywhere.
    pub fn platform(&self) -> Option<&pb::Platform> {
        self.op.platform.as_ref()
    }

    /// What is said about it, as the wire has it.
    pub fn wire_metadata(&self) -> pb::OpMetadata {
        let mut metadata = self.metadata.clone();
        metadata.caps.extend(self.caps.names().map(|name| (name.to_owned(), true)));
        metadata
    }
}

/// A file that operations were written in, such as a Dockerfile.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceFile {
    /// As the user knows it.
    pub filename: String,
    /// Such as `Dockerfile`.
    pub language: String,
    /// Its text.
    pub data: Vec<u8>,
    /// How it was brought here.
    pub definition: Option<pb::Definition>,
}

/// Where an operation was written.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceLocation {
    /// The file.
    pub file: Arc<SourceFile>,
    /// Its parts.
    pub ranges: Vec<pb::Range>,
}

/// A checked graph: the vertices that the result needs, each after all of its inputs.
#[derive(Debug, Clone, Default)]
pub struct Graph {
    vertices: Vec<Arc<Vertex>>,
    index: DigestMap<usize>,
    head: Option<Edge>,
    locations: DigestMap<Vec<SourceLocation>>,
}

impl Graph {
    /// The graph of nothing: an empty root filesystem.
    pub fn empty() -> Self {
        Graph::default()
    }

    pub(crate) fn assemble(
        vertices: Vec<Arc<Vertex>>,
        index: DigestMap<usize>,
        head: Option<Edge>,
        locations: DigestMap<Vec<SourceLocation>>,
    ) -> Self {
        Graph { vertices, index, head, locations }
    }

    /// Checks a definition and takes it apart. Nothing in it is trusted; what the result does
    /// not depend on is dropped.
    pub fn decode(def: pb::Definition, limits: &Limits) -> Result<Graph, LlbError> {
        if def.def.is_empty() {
            return Err(LlbError::Empty);
        }
        limits.check("number of vertexes", def.def.len(), limits.vertices)?;
        let mut parsed: Vec<Parsed> = Vec::with_capacity(def.def.len());
        let mut positions: DigestMap<usize> = DigestMap::default();
        positions.reserve(def.def.len());
        let mut last = 0;
        for raw in def.def {
            limits.check("size of an operation", raw.len(), limits.op_bytes)?;
            let digest = Digest::of(&raw);
            last = *positions.entry(digest).or_insert(parsed.len());
            if last < parsed.len() {
                continue;
            }
            let op = pb::Op::decode(raw.as_slice()).map_err(|error| LlbError::Parse(error.to_string()))?;
            if let Some((input, edge)) = op.inputs.iter().enumerate().find(|(_, i)| i.index < 0) {
                return Err(LlbError::NegativeIndex { input, index: edge.index });
            }
            parsed.push(Parsed { digest, content: Some((raw, op)), edges: Vec::new() });
        }
        if parsed.len() < 2 {
            return Err(LlbError::TooFew(parsed.len()));
        }
        for parsed in &mut parsed {
            let inputs = parsed.content.iter().flat_map(|(_, op)| &op.inputs);
            parsed.edges = inputs.map(|input| find_input(input, &positions)).collect::<Result<_, _>>()?;
        }
        let (root, head) = *parsed[last].edges.first().ok_or(LlbError::NoHead)?;
        let mut metadata: DigestMap<pb::OpMetadata> = DigestMap::default();
        metadata.reserve(def.metadata.len());
        metadata.extend(def.metadata.into_iter().filter_map(|(key, value)| Some((key.parse().ok()?, value))));
        let vertices = order(parsed, root, metadata, limits)?;
        let mut index = DigestMap::default();
        index.reserve(vertices.len());
        index.extend(vertices.iter().enumerate().map(|(position, vertex)| (vertex.digest, position)));
        let locations = decode_locations(def.source, &index)?;
        Ok(Graph::assemble(vertices, index, Some(head), locations))
    }

    /// The result; none when it is an empty filesystem.
    pub fn head(&self) -> Option<Edge> {
        self.head
    }

    /// All vertices, inputs before what uses them.
    pub fn vertices(&self) -> &[Arc<Vertex>] {
        &self.vertices
    }

    /// The vertex of this digest.
    pub fn get(&self, digest: &Digest) -> Option<&Arc<Vertex>> {
        self.index.get(digest).map(|position| &self.vertices[*position])
    }

    /// Where a vertex stands among [`Graph::vertices`].
    pub fn position(&self, digest: &Digest) -> Option<usize> {
        self.index.get(digest).copied()
    }

    /// How many vertices there are.
    pub fn len(&self) -> usize {
        self.vertices.len()
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.vertices.is_empty()
    }

    /// Where a vertex was written.
    pub fn source_locations(&self, digest: &Digest) -> &[SourceLocation] {
        self.locations.get(digest).map_or(&[], Vec::as_slice)
    }

    /// The terminal operation, which only points at the result.
    fn terminal(head: Edge) -> pb::Op {
        let input = pb::Input { digest: head.vertex.to_string(), index: head.index as i64 };
        pb::Op { inputs: vec![input], ..Default::default() }
    }

    /// As it goes over the wire. The definition of an empty graph has no operations.
    pub fn to_definition(&self) -> pb::Definition {
        let mut def = pb::Definition::default();
        let Some(head) = self.head else {
            return def;
        };
        let mut caps = pb::OpMetadata::default();
        for name in ["constraints", "platform"] {
            caps.caps.insert(name.to_owned(), true);
        }
        for vertex in &self.vertices {
            def.def.push(vertex.raw.clone());
            let said = &vertex.metadata;
            for (name, used) in [
                ("meta.ignorecache", said.ignore_cache),
                ("meta.description", !said.description.is_empty()),
                ("meta.exportcache", said.export_cache.is_some()),
            ] {
                if used && !caps.caps.contains_key(name) {
                    caps.caps.insert(name.to_owned(), true);
                }
            }
            def.metadata.insert(vertex.digest.to_string(), vertex.wire_metadata());
        }
        let terminal = encode_op(&Self::terminal(head));
        def.metadata.insert(Digest::of(&terminal).to_string(), caps);
        def.def.push(terminal);
        def.source = Some(self.encode_locations());
        def
    }

    fn encode_locations(&self) -> pb::Source {
        let mut source = pb::Source::default();
        let mut files: Vec<&Arc<SourceFile>> = Vec::new();
        for vertex in &self.vertices {
            // Vertices that were written nowhere have an entry as well, as those of BuildKit's clients.
            let places = self.source_locations(&vertex.digest);
            let mut locations = Vec::with_capacity(places.len());
            for place in places {
                let known =
                    files.iter().position(|file| Arc::ptr_eq(file, &place.file) || ***file == *place.file);
                let source_index = known.unwrap_or_else(|| {
                    files.push(&place.file);
                    files.len() - 1
                }) as i32;
                locations.push(pb::Location { source_index, ranges: place.ranges.clone() });
            }
            source.locations.insert(vertex.digest.to_string(), pb::Locations { locations });
        }
        source.infos = files
            .into_iter()
            .map(|file| pb::SourceInfo {
                filename: file.filename.clone(),
                data: file.data.clone(),
                definition: file.definition.clone(),
                language: file.language.clone(),
            })
            .collect();
        source
    }

    /// Says which devices a process gets in place of those that it asks for. Its bytes, and so its digest, stay: clients
    /// know it by them.
    pub fn set_devices(&mut self, digest: &Digest, devices: Vec<pb::CdiDevice>) {
        if let Some(position) = self.index.get(digest)
            && let Some(pb::op::Op::Exec(exec)) = &mut Arc::make_mut(&mut self.vertices[*position]).op.op
        {
            exec.cdi_devices = devices;
        }
    }

    /// Says more about a vertex, such as that its cache is to be ignored.
    pub fn add_metadata(&mut self, digest: &Digest, more: pb::OpMetadata) {
        if let Some(position) = self.index.get(digest) {
            merge_metadata(&mut Arc::make_mut(&mut self.vertices[*position]).metadata, more);
        }
    }
}

impl Index<&Digest> for Graph {
    type Output = Arc<Vertex>;

    fn index(&self, digest: &Digest) -> &Arc<Vertex> {
        &self.vertices[self.index[digest]]
    }
}

/// An operation on its way into a graph. Edges carry the position of their vertex.
struct Parsed {
    digest: Digest,
    content: Option<(Vec<u8>, pb::Op)>,
    edges: Vec<(usize, Edge)>,
}

fn find_input(input: &pb::Input, positions: &DigestMap<usize>) -> Result<(usize, Edge), LlbError> {
    let missing = || LlbError::MissingInput(input.digest.chars().take(128).collect());
    let vertex: Digest = input.digest.parse().map_err(|_| missing())?;
    let position = *positions.get(&vertex).ok_or_else(missing)?;
    let index = usize::try_from(input.index).map_err(|_| missing())?;
    Ok((position, Edge { vertex, index }))
}

/// What `root` needs, inputs first. Without recursion: graphs are as deep as their longest
/// chain.
fn order(
    mut parsed: Vec<Parsed>,
    root: usize,
    mut metadata: DigestMap<pb::OpMetadata>,
    limits: &Limits,
) -> Result<Vec<Arc<Vertex>>, LlbError> {
    let mut open = vec![false; parsed.len()];
    let mut vertices = Vec::with_capacity(parsed.len());
    let mut stack = vec![(root, 0)];
    open[root] = true;
    while let Some((position, next)) = stack.last_mut() {
        let position = *position;
        if let Some((input, edge)) = parsed[position].edges.get(*next).copied() {
            *next += 1;
            if parsed[input].content.is_none() {
                continue;
            }
            if std::mem::replace(&mut open[input], true) {
                return Err(LlbError::Cycle(edge.vertex));
            }
            stack.push((input, 0));
            continue;
        }
        stack.pop();
        let digest = parsed[position].digest;
        let edges = std::mem::take(&mut parsed[position].edges);
        if let Some((raw, op)) = parsed[position].content.take() {
            validate_op(&op, limits)?;
            let inputs = edges.into_iter().map(|(_, edge)| edge).collect();
            let metadata = metadata.remove(&digest).unwrap_or_default();
            let caps = Caps::default();
            vertices.push(Arc::new(Vertex { digest, raw, op, inputs, metadata, caps }));
        }
    }
    Ok(vertices)
}

fn decode_locations(
    source: Option<pb::Source>,
    known: &DigestMap<usize>,
) -> Result<DigestMap<Vec<SourceLocation>>, LlbError> {
    let mut locations = DigestMap::default();
    let Some(source) = source else {
        return Ok(locations);
    };
    let file = |info: pb::SourceInfo| {
        Arc::new(SourceFile {
            filename: info.filename,
            language: info.language,
            data: info.data,
            definition: info.definition,
        })
    };
    let files: Vec<_> = source.infos.into_iter().map(file).collect();
    for (digest, places) in source.locations {
        let Some(digest) = digest.parse().ok().filter(|digest| known.contains_key(digest)) else {
            continue;
        };
        let mut list = Vec::with_capacity(places.locations.len());
        for place in places.locations {
            let file = usize::try_from(place.source_index).ok().and_then(|i| files.get(i));
            let file = file.ok_or(LlbError::SourceIndex(place.source_index))?.clone();
            list.push(SourceLocation { file, ranges: place.ranges });
        }
        locations.insert(digest, list);
    }
    Ok(locations)
}
