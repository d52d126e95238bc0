//! Layers from elsewhere and for elsewhere; merges and differences.
#![allow(clippy::unwrap_used)]

mod support;

use crosskit_images::ContentStore;
use crosskit_images::media_types::LayerPacking;
use crosskit_snapshots::{About, BlobProvider, Kind, LayerForm, ProvideError, Ref, RemoteLayer, Snapshots};
use futures::FutureExt;
use futures::future::BoxFuture;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use support::{BOTH, Root, step, tree, write};

/// Gives blobs of another store.
struct Elsewhere {
    store: ContentStore,
    fetched: AtomicUsize,
    broken: bool,
}

impl BlobProvider for Elsewhere {
    fn fetch<'a>(
        &'a self,
        desc: &'a crosskit_images::Descriptor,
        content: &'a ContentStore,
    ) -> BoxFuture<'a, Result<(), ProvideError>> {
        async move {
            self.fetched.fetch_add(1, Ordering::SeqCst);
            if self.broken {
                return Err(ProvideError { kind: Kind::Unavailable, source: "registry is gone".into() });
            }
            let bytes = self.store.read(&desc.digest, 1 << 20).unwrap();
            content.put(&bytes).unwrap();
            Ok(())
        }
        .boxed()
    }
}

async fn remote(reference: &Ref, form: LayerForm, broken: bool) -> (Arc<Elsewhere>, Vec<RemoteLayer>) {
    let store = reference.snapshots().content().clone();
    let provider = Arc::new(Elsewhere { store, fetched: AtomicUsize::new(0), broken });
    let layers = reference.layers(form).await.unwrap();
    let remote = |layer: &crosskit_snapshots::Layer| RemoteLayer {
        desc: layer.blob.desc.clone(),
        diff_id: layer.blob.diff_id,
        provider: provider.clone(),
    };
    let layers = layers.iter().map(remote).collect();
    (provider, layers)
}

async fn three_layers(snapshots: &Snapshots) -> Ref {
    let base = step(snapshots, None, |at| {
        write(at, "a", "1");
        write(at, "dir/b", "2");
        write(at, "dir/c", "3");
        write(at, "gone/d", "4");
    })
    .await;
    let second = step(snapshots, Some(&base), |at| {
        std::fs::remove_file(at.join("dir/b")).unwrap();
        std::fs::remove_dir_all(at.join("gone")).unwrap();
        write(at, "gone/e", "5");
        std::os::unix::fs::symlink("dir/c", at.join("link")).unwrap();
    })
    .await;
    step(snapshots, Some(&second), |at| write(at, "dir/c", "6")).await
}

const THREE: [&str; 6] = ["a=1", "dir/", "dir/c=6", "gone/", "gone/e=5", "link->dir/c"];

#[tokio::test]
async fn layers_travel_and_are_unpacked_when_needed() {
    for from in BOTH {
        for to in BOTH {
            let (here, there) = (Root::new(from), Root::new(to));
            let (source, target) = (here.open(), there.open());
            let top = three_layers(&source).await;
            let (provider, layers) = remote(&top, LayerForm::default(), false).await;
            assert_eq!(layers.len(), 3);
            let arrived = target.from_layers(layers.clone(), About::new("pulled")).unwrap().unwrap();
            assert_eq!(provider.fetched.load(Ordering::SeqCst), 0, "lazy");
            assert_eq!(arrived.size().await.unwrap(), 0);
            let (one, two) = tokio::join!(tree(&arrived), tree(&arrived));
            assert_eq!((&one[..], &two[..]), (&THREE.map(String::from)[..], &THREE.map(String::from)[..]));
            assert_eq!(provider.fetched.load(Ordering::SeqCst), 3, "each once");
            let again = target.from_layers(layers, About::new("again")).unwrap().unwrap();
            assert_eq!(again, arrived);
            // The same blobs go on.
            let onward = arrived.layers(LayerForm::default()).await.unwrap();
            let original = top.layers(LayerForm::default()).await.unwrap();
            let digests = |layers: &[crosskit_snapshots::Layer]| {
                layers.iter().map(|l| l.blob.desc.digest).collect::<Vec<_>>()
            };
            assert_eq!(digests(&onward), digests(&original));
            let id = arrived.id().to_string();
            drop((arrived, again, onward, target));
            let target = there.open();
            assert_eq!(tree(&target.get(&id).unwrap().unwrap()).await, THREE);
        }
    }
}

