//! What is attested of results: provenance beside images and files, scans by images.

use crosskit_multiarch::{Images, Scene, Tree, digest_of};
use serde_json::Value;

const TWO: [&str; 2] = ["linux/amd64", "linux/riscv64"];

/// The statements that an index has about the image of a platform.
fn statements(images: &Images<'_>, index: &Value, platform: &str) -> Vec<Value> {
    let about = &Images::entry(index, platform)["digest"];
    let entries = index["manifests"].as_array().expect("manifests");
    let entry = entries
        .iter()
        .find(|entry| entry["annotations"]["vnd.docker.reference.digest"] == *about)
        .unwrap_or_else(|| panic!("nothing is attested of {platform}: {index}"));
    assert_eq!(entry["annotations"]["vnd.docker.reference.type"], "attestation-manifest");
    assert_eq!(Images::platform_of(entry), "unknown/unknown");
    let manifest = images.json(entry);
    assert_eq!(manifest["subject"]["digest"], *about);
    assert_eq!(manifest["artifactType"], "application/vnd.docker.attestation.manifest.v1+json");
    let layers = manifest["layers"].as_array().expect("layers");
    layers
        .iter()
        .map(|layer| {
            let statement = images.json(layer);
            assert_eq!(layer["mediaType"], "application/vnd.in-toto+json");
            assert_eq!(layer["annotations"]["in-toto.io/predicate-type"], statement["predicateType"]);
            assert_eq!(statement["_type"], "https://in-toto.io/Statement/v1");
            statement
        })
        .collect()
}

fn only(statements: Vec<Value>) -> Value {
    assert_eq!(statements.len(), 1, "{statements:?}");
    statements.into_iter().next().expect("a statement")
}

#[test]
fn provenance_of_each_platform_is_beside_its_image() {
    let scene = Scene::set();
    let environment = scene.path("said");
    std::fs::create_dir_all(&environment).unwrap();
    std::fs::write(environment.join("farm.json"), "{\"farm\": \"north\"}").unwrap();
    let config = format!("provenanceEnvDir = {:?}\n", environment.display().to_string());
    let daemon = scene.daemon_with(crosskit_multiarch::DaemonOptions { config, ..Default::default() });
    let other = scene.registry.reference("other:1");
    let copied = scene.context("o", &[("Dockerfile", "FROM scratch\nCOPY file /\n"), ("file", "1")]);
    daemon.build(&copied).platforms(&TWO).output(&format!("type=image,name={other},push=true")).run().ok();
    let dockerfile = format!(
        "FROM {other} AS other\nFROM BASE\nARG WORD\nARG FROM_WHERE\n\
         RUN --mount=type=secret,id=key echo $WORD > /word\nCOPY --from=other /file /file\n"
    );
    let context = scene.context("c", &[("Dockerfile", &dockerfile)]);
    let secret = scene.path("key");
    std::fs::write(&secret, "hidden").unwrap();
    let name = scene.registry.reference("attested:1");
    let build = |mode: &str| {
        daemon
            .build(&context)
            .platforms(&TWO)
            .opt("build-arg:WORD", "there")
            .opt("build-arg:FROM_WHERE", "https://me:unspeakable@example.com/x")
            .opt("vcs:source", "https://me:unspeakable@example.com/r.git")
            .opt("attest:provenance", mode)
            .argument("--secret")
            .argument(&format!("id=key,src={}", secret.display()))
            .output(&format!("type=image,name={name},push=true"))
            .run()
            .ok();
        let images = Images::Repository(&scene.registry, "attested".into());
        let index: Value =
            serde_json::from_slice(&scene.registry.manifest("attested", "1").unwrap()).unwrap();
        (images, index)
    };
    let (images, index) = build("mode=max");
    for platform in TWO {
        let statement = only(statements(&images, &index, platform));
        assert_eq!(statement["predicateType"], "https://slsa.dev/provenance/v1");
        let digest = Images::entry(&index, platform)["digest"].as_str().unwrap().replace("sha256:", "");
        assert_eq!(statement["subject"][0]["digest"]["sha256"], digest);
        let url = statement["subject"][0]["name"].as_str().unwrap();
        assert!(url.ends_with(&format!("/attested@1?platform={}", platform.replace('/', "%2F"))), "{url}");
        let definition = &statement["predicate"]["buildDefinition"];
        let base = definition["resolvedDependencies"][0]["digest"]["sha256"].as_str().unwrap();
        assert_eq!(base.len(), 64);
        let request = &definition["externalParameters"]["request"];
        assert_eq!(request["frontend"], "dockerfile.v0");
        assert_eq!(request["args"]["build-arg:WORD"], "there");
        assert_eq!(request["secrets"][0]["id"], "key");
        assert_eq!(definition["internalParameters"]["farm"], "north");
        let metadata = &statement["predicate"]["runDetails"]["metadata"];
        let file = metadata["buildkit_metadata"]["source"]["infos"][0]["filename"].as_str();
        assert_eq!(file, Some("Dockerfile"));
        assert!(!statement.to_string().contains("hidden") && !statement.to_string().contains("unspeakable"));
        assert_eq!(request["args"]["build-arg:FROM_WHERE"], "https://xxxxx:xxxxx@example.com/x");
        // The layers of what something was copied from are told, though they are none of the image's.
        let steps = definition["internalParameters"]["buildConfig"]["llbDefinition"].as_array().unwrap();
        let source =
            |step: &&Value| step["op"]["Op"]["source"]["identifier"].to_string().contains("/other:1@");
        let step = steps.iter().find(source).expect("the other image")["id"].as_str().unwrap();
        let chains = &metadata["buildkit_metadata"]["layers"][format!("{step}:0")];
        assert_eq!(chains[0].as_array().map(Vec::len), Some(1), "{chains}");
        let places = metadata["crosskit_metadata"]["steps"].as_object();
        let places: Vec<_> = places.into_iter().flat_map(|places| places.values()).collect();
        if platform == TWO[0] {
            assert!(places.is_empty(), "a matter of course: {places:?}");
        } else {
            let [place] = places[..] else { panic!("one step: {places:?}") };
            assert_eq!((&place["platform"], &place["emulated"]), (&platform.into(), &true.into()));
            assert!(place["emulator"].as_str().unwrap().starts_with("qemu-"), "{place}");
        }
    }
    let (images, index) = build("mode=min,version=v0.2");
    let statement = only(statements(&images, &index, TWO[0]));
    assert_eq!(statement["predicateType"], "https://slsa.dev/provenance/v0.2");
    let told = &statement["predicate"]["invocation"]["parameters"];
    assert!(told["args"].get("build-arg:WORD").is_none() && told.get("secrets").is_none(), "{told}");
    daemon.stop();
}

