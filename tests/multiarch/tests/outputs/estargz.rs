//! eStargz as somebody reads it who has only its specification: the footer tells where the table of contents is, the
//! table where each part of a file is, and every part is had and checked without the rest of the blob.

use crate::{archive, check_tree, context};
use crosskit_multiarch::{Images, Scene, digest_of};
use flate2::bufread::GzDecoder;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::Read;
use std::process::Command;

/// A file of more than one part, and whiteouts.
const DOCKERFILE: &str = "FROM BASE\nRUN mkdir /big && yes some words | head -c 9000000 > /big/file \
    && cp /big/file /big/again && chown -R 5:6 /big\nRUN rm -r /big/again && ln /big/file /big/hard && touch /big/empty\n";

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value[key].as_str().unwrap_or_default()
}

/// The gzip member that begins at a place of the blob.
fn member(blob: &[u8], at: usize) -> Vec<u8> {
    let mut plain = Vec::new();
    GzDecoder::new(&blob[at..]).read_to_end(&mut plain).expect("a gzip member");
    plain
}

/// The table of contents, by the footer.
fn table(blob: &[u8], layer: &Value) -> Vec<Value> {
    let footer = &blob[blob.len() - 51..];
    assert_eq!((&footer[..4], &footer[10..16]), (&b"\x1f\x8b\x08\x04"[..], &b"\x1a\0SG\x16\0"[..]));
    assert_eq!((&footer[32..38], member(footer, 0).len()), (&b"STARGZ"[..], 0));
    let at = std::str::from_utf8(&footer[16..32]).expect("digits");
    let tar = member(blob, usize::from_str_radix(at, 16).expect("a number"));
    let mut tar = tar::Archive::new(tar.as_slice());
    let mut entry = tar.entries().expect("a tar").next().expect("an entry").expect("an entry");
    assert_eq!(entry.path().expect("a path").to_str(), Some("stargz.index.json"));
    let mut json = Vec::new();
    entry.read_to_end(&mut json).expect("the table");
    assert_eq!(text(&layer["annotations"], "containerd.io/snapshot/stargz/toc.digest"), digest_of(&json));
    let table: Value = serde_json::from_slice(&json).expect("JSON");
    assert_eq!(table["version"], 1);
    table["entries"].as_array().expect("entries").clone()
}

/// Checks a layer and gives the names in its table with the kinds that they have there.
fn check(images: &Images, layer: &Value) -> Vec<(String, String)> {
    let blob = images.blob(text(layer, "digest"));
    let entries = table(&blob, layer);
    let plain = images.layer_tar(layer);
    assert_eq!(
        text(&layer["annotations"], "io.containers.estargz.uncompressed-size"),
        plain.len().to_string()
    );

    // What is in the tar for everybody.
    let mut files = BTreeMap::new();
    let mut in_tar = Vec::new();
    for entry in tar::Archive::new(plain.as_slice()).entries().expect("a tar") {
        let mut entry = entry.expect("an entry");
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).expect("content");
        let header = entry.header();
        let number = |found: std::io::Result<u64>| found.expect("a number");
        in_tar.push((
            name.clone(),
            number(header.mode().map(u64::from)),
            number(header.uid()),
            number(header.gid()),
            if header.entry_type().is_file() { content.len() as u64 } else { 0 },
            entry
                .link_name_bytes()
                .map(|link| String::from_utf8_lossy(&link).into_owned())
                .unwrap_or_default(),
        ));
        files.insert(name, content);
    }
    let number = |entry: &Value, key: &str| entry[key].as_u64().unwrap_or(0);
    let whole = entries.iter().filter(|entry| entry["type"] != "chunk");
    let mut in_table: Vec<_> = whole
        .map(|entry| {
            let name = text(entry, "name").to_owned();
            let [mode, uid, gid, size] = ["mode", "uid", "gid", "size"].map(|key| number(entry, key));
            (name, mode, uid, gid, size, text(entry, "linkName").to_owned())
        })
        .collect();
    let landmark = in_table.pop().expect("an entry");
    assert_eq!((landmark.0.as_str(), landmark.4), (".no.prefetch.landmark", 1));
    files.insert(landmark.0, vec![0xf]);
    assert_eq!(in_table, in_tar, "the table tells of the layer's own entries and nothing else");

    // Every part by itself.
    for entry in entries.iter().filter(|entry| number(entry, "offset") > 0) {
        let (name, from) = (text(entry, "name"), number(entry, "chunkOffset") as usize);
        let content = &files[name];
        let to = match number(entry, "chunkSize") as usize {
            0 => content.len(),
            size => from + size,
        };
        let part = &member(&blob, number(entry, "offset") as usize)[..to - from];
        assert!(part == &content[from..to], "{name} from {from}");
        assert_eq!(text(entry, "chunkDigest"), digest_of(part), "{name} from {from}");
        if entry["type"] == "reg" {
            assert_eq!(text(entry, "digest"), digest_of(content), "{name}");
        }
    }
    let content = entries.iter().filter(|entry| number(entry, "offset") == 0);
    assert!(content.clone().all(|entry| number(entry, "size") == 0 && entry["type"] != "chunk"));
    let kinds = entries.iter().map(|entry| (text(entry, "name").to_owned(), text(entry, "type").to_owned()));
    kinds.collect()
}

