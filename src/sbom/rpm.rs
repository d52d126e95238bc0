//! The packages of Fedora, SUSE and their kin: rpm's database, in its newest form.

use crate::distribution::Distribution;
use crate::package::{Database, Package, inner, tame};
use crate::purl::package_url;
use crate::root::{Root, Unread};
use crate::rpm_header::Header;
use crate::sqlite::{Sqlite, Value};

/// Where distributions have it.
const FOLDERS: [&str; 3] = ["usr/lib/sysimage/rpm", "var/lib/rpm", "usr/share/rpm"];

/// The older forms, by their names.
const OTHERS: [(&str, &str); 2] = [("Packages", "Berkeley DB"), ("Packages.db", "ndb")];

/// Tags of headers (rpm's `rpmtag.h`).
mod tag {
    pub(super) const NAME: u32 = 1000;
    pub(super) const VERSION: u32 = 1001;
    pub(super) const RELEASE: u32 = 1002;
    pub(super) const EPOCH: u32 = 1003;
    pub(super) const VENDOR: u32 = 1011;
    pub(super) const LICENSE: u32 = 1014;
    pub(super) const HOMEPAGE: u32 = 1020;
    pub(super) const ARCHITECTURE: u32 = 1022;
    pub(super) const FILE_MODES: u32 = 1030;
    pub(super) const SOURCE: u32 = 1044;
    pub(super) const PROVIDES: u32 = 1047;
    pub(super) const REQUIRES: u32 = 1049;
    pub(super) const FOLDER_NUMBERS: u32 = 1116;
    pub(super) const FILE_NAMES: u32 = 1117;
    pub(super) const FOLDERS: u32 = 1118;
}

/// Packages that are no packages: the keys that rpm trusts.
const KEY: &str = "gpg-pubkey";

/// Reads what is installed.
pub(crate) fn read(root: &Root<'_>, distribution: &Distribution, unread: &mut Vec<Unread>) -> Database {
    // The folder of newer systems is the old one as well, by a link.
    for folder in FOLDERS {
        let path = format!("{folder}/rpmdb.sqlite");
        match root.file(path.as_bytes()) {
            Err(why) => unread.push(why),
            Ok(Some((file, size))) => {
                let mut found = Database::new();
                let read = Sqlite::open(&file, size).and_then(|database| {
                    database.rows("Packages", |row| {
                        let header = row.iter().rev().find_map(|value| match value {
                            Value::Bytes(bytes) => Some(bytes),
                            _ => None,
                        });
                        let header = header.and_then(|bytes| Header::new(bytes));
                        found.extend(header.and_then(|header| package(&header, distribution, &path)));
                    })
                });
                if read.is_none() {
                    unread.push(format!("{path}: it is no whole SQLite database of rpm"));
                }
                if let Ok(Some((_, 1..))) = root.file(format!("{path}-wal").as_bytes()) {
                    unread.push(format!("{path}-wal: changes that are not in the database yet are not read"));
                }
                return found;
            }
            Ok(None) => {}
        }
        for (name, form) in OTHERS {
            let path = format!("{folder}/{name}");
            if let Ok(Some(_)) = root.file(path.as_bytes()) {
                unread.push(format!(
                    "{path}: a database of rpm in the form {form} is not read, so no package in it is listed; \
                     `rpmdb --rebuilddb` of a newer rpm makes rpmdb.sqlite of it"
                ));
                return Database::new();
            }
        }
    }
    Database::new()
}

fn package(header: &Header<'_>, distribution: &Distribution, path: &str) -> Option<Package> {
    let name = tame(&header.text(tag::NAME));
    let version = format!("{}-{}", header.text(tag::VERSION), header.text(tag::RELEASE));
    let version = tame(&version);
    if name.is_empty() || name == KEY || version == "-" {
        return None;
    }
    let epoch = header.numbers(tag::EPOCH).first().map(u32::to_string).unwrap_or_default();
    let source = tame(&header.text(tag::SOURCE));
    let qualifiers = [
        ("arch", &tame(&header.text(tag::ARCHITECTURE))),
        ("distro", &distribution.qualifier()),
        ("epoch", &epoch),
        ("upstream", &source),
    ];
    let qualifiers = qualifiers.map(|(key, value)| (key, value.as_str()));
    let url = package_url("rpm", &distribution.id, &name, &version, &qualifiers);
    let folders = header.texts(tag::FOLDERS);
    let names = header.texts(tag::FILE_NAMES).into_iter().zip(header.numbers(tag::FOLDER_NUMBERS));
    // Plain files only: folders are in many packages, and links have no content.
    let mut modes = header.numbers(tag::FILE_MODES).into_iter();
    let mut files = std::collections::BTreeSet::new();
    for (name, folder) in names {
        let plain = modes.next().is_none_or(|mode| mode & 0o170_000 == 0o100_000);
        if let Some(folder) = folders.get(usize::try_from(folder).ok()?).filter(|_| plain) {
            files.extend(inner(&format!("{folder}{name}")));
        }
    }
    let names = |of: u32| header.texts(of).iter().map(|name| tame(name)).collect::<Vec<_>>();
    let mut gives = vec![name.clone()];
    gives.extend(names(tag::PROVIDES));
    let version = if epoch.is_empty() { version } else { format!("{epoch}:{version}") };
    Some(Package {
        kind: "rpm",
        license: tame(&header.text(tag::LICENSE)),
        supplier: tame(&header.text(tag::VENDOR)),
        homepage: tame(&header.text(tag::HOMEPAGE)),
        needs: names(tag::REQUIRES),
        evidence: [path.to_string()].into(),
        name,
        version,
        url,
        files,
        gives,
    })
}
