use std::sync::Arc;

use crosskit_cache::{Cache, MemoryResults};
use crosskit_metadata::Database;
use crosskit_solver::{LoadOptions, LogLimits, Solver};

use crate::world::{Behaviour, Lab, Made, Plan, Resolver};

/// A base, two steps on it, and one on both.
fn diamond() -> Plan {
    let mut plan = Plan::default();
    let base = plan.add("base", &[]);
    let left = plan.add("left", &[base]);
    let right = plan.add("right", &[base]);
    plan.add("top", &[left, right]);
    plan
}

#[tokio::test]
async fn each_vertex_runs_once() {
    let lab = Lab::new();
    let made = lab.build(&diamond().graph()).await.unwrap();
    assert_eq!(&*made, "top(left(base()),right(base()))");
    for name in ["base", "left", "right", "top"] {
        assert_eq!(lab.world.times(&format!("run {name}")), 1, "{name}");
    }
}

#[tokio::test]
async fn nothing_runs_until_it_is_asked_for() {
    let lab = Lab::new();
    let job = lab.job();
    let handle = job.load(&diamond().graph(), LoadOptions::default()).unwrap();
    assert!(handle.trail().await.iter().all(|known| known.keys.is_empty() && known.result.is_none()));
    assert_eq!(lab.world.times("map base"), 0);
    handle.result().await.unwrap();
    assert_eq!(handle.result().await.unwrap(), handle.clone().result().await.unwrap());
    assert_eq!(lab.world.all_runs(), 4);
}

#[tokio::test]
async fn a_known_result_is_loaded_and_nothing_below_it_is() {
    let lab = Lab::new();
    let first = lab.build(&diamond().graph()).await.unwrap();
    let second = lab.build(&diamond().graph()).await.unwrap();
    assert_eq!(first, second);
    assert_eq!(lab.world.all_runs(), 4);
    // Without the results below, the one on top is still found.
    for id in ["0", "1", "2"] {
        lab.results.remove(id);
    }
    assert_eq!(lab.build(&diamond().graph()).await.unwrap(), first);
    assert_eq!(lab.world.all_runs(), 4);
}

#[tokio::test]
async fn only_what_changed_and_what_depends_on_it_runs() {
    let lab = Lab::new();
    lab.build(&diamond().graph()).await.unwrap();
    let mut plan = Plan::default();
    let base = plan.add("base", &[]);
    let left = plan.add("left", &[base]);
    let right = plan.add("right changed", &[base]);
    plan.add("top", &[left, right]);
    lab.build(&plan.graph()).await.unwrap();
    assert_eq!(lab.world.times("run base"), 1);
    assert_eq!(lab.world.times("run left"), 1);
    assert_eq!(lab.world.times("run right changed"), 1);
    assert_eq!(lab.world.times("run top"), 2);
}

#[tokio::test]
async fn a_result_that_cannot_be_loaded_is_made_again() {
    let lab = Lab::new();
    lab.build(&diamond().graph()).await.unwrap();
    // The record on top goes; those below are loaded for the new run.
    lab.results.remove("3");
    lab.build(&diamond().graph()).await.unwrap();
    assert_eq!(lab.world.times("run top"), 2);
    assert_eq!(lab.world.times("run left"), 1);
}

#[test]
fn what_was_built_is_known_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let results: Arc<MemoryResults<Made>> = Arc::default();
    let world: Arc<crate::world::World> = Arc::default();
    for start in 0..3 {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let database = Database::open(folder.path().join("db")).unwrap();
            let cache = Cache::new("main", Arc::new(database), results.clone());
            let resolver = Arc::new(Resolver(world.clone()));
            let solver = Solver::new(cache, resolver, LogLimits::default());
            let job = solver.new_job(format!("job{start}"), vec![]).unwrap();
            let handle = job.load(&diamond().graph(), LoadOptions::default()).unwrap();
            assert_eq!(&*handle.result().await.unwrap(), "top(left(base()),right(base()))");
        });
    }
    assert_eq!(world.all_runs(), 4);
    assert_eq!(world.times("map top"), 3);
}

