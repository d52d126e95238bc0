//! One build from its request to its response: the session is there, the frontend yields a
//! result, the result is computed and exported, and what happened is remembered.

use crate::asked_platforms;
use crate::attesting;
use crate::client_exporters::Chooser;
use crate::compatibility;
use crate::computed::{self, Computed};
use crate::config::Config;
use crate::exporting::{Exported, Outputs, cache_error, cache_options, export_error};
use crate::history::History;
use crate::machine::MachineWatch;
use crate::remembering::{self, Remembering};
use crosskit_api::control::{self as api, SolveRequest};
use crosskit_api::types;
use crosskit_api::version;
use crosskit_attest::Circumstances;
use crosskit_cache::Cache;
use crosskit_exporters::{Exporter, Exporters};
use crosskit_gateway::admission::Entitlements;
use crosskit_gateway::bridge::{self, Bridge, Shared};
use crosskit_gateway::builds::Builds;
use crosskit_gateway::forwarder::Forwarder;
use crosskit_gateway::provenance::Sketch;
use crosskit_gateway::{BuildPolicies, GatewayError, Refs};
use crosskit_snapshots::filters::Filters;
use crosskit_snapshots::{PruneOptions, Snapshots, Usage};
use crosskit_solver::{Job, JobContext, JobError, Solver, StatusStream};
use crosskit_workers::ops::left::LeftOver;
use crosskit_workers::ops::source::COMPATIBILITY;
use crosskit_workers::{ResultRef, disk};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::{Mutex, Notify, OwnedRwLockReadGuard, RwLock};
use tokio_stream::StreamExt;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

/// How long documents of images that no build keeps stay, so that the next build need not ask a
/// registry for them again.
const DOCUMENTS_STAY: Duration = Duration::from_secs(48 * 3600);

/// How often results are made again that were found in a cache elsewhere and are gone when they are exported.
const REDONE: u32 = 3;

/// Removed records that may wait to be taken.
const PRUNED_AT_ONCE: usize = 64;

/// What is known of a build that has succeeded.
pub(crate) struct Done {
    pub(crate) exported: Exported,
    /// What the frontend says of its result.
    pub(crate) metadata: BTreeMap<String, Vec<u8>>,
    /// How its results were made, by platform id.
    pub(crate) sketches: Vec<(String, Sketch)>,
    /// Whether there is one result for each platform.
    pub(crate) by_platform: bool,
}

/// Runs builds.
pub struct Builder {
    /// What every bridge shares.
    pub shared: Shared,
    /// In what order.
    pub solver: Solver<ResultRef>,
    /// Keys of results.
    pub cache: Cache<ResultRef>,
    /// Where results go.
    pub exporters: Exporters,
    /// Builds whose frontend runs in the client.
    pub forwarded: Builds,
    /// What is remembered.
    pub history: History,
    /// Layers on disk.
    pub snapshots: Snapshots,
    /// Entitlements that builds may ask for.
    pub entitlements: Vec<String>,
    /// What the daemon's administrator wants said in provenance.
    pub provenance_environment: serde_json::Map<String, serde_json::Value>,
    /// Collection, as configured.
    pub gc: Vec<types::GcPolicy>,
    /// Told when a build has ended.
    pub ended: Arc<Notify>,
    /// Cancelled when the daemon stops.
    pub stop: CancellationToken,
    /// Held by every build: blobs are collected only while none runs.
    pub running: Arc<RwLock<()>>,
    /// Held by whoever collects blobs.
    pub collecting: Mutex<()>,
}

impl Builder {
    /// The workers as clients see them.
    pub async fn worker_records(&self) -> Vec<types::WorkerRecord> {
        let mut records = self.shared.workers.records().await;
        for record in &mut records {
            record.buildkit_version = Some(version::record());
            record.gc_policy.clone_from(&self.gc);
        }
        records
    }

    /// Follows a build.
    ///
    /// # Errors
    /// A build that doesn't come up.
    pub async fn progress(&self, key: &str) -> Result<StatusStream, Status> {
        self.solver.status(key).await.map_err(|e| job_status(&e))
    }

    /// What takes space.
    ///
    /// # Errors
    /// An unreadable database.
    pub async fn disk_usage(&self, filters: Filters, age_limit: i64) -> Result<Vec<Usage>, Status> {
        let age = u64::try_from(age_limit).ok().filter(|a| *a > 0).map(Duration::from_nanos);
        self.snapshots.disk_usage(filters, age).await.map_err(|e| Status::unknown(e.to_string()))
    }

