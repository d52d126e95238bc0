//! One frontend's conversation with the daemon, whoever the frontend is: a client or a process
//! in a container. Its calls are answered here; what it returns in the end is the build's result.

use crate::bridge::{Bridge, SolveRequest};
use crate::containers::{self, Container, ContainerMount, Containers, Surroundings};
use crate::result::{FrontendResult, Handle, Refs, ScanExtras};
use crate::{GatewayError, attestations, caps, processes};
use crosskit_api::errors::ErrorDetails;
use crosskit_api::frontend::{self, result::Result as Returned};
use crosskit_api::{control, pb};
use crosskit_snapshots::Mounted;
use crosskit_workers::ops::left::LeftOver;
use crosskit_workers::{ResultRef, files};
use futures::Stream;
use indexmap::IndexMap;
use rand::Rng;
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

/// The level of a warning that says none.
const LEAST_LEVEL: i64 = 1;

type Outcome = Result<FrontendResult, GatewayError>;

/// One frontend's conversation.
pub struct Forwarder {
    bridge: Arc<Bridge>,
    inputs: BTreeMap<String, pb::Definition>,
    refs: Mutex<HashMap<String, Handle>>,
    /// What failed operations have left, by the ids that their errors name.
    left: Mutex<HashMap<String, ResultRef>>,
    mounts: tokio::sync::Mutex<HashMap<String, Arc<Looked>>>,
    containers: Arc<Containers>,
    outcome: watch::Sender<Option<Outcome>>,
    /// What the frontends that were asked want scanned besides their results, by platform id.
    scans: Mutex<Vec<(String, Option<Handle>, ScanExtras)>>,
}

/// A result that was looked into: mounted, or an empty folder for an empty one.
enum Looked {
    Mounted(Mounted),
    Empty(PathBuf),
}

impl Looked {
    fn path(&self) -> &std::path::Path {
        match self {
            Looked::Mounted(mounted) => mounted.path(),
            Looked::Empty(path) => path,
        }
    }
}

impl Drop for Looked {
    fn drop(&mut self) {
        if let Looked::Empty(path) = self {
            let _ = std::fs::remove_dir(path);
        }
    }
}

impl Forwarder {
    /// A conversation over a bridge; `inputs` are the graphs that the build was given.
    pub fn new(bridge: Arc<Bridge>, inputs: BTreeMap<String, pb::Definition>) -> Arc<Self> {
        Arc::new(Forwarder {
            bridge,
            inputs,
            refs: Mutex::default(),
            left: Mutex::default(),
            containers: Arc::default(),
            mounts: tokio::sync::Mutex::default(),
            outcome: watch::channel(None).0,
            scans: Mutex::default(),
        })
    }

    /// Waits for what the frontend returns.
    ///
    /// # Errors
    /// What it returned as an error.
    pub async fn outcome(&self) -> Outcome {
        let mut outcome = self.outcome.subscribe();
        match outcome.wait_for(Option::is_some).await.map(|o| o.clone()) {
            Ok(Some(outcome)) => outcome,
            _ => Err(GatewayError::canceled()),
        }
    }

    /// The ids by which the frontend can look into a result, that of a single one or one for each platform.
    pub fn ids(&self, result: &FrontendResult) -> Vec<String> {
        let mut refs = self.refs();
        let mut id_of = |handle: &Handle| {
            if let Some((id, _)) = refs.iter().find(|(_, known)| known.is(handle)) {
                return id.clone();
            }
            let id = new_id();
            refs.insert(id.clone(), handle.clone());
            id
        };
        result.handles().into_iter().map(&mut id_of).collect()
    }

    /// Ends the conversation with this, unless the frontend has returned something before. Gives whether it ended with this.
    pub fn end(&self, outcome: Outcome) -> bool {
        self.outcome.send_if_modified(|known| {
            let first = known.is_none();
            if first {
                *known = Some(outcome);
            }
            first
        })
    }

    /// Ends the conversation with a failure, whatever the frontend has returned before but an error of its own.
    pub fn fail(&self, failure: GatewayError) {
        self.outcome.send_if_modified(|known| {
            let counts = !matches!(known, Some(Err(_)));
            if counts {
                *known = Some(Err(failure));
            }
            counts
        });
    }

