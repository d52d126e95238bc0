//! Vertices that have run and whose results are on their way: what can do with that begins, and
//! the way of the results goes on as long as a build lives, also if nobody waits for them.

use tokio::sync::{oneshot, watch};

use super::Engine;
use super::state::{EdgeId, Level, VertexId};
use crate::promise::{Input, Promised, Told};

impl<R: Clone + Send + Sync + 'static> Engine<R> {
    /// A run says that its results are certain.
    pub(super) fn promised(&mut self, id: VertexId<R>, task: u64, told: Told) {
        let Some(vertex) = self.vertices.get_mut(id) else { return };
        let runs = vertex.exec.task().filter(|run| run.number == task && !run.cancel.is_cancelled());
        if runs.is_none() {
            return;
        }
        vertex.promise = Some(told);
        for edge in vertex.edges.clone() {
            if self.edges[edge].level == Level::Slow && self.vertices[id].exec_waiting.contains(&edge) {
                self.reach(edge, Level::Promised);
            }
        }
    }

    /// A run has ended, and with it its promise. Those who use it wait for the result.
    pub(super) fn end_promise(&mut self, id: VertexId<R>) {
        let vertex = &mut self.vertices[id];
        if vertex.promise.take().is_none() {
            return;
        }
        for edge in vertex.edges.clone() {
            let edge = &mut self.edges[edge];
            if edge.level == Level::Promised {
                edge.level = Level::Slow;
            }
        }
    }

    /// How much of an input an edge needs to run.
    pub(super) fn needed(&self, id: EdgeId<R>, input: usize) -> Level {
        let vertex = &self.vertices[self.edges[id].vertex];
        let dep = vertex.map.done().map(|map| &map.deps[input]);
        let early = dep.is_some_and(|dep| dep.early && dep.content.is_none() && dep.preprocess.is_none());
        if early { Level::Promised } else { Level::Complete }
    }

    /// Forgets a promise of an input that was broken.
    pub(super) fn forget_broken_promise(&mut self, id: EdgeId<R>, input: usize) {
        let edge = &self.edges[id];
        let below = self.vertices[edge.vertex].inputs[input];
        if edge.inputs[input].got == Level::Promised && self.edges[below].level < Level::Promised {
            self.edges[id].with_input(input, |input| {
                input.got = Level::Slow;
                if input.waiting == 0 {
                    input.asked = Level::Slow;
                }
            });
        }
    }

    /// The inputs for a run of an edge.
    pub(super) fn inputs_of(&mut self, id: EdgeId<R>) -> Vec<Input<R>> {
        let vertex = self.edges[id].vertex;
        let mut inputs = Vec::with_capacity(self.vertices[vertex].inputs.len());
        for (at, below) in self.vertices[vertex].inputs.clone().iter().enumerate() {
            let edge = &mut self.edges[*below];
            if let Some(result) = edge.result.clone() {
                inputs.push(Input::Here(result));
                continue;
            }
            let Some(told) = self.vertices[edge.vertex].promise.clone() else { continue };
            let settled = edge.settled.get_or_insert_with(|| watch::channel(None).0).subscribe();
            inputs.push(Input::Promised(Promised { told, output: edge.output, settled }));
            // So that its failure is that of this edge.
            self.ask(id, at, Level::Complete);
        }
        inputs
    }

    /// Answers whether nothing is on its way for a build, or when that is so.
    pub(super) fn settle(&mut self, job: u64, wait: bool, reply: oneshot::Sender<bool>) {
        let open = self.on_its_way(job);
        if open && wait {
            self.settling.push((job, reply));
        } else {
            // Whoever asked may have left.
            let _ = reply.send(!open);
        }
    }

    fn on_its_way(&self, job: u64) -> bool {
        let promised =
            |id: &VertexId<R>| self.vertices.get(*id).is_some_and(|vertex| vertex.promise.is_some());
        self.jobs.get(&job).is_some_and(|job| job.vertices.iter().any(promised))
    }

    pub(super) fn tell_settled(&mut self) {
        for (job, reply) in std::mem::take(&mut self.settling) {
            self.settle(job, true, reply);
        }
    }
}
