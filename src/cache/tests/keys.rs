//! What the cache promises about keys and results.

#![allow(clippy::unwrap_used)] // A test ends where something is not as it should be.

use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use crosskit_cache::{
    Alternative, CONTENT, Cache, KeyDigest, KeyId, KeyStore, Link, LoadContext, MemoryResults, MemoryStore,
};
use crosskit_metadata::Database;

type Parts = (Arc<MemoryStore>, Arc<MemoryResults<String>>);

fn open(parts: &Parts) -> Cache<String> {
    Cache::new("main", parts.0.clone(), parts.1.clone())
}

fn digest(text: &str) -> KeyDigest {
    KeyDigest::of(text.as_bytes())
}

/// The name of an output of an operation.
fn named(text: &str, output: i32) -> KeyDigest {
    digest(text).of_output(output)
}

fn at(seconds: u64) -> std::time::SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn only(key: KeyId) -> Vec<Vec<Alternative>> {
    vec![vec![(key, None)]]
}

/// Where `text` leads to from a key.
fn next(cache: &Cache<String>, from: KeyId, text: &str) -> Vec<KeyId> {
    let link = Link { input: 0, name: named(text, 0), selector: None };
    let mut found = Vec::new();
    cache.children(from, &link, |key| found.push(key));
    found
}

async fn load(cache: &Cache<String>, key: KeyId) -> String {
    let record = cache.records(key).into_iter().next().unwrap();
    cache.load(&record, &LoadContext::default()).await.unwrap()
}

#[tokio::test]
async fn a_chain_is_found_again_after_a_restart() {
    let parts = Parts::default();
    let cache = open(&parts);
    let base = cache.ensure_root(named("base", 0));
    cache.save(base, &"base files".to_owned(), at(1)).unwrap();
    let step = cache.ensure(&only(base), named("step", 0));
    cache.save(step, &"step files".to_owned(), at(2)).unwrap();

    let cache = open(&parts);
    let base = cache.root(named("base", 0)).unwrap();
    assert_eq!(cache.root(named("base", 1)), None);
    let found = next(&cache, base, "step");
    assert_eq!(found.len(), 1);
    assert_eq!(load(&cache, found[0]).await, "step files");
    assert_eq!(load(&cache, base).await, "base files");
    assert_eq!(cache.records(base)[0].created(), at(1));
    let info = cache.info(found[0]).unwrap();
    assert_eq!((info.name, info.inputs), (named("step", 0), only(base)));
}

#[tokio::test]
async fn every_alternative_of_an_input_leads_to_the_key() {
    let cache = Cache::<String>::in_memory("main");
    let source = cache.ensure_root(named("source", 0));
    let content = cache.ensure_root(named("content", CONTENT));
    let part = Some(digest("/etc"));
    let both = vec![vec![(source, part), (content, None)]];
    let key = cache.ensure(&both, named("copy", 0));
    // Known by one alternative, it is linked from the other as well.
    let elsewhere = cache.ensure_root(named("elsewhere", 0));
    let again = cache.ensure(&[vec![(elsewhere, part), (content, None)]], named("copy", 0));
    assert_eq!(again, key);
    let link = Link { input: 0, name: named("copy", 0), selector: part };
    let mut found = Vec::new();
    cache.children(elsewhere, &link, |key| found.push(key));
    assert_eq!(found, [key]);
    // The selector counts.
    assert!(next(&cache, elsewhere, "copy").is_empty());
}

#[tokio::test]
async fn all_inputs_have_to_lead_to_the_key() {
    let cache = Cache::<String>::in_memory("main");
    let [a, b, c] = ["a", "b", "c"].map(|text| cache.ensure_root(named(text, 0)));
    let pair = |x, y| vec![vec![(x, None)], vec![(y, None)]];
    let ab = cache.ensure(&pair(a, b), named("merge", 0));
    let ac = cache.ensure(&pair(a, c), named("merge", 0));
    assert_ne!(ab, ac);
    assert_eq!(cache.ensure(&pair(a, b), named("merge", 0)), ab);
    assert_eq!(cache.ensure(&pair(a, c), named("merge", 0)), ac);
    assert_ne!(cache.ensure(&pair(b, a), named("merge", 0)), ab);
    assert_ne!(cache.ensure(&pair(a, b), named("merge", 1)), ab);
}

