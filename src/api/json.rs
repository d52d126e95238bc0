//! Graph messages as JSON, in the form that BuildKit's own programs write and hash.
//!
//! Cache keys of operations are digests of this JSON, and typed error details carry it, so the
//! bytes matter: keys in the order of the messages' declaration, zero values left out, bytes in
//! base64, numbers for enums, and `<`, `>`, `&` escaped as Go's encoder does.

use crate::pb;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::ser::{Serialize, SerializeMap, Serializer};
use std::collections::BTreeMap;
use std::io;

/// Encodes any value with Go's escaping: `<`, `>`, `&`, U+2028 and U+2029 become `\u` escapes.
///
/// # Errors
/// As serde_json: a map with keys that aren't strings, or a `Serialize` that fails.
pub fn to_vec<T: Serialize + ?Sized>(value: &T) -> serde_json::Result<Vec<u8>> {
    let mut out = Vec::with_capacity(256);
    value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, GoEscapes))?;
    Ok(out)
}

/// Writes strings the way Go's encoding/json does.
struct GoEscapes;

impl serde_json::ser::Formatter for GoEscapes {
    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        out: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut from = 0;
        for (at, found) in fragment.char_indices() {
            let escape = match found {
                '<' => "\\u003c",
                '>' => "\\u003e",
                '&' => "\\u0026",
                '\u{2028}' => "\\u2028",
                '\u{2029}' => "\\u2029",
                _ => continue,
            };
            out.write_all(&fragment.as_bytes()[from..at])?;
            out.write_all(escape.as_bytes())?;
            from = at + found.len_utf8();
        }
        out.write_all(&fragment.as_bytes()[from..])
    }
}

/// A value that is left out when it is zero.
trait Field {
    fn put<M: SerializeMap>(&self, map: &mut M, key: &'static str) -> Result<(), M::Error>;
}

macro_rules! plain_fields {
    ($($type:ty => $empty:expr),* $(,)?) => {$(
        impl Field for $type {
            fn put<M: SerializeMap>(&self, map: &mut M, key: &'static str) -> Result<(), M::Error> {
                let empty: fn(&$type) -> bool = $empty;
                if empty(self) { Ok(()) } else { map.serialize_entry(key, self) }
            }
        }
    )*};
}

plain_fields! {
    String => |v| v.is_empty(),
    bool => |v| !*v,
    i32 => |v| *v == 0,
    i64 => |v| *v == 0,
    u32 => |v| *v == 0,
    u64 => |v| *v == 0,
    Vec<String> => |v| v.is_empty(),
    Vec<i32> => |v| v.is_empty(),
    Vec<i64> => |v| v.is_empty(),
    BTreeMap<String, String> => |v| v.is_empty(),
    BTreeMap<String, bool> => |v| v.is_empty(),
}

impl<T: Serialize> Field for Option<T> {
    fn put<M: SerializeMap>(&self, map: &mut M, key: &'static str) -> Result<(), M::Error> {
        self.as_ref().map_or(Ok(()), |v| map.serialize_entry(key, v))
    }
}

impl Field for Vec<u8> {
    fn put<M: SerializeMap>(&self, map: &mut M, key: &'static str) -> Result<(), M::Error> {
        if self.is_empty() { Ok(()) } else { map.serialize_entry(key, &STANDARD.encode(self)) }
    }
}

impl Field for Vec<Vec<u8>> {
    fn put<M: SerializeMap>(&self, map: &mut M, key: &'static str) -> Result<(), M::Error> {
        if self.is_empty() {
            return Ok(());
        }
        map.serialize_entry(key, &self.iter().map(|v| STANDARD.encode(v)).collect::<Vec<_>>())
    }
}

/// Writes `impl Serialize` for messages: each field with its key, in declaration order.
macro_rules! messages {
    ($($message:ident { $($field:ident $key:literal),* $(,)? })*) => {$(
        impl Serialize for pb::$message {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let mut map = serializer.serialize_map(None)?;
                $( self.$field.put(&mut map, $key)?; )*
                map.end()
            }
        }
        impl Field for Vec<pb::$message> {
            fn put<M: SerializeMap>(&self, map: &mut M, key: &'static str) -> Result<(), M::Error> {
                if self.is_empty() { Ok(()) } else { map.serialize_entry(key, self) }
            }
        }
        impl Field for BTreeMap<String, pb::$message> {
            fn put<M: SerializeMap>(&self, map: &mut M, key: &'static str) -> Result<(), M::Error> {
                if self.is_empty() { Ok(()) } else { map.serialize_entry(key, self) }
            }
        }
    )*};
}

