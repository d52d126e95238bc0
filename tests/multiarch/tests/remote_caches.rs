//! Caches elsewhere: what one daemon gives away, another one uses, whatever the place.

#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

use crosskit_multiarch::{Buildx, Daemon, DaemonOptions, Images, Ran, S3Store, Scene, Tree, mounts_below};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Steps with each kind of input: images, a context, parts of other stages, mounts. What each makes
/// is never the same twice.
const DOCKERFILE: &str = "FROM BASE AS made\nRUN /bin/cat /proc/sys/kernel/random/uuid > /made\n\
    FROM BASE\nCOPY a.txt /a.txt\nCOPY --from=made /made /made\n\
    RUN --mount=type=bind,from=made,target=/m /bin/cat /m/made /proc/sys/kernel/random/uuid > /three\n";

/// The steps of it that are to be found.
const STEPS: usize = 4;

fn context(scene: &Scene) -> PathBuf {
    scene.context("context", &[("Dockerfile", DOCKERFILE), ("a.txt", "a\n")])
}

fn fresh(scene: &Scene, name: &str) -> Daemon {
    scene.daemon_with(DaemonOptions { name: name.into(), ..DaemonOptions::default() })
}

/// How many steps were found in a cache.
fn cached(ran: &Ran) -> usize {
    ran.said().lines().filter(|line| line.ends_with(" CACHED")).count()
}

/// One way to give a cache away and to use it.
struct Way {
    name: &'static str,
    export: String,
    import: String,
}

/// All that there are.
fn ways(scene: &Scene) -> Vec<Way> {
    let folder = scene.path("cache").display().to_string();
    let at = |name: &str| scene.registry.reference(&format!("caches:{name}"));
    let way = |name, export: String, import: String| Way { name, export, import };
    let registry = |name, more: &str| {
        let at = format!("type=registry,ref={}", at(name));
        way(name, format!("{at}{more}"), at)
    };
    vec![
        way("folder", format!("type=local,dest={folder}-min"), format!("type=local,src={folder}-min")),
        way(
            "folder-tag",
            format!("type=local,dest={folder}-max,mode=max,tag=other,compression=zstd"),
            format!("type=local,src={folder}-max,tag=other"),
        ),
        registry("min", ""),
        registry("max", ",mode=max"),
        registry("index", ",mode=max,image-manifest=false"),
        registry("docker", ",oci-mediatypes=false"),
        registry("zstd", ",mode=max,compression=zstd,compression-level=3,force-compression=true"),
        registry("plain", ",compression=uncompressed,force-compression=true"),
        way(
            "inline",
            "type=inline".to_owned(),
            format!("type=registry,ref={}", scene.registry.reference("caches:image")),
        ),
    ]
}

fn run(daemon: &Daemon, context: &Path, export: &[String], import: &[String], output: &str) -> Ran {
    let mut build = daemon.build(context).output(output);
    for cache in export {
        build = build.argument("--export-cache").argument(cache);
    }
    for cache in import {
        build = build.argument("--import-cache").argument(cache);
    }
    build.run()
}

fn folder(path: &Path) -> String {
    format!("type=local,dest={}", path.display())
}

