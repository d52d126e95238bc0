//! Bringing a repository here. Each remote has one bare repository that is kept between builds.

use super::command::Git;
use super::refs::{Found, within};
use super::url::{is_commit, redacted};
use super::{GitSource, Wanted};
use crate::{SourceContext, SourceError};
use crosskit_snapshots::{About, Mounted, MutableRef};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use tokio::sync::OwnedMutexGuard;

/// Who works with which repository or checkout.
#[derive(Default)]
pub(crate) struct Repositories {
    locks: Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>,
}

impl Repositories {
    pub(super) async fn lock(&self, key: &str) -> OwnedMutexGuard<()> {
        let lock = {
            let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
            locks.retain(|_, lock| lock.strong_count() > 0);
            let lock = locks.get(key).and_then(Weak::upgrade).unwrap_or_default();
            locks.insert(key.to_string(), Arc::downgrade(&lock));
            lock
        };
        lock.lock_owned().await
    }
}

/// A repository that has the commit. Nobody else uses it until this is dropped.
pub(super) struct Repository {
    /// For this repository.
    pub(super) git: Git,
    pub(super) dir: PathBuf,
    _mounted: Mounted,
    _kept: MutableRef,
    _lock: OwnedMutexGuard<()>,
}

/// The short name of what is fetched.
pub(super) fn name_of(wanted: &Wanted, found: &Found) -> String {
    if wanted.fetch_by_commit {
        return super::refs::by_commit(wanted);
    }
    if wanted.bundle.is_some() && (wanted.reference.is_empty() || is_commit(&wanted.reference)) {
        return wanted.checksum.clone();
    }
    match wanted.reference.is_empty() {
        true => found.reference.strip_prefix("refs/heads/").unwrap_or(&found.reference).to_string(),
        false => wanted.reference.clone(),
    }
}

/// What is asked for: the commit itself where only that is to be fetched.
pub(super) fn wanted_object(wanted: &Wanted, found: &Found) -> String {
    match wanted.fetch_by_commit && !wanted.checksum.is_empty() {
        true => wanted.checksum.clone(),
        false => name_of(wanted, found),
    }
}

/// Fetches what was found.
pub(super) async fn fetch(
    source: &GitSource,
    cx: &Arc<dyn SourceContext>,
    found: &Found,
) -> Result<Repository, SourceError> {
    let wanted = &source.wanted;
    let lock = source.shared.git.lock(&wanted.remote).await;
    let shown = redacted(&wanted.remote);
    let about = About::new(format!("shared git repo for {shown}"));
    let kept =
        source.shared.parts.snapshots.mutable_by_key(&format!("git-remote:{}", wanted.remote), about)?;
    let mounted = kept.mount().await?;
    let dir = mounted.path().to_path_buf();
    let git = source.git(cx).await?.in_dir(&dir);
    let sha256 = found.checksum.len() == 64;
    prepare(&git, &dir, wanted, sha256, false).await?;
    let staged = match &wanted.bundle {
        Some(bundle) if !has_commit(&git, &wanted.checksum).await => {
            Some(source.staged(cx, bundle).await?.url())
        }
        _ => None,
    };
    let origin = staged.as_deref().unwrap_or("origin");
    if let Err(err) = update(&git, &dir, wanted, found, origin).await {
        // A tag that was moved, or a branch whose name is now a folder of branches, does not fit
        // into the old repository.
        let SourceError::Git { stderr, .. } = &err else { return Err(err) };
        let moved = stderr.contains("rejected") && stderr.contains("(would clobber existing tag)");
        let refs = stderr.contains("some local refs could not be updated;")
            && (stderr.contains("(unable to update local ref)") || stderr.contains("refname conflict"));
        if !moved && !refs {
            return Err(err);
        }
        prepare(&git, &dir, wanted, sha256, true).await?;
        update(&git, &dir, wanted, found, origin).await?;
    }
    if !wanted.checksum.is_empty() {
        verify(&git, wanted, &wanted_object(wanted, found)).await?;
    }
    Ok(Repository { git, dir, _mounted: mounted, _kept: kept, _lock: lock })
}