messages! {
    Platform { architecture "Architecture", os "OS", variant "Variant", os_version "OSVersion", os_features "OSFeatures" }
    Input { digest "digest", index "index" }
    WorkerConstraints { filter "filter" }
    ExecOp { meta "meta", mounts "mounts", network "network", security "security", secretenv "secretenv", cdi_devices "cdiDevices" }
    Meta {
        args "args", env "env", cwd "cwd", user "user", proxy_env "proxy_env", extra_hosts "extraHosts",
        hostname "hostname", ulimit "ulimit", cgroup_parent "cgroupParent",
        remove_mount_stubs_recursive "removeMountStubsRecursive", valid_exit_codes "validExitCodes",
    }
    ProxyEnv { http_proxy "http_proxy", https_proxy "https_proxy", ftp_proxy "ftp_proxy", no_proxy "no_proxy", all_proxy "all_proxy" }
    HostIp { host "Host", ip "IP" }
    Ulimit { name "Name", soft "Soft", hard "Hard" }
    SecretEnv { id "ID", name "name", optional "optional" }
    CdiDevice { name "name", optional "optional" }
    Mount {
        input "input", selector "selector", dest "dest", output "output", readonly "readonly",
        mount_type "mountType", tmpfs_opt "TmpfsOpt", cache_opt "cacheOpt", secret_opt "secretOpt",
        ssh_opt "SSHOpt", result_id "resultID", content_cache "contentCache",
    }
    TmpfsOpt { size "size" }
    CacheOpt { id "ID", sharing "sharing" }
    SecretOpt { id "ID", uid "uid", gid "gid", mode "mode", optional "optional" }
    SshOpt { id "ID", uid "uid", gid "gid", mode "mode", optional "optional" }
    SourceOp { identifier "identifier", attrs "attrs" }
    BuildOp { builder "builder", inputs "inputs", def "def", attrs "attrs" }
    BuildInput { input "input" }
    MergeOp { inputs "inputs" }
    MergeInput { input "input" }
    DiffOp { lower "lower", upper "upper" }
    LowerDiffInput { input "input" }
    UpperDiffInput { input "input" }
    PassthroughOp { id "id", outputs "outputs" }
    FileOp { actions "actions" }
    FileActionCopy {
        src "src", dest "dest", owner "owner", mode "mode", follow_symlink "followSymlink",
        dir_copy_contents "dirCopyContents",
        attempt_unpack_docker_compatibility "attemptUnpackDockerCompatibility",
        create_dest_path "createDestPath", allow_wildcard "allowWildcard",
        allow_empty_wildcard "allowEmptyWildcard", timestamp "timestamp",
        include_patterns "include_patterns", exclude_patterns "exclude_patterns",
        always_replace_existing_dest_paths "alwaysReplaceExistingDestPaths", mode_str "modeStr",
        required_paths "required_paths",
    }
    FileActionMkFile { path "path", mode "mode", data "data", owner "owner", timestamp "timestamp" }
    FileActionMkDir { path "path", mode "mode", make_parents "makeParents", owner "owner", timestamp "timestamp" }
    FileActionSymlink { oldpath "oldpath", newpath "newpath", owner "owner", timestamp "timestamp" }
    FileActionRm { path "path", allow_not_found "allowNotFound", allow_wildcard "allowWildcard" }
    ChownOpt { user "user", group "group" }
    NamedUserOpt { name "name", input "input" }
    Definition { def "def", metadata "metadata", source "Source" }
    OpMetadata {
        ignore_cache "ignore_cache", description "description", export_cache "export_cache", caps "caps",
        progress_group "progress_group", linux_resources "linux_resources",
    }
    ExportCache { value "Value" }
    ProgressGroup { id "id", name "name", weak "weak" }
    LinuxResources {
        memory "memory", memory_swap "memorySwap", cpu_shares "cpuShares", cpu_period "cpuPeriod",
        cpu_quota "cpuQuota", cpuset_cpus "cpusetCpus", cpuset_mems "cpusetMems",
    }
    Source { locations "locations", infos "infos" }
    Locations { locations "locations" }
    SourceInfo { filename "filename", data "data", definition "definition", language "language" }
    Location { source_index "sourceIndex", ranges "ranges" }
    Range { start "start", end "end" }
    Position { line "line", character "character" }
}

/// A one-of as an object that holds the one member that is set.
struct Member<'a, T>(Option<(&'static str, &'a T)>);

