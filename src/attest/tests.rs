use crate::attestation::Subject;
use crate::{
    Asked, AttestError, Capture, Circumstances, Mode, Named, Predicate, Provenance, Request, Sbom, Slsa,
    Statement,
};
use crate::{BuildConfig, image_url, supplemented, without_builtin_scan};
use crosskit_api::pb;
use crosskit_llb::Digest;
use crosskit_platforms::Platform;
use crosskit_sources::Material;
use prost::Message as _;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};

fn map(list: &[(&str, &str)]) -> BTreeMap<String, String> {
    list.iter().map(|(k, v)| ((*k).to_string(), (*v).to_string())).collect()
}

fn asked(list: &[(&str, &str)]) -> Result<Asked, AttestError> {
    Asked::parse(&map(list), |record| Ok(record.split(',').map(str::to_string).collect()))
}

fn image(reference: &str, platform: Option<Platform>) -> Material {
    Material::Image { reference: reference.into(), platform, digest: "sha256:ab".into(), local: false }
}

#[test]
fn options_are_read_as_the_field_writes_them() {
    assert_eq!(
        asked(&[("attest:provenance", "disabled=true"), ("filename", "x")]).unwrap(),
        Asked::default()
    );
    let provenance =
        |text: &str| asked(&[("attest:provenance", text)]).map(|asked| asked.provenance.unwrap());
    assert_eq!((provenance("").unwrap().mode, provenance("").unwrap().slsa), (Mode::Max, Slsa::V1));
    let set = provenance("mode=min,version=v0.2,inline-only=true,builder-id=b").unwrap();
    assert_eq!((set.mode, set.slsa, set.inline_only), (Mode::Min, Slsa::V02, true));
    for (text, error) in [
        ("mode=some", "invalid mode \"some\""),
        ("version=v9", "invalid provenance SLSA version: v9"),
        ("reproducible=x", "failed to parse reproducible flag \"x\": use true or false"),
        ("filename=a/b", "invalid provenance filename \"a/b\": a name without folders is needed"),
    ] {
        assert_eq!(provenance(text).unwrap_err().to_string(), error);
    }
    let sbom = asked(&[("build-arg:BUILDKIT_ATTEST_SBOM", "generator=g,SCAN=x")]).unwrap().sbom.unwrap();
    assert_eq!((sbom.generator.as_str(), sbom.parameters), ("g", map(&[("SCAN", "x")])));
    let builtin = asked(&[("attest:sbom", "type=sbom,generator=builtin")]).unwrap().sbom.unwrap();
    assert!(builtin.is_builtin() && !Sbom { generator: "builtin:latest".into(), ..builtin }.is_builtin());
    let refused = asked(&[("attest:sbom", "generator=builtin,SCAN=x")]).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "sbom generator builtin has no option \"SCAN\": leave it out, or name an image as generator"
    );
    assert_eq!(asked(&[("attest:vex", "")]).unwrap_err(), AttestError::UnknownKind("vex".into()));
}

#[test]
fn frontends_that_are_no_part_of_the_daemon_do_not_hear_of_its_scanner() {
    let left = |key: &str, value: &str| {
        let mut options = map(&[(key, value)]);
        without_builtin_scan(&mut options);
        options.len()
    };
    assert_eq!(left("attest:sbom", "type=sbom,generator=builtin"), 0);
    assert_eq!(left("build-arg:BUILDKIT_ATTEST_SBOM", "generator=builtin"), 0);
    for (key, value) in [
        ("attest:sbom", "generator=builtin:latest"),
        ("attest:provenance", "builder-id=generator=builtin"),
        ("build-arg:SBOM", "generator=builtin"),
    ] {
        assert_eq!(left(key, value), 1, "{key}={value}");
    }
}

#[test]
fn images_have_package_urls() {
    let arm = Platform::new("linux", "arm64", "");
    let digest = format!("sha256:{}", "ab".repeat(32));
    let pinned = format!("docker.io/library/alpine:3@{digest}");
    for (name, platform, url) in [
        ("alpine", None, "pkg:docker/alpine@latest".to_string()),
        (
            "localhost:5000/a/b:v1",
            Some(&arm),
            "pkg:docker/localhost%3A5000/a/b@v1?platform=linux%2Farm64".into(),
        ),
        (&pinned, None, format!("pkg:docker/alpine@3?digest={digest}")),
    ] {
        assert_eq!(image_url("docker", name, platform, &[]).unwrap(), url);
    }
    assert!(matches!(image_url("docker", "A b", None, &[]), Err(AttestError::Reference { .. })));
}

fn predicate(capture: &Capture, asked: &Provenance) -> Value {
    let about = Circumstances {
        started: "2024-01-01T00:00:00Z".into(),
        invocation: "i".into(),
        builder_platform: "linux/amd64".into(),
        ..Circumstances::default()
    };
    let predicate = Predicate::new(capture, asked, about, BuildConfig::default).unwrap();
    serde_json::from_slice(&predicate.to_json("2024-01-01T00:00:01Z", BTreeMap::new())).unwrap()
}