    /// What the daemon can do.
    pub async fn ping(&self) -> frontend::PongResponse {
        frontend::PongResponse {
            frontend_api_caps: caps::frontend(),
            llb_caps: caps::graph(),
            workers: self.bridge.workers().await,
        }
    }

    /// The named inputs of the build.
    pub fn inputs(&self) -> frontend::InputsResponse {
        frontend::InputsResponse { definitions: self.inputs.clone() }
    }

    /// Asks for an image's config.
    ///
    /// # Errors
    /// An image that isn't there or can't be reached.
    pub async fn resolve_image_config(
        &self,
        request: frontend::ResolveImageConfigRequest,
    ) -> Result<frontend::ResolveImageConfigResponse, GatewayError> {
        self.bridge.resolve_image_config(request).await
    }

    /// Asks for the facts of a source.
    ///
    /// # Errors
    /// A source that isn't there or can't be reached.
    pub async fn resolve_source_meta(
        &self,
        request: frontend::ResolveSourceMetaRequest,
    ) -> Result<frontend::ResolveSourceMetaResponse, GatewayError> {
        self.bridge.resolve_source_meta(request).await
    }

    /// Solves a graph or calls another frontend.
    ///
    /// # Errors
    /// A graph that makes no sense, and what fails in it if it is evaluated.
    pub async fn solve(
        &self,
        request: frontend::SolveRequest,
    ) -> Result<frontend::SolveResponse, GatewayError> {
        let as_return = request.allow_result_return;
        let as_messages = request.allow_result_array_ref;
        let (last, exporter_attr) = (request.r#final, request.exporter_attr.clone());
        let request = SolveRequest::from_frontend(request)?;
        let result = self.bridge.solve(request).await.map_err(|e| self.with_ids(e))?;
        let scans = result.scans.iter().map(|(id, scan)| (id.clone(), result.of(id).cloned(), scan.clone()));
        self.scans.lock().unwrap_or_else(PoisonError::into_inner).extend(scans);
        let mut answer = frontend::SolveResponse::default();
        // What the frontend is given of a result.
        let keep = |handle: &Option<Handle>| match handle {
            None => frontend::Ref::default(),
            Some(handle) => {
                let id = new_id();
                self.refs().insert(id.clone(), handle.clone());
                frontend::Ref { id, def: Some(handle.definition().as_ref().clone()) }
            }
        };
        let returned = match &result.refs {
            Refs::One(handle) => {
                let kept = keep(handle);
                if !as_return {
                    answer.r#ref.clone_from(&kept.id);
                }
                if as_messages { Returned::Ref(kept) } else { Returned::RefDeprecated(kept.id) }
            }
            Refs::ByPlatform(_) if !as_return => {
                return Err(GatewayError::plain("solve did not return default result"));
            }
            Refs::ByPlatform(handles) => {
                let kept: BTreeMap<String, frontend::Ref> =
                    handles.iter().map(|(k, h)| (k.clone(), keep(h))).collect();
                if as_messages {
                    Returned::Refs(frontend::RefMap { refs: kept })
                } else {
                    let refs = kept.into_iter().map(|(k, r)| (k, r.id)).collect();
                    Returned::RefsDeprecated(frontend::RefMapDeprecated { refs })
                }
            }
        };
        if last {
            // Old clients have no Return: the last solve is the result, with metadata as JSON.
            let mut result = result.clone();
            let extra: BTreeMap<String, Vec<u8>> = match exporter_attr.as_slice() {
                b"" => BTreeMap::new(),
                json => serde_json::from_slice(json)
                    .map_err(|e| GatewayError::invalid(format!("exporter attributes are not JSON: {e}")))?,
            };
            // What the solved frontend itself says counts more.
            result.metadata = extra.into_iter().chain(result.metadata).collect();
            self.end(Ok(result));
        }
        let mut attestations = BTreeMap::new();
        for (platform, attested) in &result.attestations {
            let sent = attested.iter().map(|one| attestations::sent(one, keep));
            let attestation = sent.collect::<Result<Vec<_>, _>>()?;
            attestations.insert(platform.clone(), frontend::Attestations { attestation });
        }
        answer.result =
            Some(frontend::Result { result: Some(returned), metadata: result.metadata, attestations });
        Ok(answer)
    }

    /// Runs what a ref stands for.
    ///
    /// # Errors
    /// What fails in it.
    pub async fn evaluate(&self, request: frontend::EvaluateRequest) -> Result<(), GatewayError> {
        self.result(&request.r#ref).await?;
        Ok(())
    }

    /// Reads a file of a ref.
    ///
    /// # Errors
    /// What fails in the ref, and a file that can't be read.
    pub async fn read_file(&self, request: frontend::ReadFileRequest) -> Result<Vec<u8>, GatewayError> {
        let range = range(request.range)?;
        self.look(&request.r#ref, move |root| files::read_file(root, &request.file_path, range)).await
    }

    /// Makes a container for processes.
    ///
    /// # Errors
    /// An id that is taken, results that nobody knows or that fail, mounts that make no sense.
    pub async fn new_container(
        &self,
        mut request: frontend::NewContainerRequest,
    ) -> Result<(), GatewayError> {
        if self.containers.find(&request.container_id).is_some() {
            return Err(containers::exists(&request.container_id));
        }
        let mut mounts = Vec::with_capacity(request.mounts.len());
        for mount in std::mem::take(&mut request.mounts) {
            let result = match mount.result_id.as_str() {
                "" => None,
                id => Some(self.result_or_left(id).await.map_err(|e| {
                    e.while_doing(&format!("failed to find ref {id} for {:?} mount", mount.dest))
                })?),
            };
            mounts.push(ContainerMount { mount, result });
        }
        let around = Surroundings {
            parts: Arc::clone(self.bridge.shared().workers.local()),
            sessions: self.bridge.job().sessions().to_vec(),
            entitlements: self.bridge.entitlements().clone(),
            proxy: self.bridge.proxy_rules(),
        };
        self.containers.add(Container::new(around, request, mounts).await?)
    }

    /// Ends a container and all that runs in it.
    ///
    /// # Errors
    /// No such container.
    pub async fn release_container(
        &self,
        request: frontend::ReleaseContainerRequest,
    ) -> Result<(), GatewayError> {
        self.containers.release(&request.container_id).await
    }

    /// Runs processes in containers.
    pub fn exec_process(
        &self,
        messages: impl Stream<Item = Result<frontend::ExecMessage, Status>> + Send + 'static,
    ) -> ReceiverStream<Result<frontend::ExecMessage, Status>> {
        processes::converse(Arc::clone(&self.containers), messages)
    }

    /// Reads a file of a container's mount.
    ///
    /// # Errors
    /// No such container or mount, and a file that can't be read.
    pub async fn read_file_container(
        &self,
        request: frontend::ReadFileRequest,
    ) -> Result<Vec<u8>, GatewayError> {
        let range = range(request.range)?;
        self.look_inside(&request.r#ref, request.mount_index, move |root| {
            files::read_file(root, &request.file_path, range)
        })
        .await
    }

    /// Lists a folder of a container's mount.
    ///
    /// # Errors
    /// No such container or mount, and a folder that can't be read.
    pub async fn read_dir_container(
        &self,
        request: frontend::ReadDirRequest,
    ) -> Result<Vec<crosskit_api::fsutil::Stat>, GatewayError> {
        self.look_inside(&request.r#ref, request.mount_index, move |root| {
            files::read_dir(root, &request.dir_path, &request.include_pattern)
        })
        .await
    }

    /// Asks for the facts of a file of a container's mount.
    ///
    /// # Errors
    /// No such container or mount, and a file that isn't there.
    pub async fn stat_file_container(
        &self,
        request: frontend::StatFileRequest,
    ) -> Result<crosskit_api::fsutil::Stat, GatewayError> {
        self.look_inside(&request.r#ref, request.mount_index, move |root| {
            files::stat_file(root, &request.path)
        })
        .await
    }

