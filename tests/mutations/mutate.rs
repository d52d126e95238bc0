//! `mutate TARGET SECONDS [SEED]`: calls a target with changed seeds for so long. What makes it panic is left in a file.
//! `mutate seeds` writes the binary seeds anew.

use crosskit_mutations::{Mutator, seeds, target, write_seeds};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::{Duration, Instant};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.as_slice() {
        [word] if word == "seeds" => write_seeds().map_err(|error| format!("writing the seeds: {error}")),
        [name, seconds] => mutate(name, seconds, "1"),
        [name, seconds, seed] => mutate(name, seconds, seed),
        _ => Err("mutate TARGET SECONDS [SEED], or mutate seeds".to_string()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mutate: {error}");
            ExitCode::FAILURE
        }
    }
}

fn mutate(name: &str, seconds: &str, seed: &str) -> Result<(), String> {
    let target = target(name).ok_or_else(|| format!("no target {name}"))?;
    let limit = seconds.parse().map(Duration::from_secs).map_err(|error| format!("{seconds:?}: {error}"))?;
    let seed = seed.parse().map_err(|error| format!("{seed:?}: {error}"))?;
    let seeds = seeds(&target).map_err(|error| format!("reading the seeds of {name}: {error}"))?;
    let mut mutator = Mutator::new(seed, target.words);
    let (start, mut calls, mut slowest) = (Instant::now(), 0_u64, Duration::ZERO);
    while start.elapsed() < limit {
        let bytes = mutator.next(&seeds);
        let before = Instant::now();
        if catch_unwind(AssertUnwindSafe(|| (target.run)(&bytes))).is_err() {
            let file = format!("{name}-{seed}-{calls}");
            std::fs::write(&file, &bytes).map_err(|error| format!("writing {file}: {error}"))?;
            return Err(format!("{name} panics with what is in {file}"));
        }
        slowest = slowest.max(before.elapsed());
        calls += 1;
    }
    eprintln!("{name}: {calls} calls in {:?}, the slowest {slowest:?}", start.elapsed());
    Ok(())
}
