//! The Dockerfile frontend, in this process.

use crate::GatewayError;
use crate::bridge::{Bridge, SolveRequest};
use crate::forwarder::new_id;
use crate::lookups::Named;
use crate::platforms::{self, Failed};
use crate::result::{FrontendResult, Handle, Refs, ScanExtras};
use crosskit_api::errors::ErrorDetails;
use crosskit_api::{control, details, frontend, pb};
use crosskit_dockerfile::{
    self as dockerfile, BridgeError, DockerfileError, Environment, Frontend, ImageQuery, Options,
    ResolvedImage, SourceWarning,
};
use crosskit_llb::{Builder, Constraints, Graph, HttpSource, Limits};
use crosskit_remotecache::CacheOptions;
use crosskit_workers::{files, ops};
use std::collections::BTreeMap;
use std::sync::Arc;
use tonic::Code;

/// The level of a warning that is advice.
const ADVICE: i64 = 1;

/// The name that a frontend of an image is given its command line by; it is there when the
/// Dockerfile's own wish has been followed.
const CMDLINE: &str = "cmdline";

/// The option that names another frontend, before the Dockerfile does.
const SYNTAX_ARG: &str = "build-arg:BUILDKIT_SYNTAX";

/// What a frontend is told of the daemon and the build.
pub(crate) async fn environment(bridge: &Bridge) -> Environment {
    let build_platform = bridge.shared().workers.platforms().await.into_iter().next();
    Environment {
        session: bridge.session().to_string(),
        build_platform: build_platform.unwrap_or_else(crosskit_platforms::native),
        unique: new_id(),
    }
}

/// Builds a Dockerfile.
///
/// # Errors
/// What is wrong with it, with file and lines, and what fails while it is read.
pub async fn dockerfile(
    bridge: Arc<Bridge>,
    raw: BTreeMap<String, String>,
    inputs: BTreeMap<String, pb::Definition>,
) -> Result<FrontendResult, GatewayError> {
    let missing = raw.get("frontend.caps").and_then(|caps| dockerfile::missing_frontend_cap(caps));
    // Another frontend may have it, if one is asked for.
    if let Some(missing) = missing.as_ref().filter(|missing| !missing.forward) {
        return Err(GatewayError::lacks_capability(&missing.name));
    }
    let environment = environment(&bridge).await;
    let options = Options::parse(raw.clone(), environment).map_err(error)?;
    let imports = cache_imports(&raw)?;
    let asked = Asked::of(&bridge, &inputs);
    let read = Frontend::read(asked, options).await.map_err(error)?;
    if let Some(syntax) = read.forward() {
        let file = Arc::clone(read.source());
        let forwarded = forward(&bridge, &raw, inputs, syntax.reference, syntax.cmdline.clone()).await;
        return forwarded.map_err(|e| match raw.contains_key(SYNTAX_ARG) {
            // The other frontend has told better where it failed.
            _ if !e.details().sources.is_empty() => e,
            true => e.while_doing(&format!("failed with {SYNTAX_ARG} = {}", syntax.cmdline)),
            false => e.with_details(located(&file, &[syntax.lines])),
        });
    }
    if let Some(missing) = missing {
        return Err(GatewayError::lacks_capability(&missing.name));
    }
    if raw.contains_key("requestid")
        && let Some(answer) = read.subrequest().await.map_err(|e| unanswered(e, &raw))?
    {
        return Ok(FrontendResult { metadata: answer.metadata, ..FrontendResult::default() });
    }
    let (built, mut failed) = match bridge.keeps_going() {
        true => {
            let (built, failed) = read.build_what_can_be().await.map_err(error)?;
            (built, failed.into_iter().map(|(id, e)| (id, error(e))).collect())
        }
        false => (read.build().await.map_err(error)?, Failed::new()),
    };
    let mut metadata = built.metadata();
    let multi_platform = built.multi_platform;
    let mut handles = indexmap::IndexMap::new();
    let mut scans = BTreeMap::new();
    for platform in built.platforms {
        let (graphs, ignore_cache) = (platform.scan_extras, platform.scan_ignores_cache);
        scans.insert(platform.id.clone(), ScanExtras { graphs, ignore_cache });
        match bridge.load_graph(platform.graph, &imports).await {
            Ok(handle) => {
                handles.insert(platform.id, handle);
            }
            Err(e) if bridge.keeps_going() && e.code() != Code::Cancelled => {
                failed.insert(platform.id, e);
            }
            Err(e) => return Err(e),
        }
    }
    if handles.is_empty() && !failed.is_empty() {
        return Err(platforms::failure(&failed, &[]));
    }
    platforms::forget(&mut metadata, &failed);
    failed.into_iter().for_each(|(id, e)| bridge.platform_failed(&id, e));
    let refs = match multi_platform {
        true => Refs::ByPlatform(handles),
        false => Refs::One(handles.into_values().next().flatten()),
    };
    Ok(FrontendResult { refs, metadata, scans, ..FrontendResult::default() })
}

