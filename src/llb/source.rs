use std::collections::BTreeMap;

use crate::Constraints;

/// Where an image is looked for first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum ResolveMode {
    /// As the daemon sees fit.
    #[default]
    Default,
    /// Always at the registry.
    ForcePull,
    /// In the daemon's own store.
    PreferLocal,
}

impl ResolveMode {
    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            ResolveMode::Default => "default",
            ResolveMode::ForcePull => "pull",
            ResolveMode::PreferLocal => "local",
        }
    }
}

/// What a source becomes: its name, its attributes and the capabilities that it needs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Described {
    pub(crate) identifier: String,
    pub(crate) attrs: BTreeMap<String, String>,
    pub(crate) caps: Vec<&'static str>,
}

impl Described {
    fn new(identifier: String, cap: &'static str) -> Self {
        Described { identifier, attrs: BTreeMap::new(), caps: vec![cap] }
    }

    fn attr(&mut self, name: &str, value: &str, cap: Option<&'static str>) {
        if !value.is_empty() {
            self.attrs.insert(name.to_owned(), value.to_owned());
            self.caps.extend(cap);
        }
    }

    fn list(&mut self, name: &str, values: &[String], cap: &'static str) {
        if !values.is_empty() {
            self.attr(name, &crate::json::strings(values), Some(cap));
        }
    }

    pub(crate) fn add_caps(&self, constraints: &mut Constraints) {
        for cap in &self.caps {
            constraints.cap(cap);
        }
    }
}

/// An image of a registry.
#[derive(Debug, Clone, Default)]
pub struct ImageSource {
    /// The full name, such as `docker.io/library/alpine:latest@sha256:…`.
    pub reference: String,
    /// Where it is looked for.
    pub resolve_mode: ResolveMode,
    /// How many of its layers are wanted.
    pub layer_limit: Option<usize>,
    /// The digest that its manifest has to have.
    pub checksum: String,
    /// How its cache records are classed, such as `internal`.
    pub record_type: String,
}

impl ImageSource {
    pub(crate) fn describe(&self) -> Described {
        let mut out = Described::new(format!("docker-image://{}", self.reference), "source.image");
        match self.resolve_mode {
            ResolveMode::Default => {}
            ResolveMode::ForcePull => {
                out.attr("image.resolvemode", "pull", Some("source.image.resolvemode"));
            }
            ResolveMode::PreferLocal => out.attr("image.resolvemode", "local", None),
        }
        out.attr("image.recordtype", &self.record_type, None);
        if let Some(limit) = self.layer_limit {
            out.attr("image.layerlimit", &limit.to_string(), Some("source.image.layerlimit"));
        }
        out.attr("image.checksum", &self.checksum, Some("source.image.checksum"));
        out
    }
}

/// An image of a client's OCI layout.
#[derive(Debug, Clone, Default)]
pub struct OciLayoutSource {
    /// `name@sha256:…`.
    pub reference: String,
    /// Whose layout it is.
    pub session: String,
    /// The layout's name in the session.
    pub store: String,
    /// How many of its layers are wanted.
    pub layer_limit: Option<usize>,
}

impl OciLayoutSource {
    pub(crate) fn describe(&self) -> Described {
        let name = format!("oci-layout://{}", self.reference);
        let mut out = Described::new(name, "source.ocilayout");
        out.attr("oci.session", &self.session, None);
        out.attr("oci.store", &self.store, None);
        if let Some(limit) = self.layer_limit {
            out.attr("oci.layerlimit", &limit.to_string(), None);
        }
        out
    }
}

/// A folder of a client.
#[derive(Debug, Clone, Default)]
pub struct LocalSource {
    /// The name that the client gave it.
    pub name: String,
    /// Whose folder it is. Without one, `unique` keeps builds apart.
    pub session: String,
    /// An id of this build.
    pub unique: String,
    /// Only what matches is sent.
    pub include_patterns: Vec<String>,
    /// Only these paths, and what they link to, are sent.
    pub follow_paths: Vec<String>,
    /// What is not sent.
    pub exclude_patterns: Vec<String>,
    /// Transfers with the same hint may share what was sent before.
    pub shared_key_hint: String,
    /// `none` or `metadata`: how what is there is compared with what comes.
    pub differ: String,
    /// Whether the daemon has to know `differ`.
    pub differ_required: bool,
}

