use std::{
    fs,
    os::unix::fs::{MetadataExt, symlink},
    path::Path,
};

use crate::{
    Mount,
    rootfs::{Place, Rootfs},
    stubs::Stubs,
};

/// A root filesystem in a folder, and what must stay untouched beside it.
struct Sample {
    folder: tempfile::TempDir,
}

impl Sample {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir_all(folder.path().join("root/etc")).expect("made");
        fs::write(folder.path().join("secret"), "outside").expect("written");
        Self { folder }
    }

    fn path(&self, path: &str) -> std::path::PathBuf {
        self.folder.path().join("root").join(path.trim_start_matches('/'))
    }

    fn open(&self) -> Rootfs {
        Rootfs::open(&self.path("")).expect("opened")
    }
}

#[test]
fn nothing_outside_is_read() {
    let sample = Sample::new();
    symlink("../../secret", sample.path("etc/passwd")).expect("linked");
    symlink(sample.folder.path().join("secret"), sample.path("etc/group")).expect("linked");
    let rootfs = sample.open();
    for path in ["/etc/passwd", "/etc/group", "../secret", "/../../secret"] {
        assert_eq!(rootfs.read(path).expect("no error"), None, "{path}");
    }
}

#[test]
fn what_is_not_a_regular_file_is_not_read() {
    let sample = Sample::new();
    fs::create_dir(sample.path("etc/passwd")).expect("made");
    let error = sample.open().read("/etc/passwd").expect_err("a folder").to_string();
    assert!(
        error.contains("reading /etc/passwd in the root filesystem: it is not a regular file"),
        "{error}"
    );
}

#[test]
fn folders_are_made_inside_with_their_owner() {
    let sample = Sample::new();
    symlink("/real", sample.path("link")).expect("linked");
    fs::create_dir(sample.path("real")).expect("made");
    symlink("../../../../escape", sample.path("out")).expect("linked");
    let rootfs = sample.open();
    rootfs.make_folders("/link/a/b", 12, 34).expect("made");
    let about = sample.path("real/a/b").metadata().expect("there");
    assert_eq!((about.uid(), about.gid(), about.mode() & 0o777), (12, 34, 0o755));
    rootfs.make_folders("/", 0, 0).expect("is there");
    assert!(rootfs.make_folders("/out/x", 0, 0).is_err(), "a link to nowhere is not followed outside");
    assert!(!sample.folder.path().join("escape").exists() && !Path::new("/escape").exists());
    fs::write(sample.path("file"), "").expect("written");
    let error = rootfs.make_folders("/file/x", 0, 0).expect_err("a file is in the way").to_string();
    assert!(error.starts_with("making folder /file in the root filesystem: Not a directory"), "{error}");
}

#[test]
fn places_of_links_to_nowhere_are_where_they_lead() {
    let sample = Sample::new();
    symlink("../run/systemd/resolv.conf", sample.path("etc/resolv.conf")).expect("linked");
    symlink("resolv.conf", sample.path("etc/second")).expect("linked");
    symlink("loop", sample.path("etc/loop")).expect("linked");
    let rootfs = sample.open();
    let missing = |path: &str| match rootfs.place(path).expect("found") {
        Place::Missing(at) => at,
        Place::Exists => "exists".to_owned(),
    };
    assert_eq!(missing("/etc"), "exists");
    assert_eq!(missing("/"), "exists");
    assert_eq!(missing("/etc/hosts"), "/etc/hosts");
    assert_eq!(missing("/etc/resolv.conf"), "/etc/../run/systemd/resolv.conf");
    assert_eq!(missing("/etc/second"), "/etc/../run/systemd/resolv.conf");
    assert!(rootfs.place("/etc/loop").is_err());
}

#[test]
fn stubs_go_and_what_was_used_stays() {
    let sample = Sample::new();
    fs::write(sample.path("etc/hosts"), "").expect("there before");
    let mounts = [
        Mount::bind("/x", "/data/deep/mount", false),
        Mount::bind("/x", "/used", false),
        Mount::bind("/x", "/written", false),
    ];
    let rootfs = sample.open();
    let once = Stubs::find(&rootfs, &mounts, false).expect("found");
    let all = Stubs::find(&rootfs, &mounts, true).expect("found");
    let make = || {
        fs::create_dir_all(sample.path("data/deep/mount")).expect("made");
        fs::create_dir_all(sample.path("used/inside")).expect("made");
        fs::write(sample.path("written"), "text").expect("written");
        fs::write(sample.path("etc/resolv.conf"), "").expect("written");
    };
    make();
    let before = sample.path("etc").metadata().expect("there");
    once.remove(&rootfs);
    let after = sample.path("etc").metadata().expect("there");
    assert_eq!((before.mtime(), before.mtime_nsec()), (after.mtime(), after.mtime_nsec()));
    assert!(!sample.path("etc/resolv.conf").exists() && sample.path("etc/hosts").exists());
    assert!(sample.path("used/inside").exists() && sample.path("written").exists());
    assert!(sample.path("data/deep").exists() && !sample.path("data/deep/mount").exists());
    make();
    all.remove(&rootfs);
    assert!(!sample.path("data").exists(), "the folders above are stubs too");
}

#[test]
fn stubs_behind_links_that_a_step_has_made_are_not_looked_for_outside() {
    let sample = Sample::new();
    let outside = sample.folder.path().join("outside");
    fs::create_dir_all(outside.join("mount")).expect("made");
    for name in ["resolv.conf", "hosts"] {
        fs::write(outside.join(name), "").expect("written");
    }
    let mounts = [Mount::bind("/x", "/data/mount", false), Mount::bind("/x", "/data/hosts", false)];
    let before = outside.metadata().expect("there");
    for target in
        [outside.clone(), Path::new("../outside").into(), Path::new("../../../../..").join(&outside)]
    {
        let rootfs = sample.open();
        let stubs = Stubs::find(&rootfs, &mounts, true).expect("found");
        // What the step has left of the folders that the mount points were in.
        fs::remove_dir_all(sample.path("etc")).expect("removed");
        symlink(&target, sample.path("etc")).expect("linked");
        symlink(&target, sample.path("data")).expect("linked");
        stubs.remove(&rootfs);
        let mut names: Vec<_> =
            fs::read_dir(&outside).expect("listed").flatten().map(|e| e.file_name()).collect();
        names.sort();
        assert_eq!(names, ["hosts", "mount", "resolv.conf"], "{}", target.display());
        fs::remove_file(sample.path("etc")).expect("removed");
        fs::remove_file(sample.path("data")).expect("removed");
        fs::create_dir(sample.path("etc")).expect("made");
    }
    // A mount point that is a link now is itself no stub: what it leads to stays.
    let rootfs = sample.open();
    let stubs = Stubs::find(&rootfs, &mounts, true).expect("found");
    fs::create_dir(sample.path("data")).expect("made");
    symlink(outside.join("mount"), sample.path("data/mount")).expect("linked");
    symlink(outside.join("resolv.conf"), sample.path("etc/resolv.conf")).expect("linked");
    stubs.remove(&rootfs);
    let after = outside.metadata().expect("there");
    assert_eq!((before.mtime(), before.mtime_nsec()), (after.mtime(), after.mtime_nsec()));
    assert!(outside.join("mount").is_dir() && outside.join("resolv.conf").is_file());
}
