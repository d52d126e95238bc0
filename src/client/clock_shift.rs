//! The daemon's times by this machine's clock: the first step began when we asked for it.

use crosskit_api::control::StatusResponse;
use prost_types::Timestamp;
use std::time::SystemTime;

/// Nanoseconds in a second.
const SECOND: i128 = 1_000_000_000;

/// Shifts all times by what the first step tells about the daemon's clock.
pub(crate) struct ClockShift {
    asked: i128,
    ahead: Option<i128>,
}

impl ClockShift {
    /// The build is asked for now.
    pub(crate) fn new() -> ClockShift {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        ClockShift { asked: i128::try_from(now.as_nanos()).unwrap_or(0), ahead: None }
    }

    /// Shifts the times of a report.
    pub(crate) fn apply(&mut self, status: &mut StatusResponse) {
        if self.ahead.is_none() {
            self.ahead = status
                .vertexes
                .iter()
                .rev()
                .find_map(|v| v.started.as_ref())
                .map(|at| nanos(at) - self.asked);
        }
        let Some(ahead) = self.ahead else { return };
        let vertexes = status.vertexes.iter_mut().flat_map(|v| [&mut v.started, &mut v.completed]);
        let statuses =
            status.statuses.iter_mut().flat_map(|s| [&mut s.timestamp, &mut s.started, &mut s.completed]);
        let logs = status.logs.iter_mut().map(|l| &mut l.timestamp);
        for at in vertexes.chain(statuses).chain(logs).flatten() {
            let shifted = nanos(at) - ahead;
            at.seconds = i64::try_from(shifted.div_euclid(SECOND)).unwrap_or(0);
            at.nanos = i32::try_from(shifted.rem_euclid(SECOND)).unwrap_or(0);
        }
    }
}

fn nanos(at: &Timestamp) -> i128 {
    i128::from(at.seconds) * SECOND + i128::from(at.nanos)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crosskit_api::control::{Vertex, VertexLog};

    #[test]
    fn the_first_step_begins_when_it_was_asked_for() {
        let at = |seconds, nanos| Some(Timestamp { seconds, nanos });
        let mut shift = ClockShift { asked: 100 * SECOND, ahead: None };
        let mut first = StatusResponse {
            vertexes: vec![Vertex { started: at(7, 5), completed: at(8, 0), ..Default::default() }],
            ..Default::default()
        };
        shift.apply(&mut first);
        assert_eq!(
            (first.vertexes[0].started, first.vertexes[0].completed),
            (at(100, 0), at(100, 999_999_995))
        );
        let mut next = StatusResponse {
            logs: vec![VertexLog { timestamp: at(9, 5), ..Default::default() }],
            ..Default::default()
        };
        shift.apply(&mut next);
        assert_eq!(next.logs[0].timestamp, at(102, 0));
    }
}
