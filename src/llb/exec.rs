use crosskit_api::pb;

use crate::Output;

/// A process to run.
#[derive(Debug, Clone, Default)]
pub struct Exec {
    /// The root filesystem; none for an empty one.
    pub root: Option<Output>,
    /// Whether the root filesystem stays as it is.
    pub readonly_root: bool,
    /// Program and arguments.
    pub args: Vec<String>,
    /// `NAME=value` each.
    pub env: Vec<String>,
    /// The working directory.
    pub cwd: String,
    /// As whom, such as `1000:1000` or `nobody`.
    pub user: String,
    /// The host's name for the process.
    pub hostname: String,
    /// The control group above that of the process.
    pub cgroup_parent: String,
    /// Lines for /etc/hosts.
    pub extra_hosts: Vec<pb::HostIp>,
    /// Resource limits.
    pub ulimits: Vec<pb::Ulimit>,
    /// Exit codes that are no failure; none stands for 0 alone.
    pub valid_exit_codes: Vec<i32>,
    /// Proxies that the process sees and the cache key does not.
    pub proxy: Option<pb::ProxyEnv>,
    /// The network that it sees.
    pub network: pb::NetMode,
    /// How far it is confined.
    pub security: pb::SecurityMode,
    /// What else is mounted.
    pub mounts: Vec<ExecMount>,
    /// Secrets as files and variables.
    pub secrets: Vec<SecretMount>,
    /// Agents' sockets.
    pub ssh: Vec<SshMount>,
    /// Devices by their CDI names.
    pub devices: Vec<pb::CdiDevice>,
    /// Whether the daemon adds a PATH where there is none: true for all that know to.
    pub default_path: bool,
}

/// A mount beside the root.
#[derive(Debug, Clone, Default)]
pub struct ExecMount {
    /// Where.
    pub target: String,
    /// What; none for something empty.
    pub source: Option<Output>,
    /// A path within `source`.
    pub selector: String,
    /// Whether it may not be written to.
    pub readonly: bool,
    /// Whether what is written to it is dropped.
    pub no_output: bool,
    /// A folder that outlives the build.
    pub cache: Option<CacheMount>,
    /// Memory, with a limit in bytes, 0 for none.
    pub tmpfs: Option<i64>,
    /// Whether its content counts for the cache key.
    pub content_cache: pb::MountContentCache,
}

/// A folder that outlives the build.
#[derive(Debug, Clone, Default)]
pub struct CacheMount {
    /// Mounts with the same id share the folder.
    pub id: String,
    /// Who may use it at the same time.
    pub sharing: pb::CacheSharingOpt,
}

/// A secret.
#[derive(Debug, Clone, Default)]
pub struct SecretMount {
    /// The client's name for it.
    pub id: String,
    /// Where it is mounted.
    pub target: Option<String>,
    /// The variable that it is put into.
    pub env: Option<String>,
    /// The file's owner.
    pub uid: u32,
    /// The file's group.
    pub gid: u32,
    /// The file's permissions.
    pub mode: u32,
    /// Whether the process runs without it.
    pub optional: bool,
}

/// An agent's socket.
#[derive(Debug, Clone, Default)]
pub struct SshMount {
    /// The client's name for the agent.
    pub id: String,
    /// Where it is mounted; none for `/run/buildkit/ssh_agent.N`.
    pub target: Option<String>,
    /// The socket's owner.
    pub uid: u32,
    /// The socket's group.
    pub gid: u32,
    /// The socket's permissions.
    pub mode: u32,
    /// Whether the process runs without it.
    pub optional: bool,
}

impl ExecMount {
    /// Whether what is written becomes an output of the vertex.
    fn has_output(&self) -> bool {
        !self.no_output && !self.readonly && self.cache.is_none() && self.tmpfs.is_none()
    }

    /// The output that a reader of this mount gets, when `made` counts those of the vertex.
    fn caps(&self, add: &mut impl FnMut(&'static str)) {
        if !self.selector.is_empty() {
            add("exec.mount.selector");
        }
        if self.cache.is_some() {
            add("exec.mount.cache");
            add("exec.mount.cache.sharing");
        } else if let Some(size) = self.tmpfs {
            add("exec.mount.tmpfs");
            if size > 0 {
                add("exec.mount.tmpfs.size");
            }
        } else if self.source.is_some() {
            add("exec.mount.bind");
        }
        if self.content_cache != pb::MountContentCache::Default {
            add("exec.mount.cache.content");
        }
    }
}

impl Exec {
    /// The root and the other mounts in the order of their targets, each with its position
    /// before: 0 for the root.
    pub(crate) fn sort_mounts(&mut self) -> Vec<usize> {
        let root = ExecMount {
            target: "/".to_owned(),
            source: self.root,
            readonly: self.readonly_root,
            ..ExecMount::default()
        };
        let mut all: Vec<(usize, ExecMount)> =
            std::iter::once(root).chain(self.mounts.drain(..)).enumerate().collect();
        all.sort_by(|(_, a), (_, b)| a.target.cmp(&b.target));
        let order = all.iter().map(|(position, _)| *position).collect();
        self.mounts = all.into_iter().map(|(_, mount)| mount).collect();
        order
    }

