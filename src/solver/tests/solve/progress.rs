use std::io::Write;
use std::time::Duration;

use crosskit_api::control::VertexWarning;
use crosskit_solver::progress::Stream;
use crosskit_solver::{JobError, LoadOptions, StatusUpdate};
use futures::StreamExt;
use tokio::time::Instant;

use crate::world::{Lab, Plan, everything, last};

fn two_steps() -> Plan {
    let mut plan = Plan::default();
    let base = plan.add("base", &[]);
    let middle = plan.add("middle", &[base]);
    plan.add("top", &[middle]);
    plan
}

#[tokio::test]
async fn late_listeners_hear_everything() {
    let lab = Lab::new();
    let plan = two_steps();
    let job = lab.job();
    job.load(&plan.graph(), LoadOptions::default()).unwrap().result().await.unwrap();
    let early = job.status();
    job.close_progress();
    let (early, late) = (everything(early).await, everything(job.status()).await);
    assert_eq!(early, late);
    let logs: Vec<_> = late.logs.iter().map(|log| log.msg.as_slice()).collect();
    assert_eq!(logs, [b"base".as_slice(), b"middle", b"top"]);
    for node in 0..3 {
        let step = last(&late, &plan.digest(node));
        assert!(step.started.is_some() && step.completed.is_some() && !step.cached);
    }
    assert_eq!(last(&late, &plan.digest(1)).inputs, [plan.digest(0)]);
    assert_eq!(last(&late, &plan.digest(1)).name, "middle");
}

#[tokio::test]
async fn skipped_steps_are_shown_as_cached() {
    let lab = Lab::new();
    let plan = two_steps();
    lab.build(&plan.graph()).await.unwrap();
    let job = lab.job();
    let status = job.status();
    job.load(&plan.graph(), LoadOptions::default()).unwrap().result().await.unwrap();
    job.finish().await;
    let all = everything(status).await;
    // All steps are told of when the graph is loaded.
    let first: Vec<_> = all.vertexes.iter().take(3).map(|step| step.started.is_none()).collect();
    assert_eq!(first, [true; 3]);
    // The key of the base was looked for, which is work of its own.
    let base = last(&all, &plan.digest(0));
    assert!(base.completed.is_some() && !base.cached);
    let (middle, top) = (last(&all, &plan.digest(1)), last(&all, &plan.digest(2)));
    assert!(top.cached && top.completed.is_some());
    assert!(middle.cached);
    assert_eq!((middle.started, middle.completed), (top.started, top.started));
}

#[tokio::test(start_paused = true)]
async fn the_status_of_a_build_to_come_is_waited_for() {
    let lab = Lab::new();
    let begun = Instant::now();
    let error = lab.solver.status("never").await.map(|_| ()).unwrap_err();
    assert_eq!(error, JobError::Unknown("never".to_owned()));
    assert_eq!(error.to_string(), "no such job never");
    assert_eq!(begun.elapsed(), Duration::from_secs(6));

    let solver = lab.solver.clone();
    let status = tokio::spawn(async move { everything(solver.status("soon").await.unwrap()).await });
    tokio::time::sleep(Duration::from_secs(5)).await;
    let job = lab.solver.new_job("soon", vec![]).unwrap();
    job.context().step("exporting", None).begin(false).end(None);
    drop(job);
    assert_eq!(status.await.unwrap().vertexes[1].name, "exporting");

    // And it can be asked for after the end.
    assert!(lab.solver.status("soon").await.is_ok());
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert!(lab.solver.status("soon").await.is_err());
}

#[tokio::test(start_paused = true)]
async fn messages_are_paced_and_the_end_is_not() {
    let lab = Lab::new();
    let job = lab.job();
    let mut status = job.status();
    let step = job.context().step("step", None);
    let begun = Instant::now();
    let running = step.begin(false);
    assert!(status.next().await.is_some());
    assert_eq!(begun.elapsed(), Duration::ZERO);
    step.log(Stream::Stdout, b"1");
    step.log(Stream::Stdout, b"2");
    assert_eq!(status.next().await.unwrap().logs.len(), 2);
    assert_eq!(begun.elapsed(), Duration::from_millis(100));
    running.end(None);
    job.close_progress();
    assert_eq!(status.next().await.unwrap().vertexes.len(), 1);
    assert!(status.next().await.is_none());
    assert_eq!(begun.elapsed(), Duration::from_millis(100));
}

