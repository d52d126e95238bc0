use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use crosskit_solver::LoadOptions;
use tokio::sync::Semaphore;

use crate::world::{Behaviour, Lab, Plan, everything, last};

fn gated() -> (Arc<Semaphore>, Behaviour) {
    let gate = Arc::new(Semaphore::new(0));
    (gate.clone(), Behaviour { gate: Some(gate), ..Default::default() })
}

fn chain(names: &[&str]) -> Plan {
    let mut plan = Plan::default();
    let mut below = None;
    for name in names {
        below = Some(plan.add(name, below.as_slice()));
    }
    plan
}

#[tokio::test]
async fn stages_that_are_copied_from_one_after_the_other_run_side_by_side() {
    let lab = Lab::new();
    let stages = ["one", "two", "three"];
    let files = Some("files".to_owned());
    lab.world.says("local", Behaviour { random: true, makes: files, ..Default::default() });
    lab.world.says("base", Behaviour { content: vec![0], ..Default::default() });
    let plan = |prefix: &str| {
        let mut plan = Plan::default();
        let local = plan.add_salted("local", prefix, &[]);
        let base = plan.add("base", &[local]);
        let mut result = base;
        for stage in stages {
            let made = plan.add(&format!("{prefix}{stage}"), &[base]);
            let copy = format!("copy {stage}");
            lab.world.says(&copy, Behaviour { content: vec![1], ..Default::default() });
            result = plan.add(&copy, &[result, made]);
        }
        plan.graph_of(result, 0)
    };
    lab.build(&plan("")).await.unwrap();
    // All stages have changed. That the copies have been made before must not have them wait for each other.
    let gates: Vec<_> = stages
        .iter()
        .map(|stage| {
            let (gate, slow) = gated();
            lab.world.says(&format!("new {stage}"), slow);
            gate
        })
        .collect();
    let job = lab.job();
    let handle = job.load(&plan("new "), LoadOptions::default()).unwrap();
    let release = async {
        for stage in stages {
            lab.world.until(&format!("run new {stage}"), 1).await;
        }
        gates.iter().for_each(|gate| gate.add_permits(1));
    };
    let (made, ()) = tokio::join!(handle.result(), release);
    made.unwrap();
    assert_eq!(lab.world.times("run base"), 1);
    assert_eq!(lab.world.all_runs(), 8 + 7);
}

#[tokio::test]
async fn builds_that_want_the_same_share_one_run() {
    let lab = Lab::new();
    let (gate, slow) = gated();
    lab.world.says("slow", slow);
    let plan = chain(&["slow"]);
    let (one, two) = (lab.job(), lab.job());
    let (status_one, status_two) = (one.status(), two.status());
    let first = one.load(&plan.graph(), LoadOptions::default()).unwrap();
    let second = two.load(&plan.graph(), LoadOptions::default()).unwrap();
    let release = async {
        lab.world.until("run slow", 1).await;
        gate.add_permits(2);
    };
    let (first, second, ()) = tokio::join!(first.result(), second.result(), release);
    assert_eq!(first.unwrap(), second.unwrap());
    assert_eq!(lab.world.times("run slow"), 1);
    one.finish().await;
    two.finish().await;
    for status in [status_one, status_two] {
        let all = everything(status).await;
        let step = last(&all, &plan.digest(0));
        assert!(step.completed.is_some() && !step.cached, "{step:?}");
        assert_eq!(all.logs[0].msg, b"slow");
    }
}

#[tokio::test]
async fn different_vertices_with_the_same_key_share_one_run() {
    let lab = Lab::new();
    let (gate, slow) = gated();
    lab.world
        .says("local", Behaviour { random: true, makes: Some("files".to_owned()), ..Default::default() });
    lab.world.says("copy", Behaviour { content: vec![0], ..slow });
    let plan = |session: &str| {
        let mut plan = Plan::default();
        let local = plan.add_salted("local", session, &[]);
        let copy = plan.add("copy", &[local]);
        plan.add("run", &[copy]);
        plan
    };
    let (one, two) = (lab.job(), lab.job());
    let status = two.status();
    let first = one.load(&plan("a").graph(), LoadOptions::default()).unwrap();
    let second = two.load(&plan("b").graph(), LoadOptions::default()).unwrap();
    let release = async {
        lab.world.until("run copy", 1).await;
        lab.world.until("digest copy 0", 2).await;
        gate.add_permits(5);
    };
    let (first, second, ()) = tokio::join!(first.result(), second.result(), release);
    assert_eq!(first.unwrap(), second.unwrap());
    assert_eq!(lab.world.times("run local"), 2);
    assert_eq!(lab.world.times("run copy"), 1);
    assert_eq!(lab.world.times("run run"), 1);
    drop(one);
    two.finish().await;
    // The second build has followed the run that was the first one's.
    let all = everything(status).await;
    assert!(last(&all, &plan("a").digest(1)).completed.is_some());
}

#[tokio::test]
async fn the_run_goes_on_for_who_is_left() {
    let lab = Lab::new();
    let (gate, slow) = gated();
    lab.world.says("slow", slow);
    let graph = chain(&["slow", "top"]).graph();
    let (one, two) = (lab.job(), lab.job());
    let first = one.load(&graph, LoadOptions::default()).unwrap();
    let second = two.load(&graph, LoadOptions::default()).unwrap();
    let first = tokio::spawn(async move { first.result().await });
    let second = tokio::spawn(async move { second.result().await });
    lab.world.until("run slow", 1).await;
    drop(one);
    assert!(first.await.unwrap().is_err());
    gate.add_permits(1);
    assert_eq!(&*second.await.unwrap().unwrap(), "top(slow())");
    assert_eq!(lab.world.times("run slow"), 1);
    assert_eq!(lab.world.times("cancel slow"), 0);
}

