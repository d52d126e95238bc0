//! How a result was made, from what the build has seen.

use crate::GatewayError;
use crate::bridge::Bridge;
use crate::result::{Attested, FrontendResult, Handle, Refs};
use crate::scope::Scope;
use crosskit_api::errors::ErrorDetails;
use crosskit_api::pb::{self, op::Op};
use crosskit_attest::{
    AttestError, BuildConfig, Capture, Circumstances, Content, INLINE_ONLY, Kind, Measured, Predicate,
    Provenance, REASON, Request, StepPlace,
};
use crosskit_images::annotations::is_internal;
use crosskit_images::gojson;
use crosskit_llb::Graph;
use crosskit_platforms::Platform;
use crosskit_proxynet::{Material as Brought, Record};
use crosskit_snapshots::{Layer, MadeBy, Ref};
use crosskit_sources::Material;
use crosskit_workers::machines::{NATIVE, Ran};
use crosskit_workers::ops::exec::ExecOp;
use crosskit_workers::ops::source::SourceOp;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

/// What is wrong with an attestation, for the client.
pub fn attest_error(error: AttestError) -> GatewayError {
    let message = error.to_string();
    match error {
        AttestError::Incomplete { details, .. } => GatewayError::plain(message)
            .with_details(ErrorDetails { incomplete: Some(details), ..ErrorDetails::default() }),
        _ => GatewayError::plain(message),
    }
}

/// What is to be told of one result, before it is written: nothing of the build is held by it but the graph.
pub struct Sketch {
    capture: Capture,
    asked: Provenance,
    about: Circumstances,
    graph: Arc<Graph>,
}

impl Sketch {
    /// What is told.
    ///
    /// # Errors
    /// Names that are none, and materials that aren't known exactly where that was asked for.
    pub fn predicate(self) -> Result<Predicate, GatewayError> {
        let graph = || BuildConfig::of(&self.graph.to_definition());
        Predicate::new(&self.capture, &self.asked, self.about, graph).map_err(attest_error)
    }
}

/// What can be told of each of some platforms of a computed result, by platform id. `frontend_version` is that of the
/// builtin Dockerfile frontend.
///
/// # Errors
/// Materials that contradict each other.
pub async fn sketches(
    bridge: &Arc<Bridge>,
    result: &FrontendResult,
    asked: &Provenance,
    about: &Circumstances,
    platforms: &[(String, Platform)],
    frontend_version: &str,
) -> Result<Vec<(String, Sketch)>, GatewayError> {
    let mut all = Vec::with_capacity(platforms.len());
    for (id, _) in platforms {
        let Some(handle) = result.of(id) else { continue };
        let is_map = matches!(result.refs, Refs::ByPlatform(_));
        let of_platform = if is_map { id.as_str() } else { "" };
        let capture = captured(bridge, result, handle, of_platform, platforms).await?;
        let mut about = about.clone();
        if capture.request.frontend == "dockerfile.v0" {
            about.dockerfile_version = Some(frontend_version.to_string());
        }
        let sketch = Sketch { capture, asked: asked.clone(), about, graph: Arc::clone(handle.graph()) };
        all.push((id.clone(), sketch));
    }
    Ok(all)
}

/// Adds provenance for each platform of a computed result. `frontend_version` is that of the builtin Dockerfile frontend.
///
/// # Errors
/// Names that are none, and materials that aren't known exactly where that was asked for.
pub async fn add(
    bridge: &Arc<Bridge>,
    result: &mut FrontendResult,
    asked: &Provenance,
    about: &Circumstances,
    platforms: &[(String, Platform)],
    frontend_version: &str,
) -> Result<(), GatewayError> {
    let finished = Arc::new(OnceLock::new());
    for (id, sketch) in sketches(bridge, result, asked, about, platforms, frontend_version).await? {
        let Some(handle) = result.of(&id).cloned() else { continue };
        let mut predicate = sketch.predicate()?;
        let chains = match predicate.tells_steps() {
            true => {
                let outputs = chains(bridge, &handle, &predicate).await;
                places(&handle, &outputs, &mut predicate).await;
                outputs
            }
            false => Vec::new(),
        };
        let finished = Arc::clone(&finished);
        let make = move |layers: &[Layer]| {
            let finished = finished.get_or_init(|| gojson::time(SystemTime::now()));
            predicate.to_json(finished, known_layers(&chains, layers))
        };
        result.attestations.entry(id).or_default().push(Attested {
            kind: Kind::InToto,
            metadata: BTreeMap::from([
                (REASON.to_string(), b"provenance".to_vec()),
                (INLINE_ONLY.to_string(), asked.inline_only.to_string().into_bytes()),
            ]),
            path: asked.filename.clone(),
            predicate_type: asked.slsa.predicate_type().to_string(),
            subjects: Vec::new(),
            content: Content::Made(Arc::new(make)),
        });
    }
    Ok(())
}

