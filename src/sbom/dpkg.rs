//! Debian's packages: `/var/lib/dpkg/status`, and `status.d` of images without dpkg itself.

use crate::distribution::Distribution;
use crate::package::{Database, Package, inner, tame};
use crate::purl::package_url;
use crate::root::{Root, Unread, shown};
use crate::stanzas::{Stanza, stanzas};

const STATUS: &str = "var/lib/dpkg/status";
const PARTS: &str = "var/lib/dpkg/status.d";
const INFO: &str = "var/lib/dpkg/info";

/// Bytes of a database. That of a machine with everything has 20 MB.
const MAX_FILE: u64 = 256 << 20;

/// Reads what is installed.
pub(crate) fn read(root: &Root<'_>, distribution: &Distribution, unread: &mut Vec<Unread>) -> Database {
    let mut found = Database::new();
    let mut load = |path: &str| match root.read(path.as_bytes(), MAX_FILE) {
        Ok(file) => file.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
        Err(why) => {
            unread.push(why);
            None
        }
    };
    if let Some(file) = load(STATUS) {
        for stanza in stanzas(&file) {
            let Some(mut package) = package(&stanza, distribution) else { continue };
            let name = stanza.get("Package");
            let lists = [format!("{name}:{}", stanza.get("Architecture")), name.to_string()];
            let list = lists.iter().find_map(|name| load(&format!("{INFO}/{name}.list")));
            package.files.extend(list.iter().flat_map(|list| list.lines()).filter_map(inner));
            package.evidence.insert(STATUS.to_string());
            found.push(package);
        }
    }
    for name in root.names(PARTS.as_bytes()) {
        let name = shown(&name);
        if name.ends_with(".md5sums") {
            continue;
        }
        let path = format!("{PARTS}/{name}");
        let Some(file) = load(&path) else { continue };
        let sums = load(&format!("{path}.md5sums"));
        for stanza in stanzas(&file) {
            let Some(mut package) = package(&stanza, distribution) else { continue };
            // A digest, two spaces, a path.
            let files = sums.iter().flat_map(|sums| sums.lines()).filter_map(|line| line.split_once(' '));
            package.files.extend(files.filter_map(|(_, path)| inner(path.trim_start())));
            package.evidence.insert(path.clone());
            found.push(package);
        }
    }
    found
}

fn package(stanza: &Stanza<'_>, distribution: &Distribution) -> Option<Package> {
    let (name, version) = (tame(stanza.get("Package")), tame(stanza.get("Version")));
    // What was removed stays in the database with its settings.
    let status = stanza.get("Status");
    if name.is_empty() || version.is_empty() || !(status.is_empty() || status.ends_with(" installed")) {
        return None;
    }
    let source = match tame(stanza.get("Source")).split_once(' ') {
        None => tame(stanza.get("Source")),
        Some((source, version)) => format!("{source}@{}", version.trim_matches(['(', ')'])),
    };
    let namespace = if distribution.id.is_empty() { "debian" } else { &distribution.id };
    let qualifiers = [
        ("arch", stanza.get("Architecture")),
        ("distro", &distribution.qualifier()),
        ("upstream", source.as_str()),
    ];
    let mut gives = vec![name.clone()];
    gives.extend(names(stanza.get("Provides")));
    let mut needs: Vec<String> = names(stanza.get("Pre-Depends")).collect();
    needs.extend(names(stanza.get("Depends")));
    Some(Package {
        kind: "deb",
        url: package_url("deb", namespace, &name, &version, &qualifiers),
        supplier: tame(stanza.get("Maintainer")),
        homepage: tame(stanza.get("Homepage")),
        name,
        version,
        gives,
        needs,
        ..Package::default()
    })
}

/// Names of a list of packages, each without its versions and architecture; all where one of several is enough.
fn names(list: &str) -> impl Iterator<Item = String> + '_ {
    list.split([',', '|']).filter_map(|one| {
        let name = one.trim().split([' ', '(', ':']).next().unwrap_or_default();
        (!name.is_empty()).then(|| tame(name))
    })
}
