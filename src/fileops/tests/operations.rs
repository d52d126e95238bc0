//! File operations on real snapshots.
#![allow(clippy::unwrap_used)]

use crosskit_api::pb::{self, file_action::Action, user_opt};
use crosskit_fileops::{Failure, Kind, run};
use crosskit_images::ContentStore;
use crosskit_metadata::Database;
use crosskit_snapshots::{About, DriverChoice, Ref, Snapshots};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

struct Root {
    _dir: tempfile::TempDir,
    snapshots: Snapshots,
}

fn root_with(choice: DriverChoice) -> Root {
    let dir = tempfile::tempdir().unwrap();
    let db = Database::open(dir.path().join("metadata.db")).unwrap();
    let content = ContentStore::open(dir.path().join("content")).unwrap();
    let snapshots = Snapshots::open_with(dir.path(), db, content, choice).unwrap();
    Root { _dir: dir, snapshots }
}

fn root() -> Root {
    root_with(DriverChoice::Overlay)
}

impl Root {
    async fn step(&self, parent: Option<&Ref>, change: impl FnOnce(&Path)) -> Ref {
        let mutable = self.snapshots.new_mutable(parent, About::new("step")).unwrap();
        let mounted = mutable.mount().await.unwrap();
        change(mounted.path());
        drop(mounted);
        mutable.commit().await.unwrap()
    }

    async fn run(&self, inputs: &[Option<Ref>], actions: Vec<pb::FileAction>) -> Result<Ref, Failure> {
        let results = run(&self.snapshots, &pb::FileOp { actions }, inputs, "test").await?;
        Ok(results[0].clone().unwrap())
    }

    /// One action over the first input, from the second.
    async fn one(&self, inputs: &[Option<Ref>], action: Action) -> Result<Ref, Failure> {
        let secondary = if matches!(action, Action::Copy(_)) && inputs.len() > 1 { 1 } else { -1 };
        self.run(inputs, vec![make(0, secondary, 0, action)]).await
    }
}

fn make(input: i64, secondary_input: i64, output: i64, action: Action) -> pb::FileAction {
    pb::FileAction { input, secondary_input, output, action: Some(action) }
}

fn plain_copy(src: &str, dest: &str) -> pb::FileActionCopy {
    pb::FileActionCopy {
        src: src.into(),
        dest: dest.into(),
        mode: -1,
        timestamp: -1,
        create_dest_path: true,
        ..Default::default()
    }
}

/// As COPY of a Dockerfile makes it.
fn dockerfile_copy(src: &str, dest: &str) -> pb::FileActionCopy {
    pb::FileActionCopy {
        follow_symlink: true,
        dir_copy_contents: true,
        allow_wildcard: true,
        ..plain_copy(src, dest)
    }
}

