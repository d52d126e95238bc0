//! Docker's engine, for what only it can start: the builder that buildx makes of an image.

use crate::leftovers::mounts_below;
use crate::running::{Ran, Running};
use crate::scene::Scene;
use rustix::process::Signal;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// An engine with a folder and a socket of its own, and no networks but the machine's. Gone with its containers when dropped.
pub struct Engine {
    parts: PathBuf,
    folder: PathBuf,
    buildx: PathBuf,
    daemon: Running,
}

impl Engine {
    /// Starts it with this runtime for its containers, and waits until it answers.
    pub fn start(scene: &Scene, runtime: &Path) -> Engine {
        let (parts, folder) = (scene.parts.engine(), scene.path("engine"));
        std::fs::create_dir_all(&folder).expect("make the engine's folder");
        let mut command = Command::new(parts.join("usr/sbin/dockerd"));
        with_parts(&mut command, &parts);
        command
            .arg("--data-root")
            .arg(folder.join("data"))
            .arg("--exec-root")
            .arg(folder.join("exec"))
            .arg("--pidfile")
            .arg(folder.join("pid"))
            .arg("--host")
            .arg(address(&folder))
            .arg("--add-runtime")
            .arg(format!("trimmed={}", runtime.display()))
            .args([
                "--default-runtime",
                "trimmed",
                "--bridge",
                "none",
                "--iptables=false",
                "--ip6tables=false",
            ]);
        let mut daemon = Running::start(&mut command);
        daemon.wait_for("API listen on", Duration::from_secs(60));
        Engine { parts, folder, buildx: scene.parts.docker_buildx(), daemon }
    }

    /// Runs docker's client.
    pub fn docker(&self, arguments: &[&str]) -> Ran {
        let mut command = Command::new(self.parts.join("usr/bin/docker"));
        command.args(arguments);
        Ran::run(self.reaching(&mut command))
    }

    /// Runs buildx beside this engine.
    pub fn buildx(&self, arguments: &[&str]) -> Ran {
        let mut command = Command::new(&self.buildx);
        command.args(arguments).env("BUILDKIT_PROGRESS", "plain").env_remove("SOURCE_DATE_EPOCH");
        Ran::run(self.reaching(&mut command))
    }

    fn reaching<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        with_parts(command, &self.parts);
        command.env("DOCKER_HOST", address(&self.folder)).env("DOCKER_CONFIG", self.folder.join("client"))
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let containers = self.docker(&["ps", "-aq"]).stdout;
        let containers: Vec<&str> = containers.split_whitespace().collect();
        if !containers.is_empty() {
            self.docker(&[&["rm", "--force", "--volumes"], containers.as_slice()].concat());
        }
        self.daemon.signal(Signal::TERM);
        self.daemon.wait(Duration::from_secs(60));
        // The engine leaves namespaces mounted, and with them its folder.
        for mount in mounts_below(&self.folder) {
            Ran::run(Command::new("umount").arg(mount));
        }
    }
}

fn address(folder: &Path) -> String {
    format!("unix://{}", folder.join("docker.sock").display())
}

/// The programs and libraries that were unpacked, before the machine's.
fn with_parts(command: &mut Command, parts: &Path) {
    let path = std::env::var("PATH").unwrap_or_default();
    let own = [parts.join("usr/bin"), parts.join("usr/sbin")].map(|folder| folder.display().to_string());
    command.env("PATH", format!("{}:{path}:/usr/sbin:/sbin", own.join(":")));
    let libraries: Vec<String> = ["lib", "usr/lib"]
        .iter()
        .filter_map(|folder| std::fs::read_dir(parts.join(folder)).ok())
        .flat_map(|entries| entries.flatten().map(|entry| entry.path()))
        .filter(|path| path.join("libdevmapper.so.1.02.1").exists())
        .map(|path| path.display().to_string())
        .collect();
    command.env("LD_LIBRARY_PATH", libraries.join(":"));
}