fn captured() -> Capture {
    let mut capture = Capture::default();
    capture.add(image("docker.io/library/alpine:latest", None));
    capture.add(image(&format!("docker.io/library/alpine@sha256:{}", "0".repeat(64)), None));
    capture.add(Material::Git {
        url: "https://u:p@h/r.git#main".into(),
        commit: "c".repeat(40),
        bundle: None,
        secrets: vec!["GIT_AUTH_TOKEN".into()],
        ssh: None,
    });
    capture.request.frontend = "dockerfile.v0".into();
    capture.request.args = crate::filtered_arguments(&map(&[
        ("context", "https://u:p@h/r.git#main:sub"),
        ("filename", "Dockerfile.x"),
        ("platform", "linux/amd64"),
        ("build-arg:TOKEN", "hidden"),
        ("build-arg:URL", "db=postgres://u:p@h/d https://t@h/x"),
        ("vcs:revision", "123"),
        ("target", "t"),
    ]));
    capture.settle().unwrap();
    capture
}

#[test]
fn provenance_tells_where_everything_came_from_and_no_password() {
    let told = predicate(&captured(), &Provenance::default());
    let definition = &told["buildDefinition"];
    let uris: Vec<&str> = definition["resolvedDependencies"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|d| d["uri"].as_str())
        .collect();
    assert_eq!(uris, ["pkg:docker/alpine@latest", "https://xxxxx:xxxxx@h/r.git#main"]);
    let external = &definition["externalParameters"];
    assert_eq!(external["configSource"]["uri"], "https://xxxxx:xxxxx@h/r.git#main:sub");
    assert_eq!(external["configSource"]["digest"]["sha1"], "c".repeat(40));
    assert_eq!(external["configSource"]["path"], "Dockerfile.x");
    assert_eq!(
        external["request"]["args"],
        json!({
        "build-arg:TOKEN": "hidden", "build-arg:URL": "db=postgres://xxxxx:xxxxx@h/d https://xxxxx@h/x", "target": "t"})
    );
    let metadata = &told["runDetails"]["metadata"];
    assert_eq!(metadata["buildkit_metadata"]["vcs"]["revision"], "123");
    assert_eq!(metadata["buildkit_completeness"], json!({"request": true, "resolvedDependencies": true}));
    assert_eq!(metadata["buildkit_hermetic"], true, "no step had a network");
    assert!(!told.to_string().contains("u:p@"));
}

#[test]
fn graphs_and_files_tell_no_password_of_an_address() {
    let step = |op: pb::op::Op, input: Option<&Digest>| {
        let inputs = input.map(|digest| pb::Input { digest: digest.to_string(), index: 0 });
        pb::Op { op: Some(op), inputs: inputs.into_iter().collect(), ..pb::Op::default() }.encode_to_vec()
    };
    let secret = || "https://u:p@h/x".to_string();
    let meta = pb::Meta {
        args: vec!["sh".into(), "-c".into(), format!("curl {}", secret())],
        env: vec![format!("URL={}", secret())],
        proxy_env: Some(pb::ProxyEnv { http_proxy: secret(), ..pb::ProxyEnv::default() }),
        ..pb::Meta::default()
    };
    let written = pb::FileActionMkFile { data: secret().into_bytes(), ..pb::FileActionMkFile::default() };
    let action = pb::FileAction {
        action: Some(pb::file_action::Action::Mkfile(written)),
        ..pb::FileAction::default()
    };
    let first = step(pb::op::Op::Exec(pb::ExecOp { meta: Some(meta), ..pb::ExecOp::default() }), None);
    let second = step(pb::op::Op::File(pb::FileOp { actions: vec![action] }), Some(&Digest::of(&first)));
    let last = pb::Op {
        inputs: vec![pb::Input { digest: Digest::of(&second).to_string(), index: 0 }],
        ..pb::Op::default()
    };
    let info =
        pb::SourceInfo { data: format!("ADD {} /", secret()).into_bytes(), ..pb::SourceInfo::default() };
    let definition = pb::Definition {
        def: vec![first, second, last.encode_to_vec()],
        source: Some(pb::Source { infos: vec![info], ..pb::Source::default() }),
        ..pb::Definition::default()
    };
    let config = BuildConfig::of(&definition);
    let told = serde_json::to_string(&(config.steps, config.source)).unwrap();
    assert!(told.contains("URL=https://xxxxx:xxxxx@h/x") && told.contains("curl https://xxxxx"), "{told}");
    let base64 = |text: &str| crosskit_api::graph_json::base64(text.as_bytes());
    assert!(told.contains(&base64("ADD https://xxxxx:xxxxx@h/x /")), "{told}");
    assert!(told.contains(&base64("https://xxxxx:xxxxx@h/x")), "{told}");
    assert!(!told.contains("u:p"), "{told}");
}