/// The steps of the graph that provenance tells, and its metadata.
fn steps_and_metadata(statement: &Value) -> (Vec<Value>, Value) {
    let definition = &statement["predicate"]["buildDefinition"];
    let steps = definition["internalParameters"]["buildConfig"]["llbDefinition"].as_array();
    (steps.cloned().unwrap_or_default(), statement["predicate"]["runDetails"]["metadata"].clone())
}

#[test]
fn what_steps_have_used_is_told_where_that_is_asked() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let dockerfile = "FROM BASE\nRUN dd if=/dev/zero of=/file bs=24M count=2 2>/dev/null && dd if=/dev/zero of=/dev/null bs=300M count=1 2>/dev/null && \
        for i in $(seq 20000); do : $i; done\n";
    let context = scene.context("c", &[("Dockerfile", dockerfile)]);
    let archive = scene.path("image.tar");
    let attested = |options: &str| {
        let build = daemon.build(&context).opt("attest:provenance", options);
        build.output(&format!("type=oci,dest={}", archive.display())).run().ok();
        let images = Images::archive(&archive);
        let index = images.json(&images.index_json()["manifests"][0]);
        only(statements(&images, &index, TWO[0]))
    };
    let measured = |steps: &[Value]| -> Vec<Value> {
        steps.iter().filter(|step| step.get("resourceUsage").is_some()).cloned().collect()
    };

    let (steps, metadata) = steps_and_metadata(&attested("mode=max,capture-usage=true"));
    let [step] = &measured(&steps)[..] else { panic!("one step is a process: {steps:#?}") };
    assert!(step["op"]["Op"]["exec"].is_object(), "{step:#}");
    let last = step["resourceUsage"]["samples"].as_array().and_then(|all| all.last()).expect("a sample");
    let number =
        |of: &str, what: &str| last[of][what].as_u64().unwrap_or_else(|| panic!("{of}.{what}: {last:#}"));
    assert!(last["timestamp"].as_str().unwrap() > metadata["startedOn"].as_str().unwrap(), "{last:#}");
    assert!(number("cpuStat", "userNanos") > 0 && number("cpuStat", "systemNanos") > 0);
    assert!(number("cpuStat", "usageNanos") >= number("cpuStat", "userNanos"));
    assert!(number("memoryStat", "peak") > 300 << 20 && number("memoryStat", "peak") < 1 << 30);
    assert!(number("memoryStat", "pgfault") > 1000);
    assert!(last["ioStat"]["writeBytes"].is_u64(), "{last:#}");
    let machine = &metadata["buildkit_metadata"]["sysUsage"].as_array().and_then(|all| all.last()).cloned();
    let machine = machine.as_ref().expect("a sample of the machine");
    assert!(machine["cpuStat"]["idle"].as_f64() > Some(0.0), "{machine:#}");
    assert!(machine["memoryStat"]["total"].as_u64() > machine["memoryStat"]["free"].as_u64(), "{machine:#}");

    // A step that was found made has used nothing now.
    let (steps, metadata) = steps_and_metadata(&attested("mode=max,capture-usage=true"));
    assert!(!steps.is_empty() && measured(&steps).is_empty(), "{steps:#?}");
    assert!(metadata["buildkit_metadata"]["sysUsage"].is_array());
    let silent = attested("mode=max").to_string();
    assert!(!silent.contains("resourceUsage") && !silent.contains("sysUsage"));
    let (steps, metadata) = steps_and_metadata(&attested("mode=min,capture-usage=true"));
    assert!(steps.is_empty() && metadata["buildkit_metadata"]["sysUsage"].is_array(), "{metadata:#}");
    daemon.stop();
}

