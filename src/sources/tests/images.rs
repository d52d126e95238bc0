//! Images from clients' layouts and from registries are lazy, pinned and known by BuildKit's keys.
#![allow(clippy::unwrap_used)]

mod support;

use crosskit_images::registry::{HostConfig, RegistryHosts};
use crosskit_session::{ContentStores, SessionServer};
use crosskit_sources::SourceContext;
use serde_json::json;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use support::{Build, Daemon, folder, op, shell};

/// An image with two layers for one platform, in an index, as blobs in a folder.
struct Layout {
    dir: std::path::PathBuf,
    index: String,
    manifest: String,
    config: String,
    layers: Vec<String>,
    diff_ids: Vec<String>,
}

fn put(dir: &Path, bytes: &[u8]) -> (String, usize) {
    let digest = Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect::<String>();
    std::fs::create_dir_all(dir.join("blobs/sha256")).unwrap();
    std::fs::write(dir.join("blobs/sha256").join(&digest), bytes).unwrap();
    (format!("sha256:{digest}"), bytes.len())
}

fn layout(dir: &Path) -> Layout {
    shell(
        dir,
        "mkdir -p 1/bin 2/bin; echo one >1/bin/a; echo base >1/base; echo two >2/bin/b; for i in 1 2; do tar --owner=0 --group=0 -cf $i.tar -C $i .; gzip -nk $i.tar; done",
    );
    let read = |name: &str| std::fs::read(dir.join(name)).unwrap();
    let diff_ids: Vec<String> = ["1.tar", "2.tar"].iter().map(|n| put(&dir.join("x"), &read(n)).0).collect();
    let layers: Vec<_> = ["1.tar.gz", "2.tar.gz"].iter().map(|n| put(dir, &read(n))).collect();
    let config = json!({"architecture": "arm64", "os": "linux", "config": {"Env": ["A=b"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids}});
    let (config, config_size) = put(dir, config.to_string().as_bytes());
    let manifest = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": config_size},
        "layers": layers.iter().map(|(digest, size)| json!({
            "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": digest, "size": size}))
            .collect::<Vec<_>>()});
    let (manifest, manifest_size) = put(dir, manifest.to_string().as_bytes());
    let index = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [
        {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": manifest, "size": manifest_size,
         "platform": {"os": "linux", "architecture": "arm64"}}]});
    let (index, _) = put(dir, index.to_string().as_bytes());
    let layers = layers.into_iter().map(|(digest, _)| digest).collect();
    Layout { dir: dir.to_path_buf(), index, manifest, config, layers, diff_ids }
}

fn sha(text: &str) -> String {
    format!("sha256:{}", Sha256::digest(text).iter().map(|b| format!("{b:02x}")).collect::<String>())
}

const PLATFORM: fn() -> crosskit_api::pb::Platform =
    || crosskit_api::pb::Platform { os: "linux".into(), architecture: "arm64".into(), ..Default::default() };

