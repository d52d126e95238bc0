//! Frontends of others: what they may do over the bridge.

#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

#[path = "gateway/frontend.rs"]
mod frontend;

use crosskit_api::control::{Exporter, SolveRequest};
use crosskit_api::frontend::exec_message::Input;
use crosskit_api::frontend::{self as api, NewContainerRequest, ResizeMessage};
use crosskit_api::pb;
use crosskit_llb::{Builder, Constraints, Digest, Exec, FileActionSpec, Graph, ImageSource, MkfileAction};
use crosskit_multiarch::{DaemonOptions, Scene, processes_of, until};
use frontend::{Frontend, conversation, image};
use prost::Message;
use std::collections::BTreeMap;
use std::time::Duration;
use tonic::{Code, Status};

/// A program that nothing else runs, to find it among the machine's processes.
const SLEEP: &str = "exec sleep 3600.25";

fn root(result: &str) -> [(&str, &str); 1] {
    [("/", result)]
}

#[test]
fn processes_of_a_container_share_it_and_have_their_own_streams_and_ends() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    conversation(async {
        let mut frontend = Frontend::begin(&daemon, &[]).await;
        let base = frontend.solve(&image(&scene.base(), None, None)).await.unwrap();
        let tmpfs = pb::Mount {
            dest: "/mem".into(),
            mount_type: pb::MountType::Tmpfs.into(),
            ..pb::Mount::default()
        };
        frontend.container("c", &root(&base), vec![tmpfs]).await.unwrap();
        let again = frontend.container("c", &root(&base), Vec::new()).await.unwrap_err();
        assert_eq!(again.message(), "Container c already exists");

        // The first one reads what it is sent, until a line says that it is over.
        let mut first = frontend.processes().await;
        first.start("one", "c", "echo 1 > /file; echo $$ > /mem/pid; echo up; cat; exit 3").await;
        first.hear("one", "up\n").await;

        let mut second = frontend.processes().await;
        second.start("two", "c", "cat /file; cat /mem/pid; echo oops >&2; pwd; echo $PATH").await;
        let said = second.end("two").await;
        let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        assert_eq!((said.out, said.err.as_str(), said.code), (format!("1\n1\n/\n{path}\n"), "oops\n", 0));

        assert_eq!(frontend.read("c", 0, "/file").await.unwrap(), b"1\n");
        let outside = frontend.read("c", 2, "/file").await.unwrap_err();
        assert_eq!(outside.message(), "mount index 2 is out of bounds (2 available)");

        first.write("one", "typed\n", false).await;
        assert_eq!(first.hear("one", "typed\n").await, "typed\n");
        first.write("one", "", true).await;
        let said = first.end("one").await;
        assert_eq!((said.code, said.error.as_str(), said.details.exit_code), (3, "exit code: 3", Some(3)));

        second.start("three", "none", "true").await;
        let nobody = second.refused().await;
        assert_eq!(nobody.message(), "container \"none\" previously released or not created");
        frontend.end().await;
    });
    daemon.stop();
}

#[test]
fn terminals_change_their_size_and_signals_arrive() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    conversation(async {
        let mut frontend = Frontend::begin(&daemon, &[]).await;
        let base = frontend.solve(&image(&scene.base(), None, None)).await.unwrap();
        frontend.container("c", &root(&base), Vec::new()).await.unwrap();
        let mut processes = frontend.processes().await;
        let script = "trap 'stty size; exit 7' WINCH; trap 'exit 8' TERM; echo $TERM; \
            while :; do /bin/sleep 0.05; done";
        processes.init("tty", "c", script, |init| init.tty = true).await;
        processes.hear("tty", "xterm\r\n").await;
        processes.send("tty", Input::Resize(ResizeMessage { rows: 33, cols: 77 })).await;
        let said = processes.end("tty").await;
        assert_eq!((said.out.as_str(), said.code), ("33 77\r\n", 7));

        frontend.container("d", &root(&base), Vec::new()).await.unwrap();
        processes.start("plain", "d", "trap 'exit 8' TERM; echo up; while :; do /bin/sleep 0.05; done").await;
        processes.hear("plain", "up\n").await;
        processes.signal("plain", "TERM").await;
        assert_eq!(processes.end("plain").await.code, 8);
        frontend.end().await;
    });
    daemon.stop();
}

