//! The daemon under test.

use crate::builds::Build;
use crate::leftovers::{mounts_below, processes_of};
use crate::parts::search_path;
use crate::running::{Ran, Running};
use crate::scene::Scene;
use crate::wait::until;
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::Signal;
use std::env;
use std::ffi::OsString;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// How long the daemon may take to its first answer on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(30);

/// How long an orderly end may take, running builds included.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// How a daemon is started.
#[derive(Debug, Clone)]
pub struct DaemonOptions {
    /// Folder in the scene that holds root, socket and config.
    pub name: String,
    /// The root folder, when it is not `NAME/root`.
    pub root: Option<PathBuf>,
    /// Lines of `buildkitd.toml` after those for the scene's registry.
    pub config: String,
    /// More arguments.
    pub arguments: Vec<String>,
    /// More environment.
    pub environment: Vec<(String, String)>,
    /// Whether QEMU is on its PATH.
    pub emulators: bool,
    /// The wrapper to start it through, such as `unshare` with its arguments.
    pub through: Vec<OsString>,
    /// Where the program is for the wrapper, when it is not where it is for us.
    pub program: Option<PathBuf>,
}

impl Default for DaemonOptions {
    fn default() -> DaemonOptions {
        DaemonOptions {
            name: "daemon".into(),
            root: None,
            config: String::new(),
            arguments: Vec::new(),
            environment: Vec::new(),
            emulators: true,
            through: Vec::new(),
            program: None,
        }
    }
}

/// A daemon that runs. Dropping it kills it and takes away what it had mounted.
pub struct Daemon {
    /// Its root folder.
    pub root: PathBuf,
    /// Its socket.
    pub socket: PathBuf,
    /// From its start until its socket accepted.
    pub ready_after: Duration,
    /// The folder of the programs under test.
    programs: PathBuf,
    folder: PathBuf,
    process: Running,
    /// Somebody else's, who may see its own end as a failure.
    foreign: bool,
}

impl Daemon {
    pub(crate) fn start(scene: &Scene, options: DaemonOptions) -> Daemon {
        let (mut daemon, started) = Daemon::spawn(scene, options);
        until("the daemon to accept connections", START_LIMIT, || {
            assert!(!daemon.process.has_ended(), "the daemon ended:\n{}", daemon.process.said());
            UnixStream::connect(&daemon.socket).ok()
        });
        daemon.ready_after = started.elapsed();
        daemon
    }

    /// Starts a daemon of which it is expected that it ends with a failure, and gives what it said.
    pub fn fails_to_start(scene: &Scene, options: DaemonOptions) -> Ran {
        let (mut daemon, _) = Daemon::spawn(scene, options);
        daemon.process.wait(START_LIMIT);
        let process = std::mem::replace(&mut daemon.process, Running::start(&mut Command::new("true")));
        process.finish(START_LIMIT).fails()
    }

    fn spawn(scene: &Scene, options: DaemonOptions) -> (Daemon, Instant) {
        let folder = scene.path(&options.name);
        std::fs::create_dir_all(folder.join("tmp")).expect("create the daemon's folder");
        let root = options.root.unwrap_or_else(|| folder.join("root"));
        let socket = folder.join("buildkitd.sock");
        // What a killed predecessor left is not what we wait for.
        let _ = std::fs::remove_file(&socket);
        let config = folder.join("buildkitd.toml");
        let text =
            format!("{}\n[registry.\"{}\"]\n  http = true\n", options.config, scene.registry.address());
        std::fs::write(&config, text).expect("write the daemon's config");
        let program = options.program.unwrap_or_else(|| scene.programs.path("buildkitd"));
        let mut command = match options.through.split_first() {
            Some((wrapper, rest)) => {
                let mut command = Command::new(wrapper);
                command.args(rest).arg(&program);
                command
            }
            None => Command::new(&program),
        };
        let mut path = vec![scene.programs.folder().to_path_buf()];
        if options.emulators {
            path.push(scene.parts.qemu());
        }
        path.extend(search_path());
        command
            .arg("--root")
            .arg(&root)
            .arg("--addr")
            .arg(format!("unix://{}", socket.display()))
            .arg("--config")
            .arg(&config)
            .arg("--debug")
            .args(&options.arguments)
            .env("PATH", env::join_paths(path).expect("folders without colons"))
            .env("TMPDIR", folder.join("tmp"))
            .envs(options.environment);
        let started = Instant::now();
        let process = Running::start(&mut command);
        let programs = scene.programs.folder().to_path_buf();
        let foreign = scene.programs.are_foreign();
        (Daemon { root, socket, ready_after: Duration::ZERO, programs, folder, process, foreign }, started)
    }

    /// `unix://…`
    pub fn address(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// The log so far.
    pub fn log(&self) -> String {
        self.process.said()
    }

    /// Waits until the log holds a text.
    pub fn wait_for_log(&mut self, text: &str) {
        self.process.wait_for(text, START_LIMIT);
    }

    /// The command line client, set to this daemon.
    pub fn buildctl(&self, arguments: &[&str]) -> Ran {
        let mut command = Command::new(self.programs.join("buildctl"));
        command.arg("--addr").arg(self.address()).args(arguments);
        Ran::run(&mut command)
    }

    /// A build of a context folder with the client of this project.
    pub fn build(&self, context: &Path) -> Build {
        Build::new(&self.programs.join("buildctl"), &self.address(), context)
    }

    /// Ends it as an init system does and looks at what it left: nothing.
    pub fn stop(self) {
        self.stop_beside(&[]);
    }

    /// The same while clients of it still run.
    pub fn stop_beside(mut self, clients: &[u32]) {
        self.process.signal(Signal::TERM);
        let status = self.process.wait(STOP_LIMIT);
        let orderly = status.success() || (self.foreign && status.code().is_some());
        assert!(orderly, "the daemon ended with {status}:\n{}", self.process.said());
        self.left_nothing_but(clients);
    }

    /// Asks it to end, as an init system does.
    pub fn terminate(&mut self) {
        self.process.signal(Signal::TERM);
    }

    /// Waits until it has ended.
    pub fn ended(&mut self, limit: Duration) {
        self.process.wait(limit);
    }

    /// Ends it without a chance to clean up.
    pub fn kill(mut self) {
        self.process.signal(Signal::KILL);
        self.process.wait(STOP_LIMIT);
    }

    /// Panics if processes or mounts of this daemon are on the machine.
    pub fn left_nothing(&self) {
        self.left_nothing_but(&[]);
    }

    fn left_nothing_but(&self, clients: &[u32]) {
        let mut processes = processes_of(&self.folder);
        processes.retain(|(id, _)| !clients.contains(id));
        assert!(processes.is_empty(), "processes left: {processes:?}\n{}", self.process.said());
        let mounts = mounts_below(&self.folder);
        assert!(mounts.is_empty(), "mounts left: {mounts:?}\n{}", self.process.said());
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if !self.process.has_ended() {
            self.process.signal(Signal::KILL);
            self.process.wait(STOP_LIMIT);
        }
        if std::thread::panicking() {
            eprintln!("--- log of the daemon in {}\n{}", self.folder.display(), self.process.said());
        }
        // After a kill there is something: the folder must be removable all the same.
        for mount in mounts_below(&self.folder) {
            let _ = unmount(&mount, UnmountFlags::DETACH);
        }
    }
}
