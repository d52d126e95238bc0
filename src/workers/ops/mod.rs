//! What runs a vertex on this machine: one file for each kind of operation.

pub mod build;
pub mod content;
mod emulator;
pub mod exec;
pub mod file;
pub mod join;
pub mod left;
pub mod mounts;
pub mod pinned;
pub mod proxied;
pub mod source;

use crate::ResultRef;
use crosskit_snapshots::{About, Mounted, Ref, Snapshots};
use crosskit_solver::{ErrorKind, OpContext, OpError, Preprocess};
use futures::future::BoxFuture;

/// Brings a lazy input here before the operation begins, so that the time it takes is shown at
/// the input, not at the operation.
pub struct Materialize;

impl Preprocess<ResultRef> for Materialize {
    fn prepare<'a>(&'a self, _cx: &'a OpContext, input: &'a ResultRef) -> BoxFuture<'a, Result<(), OpError>> {
        Box::pin(async move {
            match input {
                Some(found) => found.materialize().await.map_err(snapshot_error),
                None => Ok(()),
            }
        })
    }
}

/// An error of the layers on disk as one of an operation.
pub fn snapshot_error(error: crosskit_snapshots::Error) -> OpError {
    use crosskit_snapshots::Kind;
    let kind = match error.kind() {
        Kind::User => ErrorKind::User,
        Kind::Environment => ErrorKind::Environment,
        Kind::Unavailable => ErrorKind::Unavailable,
        Kind::Canceled => ErrorKind::Canceled,
        Kind::Internal => ErrorKind::Internal,
    };
    OpError::from_error(kind, error)
}

/// The tree of an input for reading; an empty one for an empty input.
pub async fn mount_input(snapshots: &Snapshots, input: Option<&Ref>) -> Result<InputTree, OpError> {
    match input {
        Some(found) => {
            Ok(InputTree { mounted: found.mount_readonly().await.map_err(snapshot_error)?, _empty: None })
        }
        None => {
            let empty = snapshots.new_mutable(None, About::new("empty input")).map_err(snapshot_error)?;
            let mounted = empty.mount().await.map_err(snapshot_error)?;
            Ok(InputTree { mounted, _empty: Some(empty) })
        }
    }
}

/// A tree to read from.
pub struct InputTree {
    /// The tree.
    pub mounted: Mounted,
    _empty: Option<crosskit_snapshots::MutableRef>,
}
