//! Copying from one snapshot into another.
//!
//! Into a stack the files are put directly into the folder that takes its changes, which is
//! cheaper than through the mount and allows a file to be a further name of the source's: files
//! of snapshots never change, so that a copy which changes nothing about a file needs no bytes.

mod entry;
mod source;
mod target;
mod tree;

pub(crate) use target::Target;

use crate::modes::ModeChange;
use crate::root::{Owner, Root, clean, split, timestamps};
use crate::{Error, Result, unpack, wildcards};
use crosskit_api::pb;
use crosskit_patterns::Patterns;
use crosskit_snapshots::{Mounted, Snapshots};
use rustix::fs::{FileType, Timespec, Timestamps};
use rustix::io::Errno;
pub(crate) use source::Source;
use tokio_util::sync::CancellationToken;

/// The mode of folders that are made on the way to a destination.
const FOLDER_MODE: u32 = 0o755;

/// What becomes of files on their way.
pub(crate) struct Rules {
    pub(crate) owner: Option<Owner>,
    pub(crate) mode: ModeChange,
    /// In nanoseconds since 1970.
    pub(crate) time: Option<i64>,
    pub(crate) includes: Option<Patterns>,
    pub(crate) excludes: Option<Patterns>,
    pub(crate) replace: bool,
}

impl Rules {
    pub(crate) fn times(&self, stat: &rustix::fs::Stat) -> Timestamps {
        match self.time {
            Some(time) => timestamps(time),
            None => Timestamps {
                last_access: Timespec { tv_sec: stat.st_atime, tv_nsec: stat.st_atime_nsec as _ },
                last_modification: Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec as _ },
            },
        }
    }
}

fn compile(list: &'static str, patterns: &[String]) -> Result<Option<Patterns>> {
    if patterns.is_empty() {
        return Ok(None);
    }
    let wrong = |source| Error::Patterns { list, patterns: patterns.to_vec(), source };
    Patterns::new(patterns).map(Some).map_err(wrong)
}

/// Times on the wire: -1 keeps what is there.
pub(crate) fn time_of(timestamp: i64) -> Option<i64> {
    (timestamp != -1).then_some(timestamp)
}

/// Runs a copy. Blocks.
pub(crate) fn copy(
    action: &pb::FileActionCopy,
    from: &Mounted,
    target: &mut Target,
    owner: Option<Owner>,
    cancel: &CancellationToken,
) -> Result<()> {
    copy_from(action, Source::open(from)?, target, owner, cancel)
}

/// A source without anything in it.
pub(crate) fn nothing(snapshots: &Snapshots) -> Result<Source> {
    Source::at(snapshots.empty_dir())
}

/// The same from a source that is open.
pub(crate) fn copy_from(
    action: &pb::FileActionCopy,
    source: Source,
    target: &mut Target,
    owner: Option<Owner>,
    cancel: &CancellationToken,
) -> Result<()> {
    let (src, dest) = (clean(&action.src), clean(&action.dest));
    if !action.create_dest_path {
        let real = target.root.resolve(dest.as_bytes(), true)?;
        let (parent, _) = split(&real);
        if target.root.stat(parent)?.is_none() {
            return Err(
                Error::path("lstat", parent, Errno::NOENT).during(format!("failed to stat {}", action.dest))
            );
        }
    }
    let mode = match (action.mode_str.as_str(), action.mode) {
        ("", -1) => ModeChange::Keep,
        // The wire has all of an int; what is no permission means nothing.
        ("", mode) => ModeChange::Set(mode as u32 & 0o7777),
        (text, _) => ModeChange::parse(text)?,
    };
    let rules = Rules {
        owner,
        mode,
        time: time_of(action.timestamp),
        includes: compile("includepatterns", &action.include_patterns)?,
        excludes: compile("excludepatterns", &action.exclude_patterns)?,
        replace: action.always_replace_existing_dest_paths,
    };
    let folder_mode =
        if action.mode_str.is_empty() && action.mode != -1 { action.mode as u32 } else { FOLDER_MODE };
    let matches = match action.allow_wildcard {
        false => vec![src.clone().into_bytes()],
        true => wildcards::expand(&source.root, &src, action.follow_symlink)?,
    };
    if matches.is_empty() {
        return if action.allow_empty_wildcard { Ok(()) } else { Err(Error::NothingMatched { path: src }) };
    }
    for one in matches {
        if cancel.is_cancelled() {
            return Err(Error::Canceled);
        }
        if action.attempt_unpack_docker_compatibility
            && unpack::unpack(&source.root, &one, target, &dest, owner, rules.time, cancel)?
        {
            continue;
        }
        let step = Step { source: &source, rules: &rules, folder_mode, cancel };
        step.copy(target, action, &one, &dest)?;
    }
    Ok(())
}

/// The copy of one source.
struct Step<'a> {
    source: &'a Source,
    rules: &'a Rules,
    folder_mode: u32,
    cancel: &'a CancellationToken,
}

impl Step<'_> {
    fn copy(&self, target: &mut Target, action: &pb::FileActionCopy, src: &[u8], dest: &str) -> Result<()> {
        let mut made = Vec::new();
        // A slash or a dot behind it says that the destination itself is a folder.
        let name = dest.rsplit('/').next().unwrap_or_default();
        let ensured = if name.is_empty() || name == "." { dest } else { &dest[..dest.len() - name.len()] };
        let ensured = target.root.resolve(ensured.as_bytes(), true)?;
        made.extend(self.make_folders(&target.root, &ensured)?);
        let real = self.source.root.resolve(src, action.follow_symlink)?;
        let Some(stat) = self.source.root.stat(&real)? else {
            return Err(Error::path("lstat", &real, Errno::NOENT));
        };
        let from_folder = FileType::from_raw_mode(stat.st_mode).is_dir();
        let mut to = target.root.resolve(dest.as_bytes(), true)?;
        let there = target.root.stat(&to)?.map(|stat| FileType::from_raw_mode(stat.st_mode).is_dir());
        let into = match from_folder {
            true => !action.dir_copy_contents && there.is_some(),
            false => there == Some(true),
        };
        if into {
            // The name as it was asked for, not that of what a link led to.
            to = crate::root::join(&to, base_name(src));
        }
        let contents = action.dir_copy_contents && from_folder && there.is_none();
        let parent = if contents { &to[..] } else { split(&to).0 };
        made.extend(self.make_folders(&target.root, parent)?);
        tree::copy(self.source, &real, target, &to, self.rules, self.cancel)?;
        if let Some(time) = self.rules.time {
            // Filling them has changed the times of the folders made on the way.
            for folder in made.iter().rev() {
                target.root.set_time(folder, &timestamps(time))?;
            }
        }
        Ok(())
    }

    fn make_folders(&self, root: &Root, real: &[u8]) -> Result<Vec<Vec<u8>>> {
        root.make_folders(real, self.folder_mode, self.rules.owner, self.rules.time)
    }
}

fn base_name(path: &[u8]) -> &[u8] {
    let path = path.strip_suffix(b"/.").unwrap_or(path);
    let path = path.strip_suffix(b"/").unwrap_or(path);
    path.rsplit(|b| *b == b'/').next().unwrap_or_default()
}
