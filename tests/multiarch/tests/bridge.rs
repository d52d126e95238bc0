//! What a frontend in the client can do over the bridge: builtin frontends, results, files, containers, failures.

#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

#[path = "gateway/frontend.rs"]
mod frontend;

use crosskit_api::control::{Exporter, SolveRequest};
use crosskit_api::errors::ErrorDetails;
use crosskit_api::frontend::result::Result as Returned;
use crosskit_api::frontend::{self as api, NewContainerRequest};
use crosskit_api::{details, pb};
use crosskit_llb::{
    Builder, Constraints, CopyAction, FileActionSpec, Graph, ImageSource, MkfileAction, RmAction,
};
use crosskit_multiarch::{Buildx, Scene};
use crosskit_session::{LocalDirs, Output, Outputs, SecretSource, Secrets, SessionServer, SshAgents};
use frontend::{Frontend, conversation, image};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use tonic::{Code, Status};

/// A session with these folders.
fn lends(folders: &[(&str, &Path)]) -> SessionServer {
    let mut dirs = LocalDirs::default();
    for (name, folder) in folders {
        dirs.add(*name, folder.to_path_buf());
    }
    SessionServer::new("").with_dirs(dirs)
}

/// A call of the builtin frontend.
fn dockerfile(options: &[(&str, &str)]) -> api::SolveRequest {
    let options = options.iter().map(|(key, value)| ((*key).to_string(), (*value).to_string()));
    api::SolveRequest {
        frontend: "dockerfile.v0".into(),
        frontend_opt: options.collect(),
        allow_result_return: true,
        allow_result_array_ref: true,
        ..api::SolveRequest::default()
    }
}

async fn solve(frontend: &mut Frontend, request: api::SolveRequest) -> Result<api::Result, Status> {
    let call = frontend.call(request);
    Ok(frontend.bridge.solve(call).await?.into_inner().result.unwrap())
}

