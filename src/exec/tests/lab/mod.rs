//! What the tests run with: real runtimes, a root filesystem with busybox, executors of their own.

#![allow(dead_code)] // each test file uses its part

use std::{
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use crosskit_exec::{ExecConfig, Executor, Exit, Output, Process, Result, Stdio};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// Both must be installed: what works with one only is no promise.
pub const RUNTIMES: [&str; 2] = ["crun", "runc"];

const APPLETS: &[&str] = &[
    "sh", "cat", "echo", "ls", "id", "sleep", "grep", "ip", "touch", "stat", "true", "env", "hostname", "wc",
    "tr", "kill", "stty", "pwd", "test", "mount", "mkdir", "rm", "chown", "dd", "readlink", "uname",
    "ulimit", "head", "df", "tty", "seq", "sort", "wget",
];

/// The folder of real programs that the test script prepares.
pub fn parts() -> PathBuf {
    let folder = std::env::var_os("CROSSKIT_TEST_PARTS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/parts"), PathBuf::from);
    assert!(folder.join("busybox").exists(), "no parts in {}: run tests/parts.sh", folder.display());
    folder.canonicalize().expect("there")
}

/// A root filesystem that holds busybox of an architecture.
pub fn rootfs(architecture: &str) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for name in ["bin", "etc", "tmp", "proc", "sys", "dev"] {
        std::fs::create_dir(folder.path().join(name)).expect("made");
    }
    let from = parts().join("busybox").join(architecture).join("busybox");
    std::fs::copy(&from, folder.path().join("bin/busybox"))
        .unwrap_or_else(|e| panic!("{}: {e}", from.display()));
    for applet in APPLETS {
        symlink("busybox", folder.path().join("bin").join(applet)).expect("linked");
    }
    folder
}

/// This machine's root filesystem.
pub fn native_rootfs() -> TempDir {
    rootfs(&crosskit_platforms::native().architecture)
}

/// An executor with this runtime and a folder of its own in memory.
pub struct Lab {
    pub executor: Executor,
    pub root: TempDir,
}

impl Lab {
    pub fn new(runtime: &str) -> Self {
        Self::with(ExecConfig { runtime: Some(runtime.into()), ..ExecConfig::default() })
    }

    pub fn with(config: ExecConfig) -> Self {
        let root = tempfile::Builder::new().prefix("crosskit-exec").tempdir_in("/dev/shm").expect("a folder");
        let executor = Executor::new(ExecConfig { root: root.path().into(), ..config }).expect("set up");
        Self { executor, root }
    }

    /// Runs a process; gives its end and what it said.
    pub async fn run(&self, process: Process) -> Said {
        self.try_run(process).await.unwrap_or_else(|error| panic!("{error}"))
    }

    pub async fn try_run(&self, process: Process) -> Result<Said> {
        let (out, err) = (Collected::default(), Collected::default());
        let io = Stdio { stdout: out.output(), stderr: err.output(), ..Stdio::default() };
        let exit = self.executor.run(process, io, CancellationToken::new()).await?;
        Ok(Said { exit, out: out.text(), err: err.text() })
    }

    /// Runs a shell script that must succeed; gives what it wrote.
    pub async fn sh(&self, rootfs: &TempDir, script: &str) -> String {
        let said = self.run(sh(rootfs, script)).await;
        assert_eq!(said.exit.code, 0, "{}{}{:?}", said.out, said.err, said.exit);
        said.out
    }

    /// Nothing of any container is left.
    pub fn assert_clean(&self) {
        let names = |folder: &Path| -> Vec<PathBuf> {
            std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
        };
        assert_eq!(names(&self.root.path().join("containers")), Vec::<PathBuf>::new());
        for state in names(self.root.path()).iter().filter(|path| path.to_string_lossy().contains("/state-"))
        {
            assert_eq!(names(state), Vec::<PathBuf>::new(), "{}", state.display());
        }
    }
}

#[derive(Debug)]
pub struct Said {
    pub exit: Exit,
    pub out: String,
    pub err: String,
}

/// Output kept in memory.
#[derive(Clone, Default)]
pub struct Collected(Arc<Mutex<Vec<u8>>>);

impl Collected {
    pub fn output(&self) -> Output {
        let kept = self.0.clone();
        Output::call(move |piece| kept.lock().expect("not poisoned").extend_from_slice(&piece))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().expect("not poisoned")).into_owned()
    }

    /// Waits until it holds this text.
    pub async fn wait_for(&self, text: &str) {
        let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(20);
        while !self.text().contains(text) {
            assert!(tokio::time::Instant::now() < deadline, "no {text:?} in {:?}", self.text());
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    }
}

pub fn process(rootfs: &TempDir, args: &[&str]) -> Process {
    Process {
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        rootfs: rootfs.path().into(),
        ..Process::default()
    }
}

pub fn sh(rootfs: &TempDir, script: &str) -> Process {
    process(rootfs, &["/bin/sh", "-c", script])
}

/// Waits until a condition holds.
pub async fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(20);
    while !holds() {
        assert!(tokio::time::Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
}
