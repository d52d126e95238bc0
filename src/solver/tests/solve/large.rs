use std::time::Instant;

use crosskit_llb::Graph;
use crosskit_solver::LoadOptions;

use crate::world::{Lab, Plan, everything};

fn chain(length: usize) -> Graph {
    let mut plan = Plan::default();
    let mut below = plan.add("base", &[]);
    for step in 0..length {
        below = plan.add(&format!("step {step}"), &[below]);
    }
    plan.graph()
}

/// Eight platforms with chains of a thousand steps and a hundred stages copied together.
fn wide(platforms: usize, stages: usize, steps: usize) -> Graph {
    let mut plan = Plan::default();
    let mut results = Vec::new();
    for platform in 0..platforms {
        let mut tops = vec![plan.add(&format!("base {platform}"), &[])];
        for stage in 0..stages {
            let mut below = tops[0];
            for step in 0..steps {
                below = plan.add(&format!("{platform} {stage} {step}"), &[below]);
            }
            tops.push(below);
        }
        results.push(plan.add(&format!("merge {platform}"), &tops));
    }
    plan.add("all", &results);
    plan.graph()
}

#[tokio::test]
async fn depth_costs_no_stack() {
    let lab = Lab::new();
    let graph = chain(10_000);
    let begun = Instant::now();
    lab.build(&graph).await.unwrap();
    println!("chain of 10 000, run: {:?}", begun.elapsed());
    let begun = Instant::now();
    lab.build(&graph).await.unwrap();
    println!("chain of 10 000, known: {:?}", begun.elapsed());
    assert_eq!(lab.world.all_runs(), 10_001);
}

#[tokio::test]
async fn thousands_of_vertices_are_looked_up_at_once() {
    let lab = Lab::new();
    let graph = wide(8, 40, 100);
    println!("{} vertices", graph.len());
    let begun = Instant::now();
    lab.build(&graph).await.unwrap();
    println!("run: {:?}", begun.elapsed());
    let runs = lab.world.all_runs();
    assert_eq!(runs, graph.len());
    let again = Lab::with(lab.world.clone(), lab.store.clone(), lab.results.clone());
    let begun = Instant::now();
    again.cache.warm_up();
    println!("keys of {} rows read: {:?}", lab.store.rows(), begun.elapsed());
    for _ in 0..2 {
        let begun = Instant::now();
        let job = again.job();
        let status = job.status();
        let handle = job.load(&graph, LoadOptions::default()).unwrap();
        let loaded = begun.elapsed();
        handle.result().await.unwrap();
        let solved = begun.elapsed();
        job.close_progress();
        let told = everything(status).await.vertexes.len();
        let told_after = begun.elapsed();
        job.finish().await;
        println!(
            "known: taken in after {loaded:?}, solved after {solved:?}, \
             {told} events told after {told_after:?}, ended after {:?}",
            begun.elapsed()
        );
    }
    assert_eq!(lab.world.all_runs(), runs);
}

#[tokio::test]
async fn a_fan_out_is_linear() {
    let lab = Lab::new();
    let mut plan = Plan::default();
    let base = plan.add("base", &[]);
    let steps: Vec<_> = (0..10_000).map(|step| plan.add(&format!("step {step}"), &[base])).collect();
    plan.add("merge", &steps);
    let graph = plan.graph();
    for what in ["run", "known"] {
        let begun = Instant::now();
        lab.build(&graph).await.unwrap();
        println!("fan of 10 000, {what}: {:?}", begun.elapsed());
    }
    assert_eq!(lab.world.all_runs(), 10_002);
}
