//! A folder on disk as a tree.

use super::filter::{Above, Select, Selected, Verdict};
use super::modes::{FileKind, kind_of, mode_from_unix};
use super::tree::{Content, MapEntry, Tree, Visit};
use crate::SessionError;
use crosskit_api::fsutil::Stat;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, Mode, OFlags, RawDir, ResolveFlags};
use std::collections::{BTreeMap, HashMap};
use std::ffi::CString;
use std::path::{Path, PathBuf};

/// Bytes that one reading of a folder's entries takes.
const LISTING: usize = 32 << 10;

/// Attributes that only mean something on the machine they come from.
const FOREIGN_XATTRS: &str = "com.apple.";

/// A folder on disk, or what is selected of it. Nothing outside of it can be reached, whatever
/// links it contains.
pub struct Folder {
    path: PathBuf,
    root: OwnedFd,
    selected: Selected,
    map: Option<MapEntry>,
}

impl Folder {
    /// The whole folder at `path`, which may itself be a symbolic link to one.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, SessionError> {
        let path = path.into();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(&path, flags, Mode::empty())
            .map_err(SessionError::io(format!("open {}", path.display())))?;
        Ok(Self { path, root, selected: Selected::default(), map: None })
    }

    /// Only what is selected.
    pub fn select(mut self, select: &Select) -> Result<Self, SessionError> {
        self.selected = Selected::new(select, self.root.as_fd())?;
        Ok(self)
    }

    /// With every entry changed by `map`.
    pub fn map(mut self, map: MapEntry) -> Self {
        self.map = Some(map);
        self
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// An entry that was listed, in a folder that is being walked.
struct Listed {
    name: CString,
    verdict: Verdict,
    above: Above,
}

/// A walk that is going on.
struct Walk<'a, 'b> {
    folder: &'a Folder,
    visit: &'a mut Visit<'b>,
    /// First paths of files that have several names.
    linked: HashMap<(u64, u64), String>,
    /// Folders on the way here that have not been sent yet, because nothing in them was.
    unsent: Vec<Stat>,
    buffer: Vec<u8>,
}

impl Tree for Folder {
    fn walk(&self, visit: &mut Visit<'_>) -> Result<(), SessionError> {
        let mut walk = Walk {
            folder: self,
            visit,
            linked: HashMap::new(),
            unsent: Vec::new(),
            buffer: vec![0; LISTING],
        };
        let root = open_dir(self.root.as_fd(), c".")
            .map_err(SessionError::io(format!("open {}", self.path.display())))?;
        walk.dir(root.as_fd(), "", &Above::default())
    }

    fn open(&self, path: &str) -> std::io::Result<Content> {
        // A pipe that took a file's place since must not hold us up.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOFOLLOW;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let file = rustix::fs::openat2(&self.root, path, flags, Mode::empty(), resolve)?;
        Ok(Box::new(std::fs::File::from(file)))
    }
}

fn open_dir(at: BorrowedFd<'_>, name: &std::ffi::CStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    rustix::fs::openat(at, name, flags, Mode::empty())
}

impl Walk<'_, '_> {
    fn dir(&mut self, dir: BorrowedFd<'_>, path: &str, above: &Above) -> Result<(), SessionError> {
        for entry in self.list(dir, path, above)? {
            // A name was checked to be UTF-8 when it was listed.
            let name = entry.name.to_str().unwrap_or_default();
            let path = if path.is_empty() { name.to_string() } else { format!("{path}/{name}") };
            let stat = match self.stat(dir, &entry.name, &path) {
                Ok(stat) => stat,
                // Gone since it was listed.
                Err(SessionError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                    continue;
                }
                Err(err) => return Err(err),
            };
            let is_dir = kind_of(stat.mode) == FileKind::Dir;
            let unsent = self.unsent.len();
            match entry.verdict {
                Verdict::Take => {
                    if !self.send(stat)? {
                        self.linked.retain(|_, first| *first != path);
                        continue;
                    }
                }
                Verdict::Enter => self.unsent.push(stat),
                Verdict::Leave => continue,
            }
            if is_dir {
                match open_dir(dir, &entry.name) {
                    Ok(sub) => self.dir(sub.as_fd(), &path, &entry.above)?,
                    Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => {}
                    // Nobody wanted it for itself.
                    Err(rustix::io::Errno::ACCESS) if entry.verdict == Verdict::Enter => {}
                    Err(err) => return Err(SessionError::io(format!("open {path}"))(err)),
                }
                self.unsent.truncate(unsent);
            }
        }
        Ok(())
    }

    /// Sends an entry, and before it the folders above that had to wait for one.
    fn send(&mut self, mut stat: Stat) -> Result<bool, SessionError> {
        if let Some(map) = &self.folder.map
            && !map(&mut stat)
        {
            return Ok(false);
        }
        for mut waiting in self.unsent.drain(..) {
            if self.folder.map.as_ref().is_none_or(|map| map(&mut waiting)) {
                (self.visit)(waiting)?;
            }
        }
        (self.visit)(stat)?;
        Ok(true)
    }

    /// The entries of a folder that are of interest, sorted.
    fn list(&mut self, dir: BorrowedFd<'_>, path: &str, above: &Above) -> Result<Vec<Listed>, SessionError> {
        let mut names = Vec::new();
        self.buffer.reserve(LISTING);
        let mut listing = RawDir::new(dir, self.buffer.spare_capacity_mut());
        while let Some(entry) = listing.next() {
            let entry = entry.map_err(SessionError::io(format!("readdir {path}")))?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let is_dir = match entry.file_type() {
                rustix::fs::FileType::Unknown => {
                    let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW);
                    stat.is_ok_and(|s| s.st_mode & libc::S_IFMT == libc::S_IFDIR)
                }
                kind => kind == rustix::fs::FileType::Directory,
            };
            names.push((name.to_owned(), is_dir));
        }
        names.sort_unstable();
        let selected = &self.folder.selected;
        let mut listed = Vec::with_capacity(names.len());
        let mut full = path.to_string();
        for (name, is_dir) in names {
            let Ok(text) = name.to_str() else {
                return Err(SessionError::Invalid(format!(
                    "cannot send {:?}: its name is not UTF-8; rename or exclude it",
                    self.folder.path.join(path).join(name.to_string_lossy().as_ref()),
                )));
            };
            let (verdict, above) = if selected.is_everything() {
                (Verdict::Take, Above::default())
            } else {
                full.truncate(path.len());
                if !path.is_empty() {
                    full.push('/');
                }
                full.push_str(text);
                selected.judge(&full, is_dir, above)
            };
            if verdict != Verdict::Leave {
                listed.push(Listed { name, verdict, above });
            }
        }
        Ok(listed)
    }

    fn stat(&mut self, dir: BorrowedFd<'_>, name: &std::ffi::CStr, path: &str) -> Result<Stat, SessionError> {
        let doing = || format!("lstat {path}");
        let found = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|e| SessionError::io(doing())(e))?;
        let mut stat = stat_of(&found, path);
        let kind = found.st_mode & libc::S_IFMT;
        if kind == libc::S_IFLNK {
            let target =
                rustix::fs::readlinkat(dir, name, Vec::new()).map_err(|e| SessionError::io(doing())(e))?;
            stat.linkname = target.into_string().map_err(|_| {
                SessionError::Invalid(format!(
                    "cannot send link {path:?}: its target is not UTF-8; remove or exclude it"
                ))
            })?;
        } else if kind != libc::S_IFDIR && found.st_nlink > 1 {
            match self.linked.entry((found.st_dev, found.st_ino)) {
                std::collections::hash_map::Entry::Occupied(first) => {
                    stat.linkname = first.get().clone();
                    stat.size = 0;
                }
                std::collections::hash_map::Entry::Vacant(first) => {
                    first.insert(path.to_string());
                }
            }
        }
        if matches!(kind, libc::S_IFREG | libc::S_IFDIR) {
            stat.xattrs =
                xattrs(dir, name).map_err(|e| SessionError::io(format!("failed to xattr {path}"))(e))?;
        }
        Ok(stat)
    }
}

