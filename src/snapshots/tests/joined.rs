//! Layers put over something else than they were made on: only what they change is seen.
#![allow(clippy::unwrap_used)]

mod support;

use crosskit_snapshots::{About, Ref, Snapshots};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use support::{BOTH, Root, step, tree, write};

fn diff(snapshots: &Snapshots, lower: &Ref, upper: &Ref) -> Ref {
    snapshots.diff(Some(lower), Some(upper), About::new("diff")).unwrap()
}

fn merge(snapshots: &Snapshots, parents: &[&Ref]) -> Ref {
    let parents: Vec<Ref> = parents.iter().map(|one| (*one).clone()).collect();
    snapshots.merge(&parents, About::new("merge")).unwrap().unwrap()
}

/// Makes a file and takes it away, as it is with the place of a mount.
fn walk_through(at: &Path, folder: &str) {
    write(at, &format!("{folder}/stub"), "");
    std::fs::remove_file(at.join(folder).join("stub")).unwrap();
}

#[tokio::test]
async fn a_folder_that_was_only_walked_through_is_no_change() {
    for choice in BOTH {
        let root = Root::new(choice);
        let snapshots = root.open();
        let base = step(&snapshots, None, |at| write(at, "etc/passwd", "root")).await;
        let upper = step(&snapshots, Some(&base), |at| {
            walk_through(at, "etc");
            write(at, "new", "1");
        })
        .await;
        assert_eq!(tree(&diff(&snapshots, &base, &upper)).await, ["new=1"], "{choice:?}");
    }
}

#[tokio::test]
async fn a_folder_made_anew_hides_only_what_it_replaced() {
    for choice in BOTH {
        let root = Root::new(choice);
        let snapshots = root.open();
        let base = step(&snapshots, None, |at| {
            write(at, "dir/old", "1");
            write(at, "dir/sub/old", "2");
        })
        .await;
        let upper = step(&snapshots, Some(&base), |at| {
            std::fs::remove_dir_all(at.join("dir")).unwrap();
            write(at, "dir/new", "3");
            write(at, "dir/sub/new", "4");
            write(at, "fresh/a", "5");
        })
        .await;
        let other = step(&snapshots, None, |at| {
            write(at, "dir/old", "6");
            write(at, "dir/other", "7");
            write(at, "dir/sub/other", "8");
            write(at, "fresh/b", "9");
        })
        .await;
        let want = [
            "dir/",
            "dir/new=3",
            "dir/other=7",
            "dir/sub/",
            "dir/sub/new=4",
            "dir/sub/other=8",
            "fresh/",
            "fresh/a=5",
            "fresh/b=9",
        ];
        let changes = diff(&snapshots, &base, &upper);
        assert_eq!(tree(&merge(&snapshots, &[&other, &changes])).await, want, "{choice:?}");
        // The same where all of it is put over the other.
        assert_eq!(tree(&merge(&snapshots, &[&other, &upper])).await, want, "{choice:?}");
    }
}

#[tokio::test]
async fn differences_of_differences_are_what_one_has_more() {
    for choice in BOTH {
        let root = Root::new(choice);
        let snapshots = root.open();
        let a = step(&snapshots, None, |at| write(at, "a", "1")).await;
        let ab = step(&snapshots, Some(&a), |at| write(at, "b", "2")).await;
        let abc = step(&snapshots, Some(&ab), |at| write(at, "c", "3")).await;
        let (one, two) = (diff(&snapshots, &a, &ab), diff(&snapshots, &a, &abc));
        assert_eq!(tree(&two).await, ["b=2", "c=3"], "{choice:?}");
        assert_eq!(tree(&diff(&snapshots, &one, &two)).await, ["c=3"], "{choice:?}");
    }
}

#[tokio::test]
async fn files_keep_their_times_and_their_names() {
    let root = Root::new(BOTH[0]);
    let snapshots = root.open();
    let base = step(&snapshots, None, |at| write(at, "dir/a", "1")).await;
    let upper = step(&snapshots, Some(&base), |at| {
        walk_through(at, "dir");
        write(at, "two/b", "2");
        std::fs::hard_link(at.join("two/b"), at.join("two/c")).unwrap();
    })
    .await;
    let time = |mounted: &crosskit_snapshots::Mounted, name: &str| {
        let meta = mounted.path().join(name).symlink_metadata().unwrap();
        (meta.mtime(), meta.mtime_nsec(), meta.ino())
    };
    let before = upper.mount_readonly().await.unwrap();
    let changes = diff(&snapshots, &base, &upper).mount_readonly().await.unwrap();
    let (b, c) = (time(&changes, "two/b"), time(&changes, "two/c"));
    assert_eq!(b, c);
    assert_eq!((b.0, b.1), (time(&before, "two/b").0, time(&before, "two/b").1));
    let folder = |mounted| (time(mounted, "two").0, time(mounted, "two").1);
    assert_eq!(folder(&changes), folder(&before));
}
