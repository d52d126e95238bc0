//! What every container has: mounts, namespaces, masked paths, devices.

use std::borrow::Cow;

use crate::{
    Mount, MountSource, Network, Security, capabilities,
    rights::Sys,
    spec::{Capabilities, Device, DeviceRule, MountSpec, Namespace},
};

/// Size of `/dev/shm` if nothing else is asked for: 64 MiB, in KiB as mount options say it.
const SHM_KIB: u64 = 64 << 10;

/// Files of the kernel that tell about the machine; hidden.
const MASKED: [&str; 11] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
    "/proc/scsi",
];
/// Those of them that are not below `/proc`.
const MASKED_OF_SYS: [&str; 2] = ["/sys/firmware", "/sys/devices/virtual/powercap"];
/// Files of the kernel that change the machine; read-only.
const READONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Devices: none but those that the runtime always gives.
static NO_DEVICES: [DeviceRule; 1] = [rule(false, None)];
/// Every device.
static ALL_DEVICES: [DeviceRule; 2] = [rule(true, Some("c")), rule(true, Some("b"))];

/// A rule for all devices of a kind.
const fn rule(allow: bool, kind: Option<&'static str>) -> DeviceRule {
    DeviceRule { allow, kind, major: None, minor: None, access: Cow::Borrowed("rwm") }
}

/// Devices of an unconfined step: path, major, minor (BuildKit util/entitlements/security).
const INSECURE_DEVICES: [(&str, u32, u32); 6] = [
    ("/dev/kmsg", 1, 11),
    ("/dev/cuse", 10, 203),
    ("/dev/fuse", 10, 229),
    ("/dev/kvm", 10, 232),
    ("/dev/net/tun", 10, 200),
    ("/dev/loop-control", 10, 237),
];
/// Loop devices beyond the first free one.
const LOOP_DEVICES: u32 = 8;

/// What the two security modes differ in.
pub(crate) struct Confinement {
    pub(crate) capabilities: Capabilities,
    pub(crate) masked: &'static [&'static str],
    pub(crate) readonly: &'static [&'static str],
    pub(crate) device_rules: &'static [DeviceRule],
    pub(crate) devices: Vec<Device>,
    pub(crate) filtered: bool,
    /// `ro` or `rw` for the kernel's own file systems.
    access: &'static str,
}

/// The confinement of a mode. `in_user_namespace`: device nodes cannot be made there, only those of the machine bound.
pub(crate) fn confinement(security: Security, in_user_namespace: bool) -> Confinement {
    match security {
        Security::Sandbox => {
            let set = capabilities::sandbox();
            Confinement {
                capabilities: Capabilities {
                    bounding: set.clone(),
                    effective: set.clone(),
                    permitted: set,
                    inheritable: Vec::new(),
                    ambient: Vec::new(),
                },
                masked: &MASKED,
                readonly: &READONLY,
                device_rules: &NO_DEVICES,
                devices: Vec::new(),
                filtered: true,
                access: "ro",
            }
        }
        Security::Insecure => {
            let set = capabilities::insecure();
            Confinement {
                capabilities: Capabilities {
                    bounding: set.clone(),
                    effective: set.clone(),
                    permitted: set.clone(),
                    inheritable: set.clone(),
                    ambient: set,
                },
                masked: &[],
                readonly: &[],
                device_rules: &ALL_DEVICES,
                devices: insecure_devices(in_user_namespace),
                filtered: false,
                access: "rw",
            }
        }
    }
}

impl Confinement {
    /// The same where `/proc` is the daemon's: nothing can be laid over parts of that.
    pub(crate) fn beside_others(self) -> Self {
        let masked: &[&str] = if self.masked.is_empty() { &[] } else { &MASKED_OF_SYS };
        Self { masked, readonly: &[], ..self }
    }
}

fn insecure_devices(only_existing: bool) -> Vec<Device> {
    let character = INSECURE_DEVICES.iter().map(|(path, major, minor)| Device {
        path: (*path).to_owned(),
        kind: Cow::Borrowed("c"),
        major: *major,
        minor: *minor,
        ..Device::default()
    });
    let loops = (0..first_free_loop() + LOOP_DEVICES).map(|minor| Device {
        path: format!("/dev/loop{minor}"),
        kind: Cow::Borrowed("b"),
        major: 7,
        minor,
        ..Device::default()
    });
    character
        .chain(loops)
        .filter(|device| !only_existing || std::path::Path::new(&device.path).exists())
        .collect()
}

/// Number of the first loop device that is free; 0 if that cannot be found out.
fn first_free_loop() -> u32 {
    /// `LOOP_CTL_GET_FREE` (include/uapi/linux/loop.h).
    const GET_FREE: libc::c_ulong = 0x4c82;
    use std::os::fd::AsRawFd;
    let Ok(control) = std::fs::OpenOptions::new().read(true).write(true).open("/dev/loop-control") else {
        return 0;
    };
    // SAFETY: the descriptor is open, and this request takes no argument.
    let number = unsafe { libc::ioctl(control.as_raw_fd(), GET_FREE as _) };
    u32::try_from(number).unwrap_or(0)
}

