//! Operations that only count, and graphs of them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crosskit_api::{control, pb};
use crosskit_cache::{Cache, KeyDigest, MemoryResults, MemoryStore};
use crosskit_llb::{Graph, Limits, Vertex};
use crosskit_solver::*;
use futures::StreamExt;
use futures::future::BoxFuture;
use prost::Message;
use tokio::sync::Semaphore;

/// What a fake operation makes: its name and what it was made of.
pub type Made = Arc<str>;

/// How the operations of one name behave. Most need nothing said.
#[derive(Clone, Default)]
pub struct Behaviour {
    /// What the key is made of; the name if not said.
    pub key: Option<String>,
    /// The key can never be met again.
    pub random: bool,
    /// Inputs known by content.
    pub content: Vec<usize>,
    /// More keys of an operation without inputs.
    pub further: Vec<String>,
    /// What is made; the name and the inputs if not said.
    pub makes: Option<String>,
    /// Runs only with a permit of this.
    pub gate: Option<Arc<Semaphore>>,
    /// Fails with this.
    pub fails: Option<String>,
    /// Fails like a session that is gone, that many times.
    pub loses_session: Arc<AtomicUsize>,
    /// Fails after it has promised.
    pub loses_shipped: Arc<AtomicUsize>,
    pub panics: bool,
    pub outputs: usize,
    /// Promises what it makes, and is done when there is a permit of this.
    pub ships: Option<Arc<Semaphore>>,
    /// Begins with inputs that are only promised, and does not wait for them.
    pub early: bool,
    /// The wait for the key needs a permit of this.
    pub map_gate: Option<Arc<Semaphore>>,
}

#[derive(Default)]
pub struct World {
    pub behaviours: Mutex<HashMap<String, Behaviour>>,
    counts: Mutex<HashMap<String, usize>>,
    /// Rung whenever something is counted.
    counted: tokio::sync::Notify,
}

impl World {
    pub fn says(&self, name: &str, behaviour: Behaviour) {
        self.behaviours.lock().unwrap().insert(name.to_owned(), behaviour);
    }

    fn behaviour(&self, name: &str) -> Behaviour {
        self.behaviours.lock().unwrap().get(name).cloned().unwrap_or_default()
    }

    fn count(&self, what: String) {
        *self.counts.lock().unwrap().entry(what).or_default() += 1;
        self.counted.notify_waiters();
    }

    /// How often something has happened: `run x`, `map x`, `digest x 0`, `cancel x`, `end x`.
    pub fn times(&self, what: &str) -> usize {
        self.counts.lock().unwrap().get(what).copied().unwrap_or(0)
    }

    pub fn all_runs(&self) -> usize {
        let counts = self.counts.lock().unwrap();
        counts.iter().filter(|(what, _)| what.starts_with("run ")).map(|(_, times)| times).sum()
    }

    /// Waits until something has happened that often.
    pub async fn until(&self, what: &str, times: usize) {
        loop {
            let counted = self.counted.notified();
            tokio::pin!(counted);
            counted.as_mut().enable();
            if self.times(what) >= times {
                return;
            }
            counted.await;
        }
    }
}

pub struct Resolver(pub Arc<World>);

impl OpResolver<Made> for Resolver {
    fn op(&self, vertex: &Arc<Vertex>, _: &JobContext) -> Result<Arc<dyn Op<Made>>, OpError> {
        let Some(pb::op::Op::Exec(exec)) = &vertex.op.op else {
            return Err(OpError::new(ErrorKind::User, "no exec"));
        };
        let name = exec.meta.as_ref().unwrap().args[0].clone();
        if name == "unresolvable" {
            return Err(OpError::new(ErrorKind::User, "nobody can run it"));
        }
        let salt = exec.meta.as_ref().unwrap().env.first().cloned().unwrap_or_default();
        let behaviour = self.0.behaviour(&name);
        let inputs = vertex.inputs.len();
        Ok(Arc::new(Fake { name, salt, behaviour, inputs, world: self.0.clone() }))
    }
}

struct Fake {
    name: String,
    salt: String,
    behaviour: Behaviour,
    inputs: usize,
    world: Arc<World>,
}

struct Content {
    world: Arc<World>,
    what: String,
}

impl ContentKey<Made> for Content {
    fn digest<'a>(
        &'a self,
        _: &'a OpContext,
        input: &'a Made,
    ) -> BoxFuture<'a, Result<Option<KeyDigest>, OpError>> {
        self.world.count(self.what.clone());
        Box::pin(async move { Ok(Some(KeyDigest::of(input.as_bytes()))) })
    }
}

