//! Steps one after the other, and the same steps for eight platforms.

use super::time_build;
use crate::floors;
use crate::rows::{Row, Target, Unit};
use crate::stopwatch::median;
use crosskit_multiarch::{Daemon, DaemonOptions, PLATFORMS, Scene};
use std::path::PathBuf;

/// 30 and 90 RUN steps in a row, each above the runtime's own time.
pub fn steps(scene: &Scene) -> Vec<Row> {
    let daemon = scene.daemon();
    let [one, thirty, ninety] = [1, 30, 90].map(|count| {
        let context = sequence(scene, count);
        let build = || daemon.build(&context).argument("--no-cache");
        time_build(build());
        median(3, || time_build(build()))
    });
    let (runtime, floor) = floors::runtime(scene);
    daemon.stop();
    let each = (thirty - one) / 29.0;
    vec![
        Row::new("30 sequential RUN steps, each", Unit::Milliseconds, each, Target::AboveFloor(5.0))
            .beside(&runtime, floor),
        Row::new("90 sequential RUN steps", Unit::Milliseconds, ninety, Target::TimesFloor(3.0))
            .beside("the 30 steps", thirty),
    ]
}

fn sequence(scene: &Scene, count: usize) -> PathBuf {
    let mut dockerfile = String::from("FROM BASE\n");
    for number in 0..count {
        dockerfile.push_str(&format!("RUN [\"/bin/true\", \"{number}\"]\n"));
    }
    scene.context(&format!("steps-{count}"), &[("Dockerfile", &dockerfile)])
}

/// Eight platforms: cold, and again with nothing changed.
pub fn platforms(scene: &Scene) -> Vec<Row> {
    let dockerfile = "FROM BASE\nARG TARGETPLATFORM\nRUN echo $TARGETPLATFORM > /one\nRUN echo 2 > /two\nRUN echo 3 > /three\n";
    let context = scene.context("eight", &[("Dockerfile", dockerfile)]);
    let build =
        |daemon: &Daemon| daemon.build(&context).platforms(&PLATFORMS).output("type=image,name=bench");
    let mut number = 0;
    let cold = median(3, || {
        number += 1;
        let daemon =
            scene.daemon_with(DaemonOptions { name: format!("cold-{number}"), ..Default::default() });
        // The client and the daemon's first moments are not what is measured here.
        daemon.buildctl(&["debug", "workers"]).ok();
        let took = time_build(build(&daemon));
        daemon.stop();
        took
    });
    let daemon = scene.daemon();
    time_build(build(&daemon));
    time_build(build(&daemon));
    let unchanged = median(9, || time_build(build(&daemon)));
    daemon.stop();
    vec![
        Row::new("8 platforms, 3 RUNs, cold", Unit::Milliseconds, cold, Target::AtMost(500.0)),
        Row::new("8 platforms, unchanged", Unit::Milliseconds, unchanged, Target::AtMost(30.0)),
    ]
}