    /// Calls `at` with the root of a container's mount, which stays mounted meanwhile.
    async fn look_inside<T: Send + 'static>(
        &self,
        id: &str,
        mount: i32,
        at: impl FnOnce(&std::path::Path) -> Result<T, files::FileError> + Send + 'static,
    ) -> Result<T, GatewayError> {
        let container = self
            .containers
            .find(id)
            .ok_or_else(|| GatewayError::plain(format!("container details for {id}@{mount} not found")))?;
        let place = container.place(mount)?;
        let looking = tokio::task::spawn_blocking(move || at(&place));
        let looked = looking.await.map_err(|e| GatewayError::plain(e.to_string()))?;
        drop(container);
        looked.map_err(GatewayError::from)
    }

    /// Ends what still runs in the frontend's containers. To be called when the conversation is over.
    pub async fn close(&self) {
        self.containers.release_all().await;
    }

    /// Lists a folder of a ref.
    ///
    /// # Errors
    /// What fails in the ref, and a folder that can't be read.
    pub async fn read_dir(
        &self,
        request: frontend::ReadDirRequest,
    ) -> Result<Vec<crosskit_api::fsutil::Stat>, GatewayError> {
        self.look(&request.r#ref, move |root| {
            files::read_dir(root, &request.dir_path, &request.include_pattern)
        })
        .await
    }

    /// Asks for the facts of a file of a ref.
    ///
    /// # Errors
    /// What fails in the ref, and a file that isn't there.
    pub async fn stat_file(
        &self,
        request: frontend::StatFileRequest,
    ) -> Result<crosskit_api::fsutil::Stat, GatewayError> {
        self.look(&request.r#ref, move |root| files::stat_file(root, &request.path)).await
    }

    /// Warns about a vertex.
    ///
    /// # Errors
    /// A build that has ended.
    pub fn warn(&self, request: frontend::WarnRequest) -> Result<(), GatewayError> {
        self.bridge.warn(control::VertexWarning {
            vertex: request.digest,
            level: if request.level == 0 { LEAST_LEVEL } else { request.level },
            short: request.short,
            detail: request.detail,
            url: request.url,
            info: request.info,
            ranges: request.ranges,
        });
        Ok(())
    }

    /// Takes the frontend's result or error.
    ///
    /// # Errors
    /// Refs that nobody knows; the build goes on then. What has been returned before.
    pub fn r#return(&self, request: frontend::ReturnRequest) -> Result<(), GatewayError> {
        let taken = |ended: bool| match ended {
            true => Ok(()),
            false => Err(GatewayError::plain("gateway result is already set")),
        };
        if let Some(error) = &request.error {
            return taken(self.end(Err(GatewayError::from_rpc(error))));
        }
        let result = request
            .result
            .ok_or_else(|| GatewayError::invalid("gateway return must be either result or err"))?;
        let known = |id: &str| match id {
            "" => Ok(None),
            id => self.handle(id).map(Some),
        };
        let many = |refs: Vec<(String, String)>| -> Result<Refs, GatewayError> {
            let handles: Result<IndexMap<_, _>, GatewayError> =
                refs.into_iter().map(|(platform, id)| Ok((platform, known(&id)?))).collect();
            Ok(Refs::ByPlatform(handles?))
        };
        let refs = match result.result {
            None => Refs::One(None),
            Some(Returned::RefDeprecated(id)) => Refs::One(known(&id)?),
            Some(Returned::Ref(r)) => Refs::One(known(&r.id)?),
            Some(Returned::RefsDeprecated(map)) => many(map.refs.into_iter().collect())?,
            Some(Returned::Refs(map)) => many(map.refs.into_iter().map(|(k, r)| (k, r.id)).collect())?,
        };
        let mut attestations = BTreeMap::new();
        for (platform, listed) in result.attestations {
            let attested = listed.attestation.into_iter().map(|one| attestations::received(one, known));
            attestations.insert(platform, attested.collect::<Result<Vec<_>, _>>()?);
        }
        let mut result =
            FrontendResult { refs, metadata: result.metadata, attestations, ..FrontendResult::default() };
        result.scans = self.scans_of(&result);
        taken(self.end(Ok(result)))
    }

    /// What is to be scanned besides a result whose parts other frontends have given, by platform id.
    fn scans_of(&self, result: &FrontendResult) -> BTreeMap<String, ScanExtras> {
        let known = self.scans.lock().unwrap_or_else(PoisonError::into_inner);
        let given = known.iter().filter(|(id, handle, _)| match (result.of(id), handle) {
            (Some(one), Some(other)) => one.is(other),
            (one, other) => one.is_none() && other.is_none(),
        });
        given.map(|(id, _, scan)| (id.clone(), scan.clone())).collect()
    }

    /// The bridge that the calls go over.
    pub fn bridge(&self) -> &Arc<Bridge> {
        &self.bridge
    }

    fn handle(&self, id: &str) -> Result<Handle, GatewayError> {
        self.refs().get(id).cloned().ok_or_else(|| {
            GatewayError::new(
                Code::NotFound,
                format!("no such ref: {id}; a ref is known to the frontend that made it, while it runs"),
            )
        })
    }

    /// What a ref stands for.
    async fn result(&self, id: &str) -> Result<ResultRef, GatewayError> {
        let result = self.handle(id)?.result().await;
        result.map_err(|e| self.with_ids(e.into()))
    }

    /// The same, also for what a failed operation has left.
    async fn result_or_left(&self, id: &str) -> Result<ResultRef, GatewayError> {
        let left = self.left.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned();
        match left {
            Some(left) => Ok(left),
            None => self.result(id).await,
        }
    }

    /// The same error with ids for what the failed operation has left, by which a container can have it.
    fn with_ids(&self, error: GatewayError) -> GatewayError {
        let left = error.solve_error().and_then(|failed| failed.error.attachment::<LeftOver>());
        let (Some(left), Some(mut solve)) = (left, error.details().solve.clone()) else { return error };
        let mut known = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let mut name = |results: &[ResultRef]| -> Vec<String> {
            let name = |result: &ResultRef| match result {
                None => String::new(),
                Some(found) => {
                    known.entry(found.id().to_string()).or_insert_with(|| result.clone());
                    found.id().to_string()
                }
            };
            results.iter().map(name).collect()
        };
        solve.input_i_ds = name(&left.inputs);
        solve.mount_i_ds = name(&left.mounts);
        error.with_details(ErrorDetails { solve: Some(solve), ..ErrorDetails::default() })
    }

    /// Calls `at` with the root of a ref. Mounts stay until the conversation ends.
    async fn look<T: Send + 'static>(
        &self,
        id: &str,
        at: impl FnOnce(&std::path::Path) -> Result<T, files::FileError> + Send + 'static,
    ) -> Result<T, GatewayError> {
        let result = self.result(id).await?;
        let looked = {
            let mut mounts = self.mounts.lock().await;
            match mounts.get(id) {
                Some(known) => Arc::clone(known),
                None => {
                    let looked = Arc::new(match &result {
                        Some(found) => Looked::Mounted(found.mount_readonly().await.map_err(|e| {
                            GatewayError::plain(format!("mounting result {}: {e}", found.id()))
                        })?),
                        None => {
                            let path = std::env::temp_dir().join(format!("crosskit-empty-{}", new_id()));
                            std::fs::create_dir(&path).map_err(|e| {
                                GatewayError::plain(format!("making {}: {e}", path.display()))
                            })?;
                            Looked::Empty(path)
                        }
                    });
                    mounts.insert(id.to_string(), Arc::clone(&looked));
                    looked
                }
            }
        };
        tokio::task::spawn_blocking(move || at(looked.path()))
            .await
            .map_err(|e| GatewayError::plain(e.to_string()))?
            .map_err(GatewayError::from)
    }

    fn refs(&self) -> std::sync::MutexGuard<'_, HashMap<String, Handle>> {
        self.refs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Offset and length in bytes.
fn range(range: Option<frontend::FileRange>) -> Result<Option<(u64, u64)>, GatewayError> {
    let part = |v: i64| u64::try_from(v).map_err(|_| GatewayError::invalid("negative range"));
    range.map(|range| Ok((part(range.offset)?, part(range.length)?))).transpose()
}

/// An id that nobody can guess, in BuildKit's form: 25 lower-case letters and digits.
pub(crate) fn new_id() -> String {
    const DIGITS: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let mut random = rand::rng();
    (0..25).map(|_| char::from(DIGITS[random.random_range(0..DIGITS.len())])).collect()
}
