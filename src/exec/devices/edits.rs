//! What is changed in a container for a device.

use crate::spec::{Device, DeviceRule, HookSpec, MountSpec, Spec};
use crate::{Error, Result};
use rustix::fs::FileType;
use serde::Deserialize;
use std::borrow::Cow;

/// Changes to a container (CDI specification, `ContainerEdits`).
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Edits {
    /// `NAME=value`.
    pub env: Vec<String>,
    /// Device nodes to make.
    pub device_nodes: Vec<DeviceNode>,
    /// Network interfaces to move in; not supported.
    pub(super) net_devices: Vec<serde_json::Value>,
    /// Programs that the runtime runs.
    pub hooks: Vec<Hook>,
    /// Files and folders to show.
    pub mounts: Vec<MountEdit>,
    /// Cache and memory bandwidth of Intel's processors; not supported.
    pub(super) intel_rdt: Option<serde_json::Value>,
    /// Groups of the process.
    pub additional_gids: Vec<u32>,
}

/// A device node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct DeviceNode {
    /// In the container.
    pub path: String,
    /// On the machine; empty for the same. What isn't said below is as it is there.
    pub host_path: String,
    /// `b`, `c`, `u` or `p`; empty for the machine's.
    #[serde(rename = "type")]
    pub kind: String,
    /// Major number; 0 for the machine's.
    pub major: i64,
    /// Minor number.
    pub minor: i64,
    /// Permissions.
    pub file_mode: Option<u32>,
    /// What of reading, writing and making is allowed, as `rwm`; empty for all.
    pub permissions: String,
    /// Owner; that of the process if not given.
    pub uid: Option<u32>,
    /// Group; that of the process if not given.
    pub gid: Option<u32>,
}

/// A program that the runtime runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Hook {
    /// When: `prestart`, `createRuntime`, `createContainer`, `startContainer`, `poststart` or `poststop`.
    pub hook_name: String,
    /// The program.
    pub path: String,
    /// Its arguments, its name first.
    pub args: Vec<String>,
    /// Its environment.
    pub env: Vec<String>,
    /// Seconds that it may take.
    pub timeout: Option<i64>,
}

/// A file or folder of the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct MountEdit {
    /// On the machine.
    pub host_path: String,
    /// In the container.
    pub container_path: String,
    /// Options of mount(8).
    pub options: Vec<String>,
    /// Kind of file system; empty for a bind mount.
    #[serde(rename = "type")]
    pub kind: String,
}

const HOOKS: [&str; 6] =
    ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

impl Edits {
    /// Adds further changes.
    pub(super) fn add(&mut self, more: &Edits) {
        self.env.extend_from_slice(&more.env);
        self.device_nodes.extend_from_slice(&more.device_nodes);
        self.net_devices.extend_from_slice(&more.net_devices);
        self.hooks.extend_from_slice(&more.hooks);
        self.mounts.extend_from_slice(&more.mounts);
        self.intel_rdt = more.intel_rdt.clone().or(self.intel_rdt.take());
        self.additional_gids.extend_from_slice(&more.additional_gids);
    }

    /// Whether there is something that version 1.1 of the format brought.
    pub(super) fn needs_1_1(&self) -> bool {
        let rdt = |rdt: &serde_json::Value| {
            rdt.get("schemata").is_some()
                || rdt.get("enableMonitoring").and_then(|v| v.as_bool()) == Some(true)
        };
        !self.net_devices.is_empty() || self.intel_rdt.as_ref().is_some_and(rdt)
    }

    pub(super) fn check(&self) -> std::result::Result<(), String> {
        let named = |variable: &&String| variable.find('=').is_none_or(|at| at == 0);
        if let Some(bad) = self.env.iter().find(named) {
            return Err(format!("invalid container edits: invalid environment variable {bad:?}"));
        }
        for node in &self.device_nodes {
            if node.path.is_empty() {
                return Err("invalid (empty) device path".to_owned());
            }
            if !matches!(node.kind.as_str(), "" | "b" | "c" | "u" | "p") {
                return Err(format!("device {:?}: invalid type {:?}", node.path, node.kind));
            }
            if !node.permissions.chars().all(|c| "rwm".contains(c)) {
                return Err(format!("device {:?}: invalid permissions {:?}", node.path, node.permissions));
            }
        }
        for hook in &self.hooks {
            if !HOOKS.contains(&hook.hook_name.as_str()) {
                return Err(format!("invalid hook name {:?}", hook.hook_name));
            }
            if hook.path.is_empty() {
                return Err(format!("invalid hook {:?} with empty path", hook.hook_name));
            }
            if let Some(bad) = hook.env.iter().find(named) {
                return Err(format!(
                    "invalid hook {:?}: invalid environment variable {bad:?}",
                    hook.hook_name
                ));
            }
        }
        for mount in &self.mounts {
            if mount.host_path.is_empty() {
                return Err("invalid mount, empty host path".to_owned());
            }
            if mount.container_path.is_empty() {
                return Err("invalid mount, empty container path".to_owned());
            }
        }
        Ok(())
    }
}

