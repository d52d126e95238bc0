use crosskit_api::pb;
use crosskit_llb::{Digest, Graph, Limits};
use crosskit_platforms::Platform;
use prost::Message;

use crate::{Entitlements, Group, Health, Kind, PlacementKey, Policy, Split, WorkerState, preflight};

fn platform(specifier: &str) -> Platform {
    Platform::parse(specifier).unwrap()
}

fn group(specifier: &str, steps: usize) -> Group {
    Group {
        platform: platform(specifier),
        stage: 0,
        steps: (0..steps).map(|step| Digest::of(&[step as u8])).collect(),
        members: Vec::new(),
        inputs: Vec::new(),
        outputs: Vec::new(),
        entitlements: Entitlements::NONE,
        placement: PlacementKey::default(),
    }
}

fn local() -> Vec<WorkerState> {
    let emulated = ["linux/arm64", "linux/arm/v7", "linux/riscv64"].map(platform).to_vec();
    vec![
        WorkerState::idle("native", Kind::Native, vec![platform("linux/amd64/v3")]),
        WorkerState { slots: Some(2), ..WorkerState::idle("qemu", Kind::Emulated, emulated) },
    ]
}

/// A graph of one step, and the group that it is.
fn lone(name: &str, specifier: &str) -> (Graph, Group) {
    let exec = pb::ExecOp {
        meta: Some(pb::Meta { args: vec!["make".to_owned()], ..Default::default() }),
        mounts: vec![pb::Mount { dest: "/".to_owned(), input: -1, ..Default::default() }],
        ..Default::default()
    };
    let step = pb::Op { op: Some(pb::op::Op::Exec(exec)), ..Default::default() }.encode_to_vec();
    let digest = Digest::of(&step);
    let last = pb::Input { digest: digest.to_string(), index: 0 };
    let last = pb::Op { inputs: vec![last], ..Default::default() }.encode_to_vec();
    let description = [("llb.customname".to_owned(), name.to_owned())].into();
    let metadata = [(digest.to_string(), pb::OpMetadata { description, ..Default::default() })].into();
    let definition = pb::Definition { def: vec![step, last], metadata, source: None };
    let graph = Graph::decode(definition, &Limits::default()).unwrap();
    (graph, Group { steps: vec![digest], ..group(specifier, 0) })
}

#[test]
fn what_nothing_can_run_says_how_to_get_it() {
    let emulators = [("linux/arm64", "there is no qemu-aarch64"), ("linux/riscv64", "of no interest")];
    let mut workers = local()[..1].to_vec();
    workers[0].lacks = emulators.map(|(name, why)| (platform(name), why.to_owned())).to_vec();
    for (specifier, text) in [
        (
            "linux/arm64",
            "nothing on this machine can run linux/arm64, and 3 steps need it, such as \
             \"[build 2/3] RUN make\": there is no qemu-aarch64; get an emulator with \
             `binfmt --install arm64`, or add a worker of that platform",
        ),
        (
            "linux/arm/v7",
            "nothing on this machine can run linux/arm/v7, and 3 steps need it, such as \
             \"[build 2/3] RUN make\": get an emulator with `binfmt --install arm`, or add a worker of \
             that platform",
        ),
        (
            "windows/amd64",
            "nothing can run windows/amd64, and 3 steps need it, such as \"[build 2/3] RUN make\": \
             there is no emulator for it; add a worker of that platform",
        ),
    ] {
        let (graph, first) = lone("[build 2/3] RUN make", specifier);
        let groups = vec![group("linux/amd64", 1), first, group(specifier, 2)];
        let split = Split { groups, ..Split::default() };
        let error = preflight(&graph, &split, &workers, &Policy::default()).unwrap_err();
        assert_eq!(error.to_string(), text);
    }
}

#[test]
fn it_is_said_who_could_run_what() {
    let mut workers = local();
    workers.push(WorkerState::idle("farm", Kind::Remote, vec![platform("linux/arm64")]));
    workers.push(WorkerState {
        health: Health::Down,
        ..WorkerState::idle("down", Kind::Remote, vec![platform("linux/arm64")])
    });
    let groups = vec![group("linux/amd64", 1), group("linux/arm64", 2), group("linux/arm64", 3)];
    let split = Split { groups, ..Split::default() };
    let (graph, _) = lone("", "linux/amd64");
    let runners = preflight(&graph, &split, &workers, &Policy::default()).unwrap();
    let shown: Vec<_> =
        runners.iter().map(|it| (it.platform.format(), it.steps, it.workers.join(" "))).collect();
    assert_eq!(
        shown,
        [
            ("linux/amd64".to_owned(), 1, "native".to_owned()),
            ("linux/arm64".to_owned(), 5, "farm qemu".to_owned())
        ]
    );
    workers.truncate(1);
    workers.push(WorkerState {
        health: Health::Down,
        ..WorkerState::idle("down", Kind::Remote, vec![platform("linux/arm64")])
    });
    let error = preflight(&graph, &split, &workers, &Policy::default()).unwrap_err();
    assert_eq!(error.to_string(), "no worker that runs linux/arm64 can be reached: down");
}

#[test]
fn what_nobody_allows_is_said_before_any_step() {
    let (graph, group) = lone("", "linux/amd64");
    let entitlements = Entitlements::HOST_NETWORK | Entitlements::INSECURE;
    let split = Split { groups: vec![Group { entitlements, ..group }], ..Split::default() };
    let mut workers = local();
    workers[0].entitlements = Entitlements::HOST_NETWORK;
    let error = preflight(&graph, &split, &workers, &Policy::default()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "no worker that runs linux/amd64 allows what its steps ask for: not native (security.insecure); \
         allow it on one of them, or add a worker that does"
    );
}
