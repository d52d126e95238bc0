//! The test's own frontend as an image.

use crosskit_multiarch::{Scene, digest_of};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// What the image's configuration says how it is run.
pub fn config(labels: &Value) -> Value {
    json!({
        "Entrypoint": ["/frontend"],
        "Env": ["PATH=/bin", "FROM_IMAGE=yes"],
        "WorkingDir": "/lib",
        "Labels": labels,
    })
}

/// Pushes it under a name, and gives its reference.
pub fn push(scene: &Scene, name: &str, labels: &Value) -> String {
    push_as(scene, name, &config(labels))
}

/// Pushes it with a configuration of its own.
pub fn push_as(scene: &Scene, name: &str, config: &Value) -> String {
    let (blobs, manifest) = parts(scene, config);
    for blob in &blobs {
        scene.registry.push_blob(name, blob);
    }
    scene.registry.push_manifest(name, "1", MANIFEST, &manifest);
    scene.registry.reference(&format!("{name}:1"))
}

/// Writes it into a layout's folder, and gives its digest.
pub fn write(scene: &Scene, folder: &Path, labels: &Value) -> String {
    let (mut blobs, manifest) = parts(scene, &config(labels));
    let digest = digest_of(&manifest);
    let entry = json!({ "mediaType": MANIFEST, "digest": digest, "size": manifest.len() });
    blobs.push(manifest);
    std::fs::create_dir_all(folder.join("blobs/sha256")).unwrap();
    for blob in &blobs {
        std::fs::write(folder.join("blobs").join(digest_of(blob).replace(':', "/")), blob).unwrap();
    }
    let index = json!({ "schemaVersion": 2, "manifests": [entry] });
    std::fs::write(folder.join("index.json"), index.to_string()).unwrap();
    std::fs::write(folder.join("oci-layout"), "{\"imageLayoutVersion\":\"1.0.0\"}").unwrap();
    digest
}

/// Layer and configuration, and the manifest.
fn parts(scene: &Scene, config: &Value) -> (Vec<Vec<u8>>, Vec<u8>) {
    let layer = layer(scene);
    let config = json!({
        "architecture": crosskit_platforms::native().architecture,
        "os": "linux",
        "config": config,
        "rootfs": { "type": "layers", "diff_ids": [digest_of(&layer)] },
    });
    let config = config.to_string().into_bytes();
    let described = |kind: &str, bytes: &[u8]| {
        json!({
            "mediaType": format!("application/vnd.oci.image.{kind}"),
            "digest": digest_of(bytes),
            "size": bytes.len(),
        })
    };
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": described("config.v1+json", &config),
        "layers": [described("layer.v1.tar", &layer)],
    });
    (vec![layer, config], manifest.to_string().into_bytes())
}

/// The program with the libraries that it needs of this machine.
fn layer(scene: &Scene) -> Vec<u8> {
    let built = env!("CARGO_BIN_EXE_test-frontend");
    let listed = Command::new("ldd").arg(built).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let libraries =
        listed.lines().flat_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    // Without what only debuggers read it is a tenth as large.
    let program = scene.path("stripped-frontend");
    let stripped = Command::new("strip").arg("-o").arg(&program).arg(built).status().unwrap();
    assert!(stripped.success(), "strip {built}");
    let mut layer = tar::Builder::new(Vec::new());
    layer.follow_symlinks(true);
    layer.append_path_with_name(&program, "frontend").unwrap();
    for library in libraries {
        layer.append_path_with_name(library, library.trim_start_matches('/')).unwrap();
    }
    layer.into_inner().unwrap()
}
