//! What a daemon needs that is started by somebody who is not root.

use crate::Finding;
use crate::files;
use crate::tried::trial;
use crosskit_rootless::ranges_of;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Looks at what only such a daemon needs.
pub(crate) fn examine(root: &Path) -> Vec<Finding> {
    let (name, number) = files::user();
    let own = files::own_cgroup();
    let manager = files::cgroup(&format!("/user.slice/user-{number}.slice/user@{number}.service"));
    vec![
        Finding::ok("rights", format!("{name} (uid {number}): a daemon without root's rights")),
        user_namespaces(
            &unshared(&["true"]),
            &files::text("/proc/sys/user/max_user_namespaces"),
            &files::text("/proc/sys/kernel/unprivileged_userns_clone"),
            &files::text("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"),
        ),
        ids(&name, number, &files::text("/etc/subuid"), &files::text("/etc/subgid")),
        mappers(files::mapper("newuidmap"), files::mapper("newgidmap"), files::gains_no_rights(), &name),
        match files::missing(&["crun", "runc"]).as_slice() {
            ["crun", "runc"] => {
                Finding::fail("runtime", "neither crun nor runc is on PATH", "install crun or runc")
            }
            ["crun"] => Finding::ok("runtime", "runc"),
            _ => Finding::ok("runtime", "crun"),
        },
        snapshots(overlay(root), files::opens("/dev/fuse"), &files::missing(&["fuse-overlayfs"])),
        delegation(&own, &manager),
        sockets(std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from), &name),
    ]
}

/// Runs something as root of new user, mount and process namespaces.
fn unshared(command: &[&str]) -> Result<(), String> {
    let flags = ["--user", "--map-root-user", "--mount", "--pid", "--fork"];
    match Command::new("unshare").args(flags).args(command).output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Err(format!("unshare: {error}")),
    }
}

pub(crate) fn user_namespaces(
    tried: &Result<(), String>,
    most: &str,
    allowed: &str,
    restricted: &str,
) -> Finding {
    let check = "namespaces";
    let Err(why) = tried else { return Finding::ok(check, "user, mount and pid, without root") };
    let stays = "as root; in a file of /etc/sysctl.d it stays";
    let advice = match (most.trim(), allowed.trim(), restricted.trim()) {
        ("0", _, _) => format!("sysctl -w user.max_user_namespaces=15000 ({stays})"),
        (_, "0", _) => format!("sysctl -w kernel.unprivileged_userns_clone=1 ({stays})"),
        (_, _, "1") => format!(
            "AppArmor takes the rights in user namespaces away: give the program a profile that has `userns,` \
             (/etc/apparmor.d), or sysctl -w kernel.apparmor_restrict_unprivileged_userns=0 ({stays})"
        ),
        _ => "allow them: a container needs a seccomp profile that lets unshare and mount pass".to_owned(),
    };
    Finding::fail(check, format!("no user namespace: {why}"), advice)
}

/// How many ids files of images have.
const IDS: u64 = 65536;

pub(crate) fn ids(name: &str, number: u32, users: &str, groups: &str) -> Finding {
    let check = "ids";
    let count = |text: &str| ranges_of(text, name, number).iter().map(|range| u64::from(range.count)).sum();
    let (users, groups): (u64, u64) = (count(users), count(groups));
    if users.min(groups) >= IDS {
        return Finding::ok(check, format!("{users} users and {groups} groups of its own"));
    }
    let advice = format!(
        "images have files of {IDS} users: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {name} (as \
         root; ids that no other line of /etc/subuid has)"
    );
    Finding::fail(check, format!("{users} users in /etc/subuid and {groups} groups in /etc/subgid"), advice)
}

/// A program that maps ids for others, and whether it has root's rights for that.
pub(crate) type Mapper = Option<bool>;

pub(crate) fn mappers(users: Mapper, groups: Mapper, gains_no_rights: bool, name: &str) -> Finding {
    let check = "id mapping";
    match (users, groups) {
        (None, _) | (_, None) => Finding::fail(
            check,
            "newuidmap and newgidmap are not both on PATH",
            "install them (Debian: uidmap)",
        ),
        (Some(false), _) | (_, Some(false)) => Finding::fail(
            check,
            "newuidmap and newgidmap have no rights of their own",
            "chmod u+s them, as Debian's uidmap does; their disk must not be mounted nosuid",
        ),
        (Some(true), Some(true)) if gains_no_rights => Finding::fail(
            check,
            "newuidmap gets no rights here: this process was started with no_new_privs",
            format!("start the container of {name} without the security option no-new-privileges"),
        ),
        (Some(true), Some(true)) => Finding::ok(check, "newuidmap and newgidmap"),
    }
}

