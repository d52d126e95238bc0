//! One run of the client.

use crate::running::{Ran, Running};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A `buildctl build` in the making.
pub struct Build {
    command: Command,
    metadata: PathBuf,
}

impl Build {
    pub(crate) fn new(program: &Path, address: &str, context: &Path) -> Build {
        let mut command = Command::new(program);
        let metadata = context.with_extension("metadata.json");
        let _ = std::fs::remove_file(&metadata);
        command
            .args(["--addr", address, "build", "--progress", "plain", "--frontend", "dockerfile.v0"])
            .arg("--local")
            .arg(format!("context={}", context.display()))
            .arg("--local")
            .arg(format!("dockerfile={}", context.display()))
            .arg("--metadata-file")
            .arg(&metadata)
            .env_remove("SOURCE_DATE_EPOCH");
        Build { command, metadata }
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

    /// Runs it to its end.
    pub fn run(mut self) -> Ran {
        Ran::run(&mut self.command)
    }

    /// Runs it, which has to succeed, and gives what the metadata file says.
    pub fn run_for_metadata(mut self) -> (Ran, Value) {
        let ran = Ran::run(&mut self.command).ok();
        let text = std::fs::read(&self.metadata).expect("a build leaves its metadata file");
        (ran, serde_json::from_slice(&text).expect("the metadata file is JSON"))
    }

    /// Starts it.
    pub fn start(mut self) -> Running {
        Running::start(&mut self.command)
    }
}
