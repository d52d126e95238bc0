use super::*;
use futures::StreamExt;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

fn record(key: &str, seconds: i64) -> BuildHistoryRecord {
    let at = Some(prost_types::Timestamp { seconds, nanos: 0 });
    BuildHistoryRecord { r#ref: key.into(), created_at: at, completed_at: at, ..Default::default() }
}

fn open(dir: &tempfile::TempDir, max_entries: usize) -> History {
    let db = Database::open(dir.path().join("db")).unwrap();
    let content = ContentStore::open(dir.path().join("content")).unwrap();
    History::open(db, content, config::History { max_age: Duration::from_secs(3600), max_entries })
}

fn known(history: &History) -> Vec<String> {
    let events = history.known(&BuildHistoryRequest::default()).unwrap();
    events.iter().map(|e| e.record.as_ref().unwrap().r#ref.clone()).collect()
}

fn of(key: &str) -> BuildHistoryRequest {
    BuildHistoryRequest { r#ref: key.into(), ..Default::default() }
}

#[test]
fn what_is_both_old_and_too_much_is_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let history = open(&dir, 2);
    let now = SystemTime::now();
    let seconds = now.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs().cast_signed();
    let ages = [("older", 9000), ("old", 8000), ("young", 60), ("younger", 30), ("youngest", 1)];
    for (key, age) in ages {
        history.start(record(key, seconds - age));
        history.finish(record(key, seconds - age), &[StatusResponse::default()]).unwrap();
    }
    history.pin("old", true).unwrap();
    history.expire(now).unwrap();
    // "young" is one too many, but not old; "old" is kept on purpose.
    assert_eq!(known(&history), ["old", "young", "younger", "youngest"]);
    assert_eq!(history.progress("young").unwrap().unwrap().len(), 1);
    assert!(history.progress("older").unwrap().is_none());
    history.expire(now + Duration::from_secs(7200)).unwrap();
    assert_eq!(known(&history), ["old", "younger", "youngest"]);
}

#[test]
fn the_blobs_of_a_build_are_kept_as_long_as_its_record() {
    let dir = tempfile::tempdir().unwrap();
    let history = open(&dir, 2);
    let mut ended = record("one", 1);
    let attested = history.keep("application/json", b"{}").unwrap();
    ended.results.entry("linux/arm64".into()).or_default().attestations.push(attested.clone());
    history.finish(ended, &[StatusResponse::default()]).unwrap();
    let kept = history.record("one").unwrap().unwrap();
    let blobs = history.blobs().unwrap();
    let named = [kept.logs.unwrap(), kept.trace.unwrap(), attested];
    for blob in &named {
        let digest: Digest = blob.digest.parse().unwrap();
        assert!(blobs.contains(&digest), "{}", blob.media_type);
        assert_eq!(history.0.content.size(&digest).unwrap(), u64::try_from(blob.size).unwrap());
    }
    history.delete("one").unwrap();
    assert!(history.blobs().unwrap().is_empty());
    assert!(history.0.content.list().unwrap().is_empty());
}

#[tokio::test]
async fn whoever_asks_for_a_build_that_has_just_ended_waits_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let history = open(&dir, 2);
    let ending = history.ending("one");
    history.settled(Some("another")).await;
    let writing = history.clone();
    let written = std::thread::spawn(move || {
        writing.finish(record("one", 1), &[]).unwrap();
        drop(ending);
    });
    history.settled(None).await;
    assert_eq!(known(&history), ["one"]);
    written.join().unwrap();
}

#[tokio::test]
async fn followers_hear_what_happens_and_all_again_when_they_fell_behind() {
    let dir = tempfile::tempdir().unwrap();
    let history = open(&dir, 2);
    history.finish(record("kept", 1), &[]).unwrap();
    let stop = CancellationToken::new();
    let mut all = history.follow(BuildHistoryRequest::default(), stop.clone()).unwrap();
    let active = BuildHistoryRequest { active_only: true, ..Default::default() };
    let mut active = history.follow(active, stop.clone()).unwrap();
    let mut told = async |what: BuildHistoryEventType, key: &str| {
        let event = all.next().await.unwrap().unwrap();
        assert_eq!((event.r#type(), event.record.unwrap().r#ref.as_str()), (what, key));
    };
    told(BuildHistoryEventType::Complete, "kept").await;
    history.start(record("new", 2));
    told(BuildHistoryEventType::Started, "new").await;
    // More than fit.
    for _ in 0..=EVENTS {
        history.start(record("new", 2));
    }
    told(BuildHistoryEventType::Started, "new").await;
    told(BuildHistoryEventType::Complete, "kept").await;
    // Also who asked for those that run is told what is gone.
    drop(all);
    let mut gone =
        history.follow(BuildHistoryRequest { active_only: true, ..of("kept") }, stop.clone()).unwrap();
    history.delete("kept").unwrap();
    let event = gone.next().await.unwrap().unwrap();
    assert_eq!(event.r#type(), BuildHistoryEventType::Deleted);
    stop.cancel();
    assert!(gone.next().await.is_none());
    while active.next().await.is_some() {}
    assert_eq!(history.pin("kept", true).unwrap_err().to_string(), "build kept not found");
}

#[test]
fn a_trace_has_a_span_for_the_build_for_each_step_and_for_each_part() {
    use crosskit_api::control::{Vertex, VertexStatus};
    let at = |seconds| Some(prost_types::Timestamp { seconds, nanos: 500_000_000 });
    let step = Vertex {
        digest: "sha256:1".into(),
        name: "RUN <false>".into(),
        started: at(1),
        completed: at(3),
        error: "exit code: 1".into(),
        ..Vertex::default()
    };
    let waiting = Vertex { digest: "sha256:2".into(), name: "later".into(), ..Vertex::default() };
    let part = VertexStatus {
        id: "extracting".into(),
        vertex: "sha256:1".into(),
        started: at(1),
        completed: at(2),
        ..VertexStatus::default()
    };
    let said = StatusResponse { vertexes: vec![step, waiting], statuses: vec![part], ..Default::default() };
    let bytes = trace::of(&record("one", 1), &[said]);
    let text = String::from_utf8(bytes).unwrap();
    let spans: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let names: Vec<_> = spans.iter().map(|span| span["Name"].as_str().unwrap()).collect();
    assert_eq!(names, ["build", "RUN <false>", "extracting"]);
    assert_eq!(spans[1]["Parent"], spans[0]["SpanContext"]);
    assert_eq!(spans[2]["Parent"], spans[1]["SpanContext"]);
    assert_eq!(spans[1]["StartTime"], "1970-01-01T00:00:01.5Z");
    assert_eq!(spans[1]["Status"], serde_json::json!({"Code": "Error", "Description": "exit code: 1"}));
    let trace = spans[0]["SpanContext"]["TraceID"].as_str().unwrap();
    assert!(trace.len() == 32 && spans.iter().all(|span| span["SpanContext"]["TraceID"] == trace));
}
