//! What the system's own words mean for a builder.

use crate::Finding;
use crate::files::Room;
use crosskit_exec::name_servers;
use std::net::IpAddr;

/// Numbers that a kernel's release begins with: `6.18.0-1-amd64`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

pub(crate) fn kernel(release: &str) -> Finding {
    let check = "kernel";
    let found = format!("Linux {release}");
    match version(release) {
        Some(version) if version < (5, 6) => Finding::fail(
            check,
            found,
            "Linux 5.6 or newer is needed: files of builds are opened so that no link leads out of them (openat2)",
        ),
        Some(version) if version < (6, 7) => Finding::warn(
            check,
            found,
            "from Linux 6.7 on emulators need no entry of the machine's own binfmt_misc",
        ),
        _ => Finding::ok(check, found),
    }
}

/// What a daemon that is not rootless needs.
const NEEDED: [&str; 4] = ["CAP_SYS_ADMIN", "CAP_SETGID", "CAP_SETUID", "CAP_CHOWN"];
/// What steps lack where the daemon lacks it.
const WANTED: [&str; 4] = ["CAP_NET_ADMIN", "CAP_MKNOD", "CAP_SYS_CHROOT", "CAP_SYS_RESOURCE"];

pub(crate) fn rights(own: &[&str]) -> Finding {
    let check = "rights";
    let lacking = |list: [&'static str; 4]| -> Vec<&str> {
        list.into_iter().filter(|name| !own.contains(name)).collect()
    };
    let (needed, wanted) = (lacking(NEEDED), lacking(WANTED));
    match (needed.is_empty(), wanted.is_empty()) {
        (false, _) => Finding::fail(
            check,
            format!("root without {}", needed.join(", ")),
            "a container that builds has to be started with --privileged",
        ),
        (true, false) => Finding::warn(
            check,
            format!("root without {}", wanted.join(", ")),
            "steps that ask for it go without; a container that builds is started with --privileged",
        ),
        (true, true) => Finding::ok(check, "root"),
    }
}

pub(crate) fn cgroups(mountinfo: &str) -> Finding {
    let check = "cgroups";
    // `… <mount point> <options> … - <type> <source> <options>` (proc(5)).
    let mounts: Vec<(&str, &str, bool)> = mountinfo
        .lines()
        .filter_map(|line| {
            let (about, kind) = line.split_once(" - ")?;
            let mut about = about.split(' ').skip(4);
            let (point, options) = (about.next()?, about.next()?);
            Some((kind.split(' ').next()?, point, options.split(',').any(|option| option == "ro")))
        })
        .filter(|(kind, _, _)| kind.starts_with("cgroup"))
        .collect();
    let of = |kind: &str| mounts.iter().find(|(found, _, _)| *found == kind);
    let read_only = |read_only: bool, found: &str| match read_only {
        true => Finding::fail(
            check,
            format!("{found}, read-only"),
            "a container that builds needs --privileged, or its own writable cgroups",
        ),
        false => Finding::ok(check, found),
    };
    match (of("cgroup"), of("cgroup2")) {
        (None, Some((_, _, ro))) => read_only(*ro, "version 2"),
        (Some((_, _, ro)), None) => read_only(*ro, "version 1"),
        (Some(_), Some(_)) => Finding::warn(
            check,
            "version 1 with version 2 beside it (hybrid)",
            "it works; with systemd.unified_cgroup_hierarchy=1 on the kernel's command line memory and CPU limits are of one kind",
        ),
        (None, None) => Finding::fail(check, "none is mounted", "mount -t cgroup2 none /sys/fs/cgroup"),
    }
}

