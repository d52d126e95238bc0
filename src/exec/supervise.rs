//! A runtime process from its start to its end.

use std::{
    path::{Path, PathBuf},
    process::ExitStatus,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    process::{Child, Command},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use crate::{
    Error, Output, Result, Stdio,
    marks::IpcMark,
    runtime::Runtime,
    streams::{Drained, feed, next, pump},
    terminals::Console,
    usage::Accounted,
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
    outputs: Vec<JoinHandle<Drained>>,
    /// Which of the outputs is standard error.
    stderr_at: Option<usize>,
    /// Set when the runtime has ended.
    ended: CancellationToken,
    signals: Option<tokio::sync::mpsc::Receiver<i32>>,
    pid_file: PathBuf,
    ipc_mark: Option<IpcMark>,
    first: bool,
    runtime: PathBuf,
    id: String,
}

/// A runtime to be started.
pub(crate) struct Call {
    /// The program and what it is to do, up to the options.
    pub(crate) command: std::process::Command,
    /// The container's folder.
    pub(crate) folder: PathBuf,
    /// The container's name.
    pub(crate) id: String,
    /// Where the runtime writes the process's id.
    pub(crate) pid_file: PathBuf,
    /// What the container's processes are known by if they have the daemon's process ids.
    pub(crate) ipc_mark: Option<IpcMark>,
    /// Whether the container ends with this process.
    pub(crate) first: bool,
}

/// How a runtime ended.
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    /// Standard error, to add what the runtime said.
    pub(crate) stderr: Drained,
    pub(crate) canceled: bool,
    /// Whether the runtime had to be ended itself, so that somebody else has to tidy up.
    pub(crate) forced: bool,
    /// What it has used, with all that it has started.
    pub(crate) accounted: Option<Accounted>,
}

impl Running {
    /// Starts the runtime. To be called from a blocking thread within the runtime of tokio.
    pub(crate) fn start(runtime: &Runtime, call: Call, io: Stdio) -> Result<Self> {
        let Call { command, folder, id, pid_file, ipc_mark, first } = call;
        let mut command = Command::from(command);
        command.arg("--pid-file").arg(&pid_file);
        let Stdio { stdin, stdout, stderr, terminal, signals } = io;
        let ended = CancellationToken::new();
        let start = |mut command: Command| command.arg(&id).spawn().map_err(runtime.spawn_error("starting"));
        let (mut input, mut outputs, mut stderr_at) = (None, Vec::new(), None);
        let child = if let Some(terminal) = terminal {
            let console = if runtime.is_crun() {
                Console::socket(folder.join(format!("{}.console", file_stem(&pid_file))))
            } else {
                Console::relay(terminal.size)
            };
            let failed = |source| Error::Terminal { doing: "making", id: id.clone(), source };
            let console = console.map_err(failed)?;
            console.attach(&mut command).map_err(failed)?;
            let child = start(command)?;
            let conversation = console.converse(terminal, stdin, stdout, process_id(&child), ended.clone());
            outputs.push(tokio::spawn(async { Drained { to: conversation.await, ..Drained::default() } }));
            child
        } else {
            let piped = |output: &Output| match output {
                Output::Discard => std::process::Stdio::null(),
                _ => std::process::Stdio::piped(),
            };
            let nothing_or_pipe =
                if stdin.is_some() { std::process::Stdio::piped() } else { std::process::Stdio::null() };
            command.stdin(nothing_or_pipe).stdout(piped(&stdout)).stderr(piped(&stderr));
            let mut child = start(command)?;
            if let (Some(to), Some(stdin)) = (child.stdin.take(), stdin) {
                input = Some(tokio::spawn(feed(stdin, to)));
            }
            if let Some(from) = child.stdout.take() {
                outputs.push(tokio::spawn(pump(from, stdout)));
            }
            if let Some(from) = child.stderr.take() {
                stderr_at = Some(outputs.len());
                outputs.push(tokio::spawn(pump(from, stderr)));
            }
            child
        };
        let runtime = runtime.chosen.path.clone();
        Ok(Self {
            child,
            stdin: input,
            outputs,
            stderr_at,
            ended,
            signals,
            pid_file,
            ipc_mark,
            first,
            runtime,
            id,
        })
    }

