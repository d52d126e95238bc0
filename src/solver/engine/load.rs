//! Graphs come and go: the vertices of all builds, each once.

use std::sync::Arc;

use crosskit_cache::Cache;
use crosskit_llb::{Digest, DigestMap, Graph, SourceLocation, looser_resources, names};
use tokio::sync::mpsc;

use super::state::{Edge, EdgeId, Slot, Vertex, VertexId};
use super::{Engine, Job, Root};
use crate::few::Few;
use crate::progress::VertexInfo;
use crate::{JobContext, JobGroup, LoadOptions, SolveError, VertexProgress};

/// A graph, ready to be taken in.
pub(crate) struct Prepared<R> {
    vertices: Vec<PreparedVertex>,
    head: crosskit_llb::Edge,
    caches: Vec<Cache<R>>,
}

struct PreparedVertex {
    spec: Arc<crosskit_llb::Vertex>,
    name: String,
    locations: Vec<SourceLocation>,
    forced: bool,
}

impl<R> Prepared<R> {
    /// None for a graph of nothing.
    pub fn new(graph: &Graph, options: LoadOptions<R>) -> Option<Self> {
        let head = graph.head()?;
        let mut names = names::vertex_names(graph);
        let prepare = |spec: &Arc<crosskit_llb::Vertex>| PreparedVertex {
            name: names.remove(&spec.digest).unwrap_or_default(),
            locations: graph.source_locations(&spec.digest).to_vec(),
            forced: options.ignore_cache || spec.metadata.ignore_cache,
            spec: spec.clone(),
        };
        let vertices = graph.vertices().iter().map(prepare).collect();
        Some(Prepared { vertices, head, caches: options.caches })
    }
}

