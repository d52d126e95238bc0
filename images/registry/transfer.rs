//! Requests made again when a registry or the way to it has a bad moment.

use std::error::Error as _;
use std::future::Future;
use std::io;
use std::time::Duration;

use crate::errors::{Error, Result};

/// Tries in a row without any progress before it is given up.
pub(super) const TRIES: u32 = 6;
/// The wait after the first failure; it doubles each time, eight seconds in all.
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// How long a transfer may stand still.
pub(super) const STALLED_AFTER: Duration = Duration::from_secs(60);

/// The wait before try number `tried` + 1.
pub(super) async fn wait(tried: u32) {
    tokio::time::sleep(FIRST_WAIT * 2_u32.pow(tried.min(5).saturating_sub(1))).await;
}

/// Makes a request until it succeeds, fails for good, or has failed too often.
pub(super) async fn retried<T, F: Future<Output = Result<T>>>(mut request: impl FnMut() -> F) -> Result<T> {
    let mut tried = 0;
    loop {
        match request().await {
            Err(error) if is_passing(&error) && tried + 1 < TRIES => {
                tried += 1;
                tracing::debug!("try {tried} failed: {error}");
                wait(tried).await;
            }
            other => return other,
        }
    }
}

/// Whether the same may succeed a moment later.
pub(super) fn is_passing(error: &Error) -> bool {
    matches!(error, Error::Registry(error) if error.is_passing())
}

/// The error of the HTTP client as one of the system. A connection that could not be made keeps its kind: nobody
/// listening is no passing matter. One that broke off later counts as reset.
pub(super) fn cause(error: &reqwest::Error) -> io::Error {
    let mut source = error.source();
    let mut kind = io::ErrorKind::Other;
    while let Some(cause) = source {
        if let Some(cause) = cause.downcast_ref::<io::Error>() {
            kind = cause.kind();
        }
        source = cause.source();
    }
    if error.is_timeout() {
        kind = io::ErrorKind::TimedOut;
    } else if !error.is_connect() {
        kind = io::ErrorKind::ConnectionReset;
    }
    io::Error::new(kind, reason(error))
}

/// An error of the system as clients look for it, the way C's library and stock BuildKit put it: `connection refused`.
fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    match error.raw_os_error().and_then(|number| text.strip_suffix(&format!(" (os error {number})"))) {
        Some(words) => words.to_lowercase(),
        None => text,
    }
}

/// How the standard library begins its words where a name leads nowhere. Clients look for the words of Go's.
const UNKNOWN_HOST: &str = "failed to lookup address information";

/// What lies behind an error of the HTTP client, whose own words say only that something failed.
pub fn reason(error: &reqwest::Error) -> String {
    let mut deepest: Option<&dyn std::error::Error> = error.source();
    let mut words = Vec::new();
    while let Some(cause) = deepest {
        words.push(cause.downcast_ref::<io::Error>().map_or_else(|| cause.to_string(), plain));
        deepest = cause.source();
    }
    if let Some(why) = words.last().and_then(|last| last.split_once(UNKNOWN_HOST)).map(|(_, why)| why) {
        let host = error.url().and_then(|url| url.host_str()).unwrap_or_default();
        let why = why.trim_start_matches([':', ' ']);
        let why = if why.starts_with("Temporary") { why } else { "no such host" };
        return format!("dial tcp: lookup {host}: {why}");
    }
    if let (true, Some(last), Some(url)) = (error.is_connect(), words.last(), error.url()) {
        let (host, port) =
            (url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or_default());
        if last == "connection refused" {
            return format!("dial tcp {host}:{port}: connect: {last}");
        }
    }
    // Each level repeats what is below it or adds a word of its own; the last one names the cause.
    match words.last() {
        Some(last) if words[0].contains(last.as_str()) => words[0].clone(),
        Some(last) => format!("{}: {last}", words[0]),
        None => error.to_string(),
    }
}
