use crosskit_platforms::{Matcher, Platform};

use crate::*;

fn digest(n: u8) -> Digest {
    Digest::from_bytes([n; 32])
}

#[test]
fn digests_are_read_strictly() {
    let good = format!("sha256:{}", "0f".repeat(32));
    assert_eq!(good.parse::<Digest>().unwrap().to_string(), good);
    for (bad, why) in [
        ("", "invalid checksum digest format"),
        ("sha256", "invalid checksum digest format"),
        ("sha256:abc", "invalid checksum digest length"),
        (&good.to_uppercase(), "unsupported digest algorithm"),
        (&good.replace("0f", "0F"), "invalid checksum digest format"),
        ("md5:d41d8cd98f00b204e9800998ecf8427e", "unsupported digest algorithm"),
    ] {
        assert_eq!(bad.parse::<Digest>().unwrap_err().to_string(), format!("invalid digest {bad:?}: {why}"));
    }
}

#[test]
fn a_manifest_has_the_bytes_that_go_gives_it() {
    let mut layer = Descriptor::new(media_types::OCI_LAYER_GZIP, digest(2), 20);
    layer.annotations.insert("b".into(), "<&>\u{2028}\"é".into());
    layer.annotations.insert("a".into(), String::new());
    let mut manifest = Manifest::new(
        media_types::OCI_MANIFEST,
        Descriptor::new(media_types::OCI_CONFIG, digest(1), 10),
        vec![layer],
    );
    manifest.annotations.insert("k".into(), "v".into());
    let (one, two) = ("01".repeat(32), "02".repeat(32));
    let expected = format!(
        r#"{{
  "schemaVersion": 2,
  "mediaType": "application/vnd.oci.image.manifest.v1+json",
  "config": {{
    "mediaType": "application/vnd.oci.image.config.v1+json",
    "digest": "sha256:{one}",
    "size": 10
  }},
  "layers": [
    {{
      "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
      "digest": "sha256:{two}",
      "size": 20,
      "annotations": {{
        "a": "",
        "b": "\u003c\u0026\u003e\u2028\"é"
      }}
    }}
  ],
  "annotations": {{
    "k": "v"
  }}
}}"#
    );
    assert_eq!(String::from_utf8(manifest.to_json().unwrap()).unwrap(), expected);
    assert_eq!(Manifest::parse(expected.as_bytes()).unwrap(), manifest);
    manifest.layers.clear();
    assert!(String::from_utf8(manifest.to_json().unwrap()).unwrap().contains("\"layers\": null"));
}

#[test]
fn an_index_keeps_order_platforms_and_unknown_fields() {
    let text = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:{}","size":7,"data":"aGk=","platform":{{"architecture":"arm","os":"linux","variant":"v7"}},"artifactType":"x/y","new":[1,{{"deep":true}}]}}],"annotations":{{"z":"1"}},"future":"kept"}}"#,
        "ab".repeat(32)
    );
    let index = Index::parse(text.as_bytes()).unwrap();
    assert_eq!(index.manifests[0].data, b"hi");
    assert_eq!(index.manifests[0].platform.as_ref().unwrap().format_all(), "linux/arm/v7");
    assert_eq!(String::from_utf8(gojson::to_vec(&index).unwrap()).unwrap(), text);
}

