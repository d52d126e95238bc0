//! The OCI runtime: which one, and why.

use std::{
    io,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Stdio,
};

use crosskit_platforms::Architecture;
use crosskit_qemu::{EXIT_BASE, probe};

use crate::{
    Error, Network, Result, Security, cgroups,
    error::file_error,
    hybrid,
    leftovers::Mark,
    marks::IpcMark,
    rights::Rights,
    sandbox,
    spec::{Annotations, Linux, MountSpec, ProcessSpec, Resources, Root, Seccomp, Spec, User, VERSION},
};

/// Programs that are tried if none is named: crun costs a step a third of what runc does; the others are stock BuildKit's.
const CANDIDATES: [&str; 4] = ["crun", "runc", "buildkit-crun", "buildkit-runc"];
/// Folders that PATH of an ordinary user lacks and that Debian keeps runc in.
const MORE_FOLDERS: [&str; 4] = ["/usr/local/sbin", "/usr/sbin", "/usr/bin", "/sbin"];

/// The runtime that runs every step of this daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// Its program.
    pub path: PathBuf,
    /// `crun`, `runc`, or what else it calls itself.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Why this one, in a sentence.
    pub why: String,
}

/// A runtime that has run a container.
#[derive(Debug)]
pub(crate) struct Runtime {
    pub(crate) chosen: Chosen,
    /// Whether it has to run where version 2 cgroups beside version 1 are not seen.
    leaves_hybrid: bool,
    /// What its containers can have.
    pub(crate) rights: Rights,
    /// Where it keeps what it knows of its containers.
    pub(crate) state: PathBuf,
    /// Where trial containers are noted.
    pub(crate) ledger: PathBuf,
}

impl Runtime {
    /// Finds a runtime by running a container with each candidate. Blocks for 10–100 ms.
    pub(crate) fn select(
        explicit: Option<&Path>,
        run_root: &Path,
        ledger: &Path,
        rights: Rights,
    ) -> Result<Self> {
        if let Some(named) = explicit {
            let path = if named.components().count() > 1 { Some(named.to_owned()) } else { find(named) };
            let tried = |why: &dyn std::fmt::Display| Error::NoRuntime {
                tried: format!("{}: {why}", named.display()),
            };
            let path = path.ok_or_else(|| tried(&"there is no such program on PATH"))?;
            return Self::try_one(&path, run_root, ledger, rights, "it is named in the configuration")
                .map_err(|why| tried(&why));
        }
        let mut failures: Vec<String> = Vec::new();
        for name in CANDIDATES {
            let Some(path) = find(Path::new(name)) else {
                failures.push(format!("{name} is not installed"));
                continue;
            };
            let why = if failures.is_empty() {
                "it is the fastest and it runs containers here".to_owned()
            } else {
                format!("it runs containers here; {}", failures.join("; "))
            };
            match Self::try_one(&path, run_root, ledger, rights, &why) {
                Ok(runtime) => return Ok(runtime),
                Err(why) => failures.push(format!("{} does not work: {why}", path.display())),
            }
        }
        failures.extend(rights.advice(&failures));
        Err(Error::NoRuntime { tried: failures.join("; ") })
    }

    /// Runs a container with this program, if need be out of sight of a hybrid hierarchy.
    fn try_one(path: &Path, run_root: &Path, ledger: &Path, rights: Rights, why: &str) -> Result<Self> {
        let (name, version) = identify(path)?;
        let chosen = Chosen { path: path.to_owned(), version, why: why.to_owned(), name };
        let state = run_root.join(format!("state-{}", chosen.name));
        let mut runtime = Self { chosen, leaves_hybrid: false, rights, state, ledger: ledger.to_owned() };
        let Err(error) = runtime.probe(run_root, None, None) else { return Ok(runtime) };
        if !hybrid::is_hybrid() {
            return Err(error);
        }
        runtime.leaves_hybrid = true;
        runtime.probe(run_root, None, None)?;
        runtime.chosen.why.push_str(
            "; in a mount namespace without /sys/fs/cgroup/unified, since it refuses the hybrid cgroups of this machine",
        );
        Ok(runtime)
    }

    /// Whether it is crun, which takes ready filters.
    pub(crate) fn is_crun(&self) -> bool {
        self.chosen.name == "crun"
    }

