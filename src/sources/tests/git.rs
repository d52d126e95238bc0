//! Checkouts of repositories that a git daemon serves.
#![allow(clippy::unwrap_used)]

mod support;

use std::process::Command;
use support::git_daemon::Server;
use support::{Build, Daemon, folder, shell};

const GIT: &str = "export GIT_CONFIG_GLOBAL=/dev/null GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b GIT_AUTHOR_DATE='2020-01-01T00:00:00Z' GIT_COMMITTER_DATE='2020-01-01T00:00:00Z'";

/// Two commits, a branch, an annotated tag, a link and a folder.
fn serve() -> Server {
    let (guard, dir) = folder();
    shell(
        &dir,
        &format!(
            "{GIT}; umask 022; git init -q -b main repo; cd repo; mkdir -p sub/dir; echo one >file; echo in >sub/dir/in; ln -s /etc sub/link; printf '#!/bin/sh\\n' >run; chmod +x run; git add .; git commit -qm one; git tag -a v1 -m tagged; git branch old; echo two >file; git commit -qam two; git config uploadpack.allowAnySHA1InWant true"
        ),
    );
    Server::start((guard, dir))
}

const FILES: [&str; 4] =
    ["file f 644 0:0  two", "run f 755 0:0  #!/bin/sh", "sub d 755 0:0", "sub/link l 777 0:0 /etc"];

#[tokio::test(flavor = "multi_thread")]
async fn branches_tags_and_commits_are_checked_out() {
    let (daemon, server) = (Daemon::new(), serve());
    let build = Build::alone();
    let (head, old, tag) = (server.rev("main"), server.rev("old"), server.rev("v1"));
    for (name, key, pin, content) in [
        (String::new(), head.clone(), &head, "two"),
        ("#main".into(), head.clone(), &head, "two"),
        ("#old".into(), old.clone(), &old, "one"),
        ("#refs/heads/old".into(), old.clone(), &old, "one"),
        ("#v1".into(), old.clone(), &tag, "one"),
        (format!("#{old}"), old.clone(), &old, "one"),
    ] {
        let brought = daemon.bring(&build, server.op(&name, &[])).await.unwrap();
        assert_eq!(brought.keys, [key], "{name}");
        assert_eq!(&brought.pin, pin, "{name}");
        let mut expected: Vec<String> = FILES.iter().map(|f| f.replace("two", content)).collect();
        expected.extend(["sub/dir d 755 0:0".into(), "sub/dir/in f 644 0:0  in".into()]);
        expected.sort();
        assert_eq!(brought.files().await, expected, "{name}");
    }
    assert!(build.logged.lock().unwrap().contains("refs/heads/main"));

    // The remote moves on, and so does what a branch is.
    shell(
        &server.dir.join("repo"),
        &format!("{GIT}; echo three >file; git commit -qam three; git tag -fa v1 -m again"),
    );
    let same = daemon.bring(&build, server.op("#v1", &[])).await.unwrap();
    assert_eq!(same.pin, tag, "one build sees one commit");
    let build = Build::alone();
    let brought = daemon.bring(&build, server.op("", &[])).await.unwrap();
    assert_eq!(brought.keys, [server.rev("main")]);
    assert!(brought.files().await.contains(&"file f 644 0:0  three".to_string()));
    let brought = daemon.bring(&build, server.op("#v1", &[])).await.unwrap();
    assert_eq!(brought.pin, server.rev("v1"));
    assert!(brought.files().await.contains(&"file f 644 0:0  three".to_string()));
}