fn write(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

async fn tree(reference: &Ref) -> Vec<String> {
    let mounted = reference.mount_readonly().await.unwrap();
    let (mut found, mut folders) = (Vec::new(), vec![PathBuf::new()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(mounted.path().join(&folder)).unwrap() {
            let path = folder.join(entry.unwrap().file_name());
            let full = mounted.path().join(&path);
            let meta = full.symlink_metadata().unwrap();
            found.push(if meta.is_dir() {
                folders.push(path.clone());
                format!("{}/", path.display())
            } else if meta.is_symlink() {
                format!("{}->{}", path.display(), std::fs::read_link(&full).unwrap().display())
            } else if meta.is_file() {
                format!("{}={}", path.display(), std::fs::read_to_string(&full).unwrap())
            } else {
                format!("{}?", path.display())
            });
        }
    }
    found.sort();
    found
}

async fn source(root: &Root) -> Ref {
    root.step(None, |at| {
        write(at, "a.txt", "A");
        write(at, "b.txt", "B");
        write(at, "dir/x", "X");
        write(at, "dir/sub/y", "Y");
        write(at, "dir/sub/z.js", "Z");
        symlink("a.txt", at.join("link")).unwrap();
        symlink("/dir", at.join("dirlink")).unwrap();
        symlink("../../../../etc", at.join("out")).unwrap();
    })
    .await
}

async fn base(root: &Root) -> Ref {
    root.step(None, |at| {
        write(at, "etc/passwd", "root:x:0:0::/:\nuser:x:1000:1001::/home:/bin/sh\n");
        write(at, "etc/group", "root:x:0:\nstaff:x:50:\n");
        write(at, "app/old", "OLD");
        write(at, "app/x", "OLDX");
        write(at, "app/sub/kept", "K");
        symlink("/app", at.join("current")).unwrap();
        symlink("../../../../tmp", at.join("escape")).unwrap();
    })
    .await
}

const BASE: [&str; 10] = [
    "app/",
    "app/old=OLD",
    "app/sub/",
    "app/sub/kept=K",
    "app/x=OLDX",
    "current->/app",
    "escape->../../../../tmp",
    "etc/",
    "etc/group=root:x:0:\nstaff:x:50:\n",
    "etc/passwd=root:x:0:0::/:\nuser:x:1000:1001::/home:/bin/sh\n",
];

/// What a tree has over the base.
fn beyond(tree: Vec<String>) -> Vec<String> {
    tree.into_iter().filter(|line| !BASE.contains(&line.as_str())).collect()
}

#[tokio::test]
async fn copies_go_where_they_should() {
    for choice in [DriverChoice::Overlay, DriverChoice::Native] {
        let root = root_with(choice);
        let (base, source) = (base(&root).await, source(&root).await);
        let dir = ["dir/sub/", "dir/sub/y=Y", "dir/sub/z.js=Z", "dir/x=X"];
        // (source, destination, as a Dockerfile does, what is new)
        let table: Vec<(&str, &str, bool, Vec<String>)> = vec![
            ("/a.txt", "/", true, vec!["a.txt=A".into()]),
            ("/a.txt", "/new", true, vec!["new=A".into()]),
            ("/a.txt", "/new/", true, vec!["new/".into(), "new/a.txt=A".into()]),
            ("/a.txt", "/app", true, vec!["app/a.txt=A".into()]),
            ("/a.txt", "/app/old", true, vec!["app/old=A".into()]),
            ("/a.txt", "/current/in", true, vec!["app/in=A".into()]),
            ("/a.txt", "/deep/er/f", true, vec!["deep/".into(), "deep/er/".into(), "deep/er/f=A".into()]),
            ("/a.txt", "/escape/f", true, vec!["tmp/".into(), "tmp/f=A".into()]),
            ("/*.txt", "/t/", true, vec!["t/".into(), "t/a.txt=A".into(), "t/b.txt=B".into()]),
            ("/link", "/l", true, vec!["l=A".into()]),
            ("/link", "/l", false, vec!["l->a.txt".into()]),
            ("/dirlink/x", "/f", true, vec!["f=X".into()]),
            ("/d*/x", "/f", true, vec!["f=X".into()]),
            ("/dir", "/app", true, vec!["app/sub/y=Y".into(), "app/sub/z.js=Z".into(), "app/x=X".into()]),
            ("/dir", "/app", false, {
                let mut all: Vec<String> = dir.iter().map(|line| format!("app/{line}")).collect();
                all.insert(0, "app/dir/".into());
                all
            }),
            (
                "/dir/",
                "/n",
                true,
                vec!["n/".into(), "n/sub/".into(), "n/sub/y=Y".into(), "n/sub/z.js=Z".into(), "n/x=X".into()],
            ),
            ("/dir", "/n/", false, {
                let mut all: Vec<String> = dir.iter().map(|line| format!("n/{line}")).collect();
                all.splice(0..0, ["n/".to_string(), "n/dir/".to_string()]);
                all
            }),
            ("/dir/sub", "/app/sub", true, vec!["app/sub/y=Y".into(), "app/sub/z.js=Z".into()]),
        ];
        for (src, dest, dockerfile, want) in table {
            let copy = if dockerfile { dockerfile_copy(src, dest) } else { plain_copy(src, dest) };
            let result =
                root.one(&[Some(base.clone()), Some(source.clone())], Action::Copy(copy)).await.unwrap();
            assert_eq!(beyond(tree(&result).await), want, "{choice:?}: {src} to {dest}");
        }
        let kept = tree(&base).await;
        assert_eq!(kept, BASE, "the base is as it was");
    }
}

#[tokio::test]
async fn the_host_is_out_of_reach() {
    let root = root();
    let source = source(&root).await;
    let error = root.one(&[None, Some(source)], Action::Copy(dockerfile_copy("/out/hostname", "/"))).await;
    let error = error.unwrap_err();
    assert_eq!(error.to_string(), "lstat /etc/hostname: no such file or directory");
    assert_eq!((error.action, error.source.kind()), (Some(0), Kind::User));
}

#[tokio::test]
async fn mistakes_are_named() {
    let root = root();
    let (base, source) = (base(&root).await, source(&root).await);
    let table = [
        (plain_copy("/missing", "/x"), "lstat /missing: no such file or directory"),
        (dockerfile_copy("/missing*", "/x"), "/missing* not found"),
        (dockerfile_copy("/dir", "/app/old"), "cannot copy to non-directory: /app/old"),
        (dockerfile_copy("/a.txt", "/app/old/f"), "mkdir /app/old: not a directory"),
        (
            pb::FileActionCopy { create_dest_path: false, ..plain_copy("/a.txt", "/no/where") },
            "failed to stat /no/where: lstat /no: no such file or directory",
        ),
        (
            pb::FileActionCopy { mode_str: "u+y".into(), ..plain_copy("/a.txt", "/f") },
            "invalid mode \"u+y\": it must be octal, or clauses such as u+x,go=rX",
        ),
        (
            pb::FileActionCopy { include_patterns: vec!["[".into()], ..plain_copy("/dir", "/f") },
            "invalid includepatterns: [[]: syntax error in pattern",
        ),
    ];
    for (copy, want) in table {
        let outcome = root.one(&[Some(base.clone()), Some(source.clone())], Action::Copy(copy)).await;
        assert_eq!(outcome.unwrap_err().to_string(), want);
    }
    let empty = pb::FileActionCopy { allow_empty_wildcard: true, ..dockerfile_copy("/missing*", "/x") };
    assert_eq!(tree(&root.one(&[Some(base), Some(source)], Action::Copy(empty)).await.unwrap()).await, BASE);
    let folder_over = root.step(None, |at| write(at, "x", "file")).await;
    let folder = root.step(None, |at| write(at, "n/x/y", "folder")).await;
    let outcome = root
        .one(&[Some(folder.clone()), Some(folder_over.clone())], Action::Copy(dockerfile_copy("/", "/n")))
        .await;
    assert_eq!(outcome.unwrap_err().to_string(), "cannot replace to directory /n/x with file");
    let replace =
        pb::FileActionCopy { always_replace_existing_dest_paths: true, ..dockerfile_copy("/", "/n") };
    let replaced = root.one(&[Some(folder), Some(folder_over)], Action::Copy(replace)).await.unwrap();
    assert_eq!(tree(&replaced).await, ["n/", "n/x=file"]);
}

#[tokio::test]
async fn patterns_select() {
    let root = root();
    let source = source(&root).await;
    let with = |include: &[&str], exclude: &[&str]| pb::FileActionCopy {
        include_patterns: include.iter().map(|s| s.to_string()).collect(),
        exclude_patterns: exclude.iter().map(|s| s.to_string()).collect(),
        ..dockerfile_copy("/", "/")
    };
    let table: Vec<(pb::FileActionCopy, Vec<&str>)> = vec![
        (with(&["**/*.js"], &[]), vec!["dir/", "dir/sub/", "dir/sub/z.js=Z"]),
        (with(&["dir/sub"], &["**/y"]), vec!["dir/", "dir/sub/", "dir/sub/z.js=Z"]),
        (with(&[], &["dir", "*.txt", "*link", "out"]), vec![]),
        (with(&[], &["*", "!dir/x"]), vec!["dir/", "dir/x=X"]),
        (with(&["nothing"], &[]), vec![]),
    ];
    for (copy, want) in table {
        let what = format!("{:?} {:?}", copy.include_patterns, copy.exclude_patterns);
        let result = root.one(&[None, Some(source.clone())], Action::Copy(copy)).await.unwrap();
        assert_eq!(tree(&result).await, want, "{what}");
    }
}

#[tokio::test]
async fn files_keep_everything_or_what_is_asked() {
    let root = root();
    let base = base(&root).await;
    let source = root
        .step(None, |at| {
            write(at, "d/f", "F");
            write(at, "d/run.sh", "#!/bin/sh");
            std::fs::hard_link(at.join("d/f"), at.join("d/g")).unwrap();
            chown(at.join("d/run.sh"), Some(7), Some(8)).unwrap();
            std::fs::set_permissions(at.join("d/run.sh"), PermissionsExt::from_mode(0o4750)).unwrap();
            rustix::fs::setxattr(at.join("d/f"), "user.note", b"n", rustix::fs::XattrFlags::empty()).unwrap();
            std::fs::File::open(at.join("d/f")).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
            let sparse = std::fs::File::create(at.join("d/sparse")).unwrap();
            sparse.set_len(50 << 20).unwrap();
            use rustix::fs::{CWD, FileType, Mode};
            rustix::fs::mknodat(
                CWD,
                at.join("d/null"),
                FileType::CharacterDevice,
                Mode::from_raw_mode(0o666),
                rustix::fs::makedev(1, 3),
            )
            .unwrap();
            rustix::fs::mknodat(CWD, at.join("d/fifo"), FileType::Fifo, Mode::from_raw_mode(0o600), 0)
                .unwrap();
            std::fs::File::open(at.join("d")).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
        })
        .await;
    let inputs = [Some(base), Some(source)];
    let kept = root.one(&inputs, Action::Copy(dockerfile_copy("/d", "/to"))).await.unwrap();
    let at = kept.mount_readonly().await.unwrap();
    let meta = |name: &str| at.path().join("to").join(name).symlink_metadata().unwrap();
    assert_eq!((meta("run.sh").uid(), meta("run.sh").gid(), meta("run.sh").mode() & 0o7777), (7, 8, 0o4750));
    assert_eq!((meta("f").mtime(), meta("").mtime()), (0, 0));
    assert_eq!(meta("f").ino(), meta("g").ino());
    assert_eq!(meta("null").rdev(), rustix::fs::makedev(1, 3));
    assert!(meta("sparse").blocks() < 100 && meta("sparse").len() == 50 << 20);
    let mut note = [0; 8];
    let length = rustix::fs::getxattr(at.path().join("to/f"), "user.note", &mut note[..]).unwrap();
    assert_eq!(&note[..length], b"n");
    // Changed in everything: nothing can be shared, and names of one file stay names of one file.
    let owner = pb::ChownOpt {
        user: Some(pb::UserOpt {
            user: Some(user_opt::User::ByName(pb::NamedUserOpt { name: "user".into(), input: 0 })),
        }),
        group: Some(pb::UserOpt {
            user: Some(user_opt::User::ByName(pb::NamedUserOpt { name: "staff".into(), input: 0 })),
        }),
    };
    let changed = pb::FileActionCopy {
        owner: Some(owner),
        mode_str: "go=rX".into(),
        timestamp: 5_000_000_000,
        ..dockerfile_copy("/d", "/to")
    };
    let changed = root.one(&inputs, Action::Copy(changed)).await.unwrap();
    let at = changed.mount_readonly().await.unwrap();
    let meta = |name: &str| at.path().join("to").join(name).symlink_metadata().unwrap();
    assert_eq!(
        (meta("f").uid(), meta("f").gid(), meta("f").mode() & 0o7777, meta("f").mtime()),
        (1000, 50, 0o644, 5)
    );
    assert_eq!(
        (meta("run.sh").mode() & 0o7777, meta("").mode() & 0o7777, meta("").mtime()),
        (0o4755, 0o755, 5)
    );
    assert_eq!(meta("f").ino(), meta("g").ino());
    assert!(meta("sparse").blocks() < 100 && meta("sparse").len() == 50 << 20);
    let unknown =
        pb::ChownOpt { user: Some(pb::UserOpt { user: Some(user_opt::User::ById(12)) }), group: None };
    let numbered =
        pb::FileActionCopy { owner: Some(unknown), mode: 0o600, ..dockerfile_copy("/d/f", "/x/y") };
    let numbered = root.one(&inputs, Action::Copy(numbered)).await.unwrap();
    let meta = numbered.mount_readonly().await.unwrap().path().join("x/y").metadata().unwrap();
    assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o7777), (12, 12, 0o600));
}

