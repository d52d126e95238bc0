//! Snapshots from their making to their end, on real mounts.
#![allow(clippy::unwrap_used)]

mod support;

use crosskit_snapshots::{About, DriverChoice, PruneOptions, RecordType, Sharing};
use std::sync::Arc;
use support::{BOTH, Root, mounts_below, open_at, step, tree, write};

#[tokio::test]
async fn layers_stack_and_survive_a_new_start() {
    for choice in BOTH {
        let root = Root::new(choice);
        let snapshots = root.open();
        let base = step(&snapshots, None, |at| {
            write(at, "a", "1");
            write(at, "dir/b", "2");
            write(at, "gone/c", "3");
        })
        .await;
        let second = step(&snapshots, Some(&base), |at| {
            write(at, "a", "changed");
            std::fs::remove_dir_all(at.join("gone")).unwrap();
            std::fs::remove_file(at.join("dir/b")).unwrap();
        })
        .await;
        let third = step(&snapshots, Some(&second), |at| write(at, "gone/d", "4")).await;
        let want = ["a=changed", "dir/", "gone/", "gone/d=4"];
        assert_eq!(tree(&third).await, want, "{choice:?}");
        assert_eq!(tree(&base).await, ["a=1", "dir/", "dir/b=2", "gone/", "gone/c=3"]);
        let id = third.id().to_string();
        drop((base, second, third, snapshots));
        assert_eq!(root.mounts(), Vec::<String>::new());
        let snapshots = root.open();
        let third = snapshots.get(&id).unwrap().unwrap();
        assert_eq!(tree(&third).await, want, "{choice:?}");
        assert_eq!(snapshots.get("nothing").unwrap(), None);
    }
}

#[tokio::test]
async fn what_is_not_committed_leaves_nothing() {
    let root = Root::new(DriverChoice::Overlay);
    let snapshots = root.open();
    let base = step(&snapshots, None, |at| write(at, "a", "1")).await;
    let mutable = snapshots.new_mutable(Some(&base), About::new("x")).unwrap();
    let mounted = mutable.mount().await.unwrap();
    write(mounted.path(), "b", "2");
    let error = mutable.commit().await.unwrap_err();
    assert!(error.to_string().contains("still mounted"), "{error}");
    drop(mounted);
    snapshots.settle();
    assert_eq!(root.names("snapshots"), [base.id()]);
    assert_eq!(root.names("work"), Vec::<String>::new());
    assert_eq!(root.mounts(), Vec::<String>::new());
    assert_eq!(tree(&base).await, ["a=1"]);
}

#[tokio::test]
async fn the_root_folder_keeps_its_owner_and_mode() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
    for choice in BOTH {
        let root = Root::new(choice);
        let snapshots = root.open();
        let base = step(&snapshots, None, |at| {
            chown(at, Some(7), Some(8)).unwrap();
            std::fs::set_permissions(at, PermissionsExt::from_mode(0o1777)).unwrap();
        })
        .await;
        let next = step(&snapshots, Some(&base), |_| {}).await;
        let meta = next.mount_readonly().await.unwrap().path().metadata().unwrap();
        assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o7777), (7, 8, 0o1777), "{choice:?}");
    }
}

#[tokio::test]
async fn hundreds_of_layers_can_be_mounted() {
    let root = Root::new(DriverChoice::Overlay);
    let snapshots = root.open();
    let mut top = step(&snapshots, None, |at| write(at, "f0", "0")).await;
    for n in 1..300 {
        top = step(&snapshots, Some(&top), |at| write(at, &format!("f{n}"), "x")).await;
    }
    let mounted = top.mount_readonly().await.unwrap();
    assert_eq!(std::fs::read_dir(mounted.path()).unwrap().count(), 300);
}

#[tokio::test]
async fn kept_snapshots_are_found_by_their_key() {
    let root = Root::new(DriverChoice::Overlay);
    let snapshots = root.open();
    let about = || About::new("local").of_type(RecordType::LocalSource);
    let mutable = snapshots.mutable_by_key("k", about()).unwrap();
    let id = mutable.id().to_string();
    write(mutable.mount().await.unwrap().path(), "a", "1");
    drop(mutable);
    let mutable = snapshots.mutable_by_key("k", about()).unwrap();
    assert_eq!(mutable.id(), id);
    let view = mutable.commit().await.unwrap();
    assert_eq!(tree(&view).await, ["a=1"]);
    // In use, so the next one is another.
    let other = snapshots.mutable_by_key("k", about()).unwrap();
    assert_ne!(other.id(), id);
    let view_id = view.id().to_string();
    drop((other, view, snapshots));
    let snapshots = root.open();
    assert_eq!(tree(&snapshots.get(&view_id).unwrap().unwrap()).await, ["a=1"]);
    let one = snapshots.mutable_by_key("k", about()).unwrap();
    let two = snapshots.mutable_by_key("k", about()).unwrap();
    assert!(one.id() == id || two.id() == id, "both are found again");
    assert_eq!(snapshots.get(&view_id).unwrap(), None, "it may be written to now");
}

