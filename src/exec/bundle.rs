//! The folder that tells a runtime what to run.

use std::{
    borrow::Cow,
    fs, io,
    path::{Path, PathBuf},
};

use crosskit_proxynet::Proxy;
use rand::Rng;

use crate::{
    DEFAULT_HOSTNAME, DEFAULT_PATH, Error, LinuxResources, Mount, Network, Process, Result, Security,
    Terminal, Ulimit, cgroups, devices,
    emulation::Way,
    error::file_error,
    executor::Shared,
    hosts,
    leftovers::Mark,
    marks::IpcMark,
    rootfs::Rootfs,
    sandbox::{self, OwnFiles, Shown},
    seccomp,
    spec::{
        Annotations, ConsoleSize, Cpu, IdMapping, Linux, Memory, ProcessSpec, Resources, Rlimit, Root, Spec,
        User, VERSION,
    },
    stubs::Stubs,
    trust::{self, Trusted},
    users,
};

/// Length of a container's name in base 36, as BuildKit's: 125 bits.
const ID_LENGTH: usize = 25;

/// A new name for a container.
pub(crate) fn new_id() -> String {
    const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let mut random = rand::rng();
    (0..ID_LENGTH).map(|_| char::from(DIGITS[random.random_range(0..DIGITS.len())])).collect()
}

/// What a runtime needs for one container, and what has to be tidied up after it.
#[derive(Debug)]
pub(crate) struct Bundle {
    pub(crate) dir: PathBuf,
    pub(crate) id: String,
    /// None for a daemon that may make none.
    pub(crate) cgroup: Option<String>,
    /// A cgroup of our own around the step's, if its memory is limited: counts what was killed after the step's is gone.
    pub(crate) counting_cgroup: Option<String>,
    rootfs: Rootfs,
    stubs: Stubs,
    /// What it is shown in place of files of its root filesystem.
    shown: Vec<Mount>,
    trusted: Option<Trusted>,
    pub(crate) inherited: Inherited,
    /// What its processes are known by if they have the daemon's process ids.
    pub(crate) ipc_mark: Option<IpcMark>,
    _mark: Mark,
}

/// The network that a container is started with.
pub(crate) struct Joined<'a> {
    /// The file of a namespace that it joins.
    pub(crate) path: Option<&'a Path>,
    /// Its only way out of that.
    pub(crate) proxy: Option<&'a Proxy>,
}

/// What a second process in the container has in common with the first.
#[derive(Clone, Debug)]
pub(crate) struct Inherited {
    pub(crate) env: Vec<String>,
    pub(crate) cwd: String,
    pub(crate) user: User,
    pub(crate) security: Security,
    pub(crate) in_user_namespace: bool,
    pub(crate) rlimits: Vec<Rlimit>,
    pub(crate) rootfs: PathBuf,
    /// What the environment of each process says of the proxy that is its only way out.
    pub(crate) proxy: Vec<String>,
}

