//! Frontends in images: what they are told, what they may return, and who may ask for them.

#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

#[path = "gateway/frontend.rs"]
mod frontend;
#[path = "frontends/image.rs"]
mod image;

use crosskit_api::errors::ErrorDetails;
use crosskit_api::frontend as api;
use crosskit_multiarch::{Buildx, Daemon, DaemonOptions, Images, Ran, Scene};
use frontend::{Frontend, conversation};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

const FORWARDED: &str = "moby.buildkit.frontend.contexts+forward";

/// Builds with a frontend's image and these options into a folder.
fn build(daemon: &Daemon, out: &Path, source: &str, options: &[&str], more: &[&str]) -> Ran {
    let _ = std::fs::remove_dir_all(out);
    let (source, output) = (format!("source={source}"), format!("type=local,dest={}", out.display()));
    let mut arguments = vec!["build", "--progress", "plain", "--frontend", "gateway.v0", "--opt", &source];
    arguments.extend(options.iter().flat_map(|option| ["--opt", option]));
    arguments.extend(["--output", &output]);
    arguments.extend(more);
    daemon.buildctl(&arguments)
}

/// What the frontend was told, as it wrote it down.
fn told(out: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(out.join("told.json")).unwrap()).unwrap()
}

#[test]
fn it_is_told_what_it_is_for() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let source = image::push(&scene, "teller", &json!({}));
    let out = scene.path("out");
    build(&daemon, &out, &source, &["word=two words", "empty="], &[]).ok();
    let all = told(&out);
    assert_eq!(all["options"], json!({ "source": source, "word": "two words", "empty": "" }));
    assert_eq!((&all["folder"], &all["inputs"]), (&json!("/lib"), &json!([])));
    let environment = &all["environment"];
    assert_eq!((&environment["PATH"], &environment["FROM_IMAGE"]), (&json!("/bin"), &json!("yes")));
    assert_eq!(environment["BUILDKIT_EXPORTEDPRODUCT"], "buildkit");
    assert!(!environment["BUILDKIT_SESSION_ID"].as_str().unwrap().is_empty());
    let workers: Value = serde_json::from_str(environment["BUILDKIT_WORKERS"].as_str().unwrap()).unwrap();
    let platform = &workers[0]["Platforms"][0];
    assert_eq!(platform["architecture"], crosskit_platforms::native().architecture.as_str());
    assert!(workers[0]["ID"].is_string() && workers[0]["Labels"].is_object(), "{workers}");
    assert!(all["graph"].as_u64().unwrap() > 0, "the graph that made it");
    assert!(all["interfaces"].as_array().unwrap().len() > 1, "{all}");

    for (value, closed) in [("T", true), ("FALSE", false), ("yes", false)] {
        let labels = json!({ "moby.buildkit.frontend.network.none": value });
        let source = image::push(&scene, &format!("alone-{}", value.to_lowercase()), &labels);
        build(&daemon, &out, &source, &[], &[]).ok();
        assert_eq!(told(&out)["interfaces"] == json!(["lo"]), closed, "{value}");
    }
    build(&daemon, &out, &source, &["gateway-devel="], &[])
        .fails()
        .says("development gateway is no longer supported");
    daemon.stop();
}

#[test]
fn its_label_says_what_it_can_do() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let labels = json!({ "moby.buildkit.frontend.caps": "moby.buildkit.frontend.contexts,own+later" });
    let source = image::push(&scene, "able", &labels);
    let out = scene.path("out");
    build(&daemon, &out, &source, &[&format!("frontend.caps={FORWARDED}")], &[]).ok();
    build(&daemon, &out, &source, &["frontend.caps=own"], &[]).ok();
    build(&daemon, &out, &source, &["frontend.caps=moby.buildkit.frontend.other+forward"], &[])
        .fails()
        .says("unsupported frontend capability moby.buildkit.frontend.other");
    daemon.stop();
}

