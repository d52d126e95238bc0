//! What a result was made by.

use std::collections::HashSet;

use super::Engine;
use crate::Step;

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
}
