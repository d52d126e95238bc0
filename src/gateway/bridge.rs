//! The bridge between frontends and the solver, for one build: it admits graphs, calls
//! frontends by name, and resolves what a frontend wants to know of sources.

use crate::admission::{Entitlements, admit, asks_for_devices, give_devices};
use crate::platforms::{Failed, OnFailure};
use crate::policies::rules;
use crate::result::{FrontendResult, Handle};
use crate::scope::{Producers, Scope};
use crate::{BuildPolicies, GatewayError, builtin, external, provenance};
use crosskit_api::errors::ErrorDetails;
use crosskit_api::{control, details, frontend, pb, types};
use crosskit_cache::Cache;
use crosskit_llb::{Graph, Limits};
use crosskit_policies::Policies;
use crosskit_remotecache::{CacheOptions, RemoteCaches};
use crosskit_session::SessionManager;
use crosskit_solver::{Job, JobContext, LoadOptions, OpError};
use crosskit_sources::BuildMemory;
use crosskit_workers::ops::build::{NESTED, Nested, SolvesNested};
use crosskit_workers::ops::source::MEMORY;
use crosskit_workers::{ResultRef, Workers};
use futures::future::BoxFuture;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, Weak};

/// What a frontend, or the client itself, wants solved.
#[derive(Clone, Debug, Default)]
pub struct SolveRequest {
    /// A graph; None for a frontend.
    pub definition: Option<pb::Definition>,
    /// A frontend by name, such as `dockerfile.v0`; empty for a graph.
    pub frontend: String,
    /// The frontend's options.
    pub options: BTreeMap<String, String>,
    /// Graphs that the frontend may use by name.
    pub inputs: BTreeMap<String, pb::Definition>,
    /// Run everything now.
    pub evaluate: bool,
    /// Caches elsewhere to look into, for a graph; frontends have options for them.
    pub cache_imports: Vec<CacheOptions>,
    /// Rules for the graph's sources, or those of the frontend's graphs, besides the build's own.
    pub policies: Policies,
}