/// Mounts an overlay as root of a user namespace.
fn overlay(root: &Path) -> Result<(), String> {
    let trial = trial(root)?;
    let folder = |name: &str| {
        let folder = trial.path().join(name);
        std::fs::create_dir(&folder).map_err(|error| format!("making {}: {error}", folder.display()))?;
        Ok::<String, String>(folder.display().to_string())
    };
    let (lower, upper, work, target) =
        (folder("lower")?, folder("upper")?, folder("work")?, folder("target")?);
    let options = format!("userxattr,lowerdir={lower},upperdir={upper},workdir={work}");
    let tried = unshared(&["mount", "-t", "overlay", "-o", &options, "overlay", &target]);
    // The kernel leaves a folder there that nobody may look into.
    let _ = std::fs::remove_dir(Path::new(&work).join("work"));
    tried
}

pub(crate) fn snapshots(overlay: Result<(), String>, fuse: Result<(), String>, missing: &[&str]) -> Finding {
    let check = "snapshots";
    let Err(why) = overlay else { return Finding::ok(check, "overlay in a user namespace") };
    match (fuse, missing) {
        (Ok(()), []) => Finding::warn(
            check,
            format!("no overlay in a user namespace: {why}; fuse-overlayfs takes its place"),
            "Linux 5.11 or newer has one, which is faster",
        ),
        (Ok(()), _) => Finding::warn(
            check,
            format!("no overlay in a user namespace: {why}"),
            "layers are copied whole, which is slow: install fuse-overlayfs, or use Linux 5.11 or newer",
        ),
        (Err(fuse), _) => Finding::warn(
            check,
            format!("no overlay in a user namespace: {why}; nor /dev/fuse: {fuse}"),
            "layers are copied whole, which is slow: load fuse (modprobe fuse; a container needs --device /dev/fuse) and \
             install fuse-overlayfs, or use Linux 5.11 or newer",
        ),
    }
}

/// A group of processes in the second version's tree, as far as it is this user's.
#[derive(Clone, Debug, Default)]
pub(crate) struct Group {
    /// Its path in the tree.
    pub(crate) path: String,
    /// Whether this user may make groups in it.
    pub(crate) writable: bool,
    /// What can be limited in it.
    pub(crate) controllers: Vec<String>,
}

/// What limits of steps are made of.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];

pub(crate) fn delegation(own: &Group, manager: &Group) -> Finding {
    let check = "cgroups";
    let delegate =
        "Delegate=cpu cpuset io memory pids for user@.service (as root: systemctl edit user@.service)";
    let (group, here) = match (own.writable, manager.writable) {
        (true, _) => (own, true),
        (false, true) => (manager, false),
        (false, false) => {
            return Finding::warn(
                check,
                "none is delegated to this user",
                format!(
                    "steps run without limits; with systemd: {delegate}, and the daemon as a unit of the user"
                ),
            );
        }
    };
    let lacking: Vec<&str> =
        CONTROLLERS.into_iter().filter(|name| !group.controllers.iter().any(|own| own == name)).collect();
    if !lacking.is_empty() {
        return Finding::warn(
            check,
            format!("{} is delegated without {}", group.path, lacking.join(", ")),
            format!("steps run without these limits; with systemd: {delegate}"),
        );
    }
    match here {
        true => Finding::ok(check, format!("{} is delegated", group.path)),
        false => Finding::warn(
            check,
            format!("{} is delegated, and this process is not in it", group.path),
            "start the daemon there: systemd-run --user --scope, or a unit of the user",
        ),
    }
}

pub(crate) fn sockets(folder: Option<PathBuf>, name: &str) -> Finding {
    let check = "sockets";
    match folder {
        Some(folder) if files::is_writable(&folder) => Finding::ok(check, folder.display().to_string()),
        Some(folder) => Finding::warn(
            check,
            format!("XDG_RUNTIME_DIR is {}, which cannot be written to", folder.display()),
            "name a folder of one's own with it, or another address with --addr",
        ),
        None => Finding::warn(
            check,
            "XDG_RUNTIME_DIR is not set",
            format!("log in with a session (loginctl enable-linger {name} keeps it), set it, or give --addr"),
        ),
    }
}
