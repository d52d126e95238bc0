use std::fs;

use super::*;
use crate::registry::Reference;
use crate::{ContentStore, Descriptor, Digest, Index, Manifest, media_types};

fn store() -> (tempfile::TempDir, ContentStore) {
    let dir = tempfile::tempdir().unwrap();
    let store = ContentStore::open(dir.path()).unwrap();
    (dir, store)
}

fn image(store: &ContentStore, layer: &[u8]) -> Descriptor {
    let config = store.put_as(media_types::OCI_CONFIG, br#"{"architecture":"amd64","os":"linux"}"#).unwrap();
    let layer = store.put_as(media_types::OCI_LAYER, layer).unwrap();
    let manifest = Manifest::new(media_types::OCI_MANIFEST, config, vec![layer]).to_json().unwrap();
    store.put_as(media_types::OCI_MANIFEST, &manifest).unwrap()
}

fn entries(tar: &[u8]) -> Vec<String> {
    let mut reader = crate::tar::Reader::new(tar, Default::default());
    let mut all = Vec::new();
    while let Some(h) = reader.next_entry().unwrap() {
        assert_eq!((h.mtime.seconds, h.uid, h.gid), (0, 0, 0));
        all.push(format!("{:04o} {}", h.mode, String::from_utf8(h.name).unwrap()));
    }
    all
}

#[test]
fn a_docker_archive_has_what_docker_load_reads() {
    let (_dir, store) = store();
    let image = image(&store, b"layer");
    let names = [Reference::parse("app:v1").unwrap(), Reference::parse("localhost:5000/app:v2").unwrap()];
    let tar = write_archive(&store, &image, &names, ArchiveFormat::Docker, Vec::new()).unwrap();
    let mut blobs =
        [image.digest, Digest::of(b"layer"), Digest::of(br#"{"architecture":"amd64","os":"linux"}"#)];
    blobs.sort();
    let mut expected = vec!["0755 blobs/".to_owned(), "0755 blobs/sha256/".to_owned()];
    expected.extend(blobs.map(|digest| format!("0444 blobs/sha256/{}", digest.hex())));
    expected.extend(["0644 index.json", "0644 manifest.json", "0444 oci-layout"].map(str::to_owned));
    assert_eq!(entries(&tar), expected);
    let text = String::from_utf8_lossy(&tar);
    let (config, layer) =
        (Digest::of(br#"{"architecture":"amd64","os":"linux"}"#).hex(), Digest::of(b"layer").hex());
    assert!(text.contains(&format!(
        r#"[{{"Config":"blobs/sha256/{config}","RepoTags":["app:v1","localhost:5000/app:v2"],"Layers":["blobs/sha256/{layer}"]}}]"#
    )));
    assert!(text.contains(&format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{}","size":{},"annotations":{{"io.containerd.image.name":"docker.io/library/app:v1","org.opencontainers.image.ref.name":"v1"}}}},"#,
        image.digest, image.size
    )));
    let nameless = write_archive(&store, &image, &[], ArchiveFormat::Oci, Vec::new()).unwrap();
    assert!(!entries(&nameless).contains(&"0644 manifest.json".to_owned()));
}

#[test]
fn an_archive_and_a_layout_are_read_back() {
    let (_dir, store) = store();
    let images = [image(&store, b"one"), image(&store, b"two")];
    let index =
        store.put_as(media_types::OCI_INDEX, &Index::new(images.to_vec()).to_json().unwrap()).unwrap();
    let tar = write_archive(&store, &index, &[], ArchiveFormat::Oci, Vec::new()).unwrap();
    let (_other_dir, other) = self::store();
    let read = import_archive(&other, &tar[..]).unwrap();
    assert_eq!(read.manifests, std::slice::from_ref(&index));
    assert_eq!(other.list().unwrap().len(), 6);

    let dir = tempfile::tempdir().unwrap();
    let layout = Layout::open_or_create(dir.path().join("out")).unwrap();
    let name = [Reference::parse("app:v1").unwrap()];
    layout.export(&other, &images[0], &name).unwrap();
    layout.export(&other, &index, &name).unwrap();
    let again = Layout::open(dir.path().join("out")).unwrap().index().unwrap();
    assert_eq!(again.manifests.len(), 1, "the name moved to the newer image");
    assert_eq!(again.manifests[0].digest, index.digest);
    let (_third_dir, third) = self::store();
    layout.import(&third, &again.manifests[0]).unwrap();
    assert_eq!(third.list().unwrap().len(), 6);
}

#[test]
fn archives_that_lie_are_refused() {
    let (_dir, store) = store();
    let image = image(&store, b"layer");
    let mut tar = write_archive(&store, &image, &[], ArchiveFormat::Oci, Vec::new()).unwrap();
    let at = tar.windows(5).position(|w| w == b"layer").unwrap();
    let (_other_dir, other) = self::store();
    let cut = import_archive(&other, &tar[..at]).unwrap_err();
    assert!(cut.to_string().contains("unexpected end of the tar archive"), "{cut}");
    // The layer's bytes stand alone in their block.
    let block = tar.chunks(512).position(|b| b.starts_with(b"layer\0")).unwrap() * 512;
    tar[block] = b'L';
    let error = import_archive(&other, &tar[..]).unwrap_err();
    assert!(error.to_string().starts_with("unexpected digest"), "{error}");
    let empty = crate::tar::Writer::new(Vec::new()).finish().unwrap();
    let error = import_archive(&other, &empty[..]).unwrap_err();
    assert!(error.to_string().contains("oci-layout or index.json is missing"), "{error}");
    let dir = tempfile::tempdir().unwrap();
    assert!(Layout::open(dir.path()).is_err());
    fs::write(dir.path().join("oci-layout"), br#"{"imageLayoutVersion":"2.0.0"}"#).unwrap();
    assert!(Layout::open(dir.path()).unwrap_err().to_string().contains("version 2.0.0 is not supported"));
}

/// The archives were made by BuildKit 0.32 from a Dockerfile with `FROM scratch`, a label with `<&>`, a health check,
/// and one COPY; a reader and writer that understand every byte give the same archive back.
#[test]
fn archives_of_buildkit_come_out_as_they_went_in() {
    for (format, bytes) in [
        (ArchiveFormat::Oci, &include_bytes!("fixtures/buildkit-oci.tar")[..]),
        (ArchiveFormat::Docker, include_bytes!("fixtures/buildkit-docker.tar")),
    ] {
        let (_dir, store) = store();
        let mut root = import_archive(&store, bytes).unwrap().manifests.remove(0);
        let name = Reference::parse(&root.annotations.remove(IMAGE_NAME).unwrap()).unwrap();
        root.annotations.remove(REF_NAME);
        let again = write_archive(&store, &root, &[name], format, Vec::new()).unwrap();
        assert!(again == bytes, "{format:?}: {:?} became {:?}", entries(bytes), entries(&again));
        let manifest = store.read(&root.digest, 1 << 20).unwrap();
        let parsed = Manifest::parse(&manifest).unwrap();
        assert_eq!(parsed.to_json().unwrap(), manifest);
        let config = store.read(&parsed.config.digest, 1 << 20).unwrap();
        let image = crate::ImageConfig::parse(&config).unwrap();
        assert_eq!(String::from_utf8(image.to_sorted_json().unwrap()), String::from_utf8(config));
    }
}