#[tokio::test]
async fn unchanged_files_are_shared_and_never_changed() {
    let root = root();
    let (base, source) = (base(&root).await, source(&root).await);
    let inputs = [Some(base), Some(source.clone())];
    let copied = root.one(&inputs, Action::Copy(dockerfile_copy("/dir", "/app"))).await.unwrap();
    let ino = |dir: &Path, path: &str| dir.join(path).symlink_metadata().unwrap().ino();
    let dirs = (source.lowerdirs().await.unwrap(), copied.lowerdirs().await.unwrap());
    assert_eq!(ino(&dirs.0[0], "dir/sub/y"), ino(&dirs.1[0], "app/sub/y"), "no bytes were copied");
    // Whatever is done to the copy, the source stays.
    let changed = root
        .step(Some(&copied), |at| {
            std::fs::write(at.join("app/x"), "CHANGED").unwrap();
            std::fs::set_permissions(at.join("app/sub/y"), PermissionsExt::from_mode(0o600)).unwrap();
        })
        .await;
    assert!(tree(&changed).await.contains(&"app/x=CHANGED".to_string()));
    let again = root
        .run(
            &inputs,
            vec![
                make(0, 1, -1, Action::Copy(dockerfile_copy("/dir", "/app"))),
                make(
                    2,
                    -1,
                    -1,
                    Action::Mkfile(pb::FileActionMkFile {
                        path: "/app/x".into(),
                        mode: 0o644,
                        data: b"NEW".to_vec(),
                        owner: None,
                        timestamp: 7_000_000_000,
                    }),
                ),
                make(3, 1, -1, Action::Copy(dockerfile_copy("/dir", "/two"))),
                make(
                    4,
                    1,
                    0,
                    Action::Copy(pb::FileActionCopy {
                        mode: 0o640,
                        ..dockerfile_copy("/dir/sub", "/app/sub")
                    }),
                ),
            ],
        )
        .await
        .unwrap();
    let all = tree(&again).await;
    assert!(all.contains(&"app/x=NEW".to_string()) && all.contains(&"two/x=X".to_string()), "{all:?}");
    let layer = again.lowerdirs().await.unwrap()[0].clone();
    assert_ne!(ino(&layer, "app/sub/y"), ino(&layer, "two/sub/y"), "two files stay two files");
    assert_eq!(tree(&source).await, tree(&inputs[1].clone().unwrap()).await);
    let meta = dirs.0[0].join("dir/sub/y").metadata().unwrap();
    assert_eq!(
        (meta.mode() & 0o777, std::fs::read_to_string(dirs.0[0].join("dir/x")).unwrap()),
        (0o644, "X".to_string())
    );
}

