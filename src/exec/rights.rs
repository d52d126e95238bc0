//! What a daemon may give its containers: everything, or what root of a user namespace has.

use std::{borrow::Cow, os::fd::AsFd};

use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

use crate::spec::DeviceRule;

/// What containers can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rights {
    /// Whether the daemon lacks the machine's rights: no cgroups, and devices only as far as they are there.
    pub(crate) rootless: bool,
    /// Whether containers see the daemon's processes, as they have no process ids of their own.
    pub(crate) shares_processes: bool,
    /// Whether the daemon may mount the sysfs of its own network.
    sysfs: bool,
}

/// How a container sees `/sys`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sys {
    /// As a mount of its own.
    Own,
    /// As the machine's.
    Bound,
    /// Not at all: it cannot be mounted, and the machine's would show control groups that could be written to.
    Absent,
}

impl Rights {
    /// Those of a daemon. Tries a mount if it is rootless.
    pub(crate) fn new(rootless: bool, shares_processes: bool) -> Self {
        Self { rootless, shares_processes, sysfs: !rootless || can_mount_sysfs() }
    }

    /// What to do where no runtime works, for these reasons.
    pub(crate) fn advice(self, reasons: &[String]) -> Option<String> {
        let about_proc = |reason: &String| {
            reason.contains("proc`") || reason.contains("\"proc\"") || reason.contains("/proc")
        };
        let masked = self.rootless && !self.shares_processes && reasons.iter().any(about_proc);
        let advice = "in a container whose /proc has masked parts, start it with --security-opt systempaths=unconfined, or give \
                      the daemon --oci-worker-no-process-sandbox";
        masked.then(|| advice.to_owned())
    }

    /// Rules about devices, which cgroups keep.
    pub(crate) fn device_rules(self, rules: &'static [DeviceRule]) -> Cow<'static, [DeviceRule]> {
        if self.rootless { Cow::Borrowed(&[]) } else { rules.into() }
    }

    /// How a container sees `/sys`. `nested`: it is in a user namespace below the daemon's. `own_network`: it has a
    /// network namespace that this daemon has made, or the runtime is to make.
    pub(crate) fn sys(self, nested: bool, own_network: bool, new_network: bool) -> Sys {
        match (self.rootless, nested) {
            // The namespace that is mapped owns a network that is made with it.
            (_, true) if new_network => Sys::Own,
            (false, true) => Sys::Bound,
            (true, true) => Sys::Absent,
            (_, false) if own_network || self.sysfs => Sys::Own,
            (_, false) => Sys::Absent,
        }
    }
}

/// Whether sysfs can be mounted here: only who owns the network that it shows may. Attaches nothing.
fn can_mount_sysfs() -> bool {
    let mounted = fsopen("sysfs", FsOpenFlags::FSOPEN_CLOEXEC).and_then(|sysfs| {
        fsconfig_create(sysfs.as_fd())?;
        let flags = MountAttrFlags::MOUNT_ATTR_RDONLY
            | MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        fsmount(sysfs.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, flags)
    });
    mounted.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_files_are_shown_where_they_can_be() {
        let all = Rights { rootless: false, shares_processes: false, sysfs: true };
        assert_eq!(all.sys(false, false, false), Sys::Own);
        assert_eq!(all.sys(true, true, false), Sys::Bound);
        assert_eq!(all.sys(true, false, true), Sys::Own);
        let few = Rights { rootless: true, shares_processes: false, sysfs: false };
        assert_eq!(few.sys(false, false, false), Sys::Absent);
        assert_eq!(few.sys(false, true, false), Sys::Own);
        assert_eq!(few.sys(true, true, false), Sys::Absent);
        assert_eq!(Rights { sysfs: true, ..few }.sys(false, false, false), Sys::Own);
    }
}
