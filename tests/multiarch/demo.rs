//! The demonstration: one Dockerfile becomes one index for eight platforms.
//!
//! Sets up a registry with a base image and a daemon in a folder of their own, builds
//! `examples/demo`, shows what came out and what is attested of it, and takes everything away again. The local folders,
//! the index and the image with its attestations stay in `target/demo`.
#![allow(clippy::print_stdout, reason = "this program is for people")]

use crosskit_multiarch::{Daemon, Images, PLATFORMS, Ran, Scene, Tree, folder_name, workspace};
use serde_json::Value;
use std::io::IsTerminal;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

fn main() {
    let kept = workspace().join("target/demo");
    if kept.exists() {
        std::fs::remove_dir_all(&kept).expect("take away what the last demo left");
    }
    std::fs::create_dir_all(&kept).expect("create target/demo");

    title("A registry with a base image for eight platforms, and a daemon, in a folder of their own");
    let scene = Scene::set();
    let daemon = scene.daemon();
    println!(
        "registry  {}\ndaemon    {}, ready after {}",
        scene.base(),
        daemon.address(),
        shown(daemon.ready_after)
    );

    let context = workspace().join("examples/demo");
    let name = scene.registry.reference("demo:latest");
    let base = base_with_a_package(&scene, &daemon);
    let progress = if std::io::stderr().is_terminal() { "auto" } else { "plain" };
    let build = |target: &str, progress: &str, outputs: &[&str]| {
        let metadata = scene.path("metadata.json");
        let mut build =
            daemon.build(&context).platforms(&PLATFORMS).opt("build-arg:BASE", &base).opt("target", target);
        if target == "app" {
            build = build.opt("attest:provenance", "mode=max").opt("attest:sbom", "generator=builtin");
        }
        for output in outputs {
            build = build.output(output);
        }
        build.progress(progress).metadata_file(&metadata).show()
    };

    title(
        "One Dockerfile, eight platforms, pushed as one index with annotations and attestations, and kept in a folder",
    );
    let image = format!(
        "type=image,name={name},push=true,annotation-index.org.opencontainers.image.title=demo,\
         annotation-manifest.org.opencontainers.image.vendor=crosskit,\
         annotation-manifest-descriptor[linux/s390x].note=big-endian"
    );
    let folder = format!("type=oci,tar=false,dest={}", kept.join("image").display());
    let first = build("app", progress, &[&image, &folder]);

    title("The index in the registry");
    let bytes = scene.registry.manifest("demo", "latest").expect("the index was pushed");
    std::fs::write(kept.join("index.json"), &bytes).expect("keep the index");
    let index: Value = serde_json::from_slice(&bytes).expect("an index is JSON");
    println!("{}", String::from_utf8_lossy(&bytes));

    title("The same build into local folders: everything is there already");
    let files = format!("type=local,dest={}", kept.join("local").display());
    let second = build("report", progress, &[&files]);

    title("The first build once more, unchanged");
    let third = build("app", "plain", &[&image]);

    title(
        "What is attested of each platform, judged by programs of others: how it was made and what is in it",
    );
    verify(&scene, &kept.join("image"));

    title("Summary");
    summary(&scene, &index, &kept);
    println!("\nfirst build {}, local folders {}, unchanged {}", shown(first), shown(second), shown(third));
    println!("kept in {}: index.json, local, image", kept.display());
    daemon.stop();
    println!("the daemon has ended and left no process and no mount");
}

/// The base image with a word on the package that its program is from, as images without a package manager have it.
fn base_with_a_package(scene: &Scene, daemon: &Daemon) -> String {
    let mut files = Vec::new();
    for (oci, debian) in [("arm", "armhf"), ("386", "i386"), ("ppc64le", "ppc64el")]
        .into_iter()
        .chain(["amd64", "arm64", "riscv64", "loong64", "s390x"].map(|same| (same, same)))
    {
        let program = std::fs::read(scene.parts.busybox(oci)).expect("a part");
        let program = String::from_utf8_lossy(&program);
        let version =
            program.split_once("(Debian ").and_then(|(_, rest)| rest.split(')').next()).unwrap_or("0");
        let stanza =
            format!("Package: busybox-static\nVersion: {version}\nArchitecture: {debian}\nSource: busybox\n");
        files.push((format!("{oci}/busybox-static"), stanza));
    }
    let dockerfile = "FROM BASE\nARG TARGETARCH\nCOPY ${TARGETARCH} /var/lib/dpkg/status.d/\n".to_owned();
    files.push(("Dockerfile".to_owned(), dockerfile));
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let name = scene.registry.reference("base-with-a-package:latest");
    let build = daemon.build(&scene.context("base", &files)).platforms(&PLATFORMS);
    build.output(&format!("type=image,name={name},push=true")).run().ok();
    name
}

/// Lets programs that know nothing of the daemon judge what is attested.
fn verify(scene: &Scene, image: &Path) {
    let script = workspace().join("examples/attestations/verify.py");
    let mut command = Command::new("/usr/bin/python3");
    command.arg(script).arg(format!("oci:{}", image.display()));
    command.args(["--need", "https://slsa.dev/provenance/v1", "--need", "https://spdx.dev/Document"]);
    command.env("PYTHONPATH", scene.parts.attestations()).env("PYTHONDONTWRITEBYTECODE", "1");
    print!("{}", Ran::run(&mut command).ok().stdout);
}

fn summary(scene: &Scene, index: &Value, kept: &Path) {
    let images = Images::Repository(&scene.registry, "demo".into());
    let local = Tree::of_folder(&kept.join("local"));
    let mut serials: Vec<String> = Vec::new();
    println!(
        "{:<14} {:<20} {:>6}  {:<44} note",
        "platform", "manifest", "layers", "what the image's program wrote"
    );
    for platform in PLATFORMS {
        let entry = Images::entry(index, platform);
        let manifest = images.json(entry);
        let tree = images.tree(&manifest);
        let report = tree.text("app/report.txt");
        let folder = folder_name(platform);
        assert_eq!(
            local.text(&format!("{folder}/report.txt")),
            report,
            "image and folder agree for {platform}"
        );
        assert!(report.starts_with(&format!("platform={platform} ")), "{platform} wrote {report}");
        serials.push(tree.text("app/serial.txt"));
        let digest = entry["digest"].as_str().unwrap_or_default();
        let layers = manifest["layers"].as_array().map_or(0, Vec::len);
        let said = report.lines().next().unwrap_or_default();
        let note = entry["annotations"]["note"].as_str().unwrap_or_default();
        println!("{platform:<14} {:<20} {layers:>6}  {said:<44} {note}", &digest[..19]);
    }
    serials.dedup();
    assert_eq!(serials.len(), 1, "the step of the builder's own platform ran once for all");
    println!("the $BUILDPLATFORM step ran once for all of them: {}", serials[0].trim());
}

fn title(text: &str) {
    println!("\n== {text}");
}

fn shown(time: Duration) -> String {
    format!("{:.0} ms", time.as_secs_f64() * 1000.0)
}