#[tokio::test(flavor = "multi_thread")]
async fn a_layout_of_the_client_is_an_image() {
    let daemon = Daemon::new();
    let (_dir, dir) = folder();
    let image = layout(&dir);
    let mut stores = ContentStores::default();
    stores.add("oci:base", &image.dir, false);
    let session = daemon.connect(SessionServer::new("").with_content(stores)).await;
    let build = Build::of(&session);
    let cx: Arc<dyn SourceContext> = build.clone();
    let name = format!("oci-layout://example/name@{}", image.index);
    let attrs = [("oci.session", session.as_str()), ("oci.store", "base")];
    let source = daemon.sources.resolve(&op(&name, &attrs), Some(&PLATFORM())).unwrap();

    let first = source.key(&cx, 0).await.unwrap().unwrap();
    assert_eq!(first.pin, image.index);
    // As BuildKit's Go structure is written.
    let text = format!("{{\"Digest\":\"{}\",\"OS\":\"linux\",\"Arch\":\"arm64\"}}", image.index);
    assert_eq!(first.key, sha(&text));
    let second = source.key(&cx, 1).await.unwrap().unwrap();
    assert_eq!(second.key, sha(&format!("{} {}", image.diff_ids[0], image.diff_ids[1])));
    assert_eq!(source.key(&cx, 2).await.unwrap(), None);

    let reference = source.snapshot(&cx).await.unwrap().unwrap();
    let kept = |digest: &str| daemon.snapshots.content().contains(&digest.parse().unwrap());
    assert!(kept(&image.config) && kept(&image.manifest) && kept(&image.index));
    assert!(!image.layers.iter().any(|layer| kept(layer)), "nobody needed a layer yet");
    let mounted = reference.mount_readonly().await.unwrap();
    assert_eq!(std::fs::read_to_string(mounted.path().join("bin/a")).unwrap(), "one\n");
    assert_eq!(std::fs::read_to_string(mounted.path().join("bin/b")).unwrap(), "two\n");
    let lines = build.lines();
    for line in [
        name.replace("oci-layout://", "resolve "),
        image.layers[0].clone(),
        format!("extracting {}", image.layers[0]),
    ] {
        assert!(lines[&line], "{line} in {lines:?}");
    }

    let limited = [("oci.session", session.as_str()), ("oci.store", "base"), ("oci.layerlimit", "1")];
    let source = daemon.sources.resolve(&op(&name, &limited), Some(&PLATFORM())).unwrap();
    let text = format!("{{\"Digest\":\"{}\",\"OS\":\"linux\",\"Arch\":\"arm64\",\"Limit\":1}}", image.index);
    assert_eq!(source.key(&cx, 0).await.unwrap().unwrap().key, sha(&text));
    assert_eq!(source.key(&cx, 1).await.unwrap().unwrap().key, image.diff_ids[0]);

    let blob = [
        ("oci.session", session.as_str()),
        ("oci.store", "base"),
        ("http.filename", "c.json"),
        ("http.perm", "0644"),
    ];
    let name = format!("oci-layout+blob://example/name@{}", image.config);
    let brought = daemon.bring(&build, op(&name, &blob)).await.unwrap();
    let config = std::fs::read_to_string(dir.join("blobs/sha256").join(&image.config[7..])).unwrap();
    assert_eq!(brought.files().await, [format!("c.json f 644 0:0  {config}")]);
    let text = format!(
        "{{\"Digest\":\"{}\",\"Filename\":\"c.json\",\"Perm\":420,\"UID\":0,\"GID\":0}}",
        image.config
    );
    assert_eq!(brought.keys, [sha(&text)]);
}

