//! From a repository to files.

use super::GitSource;
use super::command::Git;
use super::fetch::{Repository, init, name_of, wanted_object};
use super::refs::{Found, within};
use super::url::{is_commit, redacted};
use crate::{SourceContext, SourceError};
use crosskit_snapshots::{About, RecordType, Ref};
use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The daemon's habits (BuildKit's compatibility version) under which checked out files could be
/// written to by everybody.
const WRITABLE_FILES: u32 = 10;

/// Makes a snapshot of what was found.
pub(super) async fn check_out(
    source: &GitSource,
    cx: &Arc<dyn SourceContext>,
    repository: &Repository,
    found: &Found,
) -> Result<Ref, SourceError> {
    let wanted = &source.wanted;
    let remote = redacted(&wanted.remote);
    let about = About::new(format!("git snapshot for {remote}#{}", name_of(wanted, found)));
    let snapshot = source.shared.parts.snapshots.new_mutable(None, about.of_type(RecordType::GitCheckout))?;
    let mounted = snapshot.mount().await?;
    let root = mounted.path().to_path_buf();
    let failed = |err| within(format!("failed to checkout remote {remote}"), err);

    let mut files = root.clone();
    let git;
    if wanted.keep_git_dir && wanted.subdir.is_empty() {
        git = clone(source, repository, found, &root).await.map_err(failed)?;
    } else {
        if !wanted.subdir.is_empty() {
            files = root.join(format!("checkout-{:016x}", rand::random::<u64>()));
            std::fs::create_dir(&files).map_err(SourceError::io(format!("make {}", files.display())))?;
        }
        git = repository.git.with_work_tree(&files);
        let object = wanted_object(wanted, found);
        source.still(&repository.git, &object, found).await?;
        git.run(&["checkout", "--no-overlay", &object, "--", "."]).await.map_err(failed)?;
    }
    if !wanted.skip_submodules {
        let updated = git.run(&["submodule", "update", "--init", "--recursive", "--depth=1"]).await;
        updated.map_err(|err| within(format!("failed to update submodules for {remote}"), err))?;
    }
    let time = match wanted.commit_time {
        true => Some(commit_time(&repository.git, &wanted_object(wanted, found)).await?),
        false => None,
    };
    let (subdir, writable) = (wanted.subdir.clone(), cx.compatibility_version() == WRITABLE_FILES);
    let finish = tokio::task::spawn_blocking(move || finish(&root, &files, &subdir, time, writable));
    finish.await.map_err(SourceError::thread)??;
    drop((git, mounted));
    Ok(snapshot.commit().await?)
}

/// Makes a repository with the one commit in the checkout itself.
async fn clone(
    source: &GitSource,
    repository: &Repository,
    found: &Found,
    root: &Path,
) -> Result<Git, SourceError> {
    let wanted = &source.wanted;
    let dir = root.join(".git");
    let git = repository.git.in_dir(&dir).with_work_tree(root);
    init(&git, false, found.checksum.len() == 64).await?;
    // Through the protocol, because git's short cut for repositories on the same disk could be
    // made to copy other files.
    let origin = format!("file://{}", repository.dir.display());
    git.run(&["remote", "add", "origin", &origin]).await?;
    let (name, object) = (name_of(wanted, found), wanted_object(wanted, found));
    let kind = repository.git.text(&["cat-file", "-t", &object]).await?;
    let pulled = if kind == "tag" {
        let full = if name.starts_with("refs/tags/") { name.clone() } else { format!("refs/tags/{name}") };
        format!("{name}:{full}")
    } else if name != object {
        format!("{object}:{name}")
    } else if is_commit(&name) {
        // A commit without a name cannot be fetched.
        let full = format!("refs/crosskit/{:016x}", rand::random::<u64>());
        repository.git.run(&["update-ref", &full, &name]).await?;
        full
    } else {
        format!("{name}:{name}")
    };
    git.run(&["fetch", "-u", "--depth=1", "--", "origin", &pulled]).await?;
    git.run(&["checkout", "FETCH_HEAD"]).await?;
    source.still(&git, "HEAD", found).await?;
    git.run(&["remote", "set-url", "origin", &redacted(&wanted.remote)]).await?;
    git.run(&["reflog", "expire", "--all", "--expire=now"]).await?;
    // It names the folder on this machine.
    let _ = std::fs::remove_file(dir.join("FETCH_HEAD"));
    Ok(git)
}

/// When the commit was made, in seconds since 1970.
async fn commit_time(git: &Git, object: &str) -> Result<i64, SourceError> {
    let text = git.text(&["log", "-1", "--format=%ct", &format!("{object}^{{commit}}")]).await?;
    text.parse().map_err(|_| SourceError::Mismatch(format!("failed to parse commit timestamp {text:?}")))
}

/// Moves the folder that is wanted to its place, and gives files the attributes that are wanted.
fn finish(
    root: &Path,
    files: &Path,
    subdir: &str,
    time: Option<i64>,
    writable: bool,
) -> Result<(), SourceError> {
    if !subdir.is_empty() {
        let dir = real_dir(files, subdir)?;
        let moving = || {
            for entry in std::fs::read_dir(&dir)? {
                let entry = entry?;
                std::fs::rename(entry.path(), root.join(entry.file_name()))?;
            }
            std::fs::remove_dir_all(files)
        };
        moving().map_err(SourceError::io(format!("move {subdir}")))?;
    }
    if time.is_some() || writable {
        adjust(root, time, writable).map_err(SourceError::io("set attributes of checked out files"))?;
    }
    Ok(())
}

/// A folder of the repository, reached through folders alone: the repository may contain links.
fn real_dir(files: &Path, subdir: &str) -> Result<PathBuf, SourceError> {
    let mut dir = files.to_path_buf();
    let mut walked = String::new();
    for part in subdir.split('/') {
        dir.push(part);
        walked = if walked.is_empty() { part.to_string() } else { format!("{walked}/{part}") };
        let doing = format!("invalid subdir {subdir}: failed to lstat {walked:?}");
        let found = std::fs::symlink_metadata(&dir).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                SourceError::Invalid(format!("{doing}: no such file or directory"))
            }
            _ => SourceError::io(doing)(error),
        })?;
        if !found.is_dir() {
            let text =
                format!("invalid subdir {subdir}: git subpath {subdir:?} contains non-directory {walked:?}");
            return Err(SourceError::Invalid(text));
        }
    }
    Ok(dir)
}

/// Sets times and modes in a tree that nobody else writes to.
fn adjust(dir: &Path, time: Option<i64>, writable: bool) -> std::io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let path = entry.path();
        let found = rustix::fs::statat(CWD, &path, AtFlags::SYMLINK_NOFOLLOW)?;
        match FileType::from_raw_mode(found.st_mode) {
            FileType::Directory => adjust(&path, time, writable)?,
            FileType::RegularFile if writable && found.st_mode & 0o111 == 0 => {
                rustix::fs::chmodat(
                    CWD,
                    &path,
                    Mode::from_raw_mode(found.st_mode & 0o777 | 0o222),
                    AtFlags::empty(),
                )?;
            }
            _ => {}
        }
        set_time(&path, time)?;
    }
    set_time(dir, time)
}

fn set_time(path: &Path, time: Option<i64>) -> std::io::Result<()> {
    let Some(seconds) = time else { return Ok(()) };
    let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    Ok(rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}
