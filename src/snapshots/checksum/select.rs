//! What a path and its patterns select, and the digest of that.

use super::ContentQuery;
use super::files::{Files, Wanted, join};
use super::resolve::{Path, Resolved, parts, resolve, text};
use super::tree::{Dir, Entry, Found, Raw, Sum, Tree};
use crate::{Error, Result};
use crosskit_patterns::{Glob, Inherited, Patterns};
use sha2::{Digest as _, Sha256};

/// How many answers a tree remembers.
const ANSWERS: usize = 512;

/// The digest of what is selected. None if files must be looked at and are not given.
pub(crate) fn digest(
    tree: &mut Tree,
    files: Option<&Files>,
    path: &str,
    query: &ContentQuery,
) -> Result<Option<Raw>> {
    if !query.wildcard && query.include_patterns.is_empty() && query.exclude_patterns.is_empty() {
        return single(tree, files, path.as_bytes(), query.follow_links);
    }
    let key = (path.to_string(), query.clone());
    if let Some(known) = tree.answers.get(&key) {
        return Ok(Some(*known));
    }
    let answer = selection(tree, files, path, query)?;
    if let Some(answer) = answer {
        if tree.answers.len() >= ANSWERS {
            tree.answers.clear();
        }
        tree.answers.insert(key, answer);
    }
    Ok(answer)
}

/// The digest of one path with all below it.
fn single(tree: &mut Tree, files: Option<&Files>, path: &[u8], follow: bool) -> Result<Option<Raw>> {
    let place = match resolve(tree, files, path, follow)? {
        Resolved::At(place) => place,
        Resolved::Unknown => return Ok(None),
        Resolved::Missing => {
            let clean = text(&parts(path));
            return Err(Error::NotFound { path: format!("/{}", String::from_utf8_lossy(&clean)) });
        }
    };
    let known = match tree.get(&place) {
        Some(Found::Dir(dir)) => dir.digest,
        Some(Found::Leaf(entry)) => entry.leaf_digest(),
        None => None,
    };
    if known.is_some() {
        return Ok(known);
    }
    if let Some(dir) = tree.dir_mut(&place) {
        if dir.sum_up() {
            let digest = dir.digest;
            tree.set_changed();
            return Ok(digest);
        }
        let Some(files) = files else { return Ok(None) };
        let at = text(&place);
        files.list(dir, &at, true)?;
        let mut wanted = Vec::new();
        unknown_below(dir, &at, &mut wanted);
        files.hash_all(tree, wanted)?;
        let Some(dir) = tree.dir_mut(&place) else { return Ok(None) };
        dir.sum_up();
        return Ok(dir.digest);
    }
    let Some(files) = files else { return Ok(None) };
    let Some((name, above)) = place.split_last() else { return Ok(None) };
    files.hash_all(tree, vec![Wanted { dir: text(above), name: name.clone() }])?;
    Ok(match tree.get(&place) {
        Some(Found::Leaf(entry)) => entry.leaf_digest(),
        _ => None,
    })
}

/// Everything in a folder whose digest is not known, folder by folder.
fn unknown_below(dir: &Dir, at: &[u8], wanted: &mut Vec<Wanted>) {
    if dir.digest.is_some() {
        return;
    }
    if dir.header.is_none() {
        wanted.push(Wanted { dir: at.to_vec(), name: Box::default() });
    }
    for (name, entry) in &dir.children {
        if !matches!(entry, Entry::Dir(_)) && entry.leaf_digest().is_none() {
            wanted.push(Wanted { dir: at.to_vec(), name: name.clone() });
        }
    }
    for (name, entry) in &dir.children {
        if let Entry::Dir(below) = entry {
            unknown_below(below, &join(at, name), wanted);
        }
    }
}

/// Something that was come across.
struct Candidate {
    /// The path that the question uses for it, which differs from the place where links led on.
    shown: Vec<u8>,
    place: Vec<u8>,
    is_dir: bool,
    is_link: bool,
    included: Inherited,
    excluded: Inherited,
    /// The folder above it that was come across, by its number.
    parent: Option<usize>,
    selected: bool,
    follow: bool,
}

struct Walk<'a> {
    files: Option<&'a Files>,
    query: &'a ContentQuery,
    includes: Option<Patterns>,
    excludes: Option<Patterns>,
    /// The path asked about, cleaned: empty for the root, else with a slash in front.
    path: Vec<u8>,
    ends_in_slash: bool,
    glob: Option<Glob>,
    /// How many parts the path has, if no class in it could stand for a slash.
    depth: Option<usize>,
    seen: Vec<Candidate>,
    /// Numbers of what is selected, in order.
    selected: Vec<usize>,
}

fn compile(list: &'static str, patterns: &[String]) -> Result<Option<Patterns>> {
    if patterns.is_empty() {
        return Ok(None);
    }
    let wrong = |source| Error::Patterns { list, patterns: patterns.to_vec(), source };
    Patterns::new(patterns).map(Some).map_err(wrong)
}

