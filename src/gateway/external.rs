//! Frontends in images: a container that speaks the bridge's protocol over its standard streams.

use crate::bridge::Bridge;
use crate::forwarder::Forwarder;
use crate::result::{FrontendResult, Refs};
use crate::server::Calls;
use crate::{GatewayError, admission, builtin, health};
use crosskit_api::frontend::llb_bridge_server::LlbBridgeServer;
use crosskit_api::health::health_server::HealthServer;
use crosskit_api::{MAX_MESSAGE, frontend, pb};
use crosskit_dockerfile as dockerfile;
use crosskit_exec::{Mount, Network, Output, Process, Stdio};
use crosskit_images::ImageConfig;
use crosskit_images::registry::Reference;
use crosskit_llb::{Builder, Constraints, Graph, ImageSource};
use crosskit_snapshots::{About, RecordType};
use crosskit_workers::ops::exec::exec_error;
use crosskit_workers::ops::snapshot_error;
use prost::Message;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Bytes that may be on their way between frontend and daemon.
const PIPE: usize = 256 << 10;

/// The label of an image that says what its frontend can do.
const CAPS_LABEL: &str = "moby.buildkit.frontend.caps";

/// The label of an image whose frontend needs no network.
const NO_NETWORK_LABEL: &str = "moby.buildkit.frontend.network.none";

/// The capability to take inputs.
const INPUTS_CAP: &str = "moby.buildkit.frontend.inputs";

/// Images of `docker/dockerfile` 1.1.6 and 1.1.7, and their `-experimental` kind, which take inputs without a label that says so.
const UNLABELLED_WITH_INPUTS: [&str; 4] = [
    "sha256:9ac1c43a60e31dca741a6fe8314130a9cd4c4db0311fbbc636ff992ef60ae76d",
    "sha256:080bd74d8778f83e7b670de193362d8c593c8b14f5c8fb919d28ee8feda0d069",
    "sha256:60543a9d92b92af5088fb2938fb09b2072684af8384399e153e137fe081f8ab4",
    "sha256:de85b2f3a3e8a2f7fe48e8e84a65f6fdd5cd5183afa6412fff9caa6871649c44",
];

/// The option for frontends that are clients, as old releases had it.
const DEVEL: &str = "gateway-devel";

/// What the options for named contexts begin with.
const CONTEXT: &str = "context:";

/// What a frontend is told it talks to.
const PRODUCT: &str = "buildkit";

/// Where a frontend finds the graph that it was made by.
const METADATA: &str = "/run/config/buildkit/metadata";

/// Runs the frontend of an image.
///
/// # Errors
/// An image that isn't allowed, isn't there or lacks a capability, and what its frontend returns.
pub async fn solve(
    bridge: Arc<Bridge>,
    options: BTreeMap<String, String>,
    inputs: BTreeMap<String, pb::Definition>,
) -> Result<FrontendResult, GatewayError> {
    if options.contains_key(DEVEL) {
        return Err(GatewayError::plain("development gateway is no longer supported"));
    }
    let source =
        options.get("source").ok_or_else(|| GatewayError::plain("no source specified for gateway"))?;
    let name = Reference::parse(source)
        .map_err(|e| GatewayError::plain(format!("invalid context name {source}: {e}")))?;
    check_allowed(&bridge.shared().frontends.gateway_repositories, source, &name)?;
    let Image { graph, config, digest } = match in_place_of(&bridge, source, &options, &inputs).await? {
        Some(image) => image,
        None => pulled(&bridge, &name.with_default_tag()).await?,
    };
    check_caps(&config, &digest, &options, !inputs.is_empty())?;
    let handle = bridge
        .load_graph(graph, &[])
        .await?
        .ok_or_else(|| GatewayError::plain("gateway source didn't return default result"))?;
    let root = handle.result().await?;
    let forwarder = Forwarder::new(Arc::clone(&bridge), inputs);
    let ran = run(&bridge, &forwarder, &config, &options, root, handle.definition()).await;
    if let Err(e) = ran {
        forwarder.fail(e);
    }
    forwarder.end(Err(GatewayError::plain(
        "no result for incomplete build: the frontend ended without returning one",
    )));
    forwarder.close().await;
    let result = forwarder.outcome().await?;
    if let Refs::ByPlatform(handles) = &result.refs
        && handles.is_empty()
    {
        return Ok(FrontendResult { metadata: result.metadata, ..FrontendResult::default() });
    }
    Ok(result)
}

