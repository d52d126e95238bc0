//! Mount points that a runtime has to make in the root filesystem, and that are no part of what the step did.

use rustix::fs::{AtFlags, OFlags, Timespec, Timestamps, unlinkat, utimensat};

use crate::{
    Mount, Result,
    rootfs::{Place, Rootfs},
};

/// Paths that did not exist before the container was made.
#[derive(Debug, Default)]
pub(crate) struct Stubs {
    missing: Vec<String>,
}

impl Stubs {
    /// Looks which mount points are missing. `recursive` counts the folders above them too.
    pub(crate) fn find(rootfs: &Rootfs, mounts: &[Mount], recursive: bool) -> Result<Self> {
        let mut missing = Vec::new();
        let own = ["/etc/resolv.conf", "/etc/hosts"];
        for dest in own.into_iter().chain(mounts.iter().map(|mount| mount.dest.as_str())) {
            let mut path = dest.to_owned();
            while let Place::Missing(found) = rootfs.place(&path)? {
                let above = found.rsplit_once('/').map(|(above, _)| above.to_owned()).unwrap_or_default();
                if !missing.contains(&found) {
                    missing.push(found);
                }
                if !recursive || above.is_empty() {
                    break;
                }
                path = above;
            }
        }
        // What is deeper goes first: a folder can go when it is empty.
        missing.sort_by_key(|path| std::cmp::Reverse(path.matches('/').count()));
        Ok(Self { missing })
    }

    /// Removes those that exist now and are still empty, and gives the folders above them their times back.
    pub(crate) fn remove(&self, rootfs: &Rootfs) {
        for path in &self.missing {
            let Some(Ok((folder, name))) = rootfs.parent(path) else { continue };
            let Ok(about) = Rootfs::stat(&folder, name) else { continue };
            let is_folder = rustix::fs::FileType::from_raw_mode(about.st_mode).is_dir();
            if !is_folder && about.st_size != 0 {
                continue;
            }
            let Ok(above) = Rootfs::stat(&folder, ".") else { continue };
            let flags = if is_folder { AtFlags::REMOVEDIR } else { AtFlags::empty() };
            // A folder with something in it stays: the step put that there.
            if unlinkat(&folder, name, flags).is_err() {
                continue;
            }
            let times = Timestamps {
                last_access: Timespec { tv_sec: above.st_atime as _, tv_nsec: above.st_atime_nsec as _ },
                last_modification: Timespec {
                    tv_sec: above.st_mtime as _,
                    tv_nsec: above.st_mtime_nsec as _,
                },
            };
            let restored = rootfs
                .open_at(
                    path.rsplit_once('/').map_or("", |(parent, _)| parent),
                    OFlags::RDONLY | OFlags::DIRECTORY,
                )
                .and_then(|folder| utimensat(&folder, ".", &times, AtFlags::empty()));
            if let Err(errno) = restored {
                tracing::warn!(path, %errno, "the time of a mount stub's folder could not be restored");
            }
        }
    }
}
