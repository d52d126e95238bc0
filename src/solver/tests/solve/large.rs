//! Large graphs. The times are printed, not judged: other work on the machine counts into them,
//! less so into those of the processor.

use std::fmt;
use std::time::{Duration, Instant};

use crosskit_llb::Graph;
use crosskit_solver::LoadOptions;

use crate::world::{Lab, Plan, everything};

/// Time since something began, and how much of it this thread had.
struct Watch(Instant, Duration);

/// How long this thread has run, as the kernel counts it.
fn on_processor() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
}

impl Watch {
    fn start() -> Self {
        Watch(Instant::now(), on_processor())
    }
}

impl fmt::Display for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1?} (processor {:.1?})", self.0.elapsed(), on_processor() - self.1)
    }
}

fn chain(length: usize) -> Graph {
    let mut plan = Plan::default();
    let mut below = plan.add("base", &[]);
    for step in 0..length {
        below = plan.add(&format!("step {step}"), &[below]);
    }
    plan.graph()
}

/// Platforms with stages that are chains, copied together.
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
    for what in ["run", "known"] {
        let watch = Watch::start();
        lab.build(&graph).await.unwrap();
        println!("chain of 10 000, {what}: {watch}");
    }
    assert_eq!(lab.world.all_runs(), 10_001);
}

#[tokio::test]
async fn thousands_of_vertices_are_looked_up_at_once() {
    let lab = Lab::new();
    let graph = wide(8, 40, 100);
    println!("{} vertices", graph.len());
    let watch = Watch::start();
    lab.build(&graph).await.unwrap();
    println!("run: {watch}");
    let runs = lab.world.all_runs();
    assert_eq!(runs, graph.len());
    let again = Lab::with(lab.world.clone(), lab.store.clone(), lab.results.clone());
    let watch = Watch::start();
    again.cache.warm_up();
    println!("{} rows of keys read: {watch}", lab.store.rows());
    for _ in 0..2 {
        let watch = Watch::start();
        let job = again.job();
        let status = job.status();
        let handle = job.load(&graph, LoadOptions::default()).unwrap();
        let loaded = watch.to_string();
        handle.result().await.unwrap();
        println!("known: prepared after {loaded}, solved after {watch}");
        job.close_progress();
        let told = everything(status).await.vertexes.len();
        println!("  {told} events told after {watch}");
        job.finish().await;
        println!("  all let go after {watch}");
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
        let watch = Watch::start();
        lab.build(&graph).await.unwrap();
        println!("fan of 10 000, {what}: {watch}");
    }
    assert_eq!(lab.world.all_runs(), 10_002);
}
