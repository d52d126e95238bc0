use std::fmt;

/// All capabilities that vertices of a [`Builder`](crate::Builder) can need; those that most of them need come first.
const NAMES: [&str; 52] = [
    "file.base",
    "exec.meta.base",
    "exec.meta.setsdefaultpath",
    "exec.mount.bind",
    "source.image",
    "source.image.resolvemode",
    "source.image.layerlimit",
    "source.image.checksum",
    "source.ocilayout",
    "source.local",
    "source.local.unique",
    "source.local.sessionid",
    "source.local.includepatterns",
    "source.local.followpaths",
    "source.local.excludepatterns",
    "source.local.sharedkeyhint",
    "source.local.differ",
    "source.http",
    "source.http.checksum",
    "source.http.perm",
    // Spelled like this on the wire.
    "soruce.http.uidgid",
    "source.http.auth",
    "source.git",
    "source.git.keepgitdir",
    "source.git.fullurl",
    "source.git.knownsshhosts",
    "source.git.mountsshsock",
    "source.git.checksum",
    "source.git.skipsubmodules",
    "source.git.mtime",
    "source.git.fetchbycommit",
    "exec.validexitcode",
    "exec.meta.ulimit",
    "exec.meta.network",
    "exec.meta.security",
    "exec.meta.proxyenv",
    "exec.meta.cdi",
    "exec.meta.linux.resources",
    "exec.mount.secret",
    "exec.secretenv",
    "exec.mount.ssh",
    "exec.mount.selector",
    "exec.mount.cache",
    "exec.mount.cache.sharing",
    "exec.mount.cache.content",
    "exec.mount.tmpfs",
    "exec.mount.tmpfs.size",
    "mergeop",
    "diffop",
    "passthroughop",
    "constraints",
    "platform",
];

/// A set of capabilities that a daemon has to have.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Caps(u64);

impl Caps {
    /// Adds one. Names that no vertex can need are left out.
    pub(crate) fn add(&mut self, name: &str) {
        let position = NAMES.iter().position(|known| *known == name);
        debug_assert!(position.is_some(), "{name} is in no table");
        if let Some(position) = position {
            self.0 |= 1 << position;
        }
    }

    /// Adds all of another set.
    pub(crate) fn extend(&mut self, more: Caps) {
        self.0 |= more.0;
    }

    /// Their names.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        NAMES
            .iter()
            .enumerate()
            .filter(move |(position, _)| self.0 >> position & 1 == 1)
            .map(|(_, name)| *name)
    }
}

impl fmt::Debug for Caps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}