#[test]
fn the_short_form_tells_no_arguments() {
    let told =
        predicate(&captured(), &Provenance { mode: Mode::Min, slsa: Slsa::V02, ..Provenance::default() });
    assert_eq!(told["invocation"]["parameters"]["args"], json!({"target": "t"}));
    assert!(told["invocation"]["parameters"].get("secrets").is_none());
    assert_eq!(told["metadata"]["completeness"]["parameters"], false, "something was left out");
    assert_eq!(told["metadata"]["buildFinishedOn"], "2024-01-01T00:00:01Z");
    assert!(told.get("buildConfig").is_none());
}

#[test]
fn a_client_s_folder_is_no_exact_material() {
    let mut capture = captured();
    capture.add(Material::Local { name: "context".into() });
    let asked = Provenance { complete_materials: true, ..Provenance::default() };
    let refused =
        Predicate::new(&capture, &asked, Circumstances::default(), BuildConfig::default).unwrap_err();
    assert!(refused.to_string().contains("- context\n    reason: local_source"), "{refused}");
    assert_eq!(
        predicate(&capture, &Provenance::default())["runDetails"]["metadata"]["buildkit_completeness"]["resolvedDependencies"],
        false
    );
}

#[test]
fn requests_that_brought_something_unknown_are_told() {
    let mut capture = captured();
    capture.proxied = true;
    let metadata = |capture: &Capture| {
        predicate(capture, &Provenance::default())["runDetails"]["metadata"]["buildkit_metadata"]["network"]
            .clone()
    };
    assert_eq!(metadata(&capture), json!({"mode": "proxy"}));
    let request = Request {
        op: "sha256:1".into(),
        name: "wget".into(),
        method: "POST".into(),
        uri: "http://h/x".into(),
        reason: "method_not_materializable".into(),
    };
    capture.unknown.push(request.clone());
    let told = metadata(&capture)["proxy"]["incomplete"][0].clone();
    assert_eq!(told, serde_json::to_value(&request).unwrap());
    let asked = Provenance { complete_materials: true, ..Provenance::default() };
    let refused =
        Predicate::new(&capture, &asked, Circumstances::default(), BuildConfig::default).unwrap_err();
    let text = "Uncaptured requests:\n  - wget\n    method: POST\n    url: http://h/x\n    reason: method_not_materializable";
    assert!(refused.to_string().ends_with(text), "{refused}");
}

#[test]
fn statements_say_what_they_are_about() {
    let own = [Named { name: "image".into(), digest: map(&[("sha256", "ab")]) }];
    let about = [
        Subject::Own { name: "other".into() },
        Subject::Raw { name: String::new(), digests: vec!["sha256:cd".into()] },
    ];
    let statement = Statement::new("https://example.invalid/p", b"{ \"a\" : 1 }", &about, &own).unwrap();
    let told: Value = serde_json::from_slice(&statement.to_json().unwrap()).unwrap();
    let names: Vec<&str> =
        told["subject"].as_array().unwrap().iter().filter_map(|s| s["name"].as_str()).collect();
    assert_eq!(names, ["image", "other", "_"]);
    assert_eq!(
        (&told["_type"], &told["predicate"]["a"]),
        (&json!("https://in-toto.io/Statement/v1"), &json!(1))
    );
    assert!(Statement::new("t", b"{", &[], &own).is_err());
    assert!(Statement::read("x", b"{}{}").is_err());
    let unbound = br#"{"_type": "x", "subject": null, "predicate": 1}"#;
    assert!(Statement::read("x", unbound).unwrap().subjects().is_empty());
}

#[test]
fn a_scan_learns_which_layer_a_file_is_in() {
    let layers = HashMap::from([("/bin/a".to_string(), "sha256:ab".to_string())]);
    let scan = json!({"spdxVersion": "SPDX-2.3", "creationInfo": {"creators": ["Tool: s"]},
        "files": [{"fileName": "bin/a"}, {"fileName": "/bin/a", "comment": "mine"}, {"fileName": "/none"}]});
    let told = supplemented(scan.to_string().as_bytes(), &layers, "crosskit").unwrap();
    let told: Value = serde_json::from_slice(&told).unwrap();
    assert_eq!(told["files"][0]["comment"], "layerID: sha256:ab");
    assert_eq!(told["files"][1]["comment"], "mine");
    assert_eq!(told["creationInfo"]["creators"], json!(["Tool: s", "Tool: crosskit"]));
    assert_eq!(supplemented(b"[]", &layers, "crosskit"), None);
    let bare = json!({"spdxVersion": "SPDX-2.3", "creationInfo": null, "files": [{"fileName": "/bin/a"}]});
    let told = supplemented(bare.to_string().as_bytes(), &layers, "crosskit").unwrap();
    let told: Value = serde_json::from_slice(&told).unwrap();
    assert_eq!(told["files"][0]["comment"], "layerID: sha256:ab");
    assert_eq!(told["creationInfo"]["creators"], json!(["Tool: crosskit"]));
}