/// The caches to look into: `cache-imports`, a list in JSON, and `cache-from`, names of images.
fn cache_imports(raw: &BTreeMap<String, String>) -> Result<Vec<CacheOptions>, GatewayError> {
    #[derive(serde::Deserialize)]
    struct Entry {
        #[serde(rename = "Type", alias = "type", default)]
        kind: String,
        #[serde(rename = "Attrs", alias = "attrs", default)]
        attrs: Option<BTreeMap<String, String>>,
    }
    let mut imports = Vec::new();
    if let Some(text) = raw.get("cache-imports").filter(|text| !text.is_empty()) {
        let listed: Vec<Entry> = serde_json::from_str(text)
            .map_err(|e| GatewayError::plain(format!("failed to unmarshal cache-imports: {e}")))?;
        let options =
            |entry: Entry| CacheOptions { kind: entry.kind, attrs: entry.attrs.unwrap_or_default() };
        imports.extend(listed.into_iter().map(options));
    }
    let names = raw.get("cache-from").filter(|text| !text.is_empty());
    imports.extend(names.into_iter().flat_map(|text| text.split(',')).map(|name| CacheOptions {
        kind: "registry".to_string(),
        attrs: BTreeMap::from([("ref".to_string(), name.to_string())]),
    }));
    Ok(imports)
}

/// Lets the frontend in an image do it.
async fn forward(
    bridge: &Arc<Bridge>,
    raw: &BTreeMap<String, String>,
    inputs: BTreeMap<String, pb::Definition>,
    source: String,
    cmdline: String,
) -> Result<FrontendResult, GatewayError> {
    let mut options = raw.clone();
    options.insert(CMDLINE.to_string(), cmdline);
    options.insert("source".to_string(), source);
    let request =
        SolveRequest { frontend: "gateway.v0".to_string(), options, inputs, ..SolveRequest::default() };
    Box::pin(bridge.solve(request)).await
}

fn source_info(file: &crosskit_llb::SourceFile) -> pb::SourceInfo {
    pb::SourceInfo {
        filename: file.filename.clone(),
        data: file.data.clone(),
        definition: file.definition.clone(),
        language: file.language.clone(),
    }
}

/// Places in a file as typed details.
fn located(file: &crosskit_llb::SourceFile, lines: &[dockerfile::Lines]) -> ErrorDetails {
    let info = source_info(file);
    let sources = lines.iter().map(|l| details::Source { info: Some(info.clone()), ranges: l.to_ranges() });
    ErrorDetails { sources: sources.collect(), ..ErrorDetails::default() }
}

