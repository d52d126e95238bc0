//! How one process runs: OCI runtime spec, mounts, network, resources, crun or runc.
//!
//! An [`Executor`] runs [`Process`]es, each in a container of its own, through an OCI runtime that was chosen by running
//! a container with it. What a process may do and sees (capabilities, seccomp, mounts, hosts) is what BuildKit gives it.
//! Programs of other platforms run through the kernel's binfmt_misc entries or through a private binfmt_misc; which of
//! them is there is known before anything starts.
//!
//! This is the hot path of a build: a step is one file written to a memory file system and one runtime process started.

mod bundle;
mod capabilities;
mod cgroups;
mod container;
pub mod devices;
mod emulation;
mod error;
mod executor;
mod exit;
mod filter;
mod hosts;
pub mod hybrid;
mod leftovers;
mod marks;
pub mod networks;
mod process;
mod resolv;
mod rights;
mod rootfs;
mod runtime;
mod sandbox;
mod seccomp;
mod signals;
mod spec;
mod streams;
mod stubs;
mod supervise;
mod terminals;
mod trust;
pub mod usage;
mod users;

#[cfg(test)]
mod pure_tests;
#[cfg(test)]
mod rootfs_tests;
#[cfg(test)]
mod trust_tests;

pub use capabilities::insecure as own_capabilities;
pub use container::{Access, Container};
pub use crosskit_qemu::detect::Ways;
pub use emulation::{Emulation, How};
pub use error::{Error, Kind, Result};
pub use executor::{ExecConfig, Executor};
pub use exit::Exit;
pub use leftovers::end_left;
pub use process::{
    DEFAULT_HOSTNAME, DEFAULT_PATH, ExtraHost, LinuxResources, Mount, MountSource, Network, Process,
    Security, Ulimit,
};
pub use resolv::DnsConfig;
pub use resolv::name_servers;
pub use runtime::{Chosen, try_runtime};
pub use signals::signal_number;
pub use streams::{Output, Stdio, Terminal, WindowSize};
