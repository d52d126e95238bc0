//! The scheduler on farms that nobody has.
//!
//! A discrete-event simulation drives [`crosskit_scheduler::Farm`] itself, not a model of it, with
//! made-up workers and builds: [`Plan`] says how many, [`simulate`] plays it, [`Report`] says what
//! came of it. The same plan always gives the same decisions; only the time that they took is
//! measured.

mod fleet;
mod histogram;
mod plan;
mod random;
mod report;
mod simulation;
mod steps;
mod workload;

pub use histogram::Histogram;
pub use plan::Plan;
pub use report::Report;
pub use simulation::simulate;

#[cfg(test)]
mod simulation_tests;
