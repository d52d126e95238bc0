//! What options do, refuse, or say that they do not do. The same table was run with BuildKit's daemon, which ends each
//! row alike, with these words or the beginning of them.

use crate::SAID;
use crosskit_multiarch::{Images, Scene, Tree};
use serde_json::Value;

const BOTH: [&str; 2] = ["linux/amd64", "linux/arm64"];

#[test]
fn options_are_kept_refused_or_told_of() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let context = scene.context("said", &[("Dockerfile", SAID)]);
    let file = format!("dest={}", scene.path("image.tar").display());
    let one = &BOTH[..1];
    let image = scene.registry.reference("options");
    for (platforms, output, fails, says) in [
        (one, format!("type=image,name={image},colour=red"), false, "unknown option colour is ignored"),
        (one, "type=image,compresion=zstd".into(), false, "compresion is ignored, did you mean compression?"),
        (one, format!("type=oci,{file},push=maybe"), false, "push has no effect with type=oci"),
        (one, format!("type=oci,{file},annotation[linux/s390x].a=b"), false, ""),
        (
            one,
            format!("type=image,name={image},unpack=true,store=0,buildinfo=1,buildinfo-attrs=1"),
            false,
            "",
        ),
        (one, format!("type=oci,{file},compression-level=-1,force-compression="), false, ""),
        (one, format!("type=oci,{file},tar=maybe"), true, "non-bool value specified for tar"),
        (
            one,
            format!("type=oci,{file},oci-mediatypes="),
            true,
            "non-bool value specified for oci-mediatypes",
        ),
        (one, "type=image,unpack=maybe".into(), true, "non-bool value specified for unpack"),
        (one, format!("type=oci,{file},compression="), true, "unsupported compression type"),
        (
            one,
            format!("type=oci,{file},compression-level=x"),
            true,
            "non-integer value x specified for compression-level",
        ),
        (
            one,
            format!("type=oci,{file},oci-artifact=true,oci-mediatypes=false"),
            true,
            "\"oci-artifact=true\" conflicts with",
        ),
        (
            one,
            format!("type=oci,{file},name=A_B:::"),
            true,
            "failed to parse A_B:::: invalid reference format",
        ),
        (
            one,
            format!("type=image,name={image}:tag,push=true,push-by-digest=true"),
            true,
            "can't push tagged ref",
        ),
        (
            one,
            format!("type=oci,{file},annotation-index.a=b"),
            true,
            "index annotations not supported for single platform export",
        ),
        (
            one,
            format!("type=oci,{file},annotation-nonsense.a=b"),
            true,
            "unrecognized annotation type nonsense",
        ),
        (
            &BOTH,
            format!("type=oci,{file},annotation[linux/s390x].a=b"),
            true,
            "no platform linux/s390x found in source",
        ),
        (
            one,
            format!("type=oci,{file},oci-mediatypes=false,annotation-manifest-descriptor.a=b"),
            true,
            "cannot export annotations with \"oci-mediatypes=false\"",
        ),
        (
            &BOTH,
            format!("type=docker,{file}"),
            true,
            "docker exporter does not currently support exporting manifest lists",
        ),
        (one, format!("type=tar,{file},platform-split="), true, "platform-split"),
        (one, format!("type=tar,{file},mode=move"), true, "invalid local exporter mode \"move\""),
        (one, format!("type=tar,{file},colour=red"), false, "unknown option colour is ignored"),
        (one, "type=moby".into(), true, "exporter \"moby\" could not be found"),
    ] {
        let ran = daemon.build(&context).platforms(platforms).output(&output).run();
        let ran = if fails { ran.fails() } else { ran.ok() };
        let ran = ran.says(says);
        if says.is_empty() {
            ran.never_says("is ignored").never_says("no effect");
        }
    }
    daemon.stop();
}

