//! The fields of each message, in the order and with the names of BuildKit's Go structures.

use crosskit_api::pb::{self, file_action::Action, op::Op, user_opt::User};

use crate::json::{GoJson, Object};

/// Which member of a oneof is set: an object with that one field.
struct Member<F: Fn(&mut Object<'_>)>(F);

impl<F: Fn(&mut Object<'_>)> GoJson for Member<F> {
    fn fields(&self, o: &mut Object<'_>) {
        (self.0)(o);
    }
}

impl GoJson for pb::Op {
    fn fields(&self, o: &mut Object<'_>) {
        o.objects("inputs", &self.inputs);
        let member = Member(|o: &mut Object<'_>| match &self.op {
            None => {}
            Some(Op::Exec(v)) => o.object("exec", Some(v)),
            Some(Op::Source(v)) => o.object("source", Some(v)),
            Some(Op::File(v)) => o.object("file", Some(v)),
            Some(Op::Build(v)) => o.object("build", Some(v)),
            Some(Op::Merge(v)) => o.object("merge", Some(v)),
            Some(Op::Diff(v)) => o.object("diff", Some(v)),
            Some(Op::Passthrough(v)) => o.object("passthrough", Some(v)),
        });
        o.object("Op", Some(&member));
        o.object("platform", self.platform.as_ref());
        o.object("constraints", self.constraints.as_ref());
    }
}

impl GoJson for pb::FileAction {
    fn fields(&self, o: &mut Object<'_>) {
        o.number_always("input", self.input);
        o.number_always("secondaryInput", self.secondary_input);
        o.number_always("output", self.output);
        // BuildKit's encoder knows no symlink here; it writes an empty object.
        let member = Member(|o: &mut Object<'_>| match &self.action {
            None | Some(Action::Symlink(_)) => {}
            Some(Action::Copy(v)) => o.object("copy", Some(v)),
            Some(Action::Mkfile(v)) => o.object("mkfile", Some(v)),
            Some(Action::Mkdir(v)) => o.object("mkdir", Some(v)),
            Some(Action::Rm(v)) => o.object("rm", Some(v)),
        });
        o.object("Action", Some(&member));
    }
}

impl GoJson for pb::UserOpt {
    fn fields(&self, o: &mut Object<'_>) {
        let member = Member(|o: &mut Object<'_>| match &self.user {
            None => {}
            Some(User::ByName(v)) => o.object("byName", Some(v)),
            Some(User::ById(id)) => o.number("byId", *id),
        });
        o.object("User", Some(&member));
    }
}

/// `Message { method "name" field, … }`: each field is written by the method of its type.
macro_rules! go_json {
    ($($message:ident { $($method:ident $name:literal $field:ident),* $(,)? })*) => {$(
        impl GoJson for pb::$message {
            fn fields(&self, o: &mut Object<'_>) {
                $(go_json!(@ o self $method $name $field);)*
            }
        }
    )*};
    (@ $o:ident $s:ident object $name:literal $f:ident) => { $o.object($name, $s.$f.as_ref()) };
    (@ $o:ident $s:ident number $name:literal $f:ident) => { $o.number($name, $s.$f) };
    (@ $o:ident $s:ident flag $name:literal $f:ident) => { $o.flag($name, $s.$f) };
    (@ $o:ident $s:ident $m:ident $name:literal $f:ident) => { $o.$m($name, &$s.$f) };
}

