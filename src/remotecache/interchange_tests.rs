//! What a document of keys becomes, and what is made of keys.

use crate::chains::Chains;
use crate::import::{Found, assemble};
use crate::layers::{Available, LayerPlace};
use crate::{ResultRef, error::Result};
use crosskit_cache::{Cache, KeyDigest, KeyId, Link};
use crosskit_cacheconfig::CacheConfig;
use crosskit_images::{ContentStore, Descriptor, Digest};
use crosskit_metadata::Database;
use crosskit_snapshots::{BlobProvider, ProvideError, Snapshots};
use futures::future::BoxFuture;
use std::collections::HashMap;
use std::sync::Arc;

/// A place that has nothing.
struct Nowhere;

impl BlobProvider for Nowhere {
    fn fetch<'a>(
        &'a self,
        _: &'a Descriptor,
        _: &'a ContentStore,
    ) -> BoxFuture<'a, Result<(), ProvideError>> {
        unreachable!("nobody needs files here")
    }
}

impl LayerPlace for Nowhere {
    fn secure<'a>(&'a self, _: &'a Descriptor, _: &'a ContentStore) -> BoxFuture<'a, Result<()>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn provider(self: Arc<Self>) -> Arc<dyn BlobProvider> {
        self
    }
}

fn named(text: &str) -> KeyDigest {
    KeyDigest::of(text.as_bytes())
}

fn import(folder: &tempfile::TempDir, json: &str, blobs: &[&str]) -> Result<Cache<ResultRef>> {
    let db = Database::open(folder.path().join("db")).unwrap();
    let content = ContentStore::open(folder.path().join("content")).unwrap();
    let snapshots = Snapshots::open(folder.path().join("snapshots"), db, content).unwrap();
    let config: CacheConfig = serde_json::from_str(json).unwrap();
    let place: Arc<dyn LayerPlace> = Arc::new(Nowhere);
    let layer = |name: &&str| {
        let digest = Digest::of(name.as_bytes());
        let desc = Descriptor::new(crosskit_images::media_types::OCI_LAYER_GZIP, digest, 1);
        (digest.to_string(), Available { desc, diff_id: digest, place: place.clone() })
    };
    let layers: HashMap<_, _> = blobs.iter().map(layer).collect();
    assemble("test", vec![Found { config, layers }], snapshots)
}

fn told(json: &str) -> String {
    import(&tempfile::tempdir().unwrap(), json, &[]).err().map(|e| e.to_string()).unwrap_or_default()
}

fn next(cache: &Cache<ResultRef>, from: KeyId, input: u32, name: &str) -> Vec<KeyId> {
    let mut found = Vec::new();
    cache.children(from, &Link { input, name: named(name), selector: None }, |key| found.push(key));
    found
}

/// `a` and `b` lead to `both`, which has two layers; what was omitted is 0.
fn document() -> String {
    let [a, b, both] = ["a", "b", "both"].map(named);
    let [low, high] = ["low", "high"].map(|name| Digest::of(name.as_bytes()));
    format!(
        r#"{{"layers":[{{"blob":"{low}","parent":-1}},{{"blob":"{high}"}}],"records":[
        {{"digest":"{both}","layers":[{{"layer":1,"createdAt":"1970-01-01T00:00:05Z"}}],
          "inputs":[[{{"link":1}}],[{{"link":2}}]]}},
        {{"digest":"{a}"}},{{"digest":"{b}","layers":[{{"layer":0,"createdAt":"2026-11-21T15:54:13.942779226Z"}}]}}]}}"#
    )
}

#[test]
fn keys_lead_where_the_document_says() {
    let folder = tempfile::tempdir().unwrap();
    let cache = import(&folder, &document(), &["low", "high"]).unwrap();
    let [a, b] = ["a", "b"].map(|name| cache.root(named(name)).unwrap());
    let both = next(&cache, a, 0, "both");
    assert_eq!(both, next(&cache, b, 1, "both"));
    assert!(next(&cache, a, 1, "both").is_empty());
    let (whole, part) = (cache.newest(both[0]).unwrap(), cache.newest(b).unwrap());
    assert_eq!((whole.created_ns, part.created_ns), (5_000_000_000, 1_795_276_453_942_779_226));
    assert!(cache.is_part(&part, &whole) && !cache.is_part(&whole, &part));
    assert_eq!(cache.newest(a), None);
}

#[test]
fn a_result_whose_layer_is_missing_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let cache = import(&folder, &document(), &["high"]).unwrap();
    let [a, b] = ["a", "b"].map(|name| cache.root(named(name)).unwrap());
    let both = next(&cache, a, 0, "both");
    assert_eq!((both.len(), cache.newest(both[0]), cache.newest(b)), (1, None, None));
}