impl<T: Serialize> Serialize for Member<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if let Some((key, value)) = self.0 {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

impl Serialize for pb::Op {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use pb::op::Op;
        let mut map = serializer.serialize_map(None)?;
        self.inputs.put(&mut map, "inputs")?;
        match &self.op {
            Some(Op::Exec(v)) => map.serialize_entry("Op", &Member(Some(("exec", v))))?,
            Some(Op::Source(v)) => map.serialize_entry("Op", &Member(Some(("source", v))))?,
            Some(Op::File(v)) => map.serialize_entry("Op", &Member(Some(("file", v))))?,
            Some(Op::Build(v)) => map.serialize_entry("Op", &Member(Some(("build", v))))?,
            Some(Op::Merge(v)) => map.serialize_entry("Op", &Member(Some(("merge", v))))?,
            Some(Op::Diff(v)) => map.serialize_entry("Op", &Member(Some(("diff", v))))?,
            Some(Op::Passthrough(v)) => map.serialize_entry("Op", &Member(Some(("passthrough", v))))?,
            None => map.serialize_entry("Op", &Member::<()>(None))?,
        }
        self.platform.put(&mut map, "platform")?;
        self.constraints.put(&mut map, "constraints")?;
        map.end()
    }
}

impl Serialize for pb::FileAction {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use pb::file_action::Action;
        let mut map = serializer.serialize_map(None)?;
        // Unlike elsewhere, zero indices are written: the stock form names them always.
        map.serialize_entry("input", &self.input)?;
        map.serialize_entry("secondaryInput", &self.secondary_input)?;
        map.serialize_entry("output", &self.output)?;
        match &self.action {
            Some(Action::Copy(v)) => map.serialize_entry("Action", &Member(Some(("copy", v))))?,
            Some(Action::Mkfile(v)) => map.serialize_entry("Action", &Member(Some(("mkfile", v))))?,
            Some(Action::Mkdir(v)) => map.serialize_entry("Action", &Member(Some(("mkdir", v))))?,
            Some(Action::Rm(v)) => map.serialize_entry("Action", &Member(Some(("rm", v))))?,
            // The stock form has no member for symlinks.
            Some(Action::Symlink(_)) | None => map.serialize_entry("Action", &Member::<()>(None))?,
        }
        map.end()
    }
}

impl Field for Vec<pb::FileAction> {
    fn put<M: SerializeMap>(&self, map: &mut M, key: &'static str) -> Result<(), M::Error> {
        if self.is_empty() { Ok(()) } else { map.serialize_entry(key, self) }
    }
}

impl Serialize for pb::UserOpt {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use pb::user_opt::User;
        let mut map = serializer.serialize_map(None)?;
        match &self.user {
            Some(User::ByName(v)) => map.serialize_entry("User", &Member(Some(("byName", v))))?,
            Some(User::ById(0)) | None => map.serialize_entry("User", &Member::<()>(None))?,
            Some(User::ById(v)) => map.serialize_entry("User", &Member(Some(("byId", v))))?,
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_values_are_left_out_and_markup_is_escaped() {
        let exec = pb::ExecOp {
            meta: Some(pb::Meta {
                args: vec!["sh".into(), "-c".into(), "a <b> && c".into()],
                cwd: "/".into(),
                ..Default::default()
            }),
            network: pb::NetMode::None as i32,
            ..Default::default()
        };
        assert_eq!(
            String::from_utf8(to_vec(&exec).unwrap()).unwrap(),
            r#"{"meta":{"args":["sh","-c","a \u003cb\u003e \u0026\u0026 c"],"cwd":"/"},"network":2}"#
        );
    }

    #[test]
    fn one_ofs_are_objects_with_one_member() {
        let copy = pb::FileActionCopy {
            src: "/a".into(),
            owner: Some(pb::ChownOpt {
                user: Some(pb::UserOpt { user: Some(pb::user_opt::User::ById(0)) }),
                group: Some(pb::UserOpt { user: Some(pb::user_opt::User::ById(7)) }),
            }),
            mode: -1,
            ..Default::default()
        };
        assert_eq!(
            String::from_utf8(to_vec(&copy).unwrap()).unwrap(),
            r#"{"src":"/a","owner":{"user":{"User":{}},"group":{"User":{"byId":7}}},"mode":-1}"#
        );
        let action = pb::FileAction { secondary_input: -1, action: None, ..Default::default() };
        assert_eq!(to_vec(&action).unwrap(), br#"{"input":0,"secondaryInput":-1,"output":0,"Action":{}}"#);
    }

    #[test]
    fn bytes_are_base64() {
        let file = pb::FileActionMkFile { path: "f".into(), data: b"hi".to_vec(), ..Default::default() };
        assert_eq!(to_vec(&file).unwrap(), br#"{"path":"f","data":"aGk="}"#);
    }
}