impl Bundle {
    /// Prepares everything up to the runtime's start. Blocks on the file system only.
    pub(crate) fn make(
        shared: &Shared,
        process: &Process,
        way: &Way,
        network: &Joined<'_>,
        filter: Option<&str>,
        terminal: Option<&Terminal>,
    ) -> Result<Self> {
        let id = checked_id(&process.id)?;
        let rlimits = process.ulimits.iter().map(rlimit).collect::<Result<Vec<_>>>()?;
        let rootfs = Rootfs::open(&process.rootfs)?;
        let user = users::find(&rootfs, &process.user)?;
        let cwd = if process.cwd.is_empty() { "/".to_owned() } else { absolute(&process.cwd) };
        let stubs = Stubs::find(&rootfs, &process.mounts, process.remove_mount_stubs_recursive)?;
        rootfs.make_folders(&cwd, user.uid, user.gid)?;
        // It stays in the layer of a root filesystem without one, and runtimes make it with different modes. A missing
        // one that cannot be made is theirs to complain about.
        let _ = rootfs.make_folders("/dev", 0, 0);

        let dir = shared.containers.join(&id);
        fs::create_dir(&dir).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => Error::Exists { id: id.clone() },
            _ => file_error("making", &dir)(error),
        })?;
        let parent = if process.cgroup_parent.is_empty() {
            &shared.config.cgroup_parent
        } else {
            &process.cgroup_parent
        };
        let rights = shared.rights;
        let own_cgroup = (!rights.rootless).then(|| cgroups::path(parent, &id));
        let counts = process.resources.memory != 0 && cgroups::is_unified();
        let counting_cgroup = own_cgroup.clone().filter(|path| counts && path.starts_with('/'));
        let cgroup = counting_cgroup.as_ref().map(|path| format!("{path}/step")).or(own_cgroup);
        let unlimited = rights.rootless && process.resources != LinuxResources::default();
        if unlimited {
            tracing::warn!(
                id,
                "limits of processor and memory are not kept: a rootless daemon has no control groups"
            );
        }
        let marked =
            || IpcMark::new().map_err(file_error("making an IPC namespace from", Path::new("/proc")));
        let ipc_mark = rights.shares_processes.then(marked).transpose()?;
        let mut env = process.env.clone();
        if !env.iter().any(|variable| variable.starts_with("PATH=")) {
            env.insert(0, DEFAULT_PATH.to_owned());
        }
        let proxy = network.proxy.map(Proxy::environment).unwrap_or_default();
        tell(&mut env, &proxy);
        let in_user_namespace = rights.rootless || way.private().is_some();
        let inherited = Inherited {
            env,
            cwd,
            user,
            security: process.security,
            in_user_namespace,
            rlimits,
            rootfs: process.rootfs.clone(),
            proxy,
        };
        let mark = Mark::set(&shared.ledger, &id, cgroup.as_deref().unwrap_or_default())?;
        let mut bundle = Self {
            dir,
            id,
            cgroup,
            counting_cgroup,
            rootfs,
            stubs,
            shown: Vec::new(),
            trusted: None,
            inherited,
            ipc_mark,
            _mark: mark,
        };
        if let Some(proxy) = network.proxy.filter(|_| process.readonly_rootfs) {
            bundle.shown = trust::shown(&bundle.rootfs, proxy.certificate(), &bundle.dir)?;
        }
        bundle.write(shared, process, way, network, filter, terminal)?;
        // Last, as it has to be undone.
        if let Some(proxy) = network.proxy.filter(|_| !process.readonly_rootfs) {
            bundle.trusted = Some(Trusted::add(&bundle.rootfs, proxy.certificate())?);
        }
        Ok(bundle)
    }

    fn write(
        &self,
        shared: &Shared,
        process: &Process,
        way: &Way,
        network: &Joined<'_>,
        filter: Option<&str>,
        terminal: Option<&Terminal>,
    ) -> Result<()> {
        let resolv = shared.resolv.path(process.network == Network::Host)?;
        let hosts = if hosts::is_common(&process.hostname, &process.extra_hosts) {
            shared.hosts.clone()
        } else {
            let path = self.dir.join("hosts");
            let text = hosts::contents(&process.hostname, &process.extra_hosts);
            fs::write(&path, text).map_err(file_error("writing", &path))?;
            path
        };
        let files = OwnFiles { resolv: &resolv.to_string_lossy(), hosts: &hosts.to_string_lossy() };
        let private = way.private();
        let rights = shared.rights;
        let mut confinement = sandbox::confinement(process.security, self.inherited.in_user_namespace);
        if rights.shares_processes {
            confinement = confinement.beside_others();
        }
        let new_network = process.network == Network::None;
        let shown = Shown {
            sys: rights.sys(private.is_some(), new_network || network.path.is_some(), new_network),
            cgroups: !rights.rootless,
            all_processes: rights.shares_processes,
            // Those of an IPC namespace that the user namespace does not own cannot be mounted.
            queues: !(rights.shares_processes && private.is_some()),
        };
        let asked = self.shown.iter().chain(&process.mounts);
        let mounts = sandbox::mounts(&confinement, &files, process.shm_size, shown, asked);
        let filtered = confinement.filtered && seccomp::is_available();
        let ids = |ranges: &[crosskit_qemu::IdRange]| -> Vec<IdMapping> {
            let same = |range: &crosskit_qemu::IdRange| IdMapping {
                container: range.start,
                host: range.start,
                size: range.count,
            };
            ranges.iter().map(same).collect()
        };
        let hostname = if process.hostname.is_empty() { DEFAULT_HOSTNAME } else { &process.hostname };
        let first = self.inherited.process(&process.args, terminal, &shared.config.apparmor_profile);
        let mut spec = Spec {
            oci_version: VERSION,
            process: ProcessSpec { oom_score_adj: shared.config.oom_score_adj, ..first },
            root: Root { path: process.rootfs.to_string_lossy(), readonly: process.readonly_rootfs },
            hostname,
            mounts,
            hooks: None,
            annotations: filter.filter(|_| filtered).map(|seccomp| Annotations { seccomp }),
            linux: Linux {
                resources: if rights.rootless {
                    Resources::default()
                } else {
                    resources(confinement.device_rules, &process.resources)
                },
                cgroups_path: self.cgroup.clone().unwrap_or_default(),
                namespaces: sandbox::namespaces(
                    process.network,
                    network.path.map(|path| path.to_string_lossy().into_owned()),
                    cgroups::is_unified(),
                    private.map(|made| made.user_namespace_path().to_string_lossy().into_owned()),
                    rights.shares_processes,
                ),
                uid_mappings: private.map(|made| ids(made.users())).unwrap_or_default(),
                gid_mappings: private.map(|made| ids(made.groups())).unwrap_or_default(),
                devices: confinement.devices,
                seccomp: (filtered && filter.is_none()).then(seccomp::profile),
                masked_paths: confinement.masked,
                readonly_paths: confinement.readonly,
            },
        };
        devices::apply(&process.devices, &mut spec)?;
        let path = self.dir.join("config.json");
        let text = serde_json::to_vec(&spec).map_err(|error| file_error("writing", &path)(error.into()))?;
        fs::write(&path, text).map_err(file_error("writing", &path))
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.dir.join("log")
    }

    pub(crate) fn pid_file(&self) -> PathBuf {
        self.dir.join("pid")
    }

    /// Removes what was made for the container, in the root filesystem too. Nothing of it may run any more.
    pub(crate) fn clean(&self) -> Result<()> {
        let cleaned = self.trusted.as_ref().map_or(Ok(()), |trusted| trusted.remove(&self.rootfs));
        self.stubs.remove(&self.rootfs);
        if let Some(cgroup) = &self.counting_cgroup {
            cgroups::remove(cgroup);
        }
        cleaned
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.dir) {
            tracing::warn!(path = %self.dir.display(), %error, "a container's folder could not be removed");
        }
    }
}

