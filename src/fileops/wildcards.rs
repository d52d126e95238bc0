//! Paths with wildcards.

use crate::root::{FOLDER, Root, join, names};
use crate::{Error, Result};
use crosskit_patterns::Glob;
use rustix::fs::FileType;
use rustix::io::Errno;
use std::os::fd::AsFd;

/// The real paths that a path with wildcards means, in their order; itself if it has none.
pub(crate) fn expand(root: &Root, path: &str, follow: bool) -> Result<Vec<Vec<u8>>> {
    let parts: Vec<&str> = path.split('/').filter(|p| !matches!(*p, "" | ".")).collect();
    let Some(first) = parts.iter().position(|part| has_wildcard(part)) else {
        return Ok(vec![crosskit_patterns::clean_path(path).into_bytes()]);
    };
    let wrong = |source| Error::Patterns { list: "path", patterns: vec![path.to_string()], source };
    let globs: Vec<Glob> =
        parts[first..].iter().map(|part| Glob::new(part)).collect::<Result<_, _>>().map_err(wrong)?;
    let prefix = parts[..first].join("/");
    // As for other paths, what the wildcards are in may be links; what they stand for is itself.
    let base = root.resolve(prefix.as_bytes(), follow)?;
    let mut found = vec![base];
    for glob in &globs {
        let mut next = Vec::new();
        for at in found {
            for name in list(root, &at)? {
                if glob.matches(&name) {
                    next.push(join(&at, &name));
                }
            }
        }
        found = next;
    }
    Ok(found)
}

/// The names in a folder, sorted; none in what is no folder.
fn list(root: &Root, real: &[u8]) -> Result<Vec<Vec<u8>>> {
    match root.stat(real)? {
        Some(stat) if FileType::from_raw_mode(stat.st_mode).is_dir() => {}
        Some(_) => return Ok(Vec::new()),
        None => return Err(Error::path("lstat", real, Errno::NOENT)),
    }
    let folder = root.open_raw(real, FOLDER).map_err(|e| Error::path("open", real, e))?;
    let mut names = names(folder.as_fd()).map_err(|e| Error::path("readdirent", real, e))?;
    names.sort();
    Ok(names)
}

fn has_wildcard(part: &str) -> bool {
    let mut chars = part.chars();
    while let Some(c) = chars.next() {
        match c {
            '*' | '?' | '[' => return true,
            '\\' => drop(chars.next()),
            _ => {}
        }
    }
    false
}
