//! Cargo's packages: `Cargo.lock`, and what `cargo auditable` leaves in programs.

use crate::elf;
use crate::package::{Database, Package, tame};
use crate::purl::package_url;
use crate::root::{Root, Unread};
use serde::Deserialize;
use std::io::Read;

/// Bytes of a lock file.
const MAX_LOCK: u64 = 32 << 20;

/// Bytes of the list in a program, packed and unpacked.
const MAX_LIST: u64 = 16 << 20;

/// The section of a program that has the list (<https://github.com/rust-secure-code/cargo-auditable>).
const SECTION: &str = ".dep-v0";

#[derive(Deserialize)]
struct Lock {
    #[serde(default)]
    package: Vec<Locked>,
}

#[derive(Deserialize)]
struct Locked {
    name: String,
    version: String,
    #[serde(default)]
    source: String,
    #[serde(default)]
    dependencies: Vec<String>,
}

#[derive(Deserialize)]
struct List {
    packages: Vec<Listed>,
}

#[derive(Deserialize)]
struct Listed {
    name: String,
    version: String,
    #[serde(default)]
    dependencies: Vec<usize>,
    /// Whether it was needed only to build the program: `build`.
    #[serde(default)]
    kind: String,
}

fn package(name: &str, version: &str, source: &str, path: &str) -> Option<Package> {
    let (name, version) = (tame(name), tame(version));
    if name.is_empty() || version.is_empty() {
        return None;
    }
    // The commit is behind the `#`; a password before the host is nobody's business.
    let repository = source.strip_prefix("git+").map(without_user).unwrap_or_default();
    let vcs = if repository.is_empty() { String::new() } else { format!("git+{repository}") };
    Some(Package {
        kind: "cargo",
        url: package_url("cargo", "", &name, &version, &[("vcs_url", &vcs)]),
        evidence: [path.to_string()].into(),
        gives: vec![name.clone(), format!("{name} {version}")],
        name,
        version,
        ..Package::default()
    })
}

fn without_user(address: &str) -> String {
    let Some((scheme, rest)) = address.split_once("://") else { return address.to_string() };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    match rest.get(..end).and_then(|authority| authority.rfind('@')) {
        Some(at) => format!("{scheme}://{}", rest.get(at + 1..).unwrap_or_default()),
        None => address.to_string(),
    }
}

/// Reads a lock file.
pub(crate) fn locked(root: &Root<'_>, path: &str) -> Result<Database, Unread> {
    let Some(bytes) = root.read(path.as_bytes(), MAX_LOCK)? else { return Ok(Database::new()) };
    let lock: Lock = toml::from_slice(&bytes).map_err(|e| format!("{path}: {}", e.message()))?;
    let packages = lock.package.into_iter().filter_map(|locked| {
        let mut package = package(&locked.name, &locked.version, &locked.source, path)?;
        // `name`, `name version` or `name version (source)`.
        let name = |text: String| tame(text.split(" (").next().unwrap_or_default());
        package.needs = locked.dependencies.into_iter().map(name).collect();
        Some(package)
    });
    Ok(packages.collect())
}

/// Reads what a program was made of, if it says so.
pub(crate) fn audited(root: &Root<'_>, path: &[u8]) -> Result<Database, Unread> {
    let Some((file, size)) = root.file(path)? else { return Ok(Database::new()) };
    let shown = crate::root::shown(path);
    let Some(packed) = elf::section(&file, size, SECTION, MAX_LIST) else { return Ok(Database::new()) };
    let mut list = Vec::new();
    let unpacked = flate2::read::ZlibDecoder::new(packed.as_slice()).take(MAX_LIST).read_to_end(&mut list);
    unpacked.map_err(|e| format!("{shown}: {SECTION}: {e}"))?;
    let list: List = serde_json::from_slice(&list).map_err(|e| format!("{shown}: {SECTION}: {e}"))?;
    let id = |listed: &Listed| tame(&format!("{} {}", listed.name, listed.version));
    let ids: Vec<String> = list.packages.iter().map(id).collect();
    let packages = list.packages.iter().filter(|listed| listed.kind != "build").filter_map(|listed| {
        let mut package = package(&listed.name, &listed.version, "", &shown)?;
        package.needs = listed.dependencies.iter().filter_map(|at| ids.get(*at).cloned()).collect();
        Some(package)
    });
    Ok(packages.collect())
}