#[test]
fn what_one_daemon_gives_away_another_one_finds_in_whatever_place() {
    let scene = Scene::set();
    let context = context(&scene);
    let image = format!("type=image,name={},push=true", scene.registry.reference("caches:image"));
    let daemon = fresh(&scene, "giver");
    let out = scene.path("out");
    // One build for them all, so that all have to tell of the same; but a client can only be told of
    // one manifest, so that a second folder needs a build of its own.
    let (alone, all): (Vec<Way>, Vec<Way>) =
        ways(&scene).into_iter().partition(|way| way.name == "folder-tag");
    let exports = |ways: Vec<Way>| ways.into_iter().map(|way| way.export).collect::<Vec<String>>();
    run(&daemon, &context, &exports(all), &[], &image).ok();
    run(&daemon, &context, &exports(alone), &[], &folder(&out)).ok();
    daemon.stop();
    let tree = Tree::of_folder(&out);
    let made = ["a.txt", "made", "three"].map(|path| (path, tree.text(path)));
    for way in ways(&scene) {
        let daemon = fresh(&scene, way.name);
        let into = scene.path(&format!("out-{}", way.name));
        let ran = run(&daemon, &context, &[], std::slice::from_ref(&way.import), &folder(&into)).ok();
        assert_eq!(cached(&ran), STEPS, "{}: {ran}", way.name);
        let found = Tree::of_folder(&into);
        for (path, text) in &made {
            assert_eq!(found.text(path), *text, "{}", way.name);
        }
        // What was found is known here now, and can be given on.
        let again = scene.path(&format!("again-{}", way.name)).display().to_string();
        let ran =
            run(&daemon, &context, &[format!("type=local,dest={again},mode=max")], &[], &folder(&into)).ok();
        assert_eq!(cached(&ran), STEPS, "{}: {ran}", way.name);
        daemon.stop();
        let daemon = fresh(&scene, &format!("{}-next", way.name));
        let ran = run(&daemon, &context, &[], &[format!("type=local,src={again}")], &folder(&into)).ok();
        assert_eq!(cached(&ran), STEPS, "{} given on: {ran}", way.name);
        daemon.stop();
    }
}

#[test]
fn a_cache_holds_the_keys_that_buildkit_makes() {
    let scene = Scene::set();
    let dockerfile = "FROM BASE AS base\nENV PATH=/bin:/usr/bin\nRUN echo one > /one\n\nFROM base AS mid\nWORKDIR /work\n\
        RUN --mount=type=cache,target=/cache echo two > /work/two\nCOPY a.txt a.txt\n\nFROM BASE\nENV PATH=/bin:/usr/bin\n\
        COPY --from=mid /work/two /two\nCOPY --chown=1:2 --chmod=640 a.txt /b.txt\nCOPY dir /dir\n\
        RUN --mount=type=bind,from=base,source=/one,target=/m cat /m > /three\n";
    let files = [("Dockerfile", dockerfile), ("a.txt", "hi\n"), ("dir/x", "x\n"), ("dir/y", "y\n")];
    let context = scene.context("keys", &files);
    let known: Value = serde_json::from_str(include_str!("remote_caches/keys.json")).expect("JSON");
    for mode in ["min", "max"] {
        let daemon = fresh(&scene, mode);
        let cache = scene.path(mode);
        let export = format!("type=local,dest={},mode={mode}", cache.display());
        daemon
            .build(&context)
            .platforms(&["linux/amd64"])
            .argument("--export-cache")
            .argument(&export)
            .run()
            .ok();
        daemon.stop();
        assert_eq!(shape(&Images::Folder(cache)), known[mode], "{mode}");
    }
}