#[test]
fn a_dockerfile_and_a_build_argument_can_ask_for_it() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let labels = json!({ "moby.buildkit.frontend.caps": "moby.buildkit.frontend.contexts,own" });
    let source = image::push(&scene, "wanted", &labels);
    let by_file = scene.context("file", &[("Dockerfile", &format!("# syntax={source} tell more\n"))]);
    let plain = scene.context("plain", &[("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n")]);
    let out = scene.path("out");
    // The builtin frontend lacks `own`: that matters only where nobody else is asked.
    let caps = format!("{FORWARDED},own+forward");
    let other = scene.context("other", &[("Dockerfile", "FROM scratch\n")]);
    let context = format!("local:{}", other.display());
    daemon.build(&by_file).opt("frontend.caps", &caps).opt("context:other", &context).into(&out).run().ok();
    let options = told(&out)["options"].clone();
    assert_eq!(options["cmdline"], format!("{source} tell more"));
    assert_eq!((&options["source"], &options["context:other"]), (&json!(source), &json!(context)));

    std::fs::remove_dir_all(&out).unwrap();
    let asked = format!("{source} tell");
    daemon
        .build(&plain)
        .opt("build-arg:BUILDKIT_SYNTAX", &asked)
        .opt("frontend.caps", &caps)
        .into(&out)
        .run()
        .ok();
    assert_eq!(told(&out)["options"]["cmdline"], asked);

    for caps in [&caps[..], "own"] {
        daemon
            .build(&plain)
            .opt("frontend.caps", caps)
            .run()
            .fails()
            .says("unsupported frontend capability own");
    }
    daemon
        .build(&by_file)
        .opt("frontend.caps", "own")
        .run()
        .fails()
        .says("unsupported frontend capability own");
    // The answer that a frontend's own failure gets tells who asked for it.
    let said = daemon.build(&by_file).opt("deed", "error").run().fails();
    said.says("the frontend does not want to").says("Dockerfile:1").never_says("failed with");
    let said =
        daemon.build(&plain).opt("build-arg:BUILDKIT_SYNTAX", &asked).opt("deed", "error").run().fails();
    said.says(&format!("failed with build-arg:BUILDKIT_SYNTAX = {asked}: the frontend does not want to"))
        .never_says("Dockerfile:1");
    daemon.stop();
}

#[test]
fn what_it_returns_counts_only_if_it_ends_well() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let source = image::push(&scene, "ender", &json!({}));
    let out = scene.path("out");
    let deed = |deed: &str| build(&daemon, &out, &source, &[&format!("deed={deed}"), "code=5"], &[]);
    deed("error").fails().says("the frontend does not want to").never_says("exit code");
    deed("exit").fails().says("exit code: 5");
    deed("fail-late").fails().says("exit code: 7");
    deed("twice").ok();
    build(&daemon, &out, &source, &["deed=exit", "code=0"], &[])
        .fails()
        .says("no result for incomplete build");
    daemon.stop();
}