/// What is wrong with a Dockerfile, for the client. What the outside said keeps its details.
pub(crate) fn error(error: DockerfileError) -> GatewayError {
    let cause = error.cause.as_ref().and_then(|c| c.downcast_ref::<GatewayError>());
    let code = match (cause, error.kind()) {
        (Some(cause), _) => cause.code(),
        (None, dockerfile::ErrorKind::Canceled) => Code::Cancelled,
        (None, _) => Code::Unknown,
    };
    let mut found = GatewayError::new(code, error.to_string());
    if let Some(cause) = cause {
        found = found.with_details(cause.details().clone());
    }
    match &error.file {
        Some(file) => found.with_details(located(file, &error.locations)),
        None => found,
    }
}

/// What is wrong with a question to the frontend; clients tell those it doesn't know by a detail.
fn unanswered(error: DockerfileError, raw: &BTreeMap<String, String>) -> GatewayError {
    let unknown = error.to_string().starts_with(dockerfile::UNSUPPORTED);
    let subrequest = raw.get("requestid").filter(|_| unknown).cloned();
    self::error(error).with_details(ErrorDetails { subrequest, ..ErrorDetails::default() })
}

/// The outside, as the frontend sees it.
pub(crate) struct Asked {
    bridge: Arc<Bridge>,
    inputs: BTreeMap<String, pb::Definition>,
}

fn outside(error: GatewayError) -> BridgeError {
    Arc::new(error)
}

impl dockerfile::Bridge for Asked {
    type Ref = Option<Handle>;

    async fn solve(&self, graph: Graph, evaluate: bool) -> Result<Self::Ref, BridgeError> {
        let handle = self.bridge.load_graph(graph, &[]).await.map_err(outside)?;
        if evaluate && let Some(handle) = &handle {
            handle.result().await.map_err(|e| outside(e.into()))?;
        }
        Ok(handle)
    }

    async fn read_file(
        &self,
        result: &Self::Ref,
        path: &str,
        limit: Option<u64>,
    ) -> Result<Vec<u8>, BridgeError> {
        let found = match result {
            Some(handle) => handle.result().await.map_err(|e| outside(e.into()))?,
            None => None,
        };
        let snapshots = &self.bridge.shared().workers.local().snapshots;
        let tree = ops::mount_input(snapshots, found.as_ref()).await.map_err(|e| outside(e.into()))?;
        let path = path.to_string();
        let read = tokio::task::spawn_blocking(move || {
            files::read_file(tree.mounted.path(), &path, limit.map(|limit| (0, limit)))
        });
        let read = read.await.map_err(|_| outside(GatewayError::canceled()))?;
        // Without a particular code, unlike what a frontend of others is told of its own calls.
        read.map_err(|e| outside(GatewayError::plain(e.to_string())))
    }

