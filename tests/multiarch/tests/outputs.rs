//! Where results go: every kind of output, alone and together.

use crosskit_multiarch::{Daemon, Images, Scene, Tree};
use serde_json::{Value, json};
use std::path::PathBuf;

/// A tree with what layers have to carry: owners, modes, links, removed and replaced things.
const DOCKERFILE: &str = r#"
FROM BASE AS made
RUN mkdir -p /t/deep/er && echo one > /t/file && ln /t/file /t/hard && ln -s file /t/soft \
 && chown 7:9 /t/file && chmod 4711 /t/file && mkfifo /t/fifo && mkdir /t/gone && echo x > /t/gone/x \
 && echo below > /t/deep/below && chmod 1777 /t/deep
RUN rm -r /t/gone && rm -r /t/deep && mkdir /t/deep && echo above > /t/deep/above && rm /etc/base
USER builder
WORKDIR /t
EXPOSE 80/tcp
VOLUME /data
STOPSIGNAL SIGINT
ENTRYPOINT ["/bin/sh"]
CMD ["-c", "true"]
"#;

fn context(scene: &Scene) -> PathBuf {
    scene.context("made", &[("Dockerfile", DOCKERFILE)])
}

fn check_tree(tree: &Tree) {
    let file = &tree.0["t/file"];
    assert_eq!((file.uid, file.gid, file.mode), (7, 9, 0o4711));
    assert_eq!(tree.text("t/file"), "one\n");
    assert_eq!(tree.0["t/hard"], *file, "a hard link is the same file");
    assert_eq!((tree.0["t/soft"].kind, tree.0["t/soft"].content.as_slice()), ('2', b"file".as_slice()));
    assert_eq!(tree.0["t/fifo"].kind, '6');
    assert!(!tree.has("t/gone") && !tree.has("t/gone/x") && !tree.has("etc/base"));
    assert!(
        !tree.has("t/deep/below") && !tree.has("t/deep/er"),
        "a folder made anew hides the old one's content"
    );
    assert_eq!(tree.text("t/deep/above"), "above\n");
    assert_eq!(tree.0["t/deep"].mode, 0o755);
    assert!(tree.has("bin/busybox"));
}

fn archive(daemon: &Daemon, scene: &Scene, output: &str) -> (Images<'static>, Value) {
    let file = scene.path("image.tar");
    let _ = std::fs::remove_file(&file);
    let output = format!("{output},dest={}", file.display());
    let (_, metadata) = daemon.build(&context(scene)).output(&output).run_for_metadata();
    (Images::archive(&file), metadata)
}

#[test]
fn an_oci_archive_holds_the_image_whatever_the_compression() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    for (options, ending) in [
        ("", "tar+gzip"),
        (",compression=gzip,force-compression=true,compression-level=9", "tar+gzip"),
        (",compression=zstd,force-compression=true", "tar+zstd"),
        (",compression=zstd,force-compression=true,compression-level=19", "tar+zstd"),
        (",compression=uncompressed,force-compression=true", "layer.v1.tar"),
    ] {
        let (images, metadata) = archive(&daemon, &scene, &format!("type=oci{options}"));
        let top = images.index_json();
        assert_eq!(top["manifests"].as_array().expect("manifests").len(), 1);
        let descriptor = &top["manifests"][0];
        let manifest = images.json(descriptor);
        assert_eq!(metadata["containerimage.digest"], descriptor["digest"]);
        assert_eq!(metadata["containerimage.descriptor"]["size"], descriptor["size"]);
        assert_eq!(metadata["containerimage.config.digest"], manifest["config"]["digest"]);
        for layer in manifest["layers"].as_array().expect("layers") {
            assert!(layer["mediaType"].as_str().expect("a type").ends_with(ending), "{options}: {layer}");
        }
        check_tree(&images.tree(&manifest));
        let config = images.json(&manifest["config"]);
        let diff_ids: Vec<Value> = manifest["layers"]
            .as_array()
            .expect("layers")
            .iter()
            .map(|layer| crosskit_multiarch::digest_of(&images.layer_tar(layer)).into())
            .collect();
        assert_eq!(config["rootfs"]["diff_ids"], Value::Array(diff_ids), "{options}");
        check_config(&config["config"]);
    }
    daemon.stop();
}

fn check_config(config: &Value) {
    assert_eq!(config["User"], "builder");
    assert_eq!(config["WorkingDir"], "/t");
    assert_eq!(config["ExposedPorts"], json!({"80/tcp": {}}));
    assert_eq!(config["Volumes"], json!({"/data": {}}));
    assert_eq!(config["StopSignal"], "SIGINT");
    assert_eq!(config["Entrypoint"], json!(["/bin/sh"]));
    assert_eq!(config["Cmd"], json!(["-c", "true"]));
}

#[test]
fn an_oci_folder_is_the_archive_unpacked() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let folder = scene.path("layout");
    let output = format!("type=oci,tar=false,dest={}", folder.display());
    daemon.build(&context(&scene)).output(&output).run().ok();
    let images = Images::Folder(folder);
    check_tree(&images.tree(&images.json(&images.index_json()["manifests"][0])));
    daemon.stop();
}