fn selection(
    tree: &mut Tree,
    files: Option<&Files>,
    path: &str,
    query: &ContentQuery,
) -> Result<Option<Raw>> {
    let clean = text(&parts(path.as_bytes()));
    let clean = if clean.is_empty() { clean } else { [b"/", &clean[..]].concat() };
    let shown_path = String::from_utf8_lossy(&clean).into_owned();
    let mut walk = Walk {
        files,
        query,
        includes: compile("includepatterns", &query.include_patterns)?,
        excludes: compile("excludepatterns", &query.exclude_patterns)?,
        ends_in_slash: path.ends_with('/'),
        glob: (query.wildcard && !clean.is_empty()).then(|| Glob::new(&shown_path)).transpose()?,
        depth: (!clean.contains(&b'[')).then(|| slashes(&clean)),
        path: clean,
        seen: Vec::new(),
        selected: Vec::new(),
    };
    // The part of the path without wildcards is where to begin.
    let (prefix, follow) = if query.wildcard { plain_prefix(&walk.path) } else { (walk.path.clone(), false) };
    match resolve(tree, files, &prefix, follow)? {
        Resolved::Unknown => return Ok(None),
        Resolved::Missing => {}
        Resolved::At(place) => {
            let matched = (walk.glob.is_none()).then(|| prefix.clone());
            if !walk.start(tree, &place, &prefix, matched)? {
                return Ok(None);
            }
        }
    }
    for required in &query.required_paths {
        if !walk.selected.iter().any(|at| walk.seen[*at].shown.starts_with(required.as_bytes())) {
            return Err(Error::NotFound { path: required.clone() });
        }
    }
    walk.sum(tree, &prefix)
}

fn slashes(path: &[u8]) -> usize {
    path.iter().filter(|b| **b == b'/').count()
}

/// The parts in front of the first with a wildcard, and whether there is one.
fn plain_prefix(path: &[u8]) -> (Vec<u8>, bool) {
    let special = |part: &[u8]| {
        let mut bytes = part.iter();
        while let Some(byte) = bytes.next() {
            match byte {
                b'*' | b'?' | b'[' => return true,
                b'\\' => drop(bytes.next()),
                _ => {}
            }
        }
        false
    };
    let mut prefix = Vec::new();
    for part in path.split(|b| *b == b'/').filter(|p| !p.is_empty()) {
        if special(part) {
            return (prefix, true);
        }
        prefix.push(b'/');
        prefix.extend_from_slice(part);
    }
    (prefix, false)
}

