//! What has to change: the entries that are sent, laid beside those that are there.

use super::changes::{Change, ChangeKind, ChangeSink};
use super::existing::{Links, names, open_dir, remove};
use super::make;
use super::modes::{FileKind, kind_of};
use super::order::Order;
use super::write::{Target, Wanted};
use crate::SessionError;
use crosskit_api::fsutil::Stat;
use rustix::fd::{AsFd, OwnedFd};
use std::collections::{HashSet, VecDeque};
use std::ffi::CString;
use std::sync::Arc;

/// When a file that is there counts as the one that is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Differ {
    /// Same size, time of modification, mode, owner, device and link target.
    #[default]
    Metadata,
    /// Never: every file is transferred.
    None,
}

/// Changes entries before they are compared and made.
pub type Adapt = Arc<dyn Fn(&mut Stat) + Send + Sync>;

/// Decides about a path.
pub type Pick = Arc<dyn Fn(&str, &Stat) -> bool + Send + Sync>;

/// What a planner is given.
pub(crate) struct Rules {
    pub(crate) differ: Differ,
    /// What is there and not sent stays.
    pub(crate) merge: bool,
    pub(crate) map: Option<Adapt>,
    pub(crate) sink: Option<Arc<dyn ChangeSink>>,
    /// Only what this selects is received; of the rest, the metadata is kept.
    pub(crate) only: Option<Pick>,
}

/// A folder that the walk is in.
struct Level {
    path: String,
    /// Opened when first needed.
    dir: Option<OwnedFd>,
    /// Names that are there and have not been passed yet.
    existing: VecDeque<CString>,
    /// How it has to be in the end. None for the root, which is not sent.
    stat: Option<Stat>,
    /// Whether it is not so already, or will not be: a change inside changes its time.
    dirty: bool,
}

/// Goes along with the sender's walk and with what is there at the same time.
pub(crate) struct Planner {
    root: Arc<OwnedFd>,
    rules: Rules,
    order: Order,
    levels: Vec<Level>,
    /// Files a hard link may point to.
    files: HashSet<String>,
    links: Links,
    /// Files that change; hard links to them change, too.
    changed: HashSet<String>,
    wanted: Arc<Wanted>,
    request: Box<dyn FnMut(u32) + Send>,
    requested: u64,
    /// Folders on the way that are only made if something in them is selected.
    waiting: Vec<(u32, Stat)>,
    metadata: Vec<u8>,
    last: make::Last,
}

/// Where the metadata of what was not received is kept, relative to the root.
pub(crate) const METADATA: &str = ".fsutil-metadata";

impl Planner {
    pub(crate) fn new(
        root: Arc<OwnedFd>,
        rules: Rules,
        wanted: Arc<Wanted>,
        request: Box<dyn FnMut(u32) + Send>,
    ) -> Result<Self, SessionError> {
        let existing =
            names(open_dir(root.as_fd(), "").map_err(SessionError::io("open destination"))?.as_fd(), ".")?;
        let level = Level { path: String::new(), dir: None, existing, stat: None, dirty: false };
        Ok(Self {
            root,
            rules,
            order: Order::default(),
            levels: vec![level],
            files: HashSet::new(),
            links: Links::default(),
            changed: HashSet::new(),
            wanted,
            request,
            requested: 0,
            waiting: Vec::new(),
            metadata: Vec::new(),
            last: make::Last::default(),
        })
    }

    /// Takes the entry with number `id`.
    pub(crate) fn entry(&mut self, id: u32, stat: Stat) -> Result<(), SessionError> {
        let kind = kind_of(stat.mode);
        self.order.next(&stat.path, kind == FileKind::Dir)?;
        if !matches!(kind, FileKind::Dir | FileKind::Symlink) {
            if stat.linkname.is_empty() {
                self.files.insert(stat.path.clone());
            } else if !self.files.contains(&stat.linkname) {
                return Err(SessionError::Protocol(format!(
                    "invalid link {} to unknown path: {:?}",
                    stat.path, stat.linkname
                )));
            }
        }
        let Some(only) = self.rules.only.clone() else { return self.place(id, stat) };
        if stat.path == METADATA {
            return Ok(());
        }
        make::frame(&mut self.metadata, &stat);
        let within = |dir: &Stat| stat.path.strip_prefix(&dir.path).is_some_and(|rest| rest.starts_with('/'));
        while self.waiting.last().is_some_and(|(_, dir)| !within(dir)) {
            self.waiting.pop();
        }
        if only(&stat.path, &stat) {
            for (id, dir) in std::mem::take(&mut self.waiting) {
                self.place(id, dir)?;
            }
            self.place(id, stat)?;
        } else if kind == FileKind::Dir {
            self.waiting.push((id, stat));
        }
        Ok(())
    }

    /// The walk is over. Returns how many files were asked for, and what is left to do when they
    /// have arrived.
    pub(crate) fn finish(mut self) -> Result<(u64, make::Last), SessionError> {
        while !self.levels.is_empty() {
            self.leave()?;
        }
        if self.rules.only.is_some() {
            self.last.metadata = Some(self.metadata);
        }
        Ok((self.requested, self.last))
    }

