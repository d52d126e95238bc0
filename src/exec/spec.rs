//! The OCI runtime configuration as it is written for each step (runtime-spec 1.0.2 §config): borrowed, since most of it is
//! the same every time, and only the fields that are used.

use std::borrow::Cow;

use serde::Serialize;

/// Version that every crun and runc in use reads; nothing newer is needed.
pub(crate) const VERSION: &str = "1.0.2";

type Text<'a> = Cow<'a, str>;

/// `config.json`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Spec<'a> {
    pub(crate) oci_version: &'static str,
    pub(crate) process: ProcessSpec<'a>,
    pub(crate) root: Root<'a>,
    pub(crate) hostname: &'a str,
    pub(crate) mounts: Vec<MountSpec<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) hooks: Option<Hooks<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) annotations: Option<Annotations<'a>>,
    pub(crate) linux: Linux<'a>,
}

/// Programs that the runtime runs (runtime-spec §posix-platform-hooks).
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Hooks<'a> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) prestart: Vec<HookSpec<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) create_runtime: Vec<HookSpec<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) create_container: Vec<HookSpec<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) start_container: Vec<HookSpec<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) poststart: Vec<HookSpec<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) poststop: Vec<HookSpec<'a>>,
}

#[derive(Debug, Serialize)]
pub(crate) struct HookSpec<'a> {
    pub(crate) path: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub(crate) args: &'a [String],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub(crate) env: &'a [String],
    /// In seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) timeout: Option<i64>,
}

/// What only crun reads.
#[derive(Debug, Serialize)]
pub(crate) struct Annotations<'a> {
    /// A ready filter, base64 (crun.1).
    #[serde(rename = "run.oci.seccomp_bpf_data")]
    pub(crate) seccomp: &'a str,
}

/// `process`, also what `exec` takes.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ProcessSpec<'a> {
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) terminal: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) console_size: Option<ConsoleSize>,
    pub(crate) user: User,
    pub(crate) args: &'a [String],
    pub(crate) env: Vec<&'a str>,
    pub(crate) cwd: Text<'a>,
    pub(crate) capabilities: Capabilities,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) rlimits: Vec<Rlimit>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) apparmor_profile: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) oom_score_adj: Option<i32>,
}

/// Of a terminal, in characters.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct ConsoleSize {
    pub(crate) height: u16,
    pub(crate) width: u16,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// The main group too, first.
    pub(crate) additional_gids: Vec<u32>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Capabilities {
    pub(crate) bounding: Vec<&'static str>,
    pub(crate) effective: Vec<&'static str>,
    pub(crate) permitted: Vec<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) inheritable: Vec<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) ambient: Vec<&'static str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Rlimit {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) hard: u64,
    pub(crate) soft: u64,
}

#[derive(Debug, Serialize)]
pub(crate) struct Root<'a> {
    pub(crate) path: Text<'a>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) readonly: bool,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct MountSpec<'a> {
    pub(crate) destination: Text<'a>,
    #[serde(rename = "type", skip_serializing_if = "str::is_empty")]
    pub(crate) kind: &'a str,
    pub(crate) source: Text<'a>,
    pub(crate) options: Vec<Text<'a>>,
}

impl<'a> MountSpec<'a> {
    pub(crate) fn new(
        destination: impl Into<Text<'a>>,
        kind: &'static str,
        source: impl Into<Text<'a>>,
        options: &[&'static str],
    ) -> Self {
        let options = options.iter().map(|option| Cow::Borrowed(*option)).collect();
        Self { destination: destination.into(), kind, source: source.into(), options }
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Linux<'a> {
    pub(crate) resources: Resources<'a>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) cgroups_path: String,
    pub(crate) namespaces: Vec<Namespace>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) uid_mappings: Vec<IdMapping>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) gid_mappings: Vec<IdMapping>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) devices: Vec<Device>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) seccomp: Option<&'static Seccomp>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub(crate) masked_paths: &'static [&'static str],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub(crate) readonly_paths: &'static [&'static str],
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Namespace {
    #[serde(rename = "type")]
    pub(crate) kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) path: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct IdMapping {
    #[serde(rename = "containerID")]
    pub(crate) container: u32,
    #[serde(rename = "hostID")]
    pub(crate) host: u32,
    pub(crate) size: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Device {
    pub(crate) path: String,
    #[serde(rename = "type")]
    pub(crate) kind: Text<'static>,
    pub(crate) major: u32,
    pub(crate) minor: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) file_mode: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) uid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) gid: Option<u32>,
}

#[derive(Debug, Default, Serialize)]
pub(crate) struct Resources<'a> {
    pub(crate) devices: Cow<'static, [DeviceRule]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) memory: Option<Memory>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cpu: Option<Cpu<'a>>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct DeviceRule {
    pub(crate) allow: bool,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub(crate) kind: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) major: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) minor: Option<i64>,
    pub(crate) access: Text<'static>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Memory {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) limit: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) swap: Option<i64>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Cpu<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) shares: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) quota: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) period: Option<u64>,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(crate) cpus: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(crate) mems: &'a str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Seccomp {
    pub(crate) default_action: &'static str,
    #[serde(rename = "defaultErrnoRet")]
    pub(crate) default_errno: u32,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub(crate) architectures: &'static [&'static str],
    pub(crate) syscalls: Vec<SeccompCalls>,
}

#[derive(Debug, Serialize)]
pub(crate) struct SeccompCalls {
    pub(crate) names: Vec<&'static str>,
    pub(crate) action: &'static str,
    #[serde(rename = "errnoRet", skip_serializing_if = "Option::is_none")]
    pub(crate) errno: Option<u32>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) args: Vec<SeccompArgument>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SeccompArgument {
    pub(crate) index: u32,
    pub(crate) value: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) value_two: Option<u64>,
    pub(crate) op: &'static str,
}
