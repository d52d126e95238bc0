//! What it costs to let a worker do it.

use super::time_build;
use crate::rows::{Row, Target, Unit};
use crate::stopwatch::median;
use crosskit_multiarch::{Daemon, DaemonOptions, Scene};

/// Steps at a worker of ours on this very machine, beside the same steps without it: one, with which the session at
/// the worker is opened, and each further one.
pub fn farm(scene: &Scene) -> Vec<Row> {
    let worker = scene.daemon_with(DaemonOptions { name: "worker".into(), ..Default::default() });
    let config = format!(
        "[farm]\n  prefer = [\"remote\"]\n[[farm.worker]]\n  name = \"near\"\n  addr = \"{}\"\n",
        worker.address()
    );
    // Somebody else's daemon knows of no farm, and does everything itself.
    let config = if scene.programs.are_foreign() { String::new() } else { config };
    let endpoint = scene.daemon_with(DaemonOptions { name: "endpoint".into(), config, ..Default::default() });
    let alone = scene.daemon_with(DaemonOptions { name: "alone".into(), ..Default::default() });
    let [there, here] = [&endpoint, &alone].map(|daemon| [1, 11].map(|steps| time(scene, daemon, steps)));
    for daemon in [endpoint, alone, worker] {
        daemon.stop();
    }
    let kind = Unit::Milliseconds;
    let further = |times: [f64; 2]| (times[1] - times[0]) / 10.0;
    vec![
        Row::new("one step at a worker, its session opened", kind, there[0], Target::AboveFloor(60.0))
            .beside("here", here[0]),
        Row::new("each further step at a worker", kind, further(there), Target::AboveFloor(30.0))
            .beside("here", further(here)),
    ]
}

fn time(scene: &Scene, daemon: &Daemon, steps: usize) -> f64 {
    let mut dockerfile = String::from("FROM BASE\n");
    for number in 0..steps {
        dockerfile.push_str(&format!("RUN echo {number} > /made-{number}\n"));
    }
    let context = scene.context(&format!("farm-{steps}"), &[("Dockerfile", &dockerfile)]);
    let build = || daemon.build(&context).argument("--no-cache");
    time_build(build());
    median(5, || time_build(build()))
}
