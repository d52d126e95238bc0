//! What a person sees of a build while it runs.
//!
//! A thread of its own draws, so that a slow terminal never holds up the transfer of files; it
//! draws at most ten times a second, and at once when the build ends.

mod colors;
mod failures;
mod layout;
mod machines;
mod plain;
mod rawjson;
mod spans;
mod step_log;
mod timeline;
mod tty;

use crate::error::ClientError;
use colors::Palette;
use crosskit_api::control::StatusResponse;
use crosskit_api::types::WorkerRecord;
use plain::Plain;
use rustix::termios;
use std::env;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant, SystemTime};
use timeline::Timeline;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tty::{Dimensions, Tty};

/// Redrawing this often looks live and costs little.
const DRAW_EVERY: Duration = Duration::from_millis(100);
/// How often the clock of running steps moves on if the daemon is silent.
const TICK: Duration = Duration::from_millis(150);
/// Reports that may wait to be drawn before their sender has to.
const BACKLOG: usize = 256;
/// Lines of output below a running step.
const OUTPUT_LINES: u16 = 6;
/// The size of a terminal that tells none.
const USUAL: Dimensions = Dimensions { width: 80, height: 10 };

/// How progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A live view.
    Tty,
    /// Lines of text.
    Plain,
    /// A JSON object for each report.
    RawJson,
    /// Nothing.
    Quiet,
}

/// Where progress is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Standard error, as builds do.
    Stderr,
    /// Standard output, as `debug logs` does.
    Stdout,
}

impl Target {
    fn is_terminal(self) -> bool {
        termios::isatty(self.fd())
    }

    fn fd(self) -> BorrowedFd<'static> {
        match self {
            Target::Stderr => rustix::stdio::stderr(),
            Target::Stdout => rustix::stdio::stdout(),
        }
    }

    fn write(self, bytes: &[u8]) {
        // There is nobody to tell if the reader has gone.
        let _ = match self {
            Target::Stderr => io::stderr().write_all(bytes),
            Target::Stdout => io::stdout().write_all(bytes).and_then(|()| io::stdout().flush()),
        };
    }

    fn size(self) -> Dimensions {
        match termios::tcgetwinsize(self.fd()) {
            Ok(size) if size.ws_col > 0 && size.ws_row > 0 => {
                Dimensions { width: size.ws_col, height: size.ws_row }
            }
            _ => USUAL,
        }
    }
}

impl Mode {
    /// Reads a `--progress` value; `auto` asks `BUILDKIT_PROGRESS` and then the terminal.
    ///
    /// # Errors
    /// An unknown value, or `tty` without a terminal.
    pub fn choose(wish: &str, target: Target) -> Result<Mode, ClientError> {
        let wish = match env::var("BUILDKIT_PROGRESS") {
            Ok(value) if wish == "auto" && !value.is_empty() => value,
            _ => wish.to_owned(),
        };
        match wish.as_str() {
            "auto" | "" | "tty" if target.is_terminal() => Ok(Mode::Tty),
            "tty" => Err(ClientError::invalid("failed to get console: provided file is not a console")),
            "auto" | "" | "plain" => Ok(Mode::Plain),
            "rawjson" => Ok(Mode::RawJson),
            "quiet" => Ok(Mode::Quiet),
            other => Err(ClientError::invalid(format!("invalid progress mode {other}"))),
        }
    }
}

enum News {
    Status(StatusResponse, OwnedSemaphorePermit),
    Workers(Vec<WorkerRecord>),
}

/// Hands reports to the display. Clones are cheap.
#[derive(Clone)]
pub struct Reporter {
    news: mpsc::Sender<News>,
    room: Arc<Semaphore>,
}

impl Reporter {
    /// Shows a report; waits if the display is far behind.
    pub async fn report(&self, status: StatusResponse) {
        if let Ok(permit) = Arc::clone(&self.room).acquire_owned().await {
            // A display that is gone has shown its last picture already.
            let _ = self.news.send(News::Status(status, permit));
        }
    }

    /// Tells where platforms can run.
    pub fn workers(&self, workers: Vec<WorkerRecord>) {
        let _ = self.news.send(News::Workers(workers));
    }
}

/// A display that runs. It ends when all its reporters are gone.
pub struct Progress {
    reporter: Option<Reporter>,
    done: oneshot::Receiver<()>,
}

impl Progress {
    /// Starts a display; `phase` is the verb of the live view's first line. A trace gets every
    /// report as a line of JSON.
    ///
    /// # Errors
    /// No thread could be started.
    pub fn start(
        mode: Mode,
        target: Target,
        phase: &str,
        trace: Option<File>,
    ) -> Result<Progress, ClientError> {
        let (news, inbox) = mpsc::channel();
        let (over, done) = oneshot::channel();
        let reporter = Reporter { news, room: Arc::new(Semaphore::new(BACKLOG)) };
        let mut display = Display::new(mode, target, phase, trace);
        std::thread::Builder::new()
            .name("progress".into())
            .spawn(move || {
                display.run(&inbox);
                // Whoever waited may be gone.
                let _ = over.send(());
            })
            .map_err(|source| ClientError::File {
                doing: "start a thread for".into(),
                path: "the progress display".into(),
                source,
            })?;
        Ok(Progress { reporter: Some(reporter), done })
    }

