//! What a result was made by.

use std::collections::{HashMap, HashSet};

use super::Engine;
use crate::{Known, Step};

impl<R: Clone + Send + Sync + 'static> Engine<R> {
    /// All vertices that a result depends on, inputs first.
    pub(super) fn steps(&self, root: u64) -> Vec<Step<R>> {
        let Some(root) = self.roots.get(&root) else { return Vec::new() };
        let start = self.edges[root.edge].vertex;
        let mut seen = HashSet::from([start]);
        let mut stack = vec![(start, 0)];
        let mut steps = Vec::new();
        while let Some((id, next)) = stack.last_mut() {
            let vertex = &self.vertices[*id];
            if let Some(below) = vertex.inputs.get(*next) {
                *next += 1;
                let below = self.edges[*below].vertex;
                if seen.insert(below) {
                    stack.push((below, 0));
                }
                continue;
            }
            steps.push(Step {
                vertex: vertex.spec.clone(),
                name: vertex.progress.name().to_owned(),
                op: vertex.op.clone(),
                executed: vertex.exec.done().is_some(),
            });
            stack.pop();
        }
        steps
    }

    /// The keys of a result and of all that it depends on, inputs first.
    pub(super) fn trail(&mut self, root: u64) -> Vec<Known<R>> {
        let Some(root) = self.roots.get(&root) else { return Vec::new() };
        let start = root.edge;
        let mut seen = HashSet::from([start]);
        let mut stack = vec![(start, 0)];
        let mut trail = Vec::new();
        let mut places = HashMap::new();
        while let Some((id, next)) = stack.last_mut() {
            let id = *id;
            let vertex = self.edges[id].vertex;
            if let Some(below) = self.vertices[vertex].inputs.get(*next).copied() {
                *next += 1;
                if seen.insert(below) {
                    stack.push((below, 0));
                }
                continue;
            }
            stack.pop();
            let own = self.main_keys(id);
            let others = self.edges[id].keys.iter().filter(|node| node.cache != 0);
            let others = others.map(|node| (node.cache, node.key));
            let keys = own.into_iter().map(|key| (0, key)).chain(others);
            let inputs = self.vertices[vertex].inputs.iter().filter_map(|below| places.get(below).copied());
            let inputs = inputs.collect();
            places.insert(id, trail.len());
            trail.push(Known {
                vertex: self.vertices[vertex].spec.clone(),
                output: self.edges[id].output,
                inputs,
                keys: keys.map(|(cache, key)| (self.caches[usize::from(cache)].clone(), key)).collect(),
                result: self.edges[id].result.clone(),
            });
        }
        trail
    }
}
