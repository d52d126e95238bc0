//! Whose fault it is: the step's, the worker's or nobody's.

use crosskit_api::errors::ErrorDetails;
use crosskit_solver::{ErrorKind, OpError};
use std::error::Error as StdError;
use tonic::{Code, Status};

/// Why a step did not come to its end on a worker elsewhere.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RemoteError {
    /// The step failed, or something on this side. It would fail elsewhere as well.
    #[error(transparent)]
    Step(OpError),
    /// The worker is at fault: the step may work elsewhere.
    #[error("worker {name}: {why}")]
    Worker {
        /// The worker.
        name: String,
        /// What is wrong with it.
        why: String,
    },
    /// An input is on its way here from elsewhere: the step cannot begin at this worker before it
    /// has come.
    #[error("an input is still on its way")]
    Early,
    /// Nobody wants the result any more.
    #[error("context canceled")]
    Canceled,
}

/// What a machine in trouble says, whatever it was doing.
const TROUBLE: [&str; 10] = [
    "no space left on device",
    "disk quota exceeded",
    "input/output error",
    "cannot allocate memory",
    "too many open files",
    "no active session",
    "exec format error",
    "granting entitlement",
    "context canceled",
    "structure needs cleaning",
];

/// The same, of what is believed when a process prints it before it fails: not what the step
/// may well have caused itself.
const PRINTED_TROUBLE: [&str; 2] = ["no space left on device", "exec format error"];

impl RemoteError {
    /// A fault of a worker.
    pub(super) fn worker(name: &str, why: impl Into<String>) -> Self {
        RemoteError::Worker { name: name.to_string(), why: why.into() }
    }

    /// Whose fault it is that the worker ended a call so. `printed` is the end of what the step has printed.
    pub(super) fn of_call(name: &str, status: &Status, printed: &[u8]) -> Self {
        let details = ErrorDetails::from_status(status);
        let trouble = match details.exit_code {
            Some(_) => find(&PRINTED_TROUBLE, &String::from_utf8_lossy(printed)),
            None => find(&TROUBLE, status.message()),
        };
        if trouble.is_some() && details.exit_code.is_some() {
            let text = trouble.unwrap_or_default();
            return RemoteError::worker(name, format!("{text}; the step said so and failed"));
        }
        if trouble.is_some() || (details.exit_code.is_none() && refuses(status.code())) {
            let why = crosskit_api::errors::describe(status.code(), status.message());
            return RemoteError::worker(name, why);
        }
        // What else is told names vertices and mounts that only the worker has.
        let kept = ErrorDetails { exit_code: details.exit_code, ..ErrorDetails::default() };
        RemoteError::Step(OpError::new(ErrorKind::User, status.message()).with_details(kept))
    }
}

fn find(signs: &[&'static str], text: &str) -> Option<&'static str> {
    let text = text.to_lowercase();
    signs.iter().find(|sign| text.contains(**sign)).copied()
}

/// Codes by which a server says that it is the wrong one to ask, now or at all.
fn refuses(code: Code) -> bool {
    matches!(
        code,
        Code::Unavailable
            | Code::Unauthenticated
            | Code::PermissionDenied
            | Code::Unimplemented
            | Code::ResourceExhausted
            | Code::DeadlineExceeded
            | Code::DataLoss
            | Code::Cancelled
    )
}

/// The innermost cause, which says most.
pub(super) fn deepest(error: &(dyn StdError + 'static)) -> String {
    let mut innermost = error;
    while let Some(cause) = innermost.source() {
        innermost = cause;
    }
    innermost.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(exit_code: Option<u32>, message: &str) -> Status {
        ErrorDetails { exit_code, vertex: Some("sha256:ab".into()), ..Default::default() }
            .to_status(Code::Unknown, message)
    }

    #[test]
    fn a_process_that_fails_is_the_steps_fault_and_keeps_its_exit_code() {
        let status = failed(Some(7), "process \"false\" did not complete successfully: exit code: 7");
        let RemoteError::Step(error) = RemoteError::of_call("w", &status, b"some words\n") else {
            panic!("not the step's fault")
        };
        assert_eq!(error.details().exit_code, Some(7));
        assert_eq!(error.details().vertex, None);
        assert_eq!(error.to_string(), "process \"false\" did not complete successfully: exit code: 7");
    }

    #[test]
    fn a_full_disk_is_the_workers_fault_whoever_notices() {
        let full = failed(None, "failed to extract layer: write: no space left on device");
        assert!(matches!(RemoteError::of_call("w", &full, b""), RemoteError::Worker { .. }));
        let printed = failed(Some(1), "exit code: 1");
        let said = b"dd: error writing 'x': No space left on device\n";
        assert!(matches!(RemoteError::of_call("w", &printed, said), RemoteError::Worker { .. }));
    }

    #[test]
    fn what_a_step_asks_for_in_vain_is_its_own_fault() {
        let status = failed(None, "secret token: not found");
        assert!(matches!(RemoteError::of_call("w", &status, b""), RemoteError::Step(_)));
    }

    #[test]
    fn a_worker_that_stops_or_refuses_is_at_fault() {
        for code in [Code::Unavailable, Code::Cancelled, Code::Unimplemented] {
            let status = Status::new(code, "stopping");
            assert!(matches!(RemoteError::of_call("w", &status, b""), RemoteError::Worker { .. }), "{code}");
        }
    }
}