    /// Removes what the requests name, and cache keys that lead nowhere then.
    ///
    /// # Errors
    /// An unwritable database.
    pub async fn prune(&self, requests: Vec<PruneOptions>) -> Result<Vec<Usage>, Status> {
        let all = requests.iter().any(|r| r.all);
        let mut removed = Vec::new();
        for request in requests {
            let (pruned, mut told) = tokio::sync::mpsc::channel(PRUNED_AT_ONCE);
            let pruning = self.snapshots.prune(request, pruned);
            let gather = async {
                while let Some(record) = told.recv().await {
                    removed.push(record);
                }
            };
            let (done, ()) = tokio::join!(pruning, gather);
            done.map_err(|e| Status::unknown(e.to_string()))?;
        }
        let (cache, gone) = (self.cache.clone(), removed.iter().map(|r| r.id.clone()).collect::<Vec<_>>());
        let releasing = tokio::task::spawn_blocking(move || gone.iter().for_each(|id| cache.release(id)));
        releasing.await.map_err(|e| Status::unknown(e.to_string()))?;
        self.history.settled(None).await;
        // Whoever collects at the same time is waited for.
        let _alone = self.collecting.lock().await;
        self.collect_blobs(all).await.map_err(Status::unknown)?;
        Ok(removed)
    }

    /// Deletes blobs that nothing names, young ones only if `all` are to go.
    async fn collect_blobs(&self, all: bool) -> Result<(), String> {
        let before = if all { None } else { SystemTime::now().checked_sub(DOCUMENTS_STAY) };
        let kept = self.history.blobs().map_err(|e| e.to_string())?;
        let mut unnamed = self.snapshots.unnamed_blobs(kept, before).await.map_err(|e| e.to_string())?;
        if unnamed.is_empty() {
            return Ok(());
        }
        // A build that runs may be about to name one; the next collection takes what is left then.
        let Ok(_quiet) = self.running.try_write() else { return Ok(()) };
        let kept = self.history.blobs().map_err(|e| e.to_string())?;
        unnamed.retain(|digest| !kept.contains(digest));
        self.snapshots.delete_unnamed(unnamed).await.map_err(|e| e.to_string())?;
        Ok(())
    }

