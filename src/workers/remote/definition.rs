//! A step as a build of its own: its inputs as images in our content store, then the step.
//! Encoded as BuildKit's client encodes, for a worker writes it again and has to come to the same
//! digests; without anything of this build or this machine, so that equal work has equal digests.

use super::folders::Folder;
use super::lent::INPUTS;
use crosskit_api::pb::{self, op::Op as Kind};
use crosskit_images::Digest as BlobDigest;
use crosskit_llb::{Digest, Vertex, encode_op};
use crosskit_platforms::Platform;

/// What the images of inputs are called. The digest is what tells them apart.
const INPUT_NAME: &str = "oci-layout://crosskit/input";

/// The attribute that names the store. No session is named: whoever asks for the same has it.
const STORE: &str = "oci.store";

/// How an input gets to a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum InputSource {
    /// As an image in our content store, with this manifest.
    Lent(BlobDigest),
    /// The worker pulls it: a name with a digest.
    Pulled(String),
    /// File by file.
    Folder(Folder),
}

/// What becomes of an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StepOutput {
    /// It is this input of the vertex, or the empty filesystem: nothing could be written.
    Unchanged(Option<usize>),
    /// It is written over this input, or over nothing.
    Written(Option<usize>),
}

/// A step, ready for a worker.
#[derive(Debug, Clone)]
pub(super) struct StepDefinition {
    /// The step's vertex.
    pub(super) step: Digest,
    /// The vertices of images that the worker pulls, and the images' names.
    pulled: Vec<(Digest, String)>,
    /// Sources and the step, in this order, with what is said about each.
    ops: Vec<(Digest, Vec<u8>, pb::OpMetadata)>,
    /// Its outputs, in order.
    pub(super) outputs: Vec<StepOutput>,
    /// What the build has to be granted.
    pub(super) entitlements: Vec<String>,
}

impl StepDefinition {
    /// Of a vertex that runs a process, with where each input comes from; none for an empty one.
    /// None if the vertex runs no process.
    pub(super) fn new(
        vertex: &Vertex,
        platform: &Platform,
        inputs: &[Option<InputSource>],
    ) -> Option<StepDefinition> {
        let Some(Kind::Exec(mut exec)) = vertex.op.op.clone() else { return None };
        let outputs = exec.mounts.iter().filter(|m| m.output != -1).map(|m| output_of(m, inputs)).collect();
        let entitlements = entitlements(&exec);
        let platform = crate::platform_message(platform);
        let mut sources: Vec<(Digest, Vec<u8>)> = Vec::new();
        let mut pulled = Vec::new();
        let mut places = Vec::with_capacity(inputs.len());
        for input in inputs {
            places.push(input.as_ref().map(|input| {
                let raw = encode_op(&source(input, &platform));
                let digest = Digest::of(&raw);
                if let InputSource::Pulled(name) = input {
                    pulled.push((digest, name.clone()));
                }
                sources.iter().position(|(known, _)| *known == digest).unwrap_or_else(|| {
                    sources.push((digest, raw));
                    sources.len() - 1
                })
            }));
        }
        for mount in &mut exec.mounts {
            let place = usize::try_from(mount.input).ok().and_then(|at| places.get(at).copied().flatten());
            mount.input = place.map_or(-1, |place| place as i64);
        }
        let inputs = sources.iter().map(|(digest, _)| pb::Input { digest: digest.to_string(), index: 0 });
        let op = pb::Op {
            inputs: inputs.collect(),
            platform: Some(platform),
            constraints: Some(pb::WorkerConstraints::default()),
            op: Some(Kind::Exec(exec)),
        };
        let raw = encode_op(&op);
        let step = Digest::of(&raw);
        let mut ops: Vec<_> =
            sources.into_iter().map(|(d, raw)| (d, raw, pb::OpMetadata::default())).collect();
        ops.push((step, raw, metadata(vertex)));
        Some(StepDefinition { step, pulled, ops, outputs, entitlements })
    }

