//! Who runs it: the kinds of worker.
//!
//! There is this machine, for its own platforms and, through an emulator, for others, and there
//! are daemons on other machines ([`remote`]). [`Workers`] knows them all, decides before anything runs
//! whether every platform of a graph has one ([`Workers::preflight`]), and gives the solver what
//! runs each vertex. A [`Dispatcher`] asks the scheduler where each step goes.

pub mod discover;
pub mod disk;
mod dispatch;
mod farm;
pub mod files;
pub mod keys;
mod local;
pub mod machines;
mod memory;
pub mod ops;
mod origins;
mod records;
pub mod remote;
mod resolve;
mod results;
mod workers;

pub use dispatch::{BuildGroups, Dispatcher, Place};
pub use farm::{Listed, Searched};
pub use local::LocalParts;
pub use origins::{Origin, Origins};
pub use records::message as platform_message;
pub use results::SnapshotResults;
pub use workers::{WorkerError, WorkerOptions, Workers, from_message as platform_from_message};

/// What a vertex yields: a filesystem, or None for an empty one.
pub type ResultRef = Option<crosskit_snapshots::Ref>;
