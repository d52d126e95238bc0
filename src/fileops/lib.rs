//! Copies, folders, files, links and removals as steps of a build.
//!
//! [`run`] executes a file operation of a build graph (`FileOp` of BuildKit's solver/pb/ops.proto)
//! on snapshots, without a container. Paths mean places within their snapshot, whatever links and
//! dots are in them.

mod actions;
mod archive;
mod copy;
mod error;
mod modes;
mod owner;
mod root;
mod run;
mod unpack;
mod wildcards;

pub use archive::newest_time;
pub use error::{Error, Kind, Result};
pub use root::Owner;
pub use run::{Failure, run};
