//! Which capabilities a process gets.

use std::sync::LazyLock;

/// What a sandboxed process gets, in the order in which stock BuildKit lists them (Docker's default set).
pub(crate) const DEFAULT: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// Names by number (include/uapi/linux/capability.h).
const NAMES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// What this daemon can give at most: its own bounding set and its own permitted set, of the capabilities known here.
static OWN: LazyLock<Vec<&'static str>> = LazyLock::new(|| {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    names(mask(&status, "CapBnd:") & mask(&status, "CapPrm:"))
});

fn mask(status: &str, field: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    line.and_then(|value| u64::from_str_radix(value.trim(), 16).ok()).unwrap_or(u64::MAX)
}

fn names(mask: u64) -> Vec<&'static str> {
    NAMES.iter().enumerate().filter(|(bit, _)| mask >> bit & 1 == 1).map(|(_, name)| *name).collect()
}

/// The default set as far as this daemon has it: a runtime fails when it is asked for more.
pub(crate) fn sandbox() -> Vec<&'static str> {
    DEFAULT.into_iter().filter(|name| OWN.contains(name)).collect()
}

/// All that this daemon can give, by their names: `CAP_SYS_ADMIN`.
pub fn insecure() -> Vec<&'static str> {
    OWN.clone()
}

/// Default capabilities that this daemon lacks and its steps with it.
pub(crate) fn lacking() -> Vec<&'static str> {
    DEFAULT.into_iter().filter(|name| !OWN.contains(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_become_names() {
        assert_eq!(names(1 | 1 << 21), ["CAP_CHOWN", "CAP_SYS_ADMIN"]);
        let all =
            DEFAULT.iter().map(|name| 1u64 << NAMES.iter().position(|known| known == name).expect("known"));
        // As /proc/self/status shows it in a step of stock BuildKit.
        assert_eq!(all.fold(0, |sum, bit| sum | bit), 0xa804_25fb);
        assert_eq!(mask("Name:\tx\nCapBnd:\t00000000000000ff\n", "CapBnd:"), 0xff);
    }
}