impl<R: Clone + Send + Sync + 'static> Engine<R> {
    pub(super) fn load(&mut self, job: u64, root: u64, graph: Prepared<R>) {
        let Some(known) = self.jobs.get_mut(&job) else { return };
        known.roots.push(root);
        let context = known.context.clone();
        let caches = self.cache_slots(job, graph.caches);
        let mut here: DigestMap<VertexId<R>> = DigestMap::default();
        here.reserve(graph.vertices.len());
        self.vertices.reserve(graph.vertices.len());
        self.edges.reserve(graph.vertices.len());
        self.by_digest.reserve(graph.vertices.len());
        for vertex in graph.vertices {
            let digest = vertex.spec.digest;
            let mut inputs = Few::default();
            for input in &vertex.spec.inputs {
                // A checked graph has inputs before what uses them.
                let Some(below) = here.get(&input.vertex) else { return };
                inputs.push(self.edge(*below, input.index));
            }
            let id = self.vertex(vertex, inputs, &caches);
            here.insert(digest, id);
            self.join(job, &context, id);
        }
        let Some(head) = here.get(&graph.head.vertex) else { return };
        let edge = self.edge(*head, graph.head.index);
        self.roots.insert(root, Root { job, edge });
    }

    /// The numbers of the caches to look into, the solver's own first.
    fn cache_slots(&mut self, job: u64, caches: Vec<Cache<R>>) -> Arc<[u16]> {
        let mut slots = vec![0];
        for cache in caches {
            let known = self.caches.iter().position(|known| known.is(&cache));
            let slot = known.map_or_else(|| self.add_cache(cache), |known| known as u16);
            if !slots.contains(&slot) {
                slots.push(slot);
            }
        }
        if let Some(job) = self.jobs.get_mut(&job) {
            job.caches.extend(slots.iter().skip(1));
        }
        slots.into()
    }

    fn add_cache(&mut self, cache: Cache<R>) -> u16 {
        // Number 0 stands for no cache but the solver's own, which is never given up.
        if let Some(slot) = self.free_caches.pop() {
            self.caches[usize::from(slot)] = cache;
            return slot;
        }
        self.caches.push(cache);
        (self.caches.len() - 1) as u16
    }

    /// Lets go of the caches that a build has brought. Where other builds go on with its
    /// vertices, they take them over.
    fn release_caches(&mut self, closed: &Job<R>) {
        if closed.caches.is_empty() {
            return;
        }
        for vertex in closed.vertices.iter().filter_map(|id| self.vertices.get(*id)) {
            for job in &vertex.job_ids {
                if let Some(job) = self.jobs.get_mut(job) {
                    job.caches.extend(vertex.caches.iter().skip(1));
                }
            }
        }
        for slot in &closed.caches {
            if !self.jobs.values().any(|job| job.caches.contains(slot)) {
                self.caches[usize::from(*slot)] = self.caches[0].clone();
                self.free_caches.push(*slot);
            }
        }
    }

    /// The vertex in work for this one: the same operation on the same inputs. One that runs in
    /// any case serves those who need not insist on that, but not the other way round.
    fn vertex(&mut self, new: PreparedVertex, inputs: Few<EdgeId<R>>, caches: &Arc<[u16]>) -> VertexId<R> {
        let digest = new.spec.digest;
        let known = self.by_digest.get(&digest).map_or(&[][..], |known| known);
        let serves = |forced: bool| {
            known.iter().copied().find(|id| {
                let vertex = &self.vertices[*id];
                vertex.forced == forced && vertex.inputs == inputs
            })
        };
        let found = serves(true).or_else(|| serves(false).filter(|_| !new.forced));
        if let Some(found) = found {
            let vertex = &mut self.vertices[found];
            let ours = vertex.spec.metadata.linux_resources.as_ref();
            let limits = looser_resources(ours, new.spec.metadata.linux_resources.as_ref());
            if limits.as_ref() != ours {
                Arc::make_mut(&mut vertex.spec).metadata.linux_resources = limits;
            }
            if caches.iter().any(|cache| !vertex.caches.contains(cache)) {
                let more = caches.iter().filter(|cache| !vertex.caches.contains(cache));
                vertex.caches = vertex.caches.iter().chain(more).copied().collect();
            }
            return found;
        }
        let shown = match known.len() {
            0 => digest,
            // Two states of one vertex need two names (BuildKit `solver/jobs.go`).
            1 => Digest::of(format!("{digest}-ignorecache").as_bytes()),
            more => Digest::of(format!("{digest}-ignorecache-{more}").as_bytes()),
        };
        let shown_input = |edge: &EdgeId<R>| {
            let vertex = self.edges[*edge].vertex;
            self.vertices[vertex].progress.digest()
        };
        let info = VertexInfo {
            digest: shown,
            inputs: inputs.iter().map(shown_input).collect(),
            name: new.name,
            group: new.spec.metadata.progress_group.clone(),
        };
        let id = self.vertices.insert(Vertex {
            spec: new.spec,
            progress: VertexProgress::new(info, self.limits),
            locations: new.locations,
            forced: new.forced,
            inputs,
            edges: Few::default(),
            jobs: JobGroup::default(),
            job_ids: Few::default(),
            caches: caches.clone(),
            op: None,
            map: Slot::Empty,
            digests: Few::default(),
            more_digests: Slot::Empty,
            contents: Vec::new(),
            exec: Slot::Empty,
            promise: None,
            exec_waiting: Few::default(),
            exec_keys: Few::default(),
            failed: None,
            restarts: 0,
            lost_job: false,
        });
        self.by_digest.entry(digest).or_default().push(id);
        id
    }

    /// An output of a vertex.
    fn edge(&mut self, vertex: VertexId<R>, output: usize) -> EdgeId<R> {
        let known = &self.vertices[vertex].edges;
        if let Some(edge) = known.iter().find(|edge| self.edges[**edge].output == output) {
            return *edge;
        }
        let inputs = self.vertices[vertex].inputs.len();
        let edge = self.edges.insert(Edge::new(vertex, output, inputs));
        self.vertices[vertex].edges.push(edge);
        edge
    }

    /// Has the builds of one vertex take part in another and in all that it depends on.
    pub(super) fn join_all(&mut self, from: VertexId<R>, to: VertexId<R>) {
        for job in self.vertices[from].job_ids.clone() {
            let Some(context) = self.jobs.get(&job).map(|job| job.context.clone()) else {
                continue;
            };
            // Inputs first, as in a graph: a build that ends lets go of them last.
            let mut stack = vec![(to, 0)];
            while let Some((id, next)) = stack.last_mut() {
                let id = *id;
                let vertex = &self.vertices[id];
                let joined = vertex.job_ids.contains(&job);
                match vertex.inputs.get(*next).filter(|_| !joined) {
                    Some(below) => {
                        *next += 1;
                        stack.push((self.edges[*below].vertex, 0));
                    }
                    None => {
                        stack.pop();
                        self.join(job, &context, id);
                    }
                }
            }
        }
    }

    /// Has a build take part in a vertex.
    fn join(&mut self, job: u64, context: &JobContext, id: VertexId<R>) {
        let vertex = &mut self.vertices[id];
        if vertex.job_ids.contains(&job) {
            return;
        }
        vertex.job_ids.push(job);
        vertex.jobs.join(context);
        vertex.progress.listen(context.log());
        if let Some(job) = self.jobs.get_mut(&job) {
            job.vertices.push(id);
        }
    }

    /// Ends a build: what it waits for is cancelled, and what only it has wanted goes.
    pub(super) fn close(&mut self, job: u64, done: Option<mpsc::Sender<()>>) {
        let Some(closed) = self.jobs.remove(&job) else { return };
        let left: Vec<u64> =
            self.demands.iter().filter(|(_, demand)| demand.job == job).map(|(id, _)| *id).collect();
        for demand in left {
            if let Some(demand) = self.withdraw(demand) {
                let _ = demand.reply.send(Err(SolveError::canceled()));
            }
        }
        for root in &closed.roots {
            self.roots.remove(root);
        }
        let mut garbage = Vec::new();
        // What uses a vertex goes before the vertex.
        for id in closed.vertices.iter().rev().copied() {
            let Some(vertex) = self.vertices.get_mut(id) else { continue };
            vertex.job_ids.retain(|known| *known != job);
            vertex.jobs.leave(&closed.context);
            vertex.progress.forget(closed.context.log());
            vertex.lost_job = true;
            if vertex.job_ids.is_empty() {
                garbage.extend(self.remove_vertex(id, done.as_ref()));
            }
        }
        self.release_caches(&closed);
        self.tell_settled();
        // Letting go of a result may mean to remove files.
        tokio::task::spawn_blocking(move || {
            drop(garbage);
            drop(done);
        });
    }

    fn remove_vertex(
        &mut self,
        id: VertexId<R>,
        done: Option<&mpsc::Sender<()>>,
    ) -> Option<(Vertex<R>, Few<Edge<R>>)> {
        for edge in self.vertices[id].edges.clone() {
            self.park(edge);
        }
        let vertex = self.vertices.remove(id)?;
        if let Some(same) = self.by_digest.get_mut(&vertex.spec.digest) {
            same.retain(|known| *known != id);
            if same.is_empty() {
                self.by_digest.remove(&vertex.spec.digest);
            }
        }
        self.unregister(id, &vertex.exec_keys);
        let mut tasks = vec![vertex.map.task(), vertex.more_digests.task(), vertex.exec.task()];
        tasks.extend(vertex.contents.iter().map(Slot::task));
        let edges: Few<Edge<R>> = vertex.edges.iter().filter_map(|edge| self.edges.remove(*edge)).collect();
        tasks.extend(edges.iter().map(|edge| edge.load.task()));
        for task in tasks.into_iter().flatten() {
            task.cancel.cancel();
            self.orphans.insert(task.number, done.cloned());
        }
        Some((vertex, edges))
    }

    /// The handle to a result is gone; the vertices stay until the build ends, as others of its
    /// graphs tend to need them again.
    pub(super) fn release(&mut self, root: u64) {
        if let Some(root_state) = self.roots.remove(&root)
            && let Some(job) = self.jobs.get_mut(&root_state.job)
        {
            job.roots.retain(|known| *known != root);
        }
    }
}
