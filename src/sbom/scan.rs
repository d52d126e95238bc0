//! A folder looked through: every database is read, and what belongs to packages is hashed.

use crate::distribution::Distribution;
use crate::package::{Database, Package};
use crate::root::{Root, Unread, shown};
use crate::{SbomError, apk, cargo, dpkg, npm, python, rpm};
use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Read;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Packages that are listed, of 700 bytes each: a document has to stay readable for those who get it, and BuildKit reads 40 MB.
const MAX_PACKAGES: usize = 12_000;

/// Files that are listed, for the same reason: 600 bytes each, with the layer and whose they are.
const MAX_FILES: usize = 40_000;

/// Who needs whom; for the same reason as well: 160 bytes each.
const MAX_NEEDS: usize = 40_000;

/// Remarks that are told one by one.
const MAX_REMARKS: usize = 20;

/// Bytes of a file that is hashed. Larger ones are in no package.
const MAX_HASHED: u64 = 8 << 30;

/// Files that are hashed at the same time: there are steps of other builds to run.
const MAX_THREADS: usize = 4;

/// Bytes that are hashed at once.
const PIECE: usize = 256 << 10;

/// What was found in a folder.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// The packages, by their URLs.
    pub packages: Vec<Package>,
    /// The files that belong to packages or tell of them, from the root.
    pub files: BTreeMap<String, Sums>,
    /// Which packages need which, by their numbers.
    pub needed: BTreeSet<(usize, usize)>,
    /// What could not be read, and why, for people.
    pub left_out: Vec<String>,
}

/// Digests of a file, in hex.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sums {
    /// What SPDX wants of every file.
    pub sha1: String,
    /// What is good for something.
    pub sha256: String,
}

/// Looks through a folder, which is the root of what is in it: no link leads out of it, and nothing in it is run. Blocks
/// until it is done, or until `stop` is set.
///
/// # Errors
/// A folder that can't be opened, and nobody who waits any more. What can't be read below it is a remark in the result.
pub fn scan(folder: &Path, stop: &AtomicBool) -> Result<Found, SbomError> {
    let root = Root::open(folder, stop)?;
    let distribution = Distribution::of(&root);
    let mut unread: Vec<Unread> = Vec::new();
    let mut databases = vec![
        dpkg::read(&root, &distribution, &mut unread),
        apk::read(&root, &distribution, &mut unread),
        rpm::read(&root, &distribution, &mut unread),
    ];
    root.go_on()?;
    // What lies about is one database for each language: they all install into several folders.
    let (mut of_python, mut of_npm) = (Database::new(), Database::new());
    let mut told: Vec<Unread> = Vec::new();
    let mut note = |read: Result<Database, Unread>| match read {
        Ok(database) => database,
        Err(why) => {
            told.push(why);
            Database::new()
        }
    };
    let one = |read: Result<Option<Package>, Unread>| read.map(|found| found.into_iter().collect());
    let left_out = root.walk(|entry| {
        let path = shown(entry.path);
        match path.rsplit('/').next() {
            Some("Cargo.lock") => databases.push(note(cargo::locked(&root, &path))),
            Some("package-lock.json") => databases.push(note(npm::locked(&root, &path))),
            _ if npm::describes(&path) => of_npm.extend(note(one(npm::read(&root, &path)))),
            _ if python::describes(&path) => of_python.extend(note(one(python::read(&root, &path)))),
            _ if entry.executable => databases.push(note(cargo::audited(&root, entry.path))),
            _ => {}
        }
    })?;
    databases.extend([of_python, of_npm]);
    unread.extend(told);
    unread.extend(left_out);
    let mut found = merged(databases, &mut unread);
    found.hash_files(&root, &mut unread)?;
    let more = unread.len().saturating_sub(MAX_REMARKS);
    unread.truncate(MAX_REMARKS);
    found.left_out = unread.into_iter().map(|why| format!("not read: {why}")).collect();
    if more > 0 {
        found.left_out.push(format!("and {more} more"));
    }
    Ok(found)
}

