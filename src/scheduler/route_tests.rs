use crosskit_api::pb;
use crosskit_llb::{Digest, Graph, Limits};
use crosskit_platforms::Platform;
use prost::Message;

use crate::{
    Group, Health, Kind, Policy, Reason, SchedulerError, Split, WhenFull, WorkerState, default_slots,
    preflight, route,
};

fn platform(specifier: &str) -> Platform {
    Platform::parse(specifier).unwrap()
}

fn group(specifier: &str, steps: usize) -> Group {
    Group {
        platform: platform(specifier),
        stage: 0,
        steps: (0..steps).map(|step| Digest::of(&[step as u8])).collect(),
    }
}

fn local() -> Vec<WorkerState> {
    let emulated = ["linux/arm64", "linux/arm/v7", "linux/riscv64"].map(platform).to_vec();
    vec![
        WorkerState::idle("native", Kind::Native, vec![platform("linux/amd64/v3")]),
        WorkerState {
            slots: default_slots(Kind::Emulated, 2, None),
            ..WorkerState::idle("qemu", Kind::Emulated, emulated)
        },
    ]
}

#[test]
fn each_platform_goes_where_it_runs_best() {
    let mut workers = local();
    let remote = vec![platform("linux/arm64")];
    for (specifier, alone, with_remote) in [
        ("linux/amd64", "native", "native"),
        ("linux/amd64/v2", "native", "native"),
        ("linux/arm64", "qemu", "farm"),
        ("linux/arm/v6", "qemu", "qemu"),
    ] {
        let decide = |workers: &[WorkerState]| {
            route(&group(specifier, 1), workers, &Policy::default()).unwrap().worker
        };
        assert_eq!(decide(&workers), alone, "{specifier}");
        workers.push(WorkerState::idle("farm", Kind::Remote, remote.clone()));
        assert_eq!(decide(&workers), with_remote, "{specifier}");
        workers.pop();
    }
}

#[test]
fn a_decision_gives_reasons() {
    let mut workers = local();
    let farm = |name: &str| WorkerState::idle(name, Kind::Remote, vec![platform("linux/arm64")]);
    workers.push(WorkerState { slots: Some(4), busy: 3, ..farm("busy") });
    workers.push(WorkerState { slots: Some(4), ..farm("free") });
    workers.push(WorkerState { slots: Some(4), speed: Some(9.0), ..farm("quick") });
    workers.push(WorkerState { slots: Some(4), busy: 4, ..farm("full") });
    workers.push(WorkerState { health: Health::Down, ..farm("silent") });
    workers.push(WorkerState { health: Health::Draining, ..farm("leaving") });
    workers.push(WorkerState { slots: Some(4), speed: Some(9.0), ..farm("twin") });
    let decision = route(&group("linux/arm64", 1), &workers, &Policy::default()).unwrap();
    assert_eq!((decision.worker.as_str(), decision.kind), ("quick", Kind::Remote));
    let reasons: Vec<_> = decision.verdicts.into_iter().map(|verdict| verdict.reason).collect();
    assert_eq!(
        reasons,
        [
            Reason::OtherPlatforms,
            Reason::KindLikedLess { than: Kind::Remote },
            Reason::LessFree,
            Reason::Slower,
            Reason::Chosen { of: 6 },
            Reason::Full,
            Reason::Down,
            Reason::Draining,
            Reason::Equal,
        ]
    );
    assert_eq!(reasons[1].to_string(), "remote is preferred");
}

#[test]
fn a_policy_may_spill_or_wait() {
    let mut workers = local();
    let arm = vec![platform("linux/arm64")];
    workers.push(WorkerState { slots: Some(1), busy: 1, ..WorkerState::idle("farm", Kind::Remote, arm) });
    let decide = |when_full| {
        let policy = Policy { when_full, ..Policy::default() };
        let decision = route(&group("linux/arm64", 1), &workers, &policy).unwrap();
        (decision.worker, decision.verdicts[2].reason.clone())
    };
    assert_eq!(decide(WhenFull::Wait), ("farm".to_owned(), Reason::Chosen { of: 2 }));
    assert_eq!(decide(WhenFull::Spill), ("qemu".to_owned(), Reason::Full));
}

#[test]
fn a_policy_may_forbid_emulation() {
    let policy = Policy { prefer: vec![Kind::Native], ..Policy::default() };
    let error = route(&group("linux/arm64", 1), &local(), &policy).unwrap_err();
    assert!(matches!(error, SchedulerError::NothingRuns { .. }));
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
    (graph, Group { platform: platform(specifier), stage: 0, steps: vec![digest] })
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
        let split = Split { groups, anywhere: 0 };
        let error = preflight(&graph, &split, &workers, &Policy::default()).unwrap_err();
        assert_eq!(error.to_string(), text);
    }
}

#[test]
fn a_plan_fills_workers_evenly() {
    let amd64 = vec![platform("linux/amd64")];
    let farm =
        |name: &str| WorkerState { slots: Some(4), ..WorkerState::idle(name, Kind::Remote, amd64.clone()) };
    let split = Split { groups: vec![group("linux/amd64", 1); 4], anywhere: 0 };
    let (graph, _) = lone("", "linux/amd64");
    let routes = preflight(&graph, &split, &[farm("a"), farm("b")], &Policy::default()).unwrap();
    let workers: Vec<_> = routes.iter().map(|route| route.decision.worker.as_str()).collect();
    assert_eq!(workers, ["a", "b", "a", "b"]);
}
