//! Looking into a result: reading files, listing folders, asking for a file's facts. All paths
//! are resolved within the result's root, whatever its symbolic links say.

use crosskit_api::fsutil::Stat;
use crosskit_session::transfer::{mode_from_unix, xattrs};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;
use std::collections::HashMap;
use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// How much of a file one call returns, in bytes: what fits into a message.
const MAX_READ: u64 = (crosskit_api::MAX_MESSAGE - (64 << 10)) as u64;

/// When the newest file of an archive was changed, which is no more than its files say.
pub use crosskit_fileops::newest_time as archive_time;

/// Why a file can't be looked at.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The system says no: it isn't there, it is no folder …
    #[error("{call} {path}: {}", reason(source))]
    System {
        /// What was being done, as Go names it.
        call: &'static str,
        /// The path as asked for.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// Only plain files can be read.
    #[error("{0} is not a regular file")]
    NotRegular(String),
    /// It doesn't fit into a message.
    #[error("{path} has {size} bytes, more than the {MAX_READ} that one call returns; read it in ranges")]
    TooLarge {
        /// The path as asked for.
        path: String,
        /// Its size in bytes.
        size: u64,
    },
}

impl FileError {
    /// Whether the path isn't there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, FileError::System { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// The system's words without Rust's "(os error N)", as clients match on them.
fn reason(error: &io::Error) -> String {
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOENT) => "no such file or directory".to_string(),
        Some(Errno::NOTDIR) => "not a directory".to_string(),
        Some(Errno::LOOP) => "too many levels of symbolic links".to_string(),
        Some(Errno::ACCESS) => "permission denied".to_string(),
        Some(Errno::ISDIR) => "is a directory".to_string(),
        _ => error.to_string(),
    }
}

fn system(call: &'static str, path: &str) -> impl FnOnce(Errno) -> FileError {
    let path = path.to_string();
    move |errno| FileError::System { call, path, source: errno.into() }
}

fn open_in(root: &Path, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    let root = rustix::fs::open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let path = path.trim_start_matches('/');
    let path = if path.is_empty() { "." } else { path };
    openat2(
        root,
        path,
        flags | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
    )
}

/// Reads a file, or `range` (offset and length in bytes; a length of 0 reads nothing) of it.
///
/// # Errors
/// A path that isn't there or is no plain file, and more than fits into a message.
pub fn read_file(root: &Path, path: &str, range: Option<(u64, u64)>) -> Result<Vec<u8>, FileError> {
    // A named pipe would block the open, so look first.
    let found = open_in(root, path, OFlags::PATH).map_err(system("open", path))?;
    let stat = rustix::fs::fstat(&found).map_err(system("stat", path))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(FileError::NotRegular(path.to_string()));
    }
    let mut file = File::from(open_in(root, path, OFlags::RDONLY).map_err(system("open", path))?);
    let io = |source| FileError::System { call: "read", path: path.to_string(), source };
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    let (offset, length) = range.unwrap_or((0, size));
    let length = length.min(size.saturating_sub(offset));
    if length > MAX_READ {
        return Err(FileError::TooLarge { path: path.to_string(), size: length });
    }
    file.seek(SeekFrom::Start(offset)).map_err(io)?;
    let mut data = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
    file.take(length).read_to_end(&mut data).map_err(io)?;
    Ok(data)
}

/// The facts of a file; the last link of the path is not followed.
///
/// # Errors
/// A path that isn't there.
pub fn stat_file(root: &Path, path: &str) -> Result<Stat, FileError> {
    let cleaned = crosskit_llb::paths::clean(&format!("/{path}"));
    // Links within the path are followed, and so is the last one: what is asked for is what is
    // found at the path's end.
    let found = open_in(root, &cleaned, OFlags::PATH).map_err(system("lstat", path))?;
    // By the name that it has there.
    let real = rustix::fs::readlink(format!("/proc/self/fd/{}", found.as_raw_fd()), Vec::new());
    let real = real.map_err(system("lstat", path))?.to_string_lossy().into_owned();
    let name = if cleaned == "/" { "" } else { crosskit_llb::paths::base(&real) };
    stat_of(&found, c"", name, &mut Seen::new()).map_err(system("lstat", path))
}

/// The entries of a folder, by name; `pattern` keeps those that it matches.
///
/// # Errors
/// A path that isn't there or is no folder, and a pattern that is none.
pub fn read_dir(root: &Path, path: &str, pattern: &str) -> Result<Vec<Stat>, FileError> {
    let folder = open_in(root, path, OFlags::RDONLY | OFlags::DIRECTORY).map_err(system("open", path))?;
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(&folder).map_err(system("readdir", path))? {
        let entry = entry.map_err(system("readdir", path))?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let shown = std::ffi::OsStr::from_bytes(name.to_bytes()).to_string_lossy().into_owned();
        if !pattern.is_empty() && !matches_name(pattern, &shown) {
            continue;
        }
        names.push((shown, name.to_owned()));
    }
    // In this order, for of several names of one file the others tell the first.
    names.sort();
    let mut seen = Seen::new();
    names
        .into_iter()
        .map(|(shown, name)| stat_of(&folder, &name, &shown, &mut seen).map_err(system("lstat", path)))
        .collect()
}

/// Patterns as include patterns match them, on one level.
fn matches_name(pattern: &str, name: &str) -> bool {
    crosskit_patterns::Patterns::new([pattern.to_string()]).is_ok_and(|p| p.matches(name))
}

