//! Digests of snapshots' content, in memory, on the disk and as files arrive.
#![allow(clippy::unwrap_used)]

mod support;

use crosskit_images::Digest;
use crosskit_snapshots::checksum::{
    ContentQuery, EntryHeader, EntryKind, FileHasher, GoMode, content_digest,
};
use crosskit_snapshots::{About, DriverChoice};
use support::{BOTH, Root, step, write};

async fn digest(reference: &crosskit_snapshots::Ref, path: &str) -> Digest {
    content_digest(Some(reference), path, &ContentQuery::default()).await.unwrap()
}

#[tokio::test]
async fn equal_content_has_equal_digests_whatever_its_layers() {
    let mut seen = Vec::new();
    for choice in BOTH {
        let root = Root::new(choice);
        let snapshots = root.open();
        let first = step(&snapshots, None, |at| {
            write(at, "dir/a", "1");
            write(at, "dir/b", "old");
        })
        .await;
        let second = step(&snapshots, Some(&first), |at| {
            write(at, "dir/b", "2");
            write(at, "dir/c", "3");
        })
        .await;
        let third =
            step(&snapshots, Some(&second), |at| std::fs::remove_file(at.join("dir/c")).unwrap()).await;
        let flat = step(&snapshots, None, |at| {
            write(at, "dir/a", "1");
            write(at, "dir/b", "2");
        })
        .await;
        assert_eq!(digest(&third, "/").await, digest(&flat, "/").await, "{choice:?}");
        assert_ne!(digest(&third, "/").await, digest(&second, "/").await);
        assert_eq!(digest(&third, "/dir/a").await, digest(&first, "/dir/a").await);
        seen.push(digest(&flat, "/").await);
    }
    assert_eq!(seen[0], seen[1]);
    let nothing = content_digest(None, "/", &ContentQuery::default()).await.unwrap();
    assert_eq!(nothing, Digest::of(""));
    let error = content_digest(None, "/x", &ContentQuery::default()).await.unwrap_err();
    assert_eq!(error.to_string(), "/x: no such file or directory");
}

#[tokio::test]
async fn a_transfer_brings_the_digests_along() {
    let header = |text: &str| EntryHeader {
        mode: GoMode::from_unix(0o100644),
        uid: 0,
        gid: 0,
        size: text.len() as u64,
        linkname: b"",
        device: (0, 0),
        xattrs: vec![],
    };
    let of = |text: &str| {
        let mut hasher = FileHasher::new(&header(text));
        hasher.update(text.as_bytes());
        hasher.finish()
    };
    let root = Root::new(DriverChoice::Overlay);
    let snapshots = root.open();
    let kept = snapshots.mutable_by_key("k", About::new("local")).unwrap();
    let checksums = kept.checksums();
    for (name, text) in [("a", "1"), ("b", "2")] {
        write(&kept.layer_dir(), name, text);
        checksums.put(name, EntryKind::File, of(text));
    }
    let first = kept.commit_with(checksums).await.unwrap();
    let scanned = step(&snapshots, None, |at| {
        write(at, "a", "1");
        write(at, "b", "2");
    })
    .await;
    assert_eq!(digest(&first, "/a").await, digest(&scanned, "/a").await);
    let (whole, first_id) = (digest(&first, "/").await, first.id().to_string());
    assert_ne!(whole, digest(&scanned, "/").await, "a transfer says nothing of the root itself");
    drop((first, scanned, snapshots));
    // What the earlier transfer left is known after a new start.
    let snapshots = root.open();
    assert_eq!(digest(&snapshots.get(&first_id).unwrap().unwrap(), "/").await, whole);
    let kept = snapshots.mutable_by_key("k", About::new("local")).unwrap();
    let checksums = kept.checksums();
    std::fs::remove_file(kept.layer_dir().join("b")).unwrap();
    checksums.remove("b");
    let second = kept.commit_with(checksums).await.unwrap();
    assert_eq!(digest(&second, "/a").await, of("1"));
    let missing = content_digest(Some(&second), "/b", &ContentQuery::default()).await.unwrap_err();
    assert_eq!(missing.to_string(), "\"/b\": not found");
    assert_ne!(digest(&second, "/").await, whole);
    assert_eq!(snapshots.get(&first_id).unwrap(), None);
}