/// Makes the repository, if it is not there or not to be used.
async fn prepare(
    git: &Git,
    dir: &Path,
    wanted: &Wanted,
    sha256: bool,
    anew: bool,
) -> Result<(), SourceError> {
    if !anew && dir.join("HEAD").exists() && git.agrees(&["remote", "get-url", "origin"]).await {
        return Ok(());
    }
    let doing = format!("empty {}", dir.display());
    let old = dir.to_path_buf();
    let empty = tokio::task::spawn_blocking(move || {
        for entry in std::fs::read_dir(&old)? {
            let entry = entry?;
            match entry.file_type()?.is_dir() {
                true => std::fs::remove_dir_all(entry.path())?,
                false => std::fs::remove_file(entry.path())?,
            }
        }
        Ok::<_, std::io::Error>(())
    });
    empty.await.map_err(SourceError::thread)?.map_err(SourceError::io(doing))?;
    init(git, true, sha256).await?;
    git.run(&["remote", "add", "--", "origin", &wanted.remote]).await?;
    Ok(())
}

/// Makes an empty repository.
pub(super) async fn init(git: &Git, bare: bool, sha256: bool) -> Result<(), SourceError> {
    let mut arguments = vec!["-c", "init.defaultBranch=master", "init"];
    if bare {
        arguments.push("--bare");
    }
    if sha256 {
        arguments.push("--object-format=sha256");
    }
    git.run(&arguments).await.map(drop)
}

/// Whether a commit is in the repository.
async fn has_commit(git: &Git, commit: &str) -> bool {
    git.agrees(&["cat-file", "-e", &format!("{commit}^{{commit}}")]).await
}

/// Fetches, unless the commit is there.
async fn update(
    git: &Git,
    dir: &Path,
    wanted: &Wanted,
    found: &Found,
    origin: &str,
) -> Result<(), SourceError> {
    let failed = |err| within(format!("failed to fetch remote {}", redacted(&wanted.remote)), err);
    let name = name_of(wanted, found);
    let object = wanted_object(wanted, found);
    let is_shallow = dir.join("shallow").exists();
    // A bundle holds the history.
    let deep = wanted.as_bundle;
    if is_commit(&object) && !(deep && is_shallow) && has_commit(git, &object).await {
        return Ok(());
    }
    // What has to be signed was fetched to be verified, a moment ago.
    if wanted.signed.is_some() && !(deep && is_shallow) {
        let here = git.text(&["rev-parse", "--verify", "--quiet", &object]).await;
        if here.is_ok_and(|here| here == found.checksum) {
            return Ok(());
        }
    }
    // Left behind by a fetch that was killed.
    let _ = std::fs::remove_file(dir.join("shallow.lock"));
    // Kept as a tag, so that the next fetch can say what is here.
    let target = if name.starts_with("refs/tags/") { name.clone() } else { format!("tags/{name}") };
    let refspec = format!("{object}:{target}");
    let mut arguments = vec!["fetch"];
    if !deep && (wanted.fetch_by_commit || !is_commit(&object)) {
        arguments.extend(["--depth=1", "--no-tags"]);
    } else {
        arguments.push("--tags");
        if is_shallow {
            arguments.push("--unshallow");
        }
    }
    arguments.push(origin);
    match is_commit(&name) {
        true => arguments.push(&name),
        false => arguments.extend(["--force", "--", &refspec]),
    }
    git.run(&arguments).await.map_err(failed)?;

    let fetched = git.text(&["rev-parse", &object]).await?;
    if fetched == found.checksum {
        return Ok(());
    }
    // The remote has moved on since the key was computed: what was found then is wanted.
    let exists = ["cat-file", "-e", &found.checksum];
    if git.run(&exists).await.is_err() {
        let mut arguments = vec!["fetch", "--tags"];
        if dir.join("shallow").exists() {
            arguments.push("--unshallow");
        }
        arguments.extend([origin, &found.checksum]);
        git.run(&arguments).await.map_err(failed)?;
        git.run(&["reflog", "expire", "--all", "--expire=now"]).await?;
        if git.run(&exists).await.is_err() {
            return Err(SourceError::Mismatch(format!(
                "fetched ref {name} does not match expected commit {} and commit can not be found in the repository",
                found.checksum
            )));
        }
    }
    let full = if target.starts_with("refs/") { target } else { format!("refs/{target}") };
    git.run(&["update-ref", "--no-deref", &full, &found.checksum]).await.map(drop)
}

/// An error if the commit is not the one that was promised.
async fn verify(git: &Git, wanted: &Wanted, object: &str) -> Result<(), SourceError> {
    let expected = &wanted.checksum;
    let actual = git.text(&["rev-parse", object]).await?;
    if actual.starts_with(expected) {
        return Ok(());
    }
    let commit = git.text(&["rev-parse", &format!("{object}^{{}}")]).await.unwrap_or_else(|_| actual.clone());
    if commit.starts_with(expected) {
        return Ok(());
    }
    let or = if commit == actual { String::new() } else { format!(" or {commit}") };
    Err(SourceError::Mismatch(format!("expected checksum to match {expected}, got {actual}{or}")))
}
