use crosskit_api::pb;
use crosskit_llb::{Digest, Graph, Limits};
use crosskit_platforms::Platform;
use proptest::prelude::*;
use prost::Message;
use std::collections::{HashMap, HashSet};

use crate::{Entitlements, Split, split};

/// A graph of steps `(name, platform, inputs)`; without a platform it is a source or, with
/// inputs, a merge.
fn graph(nodes: &[(&str, &str, &[usize])]) -> Graph {
    let mut def: Vec<Vec<u8>> = Vec::new();
    for (name, platform, inputs) in nodes {
        let digest = |input: &usize| Digest::of(&def[*input]).to_string();
        let inputs: Vec<_> =
            inputs.iter().map(|input| pb::Input { digest: digest(input), index: 0 }).collect();
        let merged = (0..inputs.len() as i64).map(|input| pb::MergeInput { input }).collect();
        let op = match (*platform, inputs.len()) {
            ("", 0) => pb::op::Op::Source(pb::SourceOp {
                identifier: format!("docker-image://{name}"),
                ..Default::default()
            }),
            ("", _) => pb::op::Op::Merge(pb::MergeOp { inputs: merged }),
            _ => pb::op::Op::Exec(pb::ExecOp {
                meta: Some(pb::Meta { args: vec![(*name).to_owned()], ..Default::default() }),
                mounts: vec![pb::Mount {
                    dest: "/".to_owned(),
                    input: if inputs.is_empty() { -1 } else { 0 },
                    ..Default::default()
                }],
                ..Default::default()
            }),
        };
        let platform = Platform::parse(platform).ok().map(|platform| pb::Platform {
            os: platform.os,
            architecture: platform.architecture,
            variant: platform.variant,
            ..Default::default()
        });
        let platform = platform.filter(|_| !matches!(op, pb::op::Op::Merge(_)));
        def.push(pb::Op { inputs, platform, op: Some(op), ..Default::default() }.encode_to_vec());
    }
    let digest = Digest::of(&def[def.len() - 1]).to_string();
    let last = pb::Op { inputs: vec![pb::Input { digest, index: 0 }], ..Default::default() };
    def.push(last.encode_to_vec());
    Graph::decode(pb::Definition { def, ..Default::default() }, &Limits::default()).unwrap()
}

fn shown(split: &Split) -> Vec<(String, usize, usize)> {
    split.groups.iter().map(|g| (g.platform.format(), g.stage, g.steps.len())).collect()
}

#[test]
fn platforms_that_share_a_build_stage_are_three_groups() {
    let graph = graph(&[
        ("go", "", &[]),
        ("compile", "linux/amd64", &[0]),
        ("base arm", "", &[]),
        ("base s390x", "", &[]),
        ("copy", "", &[1, 2]),
        ("setup arm", "linux/arm64", &[4]),
        ("copy", "", &[1, 3]),
        ("setup s390x", "linux/s390x", &[6]),
        ("all", "", &[5, 7]),
    ]);
    let split = split(&graph, &Platform::linux("amd64"));
    assert_eq!(
        shown(&split),
        [
            ("linux/amd64".to_owned(), 0, 1),
            ("linux/arm64".to_owned(), 1, 1),
            ("linux/s390x".to_owned(), 1, 1),
        ]
    );
    assert_eq!(split.anywhere, 6);
}

#[test]
fn a_group_ends_where_a_path_leaves_it_and_comes_back() {
    // arm64, then amd64 on it, then arm64 on both.
    let graph = graph(&[
        ("base", "", &[]),
        ("one", "linux/arm64", &[0]),
        ("two", "linux/amd64", &[1]),
        ("both", "", &[1, 2]),
        ("three", "linux/arm64", &[3]),
    ]);
    let split = split(&graph, &Platform::linux("amd64"));
    assert_eq!(
        shown(&split),
        [
            ("linux/arm64".to_owned(), 0, 1),
            ("linux/amd64".to_owned(), 1, 1),
            ("linux/arm64".to_owned(), 2, 1),
        ]
    );
    let edges = |edges: &[crosskit_llb::Edge]| edges.iter().map(|edge| edge.vertex).collect::<Vec<_>>();
    let digests: Vec<_> = graph.vertices().iter().map(|vertex| vertex.digest).collect();
    assert_eq!(edges(&split.groups[1].inputs), [digests[1]]);
    assert_eq!(edges(&split.groups[1].outputs), [digests[2]]);
    assert_eq!(edges(&split.groups[2].outputs), [digests[4]]);
    assert_eq!(split.group_of(&digests[4]), Some(2));
    assert_eq!(split.group_of(&digests[3]), None);
}