/// All packages, each once, and which need which.
fn merged(databases: Vec<Database>, unread: &mut Vec<Unread>) -> Found {
    let mut by_url: BTreeMap<String, Package> = BTreeMap::new();
    let mut needs: BTreeSet<(String, String)> = BTreeSet::new();
    for database in databases {
        let mut givers: HashMap<&str, &str> = HashMap::new();
        for package in &database {
            for name in &package.gives {
                givers.entry(name).or_insert(&package.url);
            }
        }
        for package in &database {
            let needed = package.needs.iter().filter_map(|name| givers.get(name.as_str()));
            let needed = needed.filter(|url| **url != package.url);
            needs.extend(needed.map(|url| (package.url.clone(), (*url).to_string())));
        }
        for package in database {
            match by_url.get_mut(&package.url) {
                None => drop(by_url.insert(package.url.clone(), package)),
                Some(known) => {
                    known.evidence.extend(package.evidence);
                    known.files.extend(package.files);
                    for (text, other) in [
                        (&mut known.license, package.license),
                        (&mut known.supplier, package.supplier),
                        (&mut known.homepage, package.homepage),
                    ] {
                        if text.is_empty() {
                            *text = other;
                        }
                    }
                }
            }
        }
    }
    let mut packages: Vec<Package> = by_url.into_values().collect();
    if packages.len() > MAX_PACKAGES {
        unread.push(format!("{} packages beyond {MAX_PACKAGES}", packages.len() - MAX_PACKAGES));
        packages.truncate(MAX_PACKAGES);
    }
    let numbers: HashMap<&str, usize> =
        packages.iter().enumerate().map(|(number, package)| (package.url.as_str(), number)).collect();
    let number = |url: &String| numbers.get(url.as_str()).copied();
    let needed = needs.iter().filter_map(|(one, other)| Some((number(one)?, number(other)?)));
    let needed: BTreeSet<_> = needed.take(MAX_NEEDS).collect();
    if needed.len() == MAX_NEEDS {
        unread.push(format!("who needs whom beyond {MAX_NEEDS} of it"));
    }
    Found { packages, needed, ..Found::default() }
}

impl Found {
    /// Hashes the files that tell of packages, then those that belong to them.
    fn hash_files(&mut self, root: &Root<'_>, unread: &mut Vec<Unread>) -> Result<(), SbomError> {
        let telling: BTreeSet<String> = self.packages.iter().flat_map(|one| one.evidence.clone()).collect();
        let owned: BTreeSet<String> = self.packages.iter().flat_map(|one| one.files.clone()).collect();
        let mut paths: Vec<&String> = telling.iter().chain(owned.difference(&telling)).collect();
        if paths.len() > MAX_FILES {
            unread.push(format!("{} files of packages beyond {MAX_FILES}", paths.len() - MAX_FILES));
            paths.truncate(MAX_FILES);
        }
        let next = AtomicUsize::new(0);
        let take_part = || {
            let mut hashed = Vec::new();
            while let Some(path) = paths.get(next.fetch_add(1, Ordering::Relaxed)) {
                hashed.push((*path, sums(root, path)));
            }
            hashed
        };
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS);
        let hashed = std::thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(take_part)).collect();
            let mut hashed = take_part();
            // One that has panicked has hashed nothing: its files are missing then, as those that aren't there.
            hashed.extend(others.into_iter().filter_map(|other| other.join().ok()).flatten());
            hashed
        });
        let mut failed = BTreeSet::new();
        for (path, sums) in hashed {
            match sums {
                Ok(Some(sums)) => drop(self.files.insert(path.clone(), sums)),
                // What a package has installed may have been taken away, or be a folder or a link.
                Ok(None) => {}
                Err(HashError::Unread(why)) => drop(failed.insert(why)),
                Err(HashError::Stopped(why)) => return Err(why),
            }
        }
        unread.extend(failed);
        Ok(())
    }
}

enum HashError {
    Unread(Unread),
    Stopped(SbomError),
}

fn sums(root: &Root<'_>, path: &str) -> Result<Option<Sums>, HashError> {
    let Some((mut file, size)) = root.plain(path.as_bytes()).map_err(HashError::Unread)? else {
        return Ok(None);
    };
    if size > MAX_HASHED {
        return Err(HashError::Unread(format!("{path}: it has more than {MAX_HASHED} bytes")));
    }
    let (mut sha1, mut sha256) = (Context::new(&SHA1_FOR_LEGACY_USE_ONLY), Context::new(&SHA256));
    let mut piece = vec![0; PIECE];
    loop {
        root.go_on().map_err(HashError::Stopped)?;
        match file.read(&mut piece) {
            Ok(0) => break,
            Ok(read) => {
                let read = piece.get(..read).unwrap_or_default();
                sha1.update(read);
                sha256.update(read);
            }
            Err(e) => return Err(HashError::Unread(format!("{path}: {e}"))),
        }
    }
    Ok(Some(Sums { sha1: hex::encode(sha1.finish()), sha256: hex::encode(sha256.finish()) }))
}
