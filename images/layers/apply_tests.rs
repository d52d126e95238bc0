use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;

use super::*;
use crate::tar::{Header, Kind, Timestamp, Writer};

struct Tar(Writer<Vec<u8>>);

impl Tar {
    fn new() -> Self {
        Self(Writer::new(Vec::new()))
    }

    fn file(mut self, name: &str, text: &str) -> Self {
        self.0.file(name, 0o644, Timestamp::from_seconds(1000), text.as_bytes()).unwrap();
        self
    }

    fn dir(self, name: &str) -> Self {
        self.with(name, Kind::Directory, |h| h.mode = 0o750)
    }

    fn link(self, name: &str, kind: Kind, target: &str) -> Self {
        self.with(name, kind, |h| h.link = target.into())
    }

    fn with(mut self, name: &str, kind: Kind, change: impl FnOnce(&mut Header)) -> Self {
        let mut header = Header::new(name, kind);
        header.mtime = Timestamp::from_seconds(2000);
        header.mode = 0o755;
        change(&mut header);
        self.0.entry(&header).unwrap();
        self
    }

    fn apply(self, root: &Path, options: &ApplyOptions) -> Result<Applied, LayerError> {
        let tar = self.0.finish().unwrap();
        apply_layer(fs::File::open(root).unwrap(), &tar[..], options)
    }
}

fn merged() -> ApplyOptions {
    ApplyOptions { form: ApplyForm::Merged, ..ApplyOptions::default() }
}

fn names(root: &Path) -> Vec<String> {
    let out =
        std::process::Command::new("find").args([".", "-mindepth", "1"]).current_dir(root).output().unwrap();
    let mut names: Vec<String> =
        String::from_utf8(out.stdout).unwrap().lines().map(|line| line[2..].to_owned()).collect();
    names.sort();
    names
}

fn is_whiteout(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_char_device() && m.rdev() == 0)
}

fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0; 256];
    let size = rustix::fs::lgetxattr(path, name, &mut value[..]).ok()?;
    value.truncate(size);
    Some(value)
}

#[test]
fn everything_a_file_can_be_is_put_in_place() {
    let root = tempfile::tempdir().unwrap();
    let applied = Tar::new()
        .dir("d/")
        .with("d/owned", Kind::File, |h| {
            (h.uid, h.gid, h.mode) = (1234, 70000, 0o6711);
            h.mtime = Timestamp { seconds: 5, nanos: 123_456_789 };
            h.set_xattr(b"user.note", b"v\0alue");
        })
        .link("d/hard", Kind::HardLink, "d/owned")
        .link("sym", Kind::Symlink, "/d/owned")
        .with("fifo", Kind::Fifo, |h| h.mode = 0o600)
        .with("dev", Kind::CharDevice, |h| h.device = (1, 300))
        .with("block", Kind::BlockDevice, |h| h.device = (259, 70000))
        .file("/./deep//er/../er/file", "text")
        .apply(root.path(), &ApplyOptions::default())
        .unwrap();
    assert_eq!(applied, Applied { entries: 8, size: 4 });
    let at = |p: &str| root.path().join(p);
    let owned = fs::symlink_metadata(at("d/owned")).unwrap();
    assert_eq!((owned.uid(), owned.gid(), owned.mode() & 0o7777, owned.nlink()), (1234, 70000, 0o6711, 2));
    assert_eq!((owned.mtime(), owned.mtime_nsec()), (5, 123_456_789));
    assert_eq!(xattr(&at("d/owned"), "user.note").unwrap(), b"v\0alue");
    assert_eq!(fs::symlink_metadata(at("d/hard")).unwrap().ino(), owned.ino());
    let dir = fs::symlink_metadata(at("d")).unwrap();
    assert_eq!(
        (dir.mtime(), dir.mode() & 0o7777),
        (2000, 0o750),
        "a folder's time outlives what is put into it"
    );
    assert_eq!(fs::read_link(at("sym")).unwrap(), Path::new("/d/owned"));
    assert_eq!(fs::symlink_metadata(at("sym")).unwrap().mtime(), 2000);
    assert_eq!(fs::symlink_metadata(at("dev")).unwrap().rdev(), rustix::fs::makedev(1, 300));
    assert_eq!(fs::symlink_metadata(at("block")).unwrap().rdev(), rustix::fs::makedev(259, 70000));
    assert!(fs::symlink_metadata(at("fifo")).unwrap().file_type().is_fifo());
    assert_eq!(fs::read_to_string(at("deep/er/file")).unwrap(), "text");
    assert_eq!(fs::metadata(at("deep")).unwrap().mode() & 0o7777, 0o755);
}