#[tokio::test]
async fn kept_snapshots_stay_as_they_are_once_something_is_built_on_them() {
    let root = Root::new(DriverChoice::Overlay);
    let snapshots = root.open();
    let mutable = snapshots.mutable_by_key("k", About::new("local")).unwrap();
    write(mutable.mount().await.unwrap().path(), "a", "1");
    let kept = mutable.id().to_string();
    let view = mutable.commit().await.unwrap();
    let above = step(&snapshots, Some(&view), |at| write(at, "b", "2")).await;
    let id = above.id().to_string();
    drop((view, above));
    let next = snapshots.mutable_by_key("k", About::new("local")).unwrap();
    assert_ne!(next.id(), kept);
    let above = snapshots.get(&id).unwrap().expect("nobody took away what it lies on");
    assert_eq!(tree(&above).await, ["a=1", "b=2"]);
}

#[tokio::test]
async fn cache_mounts_are_shared_private_or_locked() {
    let root = Root::new(DriverChoice::Overlay);
    let snapshots = root.open();
    let base = step(&snapshots, None, |at| write(at, "seed", "s")).await;
    let mount = |sharing| snapshots.cache_mount("c", Some(&base), sharing, "cache");
    let one = mount(Sharing::Shared).await.unwrap();
    let two = mount(Sharing::Shared).await.unwrap();
    write(one.mounted().path(), "x", "1");
    assert_eq!(one.mounted().path(), two.mounted().path());
    assert!(two.mounted().path().join("seed").exists());
    let private = mount(Sharing::Private).await.unwrap();
    assert!(!private.mounted().path().join("x").exists());
    drop((one, two, private));
    // Now two are free; a third must wait for one of them.
    let first = mount(Sharing::Locked).await.unwrap();
    let second = mount(Sharing::Locked).await.unwrap();
    let mut third = Box::pin(mount(Sharing::Locked));
    assert!(futures::FutureExt::now_or_never(&mut third).is_none());
    drop(first);
    third.await.unwrap();
    drop(second);
    let usage = snapshots.disk_usage(Default::default(), None).await.unwrap();
    let caches = usage.iter().filter(|u| u.record_type == RecordType::CacheMount);
    assert_eq!(caches.map(|u| (u.mutable, u.in_use)).collect::<Vec<_>>(), [(true, false); 2]);
}

#[tokio::test]
async fn mounts_of_a_killed_daemon_are_taken_down() {
    let root = Root::new(DriverChoice::Overlay);
    let snapshots = root.open();
    let base = step(&snapshots, None, |at| write(at, "a", "1")).await;
    let mutable = snapshots.new_mutable(Some(&base), About::new("x")).unwrap();
    std::mem::forget(mutable.mount().await.unwrap());
    assert_eq!(root.mounts().len(), 1);
    let again = tempfile::tempdir().unwrap();
    let _others = open_at(again.path(), DriverChoice::Overlay);
    assert_eq!(root.mounts().len(), 1, "another root's mounts are left alone");
    let db = crosskit_metadata::Database::open(root.dir.path().join("other.db")).unwrap();
    let content = crosskit_images::ContentStore::open(root.dir.path().join("other")).unwrap();
    let _next = crosskit_snapshots::Snapshots::open(root.dir.path(), db, content).unwrap();
    assert_eq!(mounts_below(root.dir.path()), Vec::<String>::new());
}

/// A child process makes snapshots and is killed in the middle, again and again.
#[tokio::test]
async fn after_a_kill_everything_recorded_is_whole() {
    const DIR: &str = "SNAPSHOTS_TEST_DIR";
    if let Some(dir) = std::env::var_os(DIR) {
        let dir = std::path::PathBuf::from(dir);
        let snapshots = Arc::new(open_at(&dir, DriverChoice::Overlay));
        let mut log = std::fs::File::options().append(true).create(true).open(dir.join("log")).unwrap();
        let mut top = None;
        for n in 0.. {
            let next = step(&snapshots, top.as_ref(), |at| {
                write(at, "one", &n.to_string());
                write(at, &format!("dir{n}/two"), &n.to_string());
            })
            .await;
            std::io::Write::write_all(&mut log, format!("{} {n}\n", next.id()).as_bytes()).unwrap();
            top = Some(next);
            if n == 40 {
                std::fs::write(dir.join("ready"), "").unwrap();
            }
            if n % 50 == 49 {
                top = None;
                let (sender, mut receiver) = tokio::sync::mpsc::channel(1000);
                snapshots.prune(Default::default(), sender).await.unwrap();
                while receiver.recv().await.is_some() {}
            }
        }
    }
    let root = Root::new(DriverChoice::Overlay);
    for _ in 0..4 {
        let ready = root.dir.path().join("ready");
        drop(std::fs::remove_file(&ready));
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "after_a_kill_everything_recorded_is_whole"])
            .env(DIR, root.dir.path())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        while !ready.exists() {
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let snapshots = root.open();
        assert_eq!(root.mounts(), Vec::<String>::new());
        for line in std::fs::read_to_string(root.dir.path().join("log")).unwrap().lines() {
            let (id, n) = line.split_once(' ').unwrap();
            let Some(found) = snapshots.get(id).unwrap() else { continue };
            let mounted = found.mount_readonly().await.unwrap();
            assert_eq!(std::fs::read_to_string(mounted.path().join("one")).unwrap(), n);
            assert_eq!(std::fs::read_to_string(mounted.path().join(format!("dir{n}/two"))).unwrap(), n);
        }
        // Folders without a record go, in the background.
        let known =
            |snapshots: &crosskit_snapshots::Snapshots, name: &str| snapshots.get(name).unwrap().is_some();
        while root.names("snapshots").iter().any(|name| !known(&snapshots, name)) {
            std::thread::yield_now();
        }
    }
}