#[tokio::test(start_paused = true)]
async fn statuses_are_paced_but_for_their_ends() {
    let lab = Lab::new();
    let job = lab.job();
    let step = job.context().step("pull", None);
    for current in 0..100 {
        let id = "layer".to_owned();
        step.status(StatusUpdate { id, current, total: 100, ..Default::default() });
        tokio::time::advance(Duration::from_millis(10)).await;
    }
    drop(step.part("extract"));
    job.close_progress();
    let all = everything(job.status()).await;
    let layers = all.statuses.iter().filter(|status| status.id == "layer").count();
    assert_eq!(layers, 10);
    let extract: Vec<_> = all.statuses.iter().filter(|status| status.id == "extract").collect();
    assert_eq!(extract.len(), 2);
    assert!(extract[1].completed.is_some());
}

#[tokio::test(start_paused = true)]
async fn what_was_said_before_a_step_begins_again_is_told_before_it() {
    let lab = Lab::new();
    let job = lab.job();
    let mut status = job.status();
    let (step, other) = (job.context().step("step", None), job.context().step("other", None));
    for words in ["first", "second"] {
        let running = step.begin(false);
        other.begin(false).end(None);
        step.log(Stream::Stdout, words.as_bytes());
        running.end(None);
    }
    let begun = Instant::now();
    let (first, second) = (status.next().await.unwrap(), status.next().await.unwrap());
    assert_eq!([first.logs.len(), second.logs.len()], [1, 1]);
    assert_eq!(first.vertexes.last().unwrap().digest, step.digest().to_string());
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test]
async fn a_step_that_fails_has_no_part_that_runs() {
    let lab = Lab::new();
    let job = lab.job();
    let step = job.context().step("pull", None);
    let part = |id: &str| StatusUpdate { id: id.to_owned(), current: 5, total: 9, ..Default::default() };
    let running = step.begin(false);
    step.status(part("a"));
    step.status(part("b"));
    running.end(Some("no such layer"));
    job.close_progress();
    let all = everything(job.status()).await;
    let ended: Vec<_> = all.statuses.iter().filter(|status| status.completed.is_some()).collect();
    assert_eq!(ended.iter().map(|status| status.current).collect::<Vec<_>>(), [5, 5]);
}

#[tokio::test]
async fn what_was_running_at_the_end_was_cancelled() {
    let lab = Lab::new();
    let job = lab.job();
    let step = job.context().step("step", Some("an id"));
    let running = step.begin(false);
    step.warn(VertexWarning { short: b"look".to_vec(), ..Default::default() });
    job.close_progress();
    running.end(None);
    let all = everything(job.status()).await;
    assert_eq!(all.vertexes.len(), 2);
    assert_eq!(all.vertexes[1].error, "context canceled");
    assert_eq!(all.vertexes[1].digest, crosskit_llb::Digest::of(b"an id").to_string());
    assert_eq!(all.warnings[0].vertex, all.vertexes[0].digest);
}

#[tokio::test(start_paused = true)]
async fn output_is_clipped_and_its_end_is_kept() {
    let lab = Lab::new();
    let job = lab.job();
    let step = job.context().step("chatty", None);
    // A little time has passed: the first second's worth may be passed on.
    let mut writer = step.writer(Stream::Stderr);
    tokio::time::advance(Duration::from_millis(1)).await;
    let line = [b'x'; 1024];
    for _ in 0..300 {
        writer.write_all(&line).unwrap();
    }
    writer.write_all(b"the end").unwrap();
    drop(writer);
    job.close_progress();
    let all = everything(job.status()).await;
    let text: Vec<u8> = all.logs.iter().flat_map(|log| log.msg.clone()).collect();
    let text = String::from_utf8(text).unwrap();
    let note = "\n[output clipped, log limit 200KiB/s reached]\n";
    assert_eq!(text.find(note), Some(200 * 1024));
    assert_eq!(text.matches("clipped").count(), 1);
    assert!(text.ends_with("the end"));
    assert!(all.logs.iter().all(|log| log.stream == 2));
}