#[tokio::test]
async fn what_was_removed_below_stays_removed() {
    let root = root();
    let (base, source) = (base(&root).await, source(&root).await);
    let gone = root.step(Some(&base), |at| std::fs::remove_dir_all(at.join("app")).unwrap()).await;
    let back = root
        .one(&[Some(gone.clone()), Some(source.clone())], Action::Copy(dockerfile_copy("/dir", "/app")))
        .await
        .unwrap();
    let want = ["app/sub/", "app/sub/y=Y", "app/sub/z.js=Z", "app/x=X"];
    let got: Vec<String> =
        tree(&back).await.into_iter().filter(|l| l.starts_with("app/") && l != "app/").collect();
    assert_eq!(got, want);
    // The same from a source of several layers, one of which has removed something.
    let layered = root
        .step(Some(&source), |at| {
            std::fs::remove_file(at.join("dir/x")).unwrap();
            write(at, "dir/sub/y", "Y2");
            write(at, "dir/new", "N");
        })
        .await;
    let over = root
        .one(&[Some(back), Some(layered)], Action::Copy(dockerfile_copy("/dir", "/fresh")))
        .await
        .unwrap();
    let got: Vec<String> = tree(&over).await.into_iter().filter(|l| l.starts_with("fresh/")).collect();
    assert_eq!(got, ["fresh/", "fresh/new=N", "fresh/sub/", "fresh/sub/y=Y2", "fresh/sub/z.js=Z"]);
}