    /// The build whose result is this output.
    pub(super) fn for_output(&self, index: usize) -> pb::Definition {
        let mut definition = pb::Definition::default();
        for (digest, raw, metadata) in &self.ops {
            definition.def.push(raw.clone());
            definition.metadata.insert(digest.to_string(), metadata.clone());
        }
        let input = pb::Input { digest: self.step.to_string(), index: index as i64 };
        let terminal = encode_op(&pb::Op { inputs: vec![input], ..pb::Op::default() });
        definition.metadata.insert(Digest::of(&terminal).to_string(), pb::OpMetadata::default());
        definition.def.push(terminal);
        definition
    }

    /// The name of the image that the worker pulls in a vertex.
    pub(super) fn pulled_in(&self, vertex: &str) -> Option<&str> {
        self.pulled.iter().find(|(digest, _)| digest.to_string() == vertex).map(|(_, name)| name.as_str())
    }

    /// The names under which a worker may report of the step: its digest, and the one that a step
    /// gets which runs though its result is known (BuildKit `solver/jobs.go`).
    pub(super) fn names(&self) -> [String; 2] {
        let plain = self.step.to_string();
        let forced = Digest::of(format!("{plain}-ignorecache").as_bytes()).to_string();
        [plain, forced]
    }
}

fn source(input: &InputSource, platform: &pb::Platform) -> pb::Op {
    let (source, platform) = match input {
        InputSource::Lent(manifest) => {
            let identifier = format!("{INPUT_NAME}@{manifest}");
            let attrs = [(STORE.to_string(), INPUTS.to_string())].into();
            (pb::SourceOp { identifier, attrs }, Some(platform.clone()))
        }
        InputSource::Pulled(name) => {
            let identifier = format!("docker-image://{name}");
            (pb::SourceOp { identifier, ..pb::SourceOp::default() }, Some(platform.clone()))
        }
        // A folder is the same for every platform.
        InputSource::Folder(folder) => (folder.source(), None),
    };
    pb::Op {
        platform,
        constraints: Some(pb::WorkerConstraints::default()),
        op: Some(Kind::Source(source)),
        ..pb::Op::default()
    }
}

/// The inputs that a step only looks into: nothing that it leaves lies on them.
pub(super) fn only_read(vertex: &Vertex) -> Vec<bool> {
    let mut only = vec![true; vertex.inputs.len()];
    let Some(Kind::Exec(exec)) = &vertex.op.op else { return only };
    for mount in &exec.mounts {
        let bound = mount.mount_type() == pb::MountType::Bind && mount.readonly && mount.dest != "/";
        let input = usize::try_from(mount.input).ok().and_then(|at| only.get_mut(at));
        if let Some(input) = input.filter(|_| !bound) {
            *input = false;
        }
    }
    only
}

/// What a mount with an output leaves behind; the same rules as for steps on this machine.
fn output_of<T>(mount: &pb::Mount, inputs: &[Option<T>]) -> StepOutput {
    let input = usize::try_from(mount.input).ok();
    let given = input.is_some_and(|at| inputs.get(at).is_some_and(Option::is_some));
    match mount.mount_type() {
        pb::MountType::Bind if !(mount.readonly && mount.dest != "/" && given) => StepOutput::Written(input),
        _ => StepOutput::Unchanged(input),
    }
}

/// What is said about the vertex, as far as it concerns a worker.
fn metadata(vertex: &Vertex) -> pb::OpMetadata {
    pb::OpMetadata { progress_group: None, export_cache: None, ..vertex.wire_metadata() }
}

/// Names as in BuildKit `util/entitlements`. The build here was granted them before it began.
fn entitlements(exec: &pb::ExecOp) -> Vec<String> {
    let mut needed = Vec::new();
    if exec.network() == pb::NetMode::Host {
        needed.push("network.host".to_string());
    }
    if exec.security() == pb::SecurityMode::Insecure {
        needed.push("security.insecure".to_string());
    }
    if !exec.cdi_devices.is_empty() {
        needed.push("device".to_string());
    }
    needed
}

#[cfg(test)]
#[path = "definition_tests.rs"]
mod tests;