#[test]
fn what_still_runs_ends_with_the_container_and_with_the_build() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let sleeping = || processes_of(&daemon.root).iter().any(|(_, line)| line.contains("3600.25"));
    conversation(async {
        let mut frontend = Frontend::begin(&daemon, &[]).await;
        let base = frontend.solve(&image(&scene.base(), None, None)).await.unwrap();
        frontend.container("c", &root(&base), Vec::new()).await.unwrap();
        let mut processes = frontend.processes().await;
        processes.start("one", "c", &format!("echo up; {SLEEP}")).await;
        processes.hear("one", "up\n").await;
        let released = frontend.release("c").await.unwrap_err();
        assert!(released.message().contains("context canceled"), "{released}");
        let said = processes.end("one").await;
        assert!(said.error.contains("context canceled"), "{said:?}");
        assert_eq!(frontend.release("c").await.unwrap_err().message(), "container details for c not found");

        frontend.container("d", &root(&base), Vec::new()).await.unwrap();
        processes.start("two", "d", &format!("echo up; {SLEEP}")).await;
        processes.hear("two", "up\n").await;
        frontend.vanish().await;
        drop(processes);
    });
    until("the process to end with its build", Duration::from_secs(10), || (!sleeping()).then_some(()));
    daemon.stop();
}

#[test]
fn a_failed_step_can_be_looked_into() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    conversation(async {
        let mut frontend = Frontend::begin(&daemon, &[]).await;
        let script = "echo half > /made; exit 4";
        let failed = frontend.solve(&image(&scene.base(), None, Some(script))).await.unwrap_err();
        let details = crosskit_api::errors::ErrorDetails::from_status(&failed);
        assert_eq!(details.exit_code, Some(4));
        let solve = details.solve.unwrap();
        let [input] = solve.input_i_ds.as_slice() else { panic!("{:?}", solve.input_i_ds) };
        let [mount] = solve.mount_i_ds.as_slice() else { panic!("{:?}", solve.mount_i_ds) };
        frontend.container("c", &[("/", mount), ("/before", input)], Vec::new()).await.unwrap();
        let mut processes = frontend.processes().await;
        processes.start("look", "c", "cat /made; test -e /before/made; echo $?").await;
        assert_eq!(processes.end("look").await.out, "half\n1\n");
        frontend.end().await;
    });
    daemon.stop();
}

#[test]
fn a_container_gets_no_more_than_its_build_was_granted() {
    let scene = Scene::set();
    let allowed = "insecure-entitlements = [\"security.insecure\"]".to_string();
    let daemon = scene.daemon_with(DaemonOptions { config: allowed, ..DaemonOptions::default() });
    let caps = "grep CapEff /proc/self/status";
    for (granted, code, error) in
        [(&[][..], 255, "security.insecure is not allowed"), (&["security.insecure"][..], 0, "")]
    {
        conversation(async {
            let mut frontend = Frontend::begin(&daemon, granted).await;
            let base = frontend.solve(&image(&scene.base(), None, None)).await.unwrap();
            frontend.container("c", &root(&base), Vec::new()).await.unwrap();
            let mut processes = frontend.processes().await;
            processes.init("p", "c", caps, |init| init.set_security(pb::SecurityMode::Insecure)).await;
            let said = processes.end("p").await;
            assert_eq!((said.code, said.error.as_str()), (code, error));
            frontend.end().await;
        });
    }
    daemon.stop();
}

#[test]
fn a_container_of_another_platform_runs_emulated() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    conversation(async {
        let mut frontend = Frontend::begin(&daemon, &[]).await;
        let base = frontend.solve(&image(&scene.base(), Some("linux/riscv64"), None)).await.unwrap();
        let request = NewContainerRequest {
            container_id: "c".into(),
            mounts: vec![pb::Mount { dest: "/".into(), result_id: base, ..pb::Mount::default() }],
            platform: Some(pb::Platform {
                os: "linux".into(),
                architecture: "riscv64".into(),
                ..pb::Platform::default()
            }),
            hostname: "there".into(),
            ..NewContainerRequest::default()
        };
        frontend.container_as(request).await.unwrap();
        let mut processes = frontend.processes().await;
        processes.start("p", "c", "/bin/uname -m; /bin/hostname").await;
        assert_eq!(processes.end("p").await.out, "riscv64\nthere\n");
        frontend.end().await;
    });
    daemon.stop();
}