#[tokio::test]
async fn folders_files_and_links_are_made_and_removed() {
    let root = root();
    let base = base(&root).await;
    let mkdir = |path: &str, parents| {
        Action::Mkdir(pb::FileActionMkDir {
            path: path.into(),
            mode: 0o700,
            make_parents: parents,
            owner: None,
            timestamp: 9_000_000_000,
        })
    };
    let mkfile = |path: &str| {
        Action::Mkfile(pb::FileActionMkFile {
            path: path.into(),
            mode: 0o640,
            data: b"D".to_vec(),
            owner: None,
            timestamp: -1,
        })
    };
    let rm = |path: &str, allow, wildcard| {
        Action::Rm(pb::FileActionRm { path: path.into(), allow_not_found: allow, allow_wildcard: wildcard })
    };
    let result = root
        .run(
            &[Some(base.clone())],
            vec![
                make(0, -1, -1, mkdir("/one/two", true)),
                make(1, -1, -1, mkdir("/app", false)),
                make(2, -1, -1, mkfile("/current/made")),
                make(3, -1, -1, mkfile("/app/old")),
                make(
                    4,
                    -1,
                    -1,
                    Action::Symlink(pb::FileActionSymlink {
                        oldpath: "/x".into(),
                        newpath: "/one/l".into(),
                        owner: None,
                        timestamp: -1,
                    }),
                ),
                make(5, -1, -1, rm("/app/sub", false, false)),
                make(6, -1, -1, rm("/nothing", true, false)),
                make(7, -1, 0, rm("/etc/gr*", false, true)),
            ],
        )
        .await
        .unwrap();
    let got: Vec<String> = tree(&result).await.into_iter().filter(|l| !l.starts_with("etc/p")).collect();
    assert_eq!(
        got,
        [
            "app/",
            "app/made=D",
            "app/old=D",
            "app/x=OLDX",
            "current->/app",
            "escape->../../../../tmp",
            "etc/",
            "one/",
            "one/l->/x",
            "one/two/"
        ]
    );
    let at = result.mount_readonly().await.unwrap();
    let two = at.path().join("one/two").metadata().unwrap();
    assert_eq!((two.mode() & 0o7777, two.mtime()), (0o700, 9));
    assert_eq!(at.path().join("app/old").metadata().unwrap().mode() & 0o7777, 0o644, "it keeps its mode");
    let table = [
        (mkdir("/a/b", false), "mkdir /a/b: no such file or directory"),
        (mkdir("/app/old/b", true), "mkdir /app/old: not a directory"),
        (mkfile("/a/b"), "open /a/b: no such file or directory"),
        (mkfile("/app"), "open /app: is a directory"),
        (rm("/nothing", false, false), "stat /nothing: no such file or directory"),
        (rm("/", false, false), "rmPath: invalid empty path"),
    ];
    for (action, want) in table {
        let failure = root.one(&[Some(base.clone())], action).await.unwrap_err();
        assert_eq!(failure.to_string(), want);
        assert!(matches!(failure.made.as_slice(), [Some(_)]));
    }
}