#[tokio::test]
async fn ignoring_the_cache_runs_again_and_keeps_the_new_result() {
    let lab = Lab::new();
    lab.build(&diamond().graph()).await.unwrap();
    let mut plan = diamond();
    plan.force(1);
    let next = Behaviour { makes: Some("new left".to_owned()), ..Default::default() };
    lab.world.says("left", next);
    assert_eq!(&*lab.build(&plan.graph()).await.unwrap(), "top(new left,right(base()))");
    assert_eq!(lab.world.times("run base"), 1);
    assert_eq!(lab.world.times("run left"), 2);
    assert_eq!(lab.world.times("run right"), 1);
    assert_eq!(lab.world.times("run top"), 2);
    // The newer result is the one that is found.
    assert_eq!(&*lab.build(&diamond().graph()).await.unwrap(), "top(new left,right(base()))");
    assert_eq!(lab.world.times("run left"), 2);
}

#[tokio::test]
async fn a_job_can_ignore_the_cache_altogether() {
    let lab = Lab::new();
    lab.build(&diamond().graph()).await.unwrap();
    let job = lab.job();
    let options = LoadOptions { ignore_cache: true, ..Default::default() };
    job.load(&diamond().graph(), options).unwrap().result().await.unwrap();
    assert_eq!(lab.world.all_runs(), 8);
}

/// A context that a client sends, copied onto a base, and a step on that.
fn copy(session: &str) -> Plan {
    let mut plan = Plan::default();
    let base = plan.add("base", &[]);
    let local = plan.add_salted("local", session, &[]);
    let copy = plan.add("copy", &[base, local]);
    plan.add("run", &[copy]);
    plan
}

fn context(lab: &Lab, content: &str) {
    let makes = Some(content.to_owned());
    lab.world.says("local", Behaviour { random: true, makes, ..Default::default() });
    lab.world.says("copy", Behaviour { content: vec![1], ..Default::default() });
}

#[tokio::test]
async fn the_same_content_from_elsewhere_is_a_hit() {
    let lab = Lab::new();
    context(&lab, "files");
    let first = lab.build(&copy("a").graph()).await.unwrap();
    let second = lab.build(&copy("b").graph()).await.unwrap();
    assert_eq!(first, second);
    assert_eq!(lab.world.times("run local"), 2);
    assert_eq!(lab.world.times("digest copy 1"), 2);
    for name in ["base", "copy", "run"] {
        assert_eq!(lab.world.times(&format!("run {name}")), 1, "{name}");
    }
    context(&lab, "other files");
    lab.build(&copy("c").graph()).await.unwrap();
    assert_eq!(lab.world.times("run base"), 1);
    assert_eq!(lab.world.times("run copy"), 2);
    assert_eq!(lab.world.times("run run"), 2);
}

#[tokio::test]
async fn content_keys_survive_a_restart_and_random_keys_do_not() {
    let lab = Lab::new();
    context(&lab, "files");
    lab.build(&copy("a").graph()).await.unwrap();
    let again = Lab::with(lab.world.clone(), lab.store.clone(), lab.results.clone());
    again.build(&copy("a").graph()).await.unwrap();
    assert_eq!(lab.world.times("run local"), 2);
    assert_eq!(lab.world.times("run copy"), 1);
    assert_eq!(lab.world.times("run run"), 1);
}

#[tokio::test]
async fn content_is_not_looked_at_when_the_definition_is_known() {
    let lab = Lab::new();
    lab.world.says("copy", Behaviour { content: vec![0], ..Default::default() });
    let plan = |top: &str| {
        let mut plan = Plan::default();
        let stage = plan.add("stage", &[]);
        let copy = plan.add("copy", &[stage]);
        plan.add(top, &[copy]);
        plan
    };
    lab.build(&plan("one").graph()).await.unwrap();
    lab.build(&plan("two").graph()).await.unwrap();
    assert_eq!(lab.world.times("digest copy 0"), 1);
    assert_eq!(lab.world.times("run stage"), 1);
    assert_eq!(lab.world.times("run copy"), 1);
}

#[tokio::test]
async fn a_hit_by_content_is_remembered_by_definition() {
    let lab = Lab::new();
    lab.world.says("copy", Behaviour { content: vec![0], ..Default::default() });
    let same = Behaviour { makes: Some("same".to_owned()), ..Default::default() };
    lab.world.says("stage one", same.clone());
    lab.world.says("stage two", same);
    for (stage, digests) in [("stage one", 1), ("stage two", 2), ("stage two", 2)] {
        let mut plan = Plan::default();
        let stage = plan.add(stage, &[]);
        plan.add("copy", &[stage]);
        lab.build(&plan.graph()).await.unwrap();
        assert_eq!(lab.world.times("digest copy 0"), digests);
    }
    assert_eq!(lab.world.times("run copy"), 1);
    assert_eq!(lab.world.times("run stage two"), 1);
}

