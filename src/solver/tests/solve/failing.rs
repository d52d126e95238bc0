use std::sync::Arc;

use crosskit_solver::{ErrorKind, JobError, LoadOptions};
use tokio::sync::Semaphore;

use crate::world::{Behaviour, Lab, Plan, everything, last};

#[tokio::test]
async fn the_first_failure_is_everybodys() {
    let lab = Lab::new();
    let gate = Arc::new(Semaphore::new(0));
    lab.world.says("slow", Behaviour { gate: Some(gate), ..Default::default() });
    let fails = Some("exit code: 1".to_owned());
    lab.world.says("bad", Behaviour { fails, ..Default::default() });
    let mut plan = Plan::default();
    let slow = plan.add("slow", &[]);
    let base = plan.add("base", &[]);
    let bad = plan.add("bad", &[base]);
    plan.add("top", &[slow, bad]);
    plan.locate(bad, 6);
    plan.locate(bad, 7);
    let job = lab.job();
    let status = job.status();
    let error = job.load(&plan.graph(), LoadOptions::default()).unwrap().result().await;
    let error = error.unwrap_err();
    assert_eq!(error.to_string(), "exit code: 1");
    assert_eq!(error.kind(), ErrorKind::User);
    assert_eq!(&*error.name, "bad");
    let details = error.details();
    assert_eq!(details.vertex, Some(plan.digest(bad)));
    let lines: Vec<_> = details.sources.iter().map(|s| s.ranges[0].start.unwrap().line).collect();
    assert_eq!(lines, [7, 6]);
    assert_eq!(details.sources[0].info.as_ref().unwrap().filename, "Dockerfile");
    assert_eq!(details.solve.unwrap().op, error.vertex.map(|vertex| vertex.op.clone()));
    // What ran beside it is cancelled, what depends on it does not run.
    job.finish().await;
    assert_eq!(lab.world.times("cancel slow") + lab.world.times("run slow"), 2);
    assert_eq!(lab.world.times("run top"), 0);
    let all = everything(status).await;
    assert_eq!(last(&all, &plan.digest(bad)).error, "exit code: 1");
    assert_eq!(last(&all, &plan.digest(slow)).error, "context canceled");
    assert!(last(&all, &plan.digest(3)).started.is_none());
}

#[tokio::test]
async fn a_failure_is_not_cached() {
    let lab = Lab::new();
    let fails = Some("no".to_owned());
    lab.world.says("bad", Behaviour { fails, ..Default::default() });
    let mut plan = Plan::default();
    let base = plan.add("base", &[]);
    plan.add("bad", &[base]);
    lab.build(&plan.graph()).await.unwrap_err();
    let keys = lab.cache.keys();
    lab.world.says("bad", Behaviour::default());
    lab.build(&plan.graph()).await.unwrap();
    assert_eq!(lab.world.times("run base"), 1);
    assert_eq!(lab.world.times("run bad"), 2);
    assert_eq!((keys, lab.cache.keys()), (1, 2));
}

#[tokio::test]
async fn what_cannot_be_resolved_says_so() {
    let lab = Lab::new();
    let mut plan = Plan::default();
    let base = plan.add("unresolvable", &[]);
    plan.add("top", &[base]);
    let error = lab.build(&plan.graph()).await.unwrap_err();
    assert_eq!(error.to_string(), "failed to load cache key: nobody can run it");
    assert_eq!(&*error.name, "unresolvable");
}

#[tokio::test]
async fn a_panic_is_an_error_of_its_vertex() {
    let lab = Lab::new();
    lab.world.says("bad", Behaviour { panics: true, ..Default::default() });
    let mut plan = Plan::default();
    plan.add("bad", &[]);
    let error = lab.build(&plan.graph()).await.unwrap_err();
    assert_eq!(error.to_string(), "the operation has panicked: at the disco");
    assert_eq!(error.kind(), ErrorKind::Internal);
    // And the engine goes on.
    let mut plan = Plan::default();
    plan.add("good", &[]);
    lab.build(&plan.graph()).await.unwrap();
}

#[tokio::test]
async fn jobs_have_names_of_their_own() {
    let lab = Lab::new();
    let job = lab.solver.new_job("name", vec![]).unwrap();
    let again = lab.solver.new_job("name", vec![]).map(|_| ());
    assert_eq!(again.unwrap_err(), JobError::Exists("name".to_owned()));
    drop(job);
}

#[tokio::test]
async fn after_the_end_nothing_is_solved() {
    let lab = Lab::new();
    let mut plan = Plan::default();
    plan.add("step", &[]);
    let job = lab.job();
    let handle = job.load(&plan.graph(), LoadOptions::default()).unwrap();
    job.finish().await;
    assert_eq!(handle.result().await.unwrap_err().kind(), ErrorKind::Canceled);
    assert_eq!(lab.world.all_runs(), 0);
}
