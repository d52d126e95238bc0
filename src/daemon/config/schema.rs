//! Every key that `buildkitd.toml` may hold, what it takes, and what becomes of it here.

use Kind::{Bool, Int, Label, List, Size, Table, Tables, Text, Time};
use Support::{Elsewhere, Refused, Works};

/// What a key takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`.
    Bool,
    /// A whole number.
    Int,
    /// A string.
    Text,
    /// A string, or a number that is taken for one: a port by its name or number.
    Label,
    /// A list of strings.
    List,
    /// A duration: seconds as a number, or text such as `48h`.
    Time,
    /// An amount of disk: bytes as a number, or text such as `10GB` or `20%`.
    Size,
    /// A table.
    Table,
    /// A list of tables.
    Tables,
}

/// What becomes of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// It does what it says.
    Works,
    /// It has no effect, and leaving it out changes neither a result nor a protection. Why.
    Elsewhere(&'static str),
    /// It is not there yet, and going on without it would change a result or a protection. Why.
    Refused(&'static str),
}

/// One key. `*` in the path stands for any name.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Names from the top, joined by `/`.
    pub path: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// What becomes of it.
    pub support: Support,
}

const fn key(path: &'static str, kind: Kind, support: Support) -> Key {
    Key { path, kind, support }
}

const CONTAINERD: Support =
    Elsewhere("there is no containerd worker; steps run through crun or runc directly");
const DEPRECATED_LOG: Support = Works;