#[test]
fn documents_that_lie_are_refused() {
    let a = named("a");
    let key = |more: &str| format!(r#"{{"records":[{{"digest":"{a}",{more}}}]}}"#);
    for (json, expected) in [
        (key(r#""inputs":[[{"link":0}]]"#), "invalid looping record"),
        (key(r#""inputs":[[{"link":7}]]"#), "invalid record ID: 7"),
        (key(r#""inputs":[[{"link":-1}]]"#), "invalid record ID: -1"),
        (key(r#""inputs":[[]]"#), "invalid empty input for record 0"),
        (key(r#""layers":[{"layer":0}]"#), "invalid layer index 0"),
        (key(r#""chains":[{"layers":[3]}]"#), "invalid layer index 3"),
        (
            format!(
                r#"{{"layers":[{{"blob":"{a}","parent":1}},{{"blob":"{a}"}}],
                "records":[{{"digest":"{a}","layers":[{{"layer":0}}]}}]}}"#
            ),
            "invalid looping layer",
        ),
        (
            format!(
                r#"{{"records":[{{"digest":"{a}","inputs":[[{{"link":1}}]]}},
                {{"digest":"{a}","inputs":[[{{"link":0}}]]}}]}}"#
            ),
            "invalid looping record",
        ),
    ] {
        assert_eq!(told(&json), expected, "{json}");
    }
    let no_digest = told(r#"{"records":[{"digest":"md5:0"}]}"#);
    assert!(no_digest.starts_with("record 0: invalid cache key digest"), "{no_digest}");
}

#[test]
fn what_can_never_be_met_again_is_left_out_with_what_needs_it() {
    let (random, step) = (named("session").into_random(), named("step"));
    let json =
        format!(r#"{{"records":[{{"digest":"{random}"}},{{"digest":"{step}","inputs":[[{{"link":0}}]]}}]}}"#);
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(import(&folder, &json, &[]).unwrap().keys(), 0);
}

#[test]
fn long_chains_need_no_stack_and_have_a_limit_where_layers_are_concerned() {
    let records = |count: usize, more: &dyn Fn(usize) -> String| {
        let record = |at: usize| {
            // Each needs the next one, so that the first one needs all.
            let last = at + 1 == count;
            let inputs = if last { String::new() } else { format!(r#","inputs":[[{{"link":{}}}]]"#, at + 1) };
            format!(r#"{{"digest":"{}"{inputs}{}}}"#, named(&at.to_string()), more(at))
        };
        (0..count).map(record).collect::<Vec<_>>().join(",")
    };
    let folder = tempfile::tempdir().unwrap();
    let json = format!(r#"{{"records":[{}]}}"#, records(100_000, &|_| String::new()));
    assert_eq!(import(&folder, &json, &[]).unwrap().keys(), 100_000);
    let blob = Digest::of(b"low");
    let layers: Vec<_> =
        (-1..2_000).map(|parent| format!(r#"{{"blob":"{blob}","parent":{parent}}}"#)).collect();
    let json = format!(
        r#"{{"layers":[{}],"records":[{}]}}"#,
        layers.join(","),
        records(1, &|_| r#","layers":[{"layer":2000}]"#.to_string())
    );
    let folder = tempfile::tempdir().unwrap();
    let error = import(&folder, &json, &["low"]).unwrap_err().to_string();
    assert_eq!(error, "more than 1024 layers on one another");
}

#[test]
fn keys_of_several_caches_are_brought_together_and_written_without_loops() {
    let near: Cache<ResultRef> = Cache::in_memory("near");
    let far: Cache<ResultRef> = Cache::in_memory("far");
    let session = near.ensure_root(named("session").into_random());
    let content = near.ensure_root(named("content"));
    let copy = near.ensure(&[vec![(session, None), (content, None)]], named("copy"));
    let lonely = near.ensure(&[vec![(session, None)]], named("lonely"));
    let elsewhere = far.ensure_root(named("elsewhere"));
    let same = far.ensure_root(named("content"));
    let far_copy = far.ensure(&[vec![(elsewhere, Some(named("/part"))), (same, None)]], named("copy"));
    // What has itself as an input, through a key that leads back.
    let looping = far.ensure(&[vec![(far_copy, None)]], named("loop"));
    far.ensure(&[vec![(looping, None), (same, None)]], named("copy"));

    let mut chains = Chains::default();
    let first = chains.add(&near, copy).unwrap();
    assert_eq!(chains.add(&far, far_copy), Some(first));
    assert_eq!(chains.add(&near, lonely), None);
    chains.add(&far, looping).unwrap();
    let collected = chains.collected();
    assert!(collected.layers.is_empty() && collected.config.layers.is_empty());
    let names: Vec<_> = collected.config.records.iter().map(|record| record.digest.as_str()).collect();
    let mut expected = ["content", "copy", "elsewhere", "loop"].map(|name| named(name).to_string());
    expected.sort();
    assert_eq!(names, expected);
    let of = |name: &str| {
        let wanted = named(name).to_string();
        collected.config.records.iter().find(|record| record.digest == wanted).unwrap()
    };
    assert_eq!(of("copy").inputs[0].len(), 2);
    assert_eq!(of("loop").inputs[0].len(), 1);
    // Nothing that was written is refused.
    let json = serde_json::to_string(&collected.config).unwrap();
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(import(&folder, &json, &[]).unwrap().keys(), 4);
}

#[test]
fn places_of_zero_are_not_written() {
    let config: CacheConfig = serde_json::from_str(&document()).unwrap();
    let text = serde_json::to_string(&config).unwrap();
    let high = Digest::of(b"high");
    assert!(text.contains(&format!(r#"{{"blob":"{high}"}}"#)), "{text}");
    assert!(text.contains(r#""parent":-1"#) && text.contains(r#"{"layer":0,"createdAt""#), "{text}");
}
