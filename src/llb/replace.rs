//! Graphs with other sources than they were written with.

use std::sync::Arc;

use crosskit_api::pb::{self, op::Op};

use crate::{Digest, DigestMap, Edge, Graph, SourceLocation, Vertex, encode_op, merge_metadata};

impl Graph {
    /// The same graph with these sources in place of those of the vertices named. All that depends on them gets
    /// another digest; vertices that become equal become one.
    #[must_use]
    pub fn with_sources(&self, mut sources: DigestMap<pb::SourceOp>) -> Graph {
        self.rewritten(|vertex| {
            let source = sources.remove(&vertex.digest)?;
            Some(pb::Op { op: Some(Op::Source(source)), ..vertex.op.clone() })
        })
    }

    /// The same graph where all processes reach the network through a proxy only, under rules of this name; they, and
    /// all that depends on them, get another digest. Those without a network stay as they are.
    #[must_use]
    pub fn behind_proxy(&self, rules: &str) -> Graph {
        self.rewritten(|vertex| match &vertex.op.op {
            Some(Op::Exec(exec)) if exec.network() != pb::NetMode::None => {
                Some(pb::Op { proxy_rules: rules.to_owned(), ..vertex.op.clone() })
            }
            _ => None,
        })
    }

    /// The same graph with other operations in place of some.
    fn rewritten(&self, mut change: impl FnMut(&Vertex) -> Option<pb::Op>) -> Graph {
        let mut renamed: DigestMap<Digest> = DigestMap::default();
        let mut vertices: Vec<Arc<Vertex>> = Vec::with_capacity(self.len());
        let mut index: DigestMap<usize> = DigestMap::default();
        let mut locations: DigestMap<Vec<SourceLocation>> = DigestMap::default();
        for vertex in self.vertices() {
            let moved = vertex.inputs.iter().any(|input| renamed.contains_key(&input.vertex));
            let new = match (change(vertex), moved) {
                (None, false) => Arc::clone(vertex),
                (Some(op), _) => Arc::new(rewritten(vertex, op, &renamed)),
                (None, true) => Arc::new(rewritten(vertex, vertex.op.clone(), &renamed)),
            };
            if new.digest != vertex.digest {
                renamed.insert(vertex.digest, new.digest);
            }
            let places = self.source_locations(&vertex.digest);
            if !places.is_empty() {
                locations.entry(new.digest).or_default().extend_from_slice(places);
            }
            match index.get(&new.digest) {
                Some(known) => {
                    let known = Arc::make_mut(&mut vertices[*known]);
                    merge_metadata(&mut known.metadata, new.metadata.clone());
                }
                None => {
                    index.insert(new.digest, vertices.len());
                    vertices.push(new);
                }
            }
        }
        let head = self.head().map(|head| edge(&head, &renamed));
        Graph::assemble(vertices, index, head, locations)
    }
}

fn edge(old: &Edge, renamed: &DigestMap<Digest>) -> Edge {
    Edge { vertex: renamed.get(&old.vertex).copied().unwrap_or(old.vertex), index: old.index }
}

fn rewritten(old: &Vertex, mut op: pb::Op, renamed: &DigestMap<Digest>) -> Vertex {
    let inputs: Vec<Edge> = old.inputs.iter().map(|input| edge(input, renamed)).collect();
    for (input, edge) in op.inputs.iter_mut().zip(&inputs) {
        input.digest = edge.vertex.to_string();
    }
    let raw = encode_op(&op);
    let (metadata, caps) = (old.metadata.clone(), old.caps);
    Vertex { digest: Digest::of(&raw), raw, op, inputs, metadata, caps }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Builder, Constraints, Exec, ExecMount, ImageSource, Limits};

    fn graph(base: &str, input: &str) -> Graph {
        let mut builder = Builder::new();
        let image = |builder: &mut Builder, name: &str| {
            let image = ImageSource { reference: name.into(), ..ImageSource::default() };
            builder.image(&image, Constraints::default())
        };
        let (root, mounted) = (image(&mut builder, base), image(&mut builder, input));
        let mounts = vec![ExecMount { target: "/in".into(), source: Some(mounted), ..ExecMount::default() }];
        let args = vec!["x".to_string()];
        let exec = Exec { root: Some(root), args, cwd: "/".into(), mounts, ..Exec::default() };
        let out = builder.exec(exec, Constraints::default()).root;
        builder.graph(out).unwrap()
    }

    fn source(name: &str) -> pb::SourceOp {
        pb::SourceOp { identifier: format!("docker-image://{name}"), ..pb::SourceOp::default() }
    }

    fn digest_of(graph: &Graph, name: &str) -> Digest {
        let wanted = Op::Source(source(name));
        graph.vertices().iter().find(|v| v.op.op.as_ref() == Some(&wanted)).unwrap().digest
    }

    #[test]
    fn another_source_makes_the_graph_that_was_written_with_it() {
        let (old, wanted) = (graph("one:1", "two:1"), graph("one:1", "three:1"));
        let digest = digest_of(&old, "two:1");
        let new = old.with_sources(DigestMap::from_iter([(digest, source("three:1"))]));
        assert_eq!(new.head(), wanted.head());
        assert_eq!(new.len(), 3);
        assert!(Graph::decode(new.to_definition(), &Limits::default()).unwrap().head() == wanted.head());
        assert_eq!(old.with_sources(DigestMap::default()).head(), old.head());
    }

    #[test]
    fn sources_that_become_equal_become_one() {
        let old = graph("one:1", "two:1");
        let digest = digest_of(&old, "two:1");
        let new = old.with_sources(DigestMap::from_iter([(digest, source("one:1"))]));
        assert_eq!(new.len(), 2);
        // The step has two inputs still, which are the same now.
        let one = digest_of(&new, "one:1");
        let head = new.head().unwrap();
        let inputs: Vec<Digest> = new[&head.vertex].inputs.iter().map(|input| input.vertex).collect();
        assert_eq!(inputs, [one, one]);
        assert_eq!(Graph::decode(new.to_definition(), &Limits::default()).unwrap().head(), Some(head));
    }

    #[test]
    fn a_process_behind_a_proxy_is_another_step() {
        let old = graph("one:1", "two:1");
        let new = old.behind_proxy("rules");
        assert_eq!(new.len(), old.len());
        let head = new.head().unwrap();
        assert_ne!(Some(head), old.head());
        assert_eq!(new[&head.vertex].op.proxy_rules, "rules");
        // What it depends on is the same, and it is read as it was written.
        assert_eq!(new[&head.vertex].inputs, old[&old.head().unwrap().vertex].inputs);
        let read = Graph::decode(new.to_definition(), &Limits::default()).unwrap();
        assert_eq!((read.head(), read[&head.vertex].op.proxy_rules.as_str()), (Some(head), "rules"));
        assert_ne!(old.behind_proxy("others").head(), new.head());
    }
}