#[test]
fn a_container_has_the_machines_network_only_if_its_build_was_granted_it() {
    let scene = Scene::set();
    let allowed = "insecure-entitlements = [\"network.host\"]".to_string();
    let daemon = scene.daemon_with(DaemonOptions { config: allowed, ..DaemonOptions::default() });
    for (granted, code, error) in
        [(&[][..], 255, "network.host is not allowed"), (&["network.host"][..], 0, "")]
    {
        conversation(async {
            let mut frontend = Frontend::begin(&daemon, granted).await;
            let base = frontend.solve(&image(&scene.base(), None, None)).await.unwrap();
            let request = NewContainerRequest {
                container_id: "c".into(),
                mounts: vec![pb::Mount { dest: "/".into(), result_id: base, ..pb::Mount::default() }],
                network: pb::NetMode::Host.into(),
                ..NewContainerRequest::default()
            };
            frontend.container_as(request).await.unwrap();
            let mut processes = frontend.processes().await;
            processes.start("p", "c", "true").await;
            let said = processes.end("p").await;
            assert_eq!((said.code, said.error.as_str()), (code, error));
            frontend.end().await;
        });
    }
    daemon.stop();
}

/// A step that asks for more than its sandbox.
fn privileged(base: &str, network: pb::NetMode, security: pb::SecurityMode) -> Graph {
    let mut builder = Builder::new();
    let image = ImageSource { reference: base.to_string(), ..ImageSource::default() };
    let root = Some(builder.image(&image, Constraints::default()));
    let args = vec!["/bin/true".to_string()];
    let exec = Exec { root, args, cwd: "/".into(), network, security, ..Exec::default() };
    let made = builder.exec(exec, Constraints::default()).root;
    builder.graph(made).unwrap()
}

/// A graph that solves another one, which it has in a file.
fn nested(inner: &Graph) -> pb::Definition {
    let mut builder = Builder::new();
    let data = inner.to_definition().encode_to_vec();
    let file = MkfileAction {
        path: "/buildkit.llb.definition".into(),
        mode: 0o644,
        data,
        ..MkfileAction::default()
    };
    let file = builder.file(None, vec![FileActionSpec::Mkfile(file)], Constraints::default());
    let mut definition = builder.graph(Some(file)).unwrap().to_definition();
    let last = definition.def.pop().unwrap();
    let inputs = pb::Op::decode(last.as_slice()).unwrap().inputs;
    let graph = pb::BuildInput { input: 0 };
    let build = pb::BuildOp {
        builder: -1,
        inputs: BTreeMap::from([("buildkit.llb.definition".to_string(), graph)]),
        ..pb::BuildOp::default()
    };
    let build = pb::Op { inputs, op: Some(pb::op::Op::Build(build)), ..pb::Op::default() }.encode_to_vec();
    let input = pb::Input { digest: Digest::of(&build).to_string(), index: 0 };
    definition.def.push(build);
    definition.def.push(pb::Op { inputs: vec![input], ..pb::Op::default() }.encode_to_vec());
    definition
}

#[test]
fn a_graph_gets_no_more_than_its_build_was_granted_however_it_comes() {
    let scene = Scene::set();
    let allowed = "insecure-entitlements = [\"security.insecure\", \"network.host\"]".to_string();
    let daemon = scene.daemon_with(DaemonOptions { config: allowed, ..DaemonOptions::default() });
    let base = scene.base();
    let (sandbox, unset) = (pb::SecurityMode::Sandbox, pb::NetMode::Unset);
    for (graph, missing) in [
        (privileged(&base, unset, pb::SecurityMode::Insecure), "security.insecure is not allowed"),
        (privileged(&base, pb::NetMode::Host, sandbox), "network.host is not allowed"),
    ] {
        conversation(async {
            for definition in [graph.to_definition(), nested(&graph)] {
                let mut frontend = Frontend::begin(&daemon, &[]).await;
                let refused = solve(&mut frontend, Some(definition.clone())).await.unwrap_err();
                assert!(refused.message().contains(missing), "{refused}");
                frontend.vanish().await;
                let mut frontend = Frontend::begin(&daemon, &["security.insecure", "network.host"]).await;
                solve(&mut frontend, Some(definition)).await.unwrap();
                frontend.end().await;
            }
        });
    }
    daemon.stop();
}

