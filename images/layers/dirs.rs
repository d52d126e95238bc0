//! Folders within the root a layer is applied to: found without leaving it, made where missing, kept open.

use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use rustix::fs::{Dir, FileType, Mode, OFlags, ResolveFlags, mkdirat, openat, openat2, readlinkat, unlinkat};
use rustix::io::Errno;

use super::errors::LayerError;
use super::names::join;
use super::stat::Meta;

/// How many folders stay open: enough for a deep tree, far below the limit of descriptors.
const OPEN_DIRS: usize = 128;
/// Links followed in one path, as in containerd.
const MAX_LINKS: usize = 255;

const DIR_FLAGS: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// An open folder.
#[derive(Debug)]
pub(super) struct OpenDir {
    pub(super) fd: OwnedFd,
    /// New files take the folder's group.
    pub(super) set_gid: bool,
}

impl OpenDir {
    fn new(fd: OwnedFd) -> rustix::io::Result<Self> {
        let set_gid = Meta::of(&fd)?.0.st_mode & 0o2000 != 0;
        Ok(Self { fd, set_gid })
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The folders of one root.
pub(super) struct Dirs {
    root: Rc<OpenDir>,
    open: HashMap<Vec<u8>, Rc<OpenDir>>,
    last: Option<(Vec<u8>, Rc<OpenDir>)>,
}

impl Dirs {
    pub(super) fn new(root: OwnedFd) -> rustix::io::Result<Self> {
        Ok(Self { root: Rc::new(OpenDir::new(root)?), open: HashMap::new(), last: None })
    }

    pub(super) fn root(&self) -> &Rc<OpenDir> {
        &self.root
    }

    /// Forgets what is open: something that a path may lead through was removed or replaced.
    pub(super) fn forget(&mut self) {
        self.open.clear();
        self.last = None;
    }

    /// The folder at a clean path, links within the root followed; none if it is not there.
    pub(super) fn find(&mut self, path: &[u8]) -> Result<Option<Rc<OpenDir>>, LayerError> {
        if path.is_empty() {
            return Ok(Some(self.root.clone()));
        }
        if let Some((last, dir)) = &self.last
            && last == path
        {
            return Ok(Some(dir.clone()));
        }
        if let Some(dir) = self.open.get(path) {
            let dir = dir.clone();
            self.last = Some((path.to_vec(), dir.clone()));
            return Ok(Some(dir));
        }
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let fd = match openat2(&self.root.fd, path, DIR_FLAGS, Mode::empty(), resolve) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Ok(None),
            Err(e) => return Err(LayerError::io("open folder", path, e)),
        };
        let dir = Rc::new(OpenDir::new(fd).map_err(|e| LayerError::io("open folder", path, e))?);
        self.keep(path, &dir);
        Ok(Some(dir))
    }

    fn keep(&mut self, path: &[u8], dir: &Rc<OpenDir>) {
        if self.open.len() >= OPEN_DIRS {
            self.open.clear();
        }
        self.open.insert(path.to_vec(), dir.clone());
        self.last = Some((path.to_vec(), dir.clone()));
    }

    /// The folder at a clean path; what is missing of it is made, and `made` told each new folder and its path.
    pub(super) fn find_or_make(
        &mut self,
        path: &[u8],
        mut made: impl FnMut(&OpenDir, &[u8]) -> Result<(), LayerError>,
    ) -> Result<Rc<OpenDir>, LayerError> {
        if let Some(dir) = self.find(path)? {
            return Ok(dir);
        }
        // Part by part, with a stack in place of `..`, so that nothing can lead above the root.
        let mut todo: VecDeque<Vec<u8>> = path.split(|b| *b == b'/').map(<[u8]>::to_vec).collect();
        let mut at: Vec<(Vec<u8>, Rc<OpenDir>)> = Vec::new();
        let mut links = 0;
        while let Some(part) = todo.pop_front() {
            if part.is_empty() || part == b"." {
                continue;
            }
            if part == b".." {
                at.pop();
                continue;
            }
            let (here, dir) = at.last().map_or((&b""[..], &self.root), |(p, d)| (&p[..], d));
            let full = join(here, &part);
            let failed = |doing| {
                let full = full.clone();
                move |e: Errno| LayerError::io(doing, &full, e)
            };
            let next = match openat(dir.fd(), &part[..], DIR_FLAGS | OFlags::NOFOLLOW, Mode::empty()) {
                Ok(fd) => OpenDir::new(fd).map_err(failed("open folder"))?,
                Err(Errno::NOENT) => {
                    mkdirat(dir.fd(), &part[..], Mode::from_raw_mode(0o755))
                        .map_err(failed("create folder"))?;
                    let fd = openat(dir.fd(), &part[..], DIR_FLAGS | OFlags::NOFOLLOW, Mode::empty())
                        .map_err(failed("open folder"))?;
                    let new = OpenDir::new(fd).map_err(failed("open folder"))?;
                    made(&new, &full)?;
                    new
                }
                Err(Errno::LOOP | Errno::NOTDIR) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(failed("follow links of")(Errno::LOOP));
                    }
                    let target = readlinkat(dir.fd(), &part[..], Vec::new()).map_err(|e| {
                        // Not a link at all: a file where a folder is needed.
                        failed("use as folder")(if e == Errno::INVAL { Errno::NOTDIR } else { e })
                    })?;
                    let target = target.as_bytes();
                    if target.first() == Some(&b'/') {
                        at.clear();
                    }
                    for part in target.split(|b| *b == b'/').rev() {
                        todo.push_front(part.to_vec());
                    }
                    continue;
                }
                Err(e) => return Err(failed("open folder")(e)),
            };
            at.push((full, Rc::new(next)));
        }
        let dir = at.pop().map_or_else(|| self.root.clone(), |(_, dir)| dir);
        self.keep(path, &dir);
        Ok(dir)
    }

    /// Removes whatever a folder has by a name, with all below it.
    pub(super) fn remove(&mut self, dir: &OpenDir, base: &[u8], path: &[u8]) -> Result<(), LayerError> {
        match unlinkat(dir.fd(), base, rustix::fs::AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {
                self.forget();
                return Ok(());
            }
            Err(Errno::ISDIR | Errno::PERM) => {}
            Err(e) => return Err(LayerError::io("remove", path, e)),
        }
        self.forget();
        remove_tree(dir.fd(), base).map_err(|e| LayerError::io("remove", path, e))
    }
}

/// Removes a folder and all below it, never following a link.
fn remove_tree(parent: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<()> {
    let fd = openat(parent, name, DIR_FLAGS | OFlags::NOFOLLOW, Mode::empty())?;
    for (name, kind) in list(fd.as_fd())? {
        if kind == FileType::Directory {
            remove_tree(fd.as_fd(), &name)?;
        } else {
            unlinkat(&fd, &name[..], rustix::fs::AtFlags::empty())?;
        }
    }
    unlinkat(parent, name, rustix::fs::AtFlags::REMOVEDIR)
}

/// What a folder has, without `.` and `..`, in no order.
pub(super) fn list(dir: BorrowedFd<'_>) -> rustix::io::Result<Vec<(Vec<u8>, FileType)>> {
    let mut all = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if matches!(name, b"." | b"..") {
            continue;
        }
        let kind = match entry.file_type() {
            // Some filesystems do not say it in the listing.
            FileType::Unknown => Meta::at(dir, name)?.file_type(),
            kind => kind,
        };
        all.push((name.to_vec(), kind));
    }
    Ok(all)
}
