//! npm's packages: `package.json` of each that is installed, and `package-lock.json`.

use crate::package::{Database, Package, tame};
use crate::purl::package_url;
use crate::root::{Root, Unread};
use serde_json::{Map, Value};

/// Bytes of one package's description.
const MAX_FILE: u64 = 8 << 20;

/// Bytes of a lock file.
const MAX_LOCK: u64 = 64 << 20;

/// Locked packages in locked packages, in the older form.
const MAX_DEPTH: usize = 64;

/// Whether a file describes an installed package: `node_modules/NAME/package.json`.
pub(crate) fn describes(path: &str) -> bool {
    let mut parts = path.rsplit('/');
    let (file, name, above) = (parts.next(), parts.next(), parts.next());
    let installed = match above {
        Some("node_modules") => name.is_some_and(|name| !name.starts_with('@')),
        Some(scope) => scope.starts_with('@') && parts.next() == Some("node_modules"),
        None => false,
    };
    file == Some("package.json") && installed
}

fn package(name: &str, version: &str, facts: &Map<String, Value>, path: &str) -> Option<Package> {
    let (name, version) = (tame(name), tame(version));
    if name.is_empty() || version.is_empty() {
        return None;
    }
    let (scope, bare) = match name.split_once('/') {
        Some((scope, bare)) if scope.starts_with('@') => (scope, bare),
        _ => ("", name.as_str()),
    };
    let text = |value: Option<&Value>| match value {
        Some(Value::String(text)) => tame(text),
        // Older ones have `{"type": …}` and `{"name": …, "email": …}`.
        Some(Value::Object(old)) => {
            let one =
                |key: &str| old.get(key).and_then(Value::as_str).map(tame).filter(|text| !text.is_empty());
            match (one("type").or_else(|| one("name")), one("email")) {
                (Some(name), Some(email)) => format!("{name} <{email}>"),
                (name, _) => name.unwrap_or_default(),
            }
        }
        _ => String::new(),
    };
    let needs = facts.get("dependencies").or_else(|| facts.get("requires")).and_then(Value::as_object);
    Some(Package {
        kind: "npm",
        url: package_url("npm", scope, bare, &version, &[]),
        license: text(facts.get("license")),
        supplier: text(facts.get("author")),
        homepage: text(facts.get("homepage")),
        evidence: [path.to_string()].into(),
        gives: vec![name.clone()],
        needs: needs.into_iter().flatten().map(|(name, _)| tame(name)).collect(),
        name,
        version,
        ..Package::default()
    })
}

fn json(root: &Root<'_>, path: &str, limit: u64) -> Result<Map<String, Value>, Unread> {
    let Some(bytes) = root.read(path.as_bytes(), limit)? else { return Ok(Map::new()) };
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    serde_json::from_slice(text).map_err(|e| format!("{path}: {e}"))
}

/// Reads the description of an installed package.
pub(crate) fn read(root: &Root<'_>, path: &str) -> Result<Option<Package>, Unread> {
    let facts = json(root, path, MAX_FILE)?;
    let text = |key: &str| facts.get(key).and_then(Value::as_str).unwrap_or_default();
    Ok(package(text("name"), text("version"), &facts, path))
}

/// Reads a lock file.
pub(crate) fn locked(root: &Root<'_>, path: &str) -> Result<Database, Unread> {
    let lock = json(root, path, MAX_LOCK)?;
    let mut found = Database::new();
    if let Some(packages) = lock.get("packages").and_then(Value::as_object) {
        for (place, facts) in packages {
            // Others than those below node_modules are the project's own.
            let Some((_, name)) = place.rsplit_once("node_modules/") else { continue };
            let Some(facts) = facts.as_object() else { continue };
            let text = |key: &str| facts.get(key).and_then(Value::as_str).unwrap_or_default();
            let name = if text("name").is_empty() { name } else { text("name") };
            found.extend(package(name, text("version"), facts, path));
        }
        return Ok(found);
    }
    let mut levels = vec![(lock.get("dependencies"), 0)];
    while let Some((level, depth)) = levels.pop() {
        for (name, facts) in level.and_then(Value::as_object).into_iter().flatten() {
            let Some(facts) = facts.as_object() else { continue };
            let version = facts.get("version").and_then(Value::as_str).unwrap_or_default();
            // In this form `dependencies` are locked packages of their own; `requires` are names.
            let mut own = facts.clone();
            let inner = own.remove("dependencies");
            found.extend(package(name, version, &own, path));
            if inner.is_some() && depth < MAX_DEPTH {
                levels.push((facts.get("dependencies"), depth + 1));
            }
        }
    }
    Ok(found)
}
