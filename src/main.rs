//! Which program am I called as: `crosskit`, `buildkitd`, `buildctl` or `binfmt`; or is it `crosskit doctor` or `crosskit certs`?

use crosskit_client::{Embedded, StartEmbedded, channel_over};
use crosskit_daemon::Daemon;
use crosskit_daemon::config::Config;
use futures::future::BoxFuture;
use std::ffi::OsString;
use std::process::ExitCode;

type Program = fn(Vec<OsString>) -> ExitCode;

/// The programs, by the name they are called with, or by the first argument. Each gets its
/// arguments without its own name.
const PROGRAMS: [(&str, Program); 5] = [
    ("buildkitd", buildkitd),
    ("buildctl", buildctl),
    ("binfmt", binfmt),
    ("doctor", doctor),
    ("certs", certs),
];

fn main() -> ExitCode {
    let mut arguments: Vec<OsString> = std::env::args_os().collect();
    let called = arguments.first().map(base_name).unwrap_or_default();
    if !arguments.is_empty() {
        arguments.remove(0);
    }
    if let Some((_, program)) = PROGRAMS.iter().find(|(name, _)| *name == called) {
        return program(arguments);
    }
    let wanted = arguments.first().and_then(|a| a.to_str());
    if let Some((_, program)) = PROGRAMS.iter().find(|(name, _)| Some(*name) == wanted) {
        arguments.remove(0);
        return program(arguments);
    }
    let embedded = StartEmbedded { prepare: crosskit_daemon::take_rights, start: embedded };
    crosskit_client::crosskit(arguments, embedded)
}

fn base_name(program: impl AsRef<std::ffi::OsStr>) -> String {
    std::path::Path::new(program.as_ref())
        .file_name()
        .map(|n| n.to_string_lossy().into_owned())
        .unwrap_or_default()
}

fn buildkitd(arguments: Vec<OsString>) -> ExitCode {
    crosskit_daemon::main(arguments)
}

fn buildctl(arguments: Vec<OsString>) -> ExitCode {
    crosskit_client::buildctl(arguments)
}

fn binfmt(arguments: Vec<OsString>) -> ExitCode {
    let code = crosskit_qemu::binfmt::run(&texts(&arguments), &mut std::io::stdout(), &mut std::io::stderr());
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

fn doctor(arguments: Vec<OsString>) -> ExitCode {
    crosskit_doctor::run(&texts(&arguments), &mut std::io::stdout(), &mut std::io::stderr()).into()
}

fn certs(arguments: Vec<OsString>) -> ExitCode {
    crosskit_certs::run(&texts(&arguments), &mut std::io::stdout(), &mut std::io::stderr()).into()
}

fn texts(arguments: &[OsString]) -> Vec<String> {
    arguments.iter().map(|argument| argument.to_string_lossy().into_owned()).collect()
}

/// A daemon in this process, for `crosskit build` where none answers: with the usual root folder
/// and config file, but no address that others could reach.
fn embedded() -> BoxFuture<'static, Result<Embedded, Box<dyn std::error::Error + Send + Sync>>> {
    Box::pin(async {
        let config = Config { addresses: Vec::new(), ..Config::usual()? };
        let daemon = Daemon::start(config).await?;
        let stream = daemon.connect().await.ok_or("the daemon in this process has stopped")?;
        let channel = channel_over(stream).await?;
        Ok(Embedded { channel, stop: Box::pin(daemon.stop()) })
    })
}