impl LocalSource {
    pub(crate) fn describe(&self) -> Described {
        let mut out = Described::new(format!("local://{}", self.name), "source.local");
        if self.session.is_empty() {
            out.attr("local.unique", &self.unique, Some("source.local.unique"));
        }
        out.attr("local.session", &self.session, Some("source.local.sessionid"));
        out.list("local.includepattern", &self.include_patterns, "source.local.includepatterns");
        out.list("local.followpaths", &self.follow_paths, "source.local.followpaths");
        out.list("local.excludepatterns", &self.exclude_patterns, "source.local.excludepatterns");
        let hint = Some("source.local.sharedkeyhint");
        out.attr("local.sharedkeyhint", &self.shared_key_hint, hint);
        let required = self.differ_required.then_some("source.local.differ");
        out.attr("local.differ", &self.differ, required);
        out
    }
}

/// A file of the web.
#[derive(Debug, Clone, Default)]
pub struct HttpSource {
    /// Its address.
    pub url: String,
    /// The digest that it has to have.
    pub checksum: String,
    /// The name that it gets.
    pub filename: String,
    /// Its permissions; 0 for the usual ones.
    pub mode: u32,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// The secret with the credentials.
    pub auth_header_secret: String,
}

impl HttpSource {
    pub(crate) fn describe(&self) -> Described {
        let mut out = Described::new(self.url.clone(), "source.http");
        out.attr("http.checksum", &self.checksum, Some("source.http.checksum"));
        out.attr("http.filename", &self.filename, None);
        if self.mode != 0 {
            out.attr("http.perm", &format!("0{:o}", self.mode), Some("source.http.perm"));
        }
        for (name, id) in [("http.uid", self.uid), ("http.gid", self.gid)] {
            if id != 0 {
                // The capability is spelled like this on the wire.
                out.attr(name, &id.to_string(), Some("soruce.http.uidgid"));
            }
        }
        let secret = &self.auth_header_secret;
        out.attr("http.authheadersecret", secret, Some("source.http.auth"));
        out
    }
}

/// A git repository.
#[derive(Debug, Clone, Default)]
pub struct GitSource {
    /// Host and path, which name the repository whatever it is fetched by.
    pub host_path: String,
    /// The branch, tag or commit; empty for the default branch.
    pub reference: String,
    /// The folder of it that is wanted.
    pub subdir: String,
    /// Where it is fetched from.
    pub full_url: String,
    /// Whether `.git` stays.
    pub keep_git_dir: bool,
    /// The commit that the reference has to name.
    pub checksum: String,
    /// Whether submodules stay away.
    pub skip_submodules: bool,
    /// `checkout` or `commit`: the times that files get.
    pub mtime: String,
    /// Whether `checksum` is fetched without asking what the reference names.
    pub fetch_by_commit: bool,
    /// Whether it is fetched over ssh.
    pub ssh: bool,
    /// The keys that the host may have.
    pub known_ssh_hosts: String,
    /// The agent to use; empty for `default`.
    pub ssh_socket: String,
}

impl GitSource {
    pub(crate) fn describe(&self) -> Described {
        let mut id = format!("git://{}", self.host_path);
        if !self.reference.is_empty() || !self.subdir.is_empty() {
            id.push('#');
            id.push_str(&self.reference);
            if !self.subdir.is_empty() {
                id.push(':');
                id.push_str(&self.subdir);
            }
        }
        let mut out = Described::new(id, "source.git");
        let flag = |on: bool| if on { "true" } else { "" };
        out.attr("git.keepgitdir", flag(self.keep_git_dir), Some("source.git.keepgitdir"));
        out.attr("git.fullurl", &self.full_url, Some("source.git.fullurl"));
        out.attr("git.authtokensecret", "GIT_AUTH_TOKEN", None);
        out.attr("git.authheadersecret", "GIT_AUTH_HEADER", None);
        if self.ssh {
            let hosts = Some("source.git.knownsshhosts");
            out.attr("git.knownsshhosts", &self.known_ssh_hosts, hosts);
            out.caps.extend(hosts);
            let socket = match self.ssh_socket.as_str() {
                "" => "default",
                socket => socket,
            };
            out.attr("git.mountsshsock", socket, Some("source.git.mountsshsock"));
        }
        out.attr("git.checksum", &self.checksum, Some("source.git.checksum"));
        let skip = flag(self.skip_submodules);
        out.attr("git.skipsubmodules", skip, Some("source.git.skipsubmodules"));
        out.attr("git.mtime", &self.mtime, Some("source.git.mtime"));
        let by_commit = flag(self.fetch_by_commit);
        out.attr("git.fetchbycommit", by_commit, Some("source.git.fetchbycommit"));
        out
    }
}
