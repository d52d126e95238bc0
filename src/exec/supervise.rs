//! A runtime process from its start to its end.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
    process::ExitStatus,
    time::Duration,
};

use nix::{
    pty::openpty,
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    io::AsyncRead,
    net::unix::pipe,
    process::{Child, Command},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use crate::{
    Error, Output, Result, Stdio, WindowSize,
    runtime::Runtime,
    streams::{Terminal, pump},
};

/// How long a runtime may take to say its container's process id before it is itself ended.
const UNTIL_STARTED: Duration = Duration::from_secs(3);
/// How long a runtime may take to tidy up after its container was killed.
const UNTIL_TIDY: Duration = Duration::from_secs(3);
/// How often is looked for the process id.
const LOOK_EVERY: Duration = Duration::from_millis(1);
/// How long output may still come after the runtime has ended when the step was canceled.
const UNTIL_DRAINED: Duration = Duration::from_millis(200);

/// A runtime at work, with its streams.
pub(crate) struct Running {
    child: Child,
    stdin: Option<JoinHandle<()>>,
    outputs: Vec<JoinHandle<Output>>,
    stderr_at: Option<usize>,
    terminal: Option<(OwnedFd, Option<tokio::sync::mpsc::Receiver<WindowSize>>)>,
    signals: Option<tokio::sync::mpsc::Receiver<i32>>,
    pid_file: PathBuf,
    runtime: PathBuf,
    id: String,
}

/// How a runtime ended.
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    /// Where standard error went, to add what the runtime said.
    pub(crate) stderr: Output,
    pub(crate) canceled: bool,
    /// Whether the runtime had to be ended itself, so that somebody else has to tidy up.
    pub(crate) forced: bool,
}

impl Running {
    /// Starts the runtime. To be called from a blocking thread within the runtime of tokio.
    pub(crate) fn start(
        runtime: &Runtime,
        command: std::process::Command,
        io: Stdio,
        id: &str,
        pid_file: PathBuf,
    ) -> Result<Self> {
        let mut command = Command::from(command);
        let Stdio { stdin, stdout, stderr, terminal, signals } = io;
        let terminal_error = |doing, id: &str| {
            let id = id.to_owned();
            move |source: io::Error| Error::Terminal { doing, id, source }
        };
        let running = |child: Child| Self {
            child,
            stdin: None,
            outputs: Vec::new(),
            stderr_at: None,
            terminal: None,
            signals: None,
            pid_file: pid_file.clone(),
            runtime: runtime.chosen.path.clone(),
            id: id.to_owned(),
        };
        let started = if let Some(Terminal { size, resize }) = terminal {
            let pty = openpty(None, None).map_err(|errno| terminal_error("making", id)(errno.into()))?;
            if let Some(size) = size {
                set_size(&pty.master, size).map_err(terminal_error("sizing", id))?;
            }
            let end = || pty.slave.try_clone().map_err(terminal_error("opening", id));
            command.stdin(end()?).stdout(end()?).stderr(end()?);
            let child = command.spawn().map_err(runtime.spawn_error("starting"))?;
            // The command holds the terminal's other end open: the end of output would never be seen.
            drop((command, pty.slave));
            let copy = || pty.master.try_clone().map_err(terminal_error("opening", id));
            rustix::io::ioctl_fionbio(&pty.master, true)
                .map_err(|e| terminal_error("opening", id)(e.into()))?;
            let reader = pipe::Receiver::from_file_unchecked(std::fs::File::from(copy()?));
            let writer = pipe::Sender::from_file_unchecked(std::fs::File::from(copy()?));
            let mut started = running(child);
            started.outputs.push(tokio::spawn(pump(reader.map_err(terminal_error("reading", id))?, stdout)));
            if let Some(stdin) = stdin {
                let writer = writer.map_err(terminal_error("writing to", id))?;
                started.stdin = Some(tokio::spawn(feed(stdin, writer)));
            }
            started.terminal = Some((pty.master, resize));
            started
        } else {
            let piped = |output: &Output| match output {
                Output::Discard => std::process::Stdio::null(),
                _ => std::process::Stdio::piped(),
            };
            let input =
                if stdin.is_some() { std::process::Stdio::piped() } else { std::process::Stdio::null() };
            command.stdin(input).stdout(piped(&stdout)).stderr(piped(&stderr));
            let mut child = command.spawn().map_err(runtime.spawn_error("starting"))?;
            let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
            let mut started = running(child);
            if let (Some(to), Some(stdin)) = (pipes.0, stdin) {
                started.stdin = Some(tokio::spawn(feed(stdin, to)));
            }
            if let Some(from) = pipes.1 {
                started.outputs.push(tokio::spawn(pump(from, stdout)));
            }
            if let Some(from) = pipes.2 {
                started.stderr_at = Some(started.outputs.len());
                started.outputs.push(tokio::spawn(pump(from, stderr)));
            }
            started
        };
        Ok(Self { signals, ..started })
    }