impl Inherited {
    /// A process of the container.
    pub(crate) fn process<'a>(
        &'a self,
        args: &'a [String],
        terminal: Option<&Terminal>,
        apparmor_profile: &'a Option<String>,
    ) -> ProcessSpec<'a> {
        let confined = self.security == Security::Sandbox;
        ProcessSpec {
            terminal: terminal.is_some(),
            console_size: terminal
                .and_then(|terminal| terminal.size)
                .map(|size| ConsoleSize { height: size.rows, width: size.cols }),
            user: self.user.clone(),
            args,
            env: self.env.iter().map(String::as_str).collect(),
            cwd: Cow::Borrowed(&self.cwd),
            capabilities: sandbox::confinement(self.security, self.in_user_namespace).capabilities,
            rlimits: self.rlimits.clone(),
            apparmor_profile: apparmor_profile.as_deref().filter(|_| confined),
            oom_score_adj: None,
        }
    }

    /// Looks a user up in the container's root filesystem.
    pub(crate) fn find_user(&self, name: &str) -> Result<User> {
        users::find(&Rootfs::open(&self.rootfs)?, name)
    }
}

/// Puts variables into an environment, in place of those of the same names.
pub(crate) fn tell(env: &mut Vec<String>, more: &[String]) {
    let name = |variable: &str| variable.split('=').next().unwrap_or_default().to_owned();
    let names: Vec<String> = more.iter().map(|variable| name(variable)).collect();
    env.retain(|variable| !names.contains(&name(variable)));
    env.extend_from_slice(more);
}

/// A name that is safe as a file's name: what is empty gets a new one.
fn checked_id(id: &str) -> Result<String> {
    if id.is_empty() {
        return Ok(new_id());
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if id.starts_with(|c: char| c.is_ascii_alphanumeric()) && id.chars().all(plain) && id.len() <= 128 {
        return Ok(id.to_owned());
    }
    let reason = "letters, digits, - _ and . are allowed, and a letter or digit at the start".to_owned();
    Err(Error::Invalid { what: "container id", value: id.to_owned(), reason })
}

pub(crate) fn absolute(path: &str) -> String {
    if Path::new(path).is_absolute() { path.to_owned() } else { format!("/{path}") }
}

/// Names of limits (getrlimit(2)).
const LIMITS: [&str; 16] = [
    "AS",
    "CORE",
    "CPU",
    "DATA",
    "FSIZE",
    "LOCKS",
    "MEMLOCK",
    "MSGQUEUE",
    "NICE",
    "NOFILE",
    "NPROC",
    "RSS",
    "RTPRIO",
    "RTTIME",
    "SIGPENDING",
    "STACK",
];

pub(crate) fn rlimit(limit: &Ulimit) -> Result<Rlimit> {
    let name = limit.name.to_ascii_uppercase();
    if !LIMITS.contains(&name.as_str()) {
        let reason = format!("the limits are {}", LIMITS.join(", ").to_ascii_lowercase());
        return Err(Error::Invalid { what: "ulimit", value: limit.name.clone(), reason });
    }
    // -1 is unlimited, which is the greatest unsigned number.
    Ok(Rlimit { kind: format!("RLIMIT_{name}"), hard: limit.hard as u64, soft: limit.soft as u64 })
}

pub(crate) fn resources<'a>(
    devices: &'static [crate::spec::DeviceRule],
    wanted: &'a LinuxResources,
) -> Resources<'a> {
    let some = |number: i64| (number != 0).then_some(number);
    let memory = Memory { limit: some(wanted.memory), swap: some(wanted.memory_swap) };
    let cpu = Cpu {
        shares: (wanted.cpu_shares != 0).then_some(wanted.cpu_shares),
        quota: some(wanted.cpu_quota),
        period: (wanted.cpu_period != 0).then_some(wanted.cpu_period),
        cpus: &wanted.cpuset_cpus,
        mems: &wanted.cpuset_mems,
    };
    let limits_memory = memory.limit.is_some() || memory.swap.is_some();
    let limits_cpu = cpu.shares.is_some()
        || cpu.quota.is_some()
        || cpu.period.is_some()
        || !cpu.cpus.is_empty()
        || !cpu.mems.is_empty();
    Resources {
        devices: devices.into(),
        memory: limits_memory.then_some(memory),
        cpu: limits_cpu.then_some(cpu),
    }
}
