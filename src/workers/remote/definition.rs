//! A step as a build of its own: its inputs as images in our content store, then the step.
//! Encoded as BuildKit's client encodes, for a worker writes it again and has to come to the same
//! digests; without anything of this build or this machine, so that equal work has equal digests.

use super::folders::Folder;
use super::lent::INPUTS;
use super::made::MadeOutput;
use crosskit_api::pb::{self, op::Op as Kind};
use crosskit_images::Digest as BlobDigest;
use crosskit_llb::{Digest, Vertex, encode_op};
use crosskit_platforms::Platform;
use std::collections::HashSet;

/// What the images of inputs are called. The digest is what tells them apart.
const INPUT_NAME: &str = "oci-layout://crosskit/input";

/// The attribute that names the store. No session is named: whoever asks for the same has it.
const STORE: &str = "oci.store";

/// How an input gets to a worker.
#[derive(Debug, Clone)]
pub(super) enum InputSource {
    /// As an image in our content store, with this manifest.
    Lent(BlobDigest),
    /// The worker pulls it: a name with a digest.
    Pulled(String),
    /// File by file.
    Folder(Folder),
    /// A step before this one has left it there.
    Made(MadeOutput),
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
    /// Whether a folder is among the sources.
    folders: bool,
    /// Steps that the worker has run before.
    earlier: Vec<Digest>,
    /// Sources, steps that the worker has run before, and the step, inputs first, with what is said
    /// about each.
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
        let platform = crate::platform_message(platform);
        let mut below = Below { entitlements: entitlements(&exec), ..Below::default() };
        let places: Vec<Option<usize>> =
            inputs.iter().map(|input| input.as_ref().map(|input| below.place(input, &platform))).collect();
        for mount in &mut exec.mounts {
            let place = usize::try_from(mount.input).ok().and_then(|at| places.get(at).copied().flatten());
            mount.input = place.map_or(-1, |place| place as i64);
        }
        let Below { inputs, earlier, mut ops, pulled, folders, entitlements } = below;
        let op = pb::Op {
            inputs,
            platform: Some(platform),
            constraints: Some(pb::WorkerConstraints::default()),
            op: Some(Kind::Exec(exec)),
            ..pb::Op::default()
        };
        let raw = encode_op(&op);
        let step = Digest::of(&raw);
        ops.push((step, raw, metadata(vertex)));
        Some(StepDefinition { step, pulled, folders, earlier, ops, outputs, entitlements })
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

    /// Whether the worker is sent folders for it, or was for a step below it.
    pub(super) fn looks_into_folders(&self) -> bool {
        self.folders
    }

    /// Whether a vertex is a step that the worker has run before.
    pub(super) fn has_run(&self, vertex: &str) -> bool {
        self.earlier.iter().any(|digest| digest.to_string() == vertex)
    }

    /// The name of the first image that the worker pulls.
    pub(super) fn first_pulled(&self) -> Option<&str> {
        self.pulled.first().map(|(_, name)| name.as_str())
    }

    /// The vertices in which the worker pulls images.
    pub(super) fn pulls(&self) -> HashSet<String> {
        self.pulled.iter().map(|(digest, _)| digest.to_string()).collect()
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

/// What a step stands on.
#[derive(Default)]
struct Below {
    /// Each of the step's inputs once.
    inputs: Vec<pb::Input>,
    earlier: Vec<Digest>,
    ops: Vec<(Digest, Vec<u8>, pb::OpMetadata)>,
    pulled: Vec<(Digest, String)>,
    folders: bool,
    entitlements: Vec<String>,
}

impl Below {
    /// The place of an input among those of the step.
    fn place(&mut self, input: &InputSource, platform: &pb::Platform) -> usize {
        let input = match input {
            InputSource::Lent(manifest) => {
                let identifier = format!("{INPUT_NAME}@{manifest}");
                let attrs = [(STORE.to_string(), INPUTS.to_string())].into();
                self.source(pb::SourceOp { identifier, attrs }, Some(platform)).1
            }
            InputSource::Pulled(name) => {
                let identifier = format!("docker-image://{name}");
                let source = pb::SourceOp { identifier, ..pb::SourceOp::default() };
                let (digest, input) = self.source(source, Some(platform));
                self.pulled.push((digest, name.clone()));
                input
            }
            InputSource::Folder(folder) => {
                self.folders = true;
                // A folder is the same for every platform.
                self.source(folder.source(), None).1
            }
            InputSource::Made(MadeOutput { definition, output }) => {
                self.take(definition);
                pb::Input { digest: definition.step.to_string(), index: *output as i64 }
            }
        };
        self.inputs.iter().position(|known| *known == input).unwrap_or_else(|| {
            self.inputs.push(input);
            self.inputs.len() - 1
        })
    }

    fn source(&mut self, source: pb::SourceOp, platform: Option<&pb::Platform>) -> (Digest, pb::Input) {
        let raw = encode_op(&pb::Op {
            platform: platform.cloned(),
            constraints: Some(pb::WorkerConstraints::default()),
            op: Some(Kind::Source(source)),
            ..pb::Op::default()
        });
        let digest = Digest::of(&raw);
        self.add(digest, &raw, pb::OpMetadata::default());
        (digest, pb::Input { digest: digest.to_string(), index: 0 })
    }

    /// Takes over all of a step that has run.
    fn take(&mut self, made: &StepDefinition) {
        for (digest, raw, metadata) in &made.ops {
            // Its result is known there now, whatever was wanted when it ran.
            self.add(*digest, raw, pb::OpMetadata { ignore_cache: false, ..metadata.clone() });
        }
        self.earlier.extend(made.earlier.iter().chain([&made.step]));
        self.pulled.extend(made.pulled.iter().cloned());
        self.folders |= made.folders;
        for entitlement in &made.entitlements {
            if !self.entitlements.contains(entitlement) {
                self.entitlements.push(entitlement.clone());
            }
        }
    }

    fn add(&mut self, digest: Digest, raw: &[u8], metadata: pb::OpMetadata) {
        if self.ops.iter().all(|(known, ..)| *known != digest) {
            self.ops.push((digest, raw.to_vec(), metadata));
        }
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
