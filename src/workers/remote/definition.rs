//! A step as a build of its own: its inputs as images in our content store, then the step.
//! Encoded as BuildKit's client encodes, for a worker writes it again and has to come to the same
//! digests; without anything of this build or this machine, so that equal work has equal digests.

use super::lent::INPUTS;
use crosskit_api::pb::{self, op::Op as Kind};
use crosskit_images::Digest as BlobDigest;
use crosskit_llb::{Digest, Vertex, encode_op};
use crosskit_platforms::Platform;

/// What the images of inputs are called. The digest is what tells them apart.
const INPUT_NAME: &str = "oci-layout://crosskit/input";

/// The attribute that names the store. No session is named: whoever asks for the same has it.
const STORE: &str = "oci.store";

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
    /// Sources and the step, in this order, with what is said about each.
    ops: Vec<(Digest, Vec<u8>, pb::OpMetadata)>,
    /// Its outputs, in order.
    pub(super) outputs: Vec<StepOutput>,
    /// What the build has to be granted.
    pub(super) entitlements: Vec<String>,
}

impl StepDefinition {
    /// Of a vertex that runs a process, with the image of each input; none for an empty one.
    /// None if the vertex runs no process.
    pub(super) fn new(
        vertex: &Vertex,
        platform: &Platform,
        inputs: &[Option<BlobDigest>],
    ) -> Option<StepDefinition> {
        let Some(Kind::Exec(mut exec)) = vertex.op.op.clone() else { return None };
        let outputs = exec.mounts.iter().filter(|m| m.output != -1).map(|m| output_of(m, inputs)).collect();
        let entitlements = entitlements(&exec);
        let platform = crate::platform_message(platform);
        let mut sources: Vec<(Digest, Vec<u8>)> = Vec::new();
        let mut places = Vec::with_capacity(inputs.len());
        for input in inputs {
            places.push(input.map(|manifest| {
                let raw = encode_op(&source(&manifest, &platform));
                let digest = Digest::of(&raw);
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
        Some(StepDefinition { step, ops, outputs, entitlements })
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

    /// The names under which a worker may report of the step: its digest, and the one that a step
    /// gets which runs though its result is known (BuildKit `solver/jobs.go`).
    pub(super) fn names(&self) -> [String; 2] {
        let plain = self.step.to_string();
        let forced = Digest::of(format!("{plain}-ignorecache").as_bytes()).to_string();
        [plain, forced]
    }
}

fn source(manifest: &BlobDigest, platform: &pb::Platform) -> pb::Op {
    let source = pb::SourceOp {
        identifier: format!("{INPUT_NAME}@{manifest}"),
        attrs: [(STORE.to_string(), INPUTS.to_string())].into(),
    };
    pb::Op {
        platform: Some(platform.clone()),
        constraints: Some(pb::WorkerConstraints::default()),
        op: Some(Kind::Source(source)),
        ..pb::Op::default()
    }
}

/// What a mount with an output leaves behind; the same rules as for steps on this machine.
fn output_of(mount: &pb::Mount, inputs: &[Option<BlobDigest>]) -> StepOutput {
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
mod tests {
    use super::*;
    use crosskit_llb::{Graph, Limits};

    fn bind(input: i64, dest: &str, output: i64, readonly: bool) -> pb::Mount {
        pb::Mount { input, dest: dest.into(), output, readonly, ..pb::Mount::default() }
    }

    fn step(mounts: Vec<pb::Mount>, inputs: usize) -> Vertex {
        let exec = pb::ExecOp {
            meta: Some(pb::Meta { args: vec!["true".into()], cwd: "/".into(), ..pb::Meta::default() }),
            mounts,
            ..pb::ExecOp::default()
        };
        let op = pb::Op { op: Some(Kind::Exec(exec)), ..pb::Op::default() };
        let edge = crosskit_llb::Edge { vertex: Digest::of(b"below"), index: 0 };
        Vertex {
            digest: Digest::of(b"step"),
            raw: Vec::new(),
            op,
            inputs: vec![edge; inputs],
            metadata: pb::OpMetadata::default(),
            caps: Default::default(),
        }
    }

    fn arm64() -> Platform {
        Platform::parse("linux/arm64").unwrap().normalize()
    }

    #[test]
    fn a_step_is_a_graph_that_a_daemon_takes() {
        let vertex = step(vec![bind(0, "/", 0, false), bind(1, "/in", -1, true)], 2);
        let images = [Some(BlobDigest::of("one")), Some(BlobDigest::of("two"))];
        let step = StepDefinition::new(&vertex, &arm64(), &images).unwrap();
        let graph = Graph::decode(step.for_output(0), &Limits::default()).unwrap();
        assert_eq!(graph.len(), 3);
        let head = graph.head().unwrap();
        assert_eq!((head.vertex, head.index), (step.step, 0));
        let below = graph.get(&graph[&head.vertex].inputs[0].vertex).unwrap();
        let Some(Kind::Source(source)) = &below.op.op else { panic!("no source") };
        let name = format!("oci-layout://crosskit/input@{}", BlobDigest::of("one"));
        assert_eq!(source.identifier, name);
        assert_eq!(below.platform().unwrap().architecture, "arm64");
    }

    #[test]
    fn empty_inputs_stay_empty_and_equal_ones_are_one() {
        let mounts = vec![bind(0, "/", 0, false), bind(1, "/a", -1, true), bind(2, "/b", -1, true)];
        let image = Some(BlobDigest::of("one"));
        let step = StepDefinition::new(&step(mounts, 3), &arm64(), &[None, image, image]).unwrap();
        let graph = Graph::decode(step.for_output(0), &Limits::default()).unwrap();
        assert_eq!(graph.len(), 2);
        let Some(Kind::Exec(exec)) = &graph[&step.step].op.op else { panic!("no process") };
        let inputs: Vec<i64> = exec.mounts.iter().map(|m| m.input).collect();
        assert_eq!(inputs, [-1, 0, 0]);
    }

    #[test]
    fn outputs_that_cannot_be_written_are_their_inputs() {
        let mounts = vec![bind(0, "/", 0, true), bind(1, "/ro", 1, true), bind(-1, "/rw", 2, false)];
        let images = [Some(BlobDigest::of("one")), Some(BlobDigest::of("two"))];
        let step = StepDefinition::new(&step(mounts, 2), &arm64(), &images).unwrap();
        let expected =
            [StepOutput::Written(Some(0)), StepOutput::Unchanged(Some(1)), StepOutput::Written(None)];
        assert_eq!(step.outputs, expected);
    }

    #[test]
    fn the_same_step_has_the_same_digest_wherever_it_is_asked_for() {
        let image = [Some(BlobDigest::of("one"))];
        let mut vertex = step(vec![bind(0, "/", 0, false)], 1);
        let first = StepDefinition::new(&vertex, &arm64(), &image).unwrap();
        vertex.digest = Digest::of(b"another build's");
        vertex.metadata.description.insert("llb.customname".into(), "[2/3] RUN true".into());
        let second = StepDefinition::new(&vertex, &arm64(), &image).unwrap();
        assert_eq!(first.step, second.step);
        assert_eq!(second.for_output(0).metadata[&second.step.to_string()].description.len(), 1);
    }
}
