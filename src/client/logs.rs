//! Logs on standard error, by `--debug` and `--log-format`.

use crate::error::ClientError;
use crate::flags::Parsed;
use std::io;
use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::{Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

/// Begins to log.
///
/// # Errors
/// An unknown form.
pub(crate) fn start(flags: &Parsed) -> Result<(), ClientError> {
    let level = if flags.on("debug") { Level::DEBUG } else { Level::INFO };
    // Transport libraries talk too much to be of use here.
    let ours = Targets::new().with_default(Level::WARN).with_target("crosskit", level);
    let layer = fmt::layer().with_writer(io::stderr).with_target(false);
    let layer = match flags.text("log-format") {
        "text" | "" => layer.with_ansi(false).boxed(),
        "json" => layer.json().boxed(),
        other => return Err(ClientError::invalid(format!("unsupported log type {other:?}"))),
    };
    // An embedding program may have set up its own logs; those stay.
    let _ = tracing_subscriber::registry().with(layer.with_filter(ours)).try_init();
    Ok(())
}