#[tokio::test]
async fn a_shared_key_goes_on_for_who_is_left() {
    let lab = Lab::new();
    let (gate, slow) = gated();
    lab.world.says("slow", slow);
    let plan = |salt: &str| {
        let mut plan = Plan::default();
        let base = plan.add("base", &[]);
        plan.add_salted("slow", salt, &[(base, 0)]);
        plan.graph()
    };
    let (one, two) = (lab.job(), lab.job());
    let first = one.load(&plan("a"), LoadOptions::default()).unwrap();
    let second = two.load(&plan("b"), LoadOptions::default()).unwrap();
    let first = tokio::spawn(async move { first.result().await });
    lab.world.until("run slow", 1).await;
    let second = tokio::spawn(async move { second.result().await });
    // Its key is known, and that this one runs.
    lab.world.until("map slow", 2).await;
    tokio::task::yield_now().await;
    drop(one);
    assert!(first.await.unwrap().is_err());
    gate.add_permits(2);
    assert_eq!(&*second.await.unwrap().unwrap(), "slow(base())");
}

#[tokio::test]
async fn what_nobody_wants_is_cancelled_and_the_end_is_waited_for() {
    let lab = Lab::new();
    let (_gate, slow) = gated();
    lab.world.says("slow", slow);
    let job = lab.job();
    let handle = job.load(&chain(&["slow", "top"]).graph(), LoadOptions::default()).unwrap();
    let result = tokio::spawn(async move { handle.result().await });
    lab.world.until("run slow", 1).await;
    job.finish().await;
    assert_eq!(lab.world.times("cancel slow"), 1);
    assert_eq!(lab.world.times("run top"), 0);
    assert_eq!(result.await.unwrap().unwrap_err().to_string(), "context canceled");
}

#[tokio::test]
async fn who_stops_waiting_can_ask_again() {
    let lab = Lab::new();
    let (gate, slow) = gated();
    lab.world.says("slow", slow);
    let job = lab.job();
    let handle = job.load(&chain(&["slow", "top"]).graph(), LoadOptions::default()).unwrap();
    tokio::select! {
        _ = handle.result() => panic!("there is no permit to run"),
        () = lab.world.until("run slow", 1) => {}
    }
    lab.world.until("cancel slow", 1).await;
    gate.add_permits(1);
    assert_eq!(&*handle.result().await.unwrap(), "top(slow())");
    assert_eq!(lab.world.times("run slow"), 2);
}

#[tokio::test]
async fn a_cancelled_search_for_a_key_can_begin_again() {
    let lab = Lab::new();
    let gate = Arc::new(Semaphore::new(0));
    let behaviour = Behaviour { map_gate: Some(gate.clone()), ..Default::default() };
    lab.world.says("source", behaviour);
    let job = lab.job();
    let handle = job.load(&chain(&["source", "top"]).graph(), LoadOptions::default()).unwrap();
    {
        let result = handle.result();
        tokio::pin!(result);
        // Polled once, so that it is asked for.
        assert!(futures::poll!(result.as_mut()).is_pending());
        tokio::task::yield_now().await;
    }
    gate.add_permits(2);
    assert_eq!(&*handle.result().await.unwrap(), "top(source())");
}

#[tokio::test]
async fn a_session_that_left_is_no_failure_for_who_is_left() {
    let lab = Lab::new();
    let (gate, slow) = gated();
    let loses_session = Arc::new(AtomicUsize::new(1));
    lab.world.says("slow", Behaviour { loses_session, ..slow });
    let graph = chain(&["slow", "top"]).graph();
    let (one, two) = (lab.job(), lab.job());
    let first = one.load(&graph, LoadOptions::default()).unwrap();
    let second = two.load(&graph, LoadOptions::default()).unwrap();
    let first = tokio::spawn(async move { first.result().await });
    let second = tokio::spawn(async move { second.result().await });
    lab.world.until("run slow", 1).await;
    one.finish().await;
    assert!(first.await.unwrap().is_err());
    gate.add_permits(2);
    assert_eq!(&*second.await.unwrap().unwrap(), "top(slow())");
    assert_eq!(lab.world.times("run slow"), 2);
}

#[tokio::test]
async fn who_insists_on_a_run_does_not_share_one_but_lets_others_share() {
    let lab = Lab::new();
    let (gate, slow) = gated();
    lab.world.says("slow", slow);
    let plain = chain(&["slow"]);
    let mut forced = chain(&["slow"]);
    forced.force(0);
    let (one, two, three) = (lab.job(), lab.job(), lab.job());
    let status = two.status();
    let first = one.load(&plain.graph(), LoadOptions::default()).unwrap();
    let second = two.load(&forced.graph(), LoadOptions::default()).unwrap();
    let third = three.load(&plain.graph(), LoadOptions::default()).unwrap();
    let release = async {
        lab.world.until("run slow", 2).await;
        gate.add_permits(9);
    };
    let (first, second, third, ()) = tokio::join!(first.result(), second.result(), third.result(), release);
    assert!(first.is_ok() && second.is_ok() && third.is_ok());
    assert_eq!(lab.world.times("run slow"), 2);
    // Two states of one vertex have two names.
    two.finish().await;
    let all = everything(status).await;
    let name = format!("{}-ignorecache", plain.digest(0));
    let name = crosskit_llb::Digest::of(name.as_bytes()).to_string();
    assert!(last(&all, &name).completed.is_some());
}