#[test]
fn what_ran_a_step_is_told_of_one_that_was_found_made_too() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let context = scene.context("c", &[("Dockerfile", "FROM BASE\nRUN echo 1 > /a\nRUN echo 2 > /b\n")]);
    let archive = scene.path("image.tar");
    let output = format!("type=oci,dest={}", archive.display());
    let places = |daemon: &crosskit_multiarch::Daemon, options: &[&str]| {
        let mut build = daemon.build(&context).platforms(&TWO).opt("attest:provenance", "mode=max");
        for option in options {
            build = build.argument(option);
        }
        build.output(&output).run().ok();
        let images = Images::archive(&archive);
        let index = images.json(&images.index_json()["manifests"][0]);
        TWO.map(|platform| {
            let (_, metadata) = steps_and_metadata(&only(statements(&images, &index, platform)));
            metadata["crosskit_metadata"]["steps"].clone()
        })
    };
    let made = places(&daemon, &[]);
    assert_eq!(made[0], Value::Null, "a matter of course");
    let all: Vec<&Value> = made[1].as_object().expect("places").values().collect();
    assert_eq!(all.len(), 2, "{made:#?}");
    assert!(all.iter().all(|place| place["emulator"].as_str().unwrap().starts_with("qemu-riscv64 ")));
    assert_eq!(places(&daemon, &[]), made, "found made");
    let cache = scene.path("cache").display().to_string();
    places(&daemon, &["--export-cache", &format!("type=local,mode=max,dest={cache}")]);
    daemon.stop();

    // Whoever has them from elsewhere does not know.
    let other =
        scene.daemon_with(crosskit_multiarch::DaemonOptions { name: "other".into(), ..Default::default() });
    let from = format!("type=local,src={cache}");
    assert_eq!(places(&other, &["--import-cache", &from]), [Value::Null, Value::Null]);
    other.stop();
}

#[test]
fn layers_with_other_times_are_told_as_they_went_out() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let dockerfile =
        "FROM BASE AS other\nRUN echo 1 > /a\nFROM BASE\nCOPY --from=other /a /a\nRUN echo 2 > /b\n";
    let context = scene.context("c", &[("Dockerfile", dockerfile)]);
    let build = |archive: &str, target: Option<&str>| {
        let archive = scene.path(archive);
        let mut build = daemon.build(&context).opt("build-arg:SOURCE_DATE_EPOCH", "1700000000");
        if let Some(target) = target {
            build = build.opt("target", target);
        }
        build
            .opt("attest:provenance", "mode=max")
            .output(&format!("type=oci,dest={},rewrite-timestamp=true", archive.display()))
            .run()
            .ok();
        let images = Images::archive(&archive);
        let index = images.json(&images.index_json()["manifests"][0]);
        let manifest = images.json(Images::entry(&index, TWO[0]));
        let digests = |list: &Value| -> Vec<String> {
            let all = list.as_array().expect("layers").iter();
            all.map(|layer| layer["digest"].as_str().expect("a digest").to_owned()).collect()
        };
        let (steps, metadata) = steps_and_metadata(&only(statements(&images, &index, TWO[0])));
        let chain_of = |words: &str| {
            let step = steps.iter().find(|step| step["op"]["Op"]["exec"]["meta"].to_string().contains(words));
            let step = step.unwrap_or_else(|| panic!("{words}: {steps:#?}"))["id"].as_str().expect("a name");
            digests(&metadata["buildkit_metadata"]["layers"][format!("{step}:0")][0])
        };
        (digests(&manifest["layers"]), chain_of("echo 1"), (steps.len() > 3).then(|| chain_of("echo 2")))
    };
    let (of_other, told, _) = build("other.tar", Some("other"));
    assert_eq!(told, of_other);
    // What something is copied from is in no layer of this image, but went out with that one.
    let (of_image, told, last) = build("image.tar", None);
    assert_eq!((told, last), (of_other, Some(of_image)));
    daemon.stop();
}