#[test]
fn every_file_of_an_estargz_layer_is_had_without_the_others() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    let context = scene.context("big", &[("Dockerfile", DOCKERFILE)]);
    let estargz = "compression=estargz,force-compression=true";
    let (name, cache) = (scene.registry.reference("lazy:1"), scene.registry.reference("lazy:cache"));
    daemon
        .build(&context)
        .output(&format!("type=image,name={name},push=true,{estargz}"))
        .argument("--export-cache")
        .argument(&format!("type=registry,ref={cache},mode=max,{estargz},compression-level=1"))
        .run()
        .ok();
    let images = Images::Repository(&scene.registry, "lazy".into());
    let document = |tag| -> Value {
        serde_json::from_slice(&scene.registry.manifest("lazy", tag).expect("a manifest")).expect("JSON")
    };
    let manifest = document("1");
    let layers = manifest["layers"].as_array().expect("layers");
    let [base, big, small] = layers.as_slice() else { panic!("{layers:?}") };
    assert!(check(&images, base).iter().any(|(name, _)| name.ends_with("busybox")));
    let named = |name: &str, kind: &str| (name.to_owned(), kind.to_owned());
    let (file, again) = ("big/file", "big/again");
    let parts = |name| [named(name, "reg"), named(name, "chunk"), named(name, "chunk")];
    let expected = [named("big/", "dir")].into_iter().chain(parts(again)).chain(parts(file));
    let landmark = named(".no.prefetch.landmark", "reg");
    assert_eq!(check(&images, big), expected.chain([landmark.clone()]).collect::<Vec<_>>());
    let rest = check(&images, small);
    for entry in [named("big/.wh.again", "reg"), named("big/empty", "reg"), landmark] {
        assert!(rest.contains(&entry), "{entry:?} in {rest:?}");
    }
    // The cache has the same blobs: they are packed once.
    let cached = document("cache");
    let mut digests: Vec<_> =
        cached["layers"].as_array().expect("layers").iter().map(|l| &l["digest"]).collect();
    digests.retain(|digest| layers.iter().any(|layer| layer["digest"] == **digest));
    assert_eq!(digests.len(), 3, "{cached}");
    for layer in cached["layers"].as_array().expect("layers") {
        check(&images, layer);
    }

    // Debian's tar sees a layer and no table.
    let blob = scene.path("layer.tar.gz");
    std::fs::write(&blob, images.blob(text(big, "digest"))).expect("write the layer");
    let listed = Command::new("tar").arg("-tzf").arg(&blob).output().expect("tar");
    assert!(listed.status.success());
    assert_eq!(String::from_utf8_lossy(&listed.stdout), "big/\nbig/again\nbig/file\n");

    // Built upon, the layers are still had one by one; and they become ordinary ones where that is asked for.
    daemon.buildctl(&["prune", "--all"]).ok();
    let upon = scene
        .context("upon", &[("Dockerfile", &format!("FROM {name}\nRUN cat /big/file | wc -c > /size\n"))]);
    let oci = scene.path("upon.tar");
    let exported = |options: &str| {
        let _ = std::fs::remove_file(&oci);
        daemon.build(&upon).output(&format!("type=oci,dest={}{options}", oci.display())).run().ok();
        let images = Images::archive(&oci);
        let manifest = images.json(&images.index_json()["manifests"][0]);
        (manifest["layers"].as_array().expect("layers").clone(), images)
    };
    let (kept, images) = exported("");
    assert_eq!(kept[..3], layers[..]);
    assert!(kept[3]["annotations"].is_null());
    check(&images, &kept[1]);
    for options in
        [",compression=gzip,force-compression=true", ",compression=uncompressed,force-compression="]
    {
        let (ordinary, images) = exported(options);
        for layer in &ordinary {
            assert!(layer["annotations"].is_null(), "{layer}");
            let has = |plain: Vec<u8>, text: &[u8]| plain.windows(text.len()).any(|bytes| bytes == text);
            assert!(!has(images.layer_tar(layer), b"stargz.index.json"), "{options}: {layer}");
            assert!(!has(images.layer_tar(layer), b"prefetch.landmark"), "{options}: {layer}");
        }
    }
    daemon.stop();
}

#[test]
fn estargz_keeps_everything_that_layers_carry() {
    let scene = Scene::set();
    let daemon = scene.daemon();
    for options in ["", ",compression-level=9", ",rewrite-timestamp=true,source-date-epoch=1700000000"] {
        let output = format!("type=oci,compression=estargz,force-compression=true{options}");
        let (images, _) = archive(&daemon, &scene, &output);
        let manifest = images.json(&images.index_json()["manifests"][0]);
        for layer in manifest["layers"].as_array().expect("layers") {
            check(&images, layer);
        }
        check_tree(&images.tree(&manifest));
    }
    let output = format!("type=oci,dest={},compression=estargz", scene.path("x.tar").display());
    let ran = daemon.build(&context(&scene)).output(&format!("{output},oci-mediatypes=false")).run().fails();
    ran.says("exporter option \"compression=estargz\" conflicts with \"oci-mediatypes=false\"");
    daemon.stop();
}
