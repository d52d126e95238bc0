//! Child processes whose output is gathered while they run and whose end is awaited with a limit.

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use std::fmt::Write as _;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long one command may take. Generous: the machine may be busy with other tests.
pub(crate) const COMMAND_LIMIT: Duration = Duration::from_secs(180);

/// What a finished process left.
#[derive(Debug, Clone)]
pub struct Ran {
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
    /// From start to end.
    pub took: Duration,
    what: String,
}

impl Ran {
    /// Runs a command to its end.
    pub fn run(command: &mut Command) -> Ran {
        Running::start(command).finish(COMMAND_LIMIT)
    }

    /// Panics with everything that was said unless the process succeeded.
    #[track_caller]
    pub fn ok(self) -> Ran {
        assert!(self.status.success(), "should have succeeded: {self}");
        self
    }

    /// Panics unless the process ended by itself with a failure.
    #[track_caller]
    pub fn fails(self) -> Ran {
        assert!(self.status.code().is_some_and(|code| code != 0), "should have failed: {self}");
        self
    }

    /// Panics unless `text` is somewhere in what was said.
    #[track_caller]
    pub fn says(self, text: &str) -> Ran {
        assert!(self.said().contains(text), "should have said {text:?}: {self}");
        self
    }

    /// Panics unless `text` is nowhere in what was said.
    #[track_caller]
    pub fn never_says(self, text: &str) -> Ran {
        assert!(!self.said().contains(text), "should not have said {text:?}: {self}");
        self
    }

    /// Standard output and standard error, one after the other.
    pub fn said(&self) -> String {
        format!("{}\n{}", self.stdout, self.stderr)
    }
}

impl std::fmt::Display for Ran {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let end = match (self.status.code(), self.status.signal()) {
            (Some(code), _) => format!("exit code {code}"),
            (None, signal) => format!("signal {signal:?}"),
        };
        write!(out, "{}\n{end} after {:?}\n", self.what, self.took)?;
        write!(out, "--- stdout\n{}\n--- stderr\n{}", self.stdout, self.stderr)
    }
}

/// What both output streams brought so far.
#[derive(Default)]
struct Heard {
    streams: Mutex<[Vec<u8>; 2]>,
    more: Condvar,
}

/// A process that runs.
pub struct Running {
    child: Child,
    heard: Arc<Heard>,
    readers: Vec<JoinHandle<()>>,
    started: Instant,
    what: String,
    ended: Option<ExitStatus>,
}

impl Running {
    /// Starts a command with its output gathered and nothing on its standard input.
    pub fn start(command: &mut Command) -> Running {
        let mut what = String::new();
        let _ = write!(what, "{command:?}");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let started = Instant::now();
        let mut child = command.spawn().unwrap_or_else(|error| panic!("start {what}: {error}"));
        let heard = Arc::new(Heard::default());
        let readers = vec![
            listen(child.stdout.take().expect("stdout is piped"), heard.clone(), 0),
            listen(child.stderr.take().expect("stderr is piped"), heard.clone(), 1),
        ];
        Running { child, heard, readers, started, what, ended: None }
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What was said so far, both streams.
    pub fn said(&self) -> String {
        let streams = self.heard.streams.lock().unwrap_or_else(PoisonError::into_inner);
        format!("{}\n{}", String::from_utf8_lossy(&streams[0]), String::from_utf8_lossy(&streams[1]))
    }

    /// Waits until `text` was said; panics after `limit`, or when the process ends without it.
    pub fn wait_for(&mut self, text: &str, limit: Duration) {
        let start = Instant::now();
        loop {
            if self.said().contains(text) {
                return;
            }
            let ended = self.has_ended();
            if ended && self.said().contains(text) {
                return;
            }
            assert!(
                !ended && start.elapsed() < limit,
                "waited in vain for {text:?} of {}, which said:\n{}",
                self.what,
                self.said()
            );
            let streams = self.heard.streams.lock().unwrap_or_else(PoisonError::into_inner);
            drop(self.heard.more.wait_timeout(streams, Duration::from_millis(50)));
        }
    }

    /// Whether the process is over.
    pub fn has_ended(&mut self) -> bool {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().expect("ask for the state of a child");
        }
        self.ended.is_some()
    }

    /// Sends a signal, if the process still runs.
    pub fn signal(&mut self, signal: Signal) {
        if !self.has_ended() {
            // It may end in this very moment, which is what the signal is for.
            let _ = kill_process(Pid::from_child(&self.child), signal);
        }
    }

    /// Waits for the end; panics after `limit`.
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        if let Some(status) = self.ended {
            return status;
        }
        let process = pidfd_open(Pid::from_child(&self.child), PidfdFlags::empty())
            .unwrap_or_else(|error| panic!("watch {}: {error}", self.what));
        let timeout = rustix::event::Timespec {
            tv_sec: i64::try_from(limit.as_secs()).expect("a limit of this century"),
            tv_nsec: limit.subsec_nanos().into(),
        };
        let ready = poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&timeout));
        if !matches!(ready, Ok(1..)) {
            let said = self.said();
            let _ = self.child.kill();
            panic!("{} did not end within {limit:?}; it said:\n{said}", self.what);
        }
        let status = self.child.wait().expect("collect a child that has ended");
        self.ended = Some(status);
        status
    }

    /// Waits for the end and hands over what was said.
    pub fn finish(mut self, limit: Duration) -> Ran {
        let status = self.wait(limit);
        let took = self.started.elapsed();
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
        let streams = self.heard.streams.lock().unwrap_or_else(PoisonError::into_inner);
        let [stdout, stderr] = [0, 1].map(|at| String::from_utf8_lossy(&streams[at]).into_owned());
        drop(streams);
        Ran { status, stdout, stderr, took, what: std::mem::take(&mut self.what) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.has_ended() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn listen(mut stream: impl Read + Send + 'static, heard: Arc<Heard>, at: usize) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut buffer = [0; 8192];
        while let Ok(length @ 1..) = stream.read(&mut buffer) {
            let mut streams = heard.streams.lock().unwrap_or_else(PoisonError::into_inner);
            streams[at].extend_from_slice(&buffer[..length]);
            drop(streams);
            heard.more.notify_all();
        }
    })
}