#[test]
fn provenance_lies_beside_files() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let context = scene.context("c", &[("Dockerfile", "FROM scratch\nCOPY file /\n"), ("file", "content")]);
    let out = scene.path("out");
    let build = |options: &str| daemon.build(&context).opt("attest:provenance", options);
    let beside = format!("type=local,dest={},attestation-prefix=x.", out.display());
    build("mode=min").output(&beside).run().ok();
    let tree = Tree::of_folder(&out);
    let statement: Value = serde_json::from_str(&tree.text("x.provenance.json")).unwrap();
    assert_eq!(statement["subject"][0]["name"], "file");
    let digest = statement["subject"][0]["digest"]["sha256"].as_str().unwrap();
    assert_eq!(format!("sha256:{digest}"), digest_of(b"content"));
    let complete = &statement["predicate"]["runDetails"]["metadata"]["buildkit_completeness"];
    assert_eq!(complete["resolvedDependencies"], false, "a client's folder has no digest");

    std::fs::remove_dir_all(&out).unwrap();
    build("mode=min,inline-only=true").into(&out).run().ok();
    assert!(!Tree::of_folder(&out).has("provenance.json"));

    // In an archive it stands in its place among the others, and for what has its name.
    scene.write(
        "c",
        "Dockerfile",
        "FROM scratch\nCOPY file /a/z\nCOPY file /x\nCOPY file /provenance.json\n",
    );
    let archive = scene.path("files.tar");
    build("mode=min").output(&format!("type=tar,dest={}", archive.display())).run().ok();
    let listed = std::process::Command::new("tar").arg("-tf").arg(&archive).output().expect("tar");
    assert_eq!(String::from_utf8_lossy(&listed.stdout), "a/\na/z\nprovenance.json\nx\n");
    let mut tree = Tree::default();
    tree.apply(&std::fs::read(&archive).unwrap());
    let statement: Value = serde_json::from_str(&tree.text("provenance.json")).expect("a statement");
    assert_eq!(statement["predicateType"], "https://slsa.dev/provenance/v1");
    scene.write("c", "Dockerfile", "FROM scratch\nCOPY file /\n");
    let refused = build("complete-materials=true").into(&out).run().fails();
    refused.says("provenance materials are incomplete").says("local_source");
    let unknown = daemon.build(&context).opt("attest:vex", "").into(&out).run().fails();
    unknown.says("unknown attestation type \"vex\"");
    daemon.stop();
}

#[test]
fn an_image_with_a_scanner_says_what_is_in_a_result() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let name = scene.push_scanner(&daemon);
    let context = scene.context("c", &[("Dockerfile", "FROM scratch\nCOPY found /found\n"), ("found", "1")]);
    let archive = scene.path("image.tar");
    daemon
        .build(&context)
        .opt("attest:sbom", &format!("generator={name},WORD=hello"))
        .output(&format!("type=oci,dest={}", archive.display()))
        .run()
        .ok();
    let images = Images::archive(&archive);
    let index = images.json(&images.index_json()["manifests"][0]);
    let statement = only(statements(&images, &index, "linux/amd64"));
    let document = &statement["predicate"];
    assert_eq!(document["name"], "hello");
    assert_eq!(document["files"][0]["fileName"], "found");
    let image = images.json(Images::entry(&index, "linux/amd64"));
    let layer = image["layers"][0]["digest"].as_str().unwrap();
    assert_eq!(document["files"][0]["comment"], format!("layerID: {layer}"));
    daemon.stop();
}