#[test]
fn a_client_is_told_the_names_and_digests_of_an_image() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let context = scene.context("said", &[("Dockerfile", SAID)]);
    let name = scene.registry.reference("told");
    let dangling = scene.registry.reference("dangling");
    for (options, names, config) in [
        (String::new(), None, true),
        (format!("name={name}"), Some(name.clone()), true),
        (format!("\"name={name}:1,{name}:2\",name-canonical=true"), Some(format!("{name}:1,{name}:2")), true),
        (
            format!("name={name},dangling-name-prefix={dangling}"),
            Some(format!("{name},{dangling}@DIGEST")),
            true,
        ),
        (
            format!("name={name},dangling-name-prefix={dangling},danging-name-empty-only=true"),
            Some(name.clone()),
            true,
        ),
        (
            format!("dangling-name-prefix={dangling},danging-name-empty-only=true"),
            Some(format!("{dangling}@DIGEST")),
            true,
        ),
    ] {
        let output = format!("type=image,{options}");
        let build = daemon.build(&context).platforms(&BOTH[..1]).output(output.trim_end_matches(','));
        let (_, told) = build.run_for_metadata();
        let digest = told["containerimage.digest"].as_str().expect("a digest");
        let names = names.map(|names| names.replace("DIGEST", digest));
        assert_eq!(told["image.name"].as_str(), names.as_deref(), "{options}");
        assert_eq!(told["containerimage.descriptor"]["digest"], digest);
        assert_eq!(told["containerimage.config.digest"].is_string(), config, "{options}");
    }
    // Of an index no config is told, and its descriptor says what it is.
    let output = format!("type=image,name={name},push=true");
    let (_, told) = daemon.build(&context).platforms(&BOTH).output(&output).run_for_metadata();
    assert!(told["containerimage.config.digest"].is_null());
    let kind = "application/vnd.oci.image.index.v1+json";
    assert_eq!(told["containerimage.descriptor"]["mediaType"], kind);
    daemon.stop();
}

#[test]
fn platforms_get_folders_where_they_are_to() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let text = "FROM scratch AS of-amd64\nCOPY <<END /amd64\nEND\nFROM scratch AS of-arm64\nCOPY <<END /arm64\nEND\n\
        FROM of-$TARGETARCH\n";
    let context = scene.context("apart", &[("Dockerfile", text)]);
    for (kind, options, platforms, expected) in [
        ("local", "", &BOTH[..], &["linux_amd64/amd64", "linux_arm64/arm64"][..]),
        ("local", ",platform-split=false", &BOTH, &["amd64", "arm64"]),
        ("local", ",platform-split=true", &BOTH[..1], &["linux_amd64/amd64"]),
        ("tar", "", &BOTH, &["linux_amd64/amd64", "linux_arm64/arm64"]),
        // A tar has always folders where there are several platforms.
        ("tar", ",platform-split=false", &BOTH, &["linux_amd64/amd64", "linux_arm64/arm64"]),
        ("tar", ",platform-split=true", &BOTH[..1], &["amd64"]),
    ] {
        let to = scene.path("out");
        let _ = std::fs::remove_dir_all(&to).or_else(|_| std::fs::remove_file(&to));
        let output = format!("type={kind},dest={}{options}", to.display());
        daemon.build(&context).platforms(platforms).output(&output).run().ok();
        let tree = match kind {
            "local" => Tree::of_folder(&to),
            _ => {
                let mut tree = Tree::default();
                tree.apply(&std::fs::read(&to).expect("the tar"));
                tree
            }
        };
        let files = tree.0.iter().filter(|(_, entry)| entry.kind == '0').map(|(name, _)| name.as_str());
        assert_eq!(files.collect::<Vec<_>>(), expected, "{kind}{options}");
    }
    daemon.stop();
}

#[test]
fn annotations_go_where_they_are_sent() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let context = scene.context("said", &[("Dockerfile", SAID)]);
    let file = scene.path("image.tar");
    let output = format!(
        "type=oci,dest={},annotation.all=1,annotation[linux/arm64].all=2,annotation-index.of=3,\
         annotation-manifest-descriptor[linux/amd64].at=4,annotation-index-descriptor.top=5",
        file.display()
    );
    daemon.build(&context).platforms(&BOTH).output(&output).run().ok();
    let images = Images::archive(&file);
    let top = &images.index_json()["manifests"][0];
    let index = images.json(top);
    let entries = BOTH.map(|platform| Images::entry(&index, platform).clone());
    let manifests: Vec<Value> = entries.iter().map(|entry| images.json(entry)).collect();
    let found = [
        &top["annotations"]["top"],
        &index["annotations"]["of"],
        &entries[0]["annotations"]["at"],
        &entries[1]["annotations"]["at"],
        &manifests[0]["annotations"]["all"],
        &manifests[1]["annotations"]["all"],
    ];
    let found: Vec<_> = found.iter().map(|value| value.as_str()).collect();
    assert_eq!(found, [Some("5"), Some("3"), Some("4"), None, Some("1"), Some("2")]);
    daemon.stop();
}