    /// Waits for the end; when canceled, kills the container and waits until the runtime has tidied up.
    pub(crate) async fn finish(mut self, cancel: &CancellationToken) -> Result<Ended> {
        let mut resize = self.terminal.as_mut().and_then(|(_, resize)| resize.take());
        let mut signals = self.signals.take();
        let runtime_pid = self.child.id().and_then(|pid| i32::try_from(pid).ok());
        let (mut canceled, mut forced) = (false, false);
        let status = loop {
            tokio::select! {
                status = self.child.wait() => break status,
                () = cancel.cancelled() => {
                    canceled = true;
                    let killed = self.kill().await;
                    match tokio::time::timeout(UNTIL_TIDY, self.child.wait()).await {
                        Ok(status) if killed => break status,
                        Ok(status) => { forced = true; break status; }
                        Err(_) => {
                            forced = true;
                            let _ = self.child.start_kill();
                            break self.child.wait().await;
                        }
                    }
                }
                Some(number) = next(&mut signals) => match Signal::try_from(number) {
                    // The runtime passes signals on, but it cannot pass on what it never sees.
                    Ok(Signal::SIGKILL) => { self.kill().await; }
                    Ok(signal) => if let Some(pid) = runtime_pid { let _ = kill(Pid::from_raw(pid), signal); },
                    Err(_) => tracing::warn!(number, "an unknown signal was not passed on"),
                },
                Some(size) = next(&mut resize) => {
                    if let (Some((master, _)), Some(pid)) = (&self.terminal, runtime_pid) {
                        let _ = set_size(master, size);
                        let _ = kill(Pid::from_raw(pid), Signal::SIGWINCH);
                    }
                }
            }
        };
        if let Some(stdin) = self.stdin.take() {
            stdin.abort();
        }
        let source = |source| Error::Spawn { doing: "waiting for", runtime: self.runtime.clone(), source };
        let status = status.map_err(source)?;
        let mut stderr = Output::Discard;
        for (place, mut output) in std::mem::take(&mut self.outputs).into_iter().enumerate() {
            // A canceled step has nobody left to read for; others are read to the last byte.
            let drained = if canceled {
                let drained = tokio::time::timeout(UNTIL_DRAINED, &mut output).await.ok();
                output.abort();
                drained
            } else {
                Some((&mut output).await)
            };
            if let (Some(Ok(output)), true) = (drained, Some(place) == self.stderr_at) {
                stderr = output;
            }
        }
        Ok(Ended { status, stderr, canceled, forced })
    }

    /// Kills the container's first process, and with it all others. False if that could not be found and the runtime was
    /// killed instead.
    async fn kill(&mut self) -> bool {
        let deadline = tokio::time::Instant::now() + UNTIL_STARTED;
        loop {
            if let Some(pid) = read_pid(&self.pid_file)
                && kill_contained(pid)
            {
                return true;
            }
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return true;
            }
            if tokio::time::Instant::now() > deadline {
                tracing::warn!(
                    id = self.id,
                    "the runtime never said its container's process id: it is killed itself"
                );
                let _ = self.child.start_kill();
                return false;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

/// The next message, or never.
async fn next<T>(channel: &mut Option<tokio::sync::mpsc::Receiver<T>>) -> Option<T> {
    match channel {
        Some(open) => {
            let message = open.recv().await;
            if message.is_none() {
                *channel = None;
            }
            message
        }
        None => std::future::pending().await,
    }
}

async fn feed(
    mut from: std::pin::Pin<Box<dyn AsyncRead + Send>>,
    mut to: impl tokio::io::AsyncWrite + Unpin,
) {
    // Who stops reading closes the pipe; that is its business.
    let _ = tokio::io::copy(&mut from, &mut to).await;
}

/// The process id that a runtime wrote, once it has written all of it.
pub(crate) fn read_pid(file: &Path) -> Option<i32> {
    std::fs::read_to_string(file).ok()?.trim().parse().ok().filter(|pid| *pid > 1)
}

/// Kills a process if it is in a process id namespace below ours: a number that has since been given to another process
/// of this machine is left alone.
pub(crate) fn kill_contained(pid: i32) -> bool {
    use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
    let Some(pid) = rustix::process::Pid::from_raw(pid) else { return false };
    let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else { return false };
    let status =
        std::fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).unwrap_or_default();
    let levels = status
        .lines()
        .find_map(|line| line.strip_prefix("NSpid:"))
        .map_or(0, |ids| ids.split_whitespace().count());
    levels > 1 && pidfd_send_signal(&process, Signal::KILL).is_ok()
}

fn set_size(master: &OwnedFd, size: WindowSize) -> io::Result<()> {
    let size = libc::winsize { ws_row: size.rows, ws_col: size.cols, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the descriptor is open and the structure is the one that this request takes.
    let done = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSWINSZ, &size) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