#[tokio::test]
async fn blobs_that_only_carry_layers_are_not_what_an_export_takes() {
    for from in BOTH {
        let (here, there) = (Root::new(from), Root::new(from));
        let (source, target) = (here.open(), there.open());
        let top = three_layers(&source).await;
        let carry = LayerForm { packing: LayerPacking::Plain, carry: true, ..LayerForm::default() };
        let digests = async |snapshot: &crosskit_snapshots::Ref, form: LayerForm| {
            let layers = snapshot.layers(form).await.unwrap();
            layers.iter().map(|l| l.blob.desc.digest).collect::<Vec<_>>()
        };
        let plain = digests(&top, carry).await;
        let packed = digests(&top, LayerForm::default()).await;
        assert!(plain.iter().all(|digest| !packed.contains(digest)));
        // Whoever carries them again carries the same.
        assert_eq!(digests(&top, carry).await, plain);

        let (_, layers) = remote(&top, carry, false).await;
        let base = step(&target, None, |at| write(at, "below", "0")).await;
        let arrived = target.from_carried_layers(Some(&base), layers.clone(), About::new("shipped"));
        let arrived = arrived.unwrap().unwrap();
        let again = target.from_carried_layers(Some(&base), layers, About::new("shipped")).unwrap().unwrap();
        assert_eq!(arrived, again);
        assert_eq!(digests(&arrived, carry).await[1..], plain);
        assert_eq!(digests(&arrived, LayerForm::default()).await[1..], packed);
        let mut all = THREE.map(String::from).to_vec();
        all.insert(1, "below=0".into());
        assert_eq!(tree(&arrived).await, all);
    }
}

#[tokio::test]
async fn failures_of_a_provider_come_through_and_can_be_tried_again() {
    let (here, there) = (Root::new(BOTH[0]), Root::new(BOTH[0]));
    let (source, target) = (here.open(), there.open());
    let top = three_layers(&source).await;
    let (_, layers) = remote(&top, LayerForm::default(), true).await;
    let arrived = target.from_layers(layers, About::new("pulled")).unwrap().unwrap();
    let error = arrived.mount_readonly().await.err().unwrap();
    assert!(error.to_string().ends_with("registry is gone"), "{error}");
    assert_eq!(error.kind(), Kind::Unavailable);
    let id = arrived.id().to_string();
    let (_, layers) = remote(&top, LayerForm::default(), false).await;
    let again = target.from_layers(layers, About::new("pulled")).unwrap().unwrap();
    assert_eq!((again.id(), tree(&arrived).await), (&id[..], THREE.map(String::from).to_vec()));
}

#[tokio::test]
async fn a_layer_whose_source_is_unknown_says_so() {
    let (here, there) = (Root::new(BOTH[0]), Root::new(BOTH[0]));
    let (source, target) = (here.open(), there.open());
    let top = three_layers(&source).await;
    let (_, layers) = remote(&top, LayerForm::default(), false).await;
    let id = target.from_layers(layers, About::new("pulled")).unwrap().unwrap().id().to_string();
    drop(target);
    let target = there.open();
    let error = target.get(&id).unwrap().unwrap().mount_readonly().await.err().unwrap();
    assert!(error.to_string().contains("its source is not known any more"), "{error}");
}

#[tokio::test]
async fn a_damaged_blob_is_refused() {
    let (here, there) = (Root::new(BOTH[0]), Root::new(BOTH[0]));
    let (source, target) = (here.open(), there.open());
    let base = step(&source, None, |at| write(at, "a", "1")).await;
    let other = step(&source, None, |at| write(at, "a", "2")).await;
    let (_, mut layers) = remote(&base, LayerForm::default(), false).await;
    layers[0].diff_id = other.layers(LayerForm::default()).await.unwrap()[0].blob.diff_id;
    let arrived = target.from_layers(layers, About::new("pulled")).unwrap().unwrap();
    let error = arrived.mount_readonly().await.err().unwrap();
    assert!(error.to_string().contains("unexpected digest"), "{error}");
    target.settle();
    assert!(!there.dir.path().join("snapshots").join(arrived.id()).join("fs").exists());
}