#[tokio::test]
async fn archives_are_unpacked_when_asked() {
    let root = root();
    let source = root
        .step(None, |at| {
            let make = |args: &[&str]| {
                let status = std::process::Command::new("tar").current_dir(at).args(args).status().unwrap();
                assert!(status.success());
            };
            write(at, "in/d/f", "F");
            symlink("/etc", at.join("in/d/l")).unwrap();
            std::fs::hard_link(at.join("in/d/f"), at.join("in/d/h")).unwrap();
            chown(at.join("in/d/f"), Some(3), Some(4)).unwrap();
            for (flags, name) in [("-cf", "a.tar"), ("-czf", "a.tgz"), ("-cJf", "a.txz"), ("-cjf", "a.tbz")] {
                make(&[flags, name, "-C", "in", "."]);
            }
            write(at, "plain.txt", "not an archive");
        })
        .await;
    for name in ["a.tar", "a.tgz", "a.txz", "a.tbz"] {
        let add = pb::FileActionCopy {
            attempt_unpack_docker_compatibility: true,
            ..dockerfile_copy(&format!("/{name}"), "/to/")
        };
        let result = root.one(&[None, Some(source.clone())], Action::Copy(add)).await.unwrap();
        assert_eq!(tree(&result).await, ["to/", "to/d/", "to/d/f=F", "to/d/h=F", "to/d/l->/etc"], "{name}");
        let at = result.mount_readonly().await.unwrap();
        let meta = at.path().join("to/d/f").metadata().unwrap();
        assert_eq!((meta.uid(), meta.gid(), meta.nlink()), (3, 4, 2));
    }
    let add = pb::FileActionCopy {
        attempt_unpack_docker_compatibility: true,
        ..dockerfile_copy("/plain.txt", "/to/")
    };
    let result = root.one(&[None, Some(source)], Action::Copy(add)).await.unwrap();
    assert_eq!(tree(&result).await, ["to/", "to/plain.txt=not an archive"]);
}

