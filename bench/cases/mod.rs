//! The groups of measurements. Each takes a scene and gives its rows, the same number and order
//! whoever's programs are measured.

mod caches;
mod collection;
mod contexts;
mod farm;
mod graphs;
mod idle;
mod layers;
mod plans;
mod steps;

use crate::rows::Row;
use crosskit_multiarch::{Build, Scene};
use std::process::{Command, Stdio};

/// A group's name and what runs it.
pub type Case = (&'static str, fn(&Scene) -> Vec<Row>);

/// All of them, in the order of the table.
pub const ALL: [Case; 10] = [
    ("steps", steps::steps),
    ("platforms", steps::platforms),
    ("idle", idle::idle),
    ("contexts", contexts::contexts),
    ("graphs", graphs::graphs),
    ("plans", plans::plans),
    ("collection", collection::collection),
    ("layers", layers::layers),
    ("caches", caches::caches),
    ("farm", farm::farm),
];

/// Milliseconds that a build's client takes, start and end of its process included.
fn time_build(build: Build) -> f64 {
    let mut command: Command = build.command();
    command.stderr(Stdio::null());
    crate::stopwatch::time(&mut command)
}