    /// Runs a build to its end. What is remembered of it is written down after the answer.
    ///
    /// # Errors
    /// Whatever went wrong, with typed details.
    pub async fn solve(&self, mut request: SolveRequest) -> Result<api::SolveResponse, Status> {
        translate_old_forms(&mut request);
        let running = Arc::new(Arc::clone(&self.running).read_owned().await);
        let _building = self.snapshots.building();
        // First of all, as the client follows the build already: what is refused is told at once.
        let job =
            Arc::new(self.solver.new_job(&request.r#ref, sessions(&request)).map_err(|e| job_status(&e))?);
        tell_epoch(&mut request);
        let record = remembering::started(&request);
        if !request.internal {
            self.history.start(record.clone());
        }
        let progress = job.status();
        let mut outcome = tokio::select! {
            outcome = Box::pin(self.run(&mut request, &job)) => outcome,
            () = self.stop.cancelled() => Err(GatewayError::canceled()),
        };
        job.close_progress();
        if !request.internal {
            let progress: Vec<_> = progress.collect().await;
            Remembering::of(record, &mut outcome, progress).write(&self.history, Arc::clone(&running));
        }
        let left = outcome.as_ref().err().map(left_behind).unwrap_or_default();
        let answer = outcome.map(|done| api::SolveResponse { exporter_response: done.exported.response });
        // Another daemon, whose steps come as graphs, is to know whether to ask elsewhere.
        let is_graph = request.definition.is_some();
        let answer = answer.map_err(|e| {
            let e = match disk::explained(&self.snapshots, e.message()) {
                Some(full) => e.with_more(&full),
                None => e,
            };
            if is_graph { e.to_status() } else { Status::from(e) }
        });
        self.end(job, running, left).await;
        answer
    }

    /// Ends a build that has its answer. What steps elsewhere have made and nobody needed here still
    /// comes, for later builds. What a failed one has left goes.
    async fn end(&self, job: Arc<Job<ResultRef>>, running: Arc<OwnedRwLockReadGuard<()>>, left: Vec<String>) {
        let ended = Arc::clone(&self.ended);
        let snapshots = self.snapshots.clone();
        let discard = move || {
            if !left.is_empty() {
                tokio::spawn(discard(snapshots, left));
            }
        };
        if job.is_settled().await {
            drop(job);
            discard();
            ended.notify_one();
            return;
        }
        let stop = self.stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = job.settled() => {}
                () = stop.cancelled() => {}
            }
            drop((job, running));
            discard();
            ended.notify_one();
        });
    }

    async fn run(&self, request: &mut SolveRequest, job: &Arc<Job<ResultRef>>) -> Result<Done, GatewayError> {
        let mut exporters = self.exporters(request)?;
        let compatibility_version = compatibility::version(request)?;
        job.context().set_value(COMPATIBILITY, Arc::new(compatibility_version));
        let asked = request.cache.take().unwrap_or_default();
        let caches = self
            .shared
            .caches
            .exports(&cache_options(asked.exports), job.context().sessions())
            .map_err(cache_error)?;
        let entitlements = Entitlements::grant(&request.entitlements, &self.entitlements)?;
        let policies =
            BuildPolicies::new(request.source_policy.take(), request.source_policy_session.clone())?;
        let attested = attesting::asked(&request.frontend_attrs)?;
        let asked = bridge::SolveRequest {
            definition: request.definition.clone(),
            frontend: request.frontend.clone(),
            options: request.frontend_attrs.clone(),
            inputs: request.frontend_inputs.clone(),
            cache_imports: cache_options(asked.imports),
            ..bridge::SolveRequest::default()
        }
        .preferring_builtin();
        let started = SystemTime::now();
        let machine = MachineWatch::start();
        let session = request.session.clone();
        let proxied = self.shared.proxied || request.proxy_network;
        let shared = Shared { proxied, ..self.shared.clone() };
        let bridge = Bridge::new(shared, Arc::clone(job), session, entitlements, policies, &asked);
        // Known to the build's end: who chooses exporters can look into the result.
        let mut conversation = None;
        let result = if request.definition.is_none() && request.frontend.is_empty() {
            let forwarder = Forwarder::new(Arc::clone(&bridge), request.frontend_inputs.clone());
            let registered = self.forwarded.register(&request.r#ref, Arc::clone(&forwarder));
            let outcome = forwarder.outcome().await;
            forwarder.close().await;
            if request.enable_session_exporter {
                conversation = Some((forwarder, registered));
            }
            outcome?
        } else {
            Box::pin(bridge.solve(asked)).await?
        };
        let Computed { mut result, mut export, told } = computed::compute(&bridge, result).await?;
        export.compatibility_version = compatibility_version;
        let about = Circumstances {
            compatibility_version,
            started: crosskit_images::gojson::time(started),
            environment: self.provenance_environment.clone(),
            machine: Some(machine.measured()),
            ..attesting::circumstances()
        };
        attesting::attest(&bridge, &mut result, &export, &attested, request, &about).await?;
        let sketches = match request.internal {
            true => Vec::new(),
            false => attesting::remembered(&bridge, &result, &export, attested.provenance, &about).await,
        };
        export.attestations = attesting::given(&result).await?;
        if told.is_empty() && !request.frontend_attrs.contains_key("requestid") {
            let asked = request.frontend_attrs.get("platform").map(String::as_str);
            tell(job.context(), asked_platforms::warnings(asked, &export));
        }
        let mut chooser = None;
        if request.enable_session_exporter {
            let client = Chooser::find(&self.shared.sessions, &request.session).await?;
            let refs = match &conversation {
                Some((forwarder, _)) => forwarder.ids(&result),
                None => Vec::new(),
            };
            let first = exporters.len();
            exporters.extend(client.exporters(&self.exporters, &export, refs, first).await?);
            chooser = Some(client);
        }
        let outputs = Outputs { exporters, caches };
        let metadata = export.metadata.clone();
        let mut again = 0;
        let mut exported = loop {
            let given = Box::pin(outputs.give(&result, export.clone(), job.context(), &request.session));
            match given.await {
                // What a cache elsewhere had of it is gone: it is made again.
                Err(_) if again < REDONE && Box::pin(computed::redo(&result, &mut export)).await? => {
                    again += 1
                }
                given => break given?,
            }
        };
        exported.response.extend(told);
        if let Some(client) = chooser {
            client.tell(&exported.response).await?;
        }
        Ok(Done { exported, metadata, sketches, by_platform: matches!(result.refs, Refs::ByPlatform(_)) })
    }

    fn exporters(&self, request: &SolveRequest) -> Result<Vec<Box<dyn Exporter>>, GatewayError> {
        let resolve = |(at, asked): (usize, &api::Exporter)| {
            self.exporters.resolve(&asked.r#type, at, &asked.attrs).map_err(export_error)
        };
        request.exporters.iter().enumerate().map(resolve).collect()
    }
}

/// Lets exporters know the time that everything is to be of. Values that are none, such as `context`, are for the frontend to
/// resolve: its result tells the time.
fn tell_epoch(request: &mut SolveRequest) {
    let seconds = |value: &&String| value.is_empty() || value.parse::<i64>().is_ok();
    let epoch = request.frontend_attrs.get("build-arg:SOURCE_DATE_EPOCH").filter(seconds).cloned();
    let Some(epoch) = epoch else { return };
    for exporter in &mut request.exporters {
        exporter.attrs.entry("source-date-epoch".to_string()).or_insert_with(|| epoch.clone());
    }
}

/// Tells the client what it should know of the result.
fn tell(job: &JobContext, warnings: Vec<String>) {
    if warnings.is_empty() {
        return;
    }
    let step = job.step("Verifying build result", None);
    let running = step.begin(false);
    for short in warnings {
        step.warn(api::VertexWarning { short: short.into_bytes(), ..Default::default() });
    }
    running.end(None);
}

fn sessions(request: &SolveRequest) -> Vec<String> {
    Some(request.session.clone()).filter(|s| !s.is_empty()).into_iter().collect()
}

#[allow(deprecated)]
fn translate_old_forms(request: &mut SolveRequest) {
    if request.exporters.is_empty() && !request.exporter_deprecated.is_empty() {
        request.exporters.push(api::Exporter {
            r#type: std::mem::take(&mut request.exporter_deprecated),
            attrs: std::mem::take(&mut request.exporter_attrs_deprecated),
        });
    }
    if let Some(cache) = &mut request.cache {
        if !cache.export_ref_deprecated.is_empty() {
            let mut attrs = std::mem::take(&mut cache.export_attrs_deprecated);
            attrs.insert("ref".to_string(), std::mem::take(&mut cache.export_ref_deprecated));
            cache.exports.push(api::CacheOptionsEntry { r#type: "registry".to_string(), attrs });
        }
        for reference in std::mem::take(&mut cache.import_refs_deprecated) {
            let attrs = BTreeMap::from([("ref".to_string(), reference)]);
            cache.imports.push(api::CacheOptionsEntry { r#type: "registry".to_string(), attrs });
        }
    }
}

/// The snapshots that a build that failed leaves behind.
fn left_behind(error: &GatewayError) -> Vec<String> {
    let left = error.solve_error().and_then(|failed| failed.error.attachment::<LeftOver>());
    left.map(|left| left.made()).unwrap_or_default()
}

/// Takes snapshots away once nobody looks into them any more.
async fn discard(snapshots: Snapshots, left: Vec<String>) {
    if let Err(why) = snapshots.discard(&left).await {
        tracing::warn!(%why, "what a failed step has written stays until the next collection");
    }
}

fn job_status(error: &JobError) -> Status {
    let code = match error {
        JobError::Unknown(_) => Code::NotFound,
        JobError::Exists(_) => Code::Unknown,
        JobError::Stopped => Code::Unavailable,
    };
    Status::new(code, error.to_string())
}

/// The policies of collection as clients see them; `disk` is the size of the disk in bytes.
pub fn gc_policies(config: &Config, disk: i64) -> Vec<types::GcPolicy> {
    let worker = &config.worker;
    if !worker.gc {
        return Vec::new();
    }
    let bytes = |space: Option<crate::config::Space>| space.map_or(0, |s| s.bytes(disk));
    let nanos = |d: Option<Duration>| d.map_or(0, |d| i64::try_from(d.as_nanos()).unwrap_or(i64::MAX));
    if !worker.gc_policies.is_empty() {
        return worker
            .gc_policies
            .iter()
            .map(|p| types::GcPolicy {
                all: p.all,
                filters: p.filters.clone(),
                keep_duration: nanos(p.keep_duration),
                reserved_space: bytes(p.reserved_space),
                max_used_space: bytes(p.max_used_space),
                min_free_space: bytes(p.min_free_space),
            })
            .collect();
    }
    let unset =
        worker.reserved_space.is_none() && worker.max_used_space.is_none() && worker.min_free_space.is_none();
    let (reserved, max_used, min_free) = match unset {
        // As BuildKit's defaults: a tenth of the disk but 10 GB at most stay, a fifth stays free,
        // 80 % but 100 GB at most are used.
        true => {
            let share = |percent| crate::config::Space::Percent(percent).bytes(disk);
            (share(10).min(10_000_000_000), share(80).min(100_000_000_000), share(20))
        }
        false => (bytes(worker.reserved_space), bytes(worker.max_used_space), bytes(worker.min_free_space)),
    };
    let limits = types::GcPolicy {
        reserved_space: reserved,
        max_used_space: max_used,
        min_free_space: min_free,
        ..types::GcPolicy::default()
    };
    let easily_remade = ["type==source.local", "type==exec.cachemount", "type==source.git.checkout"];
    vec![
        types::GcPolicy {
            filters: easily_remade.iter().map(|f| (*f).to_string()).collect(),
            keep_duration: nanos(Some(Duration::from_secs(48 * 3600))),
            max_used_space: 512_000_000,
            ..types::GcPolicy::default()
        },
        types::GcPolicy { keep_duration: nanos(Some(Duration::from_secs(60 * 24 * 3600))), ..limits.clone() },
        limits.clone(),
        types::GcPolicy { all: true, ..limits },
    ]
}
