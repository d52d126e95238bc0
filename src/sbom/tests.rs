use crate::{About, Found, Purpose, scan};
use proptest::prelude::*;
use serde_json::Value;
use std::io::Read as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use tempfile::TempDir;

const STATUS: &str = "Package: libc6\nStatus: install ok installed\nArchitecture: amd64\nVersion: 2.36-9+deb12u1\n\
    Source: glibc\nMaintainer: Some One <one@example.com>\nHomepage: https://example.com/libc\nDescription: x\n with\n more\n\n\
    Package: sh\nStatus: install ok installed\nArchitecture: all\nVersion: 1:2\nSource: shell (3)\nDepends: libc6 (>= 2), none | other\n\n\
    Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n";
const APK: &str = "P:musl\nV:1.2.4-r1\nA:x86_64\nL:MIT\no:musl\np:so:libc.musl-x86_64.so.1=1\nF:lib\nR:ld.so\nZ:Q1\n\n\
    P:busybox\nV:1.36\nA:x86_64\nL:GPL-2.0-only AND strange\nD:so:libc.musl-x86_64.so.1 !other\n";
const CARGO: &str = "version = 4\n[[package]]\nname = \"app\"\nversion = \"0.1.0\"\ndependencies = [\"dep 1.0.0\", \"fork\"]\n\
    [[package]]\nname = \"dep\"\nversion = \"1.0.0\"\nsource = \"registry+https://example.com/index\"\n\
    [[package]]\nname = \"fork\"\nversion = \"2.0.0\"\nsource = \"git+https://u:p@example.com/fork?rev=a#abcd\"\n";
const NPM_OLD: &str = r#"{"dependencies": {"a": {"version": "1.0.0", "requires": {"b": "*"}, "dependencies": {"b": {"version": "2.0.0"}}}}}"#;
const NPM_NEW: &str = r#"{"packages": {"": {"name": "own", "version": "9"}, "node_modules/@s/c": {"version": "3.0.0", "license": "ISC"},
    "node_modules/a/node_modules/d": {"version": "4.0.0"}}}"#;
const NPM: &str = r#"{"name": "@s/c", "version": "3.0.0", "author": {"name": "C", "email": "c@example.com"}, "dependencies": {"a": "1"}}"#;
const PYTHON: &str = "Metadata-Version: 2.1\nName: Some_Thing\nVersion: 1.0\nLicense: UNKNOWN\nLicense-Expression: MIT\n\nName: no\n";

fn put(root: &Path, path: &str, content: impl AsRef<[u8]>) {
    let path = root.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}

fn rpm_database() -> Vec<u8> {
    let mut bytes = Vec::new();
    let packed = include_bytes!("testdata/rpmdb.sqlite.gz").as_slice();
    flate2::read::GzDecoder::new(packed).read_to_end(&mut bytes).unwrap();
    bytes
}

