//! Where paths lead when symbolic links are followed inside a folder.

use crate::SessionError;
use crosskit_patterns::{Glob, clean_path};
use rustix::fd::BorrowedFd;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use std::collections::BTreeSet;

/// How many links one request may go through; more is a loop or an attack.
const MOST_LINKS: usize = 10_000;

/// The include patterns that stand for `paths`: every link on the way, and where it ends. Sorted,
/// without what lies in another of them. `.` alone if one of them is the root. A link that points
/// outside is taken to mean the same path inside.
pub(crate) fn targets(root: BorrowedFd<'_>, paths: &[String]) -> Result<Vec<String>, SessionError> {
    let mut found = BTreeSet::new();
    let mut open: Vec<String> = paths.iter().rev().cloned().collect();
    let mut steps = 0;
    while let Some(path) = open.pop() {
        steps += 1;
        if steps > MOST_LINKS {
            return Err(SessionError::Invalid(format!("too many symbolic links behind {path:?}")));
        }
        resolve(root, &path, &mut found, &mut open)?;
    }
    let mut result: Vec<String> = Vec::with_capacity(found.len());
    for path in found {
        if path == "." {
            return Ok(vec![path]);
        }
        let inside =
            result.last().is_some_and(|last| path.strip_prefix(last).is_some_and(|r| r.starts_with('/')));
        if !inside {
            result.push(path);
        }
    }
    Ok(result)
}

/// Walks along `path`. At the first link it notes it and opens a new path where it points.
fn resolve(
    root: BorrowedFd<'_>,
    path: &str,
    found: &mut BTreeSet<String>,
    open: &mut Vec<String>,
) -> Result<(), SessionError> {
    let path = rooted(path);
    if path.is_empty() {
        found.insert(".".to_string());
        return Ok(());
    }
    let mut rest = path.as_str();
    let mut current = String::new();
    while !rest.is_empty() {
        let (part, after) = rest.split_once('/').unwrap_or((rest, ""));
        if !current.is_empty() {
            current.push('/');
        }
        current.push_str(part);
        rest = after;
        let links = if has_wildcard(part) {
            links_matching(root, &current)?
        } else {
            link(root, &current)?.into_iter().collect()
        };
        if !links.is_empty() {
            if found.insert(current.clone()) {
                open.extend(links.into_iter().rev().map(|target| format!("{target}/{rest}")));
            }
            return Ok(());
        }
    }
    found.insert(current);
    Ok(())
}

/// A path without leading slashes, cleaned as if the folder were the root of everything.
fn rooted(path: &str) -> String {
    clean_path(&format!("/{path}")).trim_start_matches('/').to_string()
}

/// Where the link at `path` points, relative to the folder; none if it is no link.
fn link(root: BorrowedFd<'_>, path: &str) -> Result<Option<String>, SessionError> {
    let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
    let Some(dir_fd) = open_dir(root, dir)? else { return Ok(None) };
    let target = match rustix::fs::readlinkat(&dir_fd, name, Vec::new()) {
        Ok(target) => target.to_string_lossy().into_owned(),
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => {
            return Ok(None);
        }
        Err(err) => return Err(SessionError::io(format!("readlink {path}"))(err)),
    };
    Ok(Some(if target.starts_with('/') { rooted(&target) } else { rooted(&format!("{dir}/{target}")) }))
}

/// The same for every entry whose name matches the last part of `path`.
fn links_matching(root: BorrowedFd<'_>, path: &str) -> Result<Vec<String>, SessionError> {
    let (dir, pattern) = path.rsplit_once('/').unwrap_or(("", path));
    let Ok(glob) = Glob::new(pattern) else { return Ok(Vec::new()) };
    let Some(dir_fd) = open_dir(root, dir)? else { return Ok(Vec::new()) };
    let mut links = Vec::new();
    let listing = rustix::fs::Dir::new(dir_fd).map_err(SessionError::io(format!("readdir {dir}")))?;
    let mut names = Vec::new();
    for entry in listing {
        let entry = entry.map_err(SessionError::io(format!("readdir {dir}")))?;
        names.extend(entry.file_name().to_str().ok().filter(|name| glob.matches(name)).map(String::from));
    }
    names.sort();
    for name in names.iter().filter(|name| !matches!(name.as_str(), "." | "..")) {
        let path = if dir.is_empty() { name.clone() } else { format!("{dir}/{name}") };
        links.extend(link(root, &path)?);
    }
    Ok(links)
}

/// Opens a folder by a path that goes through no link; none if there is no such folder.
fn open_dir(root: BorrowedFd<'_>, dir: &str) -> Result<Option<rustix::fd::OwnedFd>, SessionError> {
    let dir = if dir.is_empty() { "." } else { dir };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    match rustix::fs::openat2(root, dir, flags, Mode::empty(), resolve) {
        Ok(fd) => Ok(Some(fd)),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP) => Ok(None),
        Err(err) => Err(SessionError::io(format!("open {dir}"))(err)),
    }
}

fn has_wildcard(name: &str) -> bool {
    let mut chars = name.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => {
                chars.next();
            }
            '*' | '?' | '[' => return true,
            _ => {}
        }
    }
    false
}