#[tokio::test]
async fn several_outputs_and_odd_graphs() {
    let root = root();
    let source = source(&root).await;
    let mkfile = |path: &str| {
        Action::Mkfile(pb::FileActionMkFile {
            path: path.into(),
            mode: 0o640,
            data: b"D".to_vec(),
            owner: None,
            timestamp: -1,
        })
    };
    let actions = vec![
        make(-1, -1, 1, mkfile("/one")),
        make(1, -1, -1, mkfile("/two")),
        make(-1, 2, 0, Action::Copy(dockerfile_copy("/two", "/copied"))),
    ];
    let results = run(&root.snapshots, &pb::FileOp { actions }, &[Some(source.clone())], "t").await.unwrap();
    assert_eq!(tree(results[0].as_ref().unwrap()).await, ["copied=D"]);
    assert_eq!(tree(results[1].as_ref().unwrap()).await, ["one=D"]);
    let bad = [
        (vec![make(5, -1, 0, mkfile("/x"))], "invalid input index 5, 2 provided"),
        (vec![make(1, -1, 0, mkfile("/x"))], "action 0: input 1 is not made before it"),
        (vec![make(0, -1, -1, mkfile("/x"))], "no outputs specified"),
        (vec![make(0, -1, 1, mkfile("/x"))], "missing output index 0"),
        (vec![make(0, -1, 0, mkfile("/x")), make(0, -1, 0, mkfile("/y"))], "duplicate output 0"),
    ];
    for (actions, want) in bad {
        let failure =
            run(&root.snapshots, &pb::FileOp { actions }, &[Some(source.clone())], "t").await.unwrap_err();
        assert_eq!(failure.to_string(), want);
    }
}

#[tokio::test]
async fn ten_thousand_files() {
    let root = root();
    let source = root
        .step(None, |at| {
            for folder in 0..100 {
                let path = at.join(format!("d{folder}"));
                std::fs::create_dir(&path).unwrap();
                for n in 0..100 {
                    std::fs::write(path.join(format!("f{n}")), format!("{folder} {n}").repeat(100)).unwrap();
                }
            }
        })
        .await;
    let base = base(&root).await;
    let inputs = [Some(base), Some(source.clone())];
    for (what, copy) in [
        ("shared", dockerfile_copy("/", "/to")),
        ("over an existing folder", dockerfile_copy("/", "/app")),
        ("with another mode", pb::FileActionCopy { mode: 0o600, ..dockerfile_copy("/", "/to") }),
    ] {
        let started = std::time::Instant::now();
        let copied = root.one(&inputs, Action::Copy(copy)).await.unwrap();
        println!("10 000 files {what}: {:?}", started.elapsed());
        assert!(tree(&copied).await.len() > 10_100);
    }
    let started = std::time::Instant::now();
    let dir = source.lowerdirs().await.unwrap()[0].clone();
    let to = dir.parent().unwrap().join("cp");
    assert!(std::process::Command::new("cp").arg("-a").arg(&dir).arg(&to).status().unwrap().success());
    println!("cp -a: {:?}", started.elapsed());
}
