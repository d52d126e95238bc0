//! Calls of frontends, with the answers that they get.

use crate::frontend::{Frontend, conversation, image};
use crate::graphs::mkfile;
use crate::sources::Repository;
use crate::stage::{Ask, Stage, talk};
use crosskit_api::control::SolveRequest;
use crosskit_api::frontend::{self as api, checksum_request::ChecksumAlgo, result::Result as Returned};
use crosskit_api::pb;
use crosskit_llb::{FileActionSpec, MkdirAction, SymlinkAction};
use crosskit_multiarch::{Images, digest_of};
use serde_json::Value;
use std::collections::BTreeMap;

fn source(identifier: &str, attrs: &[(&str, &str)]) -> Option<pb::SourceOp> {
    let attrs = attrs.iter().map(|(key, value)| ((*key).to_string(), (*value).to_string())).collect();
    Some(pb::SourceOp { identifier: identifier.into(), attrs })
}

#[test]
fn sources_are_known_before_they_are_used() {
    let stage = Stage::set();
    let repository = Repository::serve(stage.scene.path("git"));
    let (base, digest) = (stage.scene.base(), stage.scene.base_image.digest());
    conversation(async {
        let mut frontend = Frontend::begin(&stage.daemon, &[]).await;
        let arm = || {
            Some(pb::Platform { os: "linux".into(), architecture: "arm64".into(), ..pb::Platform::default() })
        };
        let request = api::ResolveImageConfigRequest {
            r#ref: base.clone(),
            platform: arm(),
            resolve_mode: "pull".into(),
            ..api::ResolveImageConfigRequest::default()
        };
        let call = frontend.call(request);
        let found = frontend.bridge.resolve_image_config(call).await.unwrap().into_inner();
        assert_eq!((found.digest.as_str(), found.r#ref.as_str()), (digest.as_str(), base.as_str()));
        let config: Value = serde_json::from_slice(&found.config).unwrap();
        assert_eq!((&config["architecture"], &config["config"]["Cmd"][0]), (&"arm64".into(), &"sh".into()));

        let request = api::ResolveSourceMetaRequest {
            source: source(&format!("docker-image://{base}"), &[]),
            platform: arm(),
            ..api::ResolveSourceMetaRequest::default()
        };
        let image = frontend.meta(request).await.unwrap().image.unwrap();
        assert_eq!((image.digest.as_str(), &image.config), (digest.as_str(), &found.config));

        let identifier = format!("{}#v1", repository.url);
        let request = api::ResolveSourceMetaRequest {
            source: source(&identifier, &[("git.fullurl", &repository.url)]),
            git: Some(api::ResolveSourceGitRequest { return_object: true }),
            ..api::ResolveSourceMetaRequest::default()
        };
        let git = frontend.meta(request).await.unwrap().git.unwrap();
        assert_eq!(
            (git.commit_checksum.as_str(), git.r#ref.as_str()),
            (repository.commit.as_str(), "refs/tags/v1")
        );
        assert_ne!(git.checksum, git.commit_checksum, "an annotated tag is an object of its own");
        assert!(String::from_utf8_lossy(&git.commit_object).ends_with("\n\none\n"));
        assert!(String::from_utf8_lossy(&git.tag_object).ends_with("\n\ntagged\n"));

        // What a registry says to those who only greet it.
        let url = format!("http://{}/v2/", stage.scene.registry.address());
        let checksum = api::ChecksumRequest { algo: ChecksumAlgo::Sha256.into(), suffix: b"more".to_vec() };
        let request = api::ResolveSourceMetaRequest {
            source: source(&url, &[("http.filename", "greeting")]),
            http: Some(api::ResolveSourceHttpRequest { checksum_request: Some(checksum) }),
            ..api::ResolveSourceMetaRequest::default()
        };
        let http = frontend.meta(request).await.unwrap().http.unwrap();
        assert_eq!((http.checksum, http.filename.as_str()), (digest_of(b"{}"), "greeting"));
        assert_eq!(http.checksum_response.unwrap().digest, digest_of(b"{}more"));

        let request = api::ResolveSourceMetaRequest { source: source("nothing", &[]), ..Default::default() };
        let refused = frontend.meta(request).await.unwrap_err();
        assert!(refused.message().contains("failed to parse nothing"), "{refused}");
        frontend.end().await;
    });
    stage.daemon.stop();
}

#[test]
fn an_image_at_the_client_is_a_source_too() {
    let stage = Stage::set();
    let (archive, layout) = (stage.scene.path("image.tar"), stage.scene.path("layout"));
    talk(async {
        let definition = stage.step("echo from the layout > /made", |_, _| {});
        stage.ask(definition).export("oci", &[], archive.clone()).solve().await.ok();
    });
    tar::Archive::new(std::fs::File::open(&archive).unwrap()).unpack(&layout).unwrap();
    let index = Images::Folder(layout.clone()).index_json();
    let digest = index["manifests"][0]["digest"].as_str().unwrap().to_string();
    talk(async {
        let mut llb = stage.graph();
        let layout_source = crosskit_llb::OciLayoutSource {
            reference: format!("made@{digest}"),
            store: "mine".into(),
            ..crosskit_llb::OciLayoutSource::default()
        };
        let image = llb.builder.oci_layout(&layout_source, crate::graphs::native());
        let output = llb.file(Some(image), vec![mkfile("/more", "")]);
        let definition = llb.definition(Some(output));
        let tree = stage.ask(definition).store("mine", layout.clone()).tar().await;
        assert_eq!(tree.text("made"), "from the layout\n");
        assert!(tree.has("more"));
    });
    conversation(async {
        let (mut frontend, lending) = Frontend::begin_lending(&stage.daemon, "mine", &layout).await;
        let request = api::ResolveSourceMetaRequest {
            source: source(&format!("oci-layout://made@{digest}"), &[("oci.store", "mine")]),
            ..api::ResolveSourceMetaRequest::default()
        };
        let image = frontend.meta(request).await.unwrap().image.unwrap();
        assert_eq!(image.digest, digest);
        let config: Value = serde_json::from_slice(&image.config).unwrap();
        assert_eq!(config["rootfs"]["diff_ids"].as_array().unwrap().len(), 2);
        frontend.end().await;
        lending.abort();
    });
    stage.daemon.stop();
}

#[test]
fn files_of_results_are_read_listed_and_described() {
    let stage = Stage::set();
    conversation(async {
        let mut frontend = Frontend::begin(&stage.daemon, &[]).await;
        let mut llb = stage.graph();
        let folder = MkdirAction {
            path: "/d".into(),
            mode: 0o750,
            timestamp: Some(5_000_000_000),
            ..Default::default()
        };
        let link = SymlinkAction { oldpath: "d/a.txt".into(), newpath: "/l".into(), ..Default::default() };
        let actions = vec![
            FileActionSpec::Mkdir(folder),
            mkfile("/d/a.txt", "0123456789"),
            mkfile("/d/b.md", ""),
            FileActionSpec::Symlink(link),
        ];
        let made = llb.file(None, actions);
        let found = frontend.reference(llb.definition(Some(made))).await.unwrap().id;
        assert_eq!(frontend.text(&found, "d/a.txt").await, "0123456789");
        assert_eq!(frontend.text(&found, "/l").await, "0123456789");
        let range = Some(api::FileRange { offset: 3, length: 4 });
        let (r#ref, file_path) = (found.clone(), "/d/a.txt".to_string());
        let call = frontend.call(api::ReadFileRequest { r#ref, file_path, range, ..Default::default() });
        assert_eq!(frontend.bridge.read_file(call).await.unwrap().into_inner().data, b"3456");

        for (include_pattern, expected) in [("", &["a.txt", "b.md"][..]), ("*.md", &["b.md"])] {
            let request = api::ReadDirRequest {
                r#ref: found.clone(),
                dir_path: "/d".into(),
                include_pattern: include_pattern.into(),
                ..Default::default()
            };
            let call = frontend.call(request);
            let entries = frontend.bridge.read_dir(call).await.unwrap().into_inner().entries;
            assert_eq!(entries.iter().map(|e| e.path.as_str()).collect::<Vec<_>>(), expected);
        }
        let mut stat = async |path: &str| {
            let (r#ref, path) = (found.clone(), path.to_string());
            let call = frontend.call(api::StatFileRequest { r#ref, path, ..Default::default() });
            frontend.bridge.stat_file(call).await.map(|answer| answer.into_inner().stat.unwrap())
        };
        let file = stat("/d/a.txt").await.unwrap();
        assert_eq!((file.path.as_str(), file.size, file.mode & 0o777), ("a.txt", 10, 0o644));
        let link = stat("/l").await.unwrap();
        assert_eq!(
            (link.path.as_str(), link.size, link.linkname.as_str()),
            ("a.txt", 10, ""),
            "what it leads to"
        );
        let missing = stat("/d/c").await.unwrap_err();
        assert!(missing.message().contains("no such file or directory"), "{missing}");
        frontend.end().await;
    });
    stage.daemon.stop();
}

#[test]
fn a_frontend_runs_things_when_it_says_so_and_gets_its_inputs() {
    let stage = Stage::set();
    conversation(async {
        let mut llb = stage.graph();
        let input = llb.text("/input", "");
        let input = llb.definition(Some(input));
        let frontend_inputs = BTreeMap::from([("context".to_string(), input.clone())]);
        let request = SolveRequest { frontend_inputs, ..SolveRequest::default() };
        let mut frontend = Frontend::begin_for(&stage.daemon, request).await;
        let status = frontend.status().await;
        let call = frontend.call(api::InputsRequest {});
        let inputs = frontend.bridge.inputs(call).await.unwrap().into_inner().definitions;
        assert_eq!(inputs, BTreeMap::from([("context".to_string(), input)]));

        // Not before it is told to.
        let failing = stage.step("echo trying; exit 5", |_, _| {});
        let request = api::SolveRequest {
            definition: Some(failing.clone()),
            allow_result_return: true,
            ..Default::default()
        };
        let call = frontend.call(request.clone());
        let result = frontend.bridge.solve(call).await.unwrap().into_inner().result.unwrap().result.unwrap();
        let Returned::RefDeprecated(id) = result else { panic!("{result:?}") };
        let call = frontend.call(api::EvaluateRequest { r#ref: id });
        let failed = frontend.bridge.evaluate(call).await.unwrap_err();
        assert!(failed.message().contains("exit code: 5"), "{failed}");
        let call = frontend.call(api::SolveRequest { evaluate: true, ..request });
        let failed = frontend.bridge.solve(call).await.unwrap_err();
        assert!(failed.message().contains("exit code: 5"), "{failed}");

        // Another frontend's answer, with its metadata, comes back as its result.
        let mut files = stage.graph();
        let dockerfile = files.text("/Dockerfile", "FROM scratch\nCOPY Dockerfile /here\nLABEL a=b\n");
        let files = files.definition(Some(dockerfile));
        let request = api::SolveRequest {
            frontend: "dockerfile.v0".into(),
            frontend_inputs: ["context", "dockerfile"].map(|name| (name.to_string(), files.clone())).into(),
            allow_result_return: true,
            allow_result_array_ref: true,
            ..Default::default()
        };
        let call = frontend.call(request);
        let result = frontend.bridge.solve(call).await.unwrap().into_inner().result.unwrap();
        let config: Value = serde_json::from_slice(&result.metadata["containerimage.config"]).unwrap();
        assert_eq!(config["config"]["Labels"]["a"], "b");
        let Some(Returned::Ref(found)) = result.result else { panic!("{result:?}") };
        assert!(frontend.text(&found.id, "/here").await.starts_with("FROM scratch"));
        frontend.end().await;
        drop(status);
    });
    stage.daemon.stop();
}

#[test]
fn what_a_frontend_returns_is_exported_with_what_it_says_of_it() {
    let stage = Stage::set();
    let archive = stage.scene.path("image.tar");
    conversation(async {
        let ask = Ask::new(&stage.daemon, SolveRequest::default()).export("oci", &[], archive.clone());
        let (mut frontend, lending) = Frontend::begin_asking(&stage.daemon, ask.lend()).await;
        let platforms = ["linux/amd64", "linux/arm64"];
        let mut refs = BTreeMap::new();
        let mut metadata = BTreeMap::new();
        let mut attestations = BTreeMap::new();
        for platform in platforms {
            let mut llb = stage.graph();
            let made = llb.text("/platform", platform);
            refs.insert(platform.to_string(), frontend.reference(llb.definition(Some(made))).await.unwrap());
            let (_, architecture) = platform.split_once('/').unwrap();
            let config = serde_json::json!({"os": "linux", "architecture": architecture,
                "config": {"Cmd": [platform]}, "rootfs": {"type": "layers"}});
            metadata.insert(format!("containerimage.config/{platform}"), config.to_string().into_bytes());
            let mut llb = stage.graph();
            let statement = llb.text("/statement.json", "{\"said\": true}");
            let attestation = api::Attestation {
                r#ref: Some(frontend.reference(llb.definition(Some(statement))).await.unwrap()),
                path: "/statement.json".into(),
                in_toto_predicate_type: "https://example.com/said".into(),
                ..api::Attestation::default()
            };
            attestations.insert(platform.to_string(), api::Attestations { attestation: vec![attestation] });
        }
        let listed = platforms.map(|id| {
            let (os, architecture) = id.split_once('/').unwrap();
            serde_json::json!({"ID": id, "Platform": {"os": os, "architecture": architecture}})
        });
        metadata.insert(
            "refs.platforms".into(),
            serde_json::json!({ "Platforms": listed }).to_string().into_bytes(),
        );
        let result = Some(Returned::Refs(api::RefMap { refs }));
        let response = frontend.returns(Some(api::Result { result, metadata, attestations })).await.unwrap();
        assert!(response.exporter_response.contains_key("containerimage.digest"));
        lending.abort();
    });
    let images = Images::archive(&archive);
    let index = images.json(&images.index_json()["manifests"][0]);
    for platform in ["linux/amd64", "linux/arm64"] {
        let entry = Images::entry(&index, platform);
        let manifest = images.json(entry);
        assert_eq!(images.tree(&manifest).text("platform"), platform);
        assert_eq!(images.json(&manifest["config"])["config"]["Cmd"][0], platform);
        let about = |other: &&Value| other["annotations"]["vnd.docker.reference.digest"] == entry["digest"];
        let attestation = images.json(index["manifests"].as_array().unwrap().iter().find(about).unwrap());
        let statement = images.json(&attestation["layers"][0]);
        assert_eq!(
            (&statement["predicateType"], &statement["predicate"]["said"]),
            (&"https://example.com/said".into(), &true.into())
        );
    }
    stage.daemon.stop();
}

#[test]
fn a_client_names_its_exporters_once_the_result_is_there() {
    let stage = Stage::set();
    let archive = stage.scene.path("files.tar");
    conversation(async {
        let (told, mut heard) = tokio::sync::mpsc::unbounded_channel();
        let choose: crosskit_session::ExporterCallback = std::sync::Arc::new(move |metadata, refs| {
            told.send((metadata, refs)).unwrap();
            let exporter = crosskit_session::RequestedExporter { kind: "tar".into(), attrs: BTreeMap::new() };
            Box::pin(async move { Ok(vec![exporter]) })
        });
        let mut outputs = crosskit_session::Outputs::default();
        outputs.add(0, crosskit_session::Output::file(archive.clone()));
        let session = crosskit_session::SessionServer::new(String::new());
        let session = session.with_exporter(choose, None).with_outputs(outputs);
        let request = SolveRequest { enable_session_exporter: true, ..SolveRequest::default() };
        let (mut frontend, lending) = Frontend::begin_asking(&stage.daemon, (request, session)).await;
        let mut llb = stage.graph();
        let made = llb.text("/made", "it");
        let found = frontend.reference(llb.definition(Some(made))).await.unwrap();
        let metadata = BTreeMap::from([("said".to_string(), b"so".to_vec())]);
        let result = Some(Returned::Ref(found));
        frontend.returns(Some(api::Result { result, metadata, ..api::Result::default() })).await.unwrap();
        let (metadata, refs) = heard.recv().await.unwrap();
        assert_eq!((metadata["said"].as_slice(), refs.len()), (b"so".as_slice(), 1));
        lending.abort();
    });
    let mut tree = crosskit_multiarch::Tree::default();
    tree.apply(&std::fs::read(archive).unwrap());
    assert_eq!(tree.text("made"), "it");
    stage.daemon.stop();
}

#[test]
fn a_container_has_hosts_and_its_processes_secrets() {
    let stage = Stage::set();
    conversation(async {
        let ask = Ask::new(&stage.daemon, SolveRequest::default()).secret("key", "hidden");
        let (mut frontend, lending) = Frontend::begin_asking(&stage.daemon, ask.lend()).await;
        let base = frontend.solve(&image(&stage.scene.base(), None, None)).await.unwrap();
        let request = api::NewContainerRequest {
            container_id: "c".into(),
            mounts: vec![pb::Mount { dest: "/".into(), result_id: base, ..pb::Mount::default() }],
            extra_hosts: vec![pb::HostIp { host: "there.example".into(), ip: "10.1.2.3".into() }],
            ..api::NewContainerRequest::default()
        };
        frontend.container_as(request).await.unwrap();
        let mut processes = frontend.processes().await;
        let script = "grep there /etc/hosts; echo $WORD; mkdir /d; echo made > /d/f";
        let secret = pb::SecretEnv { id: "key".into(), name: "WORD".into(), optional: false };
        processes.init("p", "c", script, |init| init.secretenv = vec![secret]).await;
        assert_eq!(processes.end("p").await.out, "10.1.2.3\tthere.example\nhidden\n");
        // What is in it can be looked at from outside.
        assert_eq!(frontend.read("c", 0, "/d/f").await.unwrap(), b"made\n");
        let (id, path) = ("c".to_string(), "/d".to_string());
        let call =
            frontend.call(api::ReadDirRequest { r#ref: id.clone(), dir_path: path, ..Default::default() });
        let entries = frontend.bridge.read_dir_container(call).await.unwrap().into_inner().entries;
        assert_eq!(entries.iter().map(|e| (e.path.as_str(), e.size)).collect::<Vec<_>>(), [("f", 5)]);
        let call =
            frontend.call(api::StatFileRequest { r#ref: id, path: "/d/f".into(), ..Default::default() });
        let stat = frontend.bridge.stat_file_container(call).await.unwrap().into_inner().stat.unwrap();
        assert_eq!((stat.path.as_str(), stat.size), ("f", 5));
        frontend.end().await;
        lending.abort();
    });
    stage.daemon.stop();
}
