//! What is left of an operation that failed, for those who look into it.

use crate::ResultRef;
use crosskit_api::pb;

/// What is left of an operation that failed. Attached to its error.
pub struct LeftOver {
    /// What a process had behind its mounts before it ran, one for each mount; the inputs of another operation.
    pub inputs: Vec<ResultRef>,
    /// What a process had made of its mounts, one for each; what the actions of a file operation had made, one for each.
    pub mounts: Vec<ResultRef>,
}

impl LeftOver {
    /// Of a process of which it is not known what it has made of its mounts, or nothing.
    pub fn untouched(mounts: &[pb::Mount], inputs: &[ResultRef]) -> LeftOver {
        let input = |mount: &pb::Mount| inputs.get(usize::try_from(mount.input).ok()?)?.clone();
        let inputs: Vec<ResultRef> = mounts.iter().map(input).collect();
        LeftOver { mounts: inputs.clone(), inputs }
    }
}