/// Notes what a frontend has yielded, and tells others how it was made.
pub(crate) async fn yielded(bridge: &Bridge, result: &FrontendResult) {
    let (scope, producers) = (bridge.scope(), &bridge.shared().producers);
    let mut told = Vec::new();
    for handle in result.handles() {
        if scope.owner(handle).is_none() {
            scope.solved(handle);
        }
        let capture = of_steps(handle).await;
        let owner = scope.owner(handle).unwrap_or_else(|| Arc::clone(scope));
        if let Some(request) = owner.request(&capture, producers) {
            told.extend(producers.tell(handle.asked(), request));
        }
    }
    scope.keep(told);
}

/// What went into one result of a build.
async fn captured(
    bridge: &Arc<Bridge>,
    result: &FrontendResult,
    handle: &Handle,
    platform: &str,
    platforms: &[(String, Platform)],
) -> Result<Capture, GatewayError> {
    let producers = &bridge.shared().producers;
    let owner: Arc<Scope> = bridge.scope().owner(handle).unwrap_or_else(|| Arc::clone(bridge.scope()));
    let mut capture = of_steps(handle).await;
    if let Some(parameters) = owner.parameters(producers, &capture) {
        let (secrets, ssh) =
            (std::mem::take(&mut capture.request.secrets), std::mem::take(&mut capture.request.ssh));
        capture.request = crosskit_attest::Parameters { secrets, ssh, ..parameters };
    }
    // What took part without being in a result counts as well: the Dockerfile's folder, say.
    let own: Vec<&Handle> = result.handles().into_iter().chain(result.attesting()).collect();
    for other in owner.results() {
        if !own.iter().any(|known| known.is(&other)) {
            capture.merge(of_steps(&other).await);
        }
    }
    let mut images = owner.images();
    if !platform.is_empty() {
        images = of_platform(images, platform, platforms);
    }
    images.into_iter().for_each(|image| capture.add(image));
    capture.settle().map_err(attest_error)?;
    Ok(capture)
}

/// Leaves out images that were looked up for every platform, for other platforms than this one.
fn of_platform(images: Vec<Material>, id: &str, platforms: &[(String, Platform)]) -> Vec<Material> {
    let facts = |image: &Material| match image {
        Material::Image { reference, platform, .. } => Some((reference.clone(), platform.clone())),
        _ => None,
    };
    let all: Vec<(String, Option<Platform>)> = images.iter().filter_map(facts).collect();
    let same = |one: &Platform, other: &Platform| one.normalize() == other.normalize();
    let for_everyone = |name: &str| {
        platforms.iter().all(|(_, platform)| {
            all.iter().any(|(other, of)| other == name && of.as_ref().is_some_and(|of| same(of, platform)))
        })
    };
    let Some((_, wanted)) = platforms.iter().find(|(known, _)| known == id) else { return images };
    images
        .into_iter()
        .filter(|image| match facts(image) {
            Some((name, Some(platform))) if for_everyone(&name) => {
                (&platform.os, &platform.architecture) == (&wanted.os, &wanted.architecture)
            }
            _ => true,
        })
        .collect()
}

/// What the steps of a result say; nothing if nobody has needed it.
async fn of_steps(handle: &Handle) -> Capture {
    let mut capture = Capture::default();
    for step in handle.steps().await {
        match &step.vertex.op.op {
            Some(Op::Source(_)) => {
                let source = step.op.as_ref().and_then(|op| op.as_any()?.downcast_ref::<SourceOp>());
                if let Some(material) = source.and_then(SourceOp::material) {
                    capture.add(material);
                }
            }
            Some(Op::Exec(exec)) => {
                of_process(exec, &mut capture);
                let process = step.op.as_ref().and_then(|op| op.as_any()?.downcast_ref::<ExecOp>());
                if let Some(used) = process.and_then(ExecOp::used) {
                    let told = Measured::new(move || serde_json::to_value(&*used).unwrap_or_default());
                    capture.used.insert(step.vertex.digest.to_string(), told);
                }
                if let Some(proxied) = process.and_then(|process| process.proxied.as_ref()) {
                    let name = exec.meta.as_ref().map(|meta| meta.args.join(" ")).unwrap_or_default();
                    of_requests(&proxied.record, &step.vertex.digest.to_string(), &name, &mut capture);
                }
            }
            Some(Op::Build(_)) => capture.incomplete = true,
            _ => {}
        }
    }
    capture
}