    /// The output index of each sorted mount.
    pub(crate) fn output_indices(&self) -> Vec<Option<u32>> {
        let mut next = 0;
        let mut index = |mount: &ExecMount| {
            mount.has_output().then(|| {
                next += 1;
                next - 1
            })
        };
        self.mounts.iter().map(&mut index).collect()
    }

    pub(crate) fn caps(&self, mut add: impl FnMut(&'static str)) {
        add("exec.meta.base");
        let secret_env = self.secrets.iter().any(|secret| secret.env.is_some());
        for (used, cap) in [
            (self.default_path, "exec.meta.setsdefaultpath"),
            (!self.valid_exit_codes.is_empty(), "exec.validexitcode"),
            (!self.ulimits.is_empty(), "exec.meta.ulimit"),
            (self.network != pb::NetMode::Unset, "exec.meta.network"),
            (self.security != pb::SecurityMode::Sandbox, "exec.meta.security"),
            (self.proxy.is_some(), "exec.meta.proxyenv"),
            (!self.secrets.is_empty(), "exec.mount.secret"),
            (secret_env, "exec.secretenv"),
            (!self.ssh.is_empty(), "exec.mount.ssh"),
            (!self.devices.is_empty(), "exec.meta.cdi"),
        ] {
            if used {
                add(cap);
            }
        }
        for mount in &self.mounts {
            mount.caps(&mut add);
        }
    }

    /// The operation, once the mounts are sorted. `input` gives an output's position among the
    /// vertex's inputs.
    pub(crate) fn into_op(self, mut input: impl FnMut(Output) -> i64) -> pb::ExecOp {
        let outputs = self.output_indices();
        let mut env = self.env;
        let ssh_target = |position: usize, mount: &SshMount| match &mount.target {
            Some(target) => target.clone(),
            None => format!("/run/buildkit/ssh_agent.{position}"),
        };
        if let Some(first) = self.ssh.first()
            && !env.iter().any(|pair| pair.starts_with("SSH_AUTH_SOCK="))
        {
            env.push(format!("SSH_AUTH_SOCK={}", ssh_target(0, first)));
        }
        let mut mounts = Vec::with_capacity(self.mounts.len());
        for (mount, output) in self.mounts.into_iter().zip(outputs) {
            let mut kind = pb::MountType::Bind;
            if mount.cache.is_some() {
                kind = pb::MountType::Cache;
            } else if mount.tmpfs.is_some() {
                kind = pb::MountType::Tmpfs;
            }
            mounts.push(pb::Mount {
                input: mount.source.map_or(-1, &mut input),
                selector: mount.selector,
                dest: mount.target,
                output: output.map_or(-1, i64::from),
                readonly: mount.readonly,
                mount_type: kind.into(),
                content_cache: mount.content_cache.into(),
                tmpfs_opt: mount.tmpfs.map(|size| pb::TmpfsOpt { size }),
                cache_opt: mount
                    .cache
                    .as_ref()
                    .map(|cache| pb::CacheOpt { id: cache.id.clone(), sharing: cache.sharing.into() }),
                ..pb::Mount::default()
            });
        }
        for secret in &self.secrets {
            let Some(target) = &secret.target else {
                continue;
            };
            mounts.push(pb::Mount {
                input: -1,
                dest: target.clone(),
                mount_type: pb::MountType::Secret.into(),
                secret_opt: Some(pb::SecretOpt {
                    id: secret.id.clone(),
                    uid: secret.uid,
                    gid: secret.gid,
                    mode: secret.mode,
                    optional: secret.optional,
                }),
                ..pb::Mount::default()
            });
        }
        for (position, ssh) in self.ssh.iter().enumerate() {
            mounts.push(pb::Mount {
                input: -1,
                dest: ssh_target(position, ssh),
                mount_type: pb::MountType::Ssh.into(),
                ssh_opt: Some(pb::SshOpt {
                    id: ssh.id.clone(),
                    uid: ssh.uid,
                    gid: ssh.gid,
                    mode: ssh.mode,
                    optional: ssh.optional,
                }),
                ..pb::Mount::default()
            });
        }
        let secretenv = self.secrets.iter().filter_map(|secret| {
            Some(pb::SecretEnv {
                id: secret.id.clone(),
                name: secret.env.clone()?,
                optional: secret.optional,
            })
        });
        pb::ExecOp {
            meta: Some(pb::Meta {
                args: self.args,
                env,
                cwd: self.cwd,
                user: self.user,
                proxy_env: self.proxy,
                extra_hosts: self.extra_hosts,
                hostname: self.hostname,
                ulimit: self.ulimits,
                cgroup_parent: self.cgroup_parent,
                remove_mount_stubs_recursive: true,
                valid_exit_codes: self.valid_exit_codes,
            }),
            mounts,
            network: self.network.into(),
            security: self.security.into(),
            secretenv: secretenv.collect(),
            cdi_devices: self.devices,
        }
    }
}