/// What a cache tells, without what differs from machine to machine: which keys follow from which,
/// and how many layers they lead to.
fn shape(cache: &Images<'_>) -> Value {
    let manifest = cache.json(&cache.index_json()["manifests"][0]);
    assert_eq!(manifest["config"]["mediaType"], "application/vnd.buildkit.cacheconfig.v0");
    let config = cache.json(&manifest["config"]);
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let (records, layers) = (list(&config["records"]), list(&config["layers"]));
    assert_eq!(layers.len(), list(&manifest["layers"]).len());
    let index = |value: &Value| value.as_i64().unwrap_or(0);
    let height = |mut at: i64| {
        let mut height = 0;
        while let Ok(layer) = usize::try_from(at) {
            height += 1;
            at = index(&layers[layer]["parent"]);
        }
        height
    };
    let is_root = |record: &Value| list(&record["inputs"]).is_empty();
    let known_by = |input: &Value| {
        let record = &records[usize::try_from(index(&input["link"])).expect("a record")];
        let name = if is_root(record) { "root" } else { record["digest"].as_str().expect("a digest") };
        match input["selector"].as_str() {
            Some(selector) => format!("{name} {selector}"),
            None => name.to_owned(),
        }
    };
    let mut keys: Vec<Value> = Vec::new();
    for record in records.iter().filter(|record| !is_root(record)) {
        let inputs = list(&record["inputs"]);
        let inputs = inputs.iter().map(|input| {
            let mut known: Vec<String> = list(input).iter().map(known_by).collect();
            known.sort();
            known
        });
        let inputs: Vec<_> = inputs.collect();
        let layers: Vec<_> =
            list(&record["layers"]).iter().map(|result| height(index(&result["layer"]))).collect();
        keys.push(json!({ "key": record["digest"], "layers": layers, "inputs": inputs }));
    }
    keys.sort_by_key(|key| key["key"].to_string());
    let roots = records.iter().filter(|record| is_root(record)).count();
    json!({ "roots": roots, "layers": layers.len(), "keys": keys })
}

#[test]
fn platforms_share_one_cache_and_images_tell_of_their_own() {
    let scene = Scene::set();
    let context = context(&scene);
    let reference = scene.registry.reference("caches:platforms");
    let image = format!("type=image,name={},push=true", scene.registry.reference("caches:image"));
    let caches = [format!("type=registry,ref={reference},mode=max"), "type=inline".to_owned()];
    let both = ["linux/amd64", "linux/arm64"];
    let daemon = fresh(&scene, "giver");
    let mut build = daemon.build(&context).platforms(&both).output(&image);
    for cache in &caches {
        build = build.argument("--export-cache").argument(cache);
    }
    build.run().ok();
    daemon.stop();
    for (at, from) in [&reference, &scene.registry.reference("caches:image")].into_iter().enumerate() {
        let import = format!("type=registry,ref={from}");
        for (platforms, steps) in [(&both[..], 2 * STEPS), (&both[1..], STEPS), (&both[..1], STEPS)] {
            let daemon = fresh(&scene, &format!("taker-{at}-{}-{steps}", platforms[0].replace('/', "-")));
            let build = daemon.build(&context).platforms(platforms).into(&scene.path("out"));
            let ran = build.argument("--import-cache").argument(&import).run().ok();
            assert_eq!(cached(&ran), steps, "{platforms:?} of {from}: {ran}");
            daemon.stop();
        }
    }
}

#[test]
fn a_cache_that_cannot_be_read_costs_nothing_but_a_word() {
    let scene = Scene::set();
    let context = context(&scene);
    let registry = &scene.registry;
    let no_config = registry.push_blob("lies", b"{");
    let config = "application/vnd.buildkit.cacheconfig.v0";
    let manifest = |digest: &str, size: u64| {
        let text = json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": { "mediaType": config, "digest": digest, "size": size }, "layers": [] });
        text.to_string().into_bytes()
    };
    let put = |tag: &str, text: &[u8]| {
        registry.push_manifest("lies", tag, "application/vnd.oci.image.manifest.v1+json", text);
        format!("type=registry,ref={}", registry.reference(&format!("lies:{tag}")))
    };
    let looping =
        json!({ "records": [{ "digest": digest_of_nothing(), "inputs": [[{ "link": 0 }]] }] }).to_string();
    let loop_config = registry.push_blob("lies", looping.as_bytes());
    let cases = [
        (put("broken", &manifest(&no_config, 1)), "cache config: "),
        (put("huge", &manifest(&no_config, 1 << 30)), "is too large (1073741824 > "),
        (put("loop", &manifest(&loop_config, looping.len() as u64)), "invalid looping record"),
        (format!("type=registry,ref={}", registry.reference("lies:nothing")), "lies:nothing"),
        (format!("type=local,src={}", scene.path("empty").display()), ""),
    ];
    let daemon = fresh(&scene, "daemon");
    for (import, why) in cases {
        let out = scene.path("out");
        let ran = run(&daemon, &context, &[], std::slice::from_ref(&import), &folder(&out)).ok();
        if !why.is_empty() {
            ran.clone().says("ERROR: ").says(why);
        }
        assert_eq!(Tree::of_folder(&out).text("a.txt"), "a\n", "{import}");
    }
    daemon.stop();
}