#[test]
fn a_docker_archive_has_its_own_manifest() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let (images, _) = archive(&daemon, &scene, "type=docker,name=example/made:2");
    let list: Value = serde_json::from_slice(&images.file("manifest.json")).expect("JSON");
    assert_eq!(list[0]["RepoTags"], json!(["example/made:2"]));
    let manifest = images.json(&images.index_json()["manifests"][0]);
    assert_eq!(manifest["mediaType"], "application/vnd.oci.image.manifest.v1+json");
    check_tree(&images.tree(&manifest));

    let (images, _) = archive(&daemon, &scene, "type=docker,oci-mediatypes=false");
    let manifest = images.json(&images.index_json()["manifests"][0]);
    assert_eq!(manifest["mediaType"], "application/vnd.docker.distribution.manifest.v2+json");
    check_tree(&images.tree(&manifest));
    daemon.stop();
}

#[test]
fn a_tar_holds_the_files() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let file = scene.path("files.tar");
    daemon.build(&context(&scene)).output(&format!("type=tar,dest={}", file.display())).run().ok();
    let mut tree = Tree::default();
    tree.apply(&std::fs::read(file).expect("the tar"));
    check_tree(&tree);
    daemon.stop();
}

#[test]
fn a_local_folder_holds_the_files() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let out = scene.path("out");
    daemon.build(&context(&scene)).into(&out).run().ok();
    let tree = Tree::of_folder(&out);
    assert_eq!(tree.text("t/deep/above"), "above\n");
    assert!(!tree.has("t/gone"));
    daemon.stop();
}

#[test]
fn a_pushed_image_has_every_name_and_keeps_its_base_blob() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let names = ["several:1", "several:2", "other:latest"].map(|name| scene.registry.reference(name));
    let output = format!("type=image,\"name={}\",push=true,oci-mediatypes=false", names.join(","));
    daemon.build(&context(&scene)).output(&output).run().ok();
    let first = scene.registry.manifest("several", "1").expect("the first name");
    assert_eq!(scene.registry.manifest("several", "2").as_ref(), Some(&first));
    assert_eq!(scene.registry.manifest("other", "latest").as_ref(), Some(&first));
    let manifest: Value = serde_json::from_slice(&first).expect("a manifest");
    assert_eq!(manifest["mediaType"], "application/vnd.docker.distribution.manifest.v2+json");
    assert_eq!(manifest["layers"][0]["digest"], scene.base_image.layer_digest("linux/amd64"));
    check_tree(&Images::Repository(&scene.registry, "other".into()).tree(&manifest));
    daemon.stop();
}

#[test]
fn push_by_digest_leaves_no_tag() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let name = scene.registry.reference("untagged");
    let output = format!("type=image,name={name},push-by-digest=true,push=true");
    let (_, metadata) = daemon.build(&context(&scene)).output(&output).run_for_metadata();
    let digest = metadata["containerimage.digest"].as_str().expect("a digest");
    assert!(scene.registry.manifest("untagged", digest).is_some());
    assert!(scene.registry.manifest("untagged", "latest").is_none());
    daemon.stop();
}

#[test]
fn several_outputs_come_from_one_build() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let (tar, out, name) = (scene.path("image.tar"), scene.path("out"), scene.registry.reference("both:1"));
    daemon
        .build(&context(&scene))
        .output(&format!("type=oci,dest={}", tar.display()))
        .output(&format!("type=image,name={name},push=true"))
        .into(&out)
        .run()
        .ok();
    let images = Images::archive(&tar);
    check_tree(&images.tree(&images.json(&images.index_json()["manifests"][0])));
    assert!(scene.registry.manifest("both", "1").is_some());
    assert!(out.join("t/deep/above").is_file());
    daemon.stop();
}

#[test]
fn what_was_pushed_can_be_built_upon_after_everything_was_forgotten() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let out = scene.path("out");
    for (tag, options) in [
        ("gzip", ""),
        ("zstd", ",compression=zstd,force-compression=true"),
        ("plain", ",compression=uncompressed,force-compression=true"),
        ("docker", ",oci-mediatypes=false"),
    ] {
        let name = scene.registry.reference(&format!("upon:{tag}"));
        daemon
            .build(&context(&scene))
            .output(&format!("type=image,name={name},push=true{options}"))
            .run()
            .ok();
        daemon.buildctl(&["prune", "--all"]).ok();
        let dockerfile = format!(
            "FROM {name} AS below\nUSER 0\nRUN ls -ln /t > /list && ls /t/deep >> /list\nFROM scratch\nCOPY --from=below /list /t /\n"
        );
        let above = scene.context("above", &[("Dockerfile", &dockerfile)]);
        daemon.build(&above).into(&out).run().ok();
        let tree = Tree::of_folder(&out);
        let list = tree.text("list");
        assert!(list.contains("-rws--x--x    2 7        9"), "{tag}: {list}");
        assert!(list.ends_with("above\n"), "{tag}: {list}");
    }
    daemon.stop();
}

#[test]
fn index_annotations_need_an_index() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let output = format!("type=oci,dest={},annotation-index.a=b", scene.path("x.tar").display());
    let ran = daemon.build(&context(&scene)).output(&output).run().fails();
    ran.says("index annotations not supported for single platform export");
    daemon.stop();
}