#[tokio::test]
async fn the_newest_result_comes_first() {
    let cache = Cache::<String>::in_memory("main");
    let key = cache.ensure_root(named("key", 0));
    for (text, time) in [("old", 1), ("new", 3), ("middle", 2)] {
        cache.save(key, &text.to_owned(), at(time)).unwrap();
    }
    assert_eq!(load(&cache, key).await, "new");
    assert_eq!(cache.newest(key), cache.records(key).into_iter().next());
    assert_eq!(cache.records(key).len(), 3);
}

#[tokio::test]
async fn keys_that_lead_nowhere_go() {
    let parts = Parts::default();
    let cache = open(&parts);
    let base = cache.ensure_root(named("base", 0));
    let one = cache.ensure(&only(base), named("one", 0));
    let two = cache.ensure(&only(one), named("two", 0));
    let side = cache.ensure(&only(base), named("side", 0));
    let first = cache.save(two, &"two".to_owned(), at(1)).unwrap();
    let second = cache.save(side, &"side".to_owned(), at(1)).unwrap();
    assert_eq!(cache.keys_of(&first.id), [two]);
    cache.release(&first.id);
    assert!(!cache.contains(two) && !cache.contains(one));
    assert!(cache.contains(base) && cache.contains(side));
    cache.release(&second.id);
    assert_eq!((cache.keys(), parts.0.rows()), (0, 0));
}

#[tokio::test]
async fn a_key_that_nothing_came_of_is_forgotten() {
    let parts = Parts::default();
    let cache = open(&parts);
    let base = cache.ensure_root(named("base", 0));
    cache.save(base, &"base".to_owned(), at(1)).unwrap();
    let step = cache.ensure(&only(base), named("step", 0));
    assert_eq!(parts.0.rows(), 1);
    cache.forget(step);
    assert_eq!(cache.keys(), 1);
    cache.forget(base);
    assert_eq!(cache.keys(), 1);
}

#[tokio::test]
async fn results_that_are_gone_are_not_offered() {
    let parts = Parts::default();
    let cache = open(&parts);
    let base = cache.ensure_root(named("base", 0));
    let here = cache.save(base, &"here".to_owned(), at(1)).unwrap();
    let step = cache.ensure(&only(base), named("step", 0));
    let gone = cache.save(step, &"gone".to_owned(), at(1)).unwrap();
    parts.1.remove(&gone.id);
    // Neither while it runs nor after a restart.
    let again = open(&parts);
    assert_eq!((cache.newest(step), cache.records(step)), (None, vec![]));
    assert!(!cache.contains(step));
    let base = again.root(named("base", 0)).unwrap();
    assert!(next(&again, base, "step").is_empty());
    parts.1.remove(&here.id);
    assert_eq!(open(&parts).keys(), 0);
}

#[tokio::test]
async fn what_can_never_be_met_again_is_not_stored() {
    let parts = Parts::default();
    let cache = open(&parts);
    let session = cache.ensure_root(named("session", 0).into_random());
    cache.save(session, &"files".to_owned(), at(1)).unwrap();
    let content = cache.ensure_root(named("files", CONTENT));
    let copy = cache.ensure(&[vec![(session, None), (content, None)]], named("copy", 0));
    cache.save(copy, &"copied".to_owned(), at(2)).unwrap();
    // What is known by nothing but the session is as fleeting.
    let scan = cache.ensure(&only(session), named("scan", 0));
    cache.save(scan, &"scanned".to_owned(), at(2)).unwrap();
    assert_eq!(next(&cache, session, "copy"), [copy]);
    assert_eq!(next(&cache, session, "scan"), [scan]);

    let cache = open(&parts);
    assert_eq!((cache.keys(), parts.0.rows()), (2, 2));
    let content = cache.root(named("files", CONTENT)).unwrap();
    let copy = next(&cache, content, "copy");
    assert_eq!(load(&cache, copy[0]).await, "copied");
}