go_json! {
    Input { string "digest" digest, number "index" index }
    Platform {
        string "Architecture" architecture, string "OS" os, string "Variant" variant,
        string "OSVersion" os_version, strings "OSFeatures" os_features,
    }
    WorkerConstraints { strings "filter" filter }
    ExecOp {
        object "meta" meta, objects "mounts" mounts, number "network" network,
        number "security" security, objects "secretenv" secretenv,
        objects "cdiDevices" cdi_devices,
    }
    Meta {
        strings "args" args, strings "env" env, string "cwd" cwd, string "user" user,
        object "proxy_env" proxy_env, objects "extraHosts" extra_hosts,
        string "hostname" hostname, objects "ulimit" ulimit,
        string "cgroupParent" cgroup_parent,
        flag "removeMountStubsRecursive" remove_mount_stubs_recursive,
        numbers "validExitCodes" valid_exit_codes,
    }
    HostIp { string "Host" host, string "IP" ip }
    Ulimit { string "Name" name, number "Soft" soft, number "Hard" hard }
    SecretEnv { string "ID" id, string "name" name, flag "optional" optional }
    CdiDevice { string "name" name, flag "optional" optional }
    Mount {
        number "input" input, string "selector" selector, string "dest" dest,
        number "output" output, flag "readonly" readonly, number "mountType" mount_type,
        object "TmpfsOpt" tmpfs_opt, object "cacheOpt" cache_opt,
        object "secretOpt" secret_opt, object "SSHOpt" ssh_opt,
        string "resultID" result_id, number "contentCache" content_cache,
    }
    TmpfsOpt { number "size" size }
    CacheOpt { string "ID" id, number "sharing" sharing }
    SecretOpt {
        string "ID" id, number "uid" uid, number "gid" gid, number "mode" mode,
        flag "optional" optional,
    }
    SshOpt {
        string "ID" id, number "uid" uid, number "gid" gid, number "mode" mode,
        flag "optional" optional,
    }
    ProxyEnv {
        string "http_proxy" http_proxy, string "https_proxy" https_proxy,
        string "ftp_proxy" ftp_proxy, string "no_proxy" no_proxy,
        string "all_proxy" all_proxy,
    }
    SourceOp { string "identifier" identifier, string_map "attrs" attrs }
    BuildOp {
        number "builder" builder, object_map "inputs" inputs, object "def" def,
        string_map "attrs" attrs,
    }
    BuildInput { number "input" input }
    FileOp { objects "actions" actions }
    FileActionCopy {
        string "src" src, string "dest" dest, object "owner" owner, number "mode" mode,
        flag "followSymlink" follow_symlink, flag "dirCopyContents" dir_copy_contents,
        flag "attemptUnpackDockerCompatibility" attempt_unpack_docker_compatibility,
        flag "createDestPath" create_dest_path, flag "allowWildcard" allow_wildcard,
        flag "allowEmptyWildcard" allow_empty_wildcard, number "timestamp" timestamp,
        strings "include_patterns" include_patterns,
        strings "exclude_patterns" exclude_patterns,
        flag "alwaysReplaceExistingDestPaths" always_replace_existing_dest_paths,
        string "modeStr" mode_str, strings "required_paths" required_paths,
    }
    FileActionMkFile {
        string "path" path, number "mode" mode, bytes "data" data, object "owner" owner,
        number "timestamp" timestamp,
    }
    FileActionMkDir {
        string "path" path, number "mode" mode, flag "makeParents" make_parents,
        object "owner" owner, number "timestamp" timestamp,
    }
    FileActionRm {
        string "path" path, flag "allowNotFound" allow_not_found,
        flag "allowWildcard" allow_wildcard,
    }
    FileActionSymlink {
        string "oldpath" oldpath, string "newpath" newpath, object "owner" owner,
        number "timestamp" timestamp,
    }
    ChownOpt { object "user" user, object "group" group }
    NamedUserOpt { string "name" name, number "input" input }
    MergeOp { objects "inputs" inputs }
    MergeInput { number "input" input }
    DiffOp { object "lower" lower, object "upper" upper }
    LowerDiffInput { number "input" input }
    UpperDiffInput { number "input" input }
    PassthroughOp { string "id" id, numbers "outputs" outputs }
    OpMetadata {
        flag "ignore_cache" ignore_cache, string_map "description" description,
        object "export_cache" export_cache, flag_map "caps" caps,
        object "progress_group" progress_group, object "linux_resources" linux_resources,
    }
    ExportCache { flag "Value" value }
    ProgressGroup { string "id" id, string "name" name, flag "weak" weak }
    LinuxResources {
        number "memory" memory, number "memorySwap" memory_swap,
        number "cpuShares" cpu_shares, number "cpuPeriod" cpu_period,
        number "cpuQuota" cpu_quota, string "cpusetCpus" cpuset_cpus,
        string "cpusetMems" cpuset_mems,
    }
    Definition {
        byte_strings "def" def, object_map "metadata" metadata, object "Source" source,
    }
    Source { object_map "locations" locations, objects "infos" infos }
    Locations { objects "locations" locations }
    SourceInfo {
        string "filename" filename, bytes "data" data, object "definition" definition,
        string "language" language,
    }
    Location { number "sourceIndex" source_index, objects "ranges" ranges }
    Range { object "start" start, object "end" end }
    Position { number "line" line, number "character" character }
}