#[test]
fn nothing_leaves_the_root() {
    let dir = tempfile::tempdir().unwrap();
    let (root, outside) = (dir.path().join("root"), dir.path().join("outside"));
    fs::create_dir_all(&root).unwrap();
    fs::create_dir_all(&outside).unwrap();
    fs::write(outside.join("secret"), "secret").unwrap();
    let out = outside.to_str().unwrap();
    for bad in ["../outside/file", "a/../../outside/file", "..", "/../x", "a/b/../../../x"] {
        let error = Tar::new().file(bad, "x").apply(&root, &ApplyOptions::default()).unwrap_err();
        assert_eq!(error.to_string(), format!("entry {bad:?} leaves the root filesystem"));
    }
    let error =
        Tar::new().link("h", Kind::HardLink, "../outside/secret").apply(&root, &ApplyOptions::default());
    assert_eq!(error.unwrap_err().to_string(), "entry \"../outside/secret\" leaves the root filesystem");
    // Links are followed as a process within the root would follow them.
    Tar::new()
        .link("abs", Kind::Symlink, out)
        .link("rel", Kind::Symlink, "../../../../../../..")
        .link("loop", Kind::Symlink, "loop")
        .file("abs/file", "inside")
        .file("rel/top", "inside")
        .apply(&root, &ApplyOptions::default())
        .unwrap();
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    assert_eq!(fs::read_to_string(root.join(&out[1..]).join("file")).unwrap(), "inside");
    assert_eq!(fs::read_to_string(root.join("top")).unwrap(), "inside");
    let error = Tar::new().file("loop/x", "").apply(&root, &ApplyOptions::default()).unwrap_err();
    assert!(matches!(error, LayerError::Io { .. }), "{error}");
    let error = Tar::new().link("h", Kind::HardLink, "abs/secret").apply(&root, &ApplyOptions::default());
    assert!(
        matches!(error, Err(LayerError::LinkTarget { .. })),
        "a hard link reaches no file outside: {error:?}"
    );
    // Whiteouts and opaque marks neither.
    Tar::new().file("abs/.wh.secret", "").file("abs/.wh..wh..opq", "").apply(&root, &merged()).unwrap();
    assert_eq!(fs::read_to_string(outside.join("secret")).unwrap(), "secret");
}

#[test]
fn a_link_put_where_a_folder_was_does_not_lead_out() {
    let dir = tempfile::tempdir().unwrap();
    let (root, outside) = (dir.path().join("root"), dir.path().join("outside"));
    fs::create_dir_all(&root).unwrap();
    fs::create_dir_all(&outside).unwrap();
    Tar::new()
        .dir("d/")
        .file("d/a", "")
        .link("d", Kind::Symlink, outside.to_str().unwrap())
        .file("d/b", "inside")
        .apply(&root, &ApplyOptions::default())
        .unwrap();
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    assert!(fs::symlink_metadata(root.join("d")).unwrap().file_type().is_symlink());
}

