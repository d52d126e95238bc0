//! The bytes of details are what other programs read: they are compared as text.

use super::*;
use crate::pb;

fn json_of(details: &ErrorDetails) -> Vec<(String, String)> {
    details
        .to_rpc(Code::Unknown, "no")
        .details
        .into_iter()
        .map(|any| (any.type_url, String::from_utf8(any.value).unwrap()))
        .collect()
}

fn solve() -> details::Solve {
    details::Solve {
        input_i_ds: vec!["in1".into()],
        mount_i_ds: vec!["m1".into(), String::new()],
        op: Some(pb::Op {
            inputs: vec![pb::Input { digest: "sha256:aa".into(), index: 1 }],
            platform: Some(pb::Platform {
                os: "linux".into(),
                architecture: "arm64".into(),
                ..Default::default()
            }),
            op: Some(pb::op::Op::Exec(pb::ExecOp {
                meta: Some(pb::Meta {
                    args: vec!["sh".into(), "-c".into(), "a && b".into()],
                    proxy_env: Some(pb::ProxyEnv { http_proxy: "p".into(), ..Default::default() }),
                    valid_exit_codes: vec![0, 3],
                    ..Default::default()
                }),
                mounts: vec![pb::Mount {
                    input: -1,
                    dest: "/".into(),
                    mount_type: pb::MountType::Cache as i32,
                    ..Default::default()
                }],
                network: pb::NetMode::None as i32,
                ..Default::default()
            })),
            ..Default::default()
        }),
        description: [("llb.customname".to_owned(), "RUN a".to_owned())].into(),
        subject: Some(details::solve::Subject::File(details::FileAction { index: 2 })),
    }
}