/// Files that the executor made for the container.
pub(crate) struct OwnFiles<'a> {
    pub(crate) resolv: &'a str,
    pub(crate) hosts: &'a str,
}

/// What a container sees of the kernel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shown {
    /// `/sys`.
    pub(crate) sys: Sys,
    /// Control groups.
    pub(crate) cgroups: bool,
    /// The daemon's processes besides its own.
    pub(crate) all_processes: bool,
    /// Message queues.
    pub(crate) queues: bool,
}

/// The mount at `/proc`: of the container's own processes, or of all.
pub(crate) fn proc(all_processes: bool) -> MountSpec<'static> {
    match all_processes {
        true => MountSpec::new("/proc", "bind", "/proc", &["rbind"]),
        false => MountSpec::new("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
    }
}

/// All mounts of a container in order; a later one replaces an earlier one at the same place.
pub(crate) fn mounts<'a>(
    confinement: &Confinement,
    files: &OwnFiles<'a>,
    shm_size: u64,
    shown: Shown,
    asked: impl IntoIterator<Item = &'a Mount>,
) -> Vec<MountSpec<'a>> {
    let access = confinement.access;
    let shm_kib = if shm_size == 0 { SHM_KIB } else { shm_size.div_ceil(1024) };
    let mut shm = MountSpec::new("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777"]);
    shm.options.push(Cow::Owned(format!("size={shm_kib}k")));
    let own_file = ["nosuid", "noexec", "nodev", "rbind", "ro"];
    let mut mounts = vec![
        proc(shown.all_processes),
        MountSpec::new("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        MountSpec::new(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        shm,
    ];
    if shown.queues {
        mounts.push(MountSpec::new("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]));
    }
    match shown.sys {
        Sys::Own => {
            mounts.push(MountSpec::new("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", access]))
        }
        // In a user namespace that does not own the network it shows, sysfs cannot be mounted, only shown.
        Sys::Bound => {
            mounts.push(MountSpec::new(
                "/sys",
                "bind",
                "/sys",
                &["rbind", "nosuid", "noexec", "nodev", access],
            ));
        }
        Sys::Absent => {}
    }
    mounts.extend([
        MountSpec::new("/etc/resolv.conf", "bind", files.resolv, &own_file),
        MountSpec::new("/etc/hosts", "bind", files.hosts, &own_file),
    ]);
    if shown.cgroups {
        mounts.push(MountSpec::new(
            "/sys/fs/cgroup",
            "cgroup",
            "cgroup",
            &[access, "nosuid", "noexec", "nodev"],
        ));
    }
    for mount in asked {
        let spec = asked_mount(mount);
        match mounts.iter_mut().find(|other| other.destination == spec.destination) {
            Some(same_place) => *same_place = spec,
            None => mounts.push(spec),
        }
    }
    mounts
}

fn asked_mount(mount: &Mount) -> MountSpec<'_> {
    let access = if mount.readonly { "ro" } else { "rw" };
    let destination: Cow<'_, str> =
        if mount.dest.starts_with('/') { (&*mount.dest).into() } else { format!("/{}", mount.dest).into() };
    let mut spec = match &mount.source {
        MountSource::Bind(path) => {
            MountSpec::new(destination, "bind", path.to_string_lossy(), &["rbind", access])
        }
        MountSource::Tmpfs { size } => {
            let mut spec = MountSpec::new(destination, "tmpfs", "tmpfs", &["nosuid"]);
            if mount.readonly {
                spec.options.push("ro".into());
            }
            if *size > 0 {
                spec.options.push(Cow::Owned(format!("size={size}")));
            }
            spec
        }
    };
    spec.options.extend(mount.options.iter().map(|option| Cow::Borrowed(option.as_str())));
    spec
}

/// The namespaces of a container. `prepared`: the file of a network namespace that it joins.
pub(crate) fn namespaces(
    network: Network,
    prepared: Option<String>,
    unified_cgroups: bool,
    user: Option<String>,
    shares_processes: bool,
) -> Vec<Namespace> {
    let new = |kind| Namespace { kind, path: None };
    // One that shares processes has the daemon's process ids, and the IPC namespace that its own are known by.
    let mut all = if shares_processes { Vec::new() } else { vec![new("pid"), new("ipc")] };
    all.extend([new("uts"), new("mount")]);
    match (network, prepared) {
        (Network::None, _) => all.push(new("network")),
        (_, Some(path)) => all.push(Namespace { kind: "network", path: Some(path) }),
        (Network::Sandbox | Network::Host, None) => {}
    }
    if unified_cgroups {
        all.push(new("cgroup"));
    }
    if let Some(path) = user {
        all.push(Namespace { kind: "user", path: Some(path) });
    }
    all
}
