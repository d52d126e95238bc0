//! What an edge does next.

use super::Engine;
use super::state::{EdgeId, Level, Slot};

impl<R: Clone + Send + Sync + 'static> Engine<R> {
    /// Does what can be done for those who wait for an edge.
    pub(super) fn advance(&mut self, id: EdgeId<R>) {
        let Some(edge) = self.edges.get_mut(id) else { return };
        edge.queued = false;
        if let Some(error) = self.vertices[edge.vertex].failed.clone() {
            self.fail(id, error);
            return;
        }
        while self.step(id) {}
    }

    /// One step; false when something has to happen first, or nothing is left to do.
    fn step(&mut self, id: EdgeId<R>) -> bool {
        let edge = &self.edges[id];
        if edge.live == 0 || edge.failed.is_some() || edge.level >= edge.wanted {
            return false;
        }
        let vertex = &self.vertices[edge.vertex];
        if vertex.map.done().is_none() {
            self.start_map(edge.vertex);
            return false;
        }
        if edge.level < Level::Fast {
            return if vertex.inputs.is_empty() { self.look_up_root(id) } else { self.look_up(id) };
        }
        if edge.hit.is_some() {
            if edge.level < Level::Slow {
                self.reach(id, Level::Slow);
                return true;
            }
            self.start_load(id);
            return false;
        }
        if !edge.searched {
            return self.search(id);
        }
        if edge.level < Level::Slow {
            self.reach(id, Level::Slow);
            return true;
        }
        self.complete(id)
    }

    pub(super) fn reach(&mut self, id: EdgeId<R>, level: Level) {
        self.edges[id].level = level;
        self.announce(id);
    }

    /// The keys of an operation without inputs: its digests, one after the other.
    fn look_up_root(&mut self, id: EdgeId<R>) -> bool {
        self.find_root(id);
        let edge = &self.edges[id];
        if edge.hit.is_none() && self.vertices[edge.vertex].more_digests.done().is_none() {
            self.start_more_digests(edge.vertex);
            return false;
        }
        // What is known of it now is all there is, unless loading the hit fails.
        self.edges[id].searched = edge.hit.is_none();
        self.reach(id, Level::Slow);
        true
    }

    /// The keys that follow from those of the inputs.
    fn look_up(&mut self, id: EdgeId<R>) -> bool {
        let edge = &self.edges[id];
        if self.vertices[edge.vertex].forced || edge.missed {
            self.edges[id].searched = true;
            self.reach(id, Level::Slow);
            return true;
        }
        for input in 0..edge.inputs.len() {
            if self.edges[id].inputs[input].asked < Level::Fast && !self.ask(id, input, Level::Fast) {
                return false;
            }
        }
        let edge = &self.edges[id];
        if edge.missed {
            return true;
        }
        if edge.pending > 0 {
            return false;
        }
        self.find(id);
        self.reach(id, Level::Fast);
        true
    }

    /// Learns more keys of the inputs, the cheapest way first: as long as some match nothing,
    /// only of those; then of the others, as their keys may lead elsewhere than where a result
    /// is. An input that matches nothing whatever is learnt of it ends the search.
    fn search(&mut self, id: EdgeId<R>) -> bool {
        let edge = &self.edges[id];
        if edge.inputs.is_empty() {
            return self.look_up_more_roots(id);
        }
        if edge.missed {
            self.edges[id].searched = true;
            return true;
        }
        if edge.pending > 0 {
            return self.search_ahead(id);
        }
        self.find(id);
        let edge = &self.edges[id];
        if edge.hit.is_some() {
            self.connect(id);
            return true;
        }
        let count = edge.inputs.len();
        let open: Vec<usize> = (0..count).filter(|input| !self.is_exhausted(id, *input)).collect();
        let unmatched = |input: &usize| edge.inputs[*input].matches.is_empty();
        let first: Vec<usize> = open.iter().copied().filter(unmatched).collect();
        let next = if first.is_empty() { open } else { first };
        if next.is_empty() {
            self.edges[id].searched = true;
            return true;
        }
        self.learn_more(id, next)
    }

    /// Goes on with inputs whose result is needed in any case while others are awaited: what they are made of leads
    /// nowhere, so only their content can.
    fn search_ahead(&mut self, id: EdgeId<R>) -> bool {
        let inputs = &self.edges[id].inputs;
        let next = (0..inputs.len()).filter(|input| self.needs_result(id, *input)).collect();
        self.learn_more(id, next)
    }

    /// Whether all keys of an input are known but those of its content, they match nothing, and nothing is awaited of it.
    pub(super) fn needs_result(&self, id: EdgeId<R>, input: usize) -> bool {
        let known = &self.edges[id].inputs[input];
        known.got >= Level::Slow
            && known.matches.is_empty()
            && !known.is_pending()
            && !self.is_exhausted(id, input)
    }

    /// Takes the next step to the keys of some inputs. False when something has to happen first.
    fn learn_more(&mut self, id: EdgeId<R>, inputs: Vec<usize>) -> bool {
        for input in inputs {
            let going_on = match self.edges[id].inputs[input].got {
                Level::Complete => {
                    self.start_content(id, input);
                    true
                }
                Level::Slow | Level::Promised => self.ask(id, input, Level::Complete),
                _ => self.ask(id, input, Level::Slow),
            };
            if !going_on {
                return false;
            }
        }
        let edge = &self.edges[id];
        edge.missed || edge.pending == 0
    }

    /// After a hit that could not be loaded.
    fn look_up_more_roots(&mut self, id: EdgeId<R>) -> bool {
        let vertex = self.edges[id].vertex;
        if self.vertices[vertex].more_digests.done().is_none() {
            self.start_more_digests(vertex);
            return false;
        }
        self.find_root(id);
        self.edges[id].searched = true;
        true
    }

    /// A key was found by the content of an input: next time what the input is made of is
    /// enough.
    fn connect(&mut self, id: EdgeId<R>) {
        if self.edges[id].hit.as_ref().is_some_and(|hit| hit.node.cache == 0) {
            let main = self.edges[id].main.clone();
            self.saved_keys(id);
            // The hit is what it is known by, whatever the links lead to first.
            self.edges[id].main = main;
        }
    }

    /// Gets the result, after nothing was found: all inputs, then the operation itself.
    fn complete(&mut self, id: EdgeId<R>) -> bool {
        let edge = &self.edges[id];
        let vertex = &self.vertices[edge.vertex];
        if vertex.exec.done().is_some() {
            self.take_result(id, edge.vertex);
            return false;
        }
        if edge.follows.is_some() {
            return false;
        }
        let count = edge.inputs.len();
        for input in 0..count {
            self.forget_broken_promise(id, input);
            let needed = self.needed(id, input);
            let going_on = match self.edges[id].inputs[input].got {
                Level::Promised if needed == Level::Promised => true,
                Level::Complete => {
                    if self.needs_content(id, input) {
                        self.start_content(id, input);
                    }
                    true
                }
                _ => self.ask(id, input, needed),
            };
            if !going_on {
                return false;
            }
        }
        if self.edges[id].pending > 0 {
            return false;
        }
        // Between the first look and now, others may have done it.
        if count == 0 {
            self.find_root(id);
        } else {
            self.follow_again(id);
            self.find(id);
        }
        if self.edges[id].hit.is_some() {
            self.connect(id);
            return true;
        }
        self.execute(id);
        false
    }

    /// Has the operation run, or waits for one with the same key that runs already. An
    /// operation that has to run in any case waits only for one of its kind.
    fn execute(&mut self, id: EdgeId<R>) {
        let own = self.edges[id].vertex;
        let keys = self.saved_keys(id);
        if let Slot::Empty = self.vertices[own].exec {
            let forced = self.vertices[own].forced;
            let same = keys.iter().find_map(|key| {
                let runs = *self.running.get(key)?;
                let vertex = self.vertices.get(runs)?;
                let cancelled = vertex.exec.task()?.cancel.is_cancelled();
                (runs != own && !cancelled && (vertex.forced || !forced)).then_some(runs)
            });
            if let Some(runs) = same {
                self.edges[id].follows = Some(runs);
                self.vertices[runs].exec_waiting.push(id);
                self.join_all(own, runs);
                return;
            }
        }
        for key in keys {
            self.running.entry(key).or_insert(own);
            let vertex = &mut self.vertices[own];
            if !vertex.exec_keys.contains(&key) {
                vertex.exec_keys.push(key);
            }
        }
        let vertex = &mut self.vertices[own];
        if !vertex.exec_waiting.contains(&id) {
            vertex.exec_waiting.push(id);
        }
        if vertex.exec.is_empty() {
            self.start_exec(id);
        } else if vertex.promise.is_some() && self.edges[id].level < Level::Promised {
            self.reach(id, Level::Promised);
        }
    }
}
