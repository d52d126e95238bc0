//! One request for many platforms: split, routed, merged.

use crosskit_multiarch::{Images, PLATFORMS, Ran, Scene, Tree, folder_name};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

const EPOCH: &str = "1700000000";

/// The demonstration's own Dockerfile: a stage that belongs to the builder's platform, and the rest
/// for each target, whose report says what it ran as.
fn demo() -> PathBuf {
    crosskit_multiarch::workspace().join("examples/demo")
}

fn report(platform: &str) -> String {
    let mut words = platform.split('/').skip(1);
    let architecture = words.next().expect("an architecture");
    let variant = words.next().unwrap_or_default();
    format!("platform={platform} arch={architecture} variant={variant}\nsays=HELLO, EIGHT\n")
}

/// How many times a step's own output shows a text: lines of the plain view are `#7 0.012 text`.
fn times_printed(ran: &Ran, text: &str) -> usize {
    ran.said().lines().filter(|line| line.starts_with('#') && line.split(' ').nth(2) == Some(text)).count()
}

#[test]
fn eight_platforms_become_one_index_with_annotations_at_every_level() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let context = demo();
    let name = scene.registry.reference("app:one");
    let output = format!(
        "type=image,name={name},push=true,rewrite-timestamp=true,\
         annotation.to=each,annotation-manifest[linux/arm64].only=arm64,\
         annotation-index.of=index,annotation-manifest-descriptor.at=descriptor,\
         annotation-manifest-descriptor[linux/s390x].big=endian"
    );
    let (_, metadata) = daemon
        .build(&context)
        .platforms(&PLATFORMS)
        .opt("target", "app")
        .opt("build-arg:BASE", &scene.base())
        .opt("build-arg:SOURCE_DATE_EPOCH", EPOCH)
        .output(&output)
        .run_for_metadata();

    let images = Images::Repository(&scene.registry, "app".into());
    let bytes = scene.registry.manifest("app", "one").expect("the tag is there");
    assert_eq!(metadata["containerimage.digest"], crosskit_multiarch::digest_of(&bytes));
    let index: Value = serde_json::from_slice(&bytes).expect("an index");

    let base = scene.registry.manifest("base", "latest").expect("the base image");
    let base: Value = serde_json::from_slice(&base).expect("an index");
    let mut entries = Vec::new();
    for platform in PLATFORMS {
        let entry = Images::entry(&index, platform);
        let manifest = images.json(entry);
        let config = images.json(&manifest["config"]);
        let below = images_of_base(&scene).json(Images::entry(&base, platform));

        let mut annotations = json!({"to": "each"});
        if platform == "linux/arm64" {
            annotations["only"] = "arm64".into();
        }
        assert_eq!(manifest["annotations"], annotations, "{platform}");
        assert_eq!(
            manifest["layers"][0]["digest"], below["layers"][0]["digest"],
            "{platform} keeps its base's blob"
        );
        check_config(&config, &manifest, platform);
        check_files(&images, &manifest, platform);

        let mut about = json!({"at": "descriptor"});
        if platform == "linux/s390x" {
            about = json!({"at": "descriptor", "big": "endian"});
        }
        entries.push(json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": entry["digest"],
            "size": entry["size"],
            "annotations": about,
            "platform": platform_json(platform),
        }));
    }
    // Key by key and byte by byte: order of the platforms, order of the keys, layout of the text.
    let wanted = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": entries,
        "annotations": {"of": "index"},
    });
    let wanted = serde_json::to_string_pretty(&wanted).expect("JSON");
    assert_eq!(String::from_utf8_lossy(&bytes), wanted);
    daemon.stop();
}

fn images_of_base(scene: &Scene) -> Images<'_> {
    Images::Repository(&scene.registry, "base".into())
}

fn platform_json(platform: &str) -> Value {
    let mut words = platform.split('/');
    let os = words.next().expect("a system");
    let architecture = words.next().expect("an architecture");
    match words.next() {
        Some(variant) => json!({"architecture": architecture, "os": os, "variant": variant}),
        None => json!({"architecture": architecture, "os": os}),
    }
}

