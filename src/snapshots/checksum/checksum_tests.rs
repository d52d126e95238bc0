use super::*;
use serde::Deserialize;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;

/// Questions about the fixture and the answers that BuildKit v0.32's contenthash gave.
const ANSWERS: &str = include_str!("answers.jsonl");

#[derive(Debug, Deserialize)]
struct Question {
    path: String,
    #[serde(default)]
    wildcard: bool,
    #[serde(default)]
    follow: bool,
    #[serde(default)]
    include: Vec<String>,
    #[serde(default)]
    exclude: Vec<String>,
    #[serde(default)]
    required: Vec<String>,
    #[serde(default)]
    digest: String,
    #[serde(default)]
    error: String,
}

impl Question {
    fn query(&self) -> ContentQuery {
        ContentQuery {
            wildcard: self.wildcard,
            follow_links: self.follow,
            include_patterns: self.include.clone(),
            exclude_patterns: self.exclude.clone(),
            required_paths: self.required.clone(),
        }
    }
}

/// A tree with one of everything. Kept for others by FIXTURE_DIR.
fn fixture(root: &Path) {
    let file = |path: &str, text: &[u8], mode: u32, uid: u32, gid: u32| {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        chown(&path, Some(uid), Some(gid)).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
    };
    file("a.txt", b"hello", 0o644, 0, 0);
    file("b", b"#!/bin/sh\n", 0o755, 1000, 1001);
    file("empty", b"", 0o600, 0, 0);
    file("big", &b"0123456789".repeat(70_000), 0o644, 0, 0);
    file("setuid", b"s", 0o4755, 0, 0);
    for path in ["dir/x", "dir/y", "dir/sub/z", "dir/sub/deeper/q.go", "dir.txt", "dir-a", "dir2/f", "dirx/f"]
    {
        file(path, path.as_bytes(), 0o644, 0, 0);
    }
    for path in
        ["pkg/a/index.js", "pkg/a/test/t.js", "pkg/b/index.js", "pkg/b/README.md", "ünï/☺.txt", "sp ace"]
    {
        file(path, path.as_bytes(), 0o644, 0, 0);
    }
    std::fs::create_dir(root.join("dir-empty")).unwrap();
    std::fs::set_permissions(root.join("dir2"), PermissionsExt::from_mode(0o1777)).unwrap();
    chown(root.join("dir2"), Some(5), Some(6)).unwrap();
    for (name, target) in [
        ("link", "a.txt"),
        ("abslink", "/dir/sub"),
        ("dirlink", "dir"),
        ("dangling", "nope"),
        ("loop1", "loop2"),
        ("loop2", "loop1"),
        ("dir/up", "../a.txt"),
        ("out", "../../../a.txt"),
    ] {
        symlink(target, root.join(name)).unwrap();
    }
    std::fs::hard_link(root.join("a.txt"), root.join("hard")).unwrap();
    use rustix::fs::{CWD, FileType, Mode, XattrFlags, makedev, mknodat, setxattr};
    let mode = Mode::from_raw_mode(0o640);
    mknodat(CWD, root.join("fifo"), FileType::Fifo, mode, 0).unwrap();
    mknodat(CWD, root.join("null"), FileType::CharacterDevice, mode, makedev(1, 3)).unwrap();
    mknodat(CWD, root.join("disk"), FileType::BlockDevice, mode, makedev(259, 70_000)).unwrap();
    setxattr(root.join("a.txt"), "user.note", b"n", XattrFlags::empty()).unwrap();
    setxattr(root.join("b"), "trusted.z", b"2", XattrFlags::empty()).unwrap();
    setxattr(root.join("b"), "user.a", b"1", XattrFlags::empty()).unwrap();
    setxattr(root.join("dir"), "user.d", b"3", XattrFlags::empty()).unwrap();
    let capability = b"\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00";
    setxattr(root.join("b"), "security.capability", capability, XattrFlags::empty()).unwrap();
}

fn made() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    fixture(dir.path());
    dir
}

fn ask(tree: &mut Tree, files: Option<&Files>, question: &Question) -> Result<Option<[u8; 32]>, String> {
    select::digest(tree, files, &question.path, &question.query()).map_err(|e| e.to_string())
}

fn check(question: &Question, got: Result<Option<[u8; 32]>, String>) -> Option<String> {
    let got = match got {
        Ok(Some(raw)) => Digest::from_bytes(raw).to_string(),
        Ok(None) => "more files are needed".to_string(),
        Err(why) => why,
    };
    let want = if question.error.is_empty() { &question.digest } else { &question.error };
    (got != *want).then(|| format!("{question:?}\n      got {got}"))
}

