//! What an export costs, counted by what the daemon's log says it has packed; and what it does when the disk has not
//! kept what was packed.

use crate::DOCKERFILE;
use crosskit_multiarch::{Daemon, Images, Scene, digest_of, until};
use serde_json::Value;
use std::path::Path;
use std::time::Duration;

/// The digests of the layers that the daemon has packed, up to the only layer of a build that is made now: the log
/// comes some time after what it tells of, but in order.
fn packed(daemon: &Daemon, scene: &Scene, mark: &str) -> Vec<String> {
    let text = format!("FROM scratch\nCOPY <<END /mark\n{mark}\nEND\n");
    let context = scene.context("mark", &[("Dockerfile", &text)]);
    let file = scene.path("mark.tar");
    let _ = std::fs::remove_file(&file);
    daemon.build(&context).output(&format!("type=oci,dest={}", file.display())).run().ok();
    let images = Images::archive(&file);
    let manifest = images.json(&images.index_json()["manifests"][0]);
    let last = manifest["layers"][0]["digest"].as_str().expect("a digest").to_owned();
    until("the log to tell of the last layer", Duration::from_secs(60), || {
        let log = daemon.log();
        let lines = log.lines().filter(|line| line.contains("packed a layer"));
        let digests = lines.filter_map(|line| line.split("digest=").nth(1)?.split_whitespace().next());
        let all: Vec<String> = digests.map(str::to_owned).collect();
        let at = all.iter().position(|digest| *digest == last)?;
        Some(all[..at].to_vec())
    })
}

#[test]
fn nothing_is_packed_twice_and_an_export_that_is_repeated_packs_nothing() {
    let scene = Scene::set();
    let context = scene.context("made", &[("Dockerfile", DOCKERFILE)]);
    let daemon = scene.daemon();
    let names = ["one:1", "two:2"].map(|name| scene.registry.reference(name));
    let cache = scene.registry.reference("cache:1");
    let export = |daemon: &Daemon, options: &str| {
        let (file, folder) = (scene.path("x.tar"), scene.path("x"));
        let _ = std::fs::remove_file(&file);
        let _ = std::fs::remove_dir_all(&folder);
        daemon
            .build(&context)
            .output(&format!("type=oci,dest={}{options}", file.display()))
            .output(&format!("type=oci,tar=false,dest={}{options}", folder.display()))
            .output(&format!("type=docker,dest={}{options}", scene.path("docker.tar").display()))
            .output(&format!("type=image,\"name={}\",push=true{options}", names.join(",")))
            .argument("--export-cache")
            .argument(&format!("type=registry,ref={cache},mode=max"))
            .run()
            .ok();
    };
    // Three layers of its own; the base's stays as it came.
    export(&daemon, "");
    let first = packed(&daemon, &scene, "first");
    assert_eq!(first.len(), 3, "{first:?}");
    export(&daemon, "");
    assert_eq!(packed(&daemon, &scene, "second").len(), 4, "only what shows where the first ended");
    // What another form wants is packed once as well, from what is there, and stays there.
    for (options, layers, mark) in [
        (",compression=zstd,force-compression=true", 4, "zstd"),
        (",compression=estargz,force-compression=true", 4, "estargz"),
        (",rewrite-timestamp=true,source-date-epoch=1700000000", 3, "early"),
    ] {
        let before = packed(&daemon, &scene, &format!("before {mark}")).len() + 1;
        export(&daemon, options);
        export(&daemon, options);
        let after = packed(&daemon, &scene, mark);
        assert_eq!(after.len(), before + layers, "{options}: {:?}", &after[before..]);
    }
    daemon.stop();
    let daemon = scene.daemon();
    export(&daemon, "");
    export(&daemon, ",compression=zstd,force-compression=true");
    assert_eq!(packed(&daemon, &scene, "after a restart"), [""; 0]);

    // Times are cut off where files are packed for the first time, not in a second pass.
    daemon.buildctl(&["prune", "--all"]).ok();
    let early = ",compression=zstd,rewrite-timestamp=true,source-date-epoch=1700000000";
    let file = scene.path("early.tar");
    daemon.build(&context).output(&format!("type=oci,dest={}{early}", file.display())).run().ok();
    assert_eq!(packed(&daemon, &scene, "at once").len(), 1 + 3);
    daemon.stop();
}

/// Damages a blob of the daemon, whose length stays the same.
fn damage(daemon: &Daemon, digest: &str) {
    let hex = digest.strip_prefix("sha256:").expect("a sha256 digest");
    let file = daemon.root.join("content/blobs/sha256").join(hex);
    let mut bytes = std::fs::read(&file).unwrap_or_else(|error| panic!("read {}: {error}", file.display()));
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x55;
    assert_ne!(digest_of(&bytes), digest);
    std::fs::write(&file, bytes).expect("damage the blob");
}

fn own_layer(file: &Path) -> (Value, String) {
    let images = Images::archive(file);
    let entry = images.index_json()["manifests"][0].clone();
    let digest = images.json(&entry)["layers"][2]["digest"].as_str().expect("a digest").to_owned();
    (entry["digest"].clone(), digest)
}

#[test]
fn a_blob_that_the_disk_has_damaged_is_not_passed_on_and_is_made_again() {
    let scene = Scene::set();
    let context = scene.context("made", &[("Dockerfile", DOCKERFILE)]);
    let daemon = scene.daemon();
    let file = scene.path("good.tar");
    daemon.build(&context).output(&format!("type=oci,dest={}", file.display())).run().ok();
    let (image, layer) = own_layer(&file);
    for (at, output) in [
        format!("type=oci,dest={}", scene.path("bad.tar").display()),
        format!("type=docker,dest={}", scene.path("bad.docker.tar").display()),
        format!("type=oci,tar=false,dest={}", scene.path("bad").display()),
        format!("type=image,push=true,name={}", scene.registry.reference("damaged:1")),
    ]
    .iter()
    .enumerate()
    {
        damage(&daemon, &layer);
        let ran = daemon.build(&context).output(output).run().fails();
        ran.says(&format!("stored content {layer} was damaged on disk and has been removed"));
        let again = scene.path(&format!("again{at}.tar"));
        daemon
            .build(&context)
            .output(output)
            .output(&format!("type=oci,dest={}", again.display()))
            .run()
            .ok();
        assert_eq!(own_layer(&again), (image.clone(), layer.clone()), "{output}");
    }
    daemon.stop();
}
