//! The daemon's folder in memory, for what is never to reach a disk nor to outlive it: secrets, sockets, containers.
//!
//! `BASE/NAME` is the folder, `BASE/NAME.running` has the notes of what runs, and `BASE/NAME.lock` is locked as long as the
//! daemon lives. NAME is made of its root folder, so that a daemon that was killed finds what it has left. Whose root is never
//! used again leaves that for the next daemon to start, whichever it is: it is nobody's where the lock can be had.

use crate::WorkerError;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long another daemon may take to remove what this one's predecessor has left.
const UNTIL_REMOVED: Duration = Duration::from_secs(10);

/// How often is looked whether it has.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Digits of a name: 64 bits of a digest.
const DIGITS: usize = 16;

/// The type of tmpfs in statfs(2).
const TMPFS_MAGIC: i64 = 0x0102_1994;

/// The folder, this process's as long as the value lives.
#[derive(Debug)]
pub(crate) struct Memory {
    path: PathBuf,
    _lock: File,
}

impl Memory {
    /// Makes the folder where it is not there, and says that it is this daemon's.
    pub(crate) fn claim(base: &Path, root: &Path) -> Result<Self, WorkerError> {
        use sha2::Digest;
        let digest = sha2::Sha256::digest(root.as_os_str().as_encoded_bytes());
        let path = base.join(hex::encode(&digest[..DIGITS / 2]));
        let failed = |source| WorkerError::Folder { path: path.clone(), source };
        let folders = |path: &Path| std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
        folders(base).map_err(failed)?;
        let file = lock_of(&path);
        let deadline = Instant::now() + UNTIL_REMOVED;
        let lock = loop {
            match lock(&file, true).map_err(failed)? {
                Some(lock) => break lock,
                None if Instant::now() > deadline => return Err(WorkerError::InUse { path: file }),
                None => std::thread::sleep(LOOK_EVERY),
            }
        };
        folders(&path).map_err(failed)?;
        in_memory(&path).map_err(|e| failed(e.into()))?;
        Ok(Memory { path, _lock: lock })
    }

    /// The folder.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Where it is noted what runs: beside the folder, for that may be a mount that nobody but this daemon sees, and the
    /// next one has to find the notes.
    pub(crate) fn ledger(&self) -> PathBuf {
        self.path.with_extension("running")
    }

    /// A folder for steps' own files, without those of a daemon that was killed. Nothing may run any more that uses them.
    pub(crate) fn steps(&self) -> Result<PathBuf, WorkerError> {
        let steps = self.path.join("steps");
        remove(&steps)
            .and_then(|()| std::fs::create_dir(&steps))
            .map_err(|source| WorkerError::Folder { path: steps.clone(), source })?;
        Ok(steps)
    }

    /// Takes the folder away, once nothing runs any more.
    pub(crate) fn leave(&self) {
        if let Err(why) = self.take_away() {
            tracing::warn!(path = %self.path.display(), %why, "the daemon's folder in memory could not be removed");
        }
    }

    fn take_away(&self) -> io::Result<()> {
        remove(&self.path)?;
        // Only if nothing is noted in it.
        match std::fs::remove_dir(self.ledger()) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => std::fs::remove_file(lock_of(&self.path)),
        }
    }
}

/// Ends and removes what daemons have left of which none lives any more.
pub(crate) fn remove_others(base: &Path) {
    for entry in std::fs::read_dir(base).into_iter().flatten().flatten() {
        let file = entry.path();
        if !is_lock(&entry.file_name().to_string_lossy()) {
            continue;
        }
        // That of a living daemon is locked.
        let Ok(Some(lock)) = lock(&file, false) else { continue };
        let left = Memory { path: file.with_extension(""), _lock: lock };
        tracing::info!(path = %left.path.display(), "removing what a daemon that was killed has left in memory");
        crosskit_exec::end_left(&left.path.join("exec"), &left.ledger());
        left.leave();
    }
}

fn lock_of(path: &Path) -> PathBuf {
    path.with_extension("lock")
}

/// Whether a file of this name is a daemon's lock: there are files of others beside them.
fn is_lock(name: &str) -> bool {
    let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    name.strip_suffix(".lock").is_some_and(|name| name.len() == DIGITS && name.bytes().all(digit))
}