    /// Whether a hook may end without reading its input: with crun since 1.17.
    pub(crate) fn lets_hooks_ignore_input(&self) -> bool {
        !self.is_crun() || release(&self.chosen.version) >= (1, 17)
    }

    /// The program with what every call of it needs. Its environment is empty: nothing of the daemon's (NOTIFY_SOCKET,
    /// LISTEN_FDS) may reach a container.
    pub(crate) fn command(&self, log: &Path) -> std::process::Command {
        let mut command = std::process::Command::new(&self.chosen.path);
        command
            .arg("--root")
            .arg(&self.state)
            .arg("--log")
            .arg(log)
            .args(["--log-format", "json"])
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            // What is typed at the daemon's terminal is for the daemon.
            .process_group(0);
        match (self.rights.rootless, self.is_crun()) {
            (false, _) => {}
            (true, true) => _ = command.args(["--cgroup-manager", "disabled"]),
            (true, false) => _ = command.args(["--rootless", "true"]),
        }
        if self.leaves_hybrid {
            // SAFETY: only system calls without allocation between fork and exec.
            unsafe {
                command.pre_exec(hybrid::leave);
            }
        }
        command
    }

    /// Options for what starts a container. The kernel lets an ordinary user have 200 keys, and takes its time with those of
    /// containers that have ended: a rootless daemon's share the session keyring that it has made for them.
    pub(crate) fn keyring(&self) -> &'static [&'static str] {
        if self.rights.rootless { &["--no-new-keyring"] } else { &[] }
    }

    /// Runs a tiny program in a container that is made like those of steps.
    pub(crate) fn probe(
        &self,
        run_root: &Path,
        seccomp: Option<&'static Seccomp>,
        filter: Option<&str>,
    ) -> Result<()> {
        let bundle = ProbeBundle::make(run_root, &self.ledger, self.rights, seccomp, filter)?;
        let mut command = self.command(&bundle.log());
        if self.rights.shares_processes {
            IpcMark::new().map_err(self.spawn_error("making an IPC namespace for"))?.put_on(&mut command);
        }
        let status = command
            .arg("run")
            .args(self.keyring())
            .arg("--bundle")
            .arg(&bundle.dir)
            .arg(&bundle.id)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .map_err(self.spawn_error("starting"))?;
        if status.code().is_some_and(|code| (EXIT_BASE + 1..EXIT_BASE + 5).contains(&code)) {
            return Ok(());
        }
        let said = messages(&bundle.log()).unwrap_or_else(|| format!("a container ended with {status}"));
        Err(self.spawn_error("running a container with")(io::Error::other(said)))
    }

    /// `map_err` argument for calls of the program.
    pub(crate) fn spawn_error(&self, doing: &'static str) -> impl FnOnce(io::Error) -> Error {
        let runtime = self.chosen.path.clone();
        move |source| Error::Spawn { doing, runtime, source }
    }
}

/// Which runtime a daemon would take: the one named, or the first that runs a container here. Uses the folder for that,
/// which has to be there and empty. Blocks for 10–100 ms.
///
/// # Errors
/// None works; the message says what became of each.
pub fn try_runtime(explicit: Option<&Path>, folder: &Path) -> Result<Chosen> {
    let ledger = folder.join("ledger");
    std::fs::create_dir_all(&ledger).map_err(file_error("making", &ledger))?;
    let rights = Rights::new(crosskit_rootless::is_inside(), false);
    Runtime::select(explicit, folder, &ledger, rights).map(|runtime| runtime.chosen)
}

/// Name and version from what a program says with `--version`: `crun version 1.8.1`.
fn identify(path: &Path) -> Result<(String, String)> {
    let output = std::process::Command::new(path).arg("--version").stdin(Stdio::null()).output().map_err(
        |source| Error::Spawn { doing: "asking for the version of", runtime: path.to_owned(), source },
    )?;
    let said = String::from_utf8_lossy(&output.stdout);
    let mut words = said.split_whitespace();
    let file = || path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let name = words.next().map(str::to_owned).unwrap_or_else(file);
    let version =
        words.find(|word| word.starts_with(|c: char| c.is_ascii_digit())).unwrap_or("unknown").to_owned();
    Ok((name, version))
}

