use std::{
    fs,
    os::unix::fs::{MetadataExt, symlink},
    path::Path,
    time::{Duration, SystemTime},
};

use crate::{
    MountSource,
    rootfs::Rootfs,
    trust::{Trusted, shown},
};

const BUNDLE: &str = "etc/ssl/certs/ca-certificates.crt";
const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";

fn tree(text: &str) -> (tempfile::TempDir, Rootfs) {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join(BUNDLE);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, text).unwrap();
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_nanos(1_234_567_891_234)).unwrap();
    let rootfs = Rootfs::open(root.path()).unwrap();
    (root, rootfs)
}

fn text(root: &Path) -> String {
    fs::read_to_string(root.join(BUNDLE)).unwrap()
}

#[test]
fn a_file_that_nobody_has_touched_is_what_it_was() {
    for before in ["", "one\n", "no line's end"] {
        let (root, rootfs) = tree(before);
        symlink("certs/ca-certificates.crt", root.path().join("etc/ssl/cert.pem")).unwrap();
        let about = fs::metadata(root.path().join(BUNDLE)).unwrap();
        let trusted = Trusted::add(&rootfs, CERTIFICATE).unwrap();
        let now = text(root.path());
        assert!(now.starts_with(before) && now.matches(CERTIFICATE).count() == 1, "{now}");
        assert!(now.contains("\n# buildkit proxy CA begin\n"), "{now}");
        trusted.remove(&rootfs).unwrap();
        assert_eq!(text(root.path()), before);
        let after = fs::metadata(root.path().join(BUNDLE)).unwrap();
        let facts = |m: &fs::Metadata| (m.ino(), m.mode(), m.mtime(), m.mtime_nsec(), m.len());
        assert_eq!(facts(&after), facts(&about));
    }
}

#[test]
fn what_the_step_has_written_stays_and_the_certificate_does_not() {
    let (root, rootfs) = tree("one\n");
    let trusted = Trusted::add(&rootfs, CERTIFICATE).unwrap();
    // One more at the end, a copy in a new place, and one that was written anew.
    fs::write(root.path().join(BUNDLE), text(root.path()) + "two\n").unwrap();
    fs::write(root.path().join("etc/ssl/cert.pem"), text(root.path())).unwrap();
    fs::create_dir_all(root.path().join("etc/pki/tls/certs")).unwrap();
    fs::write(root.path().join("etc/pki/tls/certs/ca-bundle.crt"), format!("new\n{CERTIFICATE}")).unwrap();
    trusted.remove(&rootfs).unwrap();
    assert_eq!(text(root.path()), "one\ntwo\n");
    assert_eq!(fs::read_to_string(root.path().join("etc/ssl/cert.pem")).unwrap(), "one\ntwo\n");
    assert_eq!(fs::read_to_string(root.path().join("etc/pki/tls/certs/ca-bundle.crt")).unwrap(), "new\n");
}

#[test]
fn a_file_that_the_step_removes_stays_away() {
    let (root, rootfs) = tree("one\n");
    let trusted = Trusted::add(&rootfs, CERTIFICATE).unwrap();
    fs::remove_file(root.path().join(BUNDLE)).unwrap();
    trusted.remove(&rootfs).unwrap();
    assert!(!root.path().join(BUNDLE).exists());
}

#[test]
fn nothing_outside_is_written_to() {
    let outside = tempfile::tempdir().unwrap();
    let victim = outside.path().join("victim");
    fs::write(&victim, "untouched").unwrap();
    let (root, rootfs) = tree("one\n");
    fs::remove_file(root.path().join(BUNDLE)).unwrap();
    symlink(&victim, root.path().join(BUNDLE)).unwrap();
    symlink(
        "../../../../../../../../..".to_owned() + victim.to_str().unwrap(),
        root.path().join("etc/ssl/cert.pem"),
    )
    .unwrap();
    let trusted = Trusted::add(&rootfs, CERTIFICATE).unwrap();
    assert_eq!(fs::read_to_string(&victim).unwrap(), "untouched");
    trusted.remove(&rootfs).unwrap();
}

#[test]
fn a_tree_that_must_not_change_is_only_shown_otherwise() {
    let (root, rootfs) = tree("one\n");
    let folder = tempfile::tempdir().unwrap();
    let mounts = shown(&rootfs, CERTIFICATE, folder.path()).unwrap();
    assert_eq!(text(root.path()), "one\n");
    let [mount] = mounts.as_slice() else { panic!("{mounts:?}") };
    assert_eq!((mount.dest.as_str(), mount.readonly), ("/etc/ssl/certs/ca-certificates.crt", true));
    let MountSource::Bind(file) = &mount.source else { panic!("{mount:?}") };
    assert!(fs::read_to_string(file).unwrap().contains(CERTIFICATE));
}