fn check_config(config: &Value, manifest: &Value, platform: &str) {
    let about = platform_json(platform);
    for key in ["os", "architecture", "variant"] {
        assert_eq!(config[key], about[key], "{key} of {platform}");
    }
    assert_eq!(config["created"], "2023-11-14T22:13:20Z", "{platform}");
    assert_eq!(config["config"]["Cmd"], json!(["/app/report"]), "{platform}");
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    assert_eq!(config["config"]["Env"], json!([path, "GREETED=yes"]), "{platform}");
    let labels = json!({"made.by": "the test harness", "platform": platform});
    assert_eq!(config["config"]["Labels"], labels, "{platform}");
    let layers = manifest["layers"].as_array().expect("layers").len();
    assert_eq!(layers, 4, "base, two COPYs and a RUN: {platform}");
    assert_eq!(config["rootfs"]["diff_ids"].as_array().expect("diff ids").len(), layers, "{platform}");
    let history = config["history"].as_array().expect("a history");
    let filled = history.iter().filter(|step| step["empty_layer"] != true).count();
    assert_eq!(filled, layers, "history and layers agree: {platform}");
}

fn check_files(images: &Images<'_>, manifest: &Value, platform: &str) {
    let tree = images.tree(manifest);
    assert_eq!(tree.text("app/report.txt"), report(platform));
    assert_eq!(tree.0["app/report"].mode, 0o755, "{platform}");
    assert_eq!(tree.text("etc/base").trim(), platform.split('/').nth(1).expect("an architecture"));
    for (path, entry) in &tree.0 {
        assert_eq!((entry.uid, entry.gid), (0, 0), "owner of {path} for {platform}");
    }
}

#[test]
fn local_output_has_one_folder_per_platform_and_a_native_step_runs_once() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let context = demo();
    let out = scene.path("out");
    let ran = daemon
        .build(&context)
        .platforms(&PLATFORMS)
        .opt("build-arg:BASE", &scene.base())
        .into(&out)
        .run()
        .ok();
    let tree = Tree::of_folder(&out);
    let mut wanted = BTreeMap::new();
    let mut serials = BTreeSet::new();
    for platform in PLATFORMS {
        let folder = folder_name(platform);
        wanted.insert(format!("{folder}/report.txt"), report(platform));
        let serial = tree.text(&format!("{folder}/serial.txt"));
        wanted.insert(format!("{folder}/serial.txt"), serial.clone());
        serials.insert(serial);
    }
    let found: BTreeMap<String, String> =
        tree.texts().into_iter().map(|(path, text)| (path.to_owned(), text)).collect();
    assert_eq!(found, wanted);
    assert_eq!(serials.len(), 1, "the step of the builder's platform ran more than once: {ran}");
    assert_eq!(times_printed(&ran, "made-once"), 1, "{ran}");
    daemon.stop();
}

#[test]
fn without_the_split_platforms_share_one_folder() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let dockerfile = "FROM BASE AS a\nARG TARGETARCH\nRUN echo $TARGETARCH > /of-$TARGETARCH\n\
                      FROM scratch\nARG TARGETARCH\nCOPY --from=a /of-$TARGETARCH /\n";
    let context = scene.context("merged", &[("Dockerfile", dockerfile)]);
    let out = scene.path("out");
    let output = format!("type=local,dest={},platform-split=false", out.display());
    daemon.build(&context).platforms(&["linux/amd64", "linux/arm64"]).output(&output).run().ok();
    let tree = Tree::of_folder(&out);
    assert_eq!(tree.text("of-amd64"), "amd64\n");
    assert_eq!(tree.text("of-arm64"), "arm64\n");
    assert_eq!(tree.0.len(), 2);
    daemon.stop();
}

#[test]
fn without_the_split_two_contents_for_one_path_are_refused() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let dockerfile = "FROM BASE AS a\nARG TARGETARCH\nRUN echo $TARGETARCH > /which\nFROM scratch\nCOPY --from=a /which /\n";
    let context = scene.context("clash", &[("Dockerfile", dockerfile)]);
    let output = format!("type=local,dest={},platform-split=false", scene.path("out").display());
    daemon
        .build(&context)
        .platforms(&["linux/amd64", "linux/arm64"])
        .output(&output)
        .run()
        .fails()
        .says("cannot overwrite which");
    daemon.stop();
}

#[test]
fn the_index_keeps_the_order_that_was_asked_for() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let context = scene.context("order", &[("Dockerfile", "FROM BASE\n")]);
    let asked = ["linux/s390x", "linux/arm/v7", "linux/amd64", "linux/arm64"];
    let archive = scene.path("order.tar");
    daemon
        .build(&context)
        .platforms(&asked)
        .output(&format!("type=oci,dest={}", archive.display()))
        .run()
        .ok();
    let images = Images::archive(&archive);
    let index = images.json(&images.index_json()["manifests"][0]);
    let entries = index["manifests"].as_array().expect("manifests");
    assert_eq!(entries.iter().map(Images::platform_of).collect::<Vec<_>>(), asked);
    daemon.stop();
}

