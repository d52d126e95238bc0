//! Measuring commands.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Milliseconds of a duration.
pub fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// Runs a command that must succeed with its output thrown away; gives milliseconds.
pub fn time(command: &mut Command) -> f64 {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let start = Instant::now();
    let status = command.status().unwrap_or_else(|error| panic!("start {command:?}: {error}"));
    let took = milliseconds(start.elapsed());
    assert!(status.success(), "{command:?} ended with {status}");
    took
}

/// Runs a shell script that must succeed; gives milliseconds.
pub fn time_script(script: &str) -> f64 {
    time(Command::new("bash").args(["-euo", "pipefail", "-c", script]))
}

/// The median of several measurements.
pub fn median(times: usize, mut measure: impl FnMut() -> f64) -> f64 {
    middle((0..times).map(|_| measure()).collect())
}

/// The one in the middle.
pub fn middle(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}
