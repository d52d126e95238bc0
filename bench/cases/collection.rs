//! Builds while room is given back.

use super::graphs::copies;
use super::time_build;
use crate::rows::{Row, Target, Unit};
use crate::stopwatch::middle;
use crosskit_multiarch::Scene;
use std::path::PathBuf;

/// How many stages of eight steps there are to be collected.
const STAGES: usize = 2500;

/// Sixty steps alone, and beside a collection that takes 20 000 records away.
pub fn collection(scene: &Scene) -> Vec<Row> {
    let daemon = scene.daemon();
    let steps = steps(scene);
    let build = || daemon.build(&steps).argument("--no-cache");
    let many = copies(scene, STAGES);
    time_build(build());
    // What was just built is still on its way to the disk: that slows either of them.
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        daemon.build(&many).run().ok();
        for _ in 0..2 {
            alone.push(time_build(build()));
        }
        std::thread::scope(|scope| {
            let collection = scope.spawn(|| daemon.buildctl(&["prune", "--all"]).ok());
            for _ in 0..2 {
                beside.push(time_build(build()));
            }
            assert!(!collection.is_finished(), "the collection was over before the steps");
        });
    }
    daemon.build(&many).run().ok();
    let started = std::time::Instant::now();
    daemon.buildctl(&["prune", "--all"]).ok();
    let quiet = started.elapsed().as_secs_f64() * 1000.0;
    daemon.stop();
    let kind = Unit::Milliseconds;
    vec![
        Row::new(
            "60 steps beside a collection of 20 000 records",
            kind,
            middle(beside),
            Target::TimesFloor(1.1),
        )
        .beside("the steps alone, the records there", middle(alone)),
        Row::new("20 000 records collected while nobody builds", kind, quiet, Target::AtMost(5000.0)),
    ]
}

/// Sixty steps, one after the other.
fn steps(scene: &Scene) -> PathBuf {
    let steps: String = (0..60).map(|step| format!("RUN echo {step} > /made-{step}\n")).collect();
    scene.context("steps", &[("Dockerfile", &format!("FROM BASE\n{steps}"))])
}