/// All keys of BuildKit's reference, deprecated ones included, and our own: `farm`, and `trustedRoot`.
pub const KEYS: &[Key] = &[
    key("debug", Bool, DEPRECATED_LOG),
    key("trace", Bool, DEPRECATED_LOG),
    key("root", Text, Works),
    key("insecure-entitlements", List, Works),
    key("proxyNetwork", Bool, Works),
    key("provenanceEnvDir", Text, Works),
    key("log", Table, Works),
    key("log/format", Text, Works),
    key("log/level", Text, Works),
    key("grpc", Table, Works),
    key("grpc/address", List, Works),
    key("grpc/debugAddress", Text, Elsewhere("there is no debug listener")),
    key("grpc/uid", Int, Works),
    key("grpc/gid", Int, Works),
    key("grpc/securityDescriptor", Text, Elsewhere("security descriptors are a Windows matter")),
    key("grpc/tls", Table, Works),
    key("grpc/tls/cert", Text, Works),
    key("grpc/tls/key", Text, Works),
    key("grpc/tls/ca", Text, Works),
    key("otel", Table, Works),
    key("otel/socketPath", Text, Elsewhere("steps get no trace collector yet")),
    key("cdi", Table, Works),
    key("cdi/disabled", Bool, Works),
    key("cdi/specDirs", List, Works),
    key("cdi/autoAllowed", List, Works),
    key("worker", Table, Works),
    key("worker/oci", Table, Works),
    key("worker/oci/enabled", Bool, Works),
    key("worker/oci/labels", Table, Works),
    key("worker/oci/labels/*", Text, Works),
    key("worker/oci/platforms", List, Works),
    key("worker/oci/snapshotter", Text, Works),
    key("worker/oci/rootless", Bool, Works),
    key("worker/oci/noProcessSandbox", Bool, Works),
    key("worker/oci/gc", Bool, Works),
    key("worker/oci/gckeepstorage", Size, Works),
    key("worker/oci/reservedSpace", Size, Works),
    key("worker/oci/maxUsedSpace", Size, Works),
    key("worker/oci/minFreeSpace", Size, Works),
    key("worker/oci/gcpolicy", Tables, Works),
    key("worker/oci/gcpolicy/all", Bool, Works),
    key("worker/oci/gcpolicy/filters", List, Works),
    key("worker/oci/gcpolicy/keepDuration", Time, Works),
    key("worker/oci/gcpolicy/keepBytes", Size, Works),
    key("worker/oci/gcpolicy/reservedSpace", Size, Works),
    key("worker/oci/gcpolicy/maxUsedSpace", Size, Works),
    key("worker/oci/gcpolicy/minFreeSpace", Size, Works),
    key("worker/oci/networkMode", Text, Works),
    key("worker/oci/cniConfigPath", Text, Works),
    key("worker/oci/cniBinaryPath", Text, Works),
    key("worker/oci/cniPoolSize", Int, Works),
    key("worker/oci/bridgeName", Text, Works),
    key("worker/oci/bridgeSubnet", Text, Works),
    key("worker/oci/userRemapUnsupported", Text, Refused("mapping users is not available")),
    key("worker/oci/binary", Text, Works),
    key(
        "worker/oci/proxySnapshotterPath",
        Text,
        Refused("proxy snapshotters are not available; remove the key to use overlayfs"),
    ),
    key("worker/oci/defaultCgroupParent", Text, Works),
    key("worker/oci/stargzSnapshotter", Table, Elsewhere("layers are not mounted lazily by stargz")),
    key("worker/oci/stargzSnapshotter/*", Table, Elsewhere("layers are not mounted lazily by stargz")),
    key("worker/oci/apparmor-profile", Text, Refused("AppArmor profiles are not applied yet")),
    key("worker/oci/selinux", Bool, Refused("SELinux labels are not applied yet")),
    key("worker/oci/max-parallelism", Int, Works),
    key("worker/containerd", Table, CONTAINERD),
    key(
        "worker/containerd/enabled",
        Bool,
        Refused("there is no containerd worker; use the oci worker, which is the default"),
    ),
    key("worker/containerd/*", Table, CONTAINERD),
    key("registry", Table, Works),
    key("registry/*", Table, Works),
    key("registry/*/mirrors", List, Works),
    key("registry/*/http", Bool, Works),
    key("registry/*/insecure", Bool, Works),
    key("registry/*/ca", List, Works),
    key("registry/*/keypair", Tables, Works),
    key("registry/*/keypair/key", Text, Works),
    key("registry/*/keypair/cert", Text, Works),
    key("registry/*/tlsconfigdir", List, Works),
    key("dns", Table, Works),
    key("dns/nameservers", List, Works),
    key("dns/options", List, Works),
    key("dns/searchDomains", List, Works),
    key("history", Table, Works),
    key("history/maxAge", Time, Works),
    key("history/maxEntries", Int, Works),
    key("frontend", Table, Works),
    key("frontend/dockerfile.v0", Table, Works),
    key("frontend/dockerfile.v0/enabled", Bool, Works),
    key("frontend/gateway.v0", Table, Works),
    key("frontend/gateway.v0/enabled", Bool, Works),
    key("frontend/gateway.v0/allowedRepositories", List, Works),
    key("system", Table, Works),
    key(
        "system/platformsCacheMaxAge",
        Time,
        Elsewhere(
            "what runs here is looked up again in the background when it is older than 20 s, and before a platform is refused",
        ),
    ),
    key("system/maxRegistryConcurrency", Int, Works),
    key("farm", Table, Works),
    key("farm/prefer", List, Works),
    key("farm/emulated-slots", Int, Works),
    key("farm/probe-interval", Time, Works),
    key("farm/dead-after", Time, Works),
    key("farm/on-platform-failure", Text, Works),
    key("farm/allow-partial", Bool, Works),
    key("farm/worker", Tables, Works),
    key("farm/worker/name", Text, Works),
    key("farm/worker/addr", Text, Works),
    key("farm/worker/platforms", List, Works),
    key("farm/worker/slots", Int, Works),
    key("farm/worker/tls", Table, Works),
    key("farm/worker/tls/ca", Text, Works),
    key("farm/worker/tls/cert", Text, Works),
    key("farm/worker/tls/key", Text, Works),
    key("farm/worker/tls/server-name", Text, Works),
    key("farm/worker/insecure", Bool, Works),
    key("farm/worker/allow-secret-env", Bool, Works),
    key("farm/discover", Tables, Works),
    key("farm/discover/dns-srv", Text, Works),
    key("farm/discover/kubernetes", Table, Works),
    key("farm/discover/kubernetes/namespace", Text, Works),
    key("farm/discover/kubernetes/selector", Text, Works),
    key("farm/discover/kubernetes/port", Label, Works),
    key("farm/discover/platforms", List, Works),
    key("farm/discover/slots", Int, Works),
    key("farm/discover/tls", Table, Works),
    key("farm/discover/tls/ca", Text, Works),
    key("farm/discover/tls/cert", Text, Works),
    key("farm/discover/tls/key", Text, Works),
    key("farm/discover/tls/server-name", Text, Works),
    key("farm/discover/insecure", Bool, Works),
    key("farm/discover/allow-secret-env", Bool, Works),
    key("cache", Table, Works),
    key("cache/gha", Table, Works),
    key("cache/gha/sign", Table, Works),
    key("cache/gha/sign/command", List, Works),
    key("cache/gha/verify", Table, Works),
    key("cache/gha/verify/required", Bool, Works),
    key("cache/gha/verify/trustedRoot", Text, Works),
    key("cache/gha/verify/policy", Table, Works),
    key("cache/gha/verify/policy/timestampThreshold", Int, Works),
    key("cache/gha/verify/policy/tlogThreshold", Int, Works),
    key("cache/gha/verify/policy/*", Text, Works),
];

