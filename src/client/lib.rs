//! The person's side: connection, session server, build and its companions, progress.
//!
//! [`buildctl`] is the program of that name, flag for flag; [`crosskit`] the friendly form, which
//! runs a daemon inside its own process if none answers. Both end with the code that a shell
//! gets, after telling errors on standard error.

mod attrs;
mod cache_metrics;
mod caches;
mod clock_shift;
mod commands;
mod connection;
mod csv;
mod definitions;
mod error;
mod excerpts;
mod flags;
mod folder_caches;
mod greeting;
mod interrupts;
mod layouts;
mod lending;
mod lent_values;
mod logs;
mod metadata_file;
mod outputs;
mod plan;
mod progress;
mod sizes;
mod solve;
mod source_policy;
mod tables;
mod templates;
mod through;
mod times;
mod tls;
mod values;

pub use connection::DEFAULT_ADDRESS;
pub use error::{ClientError, ErrorKind};

use commands::{BUILDCTL, CROSSKIT, build, friendly};
use flags::{Command, Parsed, Wish};
use futures::future::BoxFuture;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::process::ExitCode;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::transport::Channel;

/// A daemon inside this process.
pub struct Embedded {
    /// The way to it; [`channel_over`] makes one of a pipe.
    pub channel: Channel,
    /// Ends it: what runs is stopped and cleaned up when this is done.
    pub stop: BoxFuture<'static, ()>,
}

/// How a daemon is started inside this process.
#[derive(Clone, Copy)]
pub struct StartEmbedded {
    /// Called first, while there is one thread.
    pub prepare: fn() -> Result<(), String>,
    /// Starts it, on the runtime that calls this.
    pub start: fn() -> BoxFuture<'static, Started>,
}

/// A daemon inside this process, or why there is none.
pub type Started = Result<Embedded, Box<dyn std::error::Error + Send + Sync>>;

/// A channel to a daemon that serves the other end of `stream`.
///
/// # Errors
/// The other end doesn't speak HTTP/2.
pub async fn channel_over<S>(stream: S) -> Result<Channel, tonic::transport::Error>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    connection::channel_over(greeting::Greeted::at_leisure().by(stream), "localhost").await
}

/// Runs `buildctl` with these arguments, the program's own name left out.
#[must_use]
pub fn buildctl(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    enter(&BUILDCTL, arguments, None)
}

/// Runs `crosskit build` and the commands beside it.
#[must_use]
pub fn crosskit(arguments: impl IntoIterator<Item = OsString>, start: StartEmbedded) -> ExitCode {
    enter(&CROSSKIT, arguments, Some(start))
}

fn enter(
    program: &'static Command,
    arguments: impl IntoIterator<Item = OsString>,
    start: Option<StartEmbedded>,
) -> ExitCode {
    let mut words = Vec::new();
    for argument in arguments {
        match argument.into_string() {
            Ok(word) => words.push(word),
            Err(raw) => {
                return fail(
                    &ClientError::invalid(format!("argument {} is not UTF-8", raw.display())),
                    false,
                );
            }
        }
    }
    let flags = match flags::parse(program, &words) {
        Wish::Run(flags) => flags,
        Wish::Help(text) => return print(&text),
        Wish::Version => {
            return print(&format!("{} {}\n", program.name, *crosskit_api::version::SHOWN));
        }
        Wish::NoCommand(name) => {
            eprintln!("No help topic for '{name}'");
            return ExitCode::from(3);
        }
        Wish::Mistake(message, help) => {
            eprintln!("Incorrect Usage: {message}\n");
            if let Some(help) = help {
                print(&help);
            }
            return fail(&ClientError::invalid(message), false);
        }
    };
    match run(&flags, start) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error, flags.on("debug")),
    }
}

fn print(text: &str) -> ExitCode {
    match commands::print(text) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error, false),
    }
}

fn run(flags: &Parsed, start: Option<StartEmbedded>) -> Result<(), ClientError> {
    logs::start(flags)?;
    let friendly = start.filter(|_| flags.command == ["build"]);
    // One thread is enough for a client and starts faster; a daemon wants all processors.
    let mut builder = match friendly {
        Some(how) if friendly::needs_embedded(flags) => {
            let failed = |why| ClientError::Embedded { addr: flags.text("addr").to_owned(), why };
            (how.prepare)().map_err(failed)?;
            tokio::runtime::Builder::new_multi_thread()
        }
        _ => tokio::runtime::Builder::new_current_thread(),
    };
    let runtime = builder.enable_all().build().map_err(|source| ClientError::File {
        doing: "start".into(),
        path: "the runtime".into(),
        source,
    })?;
    let result = runtime.block_on(async {
        match (flags.command.as_slice(), friendly) {
            (["build"], Some(start)) => friendly::run(flags, start).await,
            (["build"], None) => build::run(flags).await,
            _ => commands::run(flags).await,
        }
    });
    // A read of standard input may hang on a thread; nobody waits for it.
    runtime.shutdown_background();
    result
}

/// Tells an error with the lines of source that it is about.
fn fail(error: &ClientError, debug: bool) -> ExitCode {
    let details = error.details();
    let mut out = String::new();
    for source in &details.sources {
        out += &excerpts::excerpt(source).unwrap_or_default();
    }
    for denied in details.decision.iter().flat_map(|d| &d.deny_messages).filter(|m| !m.message.is_empty()) {
        // Writing into a string does not fail.
        let _ = writeln!(out, "policy deny: {}", denied.message);
    }
    let _ = writeln!(out, "error: {error}");
    if debug {
        for stack in &details.stacks {
            let _ = writeln!(out, "{} {} {}", stack.pid, stack.version, stack.cmdline.join(" "));
            for frame in &stack.frames {
                let _ = writeln!(out, "{}\n\t{}:{}", frame.name, frame.file, frame.line);
            }
            out.push('\n');
        }
    }
    eprint!("{out}");
    ExitCode::FAILURE
}
