//! `/etc/hosts` of a container.

use std::fmt::Write;

use crate::{DEFAULT_HOSTNAME, ExtraHost};

/// What the file says: this container's name, then the hosts that the step adds.
pub(crate) fn contents(hostname: &str, extra: &[ExtraHost]) -> String {
    let hostname = if hostname.is_empty() { DEFAULT_HOSTNAME } else { hostname };
    let mut text = format!("127.0.0.1\tlocalhost {hostname}\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    for host in extra {
        let _ = writeln!(text, "{}\t{}", host.ip, host.host);
    }
    text
}

/// Whether every container that asks for the same can share one file: nothing particular is asked for.
pub(crate) fn is_common(hostname: &str, extra: &[ExtraHost]) -> bool {
    (hostname.is_empty() || hostname == DEFAULT_HOSTNAME) && extra.is_empty()
}
