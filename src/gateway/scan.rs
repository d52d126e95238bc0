//! What is in a result: an image with a scanner looks at it, as one more step of the build.

use crate::bridge::Bridge;
use crate::result::{Attested, FrontendResult, ScanExtras};
use crate::{GatewayError, builtin_scan};
use crosskit_api::frontend::ResolveImageConfigRequest;
use crosskit_api::pb;
use crosskit_attest::{Content, Kind, REASON, SBOM_CORE, SPDX, Sbom};
use crosskit_images::ImageConfig;
use crosskit_images::registry::Reference;
use crosskit_llb::{Builder, Constraints, Exec, ExecMount, Graph, ImageSource};
use crosskit_platforms::Platform;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Where a scanner finds what it is to look at.
const SOURCES: &str = "/run/src";

/// Where it puts what it has found.
const FOUND: &str = "/run/out/";

/// Where a scanner finds what else it is to look at.
const EXTRAS: &str = "/run/src/extras";

/// The name of the result itself, and of the statement about it.
pub(crate) const CORE: &str = "sbom";

/// Adds a scan for each platform of a result, unless its frontend has done that. `created` is the time of what the daemon
/// writes itself about a platform, in seconds since 1970.
///
/// # Errors
/// A scanner that isn't there or doesn't say what to run.
pub async fn scan(
    bridge: &Arc<Bridge>,
    result: &mut FrontendResult,
    asked: &Sbom,
    options: &BTreeMap<String, String>,
    platforms: &[(String, Platform)],
    created: impl Fn(&str) -> i64,
) -> Result<(), GatewayError> {
    if result.attestations.values().flatten().any(|attested| attested.predicate_type == SPDX) {
        return Ok(());
    }
    if asked.is_builtin() {
        return builtin_scan::scan(bridge, result, platforms, created).await;
    }
    let scanner = Scanner::find(bridge, asked, options.get("image-resolve-mode")).await?;
    let fresh = options.get("no-cache").is_some_and(String::is_empty);
    for (id, _) in platforms {
        let (of, extras) = (result.of(id), result.scans.get(id));
        // Of what other frontends give, an empty result is none.
        if of.is_none() && extras.is_none() {
            continue;
        }
        let mut extras = extras.cloned().unwrap_or_default();
        extras.ignore_cache |= fresh;
        let graph = scanner.graph(id, of.map(|handle| handle.asked().as_ref()), &extras)?;
        let found = bridge.load_graph(graph, &[]).await?;
        result.attestations.entry(id.clone()).or_default().push(Attested {
            kind: Kind::Bundle,
            metadata: BTreeMap::from([
                (REASON.to_string(), b"sbom".to_vec()),
                (SBOM_CORE.to_string(), CORE.as_bytes().to_vec()),
            ]),
            path: String::new(),
            predicate_type: SPDX.to_string(),
            subjects: Vec::new(),
            content: Content::Files(found),
        });
    }
    Ok(())
}

struct Scanner {
    reference: String,
    platform: pb::Platform,
    config: ImageConfig,
    arguments: Vec<String>,
    parameters: BTreeMap<String, String>,
}

impl Scanner {
    async fn find(bridge: &Arc<Bridge>, asked: &Sbom, mode: Option<&String>) -> Result<Self, GatewayError> {
        let name = Reference::parse(&asked.generator)
            .map_err(|e| {
                GatewayError::plain(format!("failed to parse sbom generator {}: {e}", asked.generator))
            })?
            .with_default_tag()
            .to_string();
        let native = bridge.shared().workers.platforms().await.into_iter().next();
        let platform = crosskit_workers::platform_message(&native.unwrap_or_else(crosskit_platforms::native));
        let found = bridge
            .resolve_image_config(ResolveImageConfigRequest {
                r#ref: name.clone(),
                platform: Some(platform.clone()),
                resolve_mode: mode.cloned().unwrap_or_default(),
                log_name: format!("resolve image config for docker-image://{name}"),
                ..ResolveImageConfigRequest::default()
            })
            .await?;
        let config = ImageConfig::parse(&found.config).map_err(|e| GatewayError::plain(e.to_string()))?;
        let arguments: Vec<String> =
            config.config.entrypoint.iter().chain(config.config.cmd.iter()).cloned().collect();
        if arguments.is_empty() {
            return Err(GatewayError::plain(format!("scanner {name} does not have cmd")));
        }
        let reference = if found.r#ref.is_empty() { name } else { found.r#ref };
        Ok(Scanner { reference, platform, config, arguments, parameters: asked.parameters.clone() })
    }

    /// The scan of a result, as a graph of its own whose result are the statements.
    fn graph(&self, platform: &str, of: Option<&Graph>, extras: &ScanExtras) -> Result<Graph, GatewayError> {
        let mut builder = Builder::new();
        let source = of.and_then(|of| builder.import(of));
        let image = ImageSource { reference: self.reference.clone(), ..ImageSource::default() };
        let root = builder.image(&image, Constraints::on(self.platform.clone()));
        let mut env = self.config.config.env.clone();
        env.push(format!("BUILDKIT_SCAN_DESTINATION={FOUND}"));
        env.push(format!("BUILDKIT_SCAN_SOURCE={SOURCES}/core/{CORE}"));
        if !extras.graphs.is_empty() {
            env.push(format!("BUILDKIT_SCAN_SOURCE_EXTRAS={EXTRAS}"));
        }
        let parameters = self.parameters.iter();
        env.extend(parameters.map(|(key, value)| format!("BUILDKIT_SCAN_{key}={value}")));
        let cwd = match self.config.config.working_dir.as_str() {
            "" => "/".to_string(),
            folder => folder.to_string(),
        };
        let mut mounts = vec![
            ExecMount { target: FOUND.into(), ..ExecMount::default() },
            ExecMount { target: "/tmp".into(), tmpfs: Some(0), ..ExecMount::default() },
            ExecMount {
                target: format!("{SOURCES}/core/{CORE}"),
                source,
                readonly: true,
                ..ExecMount::default()
            },
        ];
        for (name, graph) in &extras.graphs {
            let (target, source) = (format!("{EXTRAS}/{CORE}-{name}"), builder.import(graph));
            mounts.push(ExecMount { target, source, readonly: true, ..ExecMount::default() });
        }
        let exec = Exec {
            root: Some(root),
            args: self.arguments.clone(),
            env,
            cwd,
            mounts,
            default_path: true,
            ..Exec::default()
        };
        let name = format!("[{platform}] generating sbom using {}", self.reference);
        let mut constraints = Constraints::on(self.platform.clone()).named(name);
        constraints.metadata.ignore_cache = extras.ignore_cache;
        let found = builder.exec(exec, constraints).mounts.into_iter().next().flatten();
        builder.graph(found).map_err(|e| GatewayError::plain(e.to_string()))
    }
}