fn digest_of_nothing() -> String {
    crosskit_multiarch::digest_of(b"")
}

#[test]
fn a_cache_that_cannot_be_given_away_fails_the_build_unless_told_otherwise() {
    let scene = Scene::set();
    let context = context(&scene);
    let daemon = fresh(&scene, "daemon");
    let out = folder(&scene.path("out"));
    // Nobody listens there.
    let nowhere = "type=registry,ref=127.0.0.1:1/caches:none".to_owned();
    let ignored = format!("{nowhere},ignore-error=true");
    run(&daemon, &context, &[nowhere], &[], &out).fails().says("connection refused");
    run(&daemon, &context, &[ignored], &[], &out).ok().says("connection refused");
    for (export, why) in [
        ("type=nothing", "unknown cache exporter: \"nothing\""),
        (
            "type=registry,ref=127.0.0.1:1/x,image-manifest=true,oci-mediatypes=false",
            "OCI mediatypes are required",
        ),
        ("type=registry,ref=127.0.0.1:1/x,compression=lzma", "unsupported compression type lzma"),
    ] {
        run(&daemon, &context, &[export.to_owned()], &[], &out).fails().says(why);
    }
    let twice = vec!["type=registry,ref=127.0.0.1:1/x".to_owned(); 2];
    run(&daemon, &context, &twice, &[], &out).fails().says("duplicate cache exports [registry]");
    daemon.stop();
}

#[test]
fn a_layer_that_the_registry_has_lost_is_made_again() {
    let scene = Scene::set();
    let context = context(&scene);
    let reference = scene.registry.reference("caches:lost");
    let daemon = fresh(&scene, "giver");
    let cache = format!("type=registry,ref={reference},mode=max");
    run(&daemon, &context, &[cache], &[], &folder(&scene.path("out"))).ok();
    daemon.stop();
    let manifest: Value =
        serde_json::from_slice(&scene.registry.manifest("caches", "lost").expect("the cache")).expect("JSON");
    let layers = manifest["layers"].as_array().expect("layers");
    let digests: BTreeSet<_> = layers.iter().filter_map(|layer| layer["digest"].as_str()).collect();
    let base = scene.base_image.layer_digest("linux/amd64");
    for digest in digests.into_iter().filter(|digest| *digest != base) {
        std::fs::remove_file(scene.registry.blob_file(digest)).expect("lose a layer");
    }
    let daemon = fresh(&scene, "taker");
    let out = scene.path("made-again");
    let import = format!("type=registry,ref={reference}");
    run(&daemon, &context, &[], &[import], &folder(&out)).ok();
    let (before, after) = (Tree::of_folder(&scene.path("out")), Tree::of_folder(&out));
    assert_ne!(before.text("made"), after.text("made"));
    assert_eq!(Tree::of_folder(&out).text("a.txt"), "a\n");
    daemon.stop();
}