fn of_process(exec: &pb::ExecOp, capture: &mut Capture) {
    for mount in &exec.mounts {
        match mount.mount_type() {
            pb::MountType::Secret => {
                let options = mount.secret_opt.clone().unwrap_or_default();
                capture.add_secret(&options.id, options.optional);
            }
            pb::MountType::Ssh => {
                let options = mount.ssh_opt.clone().unwrap_or_default();
                capture.add_ssh(&options.id, options.optional);
            }
            _ => {}
        }
    }
    for secret in &exec.secretenv {
        capture.add_secret(&secret.id, secret.optional);
    }
    capture.network |= exec.network() != pb::NetMode::None;
}

/// What a step has brought through its proxy.
fn of_requests(record: &Record, op: &str, name: &str, capture: &mut Capture) {
    capture.proxied = true;
    for Brought { url, digest } in record.materials() {
        capture.add(Material::Http { url, digest });
    }
    capture.unknown.extend(record.incomplete().into_iter().map(|request| Request {
        op: op.to_owned(),
        name: name.to_owned(),
        method: request.method,
        uri: request.url,
        reason: request.reason.to_owned(),
    }));
}

/// Says of the steps of a result where they have run: in this build, or in the one that has made what was found made.
/// That of a cache elsewhere does not tell.
async fn places(handle: &Handle, outputs: &[Output], predicate: &mut Predicate) {
    for Output { step, found, .. } in outputs.iter().filter(|output| output.of_process) {
        if let Some(MadeBy { platform, worker, how }) = found.made_by() {
            predicate.place(step, place(Ran { platform, worker, how }));
        }
    }
    for step in handle.steps().await {
        let process = step.op.as_ref().and_then(|op| op.as_any()?.downcast_ref::<ExecOp>());
        if let Some(ran) = process.and_then(ExecOp::ran) {
            predicate.place(&step.vertex.digest.to_string(), place(ran));
        }
    }
}

fn place(Ran { platform, worker, how }: Ran) -> StepPlace {
    let emulator = Some(&how).filter(|how| how.starts_with("qemu-")).cloned();
    StepPlace { platform, worker, emulated: how != NATIVE, emulator }
}

/// An output of a step that is here.
struct Output {
    /// As `stepN:M`.
    name: String,
    /// The step's digest.
    step: String,
    /// Whether the step is a process.
    of_process: bool,
    found: Ref,
}

/// The outputs of steps, as far as the cache knows them.
async fn chains(bridge: &Bridge, handle: &Handle, predicate: &Predicate) -> Vec<Output> {
    let snapshots = &bridge.shared().workers.local().snapshots;
    let mut chains = Vec::new();
    for known in handle.trail().await {
        let step = known.vertex.digest.to_string();
        let Some(name) = predicate.step(&step) else { continue };
        let name = format!("{name}:{}", known.output);
        let of_process = matches!(known.vertex.op.op, Some(Op::Exec(_)));
        let output = |found| Output { name: name.clone(), step: step.clone(), of_process, found };
        match &known.result {
            Some(found) => {
                chains.extend(found.iter().cloned().map(output));
            }
            // Nobody has needed it in this build, so it is not loaded; its records have its name.
            None => {
                let records = known.keys.iter().flat_map(|(cache, key)| cache.records(*key));
                chains.extend(records.filter_map(|record| snapshots.get(&record.id).ok()?).map(output));
            }
        }
    }
    chains
}

/// The layers of the outputs of which all have gone out: those of an image as it has them, others, such as those of images
/// that something was copied from, as they are known.
fn known_layers(outputs: &[Output], layers: &[Layer]) -> BTreeMap<String, Vec<Value>> {
    let described = |layer: &Layer| {
        let mut desc = layer.blob.desc.clone();
        desc.annotations.retain(|key, _| !is_internal(key));
        serde_json::to_value(desc).unwrap_or_default()
    };
    let of_image: HashMap<&str, Value> =
        layers.iter().map(|layer| (layer.snapshot.id(), described(layer))).collect();
    let told = |layer: &Ref| match of_image.get(layer.id()) {
        Some(desc) => Some(desc.clone()),
        None => layer.told_layer().as_ref().map(described),
    };
    let mut known: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for Output { name, found, .. } in outputs {
        let chain: Option<Vec<Value>> = found.layer_refs().iter().map(told).collect();
        let Some(chain) = chain.filter(|chain| !chain.is_empty()) else { continue };
        let (chain, known) = (Value::from(chain), known.entry(name.clone()).or_default());
        if !known.contains(&chain) {
            known.push(chain);
        }
    }
    known
}
