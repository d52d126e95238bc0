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

fn lent(name: &str) -> Option<InputSource> {
    Some(InputSource::Lent(BlobDigest::of(name)))
}

fn arm64() -> Platform {
    Platform::parse("linux/arm64").unwrap().normalize()
}

#[test]
fn a_step_is_a_graph_that_a_daemon_takes() {
    let vertex = step(vec![bind(0, "/", 0, false), bind(1, "/in", -1, true)], 2);
    let images = [lent("one"), lent("two")];
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
    let image = lent("one");
    let step = StepDefinition::new(&step(mounts, 3), &arm64(), &[None, image.clone(), image]).unwrap();
    let graph = Graph::decode(step.for_output(0), &Limits::default()).unwrap();
    assert_eq!(graph.len(), 2);
    let Some(Kind::Exec(exec)) = &graph[&step.step].op.op else { panic!("no process") };
    let inputs: Vec<i64> = exec.mounts.iter().map(|m| m.input).collect();
    assert_eq!(inputs, [-1, 0, 0]);
}

#[test]
fn outputs_that_cannot_be_written_are_their_inputs() {
    let mounts = vec![bind(0, "/", 0, true), bind(1, "/ro", 1, true), bind(-1, "/rw", 2, false)];
    let images = [lent("one"), lent("two")];
    let step = StepDefinition::new(&step(mounts, 2), &arm64(), &images).unwrap();
    let expected = [StepOutput::Written(Some(0)), StepOutput::Unchanged(Some(1)), StepOutput::Written(None)];
    assert_eq!(step.outputs, expected);
}

#[test]
fn the_same_step_has_the_same_digest_wherever_it_is_asked_for() {
    let image = [lent("one")];
    let mut vertex = step(vec![bind(0, "/", 0, false)], 1);
    let first = StepDefinition::new(&vertex, &arm64(), &image).unwrap();
    vertex.digest = Digest::of(b"another build's");
    vertex.metadata.description.insert("llb.customname".into(), "[2/3] RUN true".into());
    let second = StepDefinition::new(&vertex, &arm64(), &image).unwrap();
    assert_eq!(first.step, second.step);
    assert_eq!(second.for_output(0).metadata[&second.step.to_string()].description.len(), 1);
}