#[tokio::test]
async fn layers_are_packed_as_wanted() {
    let root = Root::new(BOTH[0]);
    let snapshots = root.open();
    let top = three_layers(&snapshots).await;
    let zstd = LayerForm { packing: LayerPacking::Zstd, ..LayerForm::default() };
    let old = LayerForm { epoch: Some(7), ..LayerForm::default() };
    assert!(top.told_layer().is_none(), "it never went out");
    let only = top.layers(old).await.unwrap().pop().unwrap();
    assert_eq!(top.told_layer().unwrap().blob, only.blob, "with these times it did");
    let gzip = top.layers(LayerForm::default()).await.unwrap();
    assert_eq!(top.told_layer().unwrap().blob, gzip[2].blob, "with its own");
    assert!(gzip.iter().all(|l| l.blob.desc.media_type.ends_with("tar+gzip")));
    let kept = top.layers(zstd).await.unwrap();
    assert_eq!(kept[0].blob, gzip[0].blob, "what is there is good enough");
    let forced = top.layers(LayerForm { force: true, ..zstd }).await.unwrap();
    assert!(forced.iter().all(|l| l.blob.desc.media_type.ends_with("tar+zstd")));
    assert_eq!(forced[2].blob.diff_id, gzip[2].blob.diff_id);
    assert_eq!(top.layers(zstd).await.unwrap()[0].blob, gzip[0].blob, "another build's wish changes nothing");
    let early = LayerForm { epoch: Some(1), ..LayerForm::default() };
    let rewritten = top.layers(early).await.unwrap();
    assert_ne!(rewritten[0].blob.diff_id, gzip[0].blob.diff_id);
    assert_eq!(top.layers(early).await.unwrap()[0].blob, rewritten[0].blob);
    assert_eq!(top.layers(LayerForm::default()).await.unwrap()[0].blob, gzip[0].blob);
}

#[tokio::test]
async fn merges_put_one_over_the_other() {
    for choice in BOTH {
        let root = Root::new(choice);
        let snapshots = root.open();
        let top = three_layers(&snapshots).await;
        let extra = step(&snapshots, None, |at| {
            write(at, "dir/c", "extra");
            write(at, "new/x", "7");
        })
        .await;
        let merged = snapshots.merge(&[top.clone(), extra.clone()], About::new("merge")).unwrap().unwrap();
        let want = ["a=1", "dir/", "dir/c=extra", "gone/", "gone/e=5", "link->dir/c", "new/", "new/x=7"];
        assert_eq!(tree(&merged).await, want, "{choice:?}");
        assert_eq!(merged.layers(LayerForm::default()).await.unwrap().len(), 4);
        let back = snapshots.merge(&[extra.clone(), top.clone(), top], About::new("merge")).unwrap().unwrap();
        let want = ["a=1", "dir/", "dir/c=6", "gone/", "gone/e=5", "link->dir/c", "new/", "new/x=7"];
        assert_eq!(tree(&back).await, want, "{choice:?}");
        let over =
            step(&snapshots, Some(&merged), |at| std::fs::remove_file(at.join("new/x")).unwrap()).await;
        assert!(!tree(&over).await.contains(&"new/x=7".to_string()));
        assert_eq!(over.layers(LayerForm::default()).await.unwrap().len(), 5);
    }
}

#[tokio::test]
async fn differences_are_what_was_changed() {
    for choice in BOTH {
        let root = Root::new(choice);
        let snapshots = root.open();
        let top = three_layers(&snapshots).await;
        let base = &top.layer_refs()[0];
        let middle = &top.layer_refs()[1];
        let last = snapshots.diff(Some(middle), Some(&top), About::new("diff")).unwrap();
        assert_eq!(tree(&last).await, ["dir/", "dir/c=6"], "{choice:?}");
        let all = snapshots.diff(Some(base), Some(&top), About::new("diff")).unwrap();
        let seen = tree(&all).await;
        assert_eq!(seen, ["dir/", "dir/c=6", "gone/", "gone/e=5", "link->dir/c"], "{choice:?}");
        // One for each that was put over the base.
        assert_eq!(all.layers(LayerForm::default()).await.unwrap().len(), 2);
        // On another base it removes what it removed.
        let other = step(&snapshots, None, |at| {
            write(at, "dir/b", "other");
            write(at, "keep", "k");
        })
        .await;
        let merged = snapshots.merge(&[other, all], About::new("merge")).unwrap().unwrap();
        let want = ["dir/", "dir/c=6", "gone/", "gone/e=5", "keep=k", "link->dir/c"];
        assert_eq!(tree(&merged).await, want, "{choice:?}");
        let nothing = snapshots.diff(Some(&top), None, About::new("diff")).unwrap();
        assert_eq!(tree(&nothing).await, Vec::<String>::new(), "{choice:?}");
    }
}

#[tokio::test]
async fn a_difference_that_has_travelled_shows_no_marks() {
    for from in BOTH {
        for to in BOTH {
            let (here, there) = (Root::new(from), Root::new(to));
            let (source, target) = (here.open(), there.open());
            let layers = three_layers(&source).await.layer_refs();
            let changes = source.diff(Some(&layers[0]), Some(&layers[1]), About::new("diff")).unwrap();
            let (_provider, layers) = remote(&changes, LayerForm::default(), false).await;
            let arrived = target.from_layers(layers, About::new("pulled")).unwrap().unwrap();
            assert_eq!(tree(&arrived).await, ["dir/", "gone/", "gone/e=5", "link->dir/c"], "{from:?} {to:?}");
        }
    }
}