/// Locks a file that whoever has locked it may remove. None if somebody has it.
fn lock(path: &Path, make: bool) -> io::Result<Option<File>> {
    loop {
        let file = OpenOptions::new().create(make).truncate(false).write(true).mode(0o600).open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(e)) => return Err(e),
        }
        // Else it was removed meanwhile, and this is the lock of a file that nobody else finds.
        let same = |now: std::fs::Metadata, then: std::fs::Metadata| {
            (now.dev(), now.ino()) == (then.dev(), then.ino())
        };
        if let Ok(now) = std::fs::metadata(path)
            && same(now, file.metadata()?)
        {
            return Ok(Some(file));
        }
    }
}

/// Removes a folder with what is in it, but nothing of what is mounted there.
fn remove(folder: &Path) -> io::Result<()> {
    if !crosskit_snapshots::take_down_leftovers(folder).map_err(io::Error::other)? {
        return Err(io::Error::other("something is still mounted in it"));
    }
    // It is a mount itself where its base is on a disk.
    let _ = rustix::mount::unmount(folder, rustix::mount::UnmountFlags::DETACH);
    match std::fs::remove_dir_all(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// Makes sure that what is written to a folder never reaches a disk: secrets go there.
fn in_memory(path: &Path) -> rustix::io::Result<()> {
    use rustix::mount::MountFlags;
    #[allow(clippy::useless_conversion, reason = "other architectures have it as 32 bits")]
    let kind = i64::from(rustix::fs::statfs(path)?.f_type);
    if kind == TMPFS_MAGIC {
        return Ok(());
    }
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    rustix::mount::mount("tmpfs", path, "tmpfs", flags, Some(c"mode=0700"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// Makes what a daemon with this root has in memory, without a mount of its own.
    fn made(base: &Path, root: &str) -> Memory {
        let memory = Memory::claim(base, Path::new(root)).unwrap();
        fs::create_dir_all(memory.path().join("steps/step-1")).unwrap();
        fs::write(memory.path().join("steps/step-1/secret"), "s").unwrap();
        fs::create_dir_all(memory.ledger()).unwrap();
        fs::write(memory.ledger().join("container"), "").unwrap();
        memory
    }

    /// A folder on a file system in memory: there is no need of a mount, which only root may make.
    fn base() -> tempfile::TempDir {
        tempfile::tempdir_in("/dev/shm").unwrap()
    }

    fn names(base: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(base).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn what_belongs_to_nobody_is_removed_and_all_else_is_left() {
        let base = base();
        let dead = made(base.path(), "/dead");
        let living = made(base.path(), "/living");
        // Whoever made it did not say that it lives, and so nobody knows that it does not.
        for name in ["0123456789abcdef", "0123456789abcdef.running"] {
            fs::create_dir(base.path().join(name)).unwrap();
        }
        for name in ["other.lock", "buildkitd.sock"] {
            fs::write(base.path().join(name), "").unwrap();
        }
        let gone = dead.path().file_name().unwrap().to_string_lossy().into_owned();
        drop(dead);
        let before = names(base.path());
        remove_others(base.path());
        let expected: Vec<String> = before.into_iter().filter(|name| !name.starts_with(&gone)).collect();
        assert_eq!(names(base.path()), expected);
        assert!(living.path().join("steps/step-1/secret").exists());
    }

    #[test]
    fn a_daemon_keeps_its_notes_of_what_runs_and_no_secrets_of_the_one_before() {
        let base = base();
        drop(made(base.path(), "/root"));
        let next = Memory::claim(base.path(), Path::new("/root")).unwrap();
        assert_eq!(fs::read_dir(next.steps().unwrap()).unwrap().count(), 0);
        assert!(next.ledger().join("container").exists());
        // What is noted may be running: the lock stays, for whoever comes next to see to it.
        next.leave();
        let name = next.path().file_name().unwrap().to_string_lossy().into_owned();
        assert_eq!(names(base.path()), [format!("{name}.lock"), format!("{name}.running")]);
        fs::remove_file(next.ledger().join("container")).unwrap();
        next.leave();
        assert_eq!(names(base.path()), Vec::<String>::new());
    }

    #[test]
    fn two_daemons_never_have_one_folder() {
        let base = base();
        let first = made(base.path(), "/root");
        assert!(lock(&lock_of(first.path()), true).unwrap().is_none());
        let other = made(base.path(), "/another");
        assert_ne!(first.path(), other.path());
        // A lock of a file that was removed keeps nobody out, nor does it let anybody in.
        fs::remove_file(lock_of(first.path())).unwrap();
        let next = lock(&lock_of(first.path()), true).unwrap().unwrap();
        assert!(lock(&lock_of(first.path()), true).unwrap().is_none());
        drop(next);
    }
}
