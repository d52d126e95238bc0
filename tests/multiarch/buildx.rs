//! docker buildx as other people use it: a remote builder, no engine.

use crate::daemon::Daemon;
use crate::running::Ran;
use crate::scene::Scene;
use std::path::PathBuf;
use std::process::Command;

/// A buildx with a configuration of its own and one builder, our daemon.
pub struct Buildx {
    program: PathBuf,
    configuration: PathBuf,
}

impl Buildx {
    /// Creates the builder `crosskit` with the remote driver and makes it the current one.
    pub fn create(scene: &Scene, daemon: &Daemon) -> Buildx {
        let configuration = scene.path("docker-config");
        std::fs::create_dir_all(&configuration).expect("create a docker configuration");
        let buildx = Buildx { program: scene.parts.docker_buildx(), configuration };
        buildx.run(&["create", "--name", "crosskit", "--use", "--driver", "remote", &daemon.address()]).ok();
        buildx
    }

    /// Runs buildx with these arguments.
    pub fn run(&self, arguments: &[&str]) -> Ran {
        let mut command = self.command();
        command.args(arguments);
        Ran::run(&mut command)
    }

    /// buildx without arguments yet, for a run with a folder or an environment of its own.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command
            .env("DOCKER_CONFIG", &self.configuration)
            .env("BUILDKIT_PROGRESS", "plain")
            .env("DOCKER_HOST", "unix:///nonexistent/docker.sock")
            .env_remove("SOURCE_DATE_EPOCH");
        command
    }
}
