//! Copying a folder tree, on all cores.
//!
//! Work is a stack of jobs: a folder to be gone through, or some files of one. The newest is
//! taken first, so that few folders are open at a time.

use super::Rules;
use super::entry::{Entry, Links, set_attributes};
use super::source::{Source, SourceFolder};
use super::target::{Target, TargetFolder, is_mark, place};
use crate::root::{join, names, stat_at};
use crate::{Error, Result};
use crosskit_patterns::Inherited;
use rustix::fs::{FileType, Stat};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use tokio_util::sync::CancellationToken;

/// Files of one folder that make a job.
const FILES: usize = 128;

/// Copies what is at a real path of the source to a real path of the target.
pub(crate) fn copy(
    source: &Source,
    from: &[u8],
    target: &mut Target,
    to: &[u8],
    rules: &Rules,
    cancel: &CancellationToken,
) -> Result<()> {
    let stat = source.root.stat(from)?.ok_or_else(|| Error::path("lstat", from, rustix::io::Errno::NOENT))?;
    let (parent, name) = place(target, to)?;
    target.behind = true;
    let links = Links::default();
    let copier = Copier {
        source,
        target: &*target,
        rules,
        cancel,
        root: target.filled(b"")?,
        links,
        jobs: Mutex::default(),
        more: Condvar::new(),
        times: Mutex::default(),
    };
    if FileType::from_raw_mode(stat.st_mode).is_dir() {
        copier.whole_tree(from, stat, to, parent, name)?;
    } else {
        let (dir, base) = crate::root::split(from);
        copier.file(&source.folder(dir)?, base, &stat, &parent, name)?;
    }
    let shared = copier.links.shared.into_inner().unwrap_or_else(PoisonError::into_inner);
    target.shared.extend(shared);
    Ok(())
}

struct Copier<'a> {
    source: &'a Source,
    target: &'a Target,
    rules: &'a Rules,
    cancel: &'a CancellationToken,
    /// The folder that real paths of the target start from, when something is put there.
    root: OwnedFd,
    links: Links,
    jobs: Mutex<Jobs>,
    more: Condvar,
    /// Folders whose time is set when nothing more comes into them.
    times: Mutex<Vec<(Vec<u8>, Stat)>>,
}

#[derive(Default)]
struct Jobs {
    waiting: Vec<Job>,
    /// How many are being worked on.
    running: usize,
    failed: Option<Error>,
}

enum Job {
    Folder(Arc<Folder>),
    Files { folder: Arc<Folder>, from: Arc<SourceFolder>, names: Vec<(Vec<u8>, Stat)> },
}

/// A folder of the source and the one that it becomes.
struct Folder {
    /// The folder above; none for the first.
    above: Option<Arc<Folder>>,
    /// Real path in the source.
    from: Vec<u8>,
    /// Path below where the copy began, for patterns.
    relative: Vec<u8>,
    name: Vec<u8>,
    stat: Stat,
    included: Inherited,
    excluded: Inherited,
    /// Whether it is copied itself, or only on the way to something that is.
    wanted: bool,
    made: Mutex<Option<Arc<TargetFolder>>>,
}