#[test]
fn digests_are_those_of_buildkit() {
    if let Some(dir) = std::env::var_os("FIXTURE_DIR") {
        fixture(Path::new(&dir));
        return;
    }
    let dir = made();
    let files = Files::at(dir.path()).unwrap();
    let questions: Vec<Question> = ANSWERS.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(questions.len() > 500);
    let (mut wrong, mut shared) = (Vec::new(), Tree::default());
    for question in &questions {
        wrong.extend(check(question, ask(&mut Tree::default(), Some(&files), question)));
        wrong.extend(check(question, ask(&mut shared, Some(&files), question)));
    }
    // What was learned answers everything again, also from the disk.
    let kept = dir.path().join("kept");
    persist::save(&kept, "id", &shared);
    assert!(persist::load(&kept, "other").is_none());
    let mut kept = persist::load(&kept, "id").unwrap();
    assert_eq!(kept.root, shared.root);
    for question in &questions {
        wrong.extend(check(question, ask(&mut kept, None, question)));
    }
    assert!(wrong.is_empty(), "{} wrong\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn what_arrives_has_the_digests_of_what_is_there() {
    let dir = made();
    let files = Files::at(dir.path()).unwrap();
    let of = |tree: &mut Tree, path: &str| {
        let raw = select::digest(tree, Some(&files), path, &ContentQuery::default()).unwrap().unwrap();
        Digest::from_bytes(raw)
    };
    let mut there = Tree::default();
    let update = update::start(&Checksums::default(), Path::new("/none"), None, true);
    let put = |path: &str, kind: EntryKind<'_>, there: &mut Tree| {
        // The header of a folder has no path of its own; an empty one is the same.
        let digest = match kind {
            EntryKind::Folder => {
                let mut hasher = FileHasher::new(&EntryHeader {
                    mode: GoMode::from_unix(0o040755),
                    uid: 0,
                    gid: 0,
                    size: 4096,
                    linkname: b"",
                    device: (0, 0),
                    xattrs: vec![],
                });
                hasher.update(b"");
                hasher.finish()
            }
            _ => of(there, path),
        };
        update.put(path, kind, digest);
    };
    put("pkg", EntryKind::Folder, &mut there);
    put("pkg/a", EntryKind::Folder, &mut there);
    put("pkg/a/index.js", EntryKind::File, &mut there);
    put("pkg/a/test", EntryKind::Folder, &mut there);
    put("pkg/a/test/t.js", EntryKind::File, &mut there);
    put("pkg/b", EntryKind::Folder, &mut there);
    put("pkg/b/README.md", EntryKind::File, &mut there);
    put("pkg/b/index.js", EntryKind::File, &mut there);
    put(
        "pkg/gone",
        EntryKind::File,
        &mut Tree::of(tree::Dir {
            complete: true,
            children: [(
                b"pkg".as_slice().into(),
                tree::Entry::Dir(Box::new(tree::Dir {
                    children: [(b"gone".as_slice().into(), tree::Entry::File { digest: Some([1; 32]) })]
                        .into(),
                    ..Default::default()
                })),
            )]
            .into(),
            ..Default::default()
        }),
    );
    put("link", EntryKind::Symlink(b"a.txt"), &mut there);
    update.put("hard", EntryKind::HardLink(b"a.txt"), Digest::of("anything"));
    put("a.txt", EntryKind::File, &mut there);
    update.remove("pkg/gone");
    let mut arrived = update.finish();
    for path in ["/pkg", "/pkg/a/test", "/link", "/a.txt", "/hard"] {
        let raw = select::digest(&mut arrived, None, path, &ContentQuery::default()).unwrap().unwrap();
        assert_eq!(Digest::from_bytes(raw), of(&mut there, path), "{path}");
    }
    let missing = select::digest(&mut arrived, None, "/b", &ContentQuery::default()).unwrap_err();
    assert_eq!(missing.to_string(), "\"/b\": not found");
}

#[test]
fn thousands_of_files_are_hashed_on_all_cores() {
    let dir = tempfile::tempdir().unwrap();
    for folder in 0..100 {
        let path = dir.path().join(format!("d{folder}"));
        std::fs::create_dir(&path).unwrap();
        for n in 0..100 {
            std::fs::write(path.join(format!("f{n}")), format!("{folder} {n}").repeat(100)).unwrap();
        }
    }
    let files = Files::at(dir.path()).unwrap();
    let (mut tree, query) = (Tree::default(), ContentQuery::default());
    let time = |what: &str, tree: &mut Tree, path: &str, query: &ContentQuery| {
        let started = std::time::Instant::now();
        let digest = select::digest(tree, Some(&files), path, query).unwrap();
        println!("{what}: {:?}", started.elapsed());
        digest
    };
    let first = time("10 000 files", &mut tree, "/", &query);
    assert_eq!(time("again", &mut tree, "/", &query), first);
    let some = ContentQuery { include_patterns: vec!["**/f1*".into()], ..Default::default() };
    time("by pattern", &mut tree, "/", &some);
    let file = dir.path().join("kept");
    let started = std::time::Instant::now();
    persist::save(&file, "id", &tree);
    println!("kept: {:?}, {} bytes", started.elapsed(), file.metadata().unwrap().len());
    let started = std::time::Instant::now();
    assert_eq!(persist::load(&file, "id").unwrap().root, tree.root);
    println!("read: {:?}", started.elapsed());
}
