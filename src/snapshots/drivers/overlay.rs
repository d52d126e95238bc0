//! The kernel's overlay filesystem.

use super::{Driver, MountPlan, in_trial_folder};
use crate::{Error, Result};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount,
};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// How many lower folders one overlay can have (fs/overlayfs, OVL_MAX_STACK).
const MAX_LOWERS: usize = 500;

/// Most that mount(2) takes as options: one page.
const MAX_OPTIONS: usize = 4095;

pub(crate) struct Overlay {
    user_xattrs: bool,
    /// The kernel takes lower folders one by one ("lowerdir+", Linux 6.8).
    one_by_one: AtomicBool,
}

impl Overlay {
    /// Mounts one for trial.
    pub(crate) fn probe(root: &Path) -> Result<Overlay> {
        let driver =
            Overlay { user_xattrs: crosskit_rootless::is_inside(), one_by_one: AtomicBool::new(true) };
        in_trial_folder(root, |dir| driver.try_in(dir))?;
        Ok(driver)
    }

    fn try_in(&self, dir: &Path) -> Result<()> {
        let [lower, below, upper, work, target] =
            ["lower", "below", "upper", "work", "target"].map(|name| dir.join(name));
        for path in [&lower, &below, &upper, &work, &target] {
            std::fs::create_dir_all(path).map_err(|e| Error::file("making folder", path, e))?;
        }
        self.mount(&MountPlan { lowers: &[below, lower], upper: Some((&upper, &work)), target: &target })?;
        rustix::mount::unmount(&target, UnmountFlags::DETACH)
            .map_err(|e| Error::file("unmounting", &target, e))
    }

    /// The flags and options besides the folders. `volatile` keeps unmounting from writing the
    /// whole filesystem out; the others keep every layer readable without its neighbours.
    fn options(&self, writable: bool) -> (Vec<&'static str>, Vec<(&'static str, &'static str)>) {
        let mut flags = Vec::new();
        if writable {
            flags.push("volatile");
        }
        let mut options = vec![("index", "off")];
        if self.user_xattrs {
            // Linux refuses metacopy and redirect_dir beside it, both of which it turns off.
            flags.push("userxattr");
        } else {
            options.extend([("metacopy", "off"), ("redirect_dir", "off")]);
        }
        (flags, options)
    }

    fn mount_new(&self, plan: &MountPlan<'_>) -> Result<(), (String, rustix::io::Errno)> {
        let at = |step: &str| {
            let step = step.to_string();
            move |errno| (step, errno)
        };
        let fs = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).map_err(at("opening overlay"))?;
        for lower in plan.lowers.iter().rev() {
            fsconfig_set_string(fs.as_fd(), "lowerdir+", lower)
                .map_err(|errno| (format!("adding layer {}", lower.display()), errno))?;
        }
        if let Some((upper, work)) = plan.upper {
            fsconfig_set_string(fs.as_fd(), "upperdir", upper).map_err(at("setting upperdir"))?;
            fsconfig_set_string(fs.as_fd(), "workdir", work).map_err(at("setting workdir"))?;
        }
        let (flags, options) = self.options(plan.upper.is_some());
        for flag in flags {
            fsconfig_set_flag(fs.as_fd(), flag).map_err(at(flag))?;
        }
        for (key, value) in options {
            fsconfig_set_string(fs.as_fd(), key, value).map_err(at(key))?;
        }
        fsconfig_create(fs.as_fd()).map_err(at("creating the overlay"))?;
        let attributes = match plan.upper {
            Some(_) => MountAttrFlags::empty(),
            None => MountAttrFlags::MOUNT_ATTR_RDONLY,
        };
        let mount =
            fsmount(fs.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes).map_err(at("making the mount"))?;
        move_mount(mount.as_fd(), "", rustix::fs::CWD, plan.target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
            .map_err(at("attaching the mount"))
    }

