//! A whole tree as a tar: what the `tar` exporter gives.

use std::cmp::Ordering;
use std::collections::{HashMap, VecDeque};
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{FileType, Mode, OFlags, major, minor, openat, readlinkat};
use tokio_util::sync::CancellationToken;

use super::diff::Written;
use super::dirs::list;
use super::errors::LayerError;
use super::names::join;
use super::same::{Place, open};
use super::stat::Meta;
use super::xattrs::{self, XattrFilter};
use crate::tar::{Header, Kind, Timestamp, Writer};

/// What becomes of a file's time. Tars of trees have whole seconds, rounded as BuildKit's tar exporter does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rounding {
    /// The nearest second.
    #[default]
    Nearest,
    /// The second it lies in.
    Down,
    /// Every file gets this time, in seconds since 1970.
    Fixed(i64),
    /// Later times become this one.
    AtMost(i64),
}

/// How a tree is written.
#[derive(Clone, Debug, Default)]
pub struct TreeOptions {
    /// A folder of the archive that everything goes into, without slashes at its ends; empty for none.
    pub prefix: String,
    /// What becomes of times.
    pub times: Rounding,
    /// Which extended attributes are written.
    pub xattrs: XattrFilter,
    /// Files that are laid over the tree: each stands where its name belongs, in place of what has the same name.
    pub over: Vec<Over>,
    /// Gives the work up.
    pub cancel: Option<CancellationToken>,
}

/// A file of an archive that is not on the disk. It is root's.
#[derive(Clone, Debug, Default)]
pub struct Over {
    /// Its name in the archive, with the folder that everything goes into.
    pub name: Vec<u8>,
    /// Its permissions.
    pub mode: u32,
    /// Its time.
    pub time: Timestamp,
    /// What is in it.
    pub content: Vec<u8>,
}

impl Over {
    /// Whether it comes before a name: folders are followed by what is in them.
    fn compared_with(&self, name: &[u8]) -> Ordering {
        let walked = |byte: &u8| if *byte == b'/' { 0 } else { *byte };
        self.name.iter().map(walked).cmp(name.iter().map(walked))
    }
}

/// Adds everything below `root` to an archive, by name, folders before what is in them. The root itself is no entry. Without
/// a root, there is nothing but what is laid over it.
///
/// Blocking: meant for a thread of its own.
pub fn write_tree(
    root: Option<impl AsFd>,
    tar: &mut Writer<impl Write>,
    options: &TreeOptions,
) -> Result<Written, LayerError> {
    let over = sorted(&options.over);
    let mut tree = Tree { tar, options, over, first_names: HashMap::new(), written: Written::default() };
    if let Some(root) = root {
        let root = openat(root, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|e| LayerError::io("open folder", b"/", e))?;
        tree.folder(root.as_fd(), options.prefix.as_bytes())?;
    }
    while let Some(rest) = tree.over.pop_front() {
        tree.lay(rest)?;
    }
    Ok(tree.written)
}

fn sorted(over: &[Over]) -> VecDeque<&Over> {
    let mut all: Vec<&Over> = over.iter().collect();
    all.sort_by(|one, other| one.compared_with(&other.name));
    all.into()
}

struct Tree<'a, W> {
    tar: &'a mut Writer<W>,
    options: &'a TreeOptions,
    /// What is laid over the rest of it, in order.
    over: VecDeque<&'a Over>,
    first_names: HashMap<(u64, u64), Vec<u8>>,
    written: Written,
}

impl<W: Write> Tree<'_, W> {
    fn folder(&mut self, dir: BorrowedFd<'_>, path: &[u8]) -> Result<(), LayerError> {
        let mut names = list(dir).map_err(|e| LayerError::io("list", path, e))?;
        names.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        for (name, _) in names {
            if self.options.cancel.as_ref().is_some_and(CancellationToken::is_cancelled) {
                return Err(LayerError::Canceled);
            }
            let full = join(path, &name);
            let meta = Meta::at(dir, &name).map_err(|e| LayerError::io("look at", &full, e))?;
            if !self.lay_until(&full)? {
                self.entry(Place { dir, base: &name }, &full, &meta)?;
            }
            if meta.is_dir() {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let below = openat(dir, &name[..], flags, Mode::empty())
                    .map_err(|e| LayerError::io("open folder", &full, e))?;
                self.folder(below.as_fd(), &full)?;
            }
        }
        Ok(())
    }

    /// Adds what is laid over the tree up to a name. Whether something has that name.
    fn lay_until(&mut self, name: &[u8]) -> Result<bool, LayerError> {
        while let Some(next) = self.over.front().copied() {
            let order = next.compared_with(name);
            if order == Ordering::Greater {
                break;
            }
            self.over.pop_front();
            self.lay(next)?;
            if order == Ordering::Equal {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn lay(&mut self, Over { name, mode, time, content }: &Over) -> Result<(), LayerError> {
        self.tar.file(name, *mode, *time, content).map_err(LayerError::Write)?;
        self.written.entries += 1;
        self.written.size += content.len() as u64;
        Ok(())
    }

    fn entry(&mut self, place: Place<'_>, path: &[u8], meta: &Meta) -> Result<(), LayerError> {
        let failed = |doing| move |e: rustix::io::Errno| LayerError::io(doing, path, e);
        let kind = match meta.file_type() {
            FileType::RegularFile => Kind::File,
            FileType::Directory => Kind::Directory,
            FileType::Symlink => Kind::Symlink,
            FileType::CharacterDevice => Kind::CharDevice,
            FileType::BlockDevice => Kind::BlockDevice,
            FileType::Fifo => Kind::Fifo,
            _ => return Ok(()),
        };
        let mut header = Header::new(path, kind);
        header.mode = meta.mode();
        (header.uid, header.gid) = (meta.0.st_uid, meta.0.st_gid);
        header.mtime = self.time(meta);
        match kind {
            Kind::Directory => header.name.push(b'/'),
            Kind::File => header.size = meta.size(),
            Kind::Symlink => {
                let target = readlinkat(place.dir, place.base, Vec::new()).map_err(failed("read link"))?;
                header.link = target.into_bytes();
            }
            Kind::CharDevice | Kind::BlockDevice => {
                header.device = (major(meta.0.st_rdev), minor(meta.0.st_rdev));
            }
            _ => {}
        }
        if let Some(inode) = meta.shared_inode() {
            if let Some(first) = self.first_names.get(&(meta.0.st_dev, inode)) {
                header.kind = Kind::HardLink;
                header.link.clone_from(first);
                header.size = 0;
            } else {
                self.first_names.insert((meta.0.st_dev, inode), path.to_vec());
            }
        }
        for (name, value) in xattrs::read_at(place.dir, place.base, self.options.xattrs)
            .map_err(failed("read attributes of"))?
        {
            header.set_xattr(&name, value);
        }
        self.tar.entry(&header).map_err(LayerError::Write)?;
        self.written.entries += 1;
        if header.kind == Kind::File && header.size > 0 {
            let file = open(place).map_err(|e| LayerError::io("open", path, e))?;
            self.tar.copy_from(file).map_err(LayerError::Write)?;
            self.written.size += header.size;
        }
        Ok(())
    }

    fn time(&self, meta: &Meta) -> Timestamp {
        let time = meta.mtime();
        match self.options.times {
            Rounding::Nearest => time.rounded(),
            Rounding::Down => time.truncated(),
            Rounding::Fixed(seconds) => Timestamp::from_seconds(seconds),
            Rounding::AtMost(seconds) => time.min(Timestamp::from_seconds(seconds)).truncated(),
        }
    }
}