#[tokio::test]
async fn keys_of_sessions_do_not_pile_up() {
    let cache = Cache::<String>::in_memory("main");
    let content = cache.ensure_root(named("content", CONTENT));
    let mut copy = content;
    for session in 0..5_001 {
        let random = digest(&session.to_string()).into_random();
        let session = cache.ensure_root(random);
        copy = cache.ensure(&[vec![(session, None), (content, None)]], named("copy", 0));
    }
    assert!(cache.keys() <= 2_002, "{}", cache.keys());
    assert_eq!(next(&cache, content, "copy"), [copy]);
}

#[tokio::test]
async fn broken_rows_cost_only_themselves() {
    let parts = Parts::default();
    let cache = open(&parts);
    let [good, bad] = ["good", "bad"].map(|text| cache.ensure_root(named(text, 0)));
    let on_good = cache.ensure(&only(good), named("step", 0));
    let on_bad = cache.ensure(&only(bad), named("step", 0));
    for key in [good, on_good, bad, on_bad] {
        cache.save(key, &format!("{key:?}"), at(1)).unwrap();
    }
    let mut rows = Vec::new();
    parts.0.load(&mut |id, row| rows.push((id, row.to_vec()))).unwrap();
    let (id, row) = &rows[1];
    for cut in 0..row.len() {
        parts.0.write(vec![(*id, Some(row[..cut].to_vec()))]).unwrap();
        let cache = open(&parts);
        // The key whose parent cannot be read could never be found.
        assert_eq!(cache.keys(), 2, "cut at {cut}");
        let good = cache.root(named("good", 0)).unwrap();
        assert_eq!(next(&cache, good, "step").len(), 1);
        parts.0.write(rows.iter().map(|(id, row)| (*id, Some(row.clone()))).collect()).unwrap();
    }
}

#[test]
fn digests_are_written_as_buildkit_does() {
    let text = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let empty = digest("");
    assert_eq!(empty.to_string(), text);
    assert_eq!(text.parse(), Ok(empty));
    let random = text.replace("sha256", "random");
    assert_eq!(empty.into_random().to_string(), random);
    assert_eq!(random.parse(), Ok(empty.into_random()));
    for wrong in ["", "sha256:", "e3b0", &text.to_uppercase(), "md5:00", &text[..70]] {
        assert!(wrong.parse::<KeyDigest>().is_err(), "{wrong}");
    }
    // The digest of "<digest>@0", and the mark is kept.
    assert_eq!(empty.of_output(0), digest(&format!("{text}@0")));
    assert_eq!(empty.of_output(-1), digest(&format!("{text}@-1")));
    assert_eq!(empty.into_random().of_output(0), digest(&format!("{random}@0")).into_random());
}

#[test]
fn many_keys_are_stored_read_and_looked_up() {
    let folder = tempfile::tempdir().unwrap();
    let results: Arc<MemoryResults<String>> = Arc::default();
    let steps = |step: u32| digest(&format!("step {step}"));
    {
        let database = Database::open(folder.path().join("db")).unwrap();
        let cache = Cache::new("main", Arc::new(database), results.clone());
        let begun = Instant::now();
        let mut key = cache.ensure_root(named("base", 0));
        for step in 0..32_000 {
            key = cache.ensure(&only(key), steps(step));
            cache.save(key, &"files".to_owned(), at(1)).unwrap();
        }
        println!("32 000 results saved: {:?}", begun.elapsed());
    }
    let database = Database::open(folder.path().join("db")).unwrap();
    let cache = Cache::new("main", Arc::new(database), results);
    let begun = Instant::now();
    cache.warm_up();
    println!("32 001 keys read: {:?}", begun.elapsed());
    let digests: Vec<_> = (0..32_000).map(steps).collect();
    let begun = Instant::now();
    let mut key = cache.root(named("base", 0)).unwrap();
    let mut found = Vec::new();
    for digest in digests {
        let link = Link { input: 0, name: digest, selector: None };
        cache.children(key, &link, |key| found.push(key));
        key = found.pop().unwrap();
        assert_eq!(cache.records(key).len(), 1);
    }
    println!("32 000 keys looked up: {:?}", begun.elapsed());
}
