//! What the caches know of an edge.

use std::collections::HashSet;
use std::sync::Arc;

use crosskit_cache::{Alternative, KeyDigest, KeyId, Link, LoadContext, Record};

use super::Engine;
use super::state::{EdgeId, Hit, Level, Node};
use crate::few::Few;

impl<R: Clone + Send + Sync + 'static> Engine<R> {
    /// The name of an edge's keys; none while its operation's digest is not known.
    fn name(&mut self, id: EdgeId<R>) -> Option<KeyDigest> {
        let edge = &self.edges[id];
        if edge.name.is_none() {
            let map = self.vertices[edge.vertex].map.done()?;
            self.edges[id].name = Some(map.digest.of_output(edge.output as i32));
        }
        self.edges[id].name
    }

    /// Finds the keys that what is newly known of an input leads to.
    pub(super) fn follow(&mut self, id: EdgeId<R>, input: usize) {
        let Some(name) = self.name(id) else { return };
        let edge = &self.edges[id];
        let vertex = &self.vertices[edge.vertex];
        let Some(map) = vertex.map.done() else { return };
        if vertex.forced {
            return;
        }
        let mut found = Few::default();
        let mut link = Link { input: input as u32, name, selector: None };
        if let Some(Some(content)) = vertex.content(input) {
            for cache in vertex.caches.iter() {
                let known = &self.caches[usize::from(*cache)];
                if let Some(root) = known.root(content) {
                    known.children(root, &link, |key| found.push(Node { cache: *cache, key }));
                }
            }
        }
        link.selector = map.deps[input].selector;
        let below = &self.edges[vertex.inputs[input]];
        for node in below.keys.iter().skip(edge.inputs[input].followed) {
            if vertex.caches.contains(&node.cache) {
                let Node { cache, key } = *node;
                let known = &self.caches[usize::from(cache)];
                known.children(key, &link, |key| found.push(Node { cache, key }));
            }
        }
        let followed = below.keys.len();
        let input = &mut self.edges[id].inputs[input];
        input.followed = followed;
        for node in found {
            if !input.matches.contains(&node) {
                input.matches.push(node);
            }
        }
    }

    /// Follows all keys of all inputs again: others may have been at work in the meantime.
    pub(super) fn follow_again(&mut self, id: EdgeId<R>) {
        for input in 0..self.edges[id].inputs.len() {
            self.edges[id].inputs[input].followed = 0;
            self.follow(id, input);
        }
    }

    /// Whether nothing more can be known of an input but its result.
    pub(super) fn is_exhausted(&self, id: EdgeId<R>, input: usize) -> bool {
        let edge = &self.edges[id];
        let vertex = &self.vertices[edge.vertex];
        let Some(map) = vertex.map.done() else { return false };
        edge.inputs[input].got >= Level::Slow
            && (map.deps[input].content.is_none() || vertex.content(input).is_some())
    }

    /// Finds the keys that all inputs lead to, and a result behind them.
    pub(super) fn find(&mut self, id: EdgeId<R>) {
        let edge = &self.edges[id];
        if self.vertices[edge.vertex].forced {
            return;
        }
        let Some((first, rest)) = edge.inputs.split_first() else { return };
        let mut common = first.matches.clone();
        for input in rest {
            common.retain(|node| input.matches.contains(node));
            if common.is_empty() {
                break;
            }
        }
        self.add_keys(id, common);
        self.pick(id);
    }

    /// Finds the keys of an edge without inputs, and a result behind them.
    pub(super) fn find_root(&mut self, id: EdgeId<R>) {
        let edge = &self.edges[id];
        let vertex = &self.vertices[edge.vertex];
        if vertex.forced {
            return;
        }
        let mut nodes = Few::default();
        for digest in &vertex.digests {
            let name = digest.of_output(edge.output as i32);
            for cache in vertex.caches.iter() {
                let root = self.caches[usize::from(*cache)].root(name);
                root.into_iter().for_each(|key| nodes.push(Node { cache: *cache, key }));
            }
        }
        self.add_keys(id, nodes);
        self.pick(id);
    }

    fn add_keys(&mut self, id: EdgeId<R>, nodes: Few<Node>) {
        let edge = &mut self.edges[id];
        for node in nodes {
            if !edge.keys.contains(&node) {
                edge.keys.push(node);
            }
        }
    }

    /// Chooses the best result behind the keys: one that is here, then the newest.
    pub(super) fn pick(&mut self, id: EdgeId<R>) {
        let mut best: Option<((bool, u64), Hit)> = None;
        for node in &self.edges[id].keys {
            let newest = self.caches[usize::from(node.cache)].newest(node.key);
            let Some(record) = newest else { continue };
            let rank = (node.cache == 0, record.created_ns);
            if best.as_ref().is_none_or(|(best, _)| rank > *best) {
                best = Some((rank, Hit { node: *node, record }));
            }
        }
        self.edges[id].hit = best.map(|(_, hit)| hit);
    }

    /// Ways in which each input is known in the solver's own cache.
    fn alternatives(&self, id: EdgeId<R>) -> Vec<Vec<Alternative>> {
        let edge = &self.edges[id];
        let vertex = &self.vertices[edge.vertex];
        let Some(map) = vertex.map.done() else { return Vec::new() };
        let input = |(input, below): (usize, &EdgeId<R>)| {
            let selector = map.deps[input].selector;
            let mut keys: Vec<Alternative> =
                self.edges[*below].main.iter().map(|key| (*key, selector)).collect();
            if let Some(Some(content)) = vertex.content(input) {
                keys.push((self.caches[0].ensure_root(content), None));
            }
            keys
        };
        vertex.inputs.iter().enumerate().map(input).collect()
    }

    /// The keys of an edge in the solver's own cache, made where there are none. So are those
    /// of what it depends on.
    pub(super) fn main_keys(&mut self, id: EdgeId<R>) -> Few<KeyId> {
        let mut stack = vec![(id, false)];
        while let Some((id, inputs_done)) = stack.pop() {
            let cache = &self.caches[0];
            let edge = &self.edges[id];
            if edge.main.iter().any(|key| cache.contains(*key)) {
                continue;
            }
            let own = edge.keys.iter().filter(|node| node.cache == 0).map(|node| node.key);
            let own: Few<KeyId> = own.filter(|key| cache.contains(*key)).collect();
            let vertex = &self.vertices[edge.vertex];
            if !own.is_empty() {
                self.edges[id].main = own;
            } else if vertex.inputs.is_empty() {
                let output = edge.output as i32;
                let root = |digest: &KeyDigest| cache.ensure_root(digest.of_output(output));
                let roots = vertex.digests.iter().map(root).collect();
                self.edges[id].main = roots;
            } else if inputs_done {
                let Some(name) = self.name(id) else { continue };
                let key = self.caches[0].ensure(&self.alternatives(id), name);
                self.edges[id].main = Few::One(Some(key));
            } else {
                stack.push((id, true));
                stack.extend(vertex.inputs.iter().map(|below| (*below, false)));
            }
        }
        self.edges[id].main.clone()
    }

    /// The keys under which a result of this edge is saved, linked from all that is known of
    /// the inputs.
    pub(super) fn saved_keys(&mut self, id: EdgeId<R>) -> Few<KeyId> {
        let vertex = self.edges[id].vertex;
        for below in self.vertices[vertex].inputs.clone() {
            self.main_keys(below);
        }
        let Some(name) = self.name(id) else { return Few::default() };
        let vertex = &self.vertices[vertex];
        let (edge, cache) = (&self.edges[id], &self.caches[0]);
        let output = edge.output as i32;
        let keys: Few<KeyId> = if vertex.inputs.is_empty() {
            vertex.digests.iter().map(|digest| cache.ensure_root(digest.of_output(output))).collect()
        } else {
            Few::One(Some(cache.ensure(&self.alternatives(id), name)))
        };
        self.edges[id].main = Clone::clone(&keys);
        keys
    }

    /// The edges below one whose results are parts of a result of it in another cache: whoever
    /// gets that one has theirs as well.
    pub(super) fn parts(&self, id: EdgeId<R>, hit: &Hit) -> Vec<(EdgeId<R>, Record)> {
        let cache = &self.caches[usize::from(hit.node.cache)];
        let mut parts = Vec::new();
        let mut seen = HashSet::from([id]);
        let mut look_at = vec![id];
        while let Some(at) = look_at.pop() {
            let inputs = &self.vertices[self.edges[at].vertex].inputs;
            look_at.extend(inputs.iter().filter(|below| seen.insert(**below)));
            let nodes = self.edges[at].keys.iter().filter(|node| node.cache == hit.node.cache && at != id);
            let records = nodes.filter_map(|node| cache.newest(node.key));
            let part = { records }.find(|record| cache.is_part(record, &hit.record));
            parts.extend(part.map(|record| (at, record)));
        }
        parts
    }

    /// What the operations at and below an edge have to say to whoever loads its result.
    pub(super) fn load_context(&self, id: EdgeId<R>) -> LoadContext {
        let start = self.edges[id].vertex;
        let sessions = self.vertices[start].jobs.sessions();
        // Those who join later count as well.
        let jobs = Arc::new(self.vertices[start].jobs.clone());
        let mut cx = LoadContext { sessions, with: vec![jobs] };
        let mut seen = HashSet::from([start]);
        let mut look_at = vec![start];
        while let Some(vertex) = look_at.pop() {
            let vertex = &self.vertices[vertex];
            if let Some(with) = vertex.map.done().and_then(|map| map.load_with.clone()) {
                cx.with.push(with);
            }
            let below = vertex.inputs.iter().map(|below| self.edges[*below].vertex);
            look_at.extend(below.filter(|below| seen.insert(*below)));
        }
        cx
    }
}
