//! Definitions of build graphs.

use crosskit_api::pb;
use crosskit_llb::{Digest, Graph, Limits};
use prost::Message;
use std::collections::HashMap;

/// Decodes a definition; what is accepted is the same after another journey over the wire.
pub fn run(bytes: &[u8]) {
    let Ok(mut definition) = pb::Definition::decode(bytes) else { return };
    decode(definition.clone());
    // A change in a vertex changes its digest, by which others know it: without this they would all be refused there.
    relink(&mut definition);
    decode(definition);
}

fn decode(definition: pb::Definition) {
    let Ok(graph) = Graph::decode(definition, &Limits::default()) else { return };
    let again =
        Graph::decode(graph.to_definition(), &Limits::default()).expect("what was accepted once is again");
    assert_eq!(again.head(), graph.head());
    assert_eq!(again.len(), graph.len());
    for vertex in graph.vertices() {
        assert!(graph.get(&vertex.digest).is_some());
        graph.source_locations(&vertex.digest);
    }
}

/// Gives every vertex the names that its inputs have now.
fn relink(definition: &mut pb::Definition) {
    let mut names: HashMap<String, String> = HashMap::new();
    for bytes in &mut definition.def {
        let before = Digest::of(bytes).to_string();
        let Ok(mut op) = pb::Op::decode(bytes.as_slice()) else { continue };
        for input in &mut op.inputs {
            // A name that is of nobody any more becomes that of the vertex before.
            if let Some(now) = names.get(&input.digest).or_else(|| names.get("")) {
                input.digest.clone_from(now);
            }
        }
        *bytes = op.encode_to_vec();
        let now = Digest::of(bytes).to_string();
        names.insert(String::new(), now.clone());
        names.insert(before, now);
    }
}