/// Changes a container.
pub(crate) fn apply<'a>(edits: &'a Edits, spec: &mut Spec<'a>) -> Result<()> {
    let refused = |why: &str| Error::Device { why: why.to_owned() };
    if !edits.net_devices.is_empty() {
        return Err(refused("a device moves a network interface into the step, which is not supported"));
    }
    if edits.intel_rdt.is_some() {
        return Err(refused("a device sets limits by Intel RDT, which is not supported"));
    }
    for variable in &edits.env {
        let name = variable.split_once('=').map_or(variable.as_str(), |(name, _)| name);
        let same = |known: &&str| known.split_once('=').map_or(*known, |(name, _)| name) == name;
        match spec.process.env.iter_mut().find(|known| same(known)) {
            Some(known) => *known = variable,
            None => spec.process.env.push(variable),
        }
    }
    for node in &edits.device_nodes {
        add_node(node, spec)?;
    }
    for mount in &edits.mounts {
        spec.mounts.retain(|known| known.destination != mount.container_path);
        let bind = mount.kind.is_empty() && mount.options.iter().any(|o| o == "bind" || o == "rbind");
        spec.mounts.push(MountSpec {
            destination: Cow::Borrowed(&mount.container_path),
            kind: if bind { "bind" } else { &mount.kind },
            source: Cow::Borrowed(&mount.host_path),
            options: mount.options.iter().map(|option| Cow::Borrowed(option.as_str())).collect(),
        });
    }
    if !edits.mounts.is_empty() {
        // What is deeper comes later, else the order stays.
        spec.mounts.sort_by_key(|mount| mount.destination.split('/').filter(|part| !part.is_empty()).count());
    }
    for hook in &edits.hooks {
        let hooks = spec.hooks.get_or_insert_default();
        let list = match hook.hook_name.as_str() {
            "prestart" => &mut hooks.prestart,
            "createRuntime" => &mut hooks.create_runtime,
            "createContainer" => &mut hooks.create_container,
            "startContainer" => &mut hooks.start_container,
            "poststart" => &mut hooks.poststart,
            _ => &mut hooks.poststop,
        };
        list.push(HookSpec { path: &hook.path, args: &hook.args, env: &hook.env, timeout: hook.timeout });
    }
    for gid in edits.additional_gids.iter().filter(|gid| **gid != 0) {
        if !spec.process.user.additional_gids.contains(gid) {
            spec.process.user.additional_gids.push(*gid);
        }
    }
    Ok(())
}

fn add_node(node: &DeviceNode, spec: &mut Spec<'_>) -> Result<()> {
    let host_path = if node.host_path.is_empty() { &node.path } else { &node.host_path };
    let is_told = !node.kind.is_empty() && (node.major != 0 || node.kind == "p");
    let there = rustix::fs::lstat(host_path.as_str());
    let (mut kind, mut major, mut minor) = (node.kind.clone(), node.major, node.minor);
    let mut mode = node.file_mode;
    match there {
        Err(_) if is_told => {}
        Err(e) => {
            return Err(Error::Device { why: format!("failed to stat CDI host device {host_path:?}: {e}") });
        }
        Ok(stat) => {
            let host_kind = match FileType::from_raw_mode(stat.st_mode) {
                FileType::BlockDevice => "b",
                FileType::CharacterDevice => "c",
                FileType::Fifo => "p",
                _ if is_told => "",
                _ => {
                    let why = format!("failed to stat CDI host device {host_path:?}: not a device node");
                    return Err(Error::Device { why });
                }
            };
            if !host_kind.is_empty() {
                mode = mode.or(Some(stat.st_mode & 0o7777));
            }
            if !is_told {
                if !kind.is_empty() && kind != host_kind {
                    let why = format!(
                        "CDI device ({:?}, {host_path:?}), host type mismatch ({kind}, {host_kind})",
                        node.path
                    );
                    return Err(Error::Device { why });
                }
                host_kind.clone_into(&mut kind);
                if kind != "p" && major == 0 {
                    major = i64::from(rustix::fs::major(stat.st_rdev));
                    minor = i64::from(rustix::fs::minor(stat.st_rdev));
                }
            }
        }
    }
    let number = |number: i64| {
        u32::try_from(number).map_err(|_| Error::Device {
            why: format!("device {:?} has the number {number}, which is none", node.path),
        })
    };
    let owner = |given: Option<u32>, of_process: u32| given.or(Some(of_process).filter(|id| *id > 0));
    let device = Device {
        path: node.path.clone(),
        kind: Cow::Owned(kind.clone()),
        major: number(major)?,
        minor: number(minor)?,
        file_mode: mode,
        uid: owner(node.uid, spec.process.user.uid),
        gid: owner(node.gid, spec.process.user.gid),
    };
    spec.linux.devices.retain(|known| known.path != node.path);
    spec.linux.devices.push(device);
    if kind == "b" || kind == "c" {
        let access = if node.permissions.is_empty() { "rwm" } else { &node.permissions };
        spec.linux.resources.devices.to_mut().push(DeviceRule {
            allow: true,
            kind: Some(if kind == "b" { "b" } else { "c" }),
            major: Some(major),
            minor: Some(minor),
            access: Cow::Owned(access.to_owned()),
        });
    }
    Ok(())
}