#[test]
fn bad_whiteouts_unknown_types_and_limits_are_named() {
    let root = tempfile::tempdir().unwrap();
    for name in [".wh.", "a/.wh..", "a/.wh..."] {
        let error = Tar::new().file(name, "").apply(root.path(), &ApplyOptions::default()).unwrap_err();
        assert_eq!(error.to_string(), format!("invalid whiteout name: {name:?}"));
    }
    let error = Tar::new().with("v", Kind::Other(b'V'), |_| {}).apply(root.path(), &ApplyOptions::default());
    assert_eq!(error.unwrap_err().to_string(), "entry \"v\" has the unknown type 'V'");
    let mut options = ApplyOptions::default();
    options.limits.entries = 1;
    let error = Tar::new().file("a", "").file("b", "").apply(root.path(), &options).unwrap_err();
    assert_eq!(error.to_string(), "layer exceeds the limit of 1 entries");
    options.limits = LayerLimits { bytes: 5, ..LayerLimits::default() };
    let error = Tar::new().file("a", "123").file("b", "123").apply(root.path(), &options).unwrap_err();
    assert_eq!(error.to_string(), "layer exceeds the limit of 5 bytes");
    let tar = Tar::new().file("a", &"x".repeat(3000)).0.finish().unwrap();
    let error = apply_layer(fs::File::open(root.path()).unwrap(), &tar[..1000], &ApplyOptions::default())
        .unwrap_err();
    assert_eq!(error.to_string(), "failed to read layer: unexpected end of the tar archive");
    let error =
        Tar::new().file("f", "").file("f/x", "").apply(root.path(), &ApplyOptions::default()).unwrap_err();
    assert!(error.to_string().starts_with("open folder \"f\": Not a directory"), "{error}");
}

#[test]
fn attributes_that_steer_the_mount_are_not_taken_from_a_layer() {
    let root = tempfile::tempdir().unwrap();
    Tar::new()
        .with("d/", Kind::Directory, |h| {
            h.set_xattr(b"trusted.overlay.opaque", b"y".to_vec());
            h.set_xattr(b"trusted.overlay.redirect", b"/etc".to_vec());
            h.set_xattr(b"user.overlay.opaque", b"y".to_vec());
            h.set_xattr(b"user.kept", b"1".to_vec());
        })
        .apply(root.path(), &ApplyOptions::default())
        .unwrap();
    let d = root.path().join("d");
    assert_eq!(xattr(&d, "trusted.overlay.opaque"), None);
    assert_eq!(xattr(&d, "trusted.overlay.redirect"), None);
    assert_eq!(xattr(&d, "user.overlay.opaque"), None);
    assert_eq!(xattr(&d, "user.kept").unwrap(), b"1");
}

#[test]
fn removals_take_overlay_form() {
    let dir = tempfile::tempdir().unwrap();
    let (upper, lower) = (dir.path().join("upper"), dir.path().join("lower"));
    fs::create_dir_all(&upper).unwrap();
    fs::create_dir_all(lower.join("usr/lib/sub")).unwrap();
    fs::write(lower.join("usr/lib/gone"), "").unwrap();
    fs::set_permissions(lower.join("usr"), fs::Permissions::from_mode(0o711)).unwrap();
    std::os::unix::fs::chown(lower.join("usr/lib"), Some(7), Some(8)).unwrap();
    let options = ApplyOptions { lowers: vec![lower.clone()], ..ApplyOptions::default() };
    Tar::new()
        .file("usr/lib/.wh.gone", "")
        .file("usr/lib/sub/.wh..wh..opq", "")
        .file("anew", "1")
        .file(".wh.anew", "")
        .file("x/.wh.replaced", "")
        .dir("x/replaced/")
        .file("y/.wh.file", "")
        .file("y/file", "now")
        .file(".wh..wh.plnk", "")
        .apply(&upper, &options)
        .unwrap();
    assert!(is_whiteout(&upper.join("usr/lib/gone")));
    assert_eq!(xattr(&upper.join("usr/lib/sub"), "trusted.overlay.opaque").unwrap(), b"y");
    assert_eq!(
        fs::metadata(upper.join("usr")).unwrap().mode() & 0o7777,
        0o711,
        "implied folders look as below"
    );
    assert_eq!(fs::metadata(upper.join("usr/lib")).unwrap().uid(), 7);
    assert_eq!(
        fs::read_to_string(upper.join("anew")).unwrap(),
        "1",
        "a marker spares what its own layer brings"
    );
    assert_eq!(xattr(&upper.join("x/replaced"), "trusted.overlay.opaque").unwrap(), b"y");
    assert_eq!(fs::read_to_string(upper.join("y/file")).unwrap(), "now");
    assert_eq!(names(&upper).iter().filter(|n| n.contains(".wh.")).count(), 0);
}

