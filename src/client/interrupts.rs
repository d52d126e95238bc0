//! Ctrl-C and its like: the first one ends the build properly, the third one the program.

use crate::error::ClientError;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Signals after which the program ends at once.
const PATIENCE: u32 = 3;

/// A token that fires at the first interrupt.
///
/// # Errors
/// Signals can't be watched.
pub(crate) fn token() -> Result<CancellationToken, ClientError> {
    let failed = |source| ClientError::File { doing: "watch".into(), path: "signals".into(), source };
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let token = CancellationToken::new();
    let fired = token.clone();
    tokio::spawn(async move {
        for count in 1.. {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            fired.cancel();
            if count == PATIENCE {
                eprintln!("got {PATIENCE} SIGTERM/SIGINTs, forcing shutdown");
                std::process::exit(1);
            }
        }
    });
    Ok(token)
}
