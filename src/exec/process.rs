//! What is to be run.

use std::{any::Any, fmt, net::IpAddr, path::PathBuf};

use crosskit_platforms::Platform;
use crosskit_proxynet::Rules;

use crate::{devices::Edits, usage::Meter};

/// Hostname of a process that asks for none.
pub const DEFAULT_HOSTNAME: &str = "buildkitsandbox";
/// PATH of a Linux process that brings none.
pub const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// One process and the container around it.
#[derive(Debug, Default)]
pub struct Process {
    /// Name of the container; empty for a new one. Letters, digits, `-`, `_` and `.`.
    pub id: String,
    /// Program and arguments.
    pub args: Vec<String>,
    /// `NAME=value`. PATH is added if it is not there.
    pub env: Vec<String>,
    /// Working directory, made if it is missing; empty for `/`.
    pub cwd: String,
    /// `""`, `name`, `uid`, `name:group`, `uid:gid`; names are looked up in the root filesystem.
    pub user: String,
    /// Empty for [`DEFAULT_HOSTNAME`].
    pub hostname: String,
    /// Added to `/etc/hosts`.
    pub extra_hosts: Vec<ExtraHost>,
    /// Which network it sees.
    pub network: Network,
    /// What counts for its requests if a proxy is to be its only way to that network; None lets it have the network
    /// itself.
    pub proxy: Option<Rules>,
    /// What it may do.
    pub security: Security,
    /// Resource limits of the process; what is not listed is this daemon's own.
    pub ulimits: Vec<Ulimit>,
    /// Parent of the step's cgroup; empty for the executor's.
    pub cgroup_parent: String,
    /// Limits of the step's cgroup.
    pub resources: LinuxResources,
    /// Size of `/dev/shm` in bytes; 0 for 64 MiB.
    pub shm_size: u64,
    /// Folder that is its root, mounted already.
    pub rootfs: PathBuf,
    /// Whether the root is read-only.
    pub readonly_rootfs: bool,
    /// In the order in which they are mounted, after those that every container has. One at the same place as an
    /// earlier one replaces it.
    pub mounts: Vec<Mount>,
    /// What is changed for the devices that it gets.
    pub devices: Edits,
    /// Also remove the folders that had to be made above mount points, not only the mount points.
    pub remove_mount_stubs_recursive: bool,
    /// Platform of its programs; the machine's own if none is given.
    pub platform: Option<Platform>,
    /// Finds out what it uses, where somebody wants to know.
    pub meter: Option<Meter>,
    /// Dropped when nothing of the container is left: guards of the mounts that it uses.
    pub hold: Hold,
}

/// Things to keep until a container is gone.
#[derive(Default)]
pub struct Hold(pub Vec<Box<dyn Any + Send>>);

impl Hold {
    /// Keeps one more thing.
    pub fn add(&mut self, thing: impl Any + Send) {
        self.0.push(Box::new(thing));
    }
}

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hold({})", self.0.len())
    }
}

/// A line of `/etc/hosts`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtraHost {
    /// Name.
    pub host: String,
    /// Address.
    pub ip: IpAddr,
}

/// Which network a process sees (BuildKit `NetMode`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// The sandbox of the build: this machine's network as long as no other provider is configured.
    #[default]
    Sandbox,
    /// This machine's network, with its own name servers.
    Host,
    /// Nothing but a loopback interface.
    None,
}

/// What a process may do (BuildKit `SecurityMode`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Security {
    /// Docker's default capabilities and seccomp profile.
    #[default]
    Sandbox,
    /// Everything that this daemon itself may do.
    Insecure,
}

/// Limit of a process: `nofile`, soft and hard value, -1 for unlimited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ulimit {
    /// Name without `RLIMIT_`, any case.
    pub name: String,
    /// Value that the process starts with.
    pub soft: i64,
    /// Value up to which it may raise it.
    pub hard: i64,
}

/// Limits of a step's cgroup (BuildKit `pb.LinuxResources`); 0 and empty for none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinuxResources {
    /// Bytes of memory.
    pub memory: i64,
    /// Bytes of memory and swap together; -1 for unlimited swap.
    pub memory_swap: i64,
    /// Relative weight.
    pub cpu_shares: u64,
    /// Microseconds.
    pub cpu_period: u64,
    /// Microseconds of each period.
    pub cpu_quota: i64,
    /// As `0-3,5`.
    pub cpuset_cpus: String,
    /// As `0-3,5`.
    pub cpuset_mems: String,
}

/// Something mounted into a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Path in the container.
    pub dest: String,
    /// What is mounted.
    pub source: MountSource,
    /// Whether it can be written to.
    pub readonly: bool,
    /// More mount options: `nosuid`, `noexec`, `nodev`.
    pub options: Vec<String>,
}

/// What a mount shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountSource {
    /// This file or folder of the machine, with all that is mounted below it.
    Bind(PathBuf),
    /// An empty file system in memory.
    Tmpfs {
        /// Bytes at most; 0 for the kernel's default, half of the memory.
        size: u64,
    },
}

impl Mount {
    /// A file or folder of the machine.
    pub fn bind(source: impl Into<PathBuf>, dest: impl Into<String>, readonly: bool) -> Self {
        Self { dest: dest.into(), source: MountSource::Bind(source.into()), readonly, options: Vec::new() }
    }

    /// An empty file system in memory.
    pub fn tmpfs(dest: impl Into<String>, size: u64) -> Self {
        Self { dest: dest.into(), source: MountSource::Tmpfs { size }, readonly: false, options: Vec::new() }
    }
}