impl Op<Made> for Fake {
    fn cache_map<'a>(&'a self, _: &'a OpContext) -> BoxFuture<'a, Result<CacheMap<Made>, OpError>> {
        Box::pin(async move {
            if let Some(gate) = &self.behaviour.map_gate {
                gate.acquire().await.unwrap().forget();
            }
            self.world.count(format!("map {}", self.name));
            let key = self.behaviour.key.as_deref().unwrap_or(&self.name);
            let digest = match self.behaviour.random {
                true => KeyDigest::of(format!("{key}{}", self.salt).as_bytes()).into_random(),
                false => KeyDigest::of(key.as_bytes()),
            };
            let mut map = CacheMap::new(digest, self.inputs);
            map.deps.iter_mut().for_each(|dep| dep.early = self.behaviour.early);
            for input in &self.behaviour.content {
                map.deps[*input].content = Some(Arc::new(Content {
                    world: self.world.clone(),
                    what: format!("digest {} {input}", self.name),
                }));
            }
            Ok(map)
        })
    }

    fn further_key<'a>(
        &'a self,
        _: &'a OpContext,
        index: usize,
    ) -> BoxFuture<'a, Result<Option<KeyDigest>, OpError>> {
        let further = self.behaviour.further.get(index);
        let digest = further.map(|key| KeyDigest::of(key.as_bytes()));
        Box::pin(std::future::ready(Ok(digest)))
    }

    fn exec_early<'a>(
        &'a self,
        cx: &'a OpContext,
        inputs: Vec<Input<Made>>,
    ) -> BoxFuture<'a, Result<Vec<Made>, OpError>> {
        Box::pin(async move {
            // As it would be done where the inputs are: only what they are called is needed.
            let mut known = Vec::new();
            for input in &inputs {
                known.push(match input {
                    Input::Promised(promised) => {
                        self.world.count(format!("early {}", self.name));
                        promised.told.clone().downcast::<Vec<Made>>().unwrap()[promised.output].clone()
                    }
                    Input::Here(made) => made.clone(),
                });
            }
            let made = self.exec(cx, known).await?;
            if let Some(ships) = &self.behaviour.ships {
                cx.promise(Arc::new(made.clone()));
                self.world.count(format!("promise {}", self.name));
                tokio::select! {
                    permit = ships.acquire() => permit.unwrap().forget(),
                    () = cx.cancel.cancelled() => {
                        self.world.count(format!("cancel {}", self.name));
                        return Err(OpError::canceled());
                    }
                }
                let lost = &self.behaviour.loses_shipped;
                if lost.load(Ordering::SeqCst) > 0 {
                    return Err(OpError::new(ErrorKind::Environment, "it went down"));
                }
            }
            for input in &inputs {
                input.result().await?;
            }
            Ok(made)
        })
    }

    fn exec<'a>(&'a self, cx: &'a OpContext, inputs: Vec<Made>) -> BoxFuture<'a, Result<Vec<Made>, OpError>> {
        Box::pin(async move {
            self.world.count(format!("run {}", self.name));
            if let Some(gate) = &self.behaviour.gate {
                tokio::select! {
                    permit = gate.acquire() => permit.unwrap().forget(),
                    () = cx.cancel.cancelled() => {
                        self.world.count(format!("cancel {}", self.name));
                        return Err(OpError::canceled());
                    }
                }
            }
            if self.behaviour.panics {
                panic!("at the disco");
            }
            let losses = &self.behaviour.loses_session;
            if losses.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok() {
                return Err(OpError::new(ErrorKind::Unavailable, "session is gone"));
            }
            if let Some(text) = &self.behaviour.fails {
                return Err(OpError::new(ErrorKind::User, text.clone()));
            }
            cx.progress.log(progress::Stream::Stdout, self.name.as_bytes());
            self.world.count(format!("end {}", self.name));
            let made = match &self.behaviour.makes {
                Some(made) => made.clone(),
                None => {
                    // Long chains would make long names.
                    let names: Vec<_> = inputs.iter().map(|i| &i[..i.len().min(20)]).collect();
                    format!("{}({})", self.name, names.join(","))
                }
            };
            let outputs = self.behaviour.outputs.max(1);
            let output = |output: usize| match outputs {
                1 => made.as_str().into(),
                _ => format!("{made}#{output}").into(),
            };
            Ok((0..outputs).map(output).collect())
        })
    }
}

/// A graph in the making; nodes are numbered as they are added.
#[derive(Default)]
pub struct Plan {
    ops: Vec<(Vec<u8>, String)>,
    metadata: std::collections::BTreeMap<String, pb::OpMetadata>,
    sources: Option<pb::Source>,
}

