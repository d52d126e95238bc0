//! What is left of an operation that failed, for those who look into it.

use crate::ResultRef;
use crosskit_api::pb;
use std::collections::HashSet;

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

    /// The snapshots that it has made, by their ids: nobody will ask for them again.
    pub fn made(&self) -> Vec<String> {
        let given: HashSet<&str> = self.inputs.iter().flatten().map(|input| input.id()).collect();
        let made = self.mounts.iter().flatten().map(|made| made.id());
        made.filter(|id| !given.contains(id)).map(str::to_owned).collect()
    }
}