pub(crate) fn names(resolv: &str, resolved: &str) -> Finding {
    let check = "names";
    let listed = name_servers(resolv);
    if listed.is_empty() {
        return Finding::warn(
            check,
            "no name server in /etc/resolv.conf",
            "name one there, or with [dns] in buildkitd.toml: else the public ones 8.8.8.8 and 8.8.4.4 are asked",
        );
    }
    if listed.iter().all(IpAddr::is_loopback) && name_servers(resolved).is_empty() {
        let listed: Vec<String> = listed.iter().map(IpAddr::to_string).collect();
        return Finding::warn(
            check,
            format!(
                "only {} answers names, which steps in a network of their own do not reach",
                listed.join(", ")
            ),
            "name servers for steps with [dns] in buildkitd.toml",
        );
    }
    Finding::ok(check, format!("{} name server(s)", listed.len()))
}

const GB: u64 = 1 << 30;
/// `f_type` of filesystems (include/uapi/linux/magic.h) that are no place for a builder's state, and why.
const POOR: [(u64, &str, &str); 3] = [
    (0x794c_7630, "overlay", "no overlay can be mounted on it: give the container a volume for this folder"),
    (0x6969, "nfs", "it cannot hold the layers of an overlay: use a local disk"),
    (0x0102_1994, "tmpfs", "it is memory: builds compete with their own layers, and nothing stays"),
];

pub(crate) fn disk(room: &Room) -> Finding {
    let check = "disk";
    let Room { folder, free, all, free_files, all_files, kind, no_exec } = room;
    let share = |free: &u64, all: &u64| if *all == 0 { 100 } else { free.saturating_mul(100) / all };
    let found =
        format!("{:.1} GB of {:.1} GB free at {}", gigabytes(*free), gigabytes(*all), folder.display());
    if *no_exec {
        return Finding::fail(
            check,
            format!("{found}, mounted noexec"),
            "no program of a build could be executed there",
        );
    }
    if *free < GB {
        return Finding::fail(check, found, "make room (buildctl prune), or name another folder with --root");
    }
    if share(free_files, all_files) < 2 {
        return Finding::fail(
            check,
            format!("{free_files} of {all_files} inodes free at {}", folder.display()),
            "make room: no more files can be made",
        );
    }
    if let Some((_, name, why)) = POOR.iter().find(|(number, _, _)| number == kind) {
        return Finding::warn(check, format!("{found}, {name}"), *why);
    }
    if *free < 10 * GB || share(free, all) < 5 {
        return Finding::warn(
            check,
            found,
            "that is little for a cache; [worker.oci] maxUsedSpace and minFreeSpace bound it",
        );
    }
    Finding::ok(check, found)
}

fn gigabytes(bytes: u64) -> f64 {
    bytes as f64 / GB as f64
}

/// Earlier than the first line of this program was written: 2025-01-01.
const EARLIEST: u64 = 1_735_689_600;

pub(crate) fn clock(seconds: u64, synchronized: Option<bool>) -> Finding {
    let check = "clock";
    if seconds < EARLIEST {
        return Finding::fail(
            check,
            "it stands before 2025",
            "set it: certificates of registries are not valid yet, and caches look new",
        );
    }
    match synchronized {
        Some(false) => Finding::warn(
            check,
            "nothing keeps it right",
            "run chrony or systemd-timesyncd: workers of a farm compare times",
        ),
        Some(true) => Finding::ok(check, "synchronized"),
        None => Finding::ok(check, "set"),
    }
}

pub(crate) fn descriptors(most: u64) -> Finding {
    let check = "open files";
    match most {
        0..=4095 => Finding::warn(
            check,
            format!("at most {most}"),
            "raise the limit to 65536 (LimitNOFILE= of the unit)",
        ),
        u64::MAX => Finding::ok(check, "without a limit"),
        most => Finding::ok(check, format!("at most {most}")),
    }
}

pub(crate) fn programs(missing: &[&str]) -> Finding {
    let check = "programs";
    match missing {
        [] => Finding::ok(check, "git and ssh are there"),
        missing => Finding::warn(
            check,
            format!("{} not on PATH", missing.join(" and ")),
            "install it for builds that take sources from git",
        ),
    }
}
