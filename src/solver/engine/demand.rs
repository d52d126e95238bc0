//! Who waits for what.

use std::sync::Arc;

use super::state::{EdgeId, Input, Level, Slot, VertexId, Waiter};
use super::{Demand, Engine, Reply};
use crate::few::Few;
use crate::{OpError, SolveError};

impl<R: Clone + Send + Sync + 'static> Engine<R> {
    /// A build wants a result now.
    pub(super) fn demand(&mut self, root: u64, number: u64, reply: Reply<R>) {
        let Some(root) = self.roots.get(&root) else {
            let _ = reply.send(Err(SolveError::canceled()));
            return;
        };
        let (job, id) = (root.job, root.edge);
        let edge = &mut self.edges[id];
        if let Some(error) = &edge.failed {
            let _ = reply.send(Err(SolveError::clone(error)));
        } else if let Some(result) = &edge.result {
            let _ = reply.send(Ok(result.clone()));
        } else {
            edge.waiters.push(Waiter::Demand(number));
            edge.live += 1;
            edge.wanted = Level::Complete;
            self.demands.insert(number, Demand { job, edge: id, reply });
            self.enqueue(id);
        }
    }

    /// A build does not want it any more.
    pub(super) fn withdraw(&mut self, number: u64) -> Option<Demand<R>> {
        let demand = self.demands.remove(&number)?;
        self.leave(demand.edge, 1);
        Some(demand)
    }

    /// Asks an input for a level. What is there is delivered at once. False when the input has
    /// failed, and with it the edge.
    pub(super) fn ask(&mut self, id: EdgeId<R>, input: usize, level: Level) -> bool {
        let edge = &self.edges[id];
        let epoch = edge.epoch;
        if edge.inputs[input].asked >= level && edge.inputs[input].waiting > 0 {
            return true;
        }
        let below_id = self.vertices[edge.vertex].inputs[input];
        let below = &mut self.edges[below_id];
        if let Some(error) = below.failed.clone() {
            self.fail(id, error);
            return false;
        }
        if below.level >= level {
            let got = below.level;
            self.edges[id].with_input(input, |input| {
                input.asked = input.asked.max(level);
                input.got = got;
            });
            self.input_changed(id, input);
            return true;
        }
        below.waiters.push(Waiter::Edge { edge: id, input, epoch, level });
        below.live += 1;
        below.wanted = below.wanted.max(level);
        self.edges[id].with_input(input, |input| {
            input.asked = level;
            input.waiting += 1;
        });
        self.enqueue(below_id);
        true
    }

    /// Hands what an edge has reached to those who wait for it.
    pub(super) fn announce(&mut self, id: EdgeId<R>) {
        let edge = &mut self.edges[id];
        let reached = edge.level;
        let waiters = std::mem::take(&mut edge.waiters);
        let mut left = Few::default();
        let mut wanted = Level::Nothing;
        for waiter in waiters {
            match waiter {
                Waiter::Demand(number) => {
                    if reached < Level::Complete && self.demands.contains_key(&number) {
                        wanted = Level::Complete;
                        left.push(waiter);
                        continue;
                    }
                    let Some(demand) = self.demands.remove(&number) else { continue };
                    let edge = &mut self.edges[id];
                    edge.live -= 1;
                    let result = edge.result.clone();
                    let result = result.ok_or_else(|| {
                        let lost = "a complete vertex has no result";
                        SolveError::outside(OpError::new(crate::ErrorKind::Internal, lost))
                    });
                    let _ = demand.reply.send(result);
                }
                Waiter::Edge { edge: above, input, epoch, level } => {
                    // Those who have stopped to wait are not counted either.
                    let waits = self.edges.get(above).is_some_and(|edge| edge.epoch == epoch);
                    if !waits {
                        continue;
                    }
                    if level > reached {
                        wanted = wanted.max(level);
                        left.push(waiter);
                        continue;
                    }
                    self.edges[id].live -= 1;
                    self.edges[above].with_input(input, |input| {
                        input.waiting -= 1;
                        input.got = reached;
                    });
                    self.input_changed(above, input);
                }
            }
        }
        let edge = &mut self.edges[id];
        // Nobody can have come while they were told: that goes through the queue.
        edge.waiters = left;
        edge.wanted = wanted;
    }

    /// More is known of an input: whether that ends the wait for it.
    pub(super) fn input_changed(&mut self, id: EdgeId<R>, input: usize) {
        self.follow(id, input);
        let exhausted = self.is_exhausted(id, input);
        let edge = &mut self.edges[id];
        let newly_missed = exhausted && !edge.missed && edge.inputs[input].matches.is_empty();
        edge.missed |= newly_missed;
        let early = edge.searched && edge.inputs[input].got == Level::Complete;
        let searches = !edge.searched && edge.level >= Level::Fast;
        if newly_missed || edge.pending == 0 || (searches && self.needs_result(id, input)) {
            self.enqueue(id);
        } else if early && self.needs_content(id, input) {
            // While the other inputs are still on their way.
            self.start_content(id, input);
        }
    }

    /// Some of those who waited for an edge have left.
    fn leave(&mut self, id: EdgeId<R>, count: usize) {
        let Some(edge) = self.edges.get_mut(id) else { return };
        edge.live -= count;
        if edge.live == 0 {
            self.park(id);
        }
    }

    /// Stops the work for edges that nobody waits for.
    pub(super) fn park(&mut self, id: EdgeId<R>) {
        let mut look_at = vec![id];
        while let Some(id) = look_at.pop() {
            let Some(edge) = self.edges.get_mut(id) else { continue };
            edge.live = 0;
            edge.waiters.clear();
            edge.wanted = Level::Nothing;
            look_at.extend(self.stop_asking(id));
            if let Slot::Running(task) = &self.edges[id].load {
                task.cancel.cancel();
            }
            self.stop_following(id);
            self.stop_vertex(self.edges[id].vertex, id);
        }
    }

    /// Takes back what an edge has asked of its inputs; returns those that nobody waits for now.
    fn stop_asking(&mut self, id: EdgeId<R>) -> Vec<EdgeId<R>> {
        let edge = &mut self.edges[id];
        edge.epoch = edge.epoch.wrapping_add(1);
        let mut idle = Vec::new();
        if edge.pending == 0 {
            return idle;
        }
        let vertex = edge.vertex;
        for input in 0..edge.inputs.len() {
            let take_back = |input: &mut Input| {
                input.content = false;
                input.asked = input.got;
                std::mem::take(&mut input.waiting)
            };
            let waiting = self.edges[id].with_input(input, take_back) as usize;
            if waiting == 0 {
                continue;
            }
            let below = self.vertices[vertex].inputs[input];
            let Some(state) = self.edges.get_mut(below) else { continue };
            state.live -= waiting;
            if state.live == 0 {
                idle.push(below);
            }
        }
        idle
    }

    fn stop_following(&mut self, id: EdgeId<R>) {
        let Some(runs) = self.edges[id].follows.take() else { return };
        if let Some(vertex) = self.vertices.get_mut(runs) {
            vertex.exec_waiting.retain(|waiting| *waiting != id);
            if vertex.exec_waiting.is_empty()
                && vertex.promise.is_none()
                && let Slot::Running(task) = &vertex.exec
            {
                task.cancel.cancel();
            }
        }
    }

    /// Cancels what a vertex does for edges that nobody waits for.
    fn stop_vertex(&mut self, id: VertexId<R>, parked: EdgeId<R>) {
        let edges = &self.edges;
        let vertex = &mut self.vertices[id];
        // What was promised goes on its way, and is saved at its end.
        if vertex.promise.is_none() {
            vertex.exec_waiting.retain(|waiting| *waiting != parked);
            if vertex.exec_waiting.is_empty()
                && let Slot::Running(task) = &vertex.exec
            {
                task.cancel.cancel();
            }
        }
        if vertex.edges.iter().any(|edge| edges.get(*edge).is_some_and(|edge| edge.live > 0)) {
            return;
        }
        let tasks = [vertex.map.task(), vertex.more_digests.task()];
        for task in tasks.into_iter().chain(vertex.contents.iter().map(Slot::task)).flatten() {
            task.cancel.cancel();
        }
    }

    /// Fails an edge and all that wait for it. What else they have asked for is cancelled
    /// unless others want it.
    pub(super) fn fail(&mut self, id: EdgeId<R>, error: Arc<SolveError>) {
        let mut look_at = vec![id];
        while let Some(id) = look_at.pop() {
            let Some(edge) = self.edges.get_mut(id) else { continue };
            if edge.failed.is_some() {
                continue;
            }
            edge.failed = Some(error.clone());
            if let Some(settled) = edge.settled.take() {
                settled.send_replace(Some(Err(error.error.clone())));
            }
            for waiter in std::mem::take(&mut edge.waiters) {
                match waiter {
                    Waiter::Demand(number) => {
                        if let Some(demand) = self.demands.remove(&number) {
                            let _ = demand.reply.send(Err(SolveError::clone(&error)));
                        }
                    }
                    Waiter::Edge { edge: above, input, epoch, .. } => {
                        let waits = self.edges.get(above).is_some_and(|edge| edge.epoch == epoch);
                        if waits {
                            self.edges[above].with_input(input, |input| input.waiting -= 1);
                            look_at.push(above);
                        }
                    }
                }
            }
            self.park(id);
        }
    }
}