    /// A handle for whoever has something to report.
    ///
    /// # Panics
    /// Never: the handle is there until [`Progress::finish`] takes the display.
    #[must_use]
    pub fn reporter(&self) -> Reporter {
        self.reporter.clone().expect("kept until finish")
    }

    /// Waits until everything reported is shown. All other reporters have to be dropped.
    pub async fn finish(mut self) {
        drop(self.reporter.take());
        // An error would mean that the thread died; then there is nothing to wait for.
        let _ = self.done.await;
    }
}

enum View {
    Plain(Plain),
    Tty(Box<Tty>),
    RawJson,
    Quiet,
}

struct Display {
    view: View,
    target: Target,
    /// Gets every report as JSON.
    trace: Option<File>,
    timeline: Timeline,
    every: Duration,
    tick: Duration,
    drawn_at: Option<Instant>,
    out: Vec<u8>,
}

impl Display {
    fn new(mode: Mode, target: Target, phase: &str, trace: Option<File>) -> Display {
        let variable = |name: &str| env::var(name).ok();
        let rate = variable("TTY_DISPLAY_RATE").and_then(|v| v.parse().ok()).map(Duration::from_millis);
        let view = match mode {
            Mode::Quiet => View::Quiet,
            Mode::RawJson => View::RawJson,
            Mode::Plain => View::Plain(Plain::new(variable("PROGRESS_NO_TRUNC").as_deref() == Some("0"))),
            Mode::Tty => {
                let (no_color, colors) = (variable("NO_COLOR"), variable("BUILDKIT_COLORS"));
                let palette =
                    Palette::read(no_color.as_deref(), colors.as_deref(), &mut |m| tracing::warn!("{m}"));
                let lines =
                    variable("BUILDKIT_TTY_LOG_LINES").and_then(|v| v.parse().ok()).filter(|n| *n > 0);
                View::Tty(Box::new(Tty::new(phase, palette, lines.unwrap_or(OUTPUT_LINES))))
            }
        };
        Display {
            view,
            target,
            trace,
            timeline: Timeline::default(),
            every: rate.unwrap_or(DRAW_EVERY),
            tick: rate.unwrap_or(TICK).max(Duration::from_millis(1)),
            drawn_at: None,
            out: Vec::new(),
        }
    }

    fn run(&mut self, inbox: &mpsc::Receiver<News>) {
        loop {
            match inbox.recv_timeout(self.tick) {
                Ok(News::Status(status, _room)) => self.update(&status),
                Ok(News::Workers(workers)) => {
                    if let View::Tty(tty) = &mut self.view {
                        tty.set_workers(workers);
                    }
                }
                Err(RecvTimeoutError::Timeout) => self.draw(),
                Err(RecvTimeoutError::Disconnected) => return self.finish(),
            }
        }
    }

    fn update(&mut self, status: &StatusResponse) {
        let now = Instant::now();
        if let Some(file) = &mut self.trace {
            let mut line = Vec::new();
            rawjson::print(status, &mut line);
            if let Err(error) = file.write_all(&line) {
                tracing::warn!("write trace: {error}; the rest of it is left out");
                self.trace = None;
            }
        }
        match &mut self.view {
            View::Quiet => return,
            View::RawJson => {
                rawjson::print(status, &mut self.out);
                return self.flush();
            }
            View::Plain(_) => self.timeline.update(status, now, wall()),
            View::Tty(tty) => {
                self.timeline.update(status, now, wall());
                tty.update(status, &mut self.timeline, self.target.size());
            }
        }
        if self.drawn_at.is_none_or(|at| now.saturating_duration_since(at) >= self.every) {
            self.drawn_at = Some(now);
            self.draw();
        }
    }

    fn draw(&mut self) {
        match &mut self.view {
            View::Plain(plain) => plain.print(&mut self.timeline, Instant::now(), &mut self.out),
            View::Tty(tty) => tty.draw(&self.timeline, self.target.size(), wall(), false, &mut self.out),
            View::RawJson | View::Quiet => {}
        }
        self.flush();
    }

    fn finish(&mut self) {
        match &mut self.view {
            View::Plain(plain) => plain.finish(&mut self.timeline, Instant::now(), &mut self.out),
            View::Tty(tty) => tty.finish(&self.timeline, self.target.size(), wall(), &mut self.out),
            View::RawJson | View::Quiet => {}
        }
        self.flush();
    }

    fn flush(&mut self) {
        if !self.out.is_empty() {
            self.target.write(&self.out);
            self.out.clear();
        }
    }
}

/// Nanoseconds since 1970 by this machine's clock.
fn wall() -> spans::Nanos {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
#[path = "progress/progress_tests.rs"]
mod tests;
