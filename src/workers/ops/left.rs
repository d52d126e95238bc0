//! What is left of an operation that failed, for those who look into it.

use crate::ResultRef;

/// What is left of an operation that failed. Attached to its error.
pub struct LeftOver {
    /// What a process had behind its mounts before it ran, one for each mount; the inputs of another operation.
    pub inputs: Vec<ResultRef>,
    /// What a process had made of its mounts, one for each; what the actions of a file operation had made, one for each.
    pub mounts: Vec<ResultRef>,
}