    fn place(&mut self, id: u32, original: Stat) -> Result<(), SessionError> {
        let depth = original.path.bytes().filter(|b| *b == b'/').count();
        while self.levels.len() > depth + 1 {
            self.leave()?;
        }
        let mut stat = original.clone();
        if let Some(map) = &self.rules.map {
            map(&mut stat);
        }
        let name = stat.path.rsplit('/').next().unwrap_or_default();
        let name = CString::new(name).map_err(|_| SessionError::Protocol("a name contains NUL".into()))?;
        self.pass(Some(&name))?;
        self.level()?;
        let level = self.levels.last_mut().expect("the root is left last");
        let there = match level.existing.front() == Some(&name) {
            true => {
                level.existing.pop_front();
                let dir = level.dir.as_ref().expect("opened with its entries");
                Some(self.links.stat(dir.as_fd(), &name, &stat.path)?)
            }
            false => None,
        };
        let kind = kind_of(stat.mode);
        if let Some(there) = &there
            && self.same(there, &stat)
        {
            if kind == FileKind::Dir {
                let dirty = there.mod_time != stat.mod_time;
                self.enter(stat, dirty, false)?;
            }
            return Ok(());
        }
        self.changed.insert(stat.path.clone());
        self.levels.last_mut().expect("the root is left last").dirty = true;
        let was_dir = there.as_ref().is_some_and(|t| kind_of(t.mode) == FileKind::Dir);
        let mut replaces = there.is_some();
        if replaces && was_dir != (kind == FileKind::Dir) {
            let dir = self.levels.last().and_then(|l| l.dir.as_ref()).expect("opened with its entries");
            remove(dir.as_fd(), &name)
                .map_err(SessionError::io(format!("failed to remove {}", stat.path)))?;
            replaces = false;
        }
        let notice = match kind {
            FileKind::File if stat.linkname.is_empty() => {
                let mapped = self.rules.map.is_some() && stat != original;
                let path = stat.path.clone();
                self.wanted.insert(id, Target { path, stat, original: mapped.then_some(original), replaces });
                (self.request)(id);
                self.requested += 1;
                return Ok(());
            }
            FileKind::Dir => {
                let fresh = make::dir(self.root.as_fd(), &stat, replaces)?;
                self.tell(if fresh { ChangeKind::Add } else { ChangeKind::Modify }, &original);
                return self.enter(stat, true, fresh);
            }
            FileKind::Symlink => make::symlink(self.root.as_fd(), &stat, replaces),
            // The file that it names may still be on its way.
            _ if !stat.linkname.is_empty() => {
                self.last.links.push(make::Link {
                    path: stat.path,
                    target: stat.linkname,
                    replaces,
                    original,
                });
                return Ok(());
            }
            FileKind::Fifo | FileKind::CharDevice | FileKind::BlockDevice => {
                make::special(self.root.as_fd(), &stat, replaces)
            }
            _ => Err(SessionError::Protocol(format!("{}: cannot receive a file of this type", stat.path))),
        };
        notice?;
        self.tell(if there.is_some() { ChangeKind::Modify } else { ChangeKind::Add }, &original);
        Ok(())
    }

    fn same(&self, there: &Stat, sent: &Stat) -> bool {
        let is_dir = kind_of(sent.mode) == FileKind::Dir;
        self.rules.differ == Differ::Metadata
            && !self.rules.merge
            && (is_dir || there.size == sent.size && there.mod_time == sent.mod_time)
            && (there.mode, there.uid, there.gid) == (sent.mode, sent.uid, sent.gid)
            && (there.devmajor, there.devminor) == (sent.devmajor, sent.devminor)
            && there.linkname == sent.linkname
            && (sent.linkname.is_empty() || !self.changed.contains(&sent.linkname))
    }

    fn tell(&self, kind: ChangeKind, stat: &Stat) {
        if let Some(sink) = &self.rules.sink {
            let digest = Some(sink.checksum(stat).finish());
            sink.changed(Change { kind, path: &stat.path, stat: Some(stat), digest });
        }
    }

    /// The current folder, open if it has entries that were there before.
    fn level(&mut self) -> Result<&mut Level, SessionError> {
        let level = self.levels.last_mut().expect("the root is left last");
        if level.dir.is_none() && !level.existing.is_empty() {
            let dir = open_dir(self.root.as_fd(), &level.path);
            level.dir = Some(dir.map_err(SessionError::io(format!("open {}", level.path)))?);
        }
        Ok(level)
    }

    /// Removes what is there in front of `name`, which was not sent.
    fn pass(&mut self, name: Option<&CString>) -> Result<(), SessionError> {
        let merge = self.rules.merge;
        loop {
            let level = self.level()?;
            match (level.existing.front(), name) {
                (Some(there), Some(name)) if there >= name => return Ok(()),
                (None, _) => return Ok(()),
                _ => {}
            }
            let Some(there) = level.existing.pop_front() else { return Ok(()) };
            if merge {
                continue;
            }
            let dir = level.dir.as_ref().expect("opened with its entries");
            let text = there.to_string_lossy();
            let path =
                if level.path.is_empty() { text.into_owned() } else { format!("{}/{text}", level.path) };
            remove(dir.as_fd(), &there).map_err(SessionError::io(format!("failed to remove {path}")))?;
            level.dirty = true;
            if let Some(sink) = &self.rules.sink {
                sink.changed(Change { kind: ChangeKind::Delete, path: &path, stat: None, digest: None });
            }
        }
    }

    fn enter(&mut self, stat: Stat, dirty: bool, fresh: bool) -> Result<(), SessionError> {
        let mut level =
            Level { path: stat.path.clone(), dir: None, existing: VecDeque::new(), stat: Some(stat), dirty };
        if !fresh {
            let dir = open_dir(self.root.as_fd(), &level.path)
                .map_err(SessionError::io(format!("open {}", level.path)))?;
            level.existing = names(dir.as_fd(), &level.path)?;
            level.dir = Some(dir);
        }
        self.levels.push(level);
        Ok(())
    }

    fn leave(&mut self) -> Result<(), SessionError> {
        self.pass(None)?;
        if let Some(level) = self.levels.pop() {
            self.last.dirs.extend(level.stat.filter(|_| level.dirty));
        }
        Ok(())
    }
}
