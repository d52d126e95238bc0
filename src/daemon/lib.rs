//! Putting it together: config, listeners, services, history, collection, shutdown.

// Futures of a whole build nest deeply.
#![recursion_limit = "256"]

mod asked_platforms;
mod attesting;
pub mod builds;
mod client_exporters;
pub mod collection;
mod compatibility;
mod computed;
pub mod config;
mod content;
pub mod control;
mod environment;
mod exporting;
pub mod farm;
mod history;
pub mod listeners;
mod logging;
mod machine;
mod remembering;
pub mod root;
pub mod serve;
mod service_manager;

pub use serve::{Daemon, StartError};

use std::ffi::OsString;
use std::process::ExitCode;

/// The program `buildkitd`: reads flags and config, serves until it is told to stop.
/// `arguments` come without the program's name.
pub fn main(arguments: Vec<OsString>) -> ExitCode {
    let line = std::iter::once(OsString::from("buildkitd")).chain(arguments);
    let given = match config::flags::command().try_get_matches_from(line) {
        Ok(given) => given,
        Err(e) => {
            let _ = e.print();
            return ExitCode::from(u8::from(e.use_stderr()));
        }
    };
    if let Err(e) = config::flags::wants_rootless(&given).and_then(take_asked_rights) {
        return failed(&e);
    }
    let (config, warnings) = match config::flags::resolve(&given) {
        Ok(resolved) => resolved,
        Err(e) => return failed(&e),
    };
    logging::start(&config.log_format, &config.log_level);
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    // While there is one thread: steps then need no trick of their own.
    if let Err(e) = crosskit_exec::hybrid::isolate_process() {
        tracing::debug!("staying in the machine's mount namespace: {e}");
    }
    let runtime =
        match tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("crosskit").build() {
            Ok(runtime) => runtime,
            Err(e) => return failed(&format!("starting threads: {e}")),
        };
    let outcome = runtime.block_on(async {
        // Before the first client can see us: whoever has seen us may tell us to stop.
        let stop = serve::StopSignals::listen();
        let daemon = Daemon::start(config).await?;
        daemon.warm();
        for address in daemon.addresses() {
            tracing::info!("running server on {address}");
        }
        service_manager::tell(service_manager::READY);
        stop.told().await;
        service_manager::tell(service_manager::STOPPING);
        tracing::info!("stopping server");
        daemon.stop().await;
        Ok::<(), StartError>(())
    });
    // Threads that still wait for the disk must not hold up the exit.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => failed(&e.to_string()),
    }
}

/// Takes them only where that was asked for.
fn take_asked_rights(asked: Option<bool>) -> Result<(), String> {
    if nix::unistd::geteuid().is_root() || asked == Some(true) {
        return take_rights();
    }
    Err("rootless mode requires to be executed as the mapped root in a user namespace; give --rootless, which makes one, \
         or start this with rootlesskit"
        .to_string())
}

/// Lets the process of an ordinary user become root of a user namespace. To be called while there is one thread.
///
/// # Errors
/// What the user lacks for that, with what to do about it.
pub fn take_rights() -> Result<(), String> {
    if !nix::unistd::geteuid().is_root() {
        crosskit_rootless::enter().map_err(|e| e.to_string())?;
    }
    if crosskit_rootless::is_inside() {
        // Where keys are not to be had at all, there is none to keep from steps either.
        let _ = crosskit_rootless::new_keyring();
    }
    Ok(())
}

#[allow(clippy::print_stderr)]
fn failed(message: &str) -> ExitCode {
    eprintln!("buildkitd: {message}");
    ExitCode::FAILURE
}
