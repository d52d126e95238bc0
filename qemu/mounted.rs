//! Where binfmt_misc is mounted, whose it is, and how long it lasts.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use rustix::fs::{Access, AtFlags, FlockOperation};

use crate::{Binfmt, Error, Result, file_error};

/// The number of the user namespace that a machine starts with (include/uapi/linux/nsfs.h: USER_NS_INIT_INO).
const FIRST_USER_NAMESPACE: u64 = 0xeffffffd;

/// The number of this process's user namespace; none for the machine's own.
pub(crate) fn user_namespace() -> Option<u64> {
    let own = fs::metadata("/proc/self/ns/user").map(|about| about.ino()).ok()?;
    Some(own).filter(|own| *own != FIRST_USER_NAMESPACE)
}

/// How long another installer may take.
const LOCK_LIMIT: Duration = Duration::from_secs(30);

impl Binfmt {
    /// Whether it is really mounted there.
    pub fn is_mounted(&self) -> bool {
        self.dir.join("status").exists()
    }

    /// Whether what is mounted there belongs to the machine, and this process lives in a user namespace that may not
    /// change it.
    pub fn is_out_of_reach(&self) -> bool {
        let writable = || {
            rustix::fs::accessat(
                rustix::fs::CWD,
                self.dir.join("register"),
                Access::WRITE_OK,
                AtFlags::EACCESS,
            )
        };
        user_namespace().is_some() && writable() == Err(rustix::io::Errno::ACCESS)
    }

    /// Mounts it there unless it is, until the returned value is dropped.
    pub fn mount(&self) -> Result<Option<TemporaryMount>> {
        if self.is_mounted() { Ok(None) } else { self.mount_anew().map(Some) }
    }

    /// Mounts it there, over what is.
    pub(crate) fn mount_anew(&self) -> Result<TemporaryMount> {
        let none: Option<&str> = None;
        mount(Some("binfmt_misc"), &self.dir, Some("binfmt_misc"), MsFlags::empty(), none)
            .map_err(|errno| Error::Mount { dir: self.dir.clone(), source: errno.into() })?;
        Ok(TemporaryMount(self.dir.clone()))
    }

    /// Keeps other installers away from this instance until the returned file is closed; who only looks keeps away those
    /// who change something.
    ///
    /// # Errors
    /// It is not mounted, or somebody holds it for long.
    pub fn lock(&self, changes: bool) -> Result<fs::File> {
        let path = self.dir.join("status");
        let file = fs::File::open(&path).map_err(|_| Error::NotMounted { path: path.clone() })?;
        let how = match changes {
            true => FlockOperation::NonBlockingLockExclusive,
            false => FlockOperation::NonBlockingLockShared,
        };
        let since = Instant::now();
        loop {
            match rustix::fs::flock(&file, how) {
                Ok(()) => return Ok(file),
                Err(rustix::io::Errno::WOULDBLOCK) if since.elapsed() < LOCK_LIMIT => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                Err(rustix::io::Errno::WOULDBLOCK) => return Err(Error::Locked { path }),
                Err(errno) => return Err(file_error("locking", &path)(errno.into())),
            }
        }
    }
}

/// How binfmt_misc came to be mounted for one call.
pub(crate) struct Mounting {
    /// None where it was there already.
    mounted: Option<TemporaryMount>,
    /// Whether it is a user namespace's own, which takes the place of the machine's for it, also once it is unmounted.
    own: bool,
    lasts: Lasts,
}

/// For how long there are the entries of a mount of ours.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lasts {
    /// As long as others have it mounted too.
    AsUsual,
    /// As long as this container.
    ForThisContainer,
    /// As long as this process.
    NoLonger,
}

impl Mounting {
    /// Mounts what is missing. Who lives in a user namespace and wants other entries than the machine's, which it may
    /// not change, gets an instance of its own, with the machine's entries in it.
    pub(crate) fn begin(
        binfmt: &Binfmt,
        changes: bool,
        root: &Path,
        say: &mut dyn FnMut(String),
    ) -> Result<Mounting> {
        let own = changes && binfmt.is_out_of_reach();
        if !own {
            let mut mounted = binfmt.mount()?;
            let mut lasts = Lasts::AsUsual;
            if let Some(ours) = mounted.take_if(|_| changes) {
                let (now, ours) = outlived(binfmt, ours, root)?;
                (lasts, mounted) = (now, Some(ours));
            }
            return Ok(Mounting { mounted, own, lasts });
        }
        let machine = binfmt.entries()?;
        let mounted = Some(binfmt.mount_anew()?);
        say(format!("mounting: a binfmt_misc of this user namespace's own at {}", binfmt.dir.display()));
        for entry in machine.iter().filter(|entry| entry.enabled) {
            if let Err(error) = binfmt.register_again(entry) {
                say(format!("taking over: {} {error}", entry.name));
            }
        }
        let lasts = if std::process::id() == 1 { Lasts::NoLonger } else { Lasts::AsUsual };
        Ok(Mounting { mounted, own, lasts })
    }

    /// Leaves mounted what programs need from now on, and takes the rest away.
    ///
    /// # Errors
    /// Nobody will have anything of what was installed.
    pub(crate) fn end(self, installed: bool, say: &mut dyn FnMut(String)) -> Result<()> {
        let Some(mounted) = self.mounted.filter(|_| installed || self.own) else { return Ok(()) };
        mounted.keep();
        match self.lasts {
            Lasts::NoLonger => return Err(Error::Fleeting),
            Lasts::ForThisContainer => say(format!("warning: {}", Error::Fleeting)),
            Lasts::AsUsual => {}
        }
        Ok(())
    }
}

/// Finds out whether entries outlive a mount that a container has made: they do if somebody else has the same instance
/// mounted, and under kernels before 6.7.
fn outlived(binfmt: &Binfmt, mounted: TemporaryMount, root: &Path) -> Result<(Lasts, TemporaryMount)> {
    let lasts = match (std::process::id() == 1, is_container(root)) {
        (true, _) => Lasts::NoLonger,
        (false, true) => Lasts::ForThisContainer,
        (false, false) => return Ok((Lasts::AsUsual, mounted)),
    };
    // An entry that takes no program, for none has a name that ends so; another one for whoever asks at the same time.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let mark = format!("crosskit-mark-{}", now.as_nanos());
    let line = format!(":{mark}:E::{mark}::/nowhere:");
    binfmt.register_line(&mark, "/nowhere".as_ref(), line.as_bytes())?;
    drop(mounted);
    let mounted = binfmt.mount_anew()?;
    if binfmt.entry(&mark)?.is_none() {
        return Ok((lasts, mounted));
    }
    binfmt.unregister(&mark)?;
    Ok((Lasts::AsUsual, mounted))
}

/// Whether this is a container of an engine's.
pub(crate) fn is_container(root: &Path) -> bool {
    ["run/.containerenv", ".dockerenv"].iter().any(|mark| root.join(mark).exists())
}

/// A mount that goes away with this value, and since Linux 6.7 all entries with it if it was the only one.
#[derive(Debug)]
pub struct TemporaryMount(PathBuf);

impl TemporaryMount {
    /// Leaves it mounted.
    pub fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for TemporaryMount {
    fn drop(&mut self) {
        if let Err(errno) = umount2(&self.0, MntFlags::MNT_DETACH) {
            tracing::warn!(path = %self.0.display(), %errno, "unmounting binfmt_misc failed");
        }
    }
}
