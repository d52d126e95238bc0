//! What becomes of two documents.

use crate::{CacheConfig, CacheInput, CacheLayer, CacheRecord, CacheResult, Limits, covers, unite};
use crosskit_cache::KeyDigest;
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeMap;
use std::time::Duration;

const HOUR: Duration = Duration::from_secs(3600);

fn now() -> Timestamp {
    "2026-11-22T08:00:00Z".parse().unwrap()
}

fn limits() -> Limits {
    Limits { now: now(), max_age: HOUR, max_blobs: 100 }
}

fn named(name: &str) -> String {
    KeyDigest::of(name.as_bytes()).to_string()
}

/// A root and a row of steps, each on the one before; of each its name, the layer it adds, and how many
/// minutes ago it was used, if that is told.
fn chain(steps: &[(&str, &str, Option<i64>)]) -> CacheConfig {
    let mut config = CacheConfig::default();
    config.records.push(CacheRecord { digest: named("root"), ..CacheRecord::default() });
    for (at, (name, blob, used)) in steps.iter().enumerate() {
        let (at, blob) = (at as i64, (*blob).to_owned());
        config.layers.push(CacheLayer { blob, parent: at - 1, annotations: None });
        let used = used.map(|minutes| (now() - SignedDuration::from_mins(minutes)).to_string());
        config.records.push(CacheRecord {
            digest: named(name),
            results: vec![CacheResult { layer: at, created: "2026-11-20T08:00:00Z".to_owned() }],
            inputs: vec![vec![CacheInput { selector: String::new(), link: at }]],
            used,
            ..CacheRecord::default()
        });
    }
    config.sort();
    config
}

/// What each step leads to: its layers, bottom first, and when it was used.
fn told(config: &CacheConfig) -> BTreeMap<String, (String, Option<String>)> {
    let layers = |mut at: i64| {
        let mut blobs = Vec::new();
        while at >= 0 {
            let layer = &config.layers[at as usize];
            blobs.insert(0, layer.blob.as_str());
            at = layer.parent;
        }
        blobs.join(" ")
    };
    let leading = config.records.iter().filter(|record| !record.results.is_empty());
    leading
        .map(|record| (record.digest.clone(), (layers(record.results[0].layer), record.used.clone())))
        .collect()
}

fn expected(steps: &[(&str, &str, Option<i64>)]) -> BTreeMap<String, (String, Option<String>)> {
    let used = |minutes: i64| (now() - SignedDuration::from_mins(minutes)).to_string();
    steps.iter().map(|(name, layers, ago)| (named(name), ((*layers).to_owned(), ago.map(used)))).collect()
}

#[test]
fn what_two_writers_have_is_all_there_and_each_keeps_its_own() {
    type Steps = &'static [(&'static str, &'static str, Option<i64>)];
    let cases: [(&str, Steps, Steps, Steps); 7] = [
        (
            "steps of their own",
            &[("a", "A", None)],
            &[("b", "B", None), ("c", "C", None)],
            &[("a", "A", None), ("b", "B", Some(0)), ("c", "B C", Some(0))],
        ),
        (
            "the same step, made by both",
            &[("a", "A", None)],
            &[("a", "X", None), ("b", "B", None)],
            &[("a", "A", None), ("b", "X B", Some(0))],
        ),
        ("nothing of their own", &[("a", "A", None)], &[], &[("a", "A", None)]),
        (
            "what was long not used goes",
            &[("a", "A", None)],
            &[("b", "B", Some(59)), ("c", "C", Some(61))],
            &[("a", "A", None), ("b", "B", Some(59))],
        ),
        ("what is used now is as new", &[("a", "A", None)], &[("a", "A", Some(600))], &[("a", "A", None)]),
        (
            "a clock that is ahead",
            &[("a", "A", None)],
            &[("b", "B", Some(-600))],
            &[("a", "A", None), ("b", "B", Some(0))],
        ),
        (
            "the newer one of two others",
            &[("a", "A", None), ("b", "B", Some(50))],
            &[("a", "A", Some(5)), ("b", "X", Some(5))],
            &[("a", "A", None), ("b", "A X", Some(5))],
        ),
    ];
    for (case, own, others, both) in cases {
        let (own, others) = (chain(own), chain(others));
        let united = unite(&own, &others, |_| true, &limits()).unwrap();
        assert_eq!(told(&united), expected(both), "{case}");
        assert!(covers(&united, &own).unwrap(), "{case}");
        let again = unite(&own, &united, |_| true, &limits()).unwrap();
        assert_eq!(again, united, "{case}: once more changes nothing");
    }
}

#[test]
fn layers_that_are_not_there_and_too_many_of_them_are_left_out() {
    let own = chain(&[("a", "A", None)]);
    let others = chain(&[("b", "B", None), ("c", "C", None)]);
    let without = unite(&own, &others, |blob| blob != "C", &limits()).unwrap();
    assert_eq!(told(&without), expected(&[("a", "A", None), ("b", "B", Some(0))]));
    assert!(!covers(&without, &others).unwrap() && covers(&without, &own).unwrap());
    let older = chain(&[("b", "B", Some(20))]);
    let newer = chain(&[("c", "C", Some(10))]);
    let both = unite(&older, &newer, |_| true, &limits()).unwrap();
    let few = unite(&own, &both, |_| true, &Limits { max_blobs: 2, ..limits() }).unwrap();
    assert_eq!(told(&few), expected(&[("a", "A", None), ("c", "C", Some(10))]));
    // One's own counts whatever the limits.
    let none = unite(&both, &own, |_| true, &Limits { max_blobs: 0, ..limits() }).unwrap();
    assert_eq!(none, both);
    let lies = CacheConfig { layers: Vec::new(), ..others };
    assert_eq!(unite(&own, &lies, |_| true, &limits()).unwrap_err().0, "invalid layer index 1");
}

#[test]
fn keys_that_lead_nowhere_go_and_nothing_that_was_united_is_refused() {
    let own = chain(&[("a", "A", None)]);
    let mut others = chain(&[("b", "B", Some(90)), ("c", "C", Some(90))]);
    let united = unite(&own, &others, |_| true, &limits()).unwrap();
    assert_eq!(united, own);
    // Both know a key by another one's: together they would need each other.
    let at = |config: &CacheConfig, name: &str| {
        config.records.iter().position(|record| record.digest == named(name)).unwrap() as i64
    };
    let mut turned = chain(&[("c", "C", None), ("b", "B", None)]);
    let (b, root) = (at(&others, "b"), at(&others, "root"));
    let (c, turned_root) = (at(&turned, "c"), at(&turned, "root"));
    let known = |link| CacheInput { selector: String::new(), link };
    { &mut others.records }.iter_mut().filter(|record| record.digest == named("c")).for_each(|record| {
        record.inputs = vec![vec![known(b), known(root)]];
        record.used = None;
    });
    { &mut turned.records }.iter_mut().filter(|record| record.digest == named("b")).for_each(|record| {
        record.inputs = vec![vec![known(c), known(turned_root)]];
    });
    let united = unite(&others, &turned, |_| true, &limits()).unwrap();
    assert!(unite(&own, &united, |_| true, &limits()).is_ok());
    assert!(told(&united).contains_key(&named("b")) && told(&united).contains_key(&named("c")));
}