impl Copier<'_> {
    fn whole_tree(
        &self,
        from: &[u8],
        stat: Stat,
        to: &[u8],
        parent: TargetFolder,
        name: &[u8],
    ) -> Result<()> {
        let there = if to.is_empty() { self.target.root.stat(to)? } else { parent.stat(name)? };
        let first = match there {
            Some(there) if FileType::from_raw_mode(there.st_mode).is_dir() => {
                // Its owner and mode stay as they are; its time becomes the source's.
                self.times().push((to.to_vec(), stat));
                self.target.folder_to_fill(to)?
            }
            other => {
                if other.is_some() && !self.rules.replace {
                    return Err(Error::NotAFolder { path: to.to_vec() });
                }
                parent.clear_for_folder(name, other.as_ref())?;
                self.make(from, &stat, &parent, name)?
            }
        };
        let folder = Folder {
            above: None,
            from: from.to_vec(),
            relative: Vec::new(),
            name: name.to_vec(),
            stat,
            included: Inherited::default(),
            excluded: Inherited::default(),
            wanted: true,
            made: Mutex::new(Some(Arc::new(first))),
        };
        self.push(Job::Folder(Arc::new(folder)));
        self.run()?;
        for (folder, stat) in self.times().drain(..).rev() {
            let opened = self.target.filled(&folder)?;
            rustix::fs::futimens(&opened, &self.rules.times(&stat))
                .map_err(|e| Error::path("utimensat", &folder, e))?;
        }
        Ok(())
    }

    fn times(&self) -> std::sync::MutexGuard<'_, Vec<(Vec<u8>, Stat)>> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, job: Job) {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner).waiting.push(job);
        self.more.notify_one();
    }

    /// Works the jobs off. Other threads join in when there is enough to do.
    fn run(&self) -> Result<()> {
        let others = std::thread::available_parallelism().map_or(1, usize::from) - 1;
        std::thread::scope(|scope| {
            let mut started = 0;
            while let Some(job) = self.next() {
                self.work(job);
                let waiting = self.jobs.lock().unwrap_or_else(PoisonError::into_inner).waiting.len();
                if waiting > 1 && started < others {
                    started += 1;
                    scope.spawn(|| {
                        while let Some(job) = self.next() {
                            self.work(job);
                        }
                    });
                }
            }
        });
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        jobs.failed.take().map_or(Ok(()), Err)
    }

    /// The next job; none when all are done, or one failed.
    fn next(&self) -> Option<Job> {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if jobs.failed.is_some() {
                return None;
            }
            if let Some(job) = jobs.waiting.pop() {
                jobs.running += 1;
                return Some(job);
            }
            if jobs.running == 0 {
                return None;
            }
            jobs = self.more.wait(jobs).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn work(&self, job: Job) {
        let outcome = match job {
            _ if self.cancel.is_cancelled() => Err(Error::Canceled),
            Job::Folder(folder) => self.folder(&folder),
            Job::Files { folder, from, names } => self.files(&folder, &from, &names),
        };
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        jobs.running -= 1;
        if let Err(why) = outcome {
            jobs.failed.get_or_insert(why);
        }
        // Whoever waits must see that there is more, or that this was the last.
        self.more.notify_all();
    }

    fn folder(&self, folder: &Arc<Folder>) -> Result<()> {
        if folder.wanted {
            self.made(folder)?;
        }
        let from = self.source.folder(&folder.from)?;
        let mut listed = names(from.fd.as_fd()).map_err(|e| Error::path("readdirent", &folder.from, e))?;
        listed.sort();
        let (mut files, mut folders) = (Vec::new(), Vec::new());
        for name in listed {
            let relative = join(&folder.relative, &name);
            let (included, in_included) = match &self.rules.includes {
                Some(patterns) => patterns.matches_within(&relative, &folder.included),
                None => (true, Inherited::default()),
            };
            let (excluded, in_excluded) = match &self.rules.excludes {
                Some(patterns) => patterns.matches_within(&relative, &folder.excluded),
                None => (false, Inherited::default()),
            };
            let wanted = included && !excluded;
            let stat = match stat_at(from.fd.as_fd(), &name) {
                Ok(stat) => stat,
                Err(e) => {
                    let path = join(&folder.from, &name);
                    return Err(Error::path("lstat", &path, e)
                        .during(format!("failed to stat {}", crate::error::shown(&path))));
                }
            };
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => {
                    let excepted =
                        self.rules.excludes.as_ref().is_some_and(|p| p.may_except_inside(&relative));
                    let reached = self
                        .rules
                        .includes
                        .as_ref()
                        .is_none_or(|p| included || p.may_match_inside(&relative));
                    if wanted || (!excluded || excepted) && reached {
                        folders.push(Job::Folder(Arc::new(Folder {
                            above: Some(folder.clone()),
                            from: join(&folder.from, &name),
                            relative,
                            name,
                            stat,
                            included: in_included,
                            excluded: in_excluded,
                            wanted,
                            made: Mutex::default(),
                        })));
                    }
                }
                // A removal mark, which a layer's own folder shows as it is.
                _ if is_mark(&stat) => {}
                _ if wanted => files.push((name, stat)),
                _ => {}
            }
        }
        // In the order of names, the first on top.
        folders.into_iter().rev().for_each(|job| self.push(job));
        let from = Arc::new(from);
        while files.len() > FILES {
            let names = files.split_off(files.len() - FILES);
            self.push(Job::Files { folder: folder.clone(), from: from.clone(), names });
        }
        self.files(folder, &from, &files)
    }

    fn files(&self, folder: &Arc<Folder>, from: &SourceFolder, files: &[(Vec<u8>, Stat)]) -> Result<()> {
        if files.is_empty() {
            return Ok(());
        }
        let to = self.made(folder)?;
        for (name, stat) in files {
            if self.cancel.is_cancelled() {
                return Err(Error::Canceled);
            }
            self.file(from, name, stat, &to, name)?;
        }
        Ok(())
    }

    fn file(
        &self,
        from: &SourceFolder,
        name: &[u8],
        stat: &Stat,
        to: &TargetFolder,
        as_name: &[u8],
    ) -> Result<()> {
        let there = to.stat(as_name)?;
        if let Some(there) = &there
            && FileType::from_raw_mode(there.st_mode).is_dir()
            && !self.rules.replace
        {
            return Err(Error::FolderInTheWay { path: join(&to.real, as_name) });
        }
        to.clear(as_name, there.as_ref())?;
        let entry = Entry { from, name, stat, to, as_name };
        entry.copy(self.rules, &self.links, &self.target.shared, &self.root)
    }

    /// The folder that a folder becomes, made now if it is not there.
    fn made(&self, folder: &Folder) -> Result<Arc<TargetFolder>> {
        let mut made = folder.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(made) = &*made {
            return Ok(made.clone());
        }
        // Only the first has none above, and it is made from the start.
        let above = folder.above.as_ref().ok_or_else(|| Error::Invalid("a folder without a place".into()))?;
        let above = self.made(above)?;
        let real = join(&above.real, &folder.name);
        let there = above.stat(&folder.name)?;
        let target = match &there {
            Some(there) if FileType::from_raw_mode(there.st_mode).is_dir() => {
                let target = self.target.folder_to_fill(&real)?;
                if folder.wanted {
                    self.set(&folder.from, &folder.stat, &target)?;
                    self.times().push((real, folder.stat));
                }
                target
            }
            Some(_) if !self.rules.replace => return Err(Error::NotAFolder { path: real }),
            other => {
                above.clear_for_folder(&folder.name, other.as_ref())?;
                self.make(&folder.from, &folder.stat, &above, &folder.name)?
            }
        };
        let target = Arc::new(target);
        *made = Some(target.clone());
        Ok(target)
    }

    fn make(&self, from: &[u8], stat: &Stat, above: &TargetFolder, name: &[u8]) -> Result<TargetFolder> {
        let target = above.make_folder(name)?;
        self.set(from, stat, &target)?;
        self.times().push((target.real.clone(), *stat));
        Ok(target)
    }

    fn set(&self, from: &[u8], stat: &Stat, target: &TargetFolder) -> Result<()> {
        let source = self.source.root.open_folder(from)?;
        set_attributes(source.as_fd(), target.fd.as_fd(), stat, self.rules)
            .map_err(|e| Error::path("chmod", &target.real, e))
    }
}
