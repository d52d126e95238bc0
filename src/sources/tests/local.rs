//! Folders of a client become snapshots, and only what changes is transferred.
#![allow(clippy::unwrap_used)]

mod support;

use crosskit_session::{LocalDirs, SessionServer};
use crosskit_snapshots::checksum::{ContentQuery, content_digest};
use support::{Build, Daemon, folder, op, shell};

async fn client(daemon: &Daemon, key: &str, dir: &std::path::Path) -> String {
    let mut dirs = LocalDirs::default();
    dirs.add("context", dir);
    daemon.connect(SessionServer::new(key).with_dirs(dirs)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_transfers_one_file() {
    let daemon = Daemon::new();
    let (_dir, dir) = folder();
    shell(
        &dir,
        "umask 022; mkdir -p a/b; for i in $(seq 300); do echo $i >a/b/$i; done; ln -s b a/l; echo x >skip.log",
    );
    let attrs = [("local.sharedkeyhint", "hint"), ("local.excludepatterns", "[\"*.log\"]")];
    let mut digests = Vec::new();
    let mut volumes = Vec::new();
    for change in ["true", "true", "echo edited >a/b/7", "rm -r a/b/1* a/l; mkdir a/l"] {
        shell(&dir, change);
        let session = client(&daemon, "shared", &dir).await;
        let build = Build::of(&session);
        let brought = daemon.bring(&build, op("local://context", &attrs)).await.unwrap();
        assert!(brought.keys[0].starts_with("session:context:sha256:"));
        assert_eq!(brought.keys.len(), 1);
        let mut expected = support::files(&dir);
        expected.retain(|line| !line.starts_with("skip.log"));
        assert_eq!(brought.files().await, expected);
        assert!(build.lines()["transferring context:"]);
        volumes.push(build.told.lock().unwrap().last().unwrap().2);

        // What was computed on the way is what the files say.
        let reference = brought.reference.unwrap();
        let told = content_digest(Some(&reference), "/", &ContentQuery::default()).await.unwrap();
        let copy = daemon.snapshots.new_mutable(None, crosskit_snapshots::About::new("copy")).unwrap();
        let mounted = copy.mount().await.unwrap();
        let from = reference.mount_readonly().await.unwrap();
        shell(from.path(), &format!("cp -a . {}", mounted.path().display()));
        drop((mounted, from));
        let copy = copy.commit().await.unwrap();
        let read = content_digest(Some(&copy), "/a", &ContentQuery::default()).await.unwrap();
        let sub = content_digest(Some(&reference), "/a", &ContentQuery::default()).await.unwrap();
        assert_eq!(sub, read, "after {change}");
        digests.push(told);
    }
    assert_eq!(digests[0], digests[1]);
    assert_ne!(digests[1], digests[2]);
    assert!(volumes[2] - volumes[1] < 100, "{volumes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn builds_at_the_same_time_do_not_meet() {
    let daemon = Daemon::new();
    let (_one, one) = folder();
    let (_two, two) = folder();
    shell(&one, "echo 1 >f");
    shell(&two, "echo 2 >f; echo >g");
    let (a, b) = (client(&daemon, "same", &one).await, client(&daemon, "same", &two).await);
    let (build_a, build_b) = (Build::of(&a), Build::of(&b));
    let first = daemon.bring(&build_a, op("local://context", &[("local.session", &a)]));
    let second = daemon.bring(&build_b, op("local://context", &[("local.session", &b)]));
    let (first, second) = tokio::join!(first, second);
    let (first, second) = (first.unwrap(), second.unwrap());
    assert_eq!(first.files().await, support::files(&one));
    assert_eq!(second.files().await, support::files(&two));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_does_not_lend_is_an_error() {
    let daemon = Daemon::new();
    let (_dir, dir) = folder();
    let session = client(&daemon, "", &dir).await;
    let build = Build::of(&session);
    let err = daemon.bring(&build, op("local://other", &[])).await.err().unwrap();
    assert!(err.contains("no access allowed to dir \"other\""), "{err}");
    let err = daemon.bring(&Build::alone(), op("local://context", &[])).await.err().unwrap();
    assert_eq!(err, "could not access local files without session");
    let err =
        daemon.bring(&build, op("local://context", &[("local.includepattern", "x")])).await.err().unwrap();
    assert!(err.contains("local.includepattern"), "{err}");
    for identifier in ["nonsense", "ftp://x"] {
        assert!(daemon.bring(&build, op(identifier, &[])).await.is_err());
    }
}