    async fn resolve_image(&self, query: ImageQuery) -> Result<ResolvedImage, BridgeError> {
        let (resolver_type, session_id, store_id) = match query.layout {
            None => (0, String::new(), String::new()),
            Some(layout) => (1, layout.session, layout.store),
        };
        let request = frontend::ResolveImageConfigRequest {
            r#ref: query.reference,
            platform: query.platform.as_ref().map(crosskit_workers::platform_message),
            resolve_mode: query.resolve_mode.to_string(),
            log_name: query.log_name,
            resolver_type,
            session_id,
            store_id,
            source_policies: Vec::new(),
        };
        Ok(match self.bridge.look_up_image(request).await.map_err(outside)? {
            Named::Other { source, .. } => ResolvedImage::Other(source),
            Named::Image(found) => {
                ResolvedImage::Image { reference: found.r#ref, digest: found.digest, config: found.config }
            }
        })
    }

    async fn source_time(&self, source: pb::SourceOp, log_name: &str) -> Result<Option<i64>, BridgeError> {
        let named_file = named_file(&source).map_err(outside)?;
        let request = frontend::ResolveSourceMetaRequest {
            source: Some(source),
            log_name: log_name.to_string(),
            git: Some(frontend::ResolveSourceGitRequest { return_object: true }),
            ..frontend::ResolveSourceMetaRequest::default()
        };
        let found = self.bridge.resolve_source_meta(request).await.map_err(outside)?;
        if let Some(modified) = found.http.and_then(|h| h.last_modified) {
            return Ok(Some(modified.seconds));
        }
        if let Some(git) = found.git {
            return Ok(committer_time(&git.commit_object));
        }
        match named_file {
            Some((graph, filename)) => self.archive_time(graph, filename).await,
            None => Ok(None),
        }
    }

    async fn inputs(&self) -> Result<BTreeMap<String, Graph>, BridgeError> {
        self.inputs
            .iter()
            .map(|(name, definition)| {
                if definition.def.is_empty() {
                    let refused = GatewayError::plain("invalid nil input definition to definition op");
                    return Err(outside(refused));
                }
                Graph::decode(definition.clone(), &Limits::default())
                    .map(|graph| (name.clone(), graph))
                    .map_err(|e| outside(GatewayError::plain(e.to_string())))
            })
            .collect()
    }

    fn warn(&self, warning: SourceWarning) {
        let SourceWarning { vertex, warning, file } = warning;
        let Some(vertex) = vertex else { return };
        self.bridge.warn(control::VertexWarning {
            vertex: vertex.to_string(),
            level: ADVICE,
            short: warning.short().into_bytes(),
            detail: vec![warning.rule.description.as_bytes().to_vec()],
            url: warning.rule.url.to_string(),
            info: Some(source_info(&file)),
            ranges: warning.lines.to_ranges(),
        });
    }
}

impl Asked {
    /// The outside of a build with these inputs.
    pub(crate) fn of(bridge: &Arc<Bridge>, inputs: &BTreeMap<String, pb::Definition>) -> Arc<Self> {
        Arc::new(Asked { bridge: Arc::clone(bridge), inputs: inputs.clone() })
    }

    /// What the files of an archive from the web say, where its server says nothing.
    async fn archive_time(&self, graph: Graph, filename: String) -> Result<Option<i64>, BridgeError> {
        let Some(handle) = self.bridge.load_graph(graph, &[]).await.map_err(outside)? else {
            return Ok(None);
        };
        let found = handle.result().await.map_err(|e| outside(e.into()))?;
        let snapshots = &self.bridge.shared().workers.local().snapshots;
        let tree = ops::mount_input(snapshots, found.as_ref()).await.map_err(|e| outside(e.into()))?;
        let read =
            tokio::task::spawn_blocking(move || files::archive_time(tree.mounted.path(), &filename)).await;
        read.map_err(|_| outside(GatewayError::canceled()))?
            .map_err(|e| outside(GatewayError::plain(e.to_string())))
    }
}

/// The graph of a file from the web, and the file's name there if the build gives it one.
fn named_file(source: &pb::SourceOp) -> Result<Option<(Graph, String)>, GatewayError> {
    let from_web = ["http://", "https://"].iter().any(|scheme| source.identifier.starts_with(scheme));
    let Some(filename) = source.attrs.get("http.filename").filter(|name| from_web && !name.is_empty()) else {
        return Ok(None);
    };
    let http = HttpSource {
        url: source.identifier.clone(),
        checksum: source.attrs.get("http.checksum").cloned().unwrap_or_default(),
        filename: filename.clone(),
        ..HttpSource::default()
    };
    let mut builder = Builder::new();
    let output = builder.http(&http, Constraints::default());
    let graph = builder.graph(Some(output)).map_err(|e| GatewayError::plain(e.to_string()))?;
    Ok(Some((graph, filename.clone())))
}

/// The committer's time of a raw git commit: the second to last word of its line.
fn committer_time(commit: &[u8]) -> Option<i64> {
    let text = String::from_utf8_lossy(commit);
    let line = text.lines().take_while(|l| !l.is_empty()).find_map(|l| l.strip_prefix("committer "))?;
    line.rsplit(' ').nth(1)?.parse().ok()
}