    /// Waits for the end; when canceled, kills the container and waits until the runtime has tidied up.
    pub(crate) async fn finish(mut self, cancel: &CancellationToken) -> Result<Ended> {
        let mut signals = self.signals.take();
        // With the first process ends what it has started, which no end of process ids takes along: crun waits for that.
        let whole = self.ipc_mark.clone().filter(|_| self.first);
        let runtime_pid = process_id(&self.child);
        let ending = whole_end(whole.clone(), self.pid_file.clone(), runtime_pid);
        tokio::pin!(ending);
        let mut has_ended = false;
        let (mut canceled, mut forced, mut accounted) = (false, false, None);
        let status = loop {
            tokio::select! {
                status = wait(&mut self.child, &mut accounted) => break status,
                () = cancel.cancelled() => {
                    canceled = true;
                    let killed = self.kill().await;
                    if let Some(mark) = whole.clone() {
                        let _ = tokio::task::spawn_blocking(move || mark.kill_all_but(runtime_pid)).await;
                    }
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
                () = &mut ending, if !has_ended => has_ended = true,
                Some(number) = next(&mut signals) => match Signal::try_from(number) {
                    // The runtime passes signals on, but it cannot pass on what it never sees.
                    Ok(Signal::SIGKILL) => { self.kill().await; }
                    Ok(signal) => if let Some(pid) = runtime_pid { let _ = kill(Pid::from_raw(pid), signal); },
                    Err(_) => tracing::warn!(number, "an unknown signal was not passed on"),
                },
            }
        };
        if let Some(mark) = whole {
            // What else runs in the container may hold its outputs.
            let _ = tokio::task::spawn_blocking(move || mark.kill_all_but(None)).await;
        }
        self.ended.cancel();
        if let Some(stdin) = self.stdin.take() {
            stdin.abort();
        }
        let source = |source| Error::Spawn { doing: "waiting for", runtime: self.runtime.clone(), source };
        let status = status.map_err(source)?;
        let mut stderr = Drained::default();
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
        Ok(Ended { status, stderr, canceled, forced, accounted })
    }

    /// Kills the container's first process, and with it all others. False if that could not be found and the runtime was
    /// killed instead.
    async fn kill(&mut self) -> bool {
        let deadline = tokio::time::Instant::now() + UNTIL_STARTED;
        loop {
            if let Some(pid) = read_pid(&self.pid_file)
                && kill_contained(pid, self.ipc_mark.as_ref())
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

/// Waits for the end of a runtime, and has the kernel's account of it before it is forgotten.
async fn wait(child: &mut Child, accounted: &mut Option<Accounted>) -> std::io::Result<ExitStatus> {
    let pid = process_id(child);
    let waiting = child.wait();
    tokio::pin!(waiting);
    std::future::poll_fn(|cx| {
        if accounted.is_none() {
            *accounted = pid.and_then(Accounted::of_ended);
        }
        waiting.as_mut().poll(cx)
    })
    .await
}

/// Waits for the end of the first process with a mark, and kills all others but for the runtime. Without a mark, forever.
async fn whole_end(mark: Option<IpcMark>, pid_file: PathBuf, runtime: Option<i32>) {
    let Some(mark) = mark else { return std::future::pending().await };
    mark.first_ended(pid_file).await;
    let _ = tokio::task::spawn_blocking(move || mark.kill_all_but(runtime)).await;
}

fn process_id(child: &Child) -> Option<i32> {
    child.id().and_then(|pid| i32::try_from(pid).ok())
}

fn file_stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// The process id that a runtime wrote, once it has written all of it.
pub(crate) fn read_pid(file: &Path) -> Option<i32> {
    std::fs::read_to_string(file).ok()?.trim().parse().ok().filter(|pid| *pid > 1)
}

/// Kills a process if it is in a process id namespace below ours, or has a mark: a number that has since been given to
/// another process of this machine is left alone.
pub(crate) fn kill_contained(pid: i32, mark: Option<&IpcMark>) -> bool {
    use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
    let Some(process) = rustix::process::Pid::from_raw(pid) else { return false };
    let Ok(process) = pidfd_open(process, PidfdFlags::empty()) else { return false };
    let is_below = || {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
        ids.is_some_and(|ids| ids.split_whitespace().count() > 1)
    };
    mark.map_or_else(is_below, |mark| mark.is_on(pid)) && pidfd_send_signal(&process, Signal::KILL).is_ok()
}
