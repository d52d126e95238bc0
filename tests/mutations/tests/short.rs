//! Each target with its seeds and some thousand changes of them: always the same ones.

use crosskit_mutations::{Mutator, seeds, target};
use std::time::{Duration, Instant};

/// Changes that each target gets, as long as there is time.
const CHANGES: usize = 4000;

/// Enough for all of them on an idle machine; a busy one leaves the rest to the next run.
const TIME: Duration = Duration::from_secs(5);

fn short(name: &str) {
    let target = target(name).expect("a target");
    let seeds = seeds(&target).expect("the seeds can be read");
    assert!(seeds.len() >= 3, "{name} has {} seeds", seeds.len());
    (target.run)(&[]);
    for seed in &seeds {
        (target.run)(seed);
    }
    let mut mutator = Mutator::new(1, target.words);
    let start = Instant::now();
    for number in 0..CHANGES {
        let bytes = mutator.next(&seeds);
        let shown = String::from_utf8_lossy(&bytes);
        let caught = std::panic::catch_unwind(|| (target.run)(&bytes));
        assert!(caught.is_ok(), "{name} panics with change {number}: {shown:?}");
        if start.elapsed() > TIME {
            break;
        }
    }
}

#[test]
fn damaged_graphs_break_nothing() {
    short("llb");
}

#[test]
fn damaged_packets_break_nothing() {
    short("packets");
}

#[test]
fn damaged_layers_break_nothing() {
    short("layers");
}

#[test]
fn damaged_dockerfiles_break_nothing() {
    short("dockerfiles");
}

#[test]
fn damaged_configs_break_nothing() {
    short("configs");
}

#[test]
fn damaged_manifests_break_nothing() {
    short("manifests");
}

#[test]
fn damaged_signatures_break_nothing() {
    short("bundles");
}
