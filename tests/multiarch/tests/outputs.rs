//! Where results go: every kind of output, alone and together.

#[path = "outputs/estargz.rs"]
mod estargz;
#[path = "outputs/options.rs"]
mod options;
#[path = "outputs/readers.rs"]
mod readers;
#[path = "outputs/work.rs"]
mod work;

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
        (",compression=zstd,force-compression=true,compression-level=0", "tar+zstd"),
        (",compression=estargz,force-compression=true", "tar+gzip"),
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
        ("estargz", ",compression=estargz,force-compression=true"),
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

/// An image with everything that its configuration can say, and no file from outside.
const SAID: &str = r#"FROM scratch AS files
COPY --chmod=755 <<run <<data /files/
#!/bin/sh
run
some text
data
FROM scratch
MAINTAINER Some One
COPY --from=files --chown=7:8 /files /files
COPY --link <<EOF /linked/by/name
linked
EOF
ENV ONE=1 TWO="two words"
LABEL plain=1 "html"="<a>&amp;"
EXPOSE 80 53/udp
VOLUME /data
USER 7:8
WORKDIR /work/here
STOPSIGNAL SIGINT
HEALTHCHECK --interval=5s --start-interval=1ms --retries=2 CMD ["check"]
SHELL ["/files/run", "-c"]
ENTRYPOINT ["/files/run"]
CMD with a shell
ONBUILD ENV THREE=3
ONBUILD COPY --from=files /files/data /data
"#;

/// One on top of it, whose trigger runs.
const SAID_MORE: &str = r#"FROM scratch AS files
COPY <<data /files/
data of the child
data
FROM PARENT
LABEL child=yes
CMD []
"#;

/// SHA-256 sums of the top documents that BuildKit 0.32 writes for the same builds, and with them of all below: index,
/// manifests, configurations and layers. Layers are not compressed, for no two programs compress alike.
#[test]
fn documents_are_those_of_buildkit_to_the_byte() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let sum = |name: &str, dockerfile: &str, output: &str, platforms: &[&str], epoch: &str| {
        let context = scene.context(name, &[("Dockerfile", dockerfile)]);
        let file = scene.path("image.tar");
        let _ = std::fs::remove_file(&file);
        let output =
            format!("{output},compression=uncompressed,rewrite-timestamp=true,dest={}", file.display());
        let mut build = daemon.build(&context).platforms(platforms).opt("build-arg:SOURCE_DATE_EPOCH", epoch);
        if platforms.len() > 1 {
            build = build.opt("label:asked", "for");
        }
        build.output(&output).run().ok();
        let images = Images::archive(&file);
        let mut documents = images.file("index.json");
        if output.starts_with("type=docker") {
            documents.extend(images.file("manifest.json"));
        }
        crosskit_multiarch::digest_of(&documents)
    };
    let (oci, docker_types, docker) =
        ("type=oci", "type=oci,oci-mediatypes=false", "type=docker,name=example.com/pinned:1");
    let annotated = "type=oci,\"name=example.com/a:1,example.com/b:2\",annotation.all=1,\
        annotation[linux/arm64].one=2,annotation-index.of=index,annotation-manifest-descriptor.at=descriptor";
    let (amd64, both) = (["linux/amd64"], ["linux/amd64", "linux/arm64"]);
    for (output, platforms, expected) in [
        (oci, amd64.as_slice(), "59b5be82dff309ab3eae4f543d500b378c3071e454cb3d2ef74043681a9de10a"),
        (docker_types, &amd64, "1371c0ba14cca40bf138cb619ff9e3d7088020a63a309762e8ca66f9395461d8"),
        (docker, &amd64, "d30817ac9fcb3a3218695d25cb058dd2608d192dbf7b9280639e121eff2590f6"),
        (annotated, &both, "1161a3eff2179edd2834a06ce3e07a12e2428cdb1a12adcda08694e4066696d2"),
    ] {
        let found = sum("said", SAID, output, platforms, "1700000000");
        assert_eq!(found, format!("sha256:{expected}"), "{output}");
    }
    let parent = scene.registry.reference("said:1");
    let push = format!("type=image,name={parent},push=true,compression=uncompressed,rewrite-timestamp=true");
    let build = daemon.build(&scene.path("said")).platforms(&amd64);
    build.opt("build-arg:SOURCE_DATE_EPOCH", "1700000000").output(&push).run().ok();
    let dockerfile = SAID_MORE.replace("PARENT", &parent);
    for (output, expected) in [
        (oci, "53569dc68f5b3f92a628c52ea05dcb11bcedc0fa99fff70792658677240022b6"),
        (docker_types, "22a3731d0fa557ad0bbe79fd00b1a404fc978cc25ee6d1ec712d21982ca5047c"),
        (docker, "c9215352c6db921044e2cb2aa46c6612c030e4afaf6d2227bb8b8d231265e4e4"),
    ] {
        let found = sum("said-more", &dockerfile, output, &amd64, "1750000000");
        assert_eq!(found, format!("sha256:{expected}"), "on top: {output}");
    }
    // The time of an archive's entry is that of the Dockerfile where nobody else says one.
    let timed = format!("ARG SOURCE_DATE_EPOCH=5\n{SAID}");
    let context = scene.context("timed", &[("Dockerfile", &timed)]);
    let file = scene.path("timed.tar");
    let build = daemon.build(&context).platforms(&amd64);
    build.output(&format!("type=oci,dest={}", file.display())).run().ok();
    let entry = &Images::archive(&file).index_json()["manifests"][0];
    assert_eq!(entry["annotations"]["org.opencontainers.image.created"], "1970-01-01T00:00:05Z");
    daemon.stop();
}
