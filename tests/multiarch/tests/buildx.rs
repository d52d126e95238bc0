//! docker buildx with its remote driver does not notice what it talks to.

use crosskit_multiarch::{Buildx, Images, Ran, Scene, Tree};
use serde_json::Value;

const DOCKERFILE: &str = "FROM BASE AS made\nARG WORD=none\nCOPY file /file\nRUN echo $WORD >> /file\nCMD [\"cat\", \"/file\"]\n\
    FROM scratch AS bare\nCOPY --from=made /file /\n";

fn text(path: &std::path::Path) -> String {
    path.display().to_string()
}

#[test]
fn it_inspects_the_builder() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let buildx = Buildx::create(&scene, &daemon);
    let ran = buildx.run(&["inspect", "--bootstrap"]).ok();
    ran.says("Driver:").says("remote").says("running").says("linux/amd64").says("linux/arm64");
    daemon.stop();
}

#[test]
fn it_loads_an_oci_archive_of_several_platforms() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let buildx = Buildx::create(&scene, &daemon);
    let context = scene.context("c", &[("Dockerfile", DOCKERFILE), ("file", "hello\n")]);
    let archive = scene.path("image.tar");
    let output = format!("type=oci,dest={}", archive.display());
    buildx
        .run(&[
            "build",
            "--provenance=false",
            "--platform",
            "linux/amd64,linux/arm64",
            "--target",
            "made",
            "--build-arg",
            "WORD=there",
            "-t",
            "example/made:1",
            "-o",
            &output,
            &text(&context),
        ])
        .ok();
    let images = Images::archive(&archive);
    assert_eq!(
        serde_json::from_slice::<Value>(&images.file("oci-layout")).expect("JSON")["imageLayoutVersion"],
        "1.0.0"
    );
    let top = images.index_json();
    assert_eq!(top["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"], "1");
    let index = images.json(&top["manifests"][0]);
    for platform in ["linux/amd64", "linux/arm64"] {
        let manifest = images.json(Images::entry(&index, platform));
        assert_eq!(images.tree(&manifest).text("file"), "hello\nthere\n");
        assert_eq!(images.json(&manifest["config"])["config"]["Cmd"], serde_json::json!(["cat", "/file"]));
    }
    daemon.stop();
}

#[test]
fn it_loads_a_docker_archive() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let buildx = Buildx::create(&scene, &daemon);
    let context = scene.context("c", &[("Dockerfile", DOCKERFILE), ("file", "hello\n")]);
    let archive = scene.path("image.tar");
    let output = format!("type=docker,dest={}", archive.display());
    buildx.run(&["build", "--target", "made", "-t", "example/made:1", "-o", &output, &text(&context)]).ok();
    let images = Images::archive(&archive);
    let list: Value = serde_json::from_slice(&images.file("manifest.json")).expect("JSON");
    assert_eq!(list[0]["RepoTags"], serde_json::json!(["example/made:1"]));
    let config: Value = serde_json::from_slice(&images.file(list[0]["Config"].as_str().expect("a path")))
        .expect("the image's config");
    let layers = list[0]["Layers"].as_array().expect("layers");
    assert_eq!(config["rootfs"]["diff_ids"].as_array().expect("diff ids").len(), layers.len());
    for layer in layers {
        assert!(!images.file(layer.as_str().expect("a path")).is_empty());
    }
    daemon.stop();
}

#[test]
fn it_pushes() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let buildx = Buildx::create(&scene, &daemon);
    let context = scene.context("c", &[("Dockerfile", DOCKERFILE), ("file", "hello\n")]);
    let name = scene.registry.reference("pushed:1");
    let metadata = scene.path("metadata.json");
    buildx
        .run(&[
            "build",
            "--platform",
            "linux/amd64,linux/s390x",
            "--target",
            "made",
            "-t",
            &name,
            "--push",
            "--metadata-file",
            &text(&metadata),
            "--annotation",
            "index:who=buildx",
            &text(&context),
        ])
        .ok();
    let bytes = scene.registry.manifest("pushed", "1").expect("the tag");
    let metadata: Value =
        serde_json::from_slice(&std::fs::read(metadata).expect("the metadata")).expect("JSON");
    assert_eq!(metadata["containerimage.digest"], crosskit_multiarch::digest_of(&bytes));
    assert_eq!(metadata["image.name"], name.as_str());
    let index: Value = serde_json::from_slice(&bytes).expect("an index");
    assert_eq!(index["annotations"]["who"], "buildx");
    let images = Images::Repository(&scene.registry, "pushed".into());
    for platform in ["linux/amd64", "linux/s390x"] {
        let manifest = images.json(Images::entry(&index, platform));
        assert_eq!(images.tree(&manifest).text("file"), "hello\nnone\n");
    }
    daemon.stop();
}

#[test]
fn a_failing_step_is_shown_with_its_lines() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let buildx = Buildx::create(&scene, &daemon);
    let dockerfile = "FROM BASE\nRUN echo fine\nRUN echo so far && \\\n    exit 42\n";
    let context = scene.context("c", &[("Dockerfile", dockerfile)]);
    buildx
        .run(&["build", &text(&context)])
        .fails()
        .says("so far")
        .says("Dockerfile:3")
        .says("   3 | >>> RUN echo so far && \\")
        .says("   4 | >>>     exit 42")
        .says(
            "process \"/bin/sh -c echo so far &&     exit 42\" did not complete successfully: exit code: 42",
        );
    daemon.stop();
}