#[test]
fn a_disk_that_is_full_during_an_import_costs_one_build_at_most() {
    let scene = Scene::set();
    let dockerfile = "FROM BASE\nRUN dd if=/dev/urandom of=/large bs=1M count=40\n";
    let context = scene.context("large", &[("Dockerfile", dockerfile)]);
    let cache = format!("type=registry,ref={}", scene.registry.reference("caches:large"));
    let giver = fresh(&scene, "giver");
    run(&giver, &context, &[format!("{cache},mode=max")], &[], &folder(&scene.path("given"))).ok();
    giver.stop();
    // The layer's blob fits, or its files, but not both. In the daemon's folder, to be taken away with it.
    let disk = scene.path("taker/disk");
    std::fs::create_dir_all(&disk).expect("create a mount point");
    let flags = rustix::mount::MountFlags::empty();
    rustix::mount::mount("tmpfs", &disk, "tmpfs", flags, Some(c"size=70m")).expect("mount a small disk");
    let root = Some(disk.join("root"));
    let taker = scene.daemon_with(DaemonOptions { name: "taker".into(), root, ..DaemonOptions::default() });
    let import = [cache];
    let ran = run(&taker, &context, &[], &import, &folder(&scene.path("full"))).fails();
    assert!(ran.said().to_lowercase().contains("no space left on device"), "{ran}");
    rustix::mount::mount_remount(&disk, flags, c"size=400m").expect("enlarge the disk");
    let large = |name: &str| {
        let out = scene.path(name);
        run(&taker, &context, &[], &import, &folder(&out)).ok();
        crosskit_multiarch::digest_of(&std::fs::read(out.join("large")).expect("the large file"))
    };
    let (next, last) = (large("next"), large("last"));
    assert_eq!(next, last);
    assert_eq!(std::fs::metadata(scene.path("next").join("large")).expect("the file").len(), 40 << 20);
    drop(taker);
    assert!(mounts_below(&disk).is_empty());
}

#[test]
fn cache_mounts_go_with_a_cache_where_that_is_wanted() {
    let scene = Scene::set();
    let step = |word: &str| {
        let text = format!(
            "FROM BASE\nRUN --mount=type=cache,target=/kept --mount=type=cache,id=more,target=/more \
             echo {word} >> /kept/log && cat /kept/log > /seen && echo {word} >> /more/log && cat /more/log > /more-seen\n"
        );
        scene.context(word, &[("Dockerfile", &text)])
    };
    let [one, two, three] = ["one", "two", "three"].map(step);
    let s3 = S3Store::start(&scene.parts);
    let s3_keys = format!("{},access_key_id=id,secret_access_key=secret", s3.keys());
    let place = scene.path("mounts").display().to_string();
    let registry = format!("type=registry,ref={}", scene.registry.reference("caches:mounts"));
    let mut number = 0;
    let mut build = |context: &Path, daemon: &Daemon, export: &[String], import: &[String]| {
        number += 1;
        let out = scene.path(&format!("mounts-{number}"));
        run(daemon, context, export, import, &folder(&out)).ok();
        let tree = Tree::of_folder(&out);
        (tree.text("seen"), tree.text("more-seen"))
    };
    let seen = |kept: &str, more: &str| (kept.to_owned(), more.to_owned());
    for (at, (export, import)) in [
        (registry.clone(), registry),
        (format!("type=local,dest={place}"), format!("type=local,src={place}")),
        (s3_keys.clone(), s3_keys),
    ]
    .into_iter()
    .enumerate()
    {
        let giver = fresh(&scene, &format!("giver-{at}"));
        build(&one, &giver, &[format!("{export},mode=max,cache-mounts=true")], &[]);
        giver.stop();
        for (case, wanted, expected) in [
            ("all", ",cache-mounts=true", seen("one\ntwo\n", "one\ntwo\n")),
            ("some", ",cache-mounts=more;none", seen("two\n", "one\ntwo\n")),
            ("none", "", seen("two\n", "two\n")),
        ] {
            let daemon = fresh(&scene, &format!("taker-{at}-{case}"));
            let import = [format!("{import}{wanted}")];
            assert_eq!(build(&two, &daemon, &[], &import), expected, "{import:?}");
            // What is there stays as it is.
            let (kept, more) = expected;
            let expected = (format!("{kept}three\n"), format!("{more}three\n"));
            assert_eq!(build(&three, &daemon, &[], &import), expected, "{import:?}");
            daemon.stop();
        }
        // Without a word nothing of them is given away, and what others have given stays.
        let giver = fresh(&scene, &format!("plain-{at}"));
        build(&three, &giver, &[format!("{export},mode=max")], &[]);
        giver.stop();
        let daemon = fresh(&scene, &format!("later-{at}"));
        let import = [format!("{import},cache-mounts=true")];
        assert_eq!(build(&two, &daemon, &[], &import), seen("one\ntwo\n", "one\ntwo\n"), "{import:?}");
        daemon.stop();
    }
}