impl Plan {
    /// Adds an operation on outputs of others. The salt changes the vertex, not its key.
    pub fn add_salted(&mut self, name: &str, salt: &str, inputs: &[(usize, i64)]) -> usize {
        let input =
            |(node, index): &(usize, i64)| pb::Input { digest: self.ops[*node].1.clone(), index: *index };
        let env = if salt.is_empty() { vec![] } else { vec![salt.to_owned()] };
        let meta = pb::Meta { args: vec![name.to_owned()], env, ..Default::default() };
        let mount = |input: usize| pb::Mount {
            input: input as i64,
            dest: if input == 0 { "/".to_owned() } else { format!("/{input}") },
            output: -1,
            ..Default::default()
        };
        let mut mounts: Vec<_> = (0..inputs.len()).map(mount).collect();
        if mounts.is_empty() {
            mounts.push(pb::Mount { input: -1, ..mount(0) });
        }
        let exec = pb::ExecOp { meta: Some(meta), mounts, ..Default::default() };
        let op = pb::Op {
            inputs: inputs.iter().map(input).collect(),
            op: Some(pb::op::Op::Exec(exec)),
            ..Default::default()
        };
        let raw = op.encode_to_vec();
        let digest = crosskit_llb::Digest::of(&raw).to_string();
        self.ops.push((raw, digest));
        self.ops.len() - 1
    }

    pub fn add(&mut self, name: &str, inputs: &[usize]) -> usize {
        let inputs: Vec<_> = inputs.iter().map(|input| (*input, 0)).collect();
        self.add_salted(name, "", &inputs)
    }

    pub fn force(&mut self, node: usize) {
        let metadata = pb::OpMetadata { ignore_cache: true, ..Default::default() };
        self.metadata.insert(self.ops[node].1.clone(), metadata);
    }

    pub fn locate(&mut self, node: usize, line: i32) {
        let position = |line| Some(pb::Position { line, character: 0 });
        let range = pb::Range { start: position(line), end: position(line) };
        let location = pb::Location { source_index: 0, ranges: vec![range] };
        let info = pb::SourceInfo { filename: "Dockerfile".to_owned(), ..Default::default() };
        let source = self.sources.get_or_insert_with(pb::Source::default);
        source.infos = vec![info];
        source.locations.entry(self.ops[node].1.clone()).or_default().locations.push(location);
    }

    pub fn digest(&self, node: usize) -> String {
        self.ops[node].1.clone()
    }

    pub fn graph_of(&self, node: usize, output: i64) -> Graph {
        let digest = self.ops[node].1.clone();
        let last = pb::Op { inputs: vec![pb::Input { digest, index: output }], ..Default::default() };
        let mut def: Vec<_> = self.ops.iter().map(|(raw, _)| raw.clone()).collect();
        def.push(last.encode_to_vec());
        let (metadata, source) = (self.metadata.clone(), self.sources.clone());
        let definition = pb::Definition { def, metadata, source };
        Graph::decode(definition, &Limits::default()).unwrap()
    }

    pub fn graph(&self) -> Graph {
        self.graph_of(self.ops.len() - 1, 0)
    }
}

/// A solver with its cache in memory.
pub struct Lab {
    pub world: Arc<World>,
    pub solver: Solver<Made>,
    pub cache: Cache<Made>,
    pub results: Arc<MemoryResults<Made>>,
    pub store: Arc<MemoryStore>,
    jobs: AtomicUsize,
}

impl Lab {
    pub fn new() -> Self {
        let results = Arc::new(MemoryResults::default());
        Lab::with(Arc::default(), Arc::new(MemoryStore::default()), results)
    }

    pub fn with(world: Arc<World>, store: Arc<MemoryStore>, results: Arc<MemoryResults<Made>>) -> Self {
        let cache = Cache::new("main", store.clone(), results.clone());
        let resolver = Arc::new(Resolver(world.clone()));
        let solver = Solver::new(cache.clone(), resolver, LogLimits::default());
        Lab { world, solver, cache, results, store, jobs: AtomicUsize::new(0) }
    }

    pub fn job(&self) -> Job<Made> {
        let number = self.jobs.fetch_add(1, Ordering::SeqCst);
        self.solver.new_job(format!("job{number}"), vec![format!("session{number}")]).unwrap()
    }

    /// Builds a graph in a job of its own.
    pub async fn build(&self, graph: &Graph) -> Result<Made, SolveError> {
        let job = self.job();
        let result = job.load(graph, LoadOptions::default()).unwrap().result().await;
        job.finish().await;
        result
    }
}

/// All that a build has told, after its end.
pub async fn everything(status: StatusStream) -> control::StatusResponse {
    let mut all = control::StatusResponse::default();
    let mut messages = std::pin::pin!(status);
    while let Some(message) = messages.next().await {
        all.vertexes.extend(message.vertexes);
        all.statuses.extend(message.statuses);
        all.logs.extend(message.logs);
        all.warnings.extend(message.warnings);
    }
    all
}

/// What is last told about a step.
pub fn last<'a>(all: &'a control::StatusResponse, digest: &str) -> &'a control::Vertex {
    all.vertexes.iter().rev().find(|vertex| vertex.digest == digest).unwrap()
}