impl SolveRequest {
    /// From a frontend's call.
    ///
    /// # Errors
    /// Source policies that make no sense.
    pub fn from_frontend(request: frontend::SolveRequest) -> Result<Self, GatewayError> {
        Ok(SolveRequest {
            policies: rules(request.source_policies)?,
            definition: request.definition,
            frontend: request.frontend,
            options: request.frontend_opt,
            inputs: request.frontend_inputs,
            evaluate: request.evaluate,
            cache_imports: request
                .cache_imports
                .into_iter()
                .map(|entry| CacheOptions { kind: entry.r#type, attrs: entry.attrs })
                .collect(),
        })
    }

    /// A client that asks for the image `dockerfile.v0` as its frontend gets the builtin one,
    /// unless a named context says what that image is.
    #[must_use]
    pub fn preferring_builtin(mut self) -> Self {
        let is_context = |key: &String| {
            key.strip_prefix("context:dockerfile.v0")
                .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
        };
        let asked = self.options.get("source").is_some_and(|source| source == "dockerfile.v0");
        if self.frontend == "gateway.v0" && asked && !self.options.keys().any(is_context) {
            self.frontend = "dockerfile.v0".to_string();
            self.options.remove("source");
        }
        self
    }
}

/// Which frontends a daemon has.
#[derive(Clone, Debug)]
pub struct Frontends {
    /// `dockerfile.v0`.
    pub dockerfile: bool,
    /// `gateway.v0`.
    pub gateway: bool,
    /// Repositories that images of frontends may come from; empty for any.
    pub gateway_repositories: Vec<String>,
}

/// What every bridge of a daemon shares.
#[derive(Clone)]
pub struct Shared {
    /// Who runs vertices.
    pub workers: Workers,
    /// The clients.
    pub sessions: SessionManager,
    /// The frontends.
    pub frontends: Frontends,
    /// Caches elsewhere.
    pub caches: RemoteCaches,
    /// What becomes of other platforms when one has failed.
    pub on_failure: OnFailure,
    /// How results that are handed on were made.
    pub producers: Producers,
    /// Whether steps reach the network through a proxy only.
    pub proxied: bool,
}

/// The bridge of one build.
pub struct Bridge {
    shared: Shared,
    job: Arc<Job<ResultRef>>,
    session: String,
    entitlements: Entitlements,
    policies: BuildPolicies,
    pub(crate) failed: Arc<Mutex<Failed>>,
    scope: Arc<Scope>,
}

impl Bridge {
    /// The bridge of a build whose client has this session, and asks for this.
    pub fn new(
        shared: Shared,
        job: Arc<Job<ResultRef>>,
        session: String,
        entitlements: Entitlements,
        policies: BuildPolicies,
        asked: &SolveRequest,
    ) -> Arc<Self> {
        let scope = Scope::of_client(asked);
        let failed = Arc::default();
        let bridge = Arc::new(Bridge { shared, job, session, entitlements, policies, failed, scope });
        // Weak, as the build keeps the value and the bridge keeps the build.
        let nested = Nested(Arc::new(ByBridge(Arc::downgrade(&bridge))));
        let build = bridge.job.context();
        build.set_value(NESTED, Arc::new(nested));
        build.set_value(MEMORY, Arc::new(BuildMemory::default()));
        bridge
    }

    /// The same bridge for a frontend that is asked for this.
    fn within(&self, asked: &SolveRequest) -> Arc<Self> {
        let rules = self.policies.rules.then(&asked.policies);
        Arc::new(Bridge {
            policies: BuildPolicies { rules, session: self.policies.session.clone() },
            shared: self.shared.clone(),
            job: Arc::clone(&self.job),
            session: self.session.clone(),
            entitlements: self.entitlements.clone(),
            failed: Arc::clone(&self.failed),
            scope: self.scope.within(asked),
        })
    }

    /// Who asked for what.
    pub(crate) fn scope(&self) -> &Arc<Scope> {
        &self.scope
    }

    /// What every bridge of the daemon shares.
    pub fn shared(&self) -> &Shared {
        &self.shared
    }

    /// The session of the build's client.
    pub fn session(&self) -> &str {
        &self.session
    }

    /// The build, for reports.
    pub fn job(&self) -> &JobContext {
        self.job.context()
    }

    /// What the build was granted.
    pub fn entitlements(&self) -> &Entitlements {
        &self.entitlements
    }

    /// What the client wants of sources.
    pub(crate) fn policies(&self) -> &BuildPolicies {
        &self.policies
    }

    /// The workers as clients see them.
    pub async fn workers(&self) -> Vec<types::WorkerRecord> {
        self.shared.workers.records().await
    }

    /// Solves a graph, or calls a frontend.
    ///
    /// # Errors
    /// A graph that makes no sense or isn't admitted, a frontend that isn't there or fails, and,
    /// if it is to be evaluated, the first failure in it.
    pub async fn solve(self: &Arc<Self>, request: SolveRequest) -> Result<FrontendResult, GatewayError> {
        let evaluate = request.evaluate;
        let inner = if request.frontend.is_empty() { Arc::clone(self) } else { self.within(&request) };
        // Clients send a graph without vertices where they mean none.
        let definition = request.definition.filter(|definition| !definition.def.is_empty());
        let result = match (definition, request.frontend.as_str()) {
            (Some(_), name) if !name.is_empty() => {
                return Err(GatewayError::invalid(
                    "cannot solve with both Definition and Frontend specified",
                ));
            }
            (Some(definition), _) => FrontendResult::single(
                self.load(definition, &request.cache_imports, &request.policies).await?,
            ),
            (None, "") => FrontendResult::default(),
            (None, name) => {
                let failing = details::Frontend {
                    name: name.to_string(),
                    source: request.options.get("source").cloned().unwrap_or_default(),
                };
                let called = self.call(name, &inner, request.options, request.inputs).await?;
                called.map_err(|e| {
                    let frontends = vec![failing];
                    e.with_details(ErrorDetails { frontends, ..ErrorDetails::default() })
                })?
            }
        };
        if evaluate {
            self.compute(&result).await?;
        }
        if !Arc::ptr_eq(&inner, self) {
            provenance::yielded(&inner, &result).await;
        }
        Ok(result)
    }

    /// Calls a frontend; the outer error is that there is none of that name.
    async fn call(
        &self,
        name: &str,
        inner: &Arc<Self>,
        options: BTreeMap<String, String>,
        inputs: BTreeMap<String, pb::Definition>,
    ) -> Result<Result<FrontendResult, GatewayError>, GatewayError> {
        let inner = Arc::clone(inner);
        Ok(match name {
            "dockerfile.v0" => {
                self.enabled(self.shared.frontends.dockerfile, name)?;
                Box::pin(builtin::dockerfile(inner, options, inputs)).await
            }
            "gateway.v0" => {
                self.enabled(self.shared.frontends.gateway, name)?;
                let mut options = options;
                crosskit_attest::without_builtin_scan(&mut options);
                Box::pin(external::solve(inner, options, inputs)).await
            }
            other => return Err(GatewayError::plain(format!("invalid frontend: {other}"))),
        })
    }

    fn enabled(&self, enabled: bool, name: &str) -> Result<(), GatewayError> {
        if enabled {
            return Ok(());
        }
        Err(GatewayError::plain(format!("invalid frontend: {name} is disabled in the daemon's config")))
    }

    /// Admits a graph. None is an empty result.
    ///
    /// # Errors
    /// A graph that makes no sense or isn't admitted.
    pub async fn load(
        &self,
        definition: pb::Definition,
        imports: &[CacheOptions],
        policies: &Policies,
    ) -> Result<Option<Handle>, GatewayError> {
        if definition.def.is_empty() {
            return Ok(None);
        }
        let graph = Graph::decode(definition, &Limits::default())
            .map_err(|e| GatewayError::plain(format!("failed to load LLB: {e}")))?;
        self.load_under(graph, imports, policies).await
    }

    /// The same for a graph that has been read.
    ///
    /// # Errors
    /// A graph that isn't admitted.
    pub async fn load_graph(
        &self,
        graph: Graph,
        imports: &[CacheOptions],
    ) -> Result<Option<Handle>, GatewayError> {
        self.load_under(graph, imports, &Policies::default()).await
    }

    async fn load_under(
        &self,
        graph: Graph,
        imports: &[CacheOptions],
        policies: &Policies,
    ) -> Result<Option<Handle>, GatewayError> {
        if graph.is_empty() {
            return Ok(None);
        }
        let refused = |e: GatewayError| e.while_doing("failed to load LLB");
        let (mut graph, mut asked) = match self.converted(&graph, policies).await.map_err(refused)? {
            Some(converted) => (converted, Some(Arc::new(graph))),
            None => (graph, None),
        };
        if let Some(behind_proxy) = self.behind_proxy(&graph, policies) {
            let direct = std::mem::replace(&mut graph, behind_proxy);
            asked.get_or_insert(Arc::new(direct));
        }
        admit(&graph, &self.entitlements).map_err(refused)?;
        if asks_for_devices(&graph) {
            let devices = self.shared.workers.devices().await.map_err(GatewayError::from)?;
            give_devices(&mut graph, &self.entitlements, &devices).map_err(refused)?;
        }
        self.shared.workers.preflight(self.job(), &graph).await.map_err(GatewayError::from)?;
        self.shared.workers.forget_cache_mounts(&graph).map_err(GatewayError::from)?;
        let caches = self.imported(imports).await;
        let graph = Arc::new(graph);
        let options = LoadOptions { caches, ..LoadOptions::default() };
        let handle = self.job.load(&graph, options).map(|result| Handle::new(result, graph, asked));
        if let Some(handle) = &handle {
            self.scope.solved(handle);
        }
        Ok(handle)
    }

    fn import<'a>(&'a self, options: &'a CacheOptions) -> BoxFuture<'a, Option<Cache<ResultRef>>> {
        Box::pin(async move {
            let import = async {
                Ok::<_, std::convert::Infallible>(self.shared.caches.import(self.job(), options).await)
            };
            match self.job().decide_once(&format!("cache {options:?}"), import).await {
                Ok(cache) => (*cache).clone(),
                Err(never) => match never {},
            }
        })
    }

    /// Caches elsewhere, each read once for the whole build. Those that can't be are left out.
    async fn imported(&self, imports: &[CacheOptions]) -> Vec<Cache<ResultRef>> {
        let mut read = Vec::with_capacity(imports.len());
        for options in imports {
            read.push(self.import(options));
        }
        futures::future::join_all(read).await.into_iter().flatten().collect()
    }

    /// Warns about a vertex.
    pub fn warn(&self, warning: control::VertexWarning) {
        let step = self.job.context().step("", Some(&warning.vertex));
        step.warn(warning);
    }
}

/// Solves graphs that are results of the build, over its bridge.
struct ByBridge(Weak<Bridge>);

impl SolvesNested for ByBridge {
    fn solve_nested(&self, definition: pb::Definition) -> BoxFuture<'_, Result<ResultRef, OpError>> {
        Box::pin(async move {
            let bridge = self.0.upgrade().ok_or_else(OpError::canceled)?;
            let failed = |e: GatewayError| {
                OpError::new(crosskit_solver::ErrorKind::User, e.message().to_string())
                    .with_details(e.details().clone())
            };
            match bridge.load(definition, &[], &Policies::default()).await.map_err(failed)? {
                None => Ok(None),
                Some(handle) => handle.result().await.map_err(|e| e.error),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_builtin_frontend_answers_to_its_name() {
        let asked = |options: &[&str]| {
            let options = options.iter().filter_map(|o| o.split_once('='));
            let options = options.map(|(k, v)| (k.to_string(), v.to_string())).collect();
            let request =
                SolveRequest { frontend: "gateway.v0".to_string(), options, ..SolveRequest::default() };
            let request = request.preferring_builtin();
            (request.frontend, request.options.into_keys().collect::<Vec<_>>().join(" "))
        };
        let builtin = |options: &str| ("dockerfile.v0".to_string(), options.to_string());
        let image = |options: &str| ("gateway.v0".to_string(), options.to_string());
        assert_eq!(asked(&["source=dockerfile.v0", "cmdline=x"]), builtin("cmdline"));
        assert_eq!(asked(&["source=dockerfile.v0", "context:dockerfile.v01=x"]).0, "dockerfile.v0");
        assert_eq!(asked(&["source=docker/dockerfile"]), image("source"));
        let named = ["context:dockerfile.v0=x", "context:dockerfile.v0::linux/arm64=x"];
        for context in named {
            assert_eq!(asked(&["source=dockerfile.v0", context]).0, "gateway.v0", "{context}");
        }
    }
}