async fn read(
    frontend: &mut Frontend,
    id: &str,
    path: &str,
    range: Option<(i64, i64)>,
) -> Result<Vec<u8>, Status> {
    let range = range.map(|(offset, length)| api::FileRange { offset, length });
    let request =
        api::ReadFileRequest { r#ref: id.into(), file_path: path.into(), range, ..Default::default() };
    let call = frontend.call(request);
    Ok(frontend.bridge.read_file(call).await?.into_inner().data)
}

fn single(result: &api::Result) -> &api::Ref {
    match result.result.as_ref().unwrap() {
        Returned::Ref(found) => found,
        other => panic!("not a single result: {other:?}"),
    }
}

#[test]
fn results_of_several_platforms_are_read_built_upon_and_returned() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let context = scene
        .context("c", &[("Dockerfile", "FROM BASE\nARG TARGETPLATFORM\nRUN echo $TARGETPLATFORM > /made\n")]);
    let upon = scene.context(
        "upon",
        &[("Dockerfile", "FROM lent AS lent\nFROM scratch\nCOPY --from=lent /made /again\n")],
    );
    let out = scene.path("out");
    let both = ["linux/amd64", "linux/arm64"];
    conversation(async {
        let mut outputs = Outputs::default();
        outputs.add(0, Output::Dir { path: out.clone(), delete: false });
        let session = lends(&[("context", &context), ("dockerfile", &context), ("upon", &upon)]);
        let exporters = vec![Exporter { r#type: "local".into(), ..Default::default() }];
        let request = SolveRequest { exporters, ..SolveRequest::default() };
        let mut frontend = Frontend::begin_lent(&daemon, session.with_outputs(outputs), request).await;
        let options = dockerfile(&[("platform", &both.join(","))]);
        let result = solve(&mut frontend, options).await.unwrap();
        let Some(Returned::Refs(map)) = &result.result else { panic!("{result:?}") };
        assert_eq!(map.refs.keys().collect::<Vec<_>>(), both);
        for platform in both {
            let made = read(&mut frontend, &map.refs[platform].id, "made", None).await.unwrap();
            assert_eq!(String::from_utf8(made).unwrap().trim(), platform);
            assert!(result.metadata.contains_key(&format!("containerimage.config/{platform}")));
        }
        // A client that takes a single result only is told that there is none.
        let old =
            api::SolveRequest { allow_result_return: false, ..dockerfile(&[("platform", &both.join(","))]) };
        assert_eq!(
            solve(&mut frontend, old).await.unwrap_err().message(),
            "solve did not return default result"
        );

        // The graph that a result tells is an input for the next one.
        let lent = map.refs["linux/arm64"].def.clone().unwrap();
        let request = api::SolveRequest {
            frontend_inputs: BTreeMap::from([("arm".to_string(), lent)]),
            ..dockerfile(&[("dockerfilekey", "upon"), ("context:lent", "input:arm")])
        };
        let again = solve(&mut frontend, request).await.unwrap();
        let again = single(&again).clone();
        assert_eq!(read(&mut frontend, &again.id, "again", None).await.unwrap(), b"linux/arm64\n");

        // What is returned need not be all that was solved, and a platform may have nothing.
        let refs = BTreeMap::from([
            ("linux/amd64".to_string(), again),
            ("linux/arm64".to_string(), api::Ref::default()),
        ]);
        let result = Some(Returned::Refs(api::RefMap { refs }));
        let metadata = BTreeMap::from([("refs.platforms".to_string(), result_platforms(&both))]);
        frontend.returns(Some(api::Result { result, metadata, ..api::Result::default() })).await.unwrap();
    });
    assert_eq!(std::fs::read_to_string(out.join("linux_amd64/again")).unwrap(), "linux/arm64\n");
    let empty = out.join("linux_arm64");
    assert!(!empty.exists() || std::fs::read_dir(&empty).unwrap().next().is_none());
    daemon.stop();
}

fn result_platforms(names: &[&str]) -> Vec<u8> {
    let platforms = names.iter().map(|name| {
        let (os, architecture) = name.split_once('/').unwrap();
        json!({ "ID": name, "Platform": { "os": os, "architecture": architecture } })
    });
    json!({ "Platforms": platforms.collect::<Vec<_>>() }).to_string().into_bytes()
}

#[test]
fn a_failure_keeps_what_the_frontend_says_of_it() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let source = details::Source {
        info: Some(pb::SourceInfo {
            filename: "plan.txt".into(),
            data: b"one\ntwo\n".to_vec(),
            ..Default::default()
        }),
        ranges: vec![pb::Range {
            start: Some(pb::Position { line: 2, character: 0 }),
            end: Some(pb::Position { line: 2, character: 3 }),
        }],
    };
    let told = ErrorDetails {
        vertex: Some("sha256:ab".into()),
        sources: vec![source],
        exit_code: Some(9),
        subrequest: Some("frontend.own".into()),
        ..ErrorDetails::default()
    };
    conversation(async {
        let frontend = Frontend::begin(&daemon, &[]).await;
        let failed = frontend.fails(told.to_rpc(Code::ResourceExhausted, "no more")).await;
        assert_eq!((failed.code(), failed.message()), (Code::ResourceExhausted, "no more"));
        assert_eq!(ErrorDetails::from_status(&failed), told);
    });
    daemon.stop();
}

#[test]
fn a_second_result_is_refused_and_a_warning_has_a_level() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    conversation(async {
        let mut frontend = Frontend::begin(&daemon, &[]).await;
        let graph = image(&scene.base(), None, None);
        let digest = graph.head().unwrap().vertex.to_string();
        frontend.solve(&graph).await.unwrap();
        let mut heard = frontend.watch(&daemon).await;
        for (level, short) in [(0, "unsaid"), (3, "said")] {
            let (digest, short) = (digest.clone(), short.as_bytes().to_vec());
            let call = frontend.call(api::WarnRequest { digest, level, short, ..Default::default() });
            frontend.bridge.warn(call).await.unwrap();
        }
        let neither = frontend.call(api::ReturnRequest::default());
        let refused = frontend.bridge.r#return(neither).await.unwrap_err();
        assert_eq!(refused.message(), "gateway return must be either result or err");
        let result = || api::ReturnRequest { result: Some(api::Result::default()), error: None };
        let (first, second) = (frontend.call(result()), frontend.call(result()));
        frontend.bridge.r#return(first).await.unwrap();
        if let Err(refused) = frontend.bridge.r#return(second).await {
            // The build may have ended meanwhile.
            let message = refused.message();
            assert!(
                message == "gateway result is already set" || message.contains("no such job"),
                "{refused}"
            );
        }
        let mut levels = Vec::new();
        while let Some(status) = heard.message().await.unwrap() {
            levels
                .extend(status.warnings.into_iter().map(|w| (w.level, String::from_utf8(w.short).unwrap())));
        }
        assert_eq!(levels, [(1, "unsaid".to_string()), (3, "said".to_string())]);
        frontend.vanish().await;
    });
    daemon.stop();
}

