//! An endpoint without a daemon around it: the parts that run a graph, with every process of the
//! graph sent to one worker elsewhere, or run here where there is none.

use crosskit_api::pb;
use crosskit_cache::Cache;
use crosskit_images::ContentStore;
use crosskit_images::registry::{RegistryHosts, install_crypto_provider};
use crosskit_llb::{Builder, Constraints, Exec, Graph, ImageSource, Output, Vertex};
use crosskit_metadata::Database;
use crosskit_session::{LocalDirs, SecretSource, Secrets, SessionManager, SessionServer, WAIT_FOR_SESSION};
use crosskit_snapshots::{LayerForm, Snapshots};
use crosskit_solver::{
    CacheMap, ErrorKind, Input, Job, JobContext, LoadOptions, LogLimits, Op, OpContext, OpError, OpResolver,
    Solver,
};
use crosskit_workers::remote::{RemoteError, RemoteWorker};
use crosskit_workers::{ResultRef, WorkerOptions, Workers};
use futures::StreamExt;
use futures::future::BoxFuture;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// What a process of a graph came to elsewhere, and after how long.
pub type Attempts = Arc<Mutex<Vec<(Result<(), RemoteError>, Duration)>>>;

pub struct Endpoint {
    workers: Workers,
    solver: Solver<ResultRef>,
    sessions: SessionManager,
    pub attempts: Attempts,
    _folder: TempDir,
}

struct Anywhere {
    workers: Workers,
    remote: Option<RemoteWorker>,
    attempts: Attempts,
}

impl OpResolver<ResultRef> for Anywhere {
    fn op(&self, vertex: &Arc<Vertex>, job: &JobContext) -> Result<Arc<dyn Op<ResultRef>>, OpError> {
        let here = self.workers.resolver().op(vertex, job)?;
        match (&self.remote, &vertex.op.op) {
            (Some(remote), Some(pb::op::Op::Exec(_))) => Ok(Arc::new(Elsewhere {
                here,
                workers: self.workers.clone(),
                remote: remote.clone(),
                attempts: self.attempts.clone(),
            })),
            _ => Ok(here),
        }
    }
}

struct Elsewhere {
    here: Arc<dyn Op<ResultRef>>,
    workers: Workers,
    remote: RemoteWorker,
    attempts: Attempts,
}

impl Op<ResultRef> for Elsewhere {
    fn cache_map<'a>(&'a self, cx: &'a OpContext) -> BoxFuture<'a, Result<CacheMap<ResultRef>, OpError>> {
        Box::pin(async move {
            let mut map = self.here.cache_map(cx).await?;
            // Inputs stay where they are.
            for dep in &mut map.deps {
                dep.preprocess = None;
                dep.early = true;
            }
            Ok(map)
        })
    }

    fn exec<'a>(
        &'a self,
        cx: &'a OpContext,
        inputs: Vec<ResultRef>,
    ) -> BoxFuture<'a, Result<Vec<ResultRef>, OpError>> {
        self.exec_early(cx, inputs.into_iter().map(Input::Here).collect())
    }

    fn exec_early<'a>(
        &'a self,
        cx: &'a OpContext,
        inputs: Vec<Input<ResultRef>>,
    ) -> BoxFuture<'a, Result<Vec<ResultRef>, OpError>> {
        Box::pin(async move {
            let begun = Instant::now();
            let mut ran = |told| cx.promise(told);
            let done = self.remote.run_step(cx, &cx.vertex, &inputs, self.workers.local(), &mut ran).await;
            let outcome = done.as_ref().map(|_| ()).map_err(Clone::clone);
            self.attempts.lock().unwrap().push((outcome, begun.elapsed()));
            done.map_err(|error| match error {
                RemoteError::Step(error) => error,
                RemoteError::Canceled => OpError::canceled(),
                RemoteError::Worker { .. } | RemoteError::Early => {
                    OpError::new(ErrorKind::Unavailable, error.to_string())
                }
            })
        })
    }
}

/// A build, and what it printed by vertex.
pub struct Built {
    pub result: Result<ResultRef, OpError>,
    pub printed: HashMap<String, Vec<u8>>,
    _job: Arc<Job<ResultRef>>,
}

impl Endpoint {
    /// Has to be called within a runtime.
    pub fn new(remote: Option<RemoteWorker>) -> Endpoint {
        install_crypto_provider();
        let folder = TempDir::with_prefix("crosskit-endpoint-").unwrap();
        let database = Database::open(folder.path().join("metadata.db")).unwrap();
        let content = ContentStore::open(folder.path().join("content")).unwrap();
        let snapshots = Snapshots::open(folder.path().join("snapshots"), database.clone(), content).unwrap();
        let sessions = SessionManager::new();
        let workers = Workers::start(WorkerOptions {
            policy: Default::default(),
            emulated_slots: None,
            remotes: Vec::new(),
            searches: Vec::new(),
            root: folder.path().to_path_buf(),
            snapshots,
            sessions: sessions.clone(),
            registries: RegistryHosts::new(HashMap::new()),
            database: database.clone(),
            http: crosskit_sources::lazy_http(),
            labels: BTreeMap::new(),
            platforms: Vec::new(),
            network: Default::default(),
            binary: None,
            rootless: false,
            shares_processes: false,
            cgroup_parent: String::new(),
            max_parallelism: 0,
            dns: None,
            devices: Default::default(),
        })
        .unwrap();
        let attempts = Attempts::default();
        let cache = Cache::new("local", Arc::new(database), workers.results());
        let anywhere = Anywhere { workers: workers.clone(), remote, attempts: attempts.clone() };
        let solver = Solver::new(cache, Arc::new(anywhere), LogLimits::default());
        Endpoint { workers, solver, sessions, attempts, _folder: folder }
    }

