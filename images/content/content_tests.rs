use std::io::Write;

use super::ContentStore;
use crate::{Descriptor, Digest, Error, NotArrived};

fn store() -> (tempfile::TempDir, ContentStore) {
    let dir = tempfile::tempdir().unwrap();
    let store = ContentStore::open(dir.path()).unwrap();
    (dir, store)
}

#[test]
fn a_blob_is_found_under_its_digest() {
    let (dir, store) = store();
    let digest = store.put(b"hello").unwrap();
    assert_eq!(digest.to_string(), "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824");
    assert_eq!(std::fs::read(dir.path().join("blobs/sha256").join(digest.hex())).unwrap(), b"hello");
    assert_eq!(store.read(&digest, 10).unwrap(), b"hello");
    assert_eq!(store.list().unwrap(), [(digest, 5)]);
    store.delete(&digest).unwrap();
    store.delete(&digest).unwrap();
    assert!(matches!(store.read(&digest, 10), Err(Error::MissingBlob { .. })));
}

#[test]
fn a_blob_with_other_bytes_than_announced_never_appears() {
    let (_dir, store) = store();
    let wanted = Digest::of(b"right");
    let mut ingest = store.ingest().unwrap();
    ingest.write_all(b"wrong").unwrap();
    let error = ingest.commit_expecting(&wanted, Some(5)).unwrap_err();
    assert!(
        error.to_string().starts_with("unexpected digest of blob of 5 bytes: expected sha256:"),
        "{error}"
    );
    let mut ingest = store.ingest().unwrap();
    ingest.write_all(b"righ").unwrap();
    let error = ingest.commit_expecting(&wanted, Some(5)).unwrap_err();
    assert!(error.to_string().contains("expected 5 bytes, got 4"), "{error}");
    assert_eq!(store.list().unwrap(), []);
}

#[test]
fn an_abandoned_blob_leaves_nothing_and_an_earlier_process_neither() {
    let (dir, store) = store();
    let mut ingest = store.ingest().unwrap();
    ingest.write_all(b"half").unwrap();
    drop(ingest);
    assert_eq!(std::fs::read_dir(dir.path().join("ingest")).unwrap().count(), 0);
    std::fs::write(dir.path().join("ingest/1-1"), b"left behind").unwrap();
    ContentStore::open(dir.path()).unwrap();
    assert_eq!(std::fs::read_dir(dir.path().join("ingest")).unwrap().count(), 0);
}

#[test]
fn a_restarted_blob_counts_from_the_beginning() {
    let (_dir, store) = store();
    let mut ingest = store.ingest().unwrap();
    ingest.write_all(b"something longer").unwrap();
    ingest.restart().unwrap();
    ingest.write_all(b"short").unwrap();
    assert_eq!(ingest.commit().unwrap(), (Digest::of(b"short"), 5));
    assert_eq!(store.read(&Digest::of(b"short"), 100).unwrap(), b"short");
}

#[test]
fn a_damaged_blob_is_not_served() {
    let (_dir, store) = store();
    let digest = store.put(b"hello").unwrap();
    std::fs::write(store.path(&digest), b"hellx").unwrap();
    assert!(matches!(store.read(&digest, 10), Err(Error::Damaged { .. })));
    assert!(!store.contains(&digest), "and it is gone, so that it can be fetched again");
    let (desc, mut copy) = (Descriptor::new("", digest, 5), Vec::new());
    std::fs::write(store.path(&digest), b"hellx").unwrap();
    assert!(matches!(store.copy_to(&desc, |blob| blob.read_to_end(&mut copy)), Err(Error::Damaged { .. })));
    std::fs::write(store.path(&digest), b"hellx").unwrap();
    assert!(matches!(store.verify(&digest), Err(Error::Damaged { .. })));
    assert!(!store.contains(&digest));
    store.put(b"hello").unwrap();
    copy.clear();
    assert_eq!(store.copy_to(&desc, |blob| blob.read_to_end(&mut copy)).unwrap(), 5);
    assert!(store.verify(&digest).is_ok() && copy == b"hello");
    std::fs::write(store.path(&digest), b"he").unwrap();
    assert!(!store.holds(&Descriptor::new("", digest, 5)), "a short blob is not held");
    assert!(!store.contains(&digest), "and it is gone, so that it can be fetched again");
}

#[test]
fn a_document_beyond_the_limit_is_not_read() {
    let (_dir, store) = store();
    let digest = store.put(&[0; 100]).unwrap();
    assert!(matches!(store.read(&digest, 99), Err(Error::TooLarge { limit: 99, .. })));
}

#[tokio::test]
async fn a_blob_that_arrives_is_here_if_it_is_what_was_announced() {
    let (_dir, store) = store();
    let blob = Digest::of(b"in pieces");
    let sent = |pieces: &[&'static str]| {
        let pieces: Vec<_> = pieces.iter().map(|piece| Ok::<_, &str>(bytes::Bytes::from(*piece))).collect();
        futures::stream::iter(pieces)
    };
    let mut heard = Vec::new();
    store.arrive(blob, Some(9), sent(&["in ", "pieces"]), |here| heard.push(here)).await.unwrap();
    assert_eq!((store.contains(&blob), heard), (true, vec![3, 9]));
    store.delete(&blob).unwrap();
    for (pieces, size) in [(&["in pieces"][..], 8), (&["in "], 9), (&["in porches"], 10)] {
        let error = store.arrive(blob, Some(size), sent(pieces), |_| ()).await.unwrap_err();
        assert!(matches!(error, NotArrived::Store(_)), "{error:?}");
    }
    let broken = futures::stream::iter([Ok(bytes::Bytes::from("in ")), Err("gone")]);
    let error = store.arrive(blob, None, broken, |_| ()).await.unwrap_err();
    assert!(matches!(error, NotArrived::Sender("gone")), "{error:?}");
    assert!(!store.contains(&blob));
}
