//! Where: split and route as pure decisions.
//!
//! A graph for many platforms is [`split`] into groups of steps that need a machine of one
//! platform, and a [`Farm`] routes the steps of each group to a worker. Nothing here does anything:
//! graphs and the state of workers go in, decisions with their reasons come out, so that thousands
//! of workers can be simulated.

mod convex;
mod entitlements;
mod error;
mod farm;
mod placement;
mod policy;
mod preflight;
mod shape;
mod split;
mod workers;

pub use entitlements::Entitlements;
pub use error::{ErrorKind, SchedulerError};
pub use farm::{
    Ask, Assignment, BuildId, Decision, Farm, Outcome, Record, Refusal, TicketId, Turn, Verdict, WorkerView,
};
pub use placement::PlacementKey;
pub use policy::{Choice, Policy, Reason, WhenFull};
pub use preflight::{Runners, preflight};
pub use shape::executing_platform;
pub use split::{Group, Split, split};
pub use workers::{Health, Kind, WorkerState};

#[cfg(test)]
mod farm_tests;
#[cfg(test)]
mod preflight_tests;
#[cfg(test)]
mod split_tests;