#[test]
fn files_of_results_are_read_listed_and_told() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    conversation(async {
        let mut frontend = Frontend::begin(&daemon, &[]).await;
        let script = "mkdir /d && cd /d && echo 0123456789 > a.txt && ln a.txt b.txt && ln -s a.txt c.txt && \
            echo md > d.md && mkdir e && chown 7:8 d.md && chmod 4750 d.md && mkfifo f";
        let id = frontend.solve(&image(&scene.base(), None, Some(script))).await.unwrap();
        let whole = read(&mut frontend, &id, "/d/c.txt", None).await.unwrap();
        assert_eq!(whole, b"0123456789\n");
        for (range, part) in [((2, 3), "234"), ((9, 100), "9\n"), ((100, 1), ""), ((3, 0), "")] {
            let found = read(&mut frontend, &id, "d/a.txt", Some(range)).await.unwrap();
            assert_eq!(String::from_utf8(found).unwrap(), part, "{range:?}");
        }
        let missing = read(&mut frontend, &id, "/d/none", None).await.unwrap_err();
        assert!(missing.message().contains("/d/none: no such file or directory"), "{missing}");
        let folder = read(&mut frontend, &id, "/d", None).await.unwrap_err();
        assert!(folder.message().contains("is not a regular file"), "{folder}");

        for (pattern, names) in
            [("", "a.txt b.txt c.txt d.md e f"), ("*.txt", "a.txt b.txt c.txt"), ("x*", "")]
        {
            let request = api::ReadDirRequest {
                r#ref: id.clone(),
                dir_path: "/d".into(),
                include_pattern: pattern.into(),
                ..Default::default()
            };
            let call = frontend.call(request);
            let entries = frontend.bridge.read_dir(call).await.unwrap().into_inner().entries;
            let listed: Vec<&str> = entries.iter().map(|entry| entry.path.as_str()).collect();
            assert_eq!(listed.join(" "), names, "{pattern}");
            let links: Vec<&str> = entries.iter().map(|entry| entry.linkname.as_str()).collect();
            if pattern == "*.txt" {
                assert_eq!(links, ["", "a.txt", "a.txt"]);
                assert_eq!(entries.iter().map(|entry| entry.size).collect::<Vec<_>>(), [11, 11, 5]);
            }
        }
        let request = api::StatFileRequest { r#ref: id.clone(), path: "d/d.md".into(), ..Default::default() };
        let call = frontend.call(request);
        let stat = frontend.bridge.stat_file(call).await.unwrap().into_inner().stat.unwrap();
        // Go's bit for setuid.
        assert_eq!((stat.mode, stat.uid, stat.gid, stat.size), (1 << 23 | 0o750, 7, 8, 3));
        let request = api::StatFileRequest { r#ref: id, path: "none".into(), ..Default::default() };
        let call = frontend.call(request);
        let missing = frontend.bridge.stat_file(call).await.unwrap_err();
        assert!(missing.message().contains("no such file or directory"), "{missing}");
        frontend.end().await;
    });
    daemon.stop();
}

fn mount(dest: &str) -> pb::Mount {
    pb::Mount { dest: dest.into(), input: -1, output: -1, ..pb::Mount::default() }
}

#[test]
fn containers_have_the_mounts_and_hosts_and_users_that_were_asked_for() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    conversation(async {
        let mut secrets = Secrets::default();
        secrets.add("word", Some(SecretSource::Value(b"open sesame".to_vec()))).unwrap();
        let socket = scene.path("agent");
        let _agent = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let mut agents = SshAgents::default();
        agents.add("", &[socket], true).await.unwrap();
        let session = SessionServer::new("").with_secrets(secrets).with_ssh(agents);
        let mut frontend = Frontend::begin_lent(&daemon, session, SolveRequest::default()).await;
        let script = "mkdir -p /sub/inner && echo inner > /sub/inner/file";
        let base = frontend.solve(&image(&scene.base(), None, Some(script))).await.unwrap();
        let cache =
            pb::CacheOpt { id: "shared-by-containers".into(), sharing: pb::CacheSharingOpt::Shared.into() };
        let secret =
            |id: &str, optional| pb::SecretOpt { id: id.into(), uid: 1000, gid: 7, mode: 0o440, optional };
        let of = |kind: pb::MountType, dest: &str| pb::Mount { mount_type: kind.into(), ..mount(dest) };
        let agent =
            pb::SshOpt { id: "default".into(), uid: 1000, gid: 7, mode: 0o620, ..pb::SshOpt::default() };
        let mounts = || {
            vec![
                pb::Mount { result_id: base.clone(), readonly: true, ..mount("/") },
                pb::Mount { result_id: base.clone(), selector: "/sub/inner".into(), ..mount("/part") },
                pb::Mount { secret_opt: Some(secret("word", false)), ..of(pb::MountType::Secret, "/secret") },
                pb::Mount { secret_opt: Some(secret("none", true)), ..of(pb::MountType::Secret, "/absent") },
                pb::Mount { cache_opt: Some(cache.clone()), ..of(pb::MountType::Cache, "/cache") },
                of(pb::MountType::Tmpfs, "/mem"),
                pb::Mount { ssh_opt: Some(agent.clone()), ..of(pb::MountType::Ssh, "/agent") },
            ]
        };
        let request = |id: &str, mounts: Vec<pb::Mount>| NewContainerRequest {
            container_id: id.into(),
            mounts,
            extra_hosts: vec![pb::HostIp { host: "elsewhere".into(), ip: "192.0.2.7".into() }],
            ..NewContainerRequest::default()
        };
        frontend.container_as(request("c", mounts())).await.unwrap();
        let mut processes = frontend.processes().await;
        // A container is there as long as its first process.
        let mut first = frontend.processes().await;
        first.start("first", "c", "echo up; cat").await;
        first.hear("first", "up\n").await;
        let script = "cat /part/file; echo x 2>/dev/null > /root-file || echo readonly; echo 1 > /part/new; \
            stat -c '%u:%g %a' /secret; cat /secret; echo; test -e /absent || echo absent; stat -c '%F %u:%g %a' /agent; echo kept > /cache/file; \
            echo 2 > /mem/file; grep elsewhere /etc/hosts; echo $WORD; echo $NONE";
        let env =
            |id: &str, name: &str, optional| pb::SecretEnv { id: id.into(), name: name.into(), optional };
        processes
            .init("one", "c", script, |init| {
                init.secretenv = vec![env("word", "WORD", false), env("none", "NONE", true)];
            })
            .await;
        let said = processes.end("one").await;
        let heard = "inner\nreadonly\n1000:7 440\nopen sesame\nabsent\nsocket 1000:7 620\n192.0.2.7\telsewhere\nopen sesame\n\n";
        assert_eq!((said.out.as_str(), said.code), (heard, 0), "{said:?}");
        processes
            .init("two", "c", "id -u; id -g; pwd; cat /cache/file; cat /secret", |init| {
                let meta = init.meta.as_mut().unwrap();
                (meta.user, meta.cwd) = ("builder".into(), "/part".into());
            })
            .await;
        let said = processes.end("two").await;
        assert_eq!((said.out.as_str(), said.code), ("1000\n1000\n/part\nkept\nopen sesame", 0), "{said:?}");

        first.write("first", "", true).await;
        assert_eq!(first.end("first").await.code, 0);

        // Looking from outside goes by the number of the mount.
        let dir = api::ReadDirRequest {
            r#ref: "c".into(),
            dir_path: "/sub/inner".into(),
            mount_index: 1,
            ..Default::default()
        };
        let call = frontend.call(dir);
        let listed = frontend.bridge.read_dir_container(call).await.unwrap().into_inner().entries;
        assert_eq!(listed.iter().map(|entry| entry.path.as_str()).collect::<Vec<_>>(), ["file", "new"]);
        let stat = api::StatFileRequest { r#ref: "c".into(), path: "file".into(), mount_index: 4 };
        let call = frontend.call(stat);
        let stat = frontend.bridge.stat_file_container(call).await.unwrap().into_inner().stat.unwrap();
        assert_eq!((stat.path.as_str(), stat.size), ("file", 5));

        // Another container has its own changes and the same cache.
        frontend.container_as(request("d", mounts())).await.unwrap();
        processes.start("three", "d", "cat /cache/file; test -e /part/new || echo clean").await;
        assert_eq!(processes.end("three").await.out, "kept\nclean\n");

        let missing = vec![
            pb::Mount { result_id: base.clone(), ..mount("/") },
            pb::Mount { secret_opt: Some(secret("none", false)), ..of(pb::MountType::Secret, "/secret") },
        ];
        let refused = frontend.container_as(request("e", missing)).await.unwrap_err();
        assert!(refused.message().contains("secret none: not found"), "{refused}");
        frontend.end().await;
    });
    daemon.stop();
}

/// Copies of the base image's files, one that is there and one of this path.
fn copies(base: &str, src: &str) -> Graph {
    let mut builder = Builder::new();
    let image = ImageSource { reference: base.to_string(), ..ImageSource::default() };
    let from = builder.image(&image, Constraints::default());
    let fine = CopyAction {
        from: Some(from),
        src: "/etc/base".into(),
        dest: "/copied".into(),
        ..CopyAction::default()
    };
    let copy = CopyAction { src: src.into(), dest: "/".into(), ..fine.clone() };
    let actions = vec![FileActionSpec::Copy(fine), FileActionSpec::Copy(copy)];
    let output = builder.file(None, actions, Constraints::default());
    builder.graph(Some(output)).unwrap()
}

/// A new file on the base image, and then another one of it away that isn't there.
fn makes_and_removes(base: &str) -> Graph {
    let mut builder = Builder::new();
    let image = ImageSource { reference: base.to_string(), ..ImageSource::default() };
    let on = builder.image(&image, Constraints::default());
    let file = MkfileAction {
        path: "/made".into(),
        mode: 0o644,
        data: b"made\n".to_vec(),
        ..MkfileAction::default()
    };
    let gone = RmAction { path: "/none".into(), ..RmAction::default() };
    let actions = vec![FileActionSpec::Mkfile(file), FileActionSpec::Rm(gone)];
    let output = builder.file(Some(on), actions, Constraints::default());
    builder.graph(Some(output)).unwrap()
}

#[test]
fn what_a_failed_file_operation_had_can_be_looked_into() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let base = scene.base();
    let own = format!("{}\n", crosskit_platforms::native().architecture);
    conversation(async {
        let mut frontend = Frontend::begin(&daemon, &[]).await;
        let mut fails = async |graph: &Graph| {
            let failed = frontend.solve(graph).await.unwrap_err();
            assert!(failed.message().contains("/none"), "{failed}");
            let solve = ErrorDetails::from_status(&failed).solve.unwrap();
            let Some(pb::op::Op::File(_)) = solve.op.as_ref().unwrap().op else { panic!("{solve:?}") };
            solve
        };
        // What isn't there can't be part of a key: the operation was not even tried.
        let keyless = fails(&copies(&base, "/none")).await;
        let Some(details::solve::Subject::Cache(cache)) = &keyless.subject else { panic!("{keyless:?}") };
        assert_eq!((cache.index, keyless.mount_i_ds.len()), (0, 0));
        let tried = fails(&makes_and_removes(&base)).await;
        let Some(details::solve::Subject::File(action)) = &tried.subject else { panic!("{tried:?}") };
        let [nothing, made] = &tried.mount_i_ds[..] else { panic!("{tried:?}") };
        assert_eq!((action.index, nothing.as_str()), (1, ""));
        let mut processes = frontend.processes().await;
        let (keyless, tried) = (&keyless.input_i_ds[0], &tried.input_i_ds[0]);
        for (name, root, heard) in
            [("a", keyless, own.clone()), ("b", tried, own.clone()), ("c", made, format!("{own}made\n"))]
        {
            frontend.container(name, &[("/", root)], Vec::new()).await.unwrap();
            processes.start(name, name, "cat /etc/base; cat /made 2>/dev/null; true").await;
            assert_eq!(processes.end(name).await.out, heard, "{name}");
        }
        frontend.end().await;
    });
    daemon.stop();
}