/// The first name of each file that has more than one, by its number.
type Seen = HashMap<u64, String>;

/// The facts of a file in a folder; of `folder` itself for an empty name.
fn stat_of(folder: &impl AsFd, name: &CStr, shown: &str, seen: &mut Seen) -> Result<Stat, Errno> {
    let flags = if name.is_empty() { AtFlags::EMPTY_PATH } else { AtFlags::SYMLINK_NOFOLLOW };
    let stat = rustix::fs::statat(folder, name, flags)?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    let folders = kind == FileType::Directory;
    let mut linkname = match kind {
        FileType::Symlink => rustix::fs::readlinkat(folder, name, Vec::new())?.to_string_lossy().into_owned(),
        _ => String::new(),
    };
    if !folders && stat.st_nlink > 1 {
        let first = seen.entry(stat.st_ino).or_insert_with(|| shown.to_string());
        if linkname.is_empty() && first != shown {
            linkname.clone_from(first);
        }
    }
    let device = matches!(kind, FileType::BlockDevice | FileType::CharacterDevice);
    Ok(Stat {
        path: shown.to_string(),
        mode: mode_from_unix(stat.st_mode),
        uid: stat.st_uid,
        gid: stat.st_gid,
        size: if folders { 0 } else { stat.st_size },
        mod_time: stat
            .st_mtime
            .saturating_mul(1_000_000_000)
            .saturating_add(i64::try_from(stat.st_mtime_nsec).unwrap_or(0)),
        linkname,
        devmajor: if device { i64::from(rustix::fs::major(stat.st_rdev)) } else { 0 },
        devminor: if device { i64::from(rustix::fs::minor(stat.st_rdev)) } else { 0 },
        xattrs: xattrs(folder.as_fd(), name)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        std::fs::create_dir(root.join("sub")).unwrap();
        std::fs::write(root.join("sub/a.txt"), "0123456789").unwrap();
        std::fs::write(root.join("sub/b.md"), "").unwrap();
        symlink("/etc/passwd", root.join("out")).unwrap();
        symlink("../../../../sub/a.txt", root.join("up")).unwrap();
        dir
    }

    #[test]
    fn links_never_leave_the_root() {
        let dir = tree();
        assert_eq!(read_file(dir.path(), "/up", None).unwrap(), b"0123456789");
        let missing = read_file(dir.path(), "out", None).unwrap_err();
        assert!(missing.is_not_found());
        assert_eq!(missing.to_string(), "open out: no such file or directory");
        assert_eq!(read_file(dir.path(), "../../sub/a.txt", Some((2, 3))).unwrap(), b"234");
        assert_eq!(read_file(dir.path(), "sub", None).unwrap_err().to_string(), "sub is not a regular file");
    }

    #[test]
    fn folders_are_listed_by_name_and_pattern() {
        let dir = tree();
        let names = |path: &str, pattern: &str| {
            read_dir(dir.path(), path, pattern).unwrap().into_iter().map(|s| s.path).collect::<Vec<_>>()
        };
        assert_eq!(names("/", ""), ["out", "sub", "up"]);
        assert_eq!(names("sub", "*.txt"), ["a.txt"]);
        assert!(read_dir(dir.path(), "none", "").unwrap_err().is_not_found());
        let stat = stat_file(dir.path(), "sub/a.txt").unwrap();
        assert_eq!((stat.path.as_str(), stat.size, stat.mode & 0o777), ("a.txt", 10, 0o644));
        assert_eq!(
            stat_file(dir.path(), "nix").unwrap_err().to_string(),
            "lstat nix: no such file or directory"
        );
    }

    #[test]
    fn facts_tell_extended_attributes_sizes_and_other_names() {
        let dir = tree();
        let sub = dir.path().join("sub");
        std::fs::hard_link(sub.join("a.txt"), sub.join("c.txt")).unwrap();
        symlink("a.txt", sub.join("d.txt")).unwrap();
        let set = |path: &Path, value: &[u8]| {
            rustix::fs::setxattr(path, "user.test", value, rustix::fs::XattrFlags::empty()).unwrap();
        };
        set(&sub.join("a.txt"), b"value");
        set(&sub, b"");
        let facts = |pattern: &str| -> Vec<(String, i64, String, usize)> {
            let listed = read_dir(dir.path(), "sub", pattern).unwrap().into_iter();
            listed.map(|s| (s.path, s.size, s.linkname, s.xattrs.len())).collect()
        };
        let fact = |path: &str, size, link: &str, xattrs| (path.to_string(), size, link.to_string(), xattrs);
        let (c, d) = (fact("c.txt", 10, "a.txt", 1), fact("d.txt", 5, "a.txt", 0));
        assert_eq!(facts(""), [fact("a.txt", 10, "", 1), fact("b.md", 0, "", 0), c, d]);
        // A name that was left out is none that another one may point to.
        assert_eq!(facts("[c-z].txt"), [fact("c.txt", 10, "", 1), fact("d.txt", 5, "a.txt", 0)]);
        let alone = stat_file(dir.path(), "sub/c.txt").unwrap();
        assert_eq!((alone.linkname.as_str(), &alone.xattrs["user.test"][..]), ("", &b"value"[..]));
        assert_eq!(stat_file(dir.path(), "sub").unwrap().xattrs["user.test"], b"");
    }
}