#[test]
fn what_comes_in_later_does_not_divide_a_group() {
    // arm64 installs, takes what amd64 has compiled, and goes on.
    let graph = graph(&[
        ("base", "", &[]),
        ("compile", "linux/amd64", &[0]),
        ("install", "linux/arm64", &[0]),
        ("copy", "", &[2, 1]),
        ("configure", "linux/arm64", &[3]),
    ]);
    let split = split(&graph, &Platform::linux("amd64"));
    assert_eq!(shown(&split), [("linux/amd64".to_owned(), 0, 1), ("linux/arm64".to_owned(), 1, 2)]);
    assert_eq!(split.groups[1].members.len(), 3);
}

#[test]
fn groups_that_would_need_one_another_are_divided() {
    let graph = graph(&[
        ("a0", "linux/arm64", &[]),
        ("b0", "linux/amd64", &[]),
        ("a1", "linux/arm64", &[0, 1]),
        ("b1", "linux/amd64", &[0, 1]),
        ("all", "", &[2, 3]),
    ]);
    let split = split(&graph, &Platform::linux("amd64"));
    let stages: Vec<_> = split.groups.iter().map(|group| (group.stage, group.steps.len())).collect();
    assert_eq!(stages, [(0, 1), (0, 1), (1, 1), (1, 1)]);
}

#[test]
fn steps_that_only_meet_at_last_may_run_in_several_places() {
    let graph = graph(&[
        ("base", "", &[]),
        ("a", "linux/amd64", &[0]),
        ("b", "linux/amd64", &[1]),
        ("other", "linux/amd64", &[0]),
        ("c", "linux/arm64", &[0]),
        ("all", "", &[2, 4]),
        ("end", "linux/amd64", &[2]),
        ("everything", "", &[5, 6, 3]),
    ]);
    let split = split(&graph, &Platform::linux("amd64"));
    assert_eq!(
        shown(&split),
        [
            ("linux/amd64".to_owned(), 0, 3),
            ("linux/arm64".to_owned(), 0, 1),
            ("linux/amd64".to_owned(), 0, 1)
        ]
    );
}

#[test]
fn a_graph_without_steps_needs_no_machine() {
    let graph = graph(&[("base", "", &[]), ("other", "", &[]), ("all", "", &[0, 1])]);
    let split = split(&graph, &Platform::linux("amd64"));
    assert_eq!((split.groups.len(), split.anywhere), (0, 3));
}

const PLATFORMS: [&str; 5] = ["", "linux/amd64", "linux/arm64", "linux/s390x", "linux/riscv64"];

/// The inputs and the platform of each vertex, none for one that runs anywhere.
fn graphs() -> impl Strategy<Value = Vec<(usize, Vec<usize>)>> {
    let vertex = (0..PLATFORMS.len(), proptest::collection::vec(0..8usize, 0..4));
    proptest::collection::vec(vertex, 1..40).prop_map(|mut list| {
        let last = list.len();
        for (at, (_, inputs)) in list.iter_mut().enumerate() {
            // Counted backwards from the vertex, so that paths get long.
            inputs.retain_mut(|back| {
                let known = at.checked_sub(*back + 1);
                *back = known.unwrap_or_default();
                known.is_some()
            });
        }
        list.push((0, (0..last).collect()));
        list
    })
}