#[test]
fn it_bakes_two_targets() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let buildx = Buildx::create(&scene, &daemon);
    let context = scene.context("c", &[("Dockerfile", DOCKERFILE), ("file", "hello\n")]);
    let bake = r#"
group "default" { targets = ["left", "right"] }
target "shared" { target = "bare" }
target "left" {
  inherits = ["shared"]
  args = { WORD = "left" }
  output = ["type=local,dest=out/left"]
}
target "right" {
  inherits = ["shared"]
  args = { WORD = "right" }
  platforms = ["linux/amd64", "linux/arm64"]
  output = ["type=local,dest=out/right"]
}
"#;
    scene.write("c", "docker-bake.hcl", bake);
    let mut command = buildx.command();
    command.arg("bake").args(["--allow", "fs=*"]).current_dir(&context);
    Ran::run(&mut command).ok();
    let tree = Tree::of_folder(&context.join("out"));
    assert_eq!(tree.text("left/file"), "hello\nleft\n");
    assert_eq!(tree.text("right/linux_amd64/file"), "hello\nright\n");
    assert_eq!(tree.text("right/linux_arm64/file"), "hello\nright\n");
    daemon.stop();
}

#[test]
fn it_lists_and_prunes_usage() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let buildx = Buildx::create(&scene, &daemon);
    let context = scene.context("c", &[("Dockerfile", DOCKERFILE), ("file", "hello\n")]);
    buildx.run(&["build", "--target", "bare", "-o", &text(&scene.path("out")), &text(&context)]).ok();
    buildx.run(&["du"]).ok().says("Total:");
    buildx.run(&["prune", "--force", "--all"]).ok().says("Total:");
    daemon.stop();
}

/// What the index behind a tag attests of the image of each platform: the types of its predicates.
fn attested(scene: &Scene, name: &str, platforms: &[&str]) -> Vec<Vec<String>> {
    let index = scene.registry.manifest(name, "1").expect("the tag");
    let index: Value = serde_json::from_slice(&index).expect("an index");
    let images = Images::Repository(&scene.registry, name.into());
    let manifests = index["manifests"].as_array().expect("manifests");
    let attestations = |platform: &&str| {
        let about = &Images::entry(&index, platform)["digest"];
        let of_it = |entry: &&Value| entry["annotations"]["vnd.docker.reference.digest"] == *about;
        let entry =
            manifests.iter().find(of_it).unwrap_or_else(|| panic!("nothing about {platform}: {index}"));
        assert_eq!(entry["annotations"]["vnd.docker.reference.type"], "attestation-manifest");
        let manifest = images.json(entry);
        let layers = manifest["layers"].as_array().expect("layers").iter();
        let mut types: Vec<String> =
            layers.map(|layer| images.json(layer)["predicateType"].to_string()).collect();
        types.sort();
        types
    };
    assert_eq!(manifests.len(), 2 * platforms.len(), "{index}");
    platforms.iter().map(attestations).collect()
}

#[test]
fn it_pushes_provenance_and_what_a_scanner_finds() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let scanner = scene.push_scanner(&daemon);
    let buildx = Buildx::create(&scene, &daemon);
    let context = scene.context("c", &[("Dockerfile", DOCKERFILE), ("file", "hello\n")]);
    let platforms = ["linux/amd64", "linux/s390x"];
    let push = |name: &str, more: &[&str]| {
        let reference = scene.registry.reference(&format!("{name}:1"));
        let context = text(&context);
        let mut arguments = vec!["build", "--target", "bare", "-t", &reference, "--push"];
        arguments.extend(["--platform", "linux/amd64,linux/s390x"]);
        arguments.extend(more);
        arguments.push(&context);
        buildx.run(&arguments).ok();
    };
    let sbom = format!("--sbom=generator={scanner}");
    push("flags", &["--provenance=mode=max", &sbom]);
    let both =
        ["\"https://slsa.dev/provenance/v1\"", "\"https://spdx.dev/Document\""].map(String::from).to_vec();
    assert_eq!(attested(&scene, "flags", &platforms), [both.clone(), both.clone()]);
    let sbom = format!("type=sbom,generator={scanner}");
    push("attest", &["--attest", "type=provenance,mode=max", "--attest", &sbom]);
    assert_eq!(attested(&scene, "attest", &platforms), [both.clone(), both]);

    // Without a word, provenance that says the least is attached.
    push("default", &[]);
    let provenance = vec!["\"https://slsa.dev/provenance/v1\"".to_string()];
    assert_eq!(attested(&scene, "default", &platforms), [provenance.clone(), provenance]);
    daemon.stop();
}

#[test]
fn it_filters_the_history() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let buildx = Buildx::create(&scene, &daemon);
    let good = scene.context("good", &[("Dockerfile", "FROM BASE\nRUN true\n")]);
    let bad = scene.context("bad", &[("Dockerfile", "FROM BASE\nRUN false\n")]);
    buildx.run(&["build", &text(&good)]).ok();
    buildx.run(&["build", &text(&bad)]).fails();
    let listed = |filter: &[&str]| {
        let arguments = [&["history", "ls", "--format", "{{.Name}} {{.Status}}"][..], filter].concat();
        let said = buildx.run(&arguments).ok().stdout;
        let mut lines: Vec<String> = said.lines().map(|line| line.trim().to_string()).collect();
        lines.sort();
        lines
    };
    assert_eq!(listed(&[]), ["bad Error", "good Completed"]);
    assert_eq!(listed(&["--filter", "status=error"]), ["bad Error"]);
    assert_eq!(listed(&["--filter", "status=completed"]), ["good Completed"]);
    daemon.stop();
}