/// What becomes of layers between the hit and their use.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Gone,
    Swapped,
}

impl Fate {
    fn befall(self, file: &Path) {
        match self {
            Fate::Gone => std::fs::remove_file(file).expect("lose a layer"),
            Fate::Swapped => {
                let content = std::fs::read(file).expect("read a layer");
                let other: Vec<u8> = content.iter().map(|byte| byte ^ 1).collect();
                std::fs::write(file, other).expect("damage a layer");
            }
        }
    }
}

#[test]
fn layers_that_are_gone_or_wrong_when_they_are_needed_are_made_again() {
    let scene = Scene::set();
    let context = context(&scene);
    let reference = scene.registry.reference("caches:fate");
    let place = scene.path("cache");
    let registry =
        (format!("type=registry,ref={reference}"), format!("type=registry,ref={reference},mode=max"));
    let local = (
        format!("type=local,src={}", place.display()),
        format!("type=local,dest={},mode=max", place.display()),
    );
    let base = scene.base_image.layer_digest("linux/amd64");
    let image = "type=image,name=example.com/kept:1";
    // A step more, which needs the files of what was found.
    let more = format!("{DOCKERFILE}RUN /bin/cat /made /three > /four\n");
    let longer = scene.context("longer", &[("Dockerfile", &more), ("a.txt", "a\n")]);
    for (at, (fate, in_folder, first, then)) in [
        // Found and not needed yet; then the registry collects them.
        (Fate::Gone, false, Some(image), &context),
        (Fate::Gone, false, Some(image), &longer),
        (Fate::Swapped, false, None, &context),
        (Fate::Swapped, false, None, &longer),
        (Fate::Swapped, true, None, &context),
    ]
    .into_iter()
    .enumerate()
    {
        let case = format!("{at}: {fate:?}, in a folder: {in_folder}");
        let (import, export) = if in_folder { &local } else { &registry };
        let giver = fresh(&scene, &format!("giver-{at}"));
        let given = scene.path(&format!("given-{at}"));
        run(&giver, &context, std::slice::from_ref(export), &[], &folder(&given)).ok();
        giver.stop();
        let daemon = fresh(&scene, &format!("taker-{at}"));
        let imports = std::slice::from_ref(import);
        if let Some(output) = first {
            let ran = run(&daemon, &context, &[], imports, output).ok();
            assert_eq!(cached(&ran), STEPS, "{case}: {ran}");
        }
        let manifest: Value = match in_folder {
            true => {
                let cache = Images::Folder(place.clone());
                cache.json(&cache.index_json()["manifests"][0])
            }
            false => serde_json::from_slice(&scene.registry.manifest("caches", "fate").unwrap()).unwrap(),
        };
        let layers = manifest["layers"].as_array().expect("layers").iter();
        let digests: BTreeSet<_> = layers.filter_map(|layer| layer["digest"].as_str()).collect();
        for digest in digests {
            if digest != base {
                let hex = digest.strip_prefix("sha256:").expect("a digest");
                fate.befall(&match in_folder {
                    true => place.join("blobs/sha256").join(hex),
                    false => scene.registry.blob_file(digest),
                });
            }
        }
        let out = scene.path(&format!("out-{at}"));
        let ran = run(&daemon, then, &[], if first.is_some() { &[] } else { imports }, &folder(&out)).ok();
        let (before, after) = (Tree::of_folder(&given), Tree::of_folder(&out));
        assert_eq!(after.text("a.txt"), "a\n", "{case}");
        assert_ne!(before.text("made"), after.text("made"), "{case}: {ran}");
        assert!(after.text("three").starts_with(&after.text("made")), "{case}: {ran}");
        // What is known from now on is what was made.
        let once_more = scene.path(&format!("once-more-{at}"));
        let ran = run(&daemon, then, &[], &[], &folder(&once_more)).ok();
        assert_eq!(Tree::of_folder(&once_more).text("three"), after.text("three"), "{case}: {ran}");
        daemon.stop();
        let _ = std::fs::remove_dir_all(&place);
    }
}