/// What the system says of a file, as it travels.
pub(crate) fn stat_of(found: &rustix::fs::Stat, path: &str) -> Stat {
    let kind = found.st_mode & libc::S_IFMT;
    let mut stat = Stat {
        path: path.to_string(),
        mode: mode_from_unix(found.st_mode),
        uid: found.st_uid,
        gid: found.st_gid,
        mod_time: found.st_mtime.saturating_mul(1_000_000_000).saturating_add(found.st_mtime_nsec as i64),
        size: if kind == libc::S_IFDIR { 0 } else { found.st_size },
        ..Stat::default()
    };
    if matches!(kind, libc::S_IFBLK | libc::S_IFCHR) {
        stat.devmajor = i64::from(rustix::fs::major(found.st_rdev));
        stat.devminor = i64::from(rustix::fs::minor(found.st_rdev));
    }
    stat
}

/// The extended attributes of a file in a folder, or of `dir` itself for an empty name. A value that cannot be read is
/// left out.
///
/// # Errors
/// What the system says against listing them.
pub fn xattrs(dir: BorrowedFd<'_>, name: &std::ffi::CStr) -> rustix::io::Result<BTreeMap<String, Vec<u8>>> {
    use rustix::fd::AsRawFd;
    let mut found = BTreeMap::new();
    let mut path = format!("/proc/self/fd/{}", dir.as_raw_fd()).into_bytes();
    // The descriptor's own path leads to the file by a link; the last one below it must not be followed.
    let itself = name.is_empty();
    if !itself {
        path.push(b'/');
        path.extend_from_slice(name.to_bytes());
    }
    let Ok(path) = CString::new(path) else { return Ok(found) };
    let mut names: Vec<u8> = Vec::new();
    let length = match itself {
        true => rustix::fs::listxattr_query(&path),
        false => rustix::fs::llistxattr_query(&path),
    };
    // Nearly all files have none, and then nothing need be allocated.
    match length {
        Ok(0) => return Ok(found),
        Ok(len) => names.resize(len + 256, 0),
        Err(rustix::io::Errno::NOTSUP | rustix::io::Errno::NOSYS) => return Ok(found),
        Err(err) => return Err(err),
    }
    let len = match itself {
        true => rustix::fs::listxattr(&path, &mut names[..])?,
        false => rustix::fs::llistxattr(&path, &mut names[..])?,
    };
    for key in names[..len].split(|b| *b == 0).filter(|k| !k.is_empty()) {
        let Ok(key) = std::str::from_utf8(key) else { continue };
        if key.starts_with(FOREIGN_XATTRS) {
            continue;
        }
        let length = match itself {
            true => rustix::fs::getxattr_query(&path, key),
            false => rustix::fs::lgetxattr_query(&path, key),
        };
        let Ok(len) = length else { continue };
        let mut value = vec![0; len];
        let got = match itself {
            true => rustix::fs::getxattr(&path, key, &mut value[..]),
            false => rustix::fs::lgetxattr(&path, key, &mut value[..]),
        };
        if let Ok(len) = got {
            value.truncate(len);
            found.insert(key.to_string(), value);
        }
    }
    Ok(found)
}