#[test]
fn two_clean_builds_with_an_epoch_have_one_digest() {
    let scene = Scene::set();
    let dockerfile = "FROM --platform=$BUILDPLATFORM BASE AS first\nCOPY file /in\nRUN date > /dated-by-mtime-only && rm /dated-by-mtime-only && echo 7 > /made\n\
        FROM BASE\nCOPY --from=first /made /in /there/\nRUN /bin/mkdir -p /a/b && /bin/touch /a/b/c && /bin/ln -s c /a/b/d\n";
    let context = scene.context("dated", &[("Dockerfile", dockerfile), ("file", "x\n")]);
    let digests: BTreeSet<String> = ["first", "second"]
        .into_iter()
        .map(|name| {
            let daemon = scene
                .daemon_with(crosskit_multiarch::DaemonOptions { name: name.into(), ..Default::default() });
            let archive = scene.path(&format!("{name}.tar"));
            let (_, metadata) = daemon
                .build(&context)
                .platforms(&["linux/amd64", "linux/riscv64"])
                .opt("build-arg:SOURCE_DATE_EPOCH", EPOCH)
                .output(&format!("type=oci,rewrite-timestamp=true,dest={}", archive.display()))
                .run_for_metadata();
            daemon.stop();
            metadata["containerimage.digest"].as_str().expect("a digest").to_owned()
        })
        .collect();
    assert_eq!(digests.len(), 1, "{digests:?}");
}

#[test]
fn an_unknown_platform_is_refused_by_name() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let context = scene.context("odd", &[("Dockerfile", "FROM BASE\nRUN true\n")]);
    daemon
        .build(&context)
        .platforms(&["linux/amd64/v1/and/more"])
        .run()
        .fails()
        .says("linux/amd64/v1/and/more");
    daemon.build(&context).platforms(&["lin!ux/amd64"]).run().fails().says("lin!ux");
    daemon.stop();
}

#[test]
fn a_step_whose_emulator_crashes_is_run_once_more() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    // Says what QEMU says when it crashes itself, and ends as it would; the second time it works, the third is never.
    let crash = "echo 'qemu-riscv64: QEMU internal SIGSEGV {code=MAPERR, addr=0x0}' >&2; exit 139";
    let step = |times: usize| {
        format!(
            "FROM BASE\nRUN --mount=type=cache,id=crash-{times},target=/seen echo x >> /seen/times; \
             if [ $(/bin/wc -l < /seen/times) -le {times} ]; then echo left > /by-the-first; {crash}; fi; \
             echo worked > /result\n"
        )
    };
    let out = scene.path("out");
    let context = scene.context("once", &[("Dockerfile", &step(1))]);
    let ran = daemon.build(&context).platforms(&["linux/riscv64"]).into(&out).run().ok();
    ran.says("the emulator for linux/riscv64 has crashed");
    assert_eq!(Tree::of_folder(&out).text("result"), "worked\n");
    assert!(!out.join("by-the-first").exists(), "it began anew");
    let context = scene.context("twice", &[("Dockerfile", &step(2))]);
    daemon.build(&context).platforms(&["linux/riscv64"]).run().fails().says("exit code: 139");
    let context = scene.context("native", &[("Dockerfile", &step(3))]);
    let ran = daemon.build(&context).platforms(&["linux/amd64"]).run().fails();
    ran.never_says("once more").says("exit code: 139");
    daemon.stop();
}

#[test]
fn a_platform_that_nothing_can_run_fails_before_any_step_and_says_how_to_get_it() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let dockerfile = "FROM --platform=$BUILDPLATFORM BASE AS native\nRUN echo it-ran > /x\n\
                      FROM scratch\nCOPY --from=native / /\nRUN true\n";
    let context = scene.context("nowhere", &[("Dockerfile", dockerfile)]);
    // No emulator for it is among the parts.
    let ran = daemon.build(&context).platforms(&["linux/amd64", "linux/mips64le"]).run().fails();
    let ran = ran.says("linux/mips64le").says("binfmt --install mips64le");
    assert_eq!(times_printed(&ran, "it-ran"), 0, "{ran}");
    daemon.stop();
}
