//! Python's packages: `*.dist-info/METADATA`, `*.egg-info/PKG-INFO`, and a file `*.egg-info`.

use crate::package::{Package, inner, tame};
use crate::purl::package_url;
use crate::root::{Root, Unread};
use crate::stanzas::stanzas;

/// Bytes of what describes a package, which may have a whole manual in it.
const MAX_FILE: u64 = 16 << 20;

/// Whether a file describes a package.
pub(crate) fn describes(path: &str) -> bool {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    match name {
        "METADATA" => folder.ends_with(".dist-info"),
        "PKG-INFO" => folder.ends_with(".egg-info"),
        name => name.ends_with(".egg-info"),
    }
}

/// Reads the description of a package.
pub(crate) fn read(root: &Root<'_>, path: &str) -> Result<Option<Package>, Unread> {
    let Some(file) = root.read(path.as_bytes(), MAX_FILE)? else { return Ok(None) };
    let file = String::from_utf8_lossy(&file);
    let Some(head) = stanzas(&file).next() else { return Ok(None) };
    let (name, version) = (tame(head.get("Name")), tame(head.get("Version")));
    if name.is_empty() || version.is_empty() {
        return Ok(None);
    }
    let of_url = name.to_lowercase().replace('_', "-");
    let known = |value: &str| if value == "UNKNOWN" { String::new() } else { tame(value) };
    let license = match head.get("License-Expression") {
        "" => known(head.get("License")),
        expression => tame(expression),
    };
    let author = match (head.get("Author-email"), known(head.get("Author"))) {
        (email, author) if author.is_empty() => known(email),
        (email, author) if !email.contains('<') && email.contains('@') => {
            format!("{author} <{}>", tame(email))
        }
        (_, author) => author,
    };
    let mut package = Package {
        kind: "pypi",
        url: package_url("pypi", "", &of_url, &version, &[]),
        license,
        supplier: author,
        homepage: known(head.get("Home-page")),
        evidence: [path.to_string()].into(),
        name,
        version,
        ..Package::default()
    };
    let about = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    if about.ends_with(".dist-info")
        && let Some(list) = root.read(format!("{about}/RECORD").as_bytes(), MAX_FILE)?
    {
        let base = about.rsplit_once('/').map_or("", |(folder, _)| folder);
        let list = String::from_utf8_lossy(&list);
        // Paths from the folder that the package is in, sometimes in quotes, then a digest and a size.
        let paths = list.lines().filter_map(|line| match line.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').map(|(path, _)| path),
            None => line.split(',').next(),
        });
        let absolute =
            |path: &str| if path.starts_with('/') { inner(path) } else { inner(&format!("{base}/{path}")) };
        package.files = paths.filter(|path| !path.is_empty()).filter_map(absolute).collect();
        package.evidence.insert(format!("{about}/RECORD"));
    }
    Ok(Some(package))
}