/// Whether nothing unknown is passed over there: in our own sections, and where a slip of the pen would let something pass.
pub fn is_strict(path: &[&str]) -> bool {
    path.first() == Some(&"farm") || path.starts_with(&["cache", "gha", "verify"])
}

/// Looks a key up by its names from the top. Below a table that is taken as a whole, such as
/// `worker/containerd`, every key is known.
pub fn find(path: &[&str]) -> Option<&'static Key> {
    let exact = KEYS.iter().find(|k| matches(k.path, path));
    exact.or_else(|| {
        (1..path.len()).find_map(|cut| {
            KEYS.iter()
                .find(|k| k.path.ends_with("/*") && k.support != Works && matches(k.path, &path[..cut]))
        })
    })
}

fn matches(pattern: &str, path: &[&str]) -> bool {
    let mut wanted = pattern.split('/');
    let mut given = path.iter();
    loop {
        match (wanted.next(), given.next()) {
            (None, None) => return true,
            (Some(w), Some(g)) if w == "*" || w == *g => {}
            _ => return false,
        }
    }
}

/// The known sibling whose name is nearest, if one is near enough to be a slip.
pub fn nearest(path: &[&str]) -> Option<&'static str> {
    let (name, parent) = path.split_last()?;
    KEYS.iter()
        .filter_map(|k| {
            let mut names: Vec<&str> = k.path.split('/').collect();
            let last = names.pop().filter(|l| *l != "*")?;
            let same =
                names.len() == parent.len() && names.iter().zip(parent).all(|(a, b)| *a == "*" || a == b);
            same.then(|| (strsim::levenshtein(&last.to_lowercase(), &name.to_lowercase()), last))
        })
        .filter(|(d, last)| *d <= 1 + last.len() / 4)
        .min()
        .map(|(_, last)| last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_with_any_name_in_place_of_a_star() {
        assert_eq!(find(&["registry", "docker.io", "mirrors"]).unwrap().kind, List);
        assert_eq!(find(&["worker", "oci", "gcpolicy", "all"]).unwrap().kind, Bool);
        assert!(find(&["worker", "containerd", "runtime", "options", "x"]).is_some());
        assert!(find(&["worker", "oci", "gcc"]).is_none());
    }

    #[test]
    fn a_slip_is_told_from_another_word() {
        assert_eq!(nearest(&["registry", "x", "miror"]), Some("mirrors"));
        assert_eq!(nearest(&["worker", "oci", "max-paralelism"]), Some("max-parallelism"));
        assert_eq!(nearest(&["worker", "oci", "colour"]), None);
    }
}
