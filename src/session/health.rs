//! Is the client still there? Asked every few seconds, because a tunnel through a suspended
//! laptop stays open for hours.

use crate::session::Session;
use crate::{ErrorKind, SessionError};
use crosskit_api::health::HealthCheckRequest;
use crosskit_api::health::health_client::HealthClient;
use std::time::Duration;
use tokio::time::Instant;

/// How often a client is asked, and when it is given up (BuildKit `session/grpc.go`).
struct Strictness {
    interval: Duration,
    /// An answer may take this long, or half as long again as the last one took.
    timeout: Duration,
    /// So many failures in a row end the session.
    failures: u32,
}

/// Lenient on purpose: an answer waits behind the files on a slow line.
const USUAL: Strictness =
    Strictness { interval: Duration::from_secs(5), timeout: Duration::from_secs(15), failures: 2 };

/// Ends when the client stops answering.
pub(crate) async fn watch(session: &Session, custom: Option<Duration>) -> SessionError {
    let strictness = match custom {
        Some(time) => Strictness { interval: time, timeout: time, failures: 1 },
        None => USUAL,
    };
    let mut client = HealthClient::with_origin(session.channel(), session.origin());
    let mut failures = 0;
    let mut last = Duration::ZERO;
    let mut ticks = tokio::time::interval_at(Instant::now() + strictness.interval, strictness.interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let begun = Instant::now();
        let timeout = strictness.timeout.max(last.mul_f64(1.5));
        let failure = match tokio::time::timeout(timeout, client.check(HealthCheckRequest::default())).await {
            Ok(Ok(_)) => None,
            Ok(Err(status)) => Some(SessionError::call("session healthcheck failed fatally")(status)),
            Err(_) => Some(SessionError::call("session healthcheck failed fatally")(
                tonic::Status::deadline_exceeded("context deadline exceeded"),
            )),
        };
        last = begun.elapsed();
        let Some(failure) = failure else {
            failures = 0;
            continue;
        };
        failures += 1;
        if failures >= strictness.failures {
            if failure.kind() != ErrorKind::Canceled {
                tracing::error!(session = session.id(), error = %failure, "healthcheck failed fatally");
            }
            return failure;
        }
        tracing::warn!(session = session.id(), error = %failure, "healthcheck failed");
    }
}