#[tokio::test(flavor = "multi_thread")]
async fn options_change_the_checkout_and_its_key() {
    let (daemon, server) = (Daemon::new(), serve());
    let build = Build::alone();
    let (head, old) = (server.rev("main"), server.rev("old"));
    let name = server.url();

    let brought = daemon.bring(&build, server.op("#main:sub/dir", &[])).await.unwrap();
    assert_eq!(brought.keys, [format!("{head}:sub/dir")]);
    assert_eq!(brought.files().await, ["in f 644 0:0  in"]);

    for (reference, key) in
        [("main", format!("{head}.git#refs/heads/main")), (old.as_str(), format!("{old}.git#{old}"))]
    {
        let brought = daemon
            .bring(&build, server.op(&format!("#{reference}"), &[("git.keepgitdir", "true")]))
            .await
            .unwrap();
        assert_eq!(brought.keys, [key]);
        let mounted = brought.reference.unwrap().mount_readonly().await.unwrap();
        let git = |args: &[&str]| {
            let out = Command::new("git")
                .args(["-c", "safe.directory=*"])
                .args(args)
                .current_dir(mounted.path())
                .output()
                .unwrap();
            String::from_utf8(out.stdout).unwrap().trim().to_string()
        };
        assert_eq!(git(&["rev-parse", "HEAD"]), if reference == "main" { &head } else { &old }.as_str());
        assert_eq!(git(&["status", "--porcelain"]), "");
        assert_eq!(git(&["remote", "get-url", "origin"]), name);
    }

    let brought = daemon
        .bring(&build, server.op("", &[("git.mtime", "commit"), ("git.skipsubmodules", "true")]))
        .await
        .unwrap();
    assert_eq!(brought.keys, [format!("{head}(skip-submodules)(mtime=commit)")]);
    let mounted = brought.reference.unwrap().mount_readonly().await.unwrap();
    for path in ["file", "sub", "sub/link"] {
        let time = std::os::unix::fs::MetadataExt::mtime(
            &std::fs::symlink_metadata(mounted.path().join(path)).unwrap(),
        );
        assert_eq!(time, 1_577_836_800, "{path}");
    }
    drop(mounted);

    let attrs = [("git.checksum", head.as_str()), ("git.fetchbycommit", "true")];
    let brought = daemon.bring(&build, server.op("", &attrs)).await.unwrap();
    assert_eq!((brought.keys, brought.pin), (vec![head.clone()], head.clone()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_refused() {
    let (daemon, server) = (Daemon::new(), serve());
    let build = Build::alone();
    let head = server.rev("main");
    let none = format!("git://127.0.0.1:{}/none", server.port);
    for (identifier, attrs, text) in [
        ("#nothing", &[][..], "repository does not contain ref nothing"),
        ("#--upload-pack=touch /tmp/x", &[], "invalid git ref"),
        ("#-h", &[], "invalid git ref"),
        ("", &[("git.checksum", "--output=/tmp/x")], "expected hex commit hash"),
        ("", &[("git.fullurl", "-x")], "https://-x"),
        ("", &[("git.fullurl", "ext::sh -c id")], "https://ext::sh"),
        ("#main:../../../../etc", &[], "failed to lstat \"etc\""),
        ("#main:sub/link/../../etc", &[], "failed to lstat \"etc\""),
        ("#main:sub/link/init.d", &[], "contains non-directory \"sub/link\""),
        ("#main:sub/link", &[], "contains non-directory \"sub/link\""),
        ("#main:gone", &[], "failed to lstat \"gone\""),
        ("", &[("git.checksum", "xyz")], "expected hex commit hash"),
        ("", &[("git.checksum", "0123")], "expected checksum to match 0123, got "),
        ("", &[("git.fetchbycommit", "true")], "fetch-by-commit requires a checksum"),
        ("", &[("git.sig.other", "x")], "git.sig.other of git source"),
        ("", &[("git.fullurl", none.as_str())], "error fetching default branch"),
    ] {
        let err = daemon.bring(&build, server.op(identifier, attrs)).await.err().unwrap_or_default();
        assert!(err.contains(text), "{identifier} {attrs:?}: {err}");
    }
    let short = &head[..8];
    assert!(daemon.bring(&build, server.op("", &[("git.checksum", short)])).await.is_ok());
}

/// Names that git takes for its own, as trees that no git of good will writes.
#[tokio::test(flavor = "multi_thread")]
async fn a_tree_cannot_bring_a_repository_of_its_own() {
    let (daemon, server) = (Daemon::new(), serve());
    let (_guard, outside) = folder();
    std::fs::write(outside.join("kept"), "").unwrap();
    for (branch, name) in [("link", ".git"), ("case", ".GIT"), ("up", "..")] {
        shell(
            &server.dir,
            &format!(
                "{GIT}; cd repo; blob=$(printf %s '{}' | git hash-object -w --stdin); tree=$(printf '120000 blob %s\\t{name}\\n' $blob | git mktree); tree=$(printf '040000 tree %s\\tsub\\n120000 blob %s\\t{name}\\n' $tree $blob | git mktree); git update-ref refs/heads/{branch} $(git commit-tree -m x $tree)",
                outside.display()
            ),
        );
        for (subdir, attrs) in [("", &[][..]), (":sub", &[]), ("", &[("git.keepgitdir", "true")])] {
            let brought =
                daemon.bring(&Build::alone(), server.op(&format!("#{branch}{subdir}"), attrs)).await;
            let err = brought.err().unwrap_or_default();
            assert!(
                err.contains("failed to checkout") || err.contains("error: "),
                "{name} {subdir}: {err:?}"
            );
        }
    }
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkout_travels_as_a_bundle() {
    let (daemon, server) = (Daemon::new(), serve());
    let head = server.rev("main");
    let build = Build::alone();
    for (fragment, pinned) in [(String::new(), true), (format!("#{head}"), true), ("#main".into(), false)] {
        let made =
            daemon.bring(&build, server.op(&fragment, &[("git.checkoutbundle", "true")])).await.unwrap();
        assert_eq!(made.keys, [format!("{head}(bundle)")]);
        let mounted = made.reference.unwrap().mount_readonly().await.unwrap();
        let bytes = std::fs::read(mounted.path().join("bundle")).unwrap();
        let digest: String = sha2::Digest::finalize(<sha2::Sha256 as sha2::Digest>::new_with_prefix(&bytes))
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();

        // Another daemon, which cannot reach the repository.
        let (_dir, dir) = folder();
        std::fs::create_dir_all(dir.join("blobs/sha256")).unwrap();
        std::fs::write(dir.join("blobs/sha256").join(&digest), &bytes).unwrap();
        let mut stores = crosskit_session::ContentStores::default();
        stores.add("oci:example.com/bundles", &dir, false);
        let other = Daemon::new();
        let session = other.connect(crosskit_session::SessionServer::new("").with_content(stores)).await;
        let locator = format!("oci-layout+blob://example.com/bundles@sha256:{digest}");
        let attrs = [
            ("git.bundle", locator.as_str()),
            ("git.checksum", &head),
            ("git.fullurl", "https://127.0.0.1:1/repo"),
        ];
        let reference = if pinned { "" } else { "#main" };
        let brought = other.bring(&Build::of(&session), server.op(reference, &attrs)).await.unwrap();
        assert_eq!((brought.keys.as_slice(), &brought.pin), (&[head.clone()][..], &head));
        assert!(brought.files().await.contains(&"file f 644 0:0  two".to_string()));
        let wrong =
            [("git.bundle", locator.as_str()), ("git.checksum", "0123456789012345678901234567890123456789")];
        let err = other.bring(&Build::of(&session), server.op("", &wrong)).await.err().unwrap_or_default();
        assert!(!err.is_empty() && (err.contains("not found in bundle") || !pinned), "{err}");
    }
    for (attrs, text) in [
        (&[("git.bundle", "https://x")][..], "is not supported; expected"),
        (&[("git.bundle", "oci-layout+blob://x")], "must have digest"),
        (&[("git.checkoutbundle", "true"), ("git.keepgitdir", "true")], "incompatible with git.keepgitdir"),
    ] {
        let err = daemon.bring(&build, server.op("", attrs)).await.err().unwrap();
        assert!(err.contains(text), "{err}");
    }
}