#[test]
fn docker_configs_survive_with_all_their_fields() {
    let text = r#"{"created":"2024-01-02T03:04:05.6Z","author":"me","architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["sha256:0101010101010101010101010101010101010101010101010101010101010101"]},"history":[{"created":"2024-01-02T03:04:05.6Z","created_by":"RUN a \u0026\u0026 b","comment":"c","empty_layer":true}],"config":{"User":"u","ExposedPorts":{"80/tcp":{}},"Env":["A=b"],"Entrypoint":["e"],"Cmd":["c"],"Volumes":{"/v":{}},"WorkingDir":"/w","Labels":{"l":"m"},"StopSignal":"TERM","Healthcheck":{"Test":["CMD","x"],"Interval":1000000000,"Retries":3},"OnBuild":["RUN x"],"Shell":["/bin/sh","-c"],"Hostname":"h"},"docker_version":"20"}"#;
    let config = ImageConfig::parse(text.as_bytes()).unwrap();
    assert_eq!(String::from_utf8(config.to_json().unwrap()).unwrap(), text);
    let sorted = String::from_utf8(config.to_sorted_json().unwrap()).unwrap();
    let keys = ["architecture", "author", "config", "created", "docker_version", "history", "os", "rootfs"];
    let places: Vec<_> = keys.iter().map(|key| sorted.find(&format!("\"{key}\":")).unwrap()).collect();
    assert!(places.is_sorted(), "{sorted}");
    assert!(sorted.contains(r#""config":{"User":"u","ExposedPorts""#), "the inner order stays");
}

#[test]
fn null_is_read_as_nothing() {
    let text = r#"{"architecture":"amd64","os":"linux","config":{"Env":null,"Labels":null,"OnBuild":null,"Cmd":null,"Healthcheck":null,"ExposedPorts":null},"rootfs":{"type":"layers","diff_ids":null},"history":null}"#;
    let config = ImageConfig::parse(text.as_bytes()).unwrap();
    assert_eq!(
        String::from_utf8(config.to_json().unwrap()).unwrap(),
        r#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":null},"config":{}}"#
    );
    let error = ImageConfig::parse(b"{\"rootfs\":{\"diff_ids\":[\"x\"]}}").unwrap_err();
    assert!(error.to_string().starts_with("failed to parse image config: invalid digest \"x\""), "{error}");
}

#[test]
fn layer_types_convert_both_ways() {
    for (oci, docker) in [
        (media_types::OCI_LAYER, media_types::DOCKER_LAYER),
        (media_types::OCI_LAYER_GZIP, media_types::DOCKER_LAYER_GZIP),
        (media_types::OCI_LAYER_ZSTD, media_types::DOCKER_LAYER_ZSTD),
        (media_types::OCI_LAYER_NONDISTRIBUTABLE_GZIP, media_types::DOCKER_LAYER_FOREIGN_GZIP),
    ] {
        assert_eq!(media_types::convert_layer(docker, true), oci);
        assert_eq!(media_types::convert_layer(oci, false), docker);
        assert_eq!(media_types::layer_packing(oci), media_types::layer_packing(docker));
    }
    assert!(media_types::is_nondistributable(media_types::DOCKER_LAYER_FOREIGN));
    assert!(!media_types::is_nondistributable(media_types::OCI_LAYER));
    assert_eq!(
        media_types::distributable(media_types::DOCKER_LAYER_FOREIGN_GZIP),
        media_types::DOCKER_LAYER_GZIP
    );
    assert_eq!(media_types::distributable(media_types::OCI_LAYER_NONDISTRIBUTABLE), media_types::OCI_LAYER);
    assert_eq!(media_types::distributable(media_types::DOCKER_LAYER), media_types::DOCKER_LAYER);
    assert!(!media_types::is_layer(media_types::OCI_CONFIG));
    assert_eq!(media_types::convert_layer("x/y", true), "x/y");
}

#[test]
fn the_best_manifest_of_an_index_is_chosen() {
    let manifest = |n: u8, platform: Option<&str>| {
        let mut desc = Descriptor::new(media_types::OCI_MANIFEST, digest(n), 1);
        desc.platform = platform.map(|p| Platform::parse(p).unwrap());
        desc
    };
    let mut attestation = manifest(9, None);
    attestation.platform = Some(Platform::new("unknown", "unknown", ""));
    let index = Index::new(vec![
        attestation,
        manifest(1, Some("linux/amd64")),
        manifest(2, Some("linux/arm/v6")),
        manifest(3, Some("linux/arm/v7")),
        manifest(4, None),
    ]);
    let choose = |wanted: &str| {
        let wanted = Platform::parse(wanted).unwrap();
        resolve_platform(&index, &Matcher::only(&wanted), &wanted).map(|desc| desc.digest)
    };
    assert_eq!(choose("linux/arm/v7").unwrap(), digest(3));
    assert_eq!(choose("linux/arm/v8").unwrap(), digest(3));
    assert_eq!(choose("linux/arm/v6").unwrap(), digest(2));
    assert_eq!(choose("linux/amd64").unwrap(), digest(1));
    assert_eq!(choose("linux/s390x").unwrap(), digest(4), "one without a platform may fit");
    let named = Index::new(index.manifests[..4].to_vec());
    let wanted = Platform::linux("s390x");
    let error = resolve_platform(&named, &Matcher::only(&wanted), &wanted).unwrap_err();
    assert_eq!(error.to_string(), "no match for platform in manifest: not found");
    assert!(
        matches!(error, Error::NoPlatformMatch { available, .. } if available == ["linux/amd64", "linux/arm/v6", "linux/arm/v7"])
    );
}
