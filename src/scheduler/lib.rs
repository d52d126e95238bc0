//! Where: split, route, merge as pure decisions.
//!
//! A graph for many platforms is [`split`] into groups of steps that need a machine of one
//! platform, each group is [`route`]d to a worker, and the results are [`merge`]d in the order
//! that was asked for. Nothing here does anything: graphs and the state of workers go in,
//! decisions with their reasons come out, so that thousands of workers can be simulated.

mod error;
mod merge;
mod route;
mod split;
mod workers;

pub use error::{ErrorKind, SchedulerError};
pub use merge::{MergePlan, merge};
pub use route::{Decision, Policy, Reason, Route, Verdict, WhenFull, preflight, route};
pub use split::{Group, Split, executing_platform, split};
pub use workers::{Health, Kind, WorkerState, default_slots};

#[cfg(test)]
mod merge_tests;
#[cfg(test)]
mod route_tests;
#[cfg(test)]
mod split_tests;