#[tokio::test]
async fn a_cycle_takes_microseconds() {
    let root = Root::new(DriverChoice::Overlay);
    let snapshots = root.open();
    let mut top = step(&snapshots, None, |at| write(at, "f", "0")).await;
    let mut times = Vec::new();
    for n in 0..90 {
        let started = std::time::Instant::now();
        let mutable = snapshots.new_mutable(Some(&top), About::new("step")).unwrap();
        let mounted = mutable.mount().await.unwrap();
        std::fs::write(mounted.path().join(format!("f{n}")), "x").unwrap();
        drop(mounted);
        top = mutable.commit().await.unwrap();
        times.push(started.elapsed());
    }
    times.sort();
    let each = times[45];
    println!("a snapshot made, mounted, written to, unmounted, committed: {each:?}, at best {:?}", times[0]);
    // Far above what a busy machine needs; far below anything that syncs or walks.
    assert!(each < std::time::Duration::from_millis(100));
}

#[tokio::test]
async fn a_start_does_not_wait_for_thousands_of_records() {
    let root = Root::new(DriverChoice::Overlay);
    let snapshots = root.open();
    let base = step(&snapshots, None, |at| write(at, "f", "0")).await;
    for _ in 0..5_000 {
        let made = snapshots.merge(&[base.clone(), base.clone()], About::new("step")).unwrap();
        drop(made);
    }
    drop((base, snapshots));
    // The best of some: whatever else the machine does only adds to it.
    let start = || {
        let started = std::time::Instant::now();
        drop(root.open());
        started.elapsed()
    };
    let took = (0..4).map(|_| start()).min().unwrap();
    println!("a start with 5 000 records: {took:?}");
    // Ten times what a quiet machine needs, unoptimized.
    assert!(took < std::time::Duration::from_millis(500));
}

#[tokio::test]
async fn what_is_discarded_goes_with_its_last_user() {
    let root = Root::new(DriverChoice::Overlay);
    let snapshots = root.open();
    let base = step(&snapshots, None, |at| write(at, "a", "1")).await;
    let failed = step(&snapshots, Some(&base), |at| write(at, "b", "2")).await;
    let needed = step(&snapshots, Some(&base), |at| write(at, "c", "3")).await;
    let built_on = step(&snapshots, Some(&needed), |at| write(at, "d", "4")).await;
    let ids = [failed.id().to_string(), needed.id().to_string(), "nobody-knows-it".to_string()];
    drop(built_on);
    let discarding = tokio::spawn({
        let snapshots = snapshots.clone();
        let ids = ids.clone();
        async move { snapshots.discard(&ids).await }
    });
    tokio::task::yield_now().await;
    drop(needed);
    // It is used for as long as somebody has it.
    assert_eq!(tree(&failed).await, ["a=1", "b=2"]);
    assert!(!discarding.is_finished());
    drop(failed);
    discarding.await.unwrap().unwrap();
    assert!(!snapshots.contains(&ids[0]));
    assert!(snapshots.contains(&ids[1]), "something that stays builds on it");
    snapshots.settle();
    assert_eq!(root.names("snapshots").len(), 3);
}

#[tokio::test]
async fn what_is_kept_beside_a_snapshot_stays_and_goes_with_it() {
    for choice in BOTH {
        let root = Root::new(choice);
        let id = {
            let snapshots = root.open();
            let made = step(&snapshots, None, |at| write(at, "a", "1")).await;
            assert_eq!(made.beside("found"), None);
            made.keep_beside("found", b"one").unwrap();
            made.keep_beside("found", b"two").unwrap();
            assert_eq!(tree(&made).await, ["a=1"], "not among its files");
            made.id().to_owned()
        };
        let snapshots = root.open();
        let made = snapshots.get(&id).unwrap().unwrap();
        assert_eq!(made.beside("found").unwrap(), b"two");
        // What only consists of others has nothing beside it.
        let other = step(&snapshots, None, |at| write(at, "b", "2")).await;
        let merged = snapshots.merge(&[made.clone(), other], About::new("merge")).unwrap().unwrap();
        merged.keep_beside("found", b"three").unwrap();
        assert_eq!(merged.beside("found"), None);
        drop((made, merged));
        let (sender, _told) = tokio::sync::mpsc::channel(8);
        snapshots.prune(PruneOptions { all: true, ..PruneOptions::default() }, sender).await.unwrap();
        snapshots.settle();
        assert!(snapshots.get(&id).unwrap().is_none());
        assert!(!root.names("snapshots").contains(&id), "{:?}", root.names("snapshots"));
    }
}
