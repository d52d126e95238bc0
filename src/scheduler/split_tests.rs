use crosskit_api::pb;
use crosskit_llb::{Digest, Graph, Limits};
use crosskit_platforms::Platform;
use prost::Message;

use crate::{Split, split};

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
                mounts: vec![pb::Mount { dest: "/".to_owned(), ..Default::default() }],
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
fn a_group_is_convex() {
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
}

#[test]
fn steps_that_hang_together_are_one_group_and_others_are_not() {
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
    // What is only merged at last hangs together, too: it is fetched as one.
    assert_eq!(shown(&split), [("linux/amd64".to_owned(), 0, 4), ("linux/arm64".to_owned(), 0, 1),]);
}

#[test]
fn a_graph_without_steps_needs_no_machine() {
    let graph = graph(&[("base", "", &[]), ("other", "", &[]), ("all", "", &[0, 1])]);
    let split = split(&graph, &Platform::linux("amd64"));
    assert_eq!((split.groups.len(), split.anywhere), (0, 3));
}
