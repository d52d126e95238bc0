//! Alpine's packages: `/lib/apk/db/installed`.

use crate::distribution::Distribution;
use crate::package::{Database, Package, inner, tame};
use crate::purl::package_url;
use crate::root::{Root, Unread};
use crate::stanzas::{Stanza, stanzas};

/// Where newer and older systems have it.
const PLACES: [&str; 2] = ["usr/lib/apk/db/installed", "lib/apk/db/installed"];

/// Bytes of a database.
const MAX_FILE: u64 = 256 << 20;

/// Reads what is installed.
pub(crate) fn read(root: &Root<'_>, distribution: &Distribution, unread: &mut Vec<Unread>) -> Database {
    for path in PLACES {
        match root.read(path.as_bytes(), MAX_FILE) {
            Ok(None) => {}
            Ok(Some(file)) => {
                let file = String::from_utf8_lossy(&file).into_owned();
                let packages = stanzas(&file).filter_map(|stanza| package(&stanza, distribution, path));
                return packages.collect();
            }
            Err(why) => unread.push(why),
        }
    }
    Database::new()
}

fn package(stanza: &Stanza<'_>, distribution: &Distribution, path: &str) -> Option<Package> {
    // Keys are letters that differ in their case.
    let get = |key: &str| stanza.lines().find(|(known, _)| *known == key).map_or("", |(_, value)| value);
    let (name, version) = (tame(get("P")), tame(get("V")));
    if name.is_empty() || version.is_empty() {
        return None;
    }
    let origin = if get("o") == name { "" } else { get("o") };
    let namespace = if distribution.id.is_empty() { "alpine" } else { &distribution.id };
    let qualifiers = [("arch", get("A")), ("distro", &distribution.qualifier()), ("upstream", origin)];
    let mut files = std::collections::BTreeSet::new();
    let mut folder = "";
    for (key, value) in stanza.lines() {
        match key {
            "F" => folder = value,
            "R" => files.extend(inner(&format!("{folder}/{value}"))),
            _ => {}
        }
    }
    // `so:libc.so.6=1`, `cmd:sh`, `a>=1`; `!a` is one that must not be there.
    let names = |list: &str| -> Vec<String> {
        let names = list.split_ascii_whitespace().filter(|name| !name.starts_with('!'));
        names.filter_map(|name| name.split(['=', '<', '>', '~']).next()).map(tame).collect()
    };
    let mut gives = vec![name.clone()];
    gives.extend(names(get("p")));
    Some(Package {
        kind: "apk",
        url: package_url("apk", namespace, &name, &version, &qualifiers),
        license: tame(get("L")),
        supplier: tame(get("m")),
        homepage: tame(get("U")),
        needs: names(get("D")),
        evidence: [path.to_string()].into(),
        name,
        version,
        files,
        gives,
    })
}
