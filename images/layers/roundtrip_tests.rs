//! A layer applied and taken again is the same layer.

use std::collections::BTreeMap;
use std::fs;

use proptest::prelude::*;

use super::*;
use crate::tar::{Header, Kind, Reader, ReaderLimits, Timestamp, Writer};

#[derive(Clone, Debug)]
enum Thing {
    File(Vec<u8>, u32),
    Dir(u32),
    Link(String),
    Fifo,
}

fn things() -> impl Strategy<Value = BTreeMap<String, Thing>> {
    let name = proptest::collection::vec("[a-zé][a-z0-9é]{0,12}|[a-z]{101,130}", 1..5)
        .prop_map(|parts| parts.join("/"));
    let thing = prop_oneof![
        (proptest::collection::vec(any::<u8>(), 0..2000), 0_u32..0o10000)
            .prop_map(|(b, m)| Thing::File(b, m)),
        (0_u32..0o1000).prop_map(|m| Thing::Dir(m | 0o700)),
        "[a-z/.]{1,150}".prop_map(Thing::Link),
        Just(Thing::Fifo),
    ];
    proptest::collection::btree_map(name, thing, 0..12).prop_map(|all| {
        // A path is in the tree only if everything above it is a folder.
        let mut whole: BTreeMap<String, Thing> = BTreeMap::new();
        for (name, thing) in all {
            let above: Vec<String> = name.match_indices('/').map(|(at, _)| name[..at].to_owned()).collect();
            if above.iter().all(|dir| !matches!(whole.get(dir), Some(t) if !matches!(t, Thing::Dir(_))))
                && !whole.keys().any(|k| k.starts_with(&format!("{name}/")))
            {
                for dir in above {
                    whole.entry(dir).or_insert(Thing::Dir(0o755));
                }
                whole.insert(name, thing);
            }
        }
        whole
    })
}

/// Writes things in the order a walk meets them.
fn layer(things: &BTreeMap<String, Thing>) -> Vec<u8> {
    let mut order: Vec<_> = things.iter().collect();
    order.sort_by_key(|(name, _)| name.split('/').map(str::to_owned).collect::<Vec<_>>());
    let mut tar = Writer::new(Vec::new());
    for (i, (name, thing)) in order.into_iter().enumerate() {
        let mut header = Header::new(name.as_str(), Kind::Fifo);
        header.mtime = Timestamp::from_seconds(1_000_000 + i as i64);
        header.uid = i as u32 % 3;
        let mut data = &[][..];
        match thing {
            Thing::File(bytes, mode) => {
                (header.kind, header.mode, header.size, data) =
                    (Kind::File, *mode, bytes.len() as u64, bytes);
            }
            Thing::Dir(mode) => {
                (header.kind, header.mode) = (Kind::Directory, *mode);
                header.name.push(b'/');
            }
            Thing::Link(target) => {
                (header.kind, header.mode, header.link) = (Kind::Symlink, 0o777, target.clone().into())
            }
            Thing::Fifo => header.mode = 0o640,
        }
        tar.entry(&header).unwrap();
        tar.data(data).unwrap();
    }
    tar.finish().unwrap()
}

fn names(tar: &[u8]) -> Vec<String> {
    let mut reader = Reader::new(tar, ReaderLimits::default());
    let mut all = Vec::new();
    while let Some(h) = reader.next_entry().unwrap() {
        all.push(format!("{h:?}"));
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn a_layer_survives_its_folder(things in things()) {
        let root = tempfile::tempdir().unwrap();
        let tar = layer(&things);
        apply_layer(fs::File::open(root.path()).unwrap(), &tar[..], &ApplyOptions::default()).unwrap();
        let mut again = Vec::new();
        diff_layer(root.path(), &[] as &[&std::path::Path], &mut again, &DiffOptions::default()).unwrap();
        prop_assert_eq!(names(&again), names(&tar));
        prop_assert!(again == tar, "same headers, other bytes");
    }
}

/// The layer was made by BuildKit 0.32's overlay differ from a RUN that made folders, links, a pipe, long and accented
/// names, owners beyond 16 bits and a set-id file.
#[test]
fn a_layer_of_buildkit_comes_out_as_it_went_in() {
    let layer = &include_bytes!("fixtures/buildkit-layer.tar")[..];
    let root = tempfile::tempdir().unwrap();
    apply_layer(fs::File::open(root.path()).unwrap(), layer, &ApplyOptions::default()).unwrap();
    let mut again = Vec::new();
    diff_layer(root.path(), &[] as &[&std::path::Path], &mut again, &DiffOptions::default()).unwrap();
    assert!(again == layer, "{:#?} became {:#?}", names(layer), names(&again));
}
