use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::*;
use crate::tar::{Kind, Reader, ReaderLimits};

/// An overlay mount in which a test does what a build step would do.
struct Overlay {
    dir: tempfile::TempDir,
    mounted: bool,
}

impl Overlay {
    fn new(lower: impl FnOnce(&Path)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for d in ["upper", "work", "lower", "base", "merged"] {
            fs::create_dir(dir.path().join(d)).unwrap();
        }
        lower(&dir.path().join("lower"));
        Self { dir, mounted: false }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn lowers(&self) -> Vec<PathBuf> {
        vec![self.at("lower"), self.at("base")]
    }

    fn change(&mut self, change: &str) -> &mut Self {
        let d = self.dir.path().display();
        let options = format!(
            "lowerdir={d}/lower:{d}/base,upperdir={d}/upper,workdir={d}/work,index=off,redirect_dir=off"
        );
        run(Command::new("mount").args(["-t", "overlay", "overlay", "-o", &options]).arg(self.at("merged")));
        self.mounted = true;
        run(Command::new("sh").args(["-ec", change]).current_dir(self.at("merged")));
        run(Command::new("umount").arg(self.at("merged")));
        self.mounted = false;
        self
    }

    fn diff(&self, options: &DiffOptions) -> Vec<u8> {
        let mut tar = Vec::new();
        diff_layer(&self.at("upper"), &self.lowers(), &mut tar, options).unwrap();
        tar
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        if self.mounted {
            drop(Command::new("umount").arg(self.at("merged")).status());
        }
    }
}

fn run(command: &mut Command) {
    let out = command.output().unwrap();
    assert!(out.status.success(), "{command:?}: {}", String::from_utf8_lossy(&out.stderr));
}

/// Each entry as `kind mode owner name [-> link]`.
fn listing(tar: &[u8]) -> Vec<String> {
    let mut reader = Reader::new(tar, ReaderLimits::default());
    let mut all = Vec::new();
    while let Some(h) = reader.next_entry().unwrap() {
        let name = String::from_utf8_lossy(&h.name);
        let link = String::from_utf8_lossy(&h.link);
        let link = if link.is_empty() { String::new() } else { format!(" -> {link}") };
        let kind = match h.kind {
            Kind::File => 'f',
            Kind::HardLink => 'h',
            Kind::Symlink => 'l',
            Kind::CharDevice => 'c',
            Kind::BlockDevice => 'b',
            Kind::Directory => 'd',
            Kind::Fifo => 'p',
            Kind::Other(_) => '?',
        };
        all.push(format!("{kind} {:04o} {}:{} {name}{link}", h.mode, h.uid, h.gid));
    }
    all
}

fn lower(root: &Path) {
    run(Command::new("sh")
        .args(["-ec", "umask 022; mkdir -p etc usr/bin var/cache/deep; echo a > etc/passwd; echo b > usr/bin/tool; ln usr/bin/tool usr/bin/alias; echo c > var/cache/deep/file; echo d > var/cache/top; ln -s x link; chmod 0711 usr"])
        .current_dir(root));
}

#[test]
fn a_layer_holds_changes_removals_and_the_folders_they_are_in() {
    let mut overlay = Overlay::new(lower);
    overlay.change(
        "umask 022; rm etc/passwd; echo new > usr/bin/new; chown 5:6 usr/bin/new; mkdir -p a/b; mkfifo a/pipe; \
         mknod a/null c 1 3; ln -sf y link; rm -r var/cache; mkdir var/cache; echo e > var/cache/top; ln a/pipe a/pipe2",
    );
    assert_eq!(
        listing(&overlay.diff(&DiffOptions::default())),
        [
            "d 0755 0:0 a/",
            "d 0755 0:0 a/b/",
            "c 0666 0:0 a/null".replace("0666", "0644").as_str(),
            "p 0644 0:0 a/pipe",
            "h 0644 0:0 a/pipe2 -> a/pipe",
            "d 0755 0:0 etc/",
            "f 0000 0:0 etc/.wh.passwd",
            "l 0777 0:0 link -> y",
            "d 0711 0:0 usr/",
            "d 0755 0:0 usr/bin/",
            "f 0644 5:6 usr/bin/new",
            "d 0755 0:0 var/",
            "d 0755 0:0 var/cache/",
            "f 0000 0:0 var/cache/.wh.deep",
            "f 0644 0:0 var/cache/top",
        ]
    );
}

#[test]
fn what_is_as_below_is_left_out() {
    let mut overlay = Overlay::new(lower);
    // Copied up without a change, a folder whose only news is the same as below, a removed file that never was.
    overlay
        .change("touch -r etc/passwd etc/passwd; touch tmp; rm tmp; mv var/cache/top t; mv t var/cache/top");
    assert_eq!(listing(&overlay.diff(&DiffOptions::default())), Vec::<String>::new());
    overlay.change("chmod 0700 etc; touch -d '2020-01-01 00:00:00.5' usr/bin/tool");
    assert_eq!(
        listing(&overlay.diff(&DiffOptions::default())),
        ["d 0700 0:0 etc/", "d 0711 0:0 usr/", "d 0755 0:0 usr/bin/", "f 0644 0:0 usr/bin/tool"]
    );
}

#[test]
fn times_are_whole_seconds_and_no_later_than_asked() {
    let mut overlay = Overlay::new(lower);
    overlay.change("echo 1 > late; echo 2 > early; touch -d @1000.75 early; rm etc/passwd");
    let times = |epoch| {
        let tar = overlay.diff(&DiffOptions { epoch, ..DiffOptions::default() });
        let mut reader = Reader::new(&tar[..], ReaderLimits::default());
        let mut all = Vec::new();
        while let Some(h) = reader.next_entry().unwrap() {
            assert_eq!(h.mtime.nanos, 0);
            all.push((String::from_utf8(h.name).unwrap(), h.mtime.seconds));
        }
        all
    };
    assert_eq!(
        times(Some(2000)),
        [("early", 1000), ("etc/", 2000), ("etc/.wh.passwd", 0), ("late", 2000)]
            .map(|(n, t)| (n.to_owned(), t))
    );
    assert!(times(None)[3].1 > 1_500_000_000);
    let plain = overlay.diff(&DiffOptions::default());
    let mut rewritten = Vec::new();
    rewrite_timestamps(&plain[..], &mut rewritten, 2000).unwrap();
    assert_eq!(rewritten, overlay.diff(&DiffOptions { epoch: Some(2000), ..DiffOptions::default() }));
}

#[test]
fn attributes_travel_as_the_filter_says() {
    let mut overlay = Overlay::new(lower);
    overlay.change("echo 1 > cap; echo 2 > user");
    let cap: &[u8] = &[1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let set = |file: &str, name, value: &[u8]| {
        rustix::fs::setxattr(overlay.at("upper").join(file), name, value, rustix::fs::XattrFlags::empty())
            .unwrap();
    };
    set("cap", "security.capability", cap);
    set("user", "user.note", b"hello");
    set("user", "trusted.overlay.origin", b"x");
    set("user", "trusted.other", b"x");
    let attributes = |xattrs| {
        let tar = overlay.diff(&DiffOptions { xattrs, ..DiffOptions::default() });
        let mut reader = Reader::new(&tar[..], ReaderLimits::default());
        let mut all = Vec::new();
        while let Some(h) = reader.next_entry().unwrap() {
            all.extend(h.xattrs().map(|(k, v)| (String::from_utf8_lossy(k).into_owned(), v.to_vec())));
        }
        all
    };
    let capability = ("security.capability".to_owned(), cap.to_vec());
    assert_eq!(attributes(XattrFilter::Capability), std::slice::from_ref(&capability));
    assert_eq!(attributes(XattrFilter::All), [capability, ("user.note".to_owned(), b"hello".to_vec())]);
}

#[test]
fn a_redirected_folder_is_refused() {
    let overlay = Overlay::new(lower);
    fs::create_dir(overlay.at("upper/moved")).unwrap();
    let moved = overlay.at("upper/moved");
    rustix::fs::setxattr(moved, "trusted.overlay.redirect", b"/usr", rustix::fs::XattrFlags::empty())
        .unwrap();
    let error = diff_layer(&overlay.at("upper"), &overlay.lowers(), std::io::sink(), &DiffOptions::default());
    assert!(matches!(error, Err(LayerError::Redirect { .. })), "{error:?}");
}

#[test]
fn two_trees_are_compared_without_overlay_marks() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    fs::create_dir(&a).unwrap();
    lower(&a);
    run(Command::new("cp").arg("-a").arg(&a).arg(&b));
    let diff = || {
        let mut tar = Vec::new();
        let view = LowerView::open(&[&a]).unwrap();
        diff_trees(&view, &b, &mut tar, &DiffOptions::default()).unwrap();
        listing(&tar)
    };
    assert_eq!(diff(), Vec::<String>::new());
    run(Command::new("sh")
        .args([
            "-ec",
            "rm -r var; echo > var; ln usr/bin/tool usr/bin/third; rm etc/passwd; echo n > etc/new",
        ])
        .current_dir(&b));
    assert_eq!(
        diff(),
        [
            "d 0755 0:0 etc/",
            "f 0644 0:0 etc/new",
            "f 0000 0:0 etc/.wh.passwd",
            "d 0711 0:0 usr/",
            "d 0755 0:0 usr/bin/",
            "f 0644 0:0 usr/bin/third",
            "h 0644 0:0 usr/bin/alias -> usr/bin/third",
            "h 0644 0:0 usr/bin/tool -> usr/bin/third",
            "f 0644 0:0 var",
        ]
        .map(|line| line.to_owned())
        .into_iter()
        .collect::<Vec<_>>()
    );
}

#[test]
fn files_laid_over_a_tree_stand_where_their_names_belong() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("a")).unwrap();
    for name in ["a/x", "a.b", "c", "e"] {
        fs::write(dir.path().join(name), "below").unwrap();
    }
    let over =
        |name: &str| Over { name: name.into(), mode: 0o600, content: b"laid".to_vec(), ..Over::default() };
    let written = |root: Option<fs::File>, names: &[&str]| {
        let mut tar = crate::tar::Writer::new(Vec::new());
        let over = names.iter().map(|name| over(name)).collect();
        let written = write_tree(root, &mut tar, &TreeOptions { over, ..TreeOptions::default() }).unwrap();
        let tar = tar.finish().unwrap();
        let names: Vec<String> =
            listing(&tar).iter().map(|line| line.split(' ').nth(3).unwrap_or_default().to_owned()).collect();
        assert_eq!(written.entries, names.len() as u64);
        (names.join(" "), String::from_utf8_lossy(&tar).matches("laid").count())
    };
    let root = || Some(fs::File::open(dir.path()).unwrap());
    // What is in a folder follows it, whatever byte is in the names beside it.
    assert_eq!(written(root(), &["z", "a!", "c", "d", "A"]), ("A a/ a/x a! a.b c d e z".into(), 5));
    assert_eq!(written(None, &["b", "a"]), ("a b".into(), 2));
}

#[test]
fn a_tree_is_written_with_its_links() {
    let dir = tempfile::tempdir().unwrap();
    lower(dir.path());
    let mut tar = crate::tar::Writer::new(Vec::new());
    let options =
        TreeOptions { prefix: "linux_amd64".into(), times: Rounding::Fixed(7), ..TreeOptions::default() };
    write_tree(Some(fs::File::open(dir.path()).unwrap()), &mut tar, &options).unwrap();
    let tar = tar.finish().unwrap();
    let lines = listing(&tar);
    assert_eq!(lines[0], "d 0755 0:0 linux_amd64/etc/");
    assert!(
        lines.contains(&"h 0644 0:0 linux_amd64/usr/bin/tool -> linux_amd64/usr/bin/alias".to_owned()),
        "{lines:?}"
    );
    assert_eq!(fs::metadata(dir.path().join("usr/bin/tool")).unwrap().nlink(), 2);
}
