//! What is exported and pushed, as skopeo reads it: a program that checks the digest of whatever it copies.

use crate::{DOCKERFILE, SAID, check_tree};
use crosskit_multiarch::{Images, Ran, Scene};
use serde_json::Value;
use std::process::Command;

fn skopeo(scene: &Scene, arguments: &[&str]) -> Ran {
    let mut command = Command::new(scene.parts.on_machine("skopeo"));
    // What it is to trust and where it works are matters of the test.
    command.arg("--insecure-policy").arg("--tmpdir").arg(scene.folder()).args(arguments);
    Ran::run(&mut command).ok()
}

/// Copies an image into a layout and gives the entry of the layout's index.
fn copied<'a>(scene: &Scene, from: &str, all: &[&str]) -> (Images<'a>, Value) {
    let to = scene.path("copied");
    let _ = std::fs::remove_dir_all(&to);
    let target = format!("oci:{}:copy", to.display());
    skopeo(scene, &[&["copy", "--quiet", "--src-tls-verify=false"], all, &[from, &target]].concat());
    let images = Images::Folder(to);
    let entry = images.index_json()["manifests"][0].clone();
    (images, entry)
}

#[test]
fn skopeo_reads_every_kind_of_image() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let made = scene.context("made", &[("Dockerfile", DOCKERFILE)]);
    let said = scene.context("said", &[("Dockerfile", SAID)]);
    let both = ["linux/amd64", "linux/arm64"];
    for compression in ["gzip", "zstd", "estargz", "uncompressed"] {
        let packed = format!("compression={compression},force-compression=true");
        // An index goes from a registry, from an archive and from a folder, whole and with its digest.
        let name = scene.registry.reference(&format!("read:{compression}"));
        let (file, folder) = (scene.path("index.tar"), scene.path("index"));
        for old in [&file, &folder] {
            let _ = std::fs::remove_dir_all(old).or_else(|_| std::fs::remove_file(old));
        }
        let build = daemon.build(&said).platforms(&both);
        let (_, told) = build
            .output(&format!("type=image,name={name},push=true,{packed}"))
            .output(&format!("type=oci,dest={},{packed}", file.display()))
            .output(&format!("type=oci,tar=false,dest={},{packed}", folder.display()))
            .run_for_metadata();
        let digest = &told["containerimage.digest"];
        for from in [
            format!("docker://{name}"),
            format!("oci-archive:{}", file.display()),
            format!("oci:{}", folder.display()),
        ] {
            let (images, entry) = copied(&scene, &from, &["--all", "--preserve-digests"]);
            assert_eq!(&entry["digest"], digest, "{from} {compression}");
            let index = images.json(&entry);
            for platform in both {
                let manifest = images.json(Images::entry(&index, platform));
                assert_eq!(images.tree(&manifest).text("files/data"), "some text\n", "{from} {platform}");
            }
        }
        // What it says of the image is what the image says.
        let raw = skopeo(&scene, &["inspect", "--tls-verify=false", "--raw", &format!("docker://{name}")]);
        let pushed = scene.registry.manifest("read", compression).expect("a manifest");
        assert_eq!(raw.stdout.trim_end().as_bytes(), pushed.trim_ascii_end());
        let inspected = skopeo(
            &scene,
            &["--override-arch", "arm64", "inspect", "--tls-verify=false", &format!("docker://{name}")],
        );
        let inspected: Value = serde_json::from_str(&inspected.stdout).expect("JSON");
        assert_eq!(
            (&inspected["Architecture"], &inspected["Labels"]["plain"]),
            (&"arm64".into(), &"1".into())
        );
        assert_eq!(inspected["Layers"].as_array().map(Vec::len), Some(3));

        // An image of one platform goes out of Docker's kind of archive as well.
        let file = scene.path("docker.tar");
        let _ = std::fs::remove_file(&file);
        let types = if compression == "gzip" { ",oci-mediatypes=false" } else { "" };
        let output = format!("type=docker,name=example.com/made:1,dest={},{packed}{types}", file.display());
        daemon.build(&made).output(&output).run().ok();
        let archive = match compression {
            // Its reader of Docker's archives knows no layers packed as zstd.
            "zstd" => format!("oci-archive:{}", file.display()),
            _ => format!("docker-archive:{}", file.display()),
        };
        let (images, entry) = copied(&scene, &archive, &[]);
        check_tree(&images.tree(&images.json(&entry)));
    }
    daemon.stop();
}