#[test]
fn an_opaque_root_hides_every_name_below() {
    let dir = tempfile::tempdir().unwrap();
    let (upper, lower, lowest) =
        (dir.path().join("upper"), dir.path().join("lower"), dir.path().join("lowest"));
    for d in [&upper, &lower, &lowest] {
        fs::create_dir_all(d).unwrap();
    }
    fs::create_dir(lower.join("both")).unwrap();
    fs::write(lower.join("old"), "").unwrap();
    fs::write(lowest.join("older"), "").unwrap();
    let options = ApplyOptions { lowers: vec![lower, lowest], ..ApplyOptions::default() };
    Tar::new()
        .file("both/new", "")
        .file(".wh..wh..opq", "")
        .file("other", "")
        .apply(&upper, &options)
        .unwrap();
    assert!(is_whiteout(&upper.join("old")) && is_whiteout(&upper.join("older")));
    assert_eq!(xattr(&upper.join("both"), "trusted.overlay.opaque").unwrap(), b"y");
    assert_eq!(names(&upper), ["both", "both/new", "old", "older", "other"]);
}

#[test]
fn a_hard_link_to_a_layer_below_brings_the_file_up() {
    let dir = tempfile::tempdir().unwrap();
    let (upper, lower) = (dir.path().join("upper"), dir.path().join("lower"));
    fs::create_dir_all(&upper).unwrap();
    fs::create_dir_all(lower.join("bin")).unwrap();
    fs::write(lower.join("bin/tool"), "tool").unwrap();
    fs::set_permissions(lower.join("bin/tool"), fs::Permissions::from_mode(0o4755)).unwrap();
    std::os::unix::fs::symlink("tool", lower.join("bin/sym")).unwrap();
    let options = ApplyOptions { lowers: vec![lower], ..ApplyOptions::default() };
    Tar::new()
        .link("alias", Kind::HardLink, "bin/tool")
        .link("alias2", Kind::HardLink, "/bin/tool")
        .link("symalias", Kind::HardLink, "bin/sym")
        .apply(&upper, &options)
        .unwrap();
    let tool = fs::metadata(upper.join("bin/tool")).unwrap();
    assert_eq!((tool.nlink(), tool.mode() & 0o7777), (3, 0o4755));
    assert_eq!(fs::read_to_string(upper.join("alias2")).unwrap(), "tool");
    assert_eq!(fs::read_link(upper.join("symalias")).unwrap(), Path::new("tool"));
    let error = Tar::new().link("n", Kind::HardLink, "bin/none").apply(&upper, &options).unwrap_err();
    assert_eq!(error.to_string(), "entry \"n\" is a hard link to \"bin/none\", which does not exist");
}

#[test]
fn removals_take_effect_in_a_merged_tree() {
    let root = tempfile::tempdir().unwrap();
    let at = |p: &str| root.path().join(p);
    for d in ["gone/sub", "opaque/old", "dirtofile/x", "keep"] {
        fs::create_dir_all(at(d)).unwrap();
    }
    for f in ["gone/sub/f", "opaque/f", "keep/f", "filetodir"] {
        fs::write(at(f), "old").unwrap();
    }
    Tar::new()
        .file(".wh.gone", "")
        .file(".wh.never", "")
        .file("none/.wh.never", "")
        .dir("opaque/")
        .file("opaque/new", "new")
        .file("opaque/.wh..wh..opq", "")
        .file("dirtofile", "file")
        .dir("filetodir/")
        .dir("keep/")
        .apply(root.path(), &merged())
        .unwrap();
    assert_eq!(names(root.path()), ["dirtofile", "filetodir", "keep", "keep/f", "opaque", "opaque/new"]);
}

#[test]
fn work_given_up_stops() {
    let root = tempfile::tempdir().unwrap();
    let cancel = tokio_util::sync::CancellationToken::new();
    cancel.cancel();
    let options = ApplyOptions { cancel: Some(cancel), ..ApplyOptions::default() };
    assert!(matches!(Tar::new().file("a", "").apply(root.path(), &options), Err(LayerError::Canceled)));
}