#[test]
fn details_have_the_names_and_forms_that_clients_read() {
    let details = ErrorDetails {
        vertex: Some("sha256:ab".into()),
        sources: vec![details::Source {
            info: Some(pb::SourceInfo {
                filename: "Dockerfile".into(),
                data: b"FROM x\n".to_vec(),
                language: "Dockerfile".into(),
                ..Default::default()
            }),
            ranges: vec![pb::Range {
                start: Some(pb::Position { line: 3, character: 0 }),
                end: Some(pb::Position { line: 4, character: 7 }),
            }],
        }],
        solve: Some(solve()),
        subrequest: Some("frontend.x".into()),
        frontend_cap: Some("moby.cap".into()),
        exit_code: Some(7),
        stacks: vec![stack::Stack {
            frames: vec![stack::Frame { name: "main".into(), file: "m.rs".into(), line: 4 }],
            cmdline: vec!["crosskit".into()],
            pid: 12,
            ..Default::default()
        }],
        ..Default::default()
    };
    let expected = [
        ("stack.Stack", r#"{"frames":[{"Name":"main","File":"m.rs","Line":4}],"cmdline":["crosskit"],"pid":12}"#),
        ("gatewayapi.ExitMessage", r#"{"Code":7}"#),
        (
            "errdefs.Solve",
            r#"{"inputIDs":["in1"],"mountIDs":["m1",""],"op":{"inputs":[{"digest":"sha256:aa","index":"1"}],"exec":{"meta":{"args":["sh","-c","a \u0026\u0026 b"],"proxyEnv":{"httpProxy":"p"},"validExitCodes":[0,3]},"mounts":[{"input":"-1","dest":"/","mountType":"CACHE"}],"network":"NONE"},"platform":{"Architecture":"arm64","OS":"linux"}},"file":{"index":"2"},"description":{"llb.customname":"RUN a"}}"#,
        ),
        ("errdefs.Vertex", r#"{"digest":"sha256:ab"}"#),
        (
            "errdefs.Source",
            r#"{"info":{"filename":"Dockerfile","data":"RlJPTSB4Cg==","language":"Dockerfile"},"ranges":[{"start":{"line":3},"end":{"line":4,"character":7}}]}"#,
        ),
        ("errdefs.Subrequest", r#"{"name":"frontend.x"}"#),
        ("errdefs.FrontendCap", r#"{"name":"moby.cap"}"#),
    ]
    .map(|(name, json)| (format!("github.com/moby/buildkit/{name}+json"), json.to_owned()));
    assert_eq!(json_of(&details), expected);
    let status = details.to_status(Code::NotFound, "no");
    assert_eq!((status.code(), status.message()), (Code::NotFound, "no"));
    assert_eq!(ErrorDetails::from_status(&status), details);
}

#[test]
fn every_kind_of_operation_survives_the_way_there_and_back() {
    let copy = pb::FileActionCopy {
        src: "a".into(),
        mode: -1,
        timestamp: i64::MIN,
        owner: Some(pb::ChownOpt {
            user: Some(pb::UserOpt { user: Some(pb::user_opt::User::ById(0)) }),
            group: Some(pb::UserOpt {
                user: Some(pb::user_opt::User::ByName(pb::NamedUserOpt { name: "g".into(), input: 1 })),
            }),
        }),
        include_patterns: vec!["x".into()],
        ..Default::default()
    };
    let ops = vec![
        pb::op::Op::File(pb::FileOp {
            actions: vec![
                pb::FileAction {
                    secondary_input: -1,
                    action: Some(pb::file_action::Action::Copy(copy)),
                    ..Default::default()
                },
                pb::FileAction {
                    action: Some(pb::file_action::Action::Mkfile(pb::FileActionMkFile {
                        data: vec![0, 255],
                        ..Default::default()
                    })),
                    ..Default::default()
                },
            ],
        }),
        pb::op::Op::Source(pb::SourceOp {
            identifier: "local://context".into(),
            attrs: [("k".to_owned(), String::new())].into(),
        }),
        pb::op::Op::Build(pb::BuildOp {
            builder: -1,
            inputs: [("a".to_owned(), pb::BuildInput { input: 0 })].into(),
            def: Some(pb::Definition {
                def: vec![b"x".to_vec()],
                metadata: [(
                    "sha256:1".to_owned(),
                    pb::OpMetadata {
                        ignore_cache: true,
                        caps: [("c".to_owned(), true), ("d".to_owned(), false)].into(),
                        ..Default::default()
                    },
                )]
                .into(),
                source: Some(pb::Source::default()),
            }),
            ..Default::default()
        }),
        pb::op::Op::Merge(pb::MergeOp {
            inputs: vec![pb::MergeInput { input: -1 }, pb::MergeInput { input: 0 }],
        }),
        pb::op::Op::Diff(pb::DiffOp {
            lower: Some(pb::LowerDiffInput { input: -1 }),
            upper: Some(pb::UpperDiffInput { input: 0 }),
        }),
        pb::op::Op::Passthrough(pb::PassthroughOp { id: "i".into(), outputs: vec![0, -1] }),
    ];
    for op in ops {
        let details = ErrorDetails {
            solve: Some(details::Solve {
                op: Some(pb::Op { op: Some(op), ..Default::default() }),
                ..Default::default()
            }),
            ..Default::default()
        };
        assert_eq!(ErrorDetails::from_rpc(&details.to_rpc(Code::Unknown, "")), details);
    }
}

#[test]
fn unknown_and_broken_details_are_kept_as_they_came() {
    let any = |url: &str, value: &[u8]| prost_types::Any { type_url: url.into(), value: value.to_vec() };
    let strange = vec![
        any("type.googleapis.com/google.rpc.RetryInfo", b"\x0a"),
        any("github.com/moby/buildkit/errdefs.Vertex+json", b"{"),
        any("github.com/moby/buildkit/errdefs.Source+json", br#"{"ranges":"x"}"#),
        any("github.com/moby/buildkit/errdefs.New+json", b"{}"),
    ];
    let details =
        ErrorDetails::from_rpc(&rpc::Status { code: 2, message: String::new(), details: strange.clone() });
    assert_eq!(details, ErrorDetails { others: strange.clone(), ..Default::default() });
    assert_eq!(details.to_rpc(Code::Unknown, "").details, strange);
}

#[test]
fn unknown_members_and_other_letter_cases_are_read() {
    let any = prost_types::Any {
        type_url: "github.com/moby/buildkit/errdefs.Source+json".into(),
        value: br#"{"Info":{"Filename":"f","new":[1]},"ranges":[{"start":{"line":"2"}}],"definition":null}"#
            .to_vec(),
    };
    let details = ErrorDetails::from_rpc(&rpc::Status { details: vec![any], ..Default::default() });
    assert_eq!(details.sources[0].info.as_ref().unwrap().filename, "f");
    assert_eq!(details.sources[0].ranges[0].start.as_ref().unwrap().line, 2);
}

#[test]
fn the_code_is_named_unless_it_tells_nothing() {
    assert_eq!(describe(Code::Unknown, "exit code: 1"), "exit code: 1");
    assert_eq!(describe(Code::InvalidArgument, "bad"), "InvalidArgument: bad");
}