#[test]
fn stages_and_the_context_are_scanned_where_the_file_says_so() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let name = scene.push_scanner(&daemon);
    let dockerfile = "ARG BUILDKIT_SBOM_SCAN_CONTEXT=true\n\
                      FROM scratch AS needed\nARG BUILDKIT_SBOM_SCAN_STAGE=true\nCOPY found /from-needed\n\
                      FROM scratch AS silent\nCOPY --from=needed /from-needed /from-silent\n\
                      FROM scratch AS unneeded\nARG BUILDKIT_SBOM_SCAN_STAGE=true\nRUN no such program\n\
                      FROM scratch\nARG BUILDKIT_SBOM_SCAN_STAGE=true\nCOPY --from=silent /from-silent /final\n";
    let context = scene.context("c", &[("Dockerfile", dockerfile), ("found", "1")]);
    let archive = scene.path("image.tar");
    let scanned = |arguments: &[(&str, &str)]| {
        let mut build = daemon
            .build(&context)
            .opt("attest:sbom", &format!("generator={name},WORD=core"))
            .output(&format!("type=oci,dest={}", archive.display()));
        for (key, value) in arguments {
            build = build.opt(&format!("build-arg:{key}"), value);
        }
        build.run().ok();
        let images = Images::archive(&archive);
        let index = images.json(&images.index_json()["manifests"][0]);
        let mut found: Vec<String> = statements(&images, &index, "linux/amd64")
            .iter()
            .map(|statement| {
                let document = &statement["predicate"];
                format!("{}: {}", document["name"], document["files"][0]["fileName"]).replace('"', "")
            })
            .collect();
        found.sort();
        found
    };
    // Only files that are read are sent, so that of the context they are all that there is to find.
    assert_eq!(scanned(&[]), ["core: final", "sbom-context: found", "sbom-needed: from-needed"]);
    let off = [("BUILDKIT_SBOM_SCAN_STAGE", "false"), ("BUILDKIT_SBOM_SCAN_CONTEXT", "false")];
    assert_eq!(scanned(&off), ["core: final"]);
    // `silent` does not ask for the argument, so that it is not scanned even by its name.
    let named = [("BUILDKIT_SBOM_SCAN_STAGE", "silent,needed"), ("BUILDKIT_SBOM_SCAN_CONTEXT", "0")];
    assert_eq!(scanned(&named), ["core: final", "sbom-needed: from-needed"]);
    daemon.stop();
}

#[test]
fn attestations_take_the_form_that_is_asked_for() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let context = scene.context("c", &[("Dockerfile", "FROM scratch\nCOPY file /\n"), ("file", "1")]);
    let archive = scene.path("image.tar");
    let build = |provenance: &str, more: &str| {
        let output = format!("type=oci,dest={}{more}", archive.display());
        daemon.build(&context).opt("attest:provenance", provenance).output(&output).run().ok();
        let images = Images::archive(&archive);
        let top = images.json(&images.index_json()["manifests"][0]);
        (images, top)
    };
    // As an image of its own, whose layers have the digests that its config says.
    let (images, index) = build("mode=min", ",oci-artifact=false,\"name=example/a:1,example/b:2\"");
    let [image, attesting] = index["manifests"].as_array().unwrap().as_slice() else { panic!("{index:#}") };
    let manifest = images.json(attesting);
    assert!(manifest["artifactType"].is_null() && manifest["subject"].is_null(), "{manifest:#}");
    assert_eq!(manifest["config"]["mediaType"], "application/vnd.oci.image.config.v1+json");
    let config = images.json(&manifest["config"]);
    assert_eq!((&config["os"], &config["architecture"]), (&"unknown".into(), &"unknown".into()));
    assert_eq!(config["rootfs"]["diff_ids"][0], manifest["layers"][0]["digest"]);
    let about = &images.json(&manifest["layers"][0])["subject"];
    let named: Vec<_> = about.as_array().unwrap().iter().filter_map(|one| one["name"].as_str()).collect();
    assert_eq!(named.len(), 2, "{named:?}");
    for (named, name) in named.iter().zip(["example/a@1", "example/b@2"]) {
        assert!(named.contains(name), "{named}");
    }
    // An image without a name is a subject as well.
    let (images, index) = build("mode=min", "");
    let statement = only(statements(&images, &index, "linux/amd64"));
    let digest = image["digest"].as_str().unwrap().replace("sha256:", "");
    assert_eq!(statement["subject"], serde_json::json!([{"name": "_", "digest": {"sha256": digest}}]));
    // What is only inline is no reason for an index, unless it is wanted there.
    assert!(build("mode=min,inline-only=true", "").1["manifests"].is_null());
    assert!(build("disabled=true", "").1["manifests"].is_null());
    let (images, index) = build("mode=min,inline-only=true", ",attestation-inline=true");
    only(statements(&images, &index, "linux/amd64"));
    daemon.stop();
}
