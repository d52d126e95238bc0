//! Results that were found in a cache and turned out to be gone are made again.

use super::Engine;
use super::state::{EdgeId, Level, Slot, VertexId};
use super::work::RESTARTS;

impl<R: Clone + Send + Sync + 'static> Engine<R> {
    /// After work on the results of a vertex's inputs has failed: whether that was because some of
    /// them can't be had any more. Those are made again, and the work begins anew with them.
    pub(super) fn redo_inputs(&mut self, id: VertexId<R>) -> bool {
        let vertex = &self.vertices[id];
        if vertex.restarts >= RESTARTS {
            return false;
        }
        let mut again = false;
        for below in vertex.inputs.clone() {
            again |= self.redo(below);
        }
        if again {
            self.vertices[id].restarts += 1;
        }
        again
    }

    /// Has an edge's result made again if it can't be had any more; true also if that has begun already.
    pub(super) fn redo(&mut self, id: EdgeId<R>) -> bool {
        let Some(edge) = self.edges.get_mut(id) else { return false };
        let Some(result) = &edge.result else {
            return edge.failed.is_none() && self.vertices[edge.vertex].promise.is_none();
        };
        if !self.resolver.is_lost(result) {
            return false;
        }
        (edge.result, edge.level, edge.load) = (None, Level::Slow, Slot::Empty);
        let own = edge.vertex;
        let name = self.vertices[own].progress.name();
        tracing::info!("what a cache had of {name:?} can't be had any more: it is made again");
        if let Some(hit) = self.edges[id].hit.take() {
            self.caches[usize::from(hit.node.cache)].release(&hit.record.id);
        }
        let keys = { &self.edges[id].keys }.iter().filter(|node| node.cache == 0).map(|node| node.key);
        let keys: Vec<_> = keys.chain(self.edges[id].main.iter().copied()).collect();
        for key in keys {
            if let Some(record) = self.caches[0].newest(key) {
                self.caches[0].release(&record.id);
            }
        }
        if self.vertices[own].exec.done().is_some_and(|made| made.iter().any(|r| self.resolver.is_lost(r))) {
            self.vertices[own].exec = Slot::Empty;
        }
        self.pick(id);
        self.take_back(id);
        true
    }

    /// Those who were given an edge's result do not have it any more.
    fn take_back(&mut self, id: EdgeId<R>) {
        let own = self.edges[id].vertex;
        let jobs = self.vertices[own].job_ids.iter().filter_map(|job| self.jobs.get(job));
        let vertices: Vec<VertexId<R>> = jobs.flat_map(|job| job.vertices.iter().copied()).collect();
        for vertex in vertices {
            let Some(vertex) = self.vertices.get(vertex) else { continue };
            let places = vertex.inputs.iter().enumerate().filter(|(_, below)| **below == id);
            for (at, _) in places {
                for above in &vertex.edges {
                    self.edges[*above].with_input(at, |input| {
                        input.got = input.got.min(Level::Slow);
                        if input.waiting == 0 {
                            input.asked = input.asked.min(Level::Slow);
                        }
                    });
                }
            }
        }
    }
}
