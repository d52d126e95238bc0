use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use crosskit_solver::{Job, LoadOptions, ResultHandle};
use tokio::sync::Semaphore;

use crate::world::{Behaviour, Lab, Made, Plan};

/// A chain of steps that each promise what they make and begin early. What they have made comes when their gate is
/// opened.
fn shipping(lab: &Lab, names: &[&str]) -> (Plan, Vec<Arc<Semaphore>>) {
    let mut plan = Plan::default();
    let mut below = None;
    let mut gates = Vec::new();
    for name in names {
        let gate = Arc::new(Semaphore::new(0));
        let behaviour = Behaviour { ships: Some(gate.clone()), early: true, ..Default::default() };
        lab.world.says(name, behaviour);
        gates.push(gate);
        below = Some(plan.add(name, below.as_slice()));
    }
    (plan, gates)
}

fn wanted(job: &Job<Made>, plan: &Plan) -> ResultHandle<Made> {
    job.load(&plan.graph(), LoadOptions::default()).unwrap()
}

#[tokio::test]
async fn a_step_begins_when_what_it_needs_is_promised_and_ends_when_all_is_here() {
    let lab = Lab::new();
    let (plan, gates) = shipping(&lab, &["one", "two", "three"]);
    let job = lab.job();
    let handle = wanted(&job, &plan);
    let result = tokio::spawn(async move { handle.result().await });
    lab.world.until("promise three", 1).await;
    assert_eq!(lab.world.times("early two") + lab.world.times("early three"), 2);
    // The last has come before the first.
    gates[2].add_permits(1);
    gates[1].add_permits(1);
    assert!(!result.is_finished());
    gates[0].add_permits(1);
    assert_eq!(&*result.await.unwrap().unwrap(), "three(two(one()))");
    job.finish().await;
    // All of them are known to later builds.
    let again = lab.build(&plan.graph()).await.unwrap();
    assert_eq!(&*again, "three(two(one()))");
    assert_eq!(lab.world.all_runs(), 3);
}

#[tokio::test]
async fn a_step_that_needs_the_result_itself_waits_for_it() {
    let lab = Lab::new();
    let (mut plan, gates) = shipping(&lab, &["one"]);
    lab.world.says("by content", Behaviour { content: vec![0], early: true, ..Default::default() });
    let content = plan.add("by content", &[0]);
    plan.add("late", &[content, 0]);
    let job = lab.job();
    let handle = wanted(&job, &plan);
    let result = tokio::spawn(async move { handle.result().await });
    lab.world.until("promise one", 1).await;
    // Another build asks, so that everything that could begin has done so.
    lab.world.says("else", Behaviour::default());
    let mut other = Plan::default();
    other.add("else", &[]);
    lab.build(&other.graph()).await.unwrap();
    assert_eq!(lab.world.times("digest by content 0") + lab.world.times("run late"), 0);
    gates[0].add_permits(1);
    assert_eq!(&*result.await.unwrap().unwrap(), "late(by content(one()),one())");
}

#[tokio::test]
async fn what_is_promised_comes_though_nobody_waits_for_it_and_then_the_build_is_settled() {
    let lab = Lab::new();
    let (mut plan, gates) = shipping(&lab, &["base"]);
    // Begins early, and is done without the result.
    lab.world.says("over", Behaviour { early: true, fails: Some("no".into()), ..Default::default() });
    plan.add("over", &[0]);
    let job = lab.job();
    assert!(wanted(&job, &plan).result().await.is_err());
    assert_eq!(lab.world.times("cancel base"), 0);
    assert!(!job.is_settled().await);
    let settled = job.settled();
    tokio::pin!(settled);
    assert!(futures::poll!(&mut settled).is_pending());
    assert!(job.context().is_answered());
    gates[0].add_permits(1);
    settled.await;
    assert!(job.is_settled().await);
    job.finish().await;
    // The next attempt finds it.
    lab.world.says("over", Behaviour::default());
    lab.build(&plan.graph()).await.unwrap();
    assert_eq!(lab.world.times("run base"), 1);
}

#[tokio::test]
async fn a_promise_that_is_broken_fails_its_own_step_and_those_that_use_it() {
    let lab = Lab::new();
    let (plan, gates) = shipping(&lab, &["one", "two"]);
    let one = Behaviour {
        ships: Some(gates[0].clone()),
        loses_shipped: Arc::new(AtomicUsize::new(1)),
        ..Default::default()
    };
    lab.world.says("one", one);
    let job = lab.job();
    let handle = wanted(&job, &plan);
    let result = tokio::spawn(async move { handle.result().await });
    lab.world.until("promise two", 1).await;
    gates[1].add_permits(1);
    gates[0].add_permits(1);
    let error = result.await.unwrap().unwrap_err();
    assert_eq!(error.vertex.unwrap().digest.to_string(), plan.digest(0));
    assert_eq!(error.message, "it went down");
    job.settled().await;
}

#[tokio::test]
async fn the_end_of_a_build_ends_what_is_on_its_way() {
    let lab = Lab::new();
    let (plan, _gates) = shipping(&lab, &["one", "two"]);
    let job = lab.job();
    let handle = wanted(&job, &plan);
    let result = tokio::spawn(async move { handle.result().await });
    lab.world.until("promise two", 1).await;
    job.finish().await;
    assert!(result.await.unwrap().is_err());
    assert_eq!(lab.world.times("cancel one") + lab.world.times("cancel two"), 2);
}
