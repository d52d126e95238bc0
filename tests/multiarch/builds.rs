//! One run of the client.

use crate::running::{Ran, Running};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// A `buildctl build` in the making.
pub struct Build {
    command: Command,
    metadata: PathBuf,
    progress: String,
}

impl Build {
    pub(crate) fn new(program: &Path, address: &str, context: &Path) -> Build {
        let mut command = Command::new(program);
        let metadata = context.with_extension("metadata.json");
        command
            .args(["--addr", address, "build", "--frontend", "dockerfile.v0"])
            .arg("--local")
            .arg(format!("context={}", context.display()))
            .arg("--local")
            .arg(format!("dockerfile={}", context.display()))
            .env_remove("SOURCE_DATE_EPOCH");
        Build { command, metadata, progress: "plain".into() }
    }

    /// A frontend option.
    pub fn opt(mut self, key: &str, value: &str) -> Build {
        self.command.arg("--opt").arg(format!("{key}={value}"));
        self
    }

    /// The platforms to build for.
    pub fn platforms(self, platforms: &[&str]) -> Build {
        let list = platforms.join(",");
        self.opt("platform", &list)
    }

    /// An output: `type=oci,dest=…`.
    pub fn output(mut self, output: &str) -> Build {
        self.command.arg("--output").arg(output);
        self
    }

    /// A local output into a folder.
    pub fn into(self, folder: &Path) -> Build {
        let output = format!("type=local,dest={}", folder.display());
        self.output(&output)
    }

    /// Any other argument.
    pub fn argument(mut self, argument: &str) -> Build {
        self.command.arg(argument);
        self
    }

    /// An environment variable of the client.
    pub fn environment(mut self, key: &str, value: &str) -> Build {
        self.command.env(key, value);
        self
    }

    /// The way progress is shown; `plain` unless said otherwise.
    pub fn progress(mut self, way: &str) -> Build {
        self.progress = way.to_owned();
        self
    }

    /// Where the metadata file goes; beside the context unless said otherwise.
    pub fn metadata_file(mut self, file: &Path) -> Build {
        self.metadata = file.to_path_buf();
        self
    }

    /// Runs it to its end.
    pub fn run(self) -> Ran {
        Ran::run(&mut self.command())
    }

    /// Runs it, which has to succeed, and gives what the metadata file says.
    pub fn run_for_metadata(self) -> (Ran, Value) {
        let metadata = self.metadata.clone();
        let ran = self.run().ok();
        let text = std::fs::read(&metadata).expect("a build leaves its metadata file");
        (ran, serde_json::from_slice(&text).expect("the metadata file is JSON"))
    }

    /// Runs it, which has to succeed, with its output where ours goes; gives how long it took.
    pub fn show(self) -> Duration {
        let mut command = self.command();
        let start = Instant::now();
        let status = command.status().unwrap_or_else(|error| panic!("start {command:?}: {error}"));
        assert!(status.success(), "the build ended with {status}");
        start.elapsed()
    }

    /// Starts it.
    pub fn start(self) -> Running {
        Running::start(&mut self.command())
    }

    /// The whole command.
    pub fn command(mut self) -> Command {
        let _ = std::fs::remove_file(&self.metadata);
        self.command.arg("--progress").arg(&self.progress).arg("--metadata-file").arg(&self.metadata);
        self.command
    }
}
