//! Plays a farm and prints what came of it.

use std::io::Write;
use std::process::ExitCode;
use std::time::Instant;

use crosskit_farm_sim::{Plan, simulate};

fn main() -> ExitCode {
    let plan = match Plan::from_args(std::env::args().skip(1)) {
        Ok(plan) => plan,
        Err(why) => {
            let _ = writeln!(std::io::stderr(), "farm-sim: {why}");
            return ExitCode::from(2);
        }
    };
    let start = Instant::now();
    let report = simulate(&plan);
    let text = format!(
        "{} workers of 8 architectures, {} builds of {} projects, load {:.2}, seed {}; simulated in {:.0} s\n\n{report}",
        plan.workers,
        plan.builds,
        plan.projects,
        plan.load,
        plan.seed,
        start.elapsed().as_secs_f64()
    );
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
