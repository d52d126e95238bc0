//! What clients and frontends are told that works here. Clients send an option as soon as its
//! capability is announced, so nothing is listed before it works.

use crosskit_api::apicaps::ApiCap;

/// Operations and options of graphs (`pb` capabilities).
const GRAPH: &[&str] = &[
    "source.image",
    "source.image.resolvemode",
    "source.image.checksum",
    "source.image.layerlimit",
    "source.local",
    "source.local.unique",
    "source.local.sessionid",
    "source.local.includepatterns",
    "source.local.followpaths",
    "source.local.excludepatterns",
    "source.local.sharedkeyhint",
    "source.local.differ",
    "source.local.metadatatransfer",
    "source.git",
    "source.git.keepgitdir",
    "source.git.fullurl",
    "source.git.httpauth",
    "source.git.knownsshhosts",
    "source.git.mountsshsock",
    "source.git.subdir",
    "source.git.checksum",
    "source.git.skipsubmodules",
    "source.git.mtime",
    "source.git.fetchbycommit",
    "source.git.bundle",
    "source.git.checkoutbundle",
    "source.git.signatureverify",
    "source.http",
    "source.http.auth",
    "source.http.checksum",
    "source.http.perm",
    "source.http.header",
    "source.http.signatureverify",
    // The field spells it so.
    "soruce.http.uidgid",
    "source.imageblob",
    "source.ocilayout",
    "source.buildop.llbfilename",
    "source.policy",
    "source.policy.session",
    "exec.meta.base",
    "exec.meta.cdi",
    "exec.meta.cgroup.parent",
    "exec.meta.linux.resources",
    "exec.meta.network",
    "exec.meta.network.proxy",
    "exec.meta.proxyenv",
    "exec.meta.security",
    "exec.meta.setsdefaultpath",
    "exec.meta.ulimit",
    "exec.meta.removemountstubs.recursive",
    "exec.mount.bind",
    "exec.mount.bind.readwrite-nooutput",
    "exec.mount.cache",
    "exec.mount.cache.sharing",
    "exec.mount.selector",
    "exec.mount.tmpfs",
    "exec.mount.tmpfs.size",
    "exec.mount.secret",
    "exec.mount.ssh",
    "exec.mount.cache.content",
    "exec.cgroup",
    "exec.secretenv",
    "exec.validexitcode",
    "file.base",
    "file.rm.wildcard",
    "file.copy.includeexcludepatterns",
    "file.copy.requiredpaths",
    "file.rm.nofollowsymlink",
    "file.copy.alwaysreplaceexistingdestpaths",
    "file.copy.modestring",
    "file.symlink.create",
    "constraints",
    "platform",
    "meta.ignorecache",
    "meta.description",
    "meta.exportcache",
    "mergeop",
    "diffop",
    "passthroughop",
    "exporter.image.annotations",
    "exporter.image.attestations",
    "exporter.sourcedateepoch",
    "exporter.multiple",
    "exporter.session",
    "cache.gha",
    "cache.s3",
    "cache.azblob",
    "gc.freespacefilter",
    "history.filter",
];

/// Calls of frontends (`gateway.proto` capabilities).
const FRONTEND: &[&str] = &[
    "solve.base",
    "solve.inlinereturn",
    "resolveimage",
    "resolveimage.resolvemode",
    "readfile",
    "return",
    "returnmap",
    "readdir",
    "statfile",
    "proto.refarray",
    "reference.attestations",
    "reference.output",
    "frontend.inputs",
    "importcaches",
    "gateway.solve.metadata",
    "frontend.caps",
    "gateway.solve.evaluate",
    "gateway.evaluate",
    "gateway.exec",
    "gateway.exec.extrahosts",
    "gateway.exec.secretenv",
    "gateway.exec.signals",
    "gateway.exec.filesystem",
    "gateway.warnings",
    "source.metaresolver",
    "source.metaresolver.image.attestations",
    "source.metaresolver.http.checksumrequest",
];

/// The capabilities of graphs, as they are announced.
pub fn graph() -> Vec<ApiCap> {
    announce(GRAPH)
}

/// The capabilities of frontends, as they are announced.
pub fn frontend() -> Vec<ApiCap> {
    announce(FRONTEND)
}

/// Whether a graph may ask for a capability.
pub fn graph_has(id: &str) -> bool {
    GRAPH.contains(&id)
}

fn announce(ids: &[&str]) -> Vec<ApiCap> {
    ids.iter().map(|id| ApiCap { id: (*id).to_string(), enabled: true, ..ApiCap::default() }).collect()
}
