//! The daemon's own log, on standard error.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;

/// Starts the log. A second call, as by an embedded daemon, changes nothing.
pub fn start(format: &str, level: &str) {
    let level = match level {
        "fatal" | "panic" => "error",
        "warning" => "warn",
        other => other,
    };
    // What goes on below HTTP and in the name service is of no use to people, even when they debug builds.
    let filter =
        EnvFilter::new(format!("{level},h2=info,hyper=info,tonic=info,rustls=info,tower=info,hickory=info"));
    let log = fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    let started = match format {
        "json" => log.json().try_init(),
        _ => log.with_ansi(false).try_init(),
    };
    if let Err(e) = started {
        tracing::debug!("the log has been started before: {e}");
    }
}