/// The first two numbers of a version: (1, 8) of `1.8.1`, (0, 0) of what is none.
fn release(version: &str) -> (u32, u32) {
    let mut numbers = version.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// Looks a program up along PATH and where Debian keeps such programs.
pub(crate) fn find(name: &Path) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let along = std::env::split_paths(&path).chain(MORE_FOLDERS.iter().map(PathBuf::from));
    along.map(|folder| folder.join(name)).find(|program| {
        use std::os::unix::fs::PermissionsExt;
        program.metadata().is_ok_and(|about| about.is_file() && about.permissions().mode() & 0o111 != 0)
    })
}

/// What a runtime wrote to its log as errors; None if nothing.
pub(crate) fn messages(log: &Path) -> Option<String> {
    let text = std::fs::read_to_string(log).ok()?;
    let lines: Vec<String> = text
        .lines()
        .filter_map(|line| {
            let entry: serde_json::Value = serde_json::from_str(line).ok()?;
            let serious = matches!(entry["level"].as_str(), Some("error" | "fatal"));
            serious.then(|| entry["msg"].as_str().unwrap_or_default().to_owned())
        })
        .collect();
    (!lines.is_empty()).then(|| lines.join("; "))
}

/// A bundle whose process is the probe program; removed when dropped.
pub(crate) struct ProbeBundle {
    pub(crate) dir: PathBuf,
    pub(crate) id: String,
    /// Empty for none.
    cgroup: String,
    _rootfs: probe::Folder,
    _mark: Mark,
}

impl ProbeBundle {
    pub(crate) fn make(
        run_root: &Path,
        ledger: &Path,
        rights: Rights,
        seccomp: Option<&'static Seccomp>,
        filter: Option<&str>,
    ) -> Result<Self> {
        let id = crate::bundle::new_id();
        let dir = run_root.join(format!("probe-{id}"));
        let unusable = |error: crosskit_qemu::Error| {
            file_error("preparing a trial container in", run_root)(io::Error::other(error.to_string()))
        };
        let rootfs = probe::Folder::new().map_err(unusable)?;
        let program = Architecture::native().and_then(crosskit_qemu::program).unwrap_or_default();
        let file = rootfs.path().join("probe");
        std::fs::write(&file, program)
            .and_then(|()| {
                std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o755))
            })
            .map_err(file_error("writing", &file))?;
        std::fs::create_dir_all(&dir).map_err(file_error("making", &dir))?;
        let cgroup = if rights.rootless { String::new() } else { cgroups::path("", &id) };
        let mark = Mark::set(ledger, &id, &cgroup)?;
        let bundle = Self { dir, id, cgroup, _rootfs: rootfs, _mark: mark };
        let confinement = sandbox::confinement(Security::Sandbox, rights.rootless);
        let args = ["/probe".to_owned()];
        let spec = Spec {
            oci_version: VERSION,
            process: ProcessSpec {
                terminal: false,
                console_size: None,
                user: User::default(),
                args: &args,
                env: Vec::new(),
                cwd: "/".into(),
                capabilities: confinement.capabilities,
                rlimits: Vec::new(),
                apparmor_profile: None,
                oom_score_adj: None,
            },
            root: Root { path: bundle._rootfs.path().to_string_lossy(), readonly: false },
            hostname: crate::DEFAULT_HOSTNAME,
            mounts: vec![
                sandbox::proc(rights.shares_processes),
                MountSpec::new("/dev", "tmpfs", "tmpfs", &["mode=755"]),
            ],
            hooks: None,
            annotations: filter.map(|seccomp| Annotations { seccomp }),
            linux: Linux {
                resources: Resources {
                    devices: rights.device_rules(confinement.device_rules),
                    memory: None,
                    cpu: None,
                },
                cgroups_path: bundle.cgroup.clone(),
                namespaces: sandbox::namespaces(
                    Network::Sandbox,
                    None,
                    cgroups::is_unified(),
                    None,
                    rights.shares_processes,
                ),
                uid_mappings: Vec::new(),
                gid_mappings: Vec::new(),
                devices: Vec::new(),
                seccomp,
                masked_paths: &[],
                readonly_paths: &[],
            },
        };
        let config = bundle.dir.join("config.json");
        let text = serde_json::to_vec(&spec).map_err(|error| file_error("writing", &config)(error.into()))?;
        std::fs::write(&config, text).map_err(file_error("writing", &config))?;
        Ok(bundle)
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.dir.join("log")
    }
}

impl Drop for ProbeBundle {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
        if !self.cgroup.is_empty() {
            cgroups::remove(&self.cgroup);
        }
    }
}