async fn solve(
    frontend: &mut Frontend,
    definition: Option<pb::Definition>,
) -> Result<api::SolveResponse, Status> {
    let request = api::SolveRequest {
        definition,
        allow_result_return: true,
        allow_result_array_ref: true,
        evaluate: true,
        ..api::SolveRequest::default()
    };
    let call = frontend.call(request);
    frontend.bridge.solve(call).await.map(tonic::Response::into_inner)
}

/// An answer, and not the end of the connection, which is what a panic would be.
#[track_caller]
fn answered<T>(what: &str, answer: Result<T, Status>) {
    if let Err(status) = answer {
        let lost = matches!(status.code(), Code::Unavailable | Code::Cancelled | Code::Internal);
        assert!(!lost && !status.message().contains("panick"), "{what}: {status}");
    }
}

#[test]
fn requests_with_absent_parts_are_answered_and_the_daemon_lives() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let good = image(&scene.base(), None, None).to_definition();
    let with = |change: &dyn Fn(&mut pb::Definition)| {
        let mut definition = good.clone();
        change(&mut definition);
        Some(definition)
    };
    let location = pb::Location { source_index: -7, ranges: vec![pb::Range::default()] };
    let source = pb::Source {
        locations: BTreeMap::from([("nobody".into(), pb::Locations { locations: vec![location] })]),
        infos: vec![pb::SourceInfo::default()],
    };
    let definitions = [
        ("nothing", None),
        ("no vertices", Some(pb::Definition::default())),
        ("a vertex without anything", Some(pb::Definition { def: vec![Vec::new()], ..Default::default() })),
        ("no metadata", with(&|d| d.metadata.clear())),
        ("metadata of nobody", with(&|d| drop(d.metadata.insert(String::new(), pb::OpMetadata::default())))),
        ("places without files", with(&|d| d.source = Some(source.clone()))),
        ("the last vertex twice", with(&|d| d.def.extend(d.def.last().cloned()))),
        ("no last vertex", with(&|d| drop(d.def.pop()))),
    ];
    conversation(async {
        let mut frontend = Frontend::begin(&daemon, &[]).await;
        for (what, definition) in definitions {
            answered(what, solve(&mut frontend, definition.clone()).await);
            let inputs = BTreeMap::from([("context".to_string(), definition.unwrap_or_default())]);
            let request = api::SolveRequest {
                frontend: "dockerfile.v0".into(),
                frontend_inputs: inputs,
                ..api::SolveRequest::default()
            };
            let call = frontend.call(request);
            answered(what, frontend.bridge.solve(call).await);
        }
        let call = frontend.call(api::ReadFileRequest::default());
        answered("a file of nothing", frontend.bridge.read_file(call).await);
        let range = Some(api::FileRange { offset: -1, length: i64::MIN });
        let call = frontend.call(api::ReadFileRequest { range, ..api::ReadFileRequest::default() });
        answered("a file with an odd range", frontend.bridge.read_file(call).await);
        let call = frontend.call(api::ReadDirRequest::default());
        answered("a folder of nothing", frontend.bridge.read_dir(call).await);
        let call = frontend.call(api::StatFileRequest::default());
        answered("facts of nothing", frontend.bridge.stat_file(call).await);
        let call = frontend.call(api::WarnRequest::default());
        answered("a warning about nothing", frontend.bridge.warn(call).await);
        let call = frontend.call(api::ResolveSourceMetaRequest::default());
        answered("facts of no source", frontend.bridge.resolve_source_meta(call).await);
        let call = frontend.call(api::ResolveImageConfigRequest::default());
        answered("no image's config", frontend.bridge.resolve_image_config(call).await);
        answered("a container of nothing", frontend.container_as(NewContainerRequest::default()).await);
        let odd = pb::Mount { mount_type: 99, input: 7, ..pb::Mount::default() };
        answered("a container of an odd mount", frontend.container("odd", &[], vec![odd]).await);
        for init in [None, Some(Input::Init(api::InitMessage::default()))] {
            let mut processes = frontend.processes().await;
            processes.send_any(init).await;
            answered("a process of nothing", processes.next().await);
        }
        frontend.end().await;
    });
    assert!(!daemon.log().contains("panicked at"), "{}", daemon.log());
    daemon.stop();
}