fn check(nodes: &[(usize, Vec<usize>)]) {
    let names: Vec<String> = (0..nodes.len()).map(|node| format!("node-{node}")).collect();
    let spec: Vec<(&str, &str, &[usize])> = nodes
        .iter()
        .zip(&names)
        .map(|((platform, inputs), name)| (name.as_str(), PLATFORMS[*platform], inputs.as_slice()))
        .collect();
    let graph = graph(&spec);
    let split = split(&graph, &Platform::linux("amd64"));
    let at: HashMap<_, _> =
        graph.vertices().iter().enumerate().map(|(at, vertex)| (vertex.digest, at)).collect();
    let mut group_of = vec![None; graph.len()];
    for (number, group) in split.groups.iter().enumerate() {
        for member in &group.members {
            assert_eq!(group_of[at[member]].replace(number), None, "in two groups");
        }
        let steps: HashSet<_> = group.steps.iter().collect();
        for member in &group.members {
            let vertex = &graph[member];
            let platform = crate::executing_platform(vertex, &Platform::linux("amd64"));
            assert_eq!(platform.is_some(), steps.contains(member));
            assert!(platform.is_none_or(|platform| platform == group.platform));
        }
    }
    let mut above: Vec<HashSet<usize>> = Vec::new();
    for (position, vertex) in graph.vertices().iter().enumerate() {
        let step = matches!(vertex.op.op, Some(pb::op::Op::Exec(_)));
        assert!(!step || group_of[position].is_some(), "a step without a group");
        assert_eq!(split.group_of(&vertex.digest), group_of[position].filter(|_| step));
        let inputs = vertex.inputs.iter().map(|edge| at[&edge.vertex]);
        let all = inputs.flat_map(|input| above[input].iter().copied().chain([input]).collect::<Vec<_>>());
        let all = all.collect();
        above.push(all);
    }
    for (to, all) in above.iter().enumerate() {
        for from in all {
            let Some(group) = group_of[*from] else { continue };
            if group_of[to] == Some(group) {
                // No way leads out and back.
                let way = all.iter().filter(|middle| above[**middle].contains(from));
                assert!(way.into_iter().all(|middle| group_of[*middle] == Some(group)), "not convex");
            } else if let Some(other) = group_of[to] {
                // Stages order the groups, so there is no circle.
                assert!(split.groups[group].stage < split.groups[other].stage);
            }
        }
    }
    // A file operation is only in a group between two of its steps.
    for (position, group) in group_of.iter().enumerate() {
        let Some(group) = group.filter(|_| split.group_of(&graph.vertices()[position].digest).is_none())
        else {
            continue;
        };
        assert!(above[position].iter().any(|from| group_of[*from] == Some(group)));
        assert!((0..graph.len()).any(|to| above[to].contains(&position) && group_of[to] == Some(group)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn groups_are_convex_and_hold_every_step_once(nodes in graphs()) {
        check(&nodes);
    }
}

#[test]
fn more_platforms_than_a_word_has_bits_are_divided_as_well() {
    let names: Vec<String> = (0..100).map(|number| format!("linux/cpu{number}")).collect();
    let mut nodes: Vec<(String, &str, Vec<usize>)> = Vec::new();
    for (number, name) in names.iter().enumerate() {
        nodes.push((format!("first {number}"), name, (0..number).rev().take(1).collect()));
        nodes.push((format!("second {number}"), name, vec![nodes.len() - 1]));
    }
    nodes.push(("all".to_owned(), "", (0..200).collect()));
    let spec: Vec<_> =
        nodes.iter().map(|(name, platform, inputs)| (&**name, *platform, inputs.as_slice())).collect();
    let split = split(&graph(&spec), &Platform::linux("amd64"));
    assert_eq!(split.groups.iter().map(|group| group.steps.len()).sum::<usize>(), 200);
    assert_eq!(split.groups.len(), 100);
}

/// A step on what is copied from a client's folder onto an image.
fn step(image: &str, command: &str, change: impl Fn(&mut pb::ExecOp)) -> Split {
    let mut def: Vec<Vec<u8>> = Vec::new();
    let source = |identifier: &str, attribute: &str| {
        let attrs = [("local.unique".to_owned(), attribute.to_owned())].into();
        let source = pb::SourceOp { identifier: identifier.to_owned(), attrs };
        pb::Op { op: Some(pb::op::Op::Source(source)), ..Default::default() }.encode_to_vec()
    };
    def.push(source(image, ""));
    def.push(source("local://context", image));
    let input = |of: &Vec<u8>| pb::Input { digest: Digest::of(of).to_string(), index: 0 };
    let copy = pb::FileActionCopy { src: "/".to_owned(), dest: "/src".to_owned(), ..Default::default() };
    let action = pb::file_action::Action::Copy(copy);
    let action = pb::FileAction { input: 0, secondary_input: 1, output: 0, action: Some(action) };
    let file = pb::Op {
        inputs: vec![input(&def[0]), input(&def[1])],
        op: Some(pb::op::Op::File(pb::FileOp { actions: vec![action] })),
        ..Default::default()
    };
    def.push(file.encode_to_vec());
    let mut exec = pb::ExecOp {
        meta: Some(pb::Meta {
            args: vec!["sh".to_owned(), "-c".to_owned(), command.to_owned()],
            env: vec![format!("REVISION={image}")],
            ..Default::default()
        }),
        mounts: vec![pb::Mount { dest: "/".to_owned(), ..Default::default() }],
        ..Default::default()
    };
    change(&mut exec);
    let inputs = vec![input(&def[2])];
    def.push(pb::Op { inputs, op: Some(pb::op::Op::Exec(exec)), ..Default::default() }.encode_to_vec());
    let last = pb::Op { inputs: vec![input(&def[3])], ..Default::default() };
    def.push(last.encode_to_vec());
    let graph = Graph::decode(pb::Definition { def, ..Default::default() }, &Limits::default()).unwrap();
    split(&graph, &Platform::linux("amd64"))
}

#[test]
fn a_key_says_what_is_done_and_not_what_with() {
    let key = |image: &str, command: &str| step(image, command, |_| {}).groups[0].placement;
    let plain = key("docker-image://docker.io/library/rust:1@sha256:aa", "make");
    assert_eq!(plain, key("docker-image://docker.io/library/rust:1@sha256:bb", "make"));
    assert_ne!(plain, key("docker-image://docker.io/library/rust:2@sha256:aa", "make"));
    assert_ne!(plain, key("docker-image://docker.io/library/rust:1@sha256:aa", "make all"));
    assert_ne!(plain, plain.within("somebody/else"));
    let git = key("git://example.com/a.git#0123456789abcdef:folder", "make");
    assert_eq!(git, key("git://example.com/a.git#main:folder", "make"));
    assert_ne!(git, key("git://example.com/a.git#main:other", "make"));
    let web = key("https://example.com/a.tar?token=1", "make");
    assert_eq!(web, key("https://example.com/a.tar?token=2", "make"));
    let cached = |id: &str| {
        let cache = |exec: &mut pb::ExecOp| {
            let cache_opt = Some(pb::CacheOpt { id: id.to_owned(), sharing: 0 });
            exec.mounts.push(pb::Mount { dest: "/c".to_owned(), cache_opt, ..Default::default() });
        };
        step("docker-image://a", "make", cache).groups[0].placement
    };
    assert_ne!(cached("one"), cached("two"));
}

#[test]
fn keys_are_the_same_in_every_release() {
    let split = step("docker-image://docker.io/library/rust:1", "make", |_| {});
    assert_eq!(split.groups[0].placement.to_string(), "09f7908efba54512");
}

#[test]
fn a_group_asks_for_what_its_steps_do() {
    let asked = |change: fn(&mut pb::ExecOp)| step("docker-image://a", "make", change).groups[0].entitlements;
    assert_eq!(asked(|_| {}), Entitlements::NONE);
    let both = asked(|exec| {
        exec.set_network(pb::NetMode::Host);
        exec.secretenv.push(pb::SecretEnv { id: "token".to_owned(), ..Default::default() });
    });
    assert_eq!(both.to_string(), "network.host, secrets in the environment");
    assert!(asked(|exec| exec.set_security(pb::SecurityMode::Insecure)) == Entitlements::INSECURE);
}