/// The registry program.
struct Registry(Child, String, #[allow(dead_code, reason = "removes the folder")] tempfile::TempDir);

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn registry() -> Registry {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/parts");
    let parts = std::env::var_os("CROSSKIT_TEST_PARTS").map_or(own, PathBuf::from);
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..20 {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = format!(
            "version: 0.1\nstorage:\n  filesystem: {{rootdirectory: {}/data}}\nhttp:\n  addr: 127.0.0.1:{port}\n",
            dir.path().display()
        );
        std::fs::write(dir.path().join("config.yml"), config).unwrap();
        let mut child = Command::new(parts.join("bin/docker-registry"))
            .args(["serve", "config.yml"])
            .current_dir(dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("docker-registry, which tests/parts.sh prepares");
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains("listening on") {
            line.clear();
            if log.read_line(&mut line).unwrap() == 0 {
                break;
            }
        }
        if !line.is_empty() {
            std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
            return Registry(child, format!("127.0.0.1:{port}"), dir);
        }
        let _ = child.wait();
    }
    panic!("docker-registry does not start");
}

async fn push(registry: &Registry, image: &Layout, tag: &str) {
    let http = reqwest::Client::new();
    let base = format!("http://{}/v2/lib/app", registry.1);
    let read = |digest: &str| std::fs::read(image.dir.join("blobs/sha256").join(&digest[7..])).unwrap();
    for digest in image.layers.iter().chain([&image.config]) {
        let begun = http.post(format!("{base}/blobs/uploads/")).send().await.unwrap();
        let place = begun.headers()["location"].to_str().unwrap().to_string();
        let url = format!("{place}&digest={digest}");
        assert_eq!(http.put(url).body(read(digest)).send().await.unwrap().status(), 201);
    }
    for (name, digest, kind) in
        [(image.manifest.as_str(), &image.manifest, "manifest"), (tag, &image.index, "index")]
    {
        let request = http.put(format!("{base}/manifests/{name}")).body(read(digest));
        let request = request.header("content-type", format!("application/vnd.oci.image.{kind}.v1+json"));
        assert_eq!(request.send().await.unwrap().status(), 201);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_of_a_registry_is_fetched_when_needed() {
    crosskit_images::registry::install_crypto_provider();
    let (_dir, dir) = folder();
    let image = layout(&dir);
    let registry = registry();
    push(&registry, &image, "v1").await;
    let host = HostConfig { http: Some(true), ..HostConfig::default() };
    let daemon = Daemon::with(RegistryHosts::new(HashMap::from([(registry.1.clone(), host)])));
    let build = Build::alone();
    let cx: Arc<dyn SourceContext> = build.clone();
    let name = format!("{}/lib/app:v1", registry.1);
    let source =
        daemon.sources.resolve(&op(&format!("docker-image://{name}"), &[]), Some(&PLATFORM())).unwrap();
    assert_eq!(source.key(&cx, 0).await.unwrap().unwrap().pin, image.index);
    let reference = source.snapshot(&cx).await.unwrap().unwrap();
    assert!(!daemon.snapshots.content().contains(&image.layers[0].parse().unwrap()));
    let mounted = reference.mount_readonly().await.unwrap();
    assert_eq!(std::fs::read_to_string(mounted.path().join("bin/b")).unwrap(), "two\n");

    let platform = crosskit_platforms::Platform::new("linux", "arm64", "");
    let meta = daemon.sources.resolve_image_config(&name, Some(&platform), &cx).await.unwrap();
    assert_eq!(meta.digest, image.index);
    assert_eq!(sha(std::str::from_utf8(&meta.config).unwrap()), image.config);

    for (attrs, text) in [
        (&[("image.checksum", image.config.as_str())][..], "does not match expected checksum"),
        (&[("image.layerlimit", "3")], "layer limit 3 is greater than the number of layers in the image 2"),
    ] {
        let source =
            daemon.sources.resolve(&op(&format!("docker-image://{name}"), attrs), Some(&PLATFORM())).unwrap();
        let err = source.key(&cx, 0).await.unwrap_err().to_string();
        assert!(err.contains(text), "{err}");
    }
    let elsewhere =
        crosskit_api::pb::Platform { os: "linux".into(), architecture: "s390x".into(), ..Default::default() };
    let source =
        daemon.sources.resolve(&op(&format!("docker-image://{name}"), &[]), Some(&elsewhere)).unwrap();
    let err = source.key(&cx, 0).await.unwrap_err().to_string();
    assert!(err.contains("no match for platform in manifest"), "{err}");

    let blob = format!("docker-image+blob://{}/lib/app@{}", registry.1, image.config);
    let brought = daemon.bring(&build, op(&blob, &[])).await.unwrap();
    let config = std::fs::read_to_string(dir.join("blobs/sha256").join(&image.config[7..])).unwrap();
    assert_eq!(brought.files().await, [format!("{} f 600 0:0  {config}", &image.config[7..])]);

    // A pinned image that is here needs no registry.
    drop(registry);
    let pinned = format!("docker-image://{name}@{}", image.index);
    let source = daemon.sources.resolve(&op(&pinned, &[]), Some(&PLATFORM())).unwrap();
    assert_eq!(source.key(&cx, 0).await.unwrap().unwrap().pin, image.index);
    for wrong in ["docker-image://docker.io/Library/x:y", "docker-image://docker.io/library/busybox"] {
        assert!(daemon.sources.resolve(&op(wrong, &[]), None).is_err());
    }
    assert!(daemon.sources.resolve(&op(&pinned, &[("image.resolvemode", "x")]), None).is_err());
}