#[test]
fn questions_about_a_dockerfile_are_answered() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let text = "# the version\nARG VERSION=1\n\n# made makes it\nFROM BASE AS made\nARG WORD\nRUN --mount=type=secret,id=key true\n\nfrom made as Other\n";
    let context = scene.context("c", &[("Dockerfile", text)]);
    conversation(async {
        let session = lends(&[("context", &context), ("dockerfile", &context)]);
        let mut frontend = Frontend::begin_lent(&daemon, session, SolveRequest::default()).await;
        let mut ask = async |id: &str| -> Result<(Value, String), Status> {
            let result = solve(&mut frontend, dockerfile(&[("requestid", id), ("target", "made")])).await?;
            let text = String::from_utf8(result.metadata["result.txt"].clone()).unwrap();
            assert_eq!(result.metadata["version"], b"1.0.0");
            Ok((serde_json::from_slice(&result.metadata["result.json"]).unwrap(), text))
        };
        let (outline, _) = ask("frontend.outline").await.unwrap();
        assert_eq!((&outline["name"], &outline["description"]), (&json!("made"), &json!("makes it")));
        assert_eq!(outline["secrets"][0]["name"], "key");
        let (targets, text) = ask("frontend.targets").await.unwrap();
        assert_eq!(targets["targets"][0]["name"], "made");
        assert!(text.contains("(default)"), "{text}");
        let (lint, _) = ask("frontend.lint").await.unwrap();
        let rules: Vec<&str> =
            lint["warnings"].as_array().unwrap().iter().map(|w| w["ruleName"].as_str().unwrap()).collect();
        assert!(rules.contains(&"ConsistentInstructionCasing"), "{rules:?}");
        let (all, _) = ask("frontend.subrequests.describe").await.unwrap();
        let names: Vec<&str> =
            all.as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["frontend.outline", "frontend.targets", "frontend.subrequests.describe"]);
        let unknown = ask("frontend.none").await.unwrap_err();
        assert!(unknown.message().contains("unsupported request frontend.none"), "{unknown}");
        assert_eq!(ErrorDetails::from_status(&unknown).subrequest.as_deref(), Some("frontend.none"));
        frontend.end().await;
    });
    let buildx = Buildx::create(&scene, &daemon);
    let folder = context.display().to_string();
    let call = |call: &str| buildx.run(&["build", "--call", call, &folder]);
    call("outline,format=json").ok().says("\"name\": \"other\"");
    call("targets").ok().says("made").says("makes it");
    call("check").fails().says("ConsistentInstructionCasing").says("Dockerfile:9");
    daemon.stop();
}