/// The image of a frontend.
struct Image {
    graph: Graph,
    config: ImageConfig,
    /// Empty when it is not known.
    digest: String,
}

/// What the request has under the name of a frontend's image, if it has something.
async fn in_place_of(
    bridge: &Arc<Bridge>,
    source: &str,
    options: &BTreeMap<String, String>,
    inputs: &BTreeMap<String, pb::Definition>,
) -> Result<Option<Image>, GatewayError> {
    // The options of a frontend are its own matter as long as nothing is to be found in them.
    if !options.keys().any(|key| key.starts_with(CONTEXT)) {
        return Ok(None);
    }
    let environment = builtin::environment(bridge).await;
    let parsed = dockerfile::Options::parse(options.clone(), environment).map_err(builtin::error)?;
    let found = dockerfile::named_context(builtin::Asked::of(bridge, inputs), parsed, source).await;
    let Some((graph, config)) = found.map_err(builtin::error)? else { return Ok(None) };
    let config = match config {
        Some(config) => ImageConfig::parse(&config).map_err(|e| GatewayError::plain(e.to_string()))?,
        None => ImageConfig::default(),
    };
    Ok(Some(Image { graph, config, digest: String::new() }))
}

/// An image in a registry.
async fn pulled(bridge: &Bridge, name: &Reference) -> Result<Image, GatewayError> {
    let found = bridge
        .resolve_image_config(frontend::ResolveImageConfigRequest {
            r#ref: name.to_string(),
            log_name: format!("resolve image config for docker-image://{name}"),
            ..frontend::ResolveImageConfigRequest::default()
        })
        .await?;
    let config = ImageConfig::parse(&found.config).map_err(|e| GatewayError::plain(e.to_string()))?;
    let mut builder = Builder::new();
    // A policy may want another image than the one asked for.
    let mut reference =
        Reference::parse(&found.r#ref).map_err(|e| GatewayError::plain(format!("{}: {e}", found.r#ref)))?;
    if let Ok(digest) = found.digest.parse() {
        reference = reference.with_digest(digest);
    }
    let reference = reference.to_string();
    let image = ImageSource { reference, record_type: "frontend".to_string(), ..ImageSource::default() };
    let output = builder.image(&image, Constraints::default());
    let graph = builder.graph(Some(output)).map_err(|e| GatewayError::plain(e.to_string()))?;
    Ok(Image { graph, config, digest: found.digest })
}

fn check_allowed(allowed: &[String], source: &str, name: &Reference) -> Result<(), GatewayError> {
    let repository = name.repository();
    let known = allowed.iter().filter_map(|a| Reference::parse(a).ok()).any(|a| a.repository() == repository);
    if allowed.is_empty() || known {
        return Ok(());
    }
    Err(GatewayError::plain(format!("'{source}' is not an allowed gateway source")))
}

/// What follows a `+` says what becomes of a build whose frontend lacks the capability.
fn capabilities(list: &str) -> BTreeSet<&str> {
    list.split(',').filter_map(|cap| cap.split('+').next()).filter(|cap| !cap.is_empty()).collect()
}

fn check_caps(
    config: &ImageConfig,
    digest: &str,
    options: &BTreeMap<String, String>,
    inputs: bool,
) -> Result<(), GatewayError> {
    let mut there = capabilities(config.config.labels.get(CAPS_LABEL).map_or("", String::as_str));
    if UNLABELLED_WITH_INPUTS.contains(&digest) {
        there.insert(INPUTS_CAP);
    }
    let mut wanted = capabilities(options.get("frontend.caps").map_or("", String::as_str));
    if inputs {
        wanted.insert(INPUTS_CAP);
    }
    match wanted.difference(&there).next() {
        None => Ok(()),
        Some(missing) => Err(GatewayError::lacks_capability(missing)),
    }
}

async fn run(
    bridge: &Arc<Bridge>,
    forwarder: &Arc<Forwarder>,
    config: &ImageConfig,
    options: &BTreeMap<String, String>,
    root: crosskit_workers::ResultRef,
    definition: &pb::Definition,
) -> Result<(), GatewayError> {
    let parts = bridge.shared().workers.local();
    let about = About::new("frontend").of_type(RecordType::Frontend);
    let mutable = parts.snapshots.new_mutable(root.as_ref(), about).map_err(snapshot_error)?;
    let mounted = mutable.mount().await.map_err(snapshot_error)?;
    let mut process = Process {
        args: config.config.entrypoint.clone(),
        env: environment(bridge, config, options).await?,
        cwd: config.config.working_dir.clone(),
        rootfs: mounted.path().to_path_buf(),
        remove_mount_stubs_recursive: true,
        ..Process::default()
    };
    if process.args.is_empty() {
        process.args = vec!["/run".to_string()];
    }
    let label = config.config.labels.get(NO_NETWORK_LABEL);
    if label.and_then(|text| dockerfile::go_bool(text)) == Some(true) {
        process.network = Network::None;
    }
    process.proxy = bridge.proxy_rules();
    let network = if process.network == Network::Host { pb::NetMode::Host } else { pb::NetMode::None };
    admission::Entitlements::check(bridge.entitlements(), network, pb::SecurityMode::Sandbox)?;
    let metadata = metadata_folder(&parts.volatile, definition)?;
    process.mounts.push(Mount::bind(metadata.path(), METADATA, true));

    let (ours, theirs) = tokio::io::duplex(PIPE);
    let (to_process, from_process) = tokio::io::split(theirs);
    let served = tokio::spawn(serve(Arc::clone(forwarder), ours));
    let stdio = Stdio {
        stdin: Some(Box::pin(to_process)),
        stdout: Output::Write(Box::pin(from_process)),
        stderr: Output::call(|text| {
            tracing::debug!("frontend: {}", String::from_utf8_lossy(&text).trim_end())
        }),
        ..Stdio::default()
    };
    let ended = parts.executor.run(process, stdio, CancellationToken::new()).await;
    served.abort();
    drop(mounted);
    let exit = ended.map_err(exec_error)?;
    if exit.is_success(&[]) {
        return Ok(());
    }
    Err(GatewayError::plain(exit.to_string()))
}

async fn environment(
    bridge: &Arc<Bridge>,
    config: &ImageConfig,
    options: &BTreeMap<String, String>,
) -> Result<Vec<String>, GatewayError> {
    let mut env = config.config.env.clone();
    for (at, (key, value)) in options.iter().enumerate() {
        env.push(format!("BUILDKIT_FRONTEND_OPT_{at}={key}={value}"));
    }
    env.push(format!("BUILDKIT_SESSION_ID={}", bridge.session()));
    let workers: Vec<serde_json::Value> = bridge
        .workers()
        .await
        .into_iter()
        .map(|w| {
            let platforms: Vec<serde_json::Value> = w
                .platforms
                .iter()
                .map(|p| {
                    let mut platform = serde_json::json!({ "architecture": p.architecture, "os": p.os });
                    if !p.variant.is_empty() {
                        platform["variant"] = p.variant.clone().into();
                    }
                    platform
                })
                .collect();
            serde_json::json!({ "ID": w.id, "Labels": w.labels, "Platforms": platforms })
        })
        .collect();
    env.push(format!("BUILDKIT_WORKERS={}", serde_json::Value::from(workers)));
    env.push(format!("BUILDKIT_EXPORTEDPRODUCT={PRODUCT}"));
    Ok(env)
}

/// A folder with the frontend's own graph, readable for it.
fn metadata_folder(
    volatile: &std::path::Path,
    definition: &pb::Definition,
) -> Result<tempfile::TempDir, GatewayError> {
    use std::os::unix::fs::PermissionsExt;
    let write = || -> std::io::Result<tempfile::TempDir> {
        let folder = tempfile::Builder::new()
            .prefix("frontend-")
            .permissions(std::fs::Permissions::from_mode(0o755))
            .tempdir_in(volatile)?;
        let mut file = std::fs::File::create(folder.path().join("frontend.bin"))?;
        file.write_all(&definition.encode_to_vec())?;
        file.set_permissions(std::fs::Permissions::from_mode(0o400))?;
        Ok(folder)
    };
    write().map_err(|e| GatewayError::plain(format!("making a folder for a frontend: {e}")))
}

async fn serve(forwarder: Arc<Forwarder>, connection: tokio::io::DuplexStream) {
    let calls = LlbBridgeServer::new(Calls::Of(forwarder))
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE);
    let connections = futures::stream::once(async { Ok::<_, std::io::Error>(connection) });
    // The stream of connections must not end, or the server would.
    let connections = futures::StreamExt::chain(connections, futures::stream::pending());
    let served = tonic::transport::Server::builder()
        .add_service(calls)
        .add_service(HealthServer::new(health::Service))
        .serve_with_incoming(connections)
        .await;
    if let Err(e) = served {
        tracing::debug!("serving a frontend: {e}");
    }
}

#[cfg(test)]
#[path = "external_tests.rs"]
mod tests;
