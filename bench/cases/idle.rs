//! A daemon that has just started, and one that has nothing to do.

use crate::rows::{Row, Target, Unit};
use crate::stopwatch::{median, milliseconds};
use crosskit_multiarch::{Daemon, DaemonOptions, Scene};

/// From start to the first answer, and memory when idle.
pub fn idle(scene: &Scene) -> Vec<Row> {
    let mut number = 0;
    let mut memory = Vec::new();
    let start = median(7, || {
        number += 1;
        let daemon =
            scene.daemon_with(DaemonOptions { name: format!("idle-{number}"), ..Default::default() });
        let answer = daemon.buildctl(&["debug", "workers"]).ok();
        memory.push(resident(&daemon, "VmRSS:"));
        let took = milliseconds(daemon.ready_after + answer.took);
        daemon.stop();
        took
    });
    memory.sort_by(f64::total_cmp);
    vec![
        Row::new(
            "daemon start to first answer, client included",
            Unit::Milliseconds,
            start,
            Target::AtMost(50.0),
        ),
        Row::new("idle memory", Unit::Megabytes, memory[memory.len() / 2], Target::AtMost(15.0)),
    ]
}

/// A line of the daemon's `/proc/PID/status`, in megabytes: `VmRSS:` now, `VmHWM:` at most so far.
pub fn resident(daemon: &Daemon, line: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.id())).expect("the daemon runs");
    let value = status.lines().find_map(|known| known.strip_prefix(line)).expect("a line of the status");
    let kilobytes: f64 = value.trim().trim_end_matches(" kB").parse().expect("a number of kB");
    kilobytes / 1024.0
}