    /// A client that lends secrets. Gives its session.
    pub async fn client(&self, secrets: &[(&str, &str)]) -> String {
        let mut all = Secrets::default();
        for (id, value) in secrets {
            all.add(id, Some(SecretSource::Value(value.as_bytes().to_vec()))).unwrap();
        }
        self.connect(SessionServer::new("").with_secrets(all)).await
    }

    /// A client that lends the folder `context`, as the same client as the last time.
    pub async fn client_with_context(&self, context: &Path) -> String {
        let mut dirs = LocalDirs::default();
        dirs.add("context", context);
        self.connect(SessionServer::new("one machine").with_dirs(dirs)).await
    }

    async fn connect(&self, client: SessionServer) -> String {
        let id = client.id().to_string();
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        let (manager, headers) = (self.sessions.clone(), client.headers());
        tokio::spawn(async move { manager.handle(ours, &headers).await });
        tokio::spawn(client.serve(theirs));
        self.sessions.get(&id, WAIT_FOR_SESSION).await.unwrap();
        id
    }

    /// Runs a graph in a build of its own, which stays open.
    pub async fn build(&self, graph: &Graph, sessions: &[String]) -> Built {
        let name = format!("build-{:x}", rand::random::<u64>());
        let job = Arc::new(self.solver.new_job(name, sessions.to_vec()).unwrap());
        let status = job.status();
        let handle = job.load(graph, LoadOptions::default()).unwrap();
        let result = handle.result().await.map_err(|failed| failed.error);
        job.close_progress();
        let mut printed: HashMap<String, Vec<u8>> = HashMap::new();
        for log in status.collect::<Vec<_>>().await.into_iter().flat_map(|report| report.logs) {
            printed.entry(log.vertex).or_default().extend(log.msg);
        }
        Built { result, printed, _job: job }
    }

    /// A build that runs on while others look at it. Dropping it cancels it.
    pub fn start(&self, graph: &Graph) -> (Arc<Job<ResultRef>>, tokio::task::JoinHandle<bool>) {
        let name = format!("build-{:x}", rand::random::<u64>());
        let job = Arc::new(self.solver.new_job(name, Vec::new()).unwrap());
        let handle = job.load(graph, LoadOptions::default()).unwrap();
        let task = tokio::spawn(async move { handle.result().await.is_ok() });
        (job, task)
    }

    /// A file of a result.
    pub async fn read(&self, result: &ResultRef, path: &str) -> Vec<u8> {
        let mounted = result.as_ref().expect("a result that is not empty").mount_readonly().await.unwrap();
        std::fs::read(mounted.path().join(path)).unwrap()
    }

    /// The digests of a result's layers, as tars and as an export packs them.
    pub async fn layers(&self, result: &ResultRef) -> Vec<String> {
        let layers = result.as_ref().unwrap().layers(LayerForm::default()).await.unwrap();
        layers.iter().map(|layer| format!("{} {}", layer.blob.diff_id, layer.blob.desc.digest)).collect()
    }

    /// Bytes of blobs that are here.
    pub fn stored(&self) -> u64 {
        let content = self.workers.local().snapshots.content();
        content.list().unwrap().iter().map(|(_, size)| size).sum()
    }

    pub async fn shutdown(&self) {
        self.workers.shutdown().await;
    }
}

/// Graphs of one image and processes on it.
pub struct Steps {
    pub builder: Builder,
    pub base: Output,
}

impl Steps {
    pub fn on(image: &str) -> Steps {
        let mut builder = Builder::new();
        let image = ImageSource { reference: image.to_string(), ..ImageSource::default() };
        let base = builder.image(&image, Constraints::on(platform()));
        Steps { builder, base }
    }

    /// A shell's script on a filesystem.
    pub fn exec(root: Output, script: &str) -> Exec {
        Exec {
            root: Some(root),
            args: ["/bin/sh", "-c", script].map(str::to_string).to_vec(),
            env: vec!["PATH=/bin".to_string()],
            cwd: "/".to_string(),
            ..Exec::default()
        }
    }

    pub fn run(&mut self, root: Output, script: &str) -> Output {
        self.builder.exec(Self::exec(root, script), Constraints::on(platform())).root.unwrap()
    }

    pub fn graph(&self, result: Output) -> Graph {
        self.builder.graph(Some(result)).unwrap()
    }

    /// One script on the image.
    pub fn script(image: &str, script: &str) -> Graph {
        let mut steps = Steps::on(image);
        let done = steps.run(steps.base, script);
        steps.graph(done)
    }
}

pub fn platform() -> pb::Platform {
    crosskit_workers::platform_message(&crosskit_platforms::native().normalize())
}

/// The digest of a graph's last process, by which its output goes.
pub fn last(graph: &Graph) -> String {
    graph.head().unwrap().vertex.to_string()
}
