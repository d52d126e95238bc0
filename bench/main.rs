//! Each promise about speed beside its floor, measured in one run.
//!
//! `bench` runs everything, `bench steps start` only the groups named. `CROSSKIT_BENCH_PEER` names
//! a folder with somebody else's `buildkitd` and `buildctl`, which then do the same work in the
//! same run. The table is Markdown.
#![allow(clippy::print_stdout, reason = "this program is for people")]

mod cases;
mod floors;
mod rows;
mod stopwatch;

use crosskit_multiarch::Scene;
use rows::Row;
use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    if let Some(unknown) = wanted.iter().find(|name| !cases::ALL.iter().any(|(known, _)| known == name)) {
        let known: Vec<&str> = cases::ALL.iter().map(|(name, _)| *name).collect();
        eprintln!("no group {unknown}; there are: {}", known.join(" "));
        return ExitCode::FAILURE;
    }
    let peer = std::env::var_os("CROSSKIT_BENCH_PEER").map(PathBuf::from);
    let mut rows: Vec<Row> = Vec::new();
    for (name, case) in cases::ALL {
        if !wanted.is_empty() && !wanted.iter().any(|one| one == name) {
            continue;
        }
        eprintln!("{name} …");
        let ours = case(&Scene::set_for(None));
        let theirs = peer.as_deref().map(|folder| {
            eprintln!("{name}, the peer …");
            case(&Scene::set_for(Some(folder)))
        });
        for (at, mut row) in ours.into_iter().enumerate() {
            row.peer = theirs.as_ref().and_then(|rows| rows.get(at)).map(|row| row.measured);
            eprintln!("  {row}");
            rows.push(row);
        }
    }
    println!("{}", rows::table(&rows));
    ExitCode::SUCCESS
}