#[test]
fn results_with_absent_parts_are_answered_and_the_daemon_lives() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let graph = image(&scene.base(), None, None);
    let platform = "linux/amd64";
    let metadata: Vec<(&str, &str)> = [
        (
            "refs.platforms",
            &["", "x", "null", "[]", "{}", "{\"Platforms\":null}", "{\"Platforms\":[null]}"][..],
        ),
        ("refs.platforms", &["{\"Platforms\":[{}]}", "{\"Platforms\":[{\"ID\":\"x\",\"Platform\":null}]}"]),
        (
            "containerimage.config",
            &["", "x", "null", "[]", "{}", "{\"rootfs\":null}", "{\"history\":[null]}"],
        ),
        (
            "containerimage.config/linux/amd64",
            &["null", "{\"config\":null,\"rootfs\":{\"diff_ids\":[null]}}"],
        ),
        ("containerimage.base.config", &["x", "null"]),
        ("annotation-manifest[x].y", &["", "z"]),
        ("attestation-manifest", &["null"]),
    ]
    .iter()
    .flat_map(|(key, values)| values.iter().map(|value| (*key, *value)))
    .collect();
    let single = |id: &str| api::result::Result::Ref(api::Ref { id: id.to_string(), def: None });
    let many = |id: &str| {
        let found = api::Ref { id: id.to_string(), def: None };
        api::result::Result::Refs(api::RefMap { refs: BTreeMap::from([(platform.to_string(), found)]) })
    };
    let attested = |attestation: api::Attestation| {
        let list = api::Attestations { attestation: vec![attestation] };
        BTreeMap::from([(platform.to_string(), list)])
    };
    let subjects = vec![api::InTotoSubject { digest: vec![String::new()], ..Default::default() }];
    let bare = |result| api::Result { result, ..api::Result::default() };
    let results = |id: &str| -> Vec<(String, Option<api::Result>)> {
        let mut all = vec![
            ("nothing".to_string(), None),
            ("an empty result".into(), Some(bare(None))),
            ("a ref without an id".into(), Some(bare(Some(single(""))))),
            ("a ref that nobody knows".into(), Some(bare(Some(single("nobody"))))),
            ("no refs".into(), Some(bare(Some(api::result::Result::Refs(api::RefMap::default()))))),
            ("a platform without an id".into(), Some(bare(Some(many(""))))),
            ("a platform that no list has".into(), Some(bare(Some(many(id))))),
        ];
        for (key, value) in &metadata {
            for (form, result) in [("one", single(id)), ("many", many(id)), ("none", single(""))] {
                let metadata = BTreeMap::from([((*key).to_string(), value.as_bytes().to_vec())]);
                let result = api::Result { result: Some(result), metadata, ..api::Result::default() };
                all.push((format!("{form} with {key}={value:?}"), Some(result)));
            }
        }
        for (what, attestation) in [
            ("an empty attestation", api::Attestation::default()),
            (
                "an attestation in a ref without an id",
                api::Attestation {
                    r#ref: Some(api::Ref::default()),
                    in_toto_subjects: subjects.clone(),
                    path: "../x".into(),
                    ..Default::default()
                },
            ),
            ("an attestation of an unknown kind", api::Attestation { kind: 99, ..Default::default() }),
        ] {
            let attestations = attested(attestation);
            let result = api::Result { result: Some(many(id)), attestations, ..api::Result::default() };
            all.push((what.into(), Some(result)));
        }
        all
    };
    conversation(async {
        for at in 0..results("").len() {
            let exporter = Exporter {
                r#type: "image".into(),
                attrs: BTreeMap::from([("name".to_string(), "example.com/odd".to_string())]),
            };
            let request = SolveRequest { exporters: vec![exporter], ..SolveRequest::default() };
            let mut frontend = Frontend::begin_for(&daemon, request).await;
            let id = frontend.solve(&graph).await.unwrap();
            let (what, result) = results(&id).remove(at);
            answered(&what, frontend.returns(result).await);
        }
    });
    assert!(!daemon.log().contains("panicked at"), "{}", daemon.log());
    daemon.stop();
}
