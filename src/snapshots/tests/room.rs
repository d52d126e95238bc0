//! What takes room, and giving it back.
#![allow(clippy::unwrap_used)]

mod support;

use crosskit_snapshots::filters::Filters;
use crosskit_snapshots::{About, DriverChoice, PruneOptions, RecordType, Sharing, Snapshots};
use std::time::Duration;
use support::{Root, step, write};

async fn prune(snapshots: &Snapshots, options: PruneOptions) -> Vec<String> {
    let (sender, mut receiver) = tokio::sync::mpsc::channel::<crosskit_snapshots::Usage>(100);
    let mut gone = Vec::new();
    let collect = async {
        while let Some(usage) = receiver.recv().await {
            gone.push(usage.id);
        }
    };
    let (outcome, ()) = tokio::join!(snapshots.prune(options, sender), collect);
    outcome.unwrap();
    gone
}

async fn ids(snapshots: &Snapshots, filter: &str) -> Vec<String> {
    let usage = snapshots.disk_usage(Filters::parse([filter]).unwrap(), None).await.unwrap();
    usage.into_iter().map(|u| u.id).collect()
}

#[tokio::test]
async fn what_is_in_use_or_built_upon_stays() {
    let root = Root::new(DriverChoice::Overlay);
    let snapshots = root.open();
    let base = step(&snapshots, None, |at| write(at, "a", &"x".repeat(100_000))).await;
    let middle = step(&snapshots, Some(&base), |at| write(at, "b", "2")).await;
    let top = step(&snapshots, Some(&middle), |at| write(at, "c", "3")).await;
    let usage = snapshots.disk_usage(Filters::default(), None).await.unwrap();
    let of = |id: &str| usage.iter().find(|u| u.id == id).unwrap();
    assert!(usage.len() == 3 && usage.iter().all(|u| u.in_use && !u.mutable && !u.shared));
    assert_eq!(of(top.id()).parents, [middle.id()]);
    assert_eq!(of(base.id()).record_type, RecordType::Regular);
    assert!((100_000..120_000).contains(&of(base.id()).size), "{}", of(base.id()).size);
    let [base_id, middle_id, top_id] = [&base, &middle, &top].map(|r| r.id().to_string());
    drop((base, top));
    assert_eq!(prune(&snapshots, PruneOptions::default()).await, [top_id.as_str()]);
    assert_eq!(ids(&snapshots, "inuse").await.len(), 2);
    drop(middle);
    assert_eq!(ids(&snapshots, "inuse").await, Vec::<String>::new());
    let filtered =
        PruneOptions { filters: Filters::parse([format!("id=={base_id}")]).unwrap(), ..Default::default() };
    assert_eq!(prune(&snapshots, filtered).await, Vec::<String>::new(), "something builds on it");
    let recent = PruneOptions { keep_duration: Duration::from_secs(3600), ..Default::default() };
    assert_eq!(prune(&snapshots, recent).await, Vec::<String>::new());
    assert_eq!(prune(&snapshots, PruneOptions::default()).await, [middle_id, base_id]);
    snapshots.settle();
    assert_eq!(root.names("snapshots"), Vec::<String>::new());
    assert_eq!(root.names("trash"), Vec::<String>::new());
}

#[tokio::test]
async fn the_internal_only_goes_with_all() {
    let root = Root::new(DriverChoice::Overlay);
    let snapshots = root.open();
    for kind in [RecordType::Internal, RecordType::Frontend, RecordType::CacheMount] {
        let mutable = snapshots.new_mutable(None, About::new("x").of_type(kind)).unwrap();
        mutable.commit().await.unwrap();
    }
    assert_eq!(
        ids(&snapshots, "type==exec.cachemount").await,
        prune(&snapshots, PruneOptions::default()).await
    );
    let all = PruneOptions { all: true, ..Default::default() };
    assert_eq!(prune(&snapshots, all).await.len(), 2);
}

#[tokio::test]
async fn the_least_useful_goes_first() {
    let root = Root::new(DriverChoice::Overlay);
    let snapshots = root.open();
    let mut made = Vec::new();
    for n in 0..5 {
        made.push(
            step(&snapshots, None, |at| write(at, "f", &n.to_string().repeat(100_000)))
                .await
                .id()
                .to_string(),
        );
    }
    // The first is used again.
    drop(snapshots.get(&made[0]).unwrap());
    let options = PruneOptions { max_used_space: 250_000, ..Default::default() };
    assert_eq!(prune(&snapshots, options.clone()).await, &made[1..4]);
    assert_eq!(prune(&snapshots, options).await, Vec::<String>::new());
}

#[tokio::test]
async fn the_use_of_a_cache_mount_counts() {
    let root = Root::new(DriverChoice::Overlay);
    let snapshots = root.open();
    for _ in 0..2 {
        drop(snapshots.cache_mount("c", None, Sharing::Shared, "cache").await.unwrap());
    }
    let usage = snapshots.disk_usage(Filters::default(), None).await.unwrap();
    let [mount] = usage.as_slice() else { panic!("{usage:?}") };
    assert!(mount.usage_count == 2 && mount.last_used.is_some_and(|at| at >= mount.created), "{mount:?}");
    let young = PruneOptions { keep_duration: Duration::from_secs(3600), ..Default::default() };
    assert_eq!(prune(&snapshots, young).await, Vec::<String>::new());
    assert_eq!(prune(&snapshots, PruneOptions::default()).await.len(), 1);
}

#[tokio::test]
async fn kept_snapshots_go_with_their_views() {
    let root = Root::new(DriverChoice::Overlay);
    let snapshots = root.open();
    let view = snapshots.mutable_by_key("k", About::new("x")).unwrap().commit().await.unwrap();
    let id = view.id().to_string();
    assert_eq!(ids(&snapshots, "mutable").await, ids(&snapshots, "inuse").await);
    assert_eq!(prune(&snapshots, PruneOptions::default()).await, Vec::<String>::new());
    drop(view);
    assert_eq!(prune(&snapshots, PruneOptions::default()).await.len(), 1);
    assert_eq!(snapshots.get(&id).unwrap(), None);
    assert_eq!(ids(&snapshots, "").await, Vec::<String>::new());
}