#[test]
fn its_image_can_be_a_context_of_the_request() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let labels = json!({ "moby.buildkit.frontend.caps": "moby.buildkit.frontend.inputs" });
    let source = image::push(&scene, "lent", &labels);
    let out = scene.path("out");
    let native = crosskit_platforms::native().format_all();
    for (name, key) in [
        ("dockerfile.v0", "dockerfile.v0".to_string()),
        ("example.org/none", format!("example.org/none::{native}")),
        ("example.org/none:latest", "example.org/none".to_string()),
    ] {
        let context = format!("context:{key}=docker-image://{source}");
        build(&daemon, &out, name, &[&context, "word=x"], &[]).ok();
        let options = told(&out)["options"].clone();
        assert_eq!((&options["source"], &options["word"]), (&json!(name), &json!("x")));
    }
    build(&daemon, &out, "example.org/none", &["context:example.org/none=docker-image://scratch"], &[])
        .fails()
        .says("gateway source didn't return default result");
    // An image of the client, which no registry has.
    let layout = scene.path("layout");
    let digest = image::write(&scene, &layout, &labels);
    let context = format!("context:own=oci-layout://store@{digest}");
    let layout = format!("store={}", layout.display());
    build(&daemon, &out, "own", &[&context], &["--oci-layout", &layout]).ok();
    assert_eq!(told(&out)["environment"]["FROM_IMAGE"], "yes");
    // A result of the same build, with what is said of it.
    conversation(async {
        let mut frontend = Frontend::begin(&daemon, &[]).await;
        let image = frontend::image(&source, None, None).to_definition();
        let config = json!({ "architecture": "amd64", "os": "linux", "config": image::config(&labels) });
        let metadata = json!({ "containerimage.config": base64(&config.to_string()) });
        let options = [
            ("source", "own"),
            ("context:own", "input:made"),
            ("input-metadata:made", &metadata.to_string()),
        ];
        let mut request = ask(&options);
        request.frontend_inputs = BTreeMap::from([("made".to_string(), image)]);
        let call = frontend.call(request);
        let answer = frontend.bridge.solve(call).await.unwrap().into_inner();
        let told = read(&mut frontend, &id_of(&answer)).await;
        assert_eq!((&told["inputs"], &told["folder"]), (&json!(["made"]), &json!("/lib")));
        frontend.end().await;
    });
    daemon.stop();
}

/// A call of a frontend in an image.
fn ask(options: &[(&str, &str)]) -> api::SolveRequest {
    let options = options.iter().map(|(key, value)| ((*key).to_string(), (*value).to_string()));
    api::SolveRequest {
        frontend: "gateway.v0".into(),
        frontend_opt: options.collect(),
        allow_result_return: true,
        allow_result_array_ref: true,
        ..api::SolveRequest::default()
    }
}

fn base64(text: &str) -> String {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let group = |bytes: &[u8]| -> String {
        let number = (0..3).fold(0, |n, at| n << 8 | usize::from(*bytes.get(at).unwrap_or(&0)));
        let digit = |at: usize| match at <= bytes.len() {
            true => char::from(DIGITS[number >> (18 - 6 * at) & 63]),
            false => '=',
        };
        (0..4).map(digit).collect()
    };
    text.as_bytes().chunks(3).map(group).collect()
}

fn id_of(answer: &api::SolveResponse) -> String {
    match answer.result.as_ref().unwrap().result.as_ref().unwrap() {
        api::result::Result::Ref(found) => found.id.clone(),
        other => panic!("not a single result: {other:?}"),
    }
}