#[tokio::test]
async fn further_keys_are_asked_for_until_one_is_known() {
    let lab = Lab::new();
    let image = |manifest: &str| Behaviour {
        key: Some(manifest.to_owned()),
        further: vec!["config".to_owned()],
        ..Default::default()
    };
    let plan = || {
        let mut plan = Plan::default();
        let image = plan.add("image", &[]);
        plan.add("run", &[image]);
        plan.graph()
    };
    lab.world.says("image", image("manifest"));
    lab.build(&plan()).await.unwrap();
    lab.world.says("image", image("compressed otherwise"));
    lab.build(&plan()).await.unwrap();
    assert_eq!(lab.world.times("run image"), 1);
    assert_eq!(lab.world.times("run run"), 1);
}

#[tokio::test]
async fn outputs_are_told_apart_and_made_together() {
    let lab = Lab::new();
    lab.world.says("two", Behaviour { outputs: 2, ..Default::default() });
    let mut plan = Plan::default();
    let two = plan.add("two", &[]);
    plan.add_salted("both", "", &[(two, 1), (two, 0)]);
    assert_eq!(&*lab.build(&plan.graph()).await.unwrap(), "both(two()#1,two()#0)");
    assert_eq!(lab.world.times("run two"), 1);
    assert_eq!(&*lab.build(&plan.graph_of(two, 1)).await.unwrap(), "two()#1");
    assert_eq!(&*lab.build(&plan.graph_of(two, 0)).await.unwrap(), "two()#0");
    assert_eq!(lab.world.times("run two"), 1);
    let error = lab.build(&plan.graph_of(two, 2)).await.unwrap_err();
    assert_eq!(error.to_string(), "output 2 is wanted of an operation with 2");
}

#[tokio::test]
async fn other_caches_are_looked_into_and_what_they_have_is_kept() {
    let far = Lab::new();
    far.build(&diamond().graph()).await.unwrap();
    let near = Lab::new();
    let build = async |caches: Vec<Cache<Made>>| {
        let job = near.job();
        let options = LoadOptions { caches, ..Default::default() };
        let handle = job.load(&diamond().graph(), options).unwrap();
        let made = handle.result().await.unwrap();
        job.finish().await;
        made
    };
    let held = Arc::strong_count(&far.results);
    let other = Cache::new("far", far.store.clone(), far.results.clone());
    assert_eq!(&*build(vec![other]).await, "top(left(base()),right(base()))");
    assert_eq!(near.world.all_runs(), 0);
    // The build is over and the other cache is let go.
    assert_eq!(Arc::strong_count(&far.results), held);
    // Now it is here, under its own key.
    build(vec![]).await;
    assert_eq!(near.world.all_runs(), 0);
}

#[tokio::test]
async fn a_result_knows_its_chain_of_keys() {
    let lab = Lab::new();
    context(&lab, "files");
    let job = lab.job();
    let handle = job.load(&copy("a").graph(), LoadOptions::default()).unwrap();
    handle.result().await.unwrap();
    let trail = handle.trail().await;
    let top = trail.last().unwrap();
    assert!(top.result.is_some() && top.keys[0].0.is(&lab.cache));
    let top = lab.cache.info(top.keys[0].1).unwrap();
    assert_eq!(top.records.len(), 1);
    let copied = lab.cache.info(top.inputs[0][0].0).unwrap();
    assert_eq!(copied.inputs.len(), 2);
    // The context is known in two ways: by its random key and by its content.
    let known: Vec<bool> =
        copied.inputs[1].iter().map(|(key, _)| lab.cache.info(*key).unwrap().name.is_random()).collect();
    assert_eq!(known, [true, false]);
    let steps = handle.steps().await;
    let names: Vec<_> = steps.iter().map(|step| (step.name.as_str(), step.executed)).collect();
    assert_eq!(names, [("base", true), ("local", true), ("copy", true), ("run", true)]);
}