#[test]
fn a_hit_that_is_pushed_on_moves_no_layer_through_the_daemon() {
    let scene = Scene::set();
    let context = context(&scene);
    let reference = scene.registry.reference("caches:lazy");
    let daemon = fresh(&scene, "giver");
    let cache = format!("type=registry,ref={reference},mode=max");
    run(&daemon, &context, &[cache], &[], &folder(&scene.path("out"))).ok();
    daemon.stop();
    let daemon = fresh(&scene, "taker");
    let image = format!("type=image,name={},push=true", scene.registry.reference("pushed:on"));
    let next = format!("type=registry,ref={},mode=max", scene.registry.reference("given:on"));
    let ran = run(&daemon, &context, &[next], &[format!("type=registry,ref={reference}")], &image).ok();
    // The context's copy is looked for by content, for which no layer is needed either.
    assert_eq!(cached(&ran), STEPS, "{ran}");
    let blobs = daemon.root.join("content/blobs/sha256");
    let manifest: Value =
        serde_json::from_slice(&scene.registry.manifest("pushed", "on").expect("the image")).expect("JSON");
    let layers = manifest["layers"].as_array().expect("layers");
    for layer in layers {
        let hex =
            layer["digest"].as_str().and_then(|digest| digest.strip_prefix("sha256:")).expect("a digest");
        assert!(!blobs.join(hex).exists(), "{layer} was got");
    }
    assert_eq!(layers.len(), STEPS);
    daemon.stop();
}

#[test]
fn docker_buildx_gives_caches_away_and_uses_them() {
    let scene = Scene::set();
    let context = context(&scene);
    let text = context.display().to_string();
    let reference = scene.registry.reference("caches:buildx");
    let inline = scene.registry.reference("caches:buildx-image");
    let daemon = fresh(&scene, "giver");
    let buildx = Buildx::create(&scene, &daemon);
    let (to, out) = (format!("type=registry,ref={reference},mode=max"), folder(&scene.path("out")));
    buildx.run(&["build", "--provenance=false", "--cache-to", &to, "-o", &out, &text]).ok();
    let tag = ["build", "--provenance=false", "--cache-to", "type=inline", "--push", "-t", &inline, &text];
    buildx.run(&tag).ok();
    let place = scene.path("buildx-cache").display().to_string();
    let to = format!("type=local,dest={place}");
    buildx.run(&["build", "--provenance=false", "--cache-to", &to, "-o", &out, &text]).ok();
    daemon.stop();
    for (at, from) in [reference, inline, format!("type=local,src={place}")].into_iter().enumerate() {
        let daemon = fresh(&scene, &format!("taker-{at}"));
        // The builder of the daemon that is gone.
        std::fs::remove_dir_all(scene.path("docker-config")).expect("remove buildx's configuration");
        let buildx = Buildx::create(&scene, &daemon);
        let arguments =
            ["build", "--progress=plain", "--provenance=false", "--cache-from", &from, "-o", &out, &text];
        let ran = buildx.run(&arguments).ok();
        assert_eq!(cached(&ran), STEPS, "{from}: {ran}");
        daemon.stop();
    }
}