impl Walk<'_> {
    /// Walks from a place. `matched` is the path below which everything is a candidate, if that is
    /// already clear. False if files are needed.
    fn start(
        &mut self,
        tree: &mut Tree,
        place: &Path,
        shown: &[u8],
        matched: Option<Vec<u8>>,
    ) -> Result<bool> {
        let at = text(place);
        match tree.dir_mut(place) {
            Some(dir) => self.folder(dir, at, shown.to_vec(), None, matched),
            None => {
                let is_link = matches!(tree.get(place), Some(Found::Leaf(Entry::Link { .. })));
                self.candidate(at, shown.to_vec(), false, is_link, None, matched);
                Ok(true)
            }
        }
    }

    fn folder(
        &mut self,
        dir: &mut Dir,
        place: Vec<u8>,
        shown: Vec<u8>,
        parent: Option<usize>,
        matched: Option<Vec<u8>>,
    ) -> Result<bool> {
        let (number, matched) = self.candidate(place.clone(), shown.clone(), true, false, parent, matched);
        // Where nothing matched yet, nothing deeper than the path itself can.
        if self.glob.is_some()
            && matched.is_none()
            && self.depth.is_some_and(|depth| slashes(&shown) >= depth)
        {
            return Ok(true);
        }
        if !dir.complete {
            match self.files {
                Some(files) => files.list(dir, &place, false)?,
                None => return Ok(false),
            }
        }
        for (name, entry) in &mut dir.children {
            let (place, shown) = (join(&place, name), [&shown[..], b"/", name].concat());
            match entry {
                Entry::Dir(below) => {
                    if !self.folder(below, place, shown, number, matched.clone())? {
                        return Ok(false);
                    }
                }
                other => {
                    let is_link = matches!(other, Entry::Link { .. });
                    self.candidate(place, shown, false, is_link, number, matched.clone());
                }
            }
        }
        Ok(true)
    }

    /// Decides about one entry. Returns its number, by which its own entries refer to it, if it is
    /// a folder that counts, and the path that everything below it is seen from.
    fn candidate(
        &mut self,
        place: Vec<u8>,
        shown: Vec<u8>,
        is_dir: bool,
        is_link: bool,
        parent: Option<usize>,
        matched: Option<Vec<u8>>,
    ) -> (Option<usize>, Option<Vec<u8>>) {
        // The folder asked about, with a slash behind it, means what is in it and not itself.
        if is_dir && self.ends_in_slash && shown == self.path {
            let base = matched.or_else(|| self.base(&shown));
            return (None, base);
        }
        let Some(base) = matched.or_else(|| self.base(&shown)) else { return (None, None) };
        let relative = shown.get(base.len() + 1..).unwrap_or_default().to_vec();
        let mut candidate = Candidate {
            place,
            is_dir,
            is_link,
            included: Inherited::default(),
            excluded: Inherited::default(),
            parent,
            selected: false,
            follow: parent.is_none() && self.query.follow_links,
            shown,
        };
        let selected = self.passes(&relative, &mut candidate);
        let number = self.seen.len();
        if selected {
            self.select_above(parent);
            candidate.selected = true;
            self.selected.push(number);
        }
        if selected || is_dir {
            self.seen.push(candidate);
        }
        (is_dir.then_some(number), Some(base))
    }

    /// Whether the path with its wildcards means this one.
    fn base(&self, shown: &[u8]) -> Option<Vec<u8>> {
        match &self.glob {
            Some(glob) => glob.matches(shown).then(|| shown.to_vec()),
            None => Some(self.path.clone()),
        }
    }

    fn passes(&self, relative: &[u8], candidate: &mut Candidate) -> bool {
        let parent = candidate.parent.map(|at| &self.seen[at]);
        let nothing = Inherited::default();
        if let Some(includes) = &self.includes {
            let (hit, inherited) =
                includes.matches_within(relative, parent.map_or(&nothing, |p| &p.included));
            candidate.included = inherited;
            if !hit {
                return false;
            }
        }
        if let Some(excludes) = &self.excludes {
            let (hit, inherited) =
                excludes.matches_within(relative, parent.map_or(&nothing, |p| &p.excluded));
            candidate.excluded = inherited;
            if hit {
                return false;
            }
        }
        true
    }

    /// The folders above something selected count as well.
    fn select_above(&mut self, parent: Option<usize>) {
        let mut above = Vec::new();
        let mut at = parent;
        while let Some(number) = at {
            if !self.seen[number].selected {
                above.push(number);
            }
            at = self.seen[number].parent;
        }
        for number in above.into_iter().rev() {
            self.seen[number].selected = true;
            self.selected.push(number);
        }
    }

    /// The digest of the selection.
    fn sum(&self, tree: &mut Tree, prefix: &[u8]) -> Result<Option<Raw>> {
        let selected: Vec<&Candidate> = self.selected.iter().map(|at| &self.seen[*at]).collect();
        let mut wanted = Vec::new();
        for one in &selected {
            if !(one.is_link && one.follow) && own_digest(tree, one).is_none() {
                let (dir, name) = match one.place.iter().rposition(|b| *b == b'/') {
                    _ if one.is_dir => (&one.place[..], &[][..]),
                    Some(at) => (&one.place[..at], &one.place[at + 1..]),
                    None => (&[][..], &one.place[..]),
                };
                wanted.push(Wanted { dir: dir.to_vec(), name: name.into() });
            }
        }
        if !wanted.is_empty() {
            let Some(files) = self.files else { return Ok(None) };
            files.hash_all(tree, wanted)?;
        }
        let mut digests = Vec::with_capacity(selected.len());
        for one in &selected {
            let digest = match one.is_link && one.follow {
                true => single(tree, self.files, &one.shown, true)?,
                false => own_digest(tree, one),
            };
            let Some(digest) = digest else { return Ok(None) };
            digests.push(digest);
        }
        match (&selected[..], &digests[..]) {
            ([], _) => return Ok(Some(Sha256::digest([]).into())),
            ([only], [digest]) if base_name(&only.shown) == base_name(&self.path) => {
                return Ok(Some(*digest));
            }
            _ => {}
        }
        let mut sum = Sum::default();
        for (one, digest) in selected.iter().zip(&digests) {
            let relative = one.shown.strip_prefix(prefix).unwrap_or(&one.shown);
            let key: Vec<u8> = relative.iter().map(|b| if *b == b'/' { 0 } else { *b }).collect();
            sum.add(if key.is_empty() { b"\0" } else { &key }, digest);
        }
        Ok(Some(sum.finish()))
    }
}

/// The digest of an entry itself, which for a folder is without what is in it.
fn own_digest(tree: &Tree, one: &Candidate) -> Option<Raw> {
    match tree.get(&parts(&one.place))? {
        Found::Dir(dir) => dir.header,
        Found::Leaf(entry) => entry.leaf_digest(),
    }
}

fn base_name(path: &[u8]) -> &[u8] {
    path.rsplit(|b| *b == b'/').next().unwrap_or_default()
}
