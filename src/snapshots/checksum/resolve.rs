//! Finding a path in a tree of digests, symbolic links followed within its root.

use super::files::{Files, join};
use super::tree::{Entry, Found, Tree};
use crate::{Error, Result};

/// How many links a path may lead through.
const MAX_LINKS: usize = 255;

/// A place in the tree.
pub(crate) type Path = Vec<Box<[u8]>>;

/// The parts of a path, taken by its letters.
pub(crate) fn parts(path: &[u8]) -> Path {
    let mut parts = Path::new();
    for part in path.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()),
            part => parts.push(part.into()),
        }
    }
    parts
}

/// A place as text, without a slash in front.
pub(crate) fn text(path: &[Box<[u8]>]) -> Vec<u8> {
    path.iter().fold(Vec::new(), |text, name| join(&text, name))
}

/// What came of looking for a path.
pub(crate) enum Resolved {
    /// It is there, at this place.
    At(Path),
    /// It is not there.
    Missing,
    /// Nobody looked yet, and the files are not at hand.
    Unknown,
}

/// Follows a path; its last part only if wanted. `files` are for what is not known yet.
pub(crate) fn resolve(
    tree: &mut Tree,
    files: Option<&Files>,
    path: &[u8],
    follow_last: bool,
) -> Result<Resolved> {
    let mut remaining: std::collections::VecDeque<Box<[u8]>> = unclean_parts(path).collect();
    let mut at = Path::new();
    let mut links = 0;
    let mut there = true;
    while let Some(part) = remaining.pop_front() {
        if &*part == b".." {
            at.pop();
            there = tree.get(&at).is_some();
            continue;
        }
        at.push(part);
        there = match learn(tree, files, &at)? {
            Some(there) => there,
            None => return Ok(Resolved::Unknown),
        };
        let Some(Found::Leaf(Entry::Link { target, .. })) = tree.get(&at) else { continue };
        if remaining.is_empty() && !follow_last {
            break;
        }
        links += 1;
        if links > MAX_LINKS {
            return Err(Error::TooManyLinks);
        }
        let target = target.clone();
        at.pop();
        if target.starts_with(b"/") {
            at.clear();
        }
        for part in unclean_parts(&target).collect::<Vec<_>>().into_iter().rev() {
            remaining.push_front(part);
        }
        there = true;
    }
    Ok(if there { Resolved::At(at) } else { Resolved::Missing })
}

/// Parts with `..` left in, for what is in front of it may be a link.
fn unclean_parts(path: &[u8]) -> impl Iterator<Item = Box<[u8]>> {
    path.split(|b| *b == b'/').filter(|p| !matches!(*p, b"" | b".")).map(Box::from)
}

/// Makes sure that the tree knows whether something is at a place. None if it cannot.
fn learn(tree: &mut Tree, files: Option<&Files>, at: &[Box<[u8]>]) -> Result<Option<bool>> {
    if tree.get(at).is_some() {
        return Ok(Some(true));
    }
    let Some((name, above)) = at.split_last() else { return Ok(Some(true)) };
    let Some(dir) = tree.dir_mut(above) else { return Ok(Some(false)) };
    if dir.complete {
        return Ok(Some(false));
    }
    let Some(files) = files else { return Ok(None) };
    match files.look(&text(above), name)? {
        Some(entry) => {
            dir.children.insert(name.clone(), entry);
            Ok(Some(true))
        }
        None => Ok(Some(false)),
    }
}