/// What a frontend was told, from its result.
async fn read(frontend: &mut Frontend, id: &str) -> Value {
    let request =
        api::ReadFileRequest { r#ref: id.into(), file_path: "told.json".into(), ..Default::default() };
    let call = frontend.call(request);
    serde_json::from_slice(&frontend.bridge.read_file(call).await.unwrap().into_inner().data).unwrap()
}

#[test]
fn another_frontend_gets_what_it_attests() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let source = image::push(&scene, "witness", &json!({}));
    let name = scene.registry.reference("attested:1");
    let native = crosskit_platforms::native().format_all();
    conversation(async {
        let exporter = crosskit_api::control::Exporter {
            r#type: "image".into(),
            attrs: BTreeMap::from([("name".into(), name), ("push".into(), "true".into())]),
        };
        let request = crosskit_api::control::SolveRequest { exporters: vec![exporter], ..Default::default() };
        let mut frontend = Frontend::begin_for(&daemon, request).await;
        let call = frontend.call(ask(&[("source", &source), ("deed", "attest"), ("platform-id", &native)]));
        let answer = frontend.bridge.solve(call).await.unwrap().into_inner();
        let mut result = answer.result.clone().unwrap();
        let [predicate, bundle] = &result.attestations[&native].attestation[..] else { panic!("{result:?}") };
        assert_eq!(predicate.in_toto_predicate_type, "https://example.org/told");
        assert_eq!((predicate.path.as_str(), &predicate.metadata["reason"][..]), ("told.json", &b"told"[..]));
        assert_eq!(predicate.in_toto_subjects.len(), 1);
        // There is always a result, and an empty one has no id: the library of clients looks no further.
        assert_eq!(
            (bundle.kind(), bundle.r#ref.as_ref().unwrap().id.as_str()),
            (api::AttestationKind::Bundle, "")
        );
        let kept = predicate.r#ref.clone().unwrap();
        assert!(kept.id != id_of(&answer) && kept.def.is_some());
        assert_eq!(read(&mut frontend, &kept.id).await["options"]["deed"], "attest");
        // What came can be returned.
        result.attestations.get_mut(&native).unwrap().attestation.truncate(1);
        let platforms = json!({ "Platforms": [{ "ID": native, "Platform": crosskit_platforms::native() }] });
        result.metadata.insert("refs.platforms".into(), platforms.to_string().into_bytes());
        frontend.returns(Some(result)).await.unwrap();
    });
    let index: Value = serde_json::from_slice(&scene.registry.manifest("attested", "1").unwrap()).unwrap();
    let images = Images::Repository(&scene.registry, "attested".into());
    let attested = index["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .find(|entry| entry["annotations"]["vnd.docker.reference.type"] == "attestation-manifest");
    let manifest = images.json(attested.unwrap_or_else(|| panic!("{index}")));
    let statement = images.json(&manifest["layers"][0]);
    assert_eq!(statement["predicateType"], "https://example.org/told");
    assert_eq!(statement["predicate"]["options"]["deed"], "attest");
    daemon.stop();
}

#[test]
fn a_failure_tells_which_frontends_it_came_through() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let source = image::push(&scene, "refuser", &json!({}));
    conversation(async {
        let mut frontend = Frontend::begin(&daemon, &[]).await;
        let call = frontend.call(ask(&[("source", &source), ("deed", "error")]));
        let failed = frontend.bridge.solve(call).await.unwrap_err();
        assert_eq!(failed.message(), "the frontend does not want to");
        let through = |status: &tonic::Status| -> Vec<(String, String)> {
            let frontends = ErrorDetails::from_status(status).frontends;
            frontends.into_iter().map(|frontend| (frontend.name, frontend.source)).collect()
        };
        assert_eq!(through(&failed), [("gateway.v0".into(), source.clone())]);
        let unknown = api::SolveRequest { frontend: "none.v0".into(), ..ask(&[]) };
        let call = frontend.call(unknown);
        assert_eq!(through(&frontend.bridge.solve(call).await.unwrap_err()), []);
        // Clients mean no graph by an empty one.
        let definition = Some(crosskit_api::pb::Definition::default());
        let call = frontend.call(api::SolveRequest { definition, ..ask(&[("source", &source)]) });
        let answer = frontend.bridge.solve(call).await.unwrap().into_inner();
        assert_eq!(read(&mut frontend, &id_of(&answer)).await["options"], json!({ "source": source }));
        frontend.end().await;
    });
    daemon.stop();
}

#[test]
fn it_can_ask_other_frontends() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let source = image::push(&scene, "asker", &json!({}));
    let context = scene.context(
        "c",
        &[
            ("Dockerfile", &format!("# syntax={source} build\nFROM scratch\nCOPY made /\n")),
            ("made", "by a frontend\n"),
        ],
    );
    let out = scene.path("out");
    daemon.build(&context).into(&out).run().ok();
    assert_eq!(std::fs::read_to_string(out.join("made")).unwrap(), "by a frontend\n");
    let platforms = daemon.build(&context).platforms(&["linux/amd64", "linux/arm64"]).into(&out).run();
    platforms.ok();
    assert_eq!(std::fs::read_to_string(out.join("linux_arm64/made")).unwrap(), "by a frontend\n");
    build(&daemon, &out, &source, &["deed=nest", &format!("inner={source}")], &[]).ok();
    assert_eq!(told(&out)["options"]["deed"], "tell");

    // Those who build with buildx do the same.
    let buildx = Buildx::create(&scene, &daemon);
    let _ = std::fs::remove_dir_all(&out);
    let output = format!("type=local,dest={}", out.display());
    let text = context.display().to_string();
    let other = format!("other={}", scene.context("other", &[("file", "")]).display());
    buildx.run(&["build", "--provenance=false", "-o", &output, &text]).ok();
    assert_eq!(std::fs::read_to_string(out.join("made")).unwrap(), "by a frontend\n");
    let syntax = format!("BUILDKIT_SYNTAX={source} tell");
    let refused =
        buildx.run(&["build", "--build-context", &other, "--build-arg", &syntax, "-o", &output, &text]);
    // It knows by the detail of the error what is missing.
    refused.fails().says("current frontend does not support --build-context");
    let labels = json!({ "moby.buildkit.frontend.caps": "moby.buildkit.frontend.contexts" });
    let syntax = format!("BUILDKIT_SYNTAX={} tell", image::push(&scene, "abler", &labels));
    buildx
        .run(&[
            "build",
            "--provenance=false",
            "--build-context",
            &other,
            "--build-arg",
            &syntax,
            "-o",
            &output,
            &text,
        ])
        .ok();
    assert_eq!(told(&out)["options"]["context:other"], "local:other");
    daemon.stop();
}

