use std::collections::BTreeMap;

use crosskit_platforms::Platform;

use crate::annotations::*;
use crate::merge::{Part, merge_index};
use crate::{Descriptor, Digest, media_types};

#[test]
fn keys_are_taken_apart() {
    for (text, level, platform, key) in [
        ("annotation.a.b/c", AnnotationLevel::Manifest, None, "a.b/c"),
        ("annotation-manifest.x", AnnotationLevel::Manifest, None, "x"),
        ("annotation[linux/amd64].x", AnnotationLevel::Manifest, Some("linux/amd64"), "x"),
        (
            "annotation-manifest-descriptor[linux/arm/v7].x",
            AnnotationLevel::ManifestDescriptor,
            Some("linux/arm/v7"),
            "x",
        ),
        ("annotation-index.x=y", AnnotationLevel::Index, None, "x=y"),
        ("annotation-index-descriptor.x", AnnotationLevel::IndexDescriptor, None, "x"),
    ] {
        let parsed = AnnotationKey::parse(text).unwrap().unwrap();
        assert_eq!((parsed.level, parsed.key.as_str()), (level, key), "{text}");
        assert_eq!(parsed.platform.map(|p| p.format_all()).as_deref(), platform, "{text}");
    }
    for other in [
        "annotation",
        "annotations.x",
        "annotation.",
        "annotation-.x",
        "annotation[].x",
        "annotation[a b].x",
        "name",
        "annotation.a b",
    ] {
        assert_eq!(AnnotationKey::parse(other).unwrap(), None, "{other}");
    }
    let error = AnnotationKey::parse("annotation-layer.x").unwrap_err();
    assert_eq!(error.to_string(), "invalid annotation: unrecognized annotation type layer");
    assert!(AnnotationKey::parse("annotation[nonsense].x").is_err());
}

#[test]
fn a_platforms_own_annotations_come_over_those_for_all() {
    let options = [
        ("annotation.a", "all"),
        ("annotation.b", "all"),
        ("annotation[linux/amd64].a", "amd"),
        ("annotation-manifest-descriptor[linux/amd64].d", "amd"),
        ("annotation-index.i", "index"),
        ("annotation-index-descriptor[linux/arm64].j", "desc"),
        ("name", "app"),
    ];
    let options: BTreeMap<_, _> = options.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    let (mut set, rest) = AnnotationSet::parse(options).unwrap();
    assert_eq!(rest.keys().collect::<Vec<_>>(), ["name"]);
    assert!(set.needs_oci());
    let of = |set: &AnnotationSet, p: &str| set.for_platform(Some(&Platform::parse(p).unwrap()));
    let show = |a: &Annotations| a.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(",");
    assert_eq!(show(&of(&set, "linux/amd64").manifest), "a=amd,b=all");
    assert_eq!(show(&of(&set, "linux/arm64").manifest), "a=all,b=all");
    assert_eq!(show(&of(&set, "linux/amd64").manifest_descriptor), "d=amd");
    assert_eq!(show(&of(&set, "linux/arm64").manifest_descriptor), "");
    assert_eq!(show(&set.for_platform(None).index), "i=index");
    assert_eq!(show(&set.for_platform(None).index_descriptor), "j=desc");
    assert_eq!(set.platforms().collect::<Vec<_>>(), ["linux/amd64", "linux/arm64"]);
    let mut more = AnnotationSet::default();
    more.insert(AnnotationKey::parse("annotation.b").unwrap().unwrap(), "newer".into());
    set.merge(more);
    assert_eq!(show(&of(&set, "linux/amd64").manifest), "a=amd,b=newer");
}

#[test]
fn attestations_follow_all_images_of_an_index() {
    let desc = |n: u8| Descriptor::new(media_types::OCI_MANIFEST, Digest::from_bytes([n; 32]), 1);
    let part = |n: u8, arch: &str, attested: bool| Part {
        platform: Platform::linux(arch),
        manifest: desc(n),
        attestation: attested.then(|| desc(n + 100)),
    };
    let index = merge_index(vec![part(1, "riscv64", true), part(2, "amd64", true)], true, Annotations::new());
    let digests: Vec<u8> = index.manifests.iter().map(|m| m.digest.as_bytes()[0]).collect();
    assert_eq!(digests, [1, 2, 101, 102], "images in the order asked for");
    assert_eq!(
        index.manifests[2].annotations["vnd.docker.reference.digest"],
        index.manifests[0].digest.to_string()
    );
    assert_eq!(index.manifests[3].platform.as_ref().unwrap().format_all(), "unknown/unknown");
    let docker = merge_index(vec![part(1, "amd64", false)], false, Annotations::new());
    assert_eq!(docker.media_type, media_types::DOCKER_MANIFEST_LIST);
}