    /// mount(2), for kernels before 6.8. Folders are named relative to their common parent, so
    /// that more of them fit in a page of options.
    fn mount_old(&self, plan: &MountPlan<'_>) -> Result<(), (String, rustix::io::Errno)> {
        let base = common_parent(plan);
        let relative = |path: &Path| path.strip_prefix(&base).unwrap_or(path).display().to_string();
        let lowers: Vec<String> = plan.lowers.iter().rev().map(|path| relative(path)).collect();
        let mut parts = vec![format!("lowerdir={}", lowers.join(":"))];
        if let Some((upper, work)) = plan.upper {
            parts.push(format!("upperdir={}", relative(upper)));
            parts.push(format!("workdir={}", relative(work)));
        }
        let (flags, options) = self.options(plan.upper.is_some());
        parts.extend(flags.iter().map(|flag| flag.to_string()));
        parts.extend(options.iter().map(|(key, value)| format!("{key}={value}")));
        let data = parts.join(",");
        if data.len() > MAX_OPTIONS {
            return Err((
                "the layers' names exceed a page; Linux 6.8 has no such limit".into(),
                rustix::io::Errno::TOOBIG,
            ));
        }
        let data =
            std::ffi::CString::new(data).map_err(|_| ("options".to_string(), rustix::io::Errno::INVAL))?;
        let mount_flags = if plan.upper.is_some() { MountFlags::empty() } else { MountFlags::RDONLY };
        // A thread of its own, for it changes its current folder.
        let outcome = std::thread::scope(|scope| {
            let run = scope.spawn(|| {
                // SAFETY: only gives this thread its own current folder and umask; no file
                // descriptors are involved, and the thread ends with this closure.
                unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::FS) }?;
                rustix::process::chdir(&base)?;
                rustix::mount::mount("overlay", plan.target, "overlay", mount_flags, data.as_c_str())
            });
            run.join().unwrap_or(Err(rustix::io::Errno::IO))
        });
        outcome.map_err(|errno| ("mount".to_string(), errno))
    }
}

impl Driver for Overlay {
    fn name(&self) -> &'static str {
        "overlayfs"
    }

    fn stacks(&self) -> bool {
        true
    }

    fn user_xattrs(&self) -> bool {
        self.user_xattrs
    }

    fn mount(&self, plan: &MountPlan<'_>) -> Result<()> {
        if plan.lowers.len() > MAX_LOWERS {
            return Err(Error::TooManyLayers { layers: plan.lowers.len(), limit: MAX_LOWERS });
        }
        let mut outcome = Err((String::new(), rustix::io::Errno::NOSYS));
        if self.one_by_one.load(Ordering::Relaxed) {
            outcome = self.mount_new(plan);
            let unknown = matches!(
                outcome,
                Err((_, rustix::io::Errno::NOSYS | rustix::io::Errno::INVAL | rustix::io::Errno::PERM))
            );
            if !unknown {
                return outcome.map_err(|(step, errno)| failed(plan, step, errno));
            }
        }
        match self.mount_old(plan) {
            Ok(()) => {
                self.one_by_one.store(false, Ordering::Relaxed);
                Ok(())
            }
            // The newer interface names the step that failed, so its answer is the better one.
            Err((step, errno)) => match outcome {
                Err((new_step, new_errno)) if !new_step.is_empty() => Err(failed(plan, new_step, new_errno)),
                _ => Err(failed(plan, step, errno)),
            },
        }
    }
}

fn failed(plan: &MountPlan<'_>, step: String, errno: rustix::io::Errno) -> Error {
    Error::Mount { path: plan.target.to_path_buf(), step, source: errno.into() }
}

fn common_parent(plan: &MountPlan<'_>) -> PathBuf {
    let paths = plan.lowers.iter().map(PathBuf::as_path).chain(plan.upper.iter().flat_map(|(u, w)| [*u, *w]));
    paths
        .map(|path| path.parent().unwrap_or(path).to_path_buf())
        .reduce(|common, path| {
            common.ancestors().find(|a| path.starts_with(a)).unwrap_or(Path::new("/")).to_path_buf()
        })
        .unwrap_or_else(|| "/".into())
}
