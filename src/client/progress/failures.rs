//! What is repeated at the end: the output of the steps that failed.

use super::timeline::Timeline;
use std::io::Write;

/// Prints each failed step's name and last output between rules.
pub(crate) fn print(timeline: &Timeline, out: &mut Vec<u8>) {
    for step in timeline.begun.iter().map(|id| &timeline.steps[*id]).filter(|s| s.failed()) {
        // Writing into memory does not fail.
        let _ = writeln!(out, "------\n > {}:", step.name);
        for line in step.log.lines() {
            out.extend_from_slice(line);
            out.push(b'\n');
        }
        out.extend_from_slice(b"------\n");
    }
}