#[test]
fn the_daemon_says_which_frontends_there_are() {
    let scene = Scene::set();
    let source = image::push(&scene, "allowed", &json!({}));
    let other = image::push(&scene, "other", &json!({}));
    let out = scene.path("out");
    let repository = scene.registry.reference("allowed");
    let config = format!(
        "[frontend.\"gateway.v0\"]\n  allowedRepositories = [\"{repository}\"]\n[frontend.\"dockerfile.v0\"]\n  enabled = false\n"
    );
    let daemon = scene.daemon_with(DaemonOptions { config, ..DaemonOptions::default() });
    build(&daemon, &out, &source, &[], &[]).ok();
    build(&daemon, &out, &other, &[], &[])
        .fails()
        .says(&format!("'{other}' is not an allowed gateway source"));
    // The name counts, whatever a context makes of it.
    let lent = format!("context:{other}=docker-image://{source}");
    build(&daemon, &out, &other, &[&lent], &[]).fails().says("is not an allowed gateway source");
    let plain = scene.context("plain", &[("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n")]);
    daemon.build(&plain).run().fails().says("dockerfile.v0 is disabled");
    daemon.stop();

    let config = "[frontend.\"gateway.v0\"]\n  enabled = false\n".to_string();
    let daemon = scene.daemon_with(DaemonOptions { config, ..DaemonOptions::default() });
    build(&daemon, &out, &source, &[], &[]).fails().says("gateway.v0 is disabled");
    let by_file = scene.context("file", &[("Dockerfile", &format!("# syntax={source}\n"))]);
    daemon.build(&by_file).run().fails().says("gateway.v0 is disabled").says("Dockerfile:1");
    daemon.build(&plain).run().ok();
    daemon.stop();
}

#[test]
fn source_policies_hold_for_its_image() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let source = image::push(&scene, "asked", &json!({}));
    let config = json!({ "Entrypoint": ["/frontend"], "Env": ["FROM_IMAGE=another"] });
    let instead = image::push_as(&scene, "instead", &config);
    let (out, policy) = (scene.path("out"), scene.path("policy.json"));
    let file = policy.display().to_string();
    let identifier = format!("docker-image://{source}");
    let selector = json!({ "identifier": identifier, "match_type": "EXACT" });
    let with = |rule: Value| {
        std::fs::write(&policy, json!({ "version": 1, "rules": [rule] }).to_string()).unwrap();
        build(&daemon, &out, &source, &[], &["--source-policy-file", &file])
    };
    with(json!({ "action": "DENY", "selector": selector })).fails().says("denied by policy");
    let updates = json!({ "identifier": format!("docker-image://{instead}") });
    with(json!({ "action": "CONVERT", "selector": selector, "updates": updates })).ok();
    assert_eq!(told(&out)["environment"]["FROM_IMAGE"], "another");
    assert_eq!(told(&out)["folder"], "/");
    daemon.stop();
}