/// One of everything.
fn full() -> TempDir {
    let folder = TempDir::new().unwrap();
    let root = folder.path();
    put(root, "usr/lib/os-release", "ID=example\nVERSION_ID=1\n");
    put(root, "var/lib/dpkg/status", STATUS);
    put(
        root,
        "var/lib/dpkg/info/libc6:amd64.list",
        "/.\n/lib\n/lib/libc.so\n/lib/link\n/gone\n/../../etc/shadow\n",
    );
    put(root, "lib/libc.so", "abc");
    symlink("libc.so", root.join("lib/link")).unwrap();
    put(root, "var/lib/dpkg/status.d/tzdata", "Package: tzdata\nVersion: 2024a\nArchitecture: all\n");
    put(root, "var/lib/dpkg/status.d/tzdata.md5sums", "900150983cd24fb0d6963f7d28e17f72  lib/libc.so\n");
    put(root, "lib/apk/db/installed", APK);
    put(root, "lib/ld.so", "ld");
    put(root, "var/lib/rpm/rpmdb.sqlite", rpm_database());
    put(root, "src/Cargo.lock", CARGO);
    put(root, "old/package-lock.json", NPM_OLD);
    put(root, "new/package-lock.json", NPM_NEW);
    put(root, "new/node_modules/@s/c/package.json", NPM);
    put(root, "new/package.json", r#"{"name": "own", "version": "9"}"#);
    put(root, "lib/python3/Some_Thing-1.0.dist-info/METADATA", PYTHON);
    put(
        root,
        "lib/python3/Some_Thing-1.0.dist-info/RECORD",
        "thing/a.py,sha256=x,1\n../../usr/x,,\n\"thing/b,c.py\",,\n",
    );
    put(root, "lib/python3/thing/a.py", "a");
    put(root, "lib/python3/old.egg-info", "Name: old\nVersion: 0.1\n");
    for (name, file) in [
        ("amd64", include_bytes!("testdata/audited-amd64").as_slice()),
        ("386", include_bytes!("testdata/audited-386")),
        ("s390x", include_bytes!("testdata/audited-s390x")),
    ] {
        let path = format!("bin/app-{name}");
        put(root, &path, file);
        std::fs::set_permissions(root.join(path), std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    folder
}

fn found(root: &Path) -> Found {
    scan(root, &AtomicBool::new(false)).unwrap()
}

fn urls(found: &Found) -> Vec<&str> {
    found.packages.iter().map(|package| package.url.as_str()).collect()
}

fn document(found: &Found) -> Value {
    let about = About { name: "sbom", purpose: Purpose::Container, created: 1, tool: "test-1" };
    serde_json::from_slice(&found.to_spdx(&about)).unwrap()
}

#[test]
fn every_database_is_read() {
    let folder = full();
    let found = found(folder.path());
    let rpm = |name: &str, more: &str| {
        let upstream = format!("{name}-1.2-3.el9.src.rpm");
        format!(
            "pkg:rpm/example/{name}@1.2-3.el9?arch=noarch&distro=example-1&epoch={more}&upstream={upstream}"
        )
    };
    let mut expected = vec![
        "pkg:apk/example/busybox@1.36?arch=x86_64&distro=example-1".to_string(),
        "pkg:apk/example/musl@1.2.4-r1?arch=x86_64&distro=example-1".into(),
        "pkg:cargo/app@0.1.0".into(),
        "pkg:cargo/dep@1.0.0".into(),
        "pkg:cargo/fork@2.0.0?vcs_url=git%2Bhttps:%2F%2Fexample.com%2Ffork%3Frev%3Da%23abcd".into(),
        "pkg:cargo/libc@0.2.150".into(),
        "pkg:deb/example/libc6@2.36-9%2Bdeb12u1?arch=amd64&distro=example-1&upstream=glibc".into(),
        "pkg:deb/example/sh@1:2?arch=all&distro=example-1&upstream=shell%403".into(),
        "pkg:deb/example/tzdata@2024a?arch=all&distro=example-1".into(),
        "pkg:npm/%40s/c@3.0.0".into(),
        "pkg:npm/a@1.0.0".into(),
        "pkg:npm/b@2.0.0".into(),
        "pkg:npm/d@4.0.0".into(),
        "pkg:pypi/old@0.1".into(),
        "pkg:pypi/some-thing@1.0".into(),
        rpm("base", "0"),
        rpm("big", "2"),
    ];
    expected.extend((1..=12).map(|number| rpm(&format!("small{number}"), "0")));
    expected.sort();
    assert_eq!(urls(&found), expected);
    assert_eq!(found.left_out, Vec::<String>::new());
    let big = found.packages.iter().find(|package| package.name == "big").unwrap();
    assert_eq!(
        (big.version.as_str(), big.files.len()),
        ("2:1.2-3.el9", 400),
        "neither its folder nor its link"
    );
    assert!(big.files.contains("usr/share/big/file-400"));
}

#[test]
fn a_document_says_what_belongs_to_what() {
    let folder = full();
    let document = document(&found(folder.path()));
    let id = |list: &str, key: &str, name: &str| {
        let found = document[list].as_array().unwrap().iter().find(|one| one[key] == name);
        found.unwrap_or_else(|| panic!("{name} in {list}"))["SPDXID"].as_str().unwrap().to_string()
    };
    let package = |name: &str| id("packages", "name", name);
    let file = |name: &str| id("files", "fileName", name);
    let said: Vec<String> = document["relationships"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| {
            let part = |key: &str| one[key].as_str().unwrap();
            format!("{} {} {}", part("spdxElementId"), part("relationshipType"), part("relatedSpdxElement"))
        })
        .collect();
    let root = "SPDXRef-DocumentRoot-sbom".to_string();
    for (one, kind, other) in [
        ("SPDXRef-DOCUMENT".to_string(), "DESCRIBES", root.clone()),
        (root, "CONTAINS", package("libc6")),
        (package("libc6"), "CONTAINS", file("lib/libc.so")),
        (package("tzdata"), "CONTAINS", file("lib/libc.so")),
        (package("libc6"), "OTHER", file("var/lib/dpkg/status")),
        (package("musl"), "CONTAINS", file("lib/ld.so")),
        (package("Some_Thing"), "CONTAINS", file("lib/python3/thing/a.py")),
        (package("libc6"), "DEPENDENCY_OF", package("sh")),
        (package("musl"), "DEPENDENCY_OF", package("busybox")),
        (package("dep"), "DEPENDENCY_OF", package("app")),
        (package("fork"), "DEPENDENCY_OF", package("app")),
        (package("libc"), "DEPENDENCY_OF", package("app")),
        (package("base"), "DEPENDENCY_OF", package("big")),
        (package("base"), "DEPENDENCY_OF", package("small7")),
        (package("b"), "DEPENDENCY_OF", package("a")),
    ] {
        let wanted = format!("{one} {kind} {other}");
        assert!(said.contains(&wanted), "{wanted} is not in {said:#?}");
    }
    let facts =
        |name: &str| document["packages"].as_array().unwrap().iter().find(|one| one["name"] == name).unwrap();
    assert_eq!(facts("libc6")["supplier"], "Organization: Some One (one@example.com)");
    // Of the digests of its files: SHA-1 of the one of "abc".
    assert_eq!(
        facts("libc6")["packageVerificationCode"]["packageVerificationCodeValue"],
        "9ef2bdeea2b1bae79b9ddb930427d0b2c880bdac"
    );
    assert_eq!(facts("Some_Thing")["licenseDeclared"], "MIT");
    let own = facts("busybox")["licenseDeclared"].as_str().unwrap();
    let info = &document["hasExtractedLicensingInfos"]
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["licenseId"] == own);
    assert_eq!(info.unwrap()["extractedText"], "GPL-2.0-only AND strange");
    let sums = &document["files"]
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["fileName"] == "lib/libc.so")
        .unwrap()["checksums"];
    assert_eq!(sums[0]["checksumValue"], "a9993e364706816aba3e25717850c26c9cd0d89d");
    assert_eq!(sums[1]["checksumValue"], "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert!(!document.to_string().contains("u:p@"));
}

#[test]
fn documents_differ_by_what_they_say_only() {
    let (one, other) = (full(), full());
    let spdx = |root: &Path, created: i64| {
        let about = About { name: "sbom", purpose: Purpose::Container, created, tool: "test-1" };
        String::from_utf8(found(root).to_spdx(&about)).unwrap()
    };
    assert_eq!(spdx(one.path(), 5), spdx(other.path(), 5));
    let namespace = |document: &str| {
        let document: Value = serde_json::from_str(document).unwrap();
        document["documentNamespace"].as_str().unwrap().to_string()
    };
    assert_eq!(spdx(one.path(), 0).matches("1970-01-01T00:00:00Z").count(), 1);
    assert_ne!(namespace(&spdx(one.path(), 5)), namespace(&spdx(other.path(), 6)));
    std::fs::write(other.path().join("lib/libc.so"), "abd").unwrap();
    assert_ne!(namespace(&spdx(one.path(), 5)), namespace(&spdx(other.path(), 5)));
}

#[test]
fn nothing_leads_out_of_the_root() {
    let (folder, outside) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let root = folder.path();
    put(outside.path(), "Cargo.lock", CARGO);
    put(outside.path(), "status", STATUS);
    std::fs::create_dir_all(root.join("var/lib/dpkg")).unwrap();
    symlink(outside.path().join("status"), root.join("var/lib/dpkg/status")).unwrap();
    symlink(outside.path(), root.join("away")).unwrap();
    symlink("/proc/self/root", root.join("magic")).unwrap();
    let found = found(root);
    assert_eq!((found.packages.len(), found.left_out.len()), (0, 0), "{found:?}");
    // Within the root a link is as good as the file, as its own programs see it.
    put(root, "elsewhere/status", STATUS);
    std::fs::remove_file(root.join("var/lib/dpkg/status")).unwrap();
    symlink("/elsewhere/status", root.join("var/lib/dpkg/status")).unwrap();
    assert_eq!(self::found(root).packages.len(), 2);
}

#[test]
fn what_is_not_read_is_told() {
    let folder = TempDir::new().unwrap();
    let root = folder.path();
    put(root, "Cargo.lock", "[[package]]\nname = 1");
    put(root, "a/package-lock.json", "{");
    put(root, "var/lib/rpm/Packages", "x");
    rustix::fs::mkfifoat(rustix::fs::CWD, root.join("a/Cargo.lock"), 0o600.into()).unwrap();
    let found = found(root);
    let told = found.left_out.join("\n");
    for part in ["Cargo.lock", "a/package-lock.json", "in the form Berkeley DB is not read"] {
        assert!(told.contains(part), "{part} in {told}");
    }
    assert_eq!(found.left_out.len(), 3, "{told}");
    let comment = document(&found)["creationInfo"]["comment"].as_str().unwrap().to_string();
    assert!(comment.contains("Berkeley DB"), "{comment}");
    assert!(matches!(scan(root, &AtomicBool::new(true)), Err(crate::SbomError::Canceled)));
}

/// The files that a scan reads something of, but for those of rpm's database's size.
const DATABASES: [&str; 11] = [
    "var/lib/dpkg/status",
    "var/lib/dpkg/info/libc6:amd64.list",
    "var/lib/dpkg/status.d/tzdata.md5sums",
    "lib/apk/db/installed",
    "var/lib/rpm/rpmdb.sqlite",
    "src/Cargo.lock",
    "new/package-lock.json",
    "lib/python3/Some_Thing-1.0.dist-info/RECORD",
    "lib/python3/Some_Thing-1.0.dist-info/METADATA",
    "bin/app-amd64",
    "bin/app-s390x",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn broken_databases_are_no_trouble(
        which in 0..DATABASES.len(),
        keep in 0.0..1.0f64,
        whole in any::<bool>(),
        changes in prop::collection::vec((0.0..1.0f64, any::<u8>()), 0..40),
        early in any::<bool>(),
    ) {
        static WHOLE: std::sync::LazyLock<TempDir> = std::sync::LazyLock::new(full);
        let folder = TempDir::new().unwrap();
        let mut bytes = std::fs::read(WHOLE.path().join(DATABASES[which])).unwrap();
        // Near the beginning is what the rest is found by.
        let span = if early { bytes.len().min(200) } else { bytes.len() };
        for (at, byte) in changes {
            let at = (at * span as f64) as usize;
            bytes[at] = byte;
        }
        if !whole {
            bytes.truncate((keep * bytes.len() as f64) as usize);
        }
        put(folder.path(), DATABASES[which], bytes);
        let path = folder.path().join(DATABASES[which]);
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let document = document(&found(folder.path()));
        prop_assert_eq!(&document["spdxVersion"], "SPDX-2.3");
    }
}
