//! Graphs of many stages.

use super::time_build;
use crate::rows::{Row, Target, Unit};
use crate::stopwatch::median;
use crosskit_multiarch::{PLATFORMS, Scene};
use std::path::PathBuf;

/// 500 stages of 8 COPYs for 8 platforms with nothing changed, 250 of them, and 100 stages that run beside each other.
pub fn graphs(scene: &Scene) -> Vec<Row> {
    let daemon = scene.daemon();
    let [half, whole] = [250, 500].map(|stages| {
        let context = copies(scene, stages);
        let build = || daemon.build(&context).platforms(&PLATFORMS);
        time_build(build());
        time_build(build());
        median(3, || time_build(build()))
    });
    let context = parallel(scene);
    // The base image is there: what is measured are the stages.
    let warm = scene.context("warm", &[("Dockerfile", "FROM BASE\nRUN true\n")]);
    time_build(daemon.build(&warm));
    let build = || daemon.build(&context).argument("--no-cache");
    let parallel = median(3, || time_build(build()));
    daemon.stop();
    let kind = Unit::Milliseconds;
    vec![
        Row::new("500 stages × 8 COPYs × 8 platforms, unchanged", kind, whole, Target::AtMost(300.0)),
        Row::new("the same beside 250 stages: grows linearly", kind, whole, Target::TimesFloor(2.2))
            .beside("250 stages", half),
        Row::new("100 parallel stages", kind, parallel, Target::AtMost(1000.0)),
    ]
}

/// Each stage copies seven files and one of the stage before: every stage is needed, and no image
/// has more layers than an overlay can have.
pub fn copies(scene: &Scene, stages: usize) -> PathBuf {
    let mut dockerfile = String::new();
    for stage in 0..stages {
        dockerfile.push_str(&format!("FROM scratch AS s{stage}\n"));
        for file in 0..7 {
            dockerfile.push_str(&format!("COPY f{file} /s{stage}/f{file}\n"));
        }
        match stage.checked_sub(1) {
            Some(before) => dockerfile.push_str(&format!("COPY --from=s{before} /s{before}/f0 /before\n")),
            None => dockerfile.push_str("COPY f7 /before\n"),
        }
    }
    let name = format!("copies-{stages}");
    let context = scene.context(&name, &[("Dockerfile", &dockerfile)]);
    for file in 0..8 {
        scene.write(&name, &format!("f{file}"), &format!("{file}\n"));
    }
    context
}

fn parallel(scene: &Scene) -> PathBuf {
    let mut dockerfile = String::new();
    for stage in 0..100 {
        dockerfile.push_str(&format!("FROM BASE AS s{stage}\nRUN echo {stage} > /made-{stage}\n"));
    }
    dockerfile.push_str("FROM scratch\n");
    for stage in 0..100 {
        dockerfile.push_str(&format!("COPY --from=s{stage} /made-{stage} /\n"));
    }
    scene.context("parallel", &[("Dockerfile", &dockerfile)])
}
