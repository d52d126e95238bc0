//! The overlay filesystem as a program: fuse-overlayfs, for those without rights whose kernel, or whose filesystem, takes no
//! overlay of theirs.
//!
//! The program marks folders that hide what is below in a way of its own. A layer gets the kernel's marks instead before
//! anybody else reads it: [`Driver::finish`].

use super::{Driver, MountPlan, in_trial_folder};
use crate::{Error, Result};
use rustix::fs::{FileType, XattrFlags};
use rustix::mount::UnmountFlags;
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// The program.
const PROGRAM: &str = "fuse-overlayfs";
/// `f_type` of what such programs serve (include/uapi/linux/magic.h).
const FUSE_SUPER_MAGIC: u64 = 0x6573_5546;
/// How long a mount may take.
const UNTIL_MOUNTED: Duration = Duration::from_secs(20);
/// How often is looked whether it is there.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// The program's mark in an opaque folder.
const OPAQUE_FILE: &str = ".wh..wh..opq";
/// What it leaves beside that.
const OPAQUE_WHITEOUT: &str = ".wh..opq";
/// And on the folder.
const OPAQUE_ATTRIBUTE: &str = "user.fuseoverlayfs.opaque";
/// The kernel's.
const KERNEL_ATTRIBUTE: &str = "user.overlay.opaque";

/// Starts the program in a thread of its own: as a process that dies with the thread that has started it, it can't outlive
/// the daemon.
pub(crate) struct FuseOverlay {
    orders: mpsc::Sender<Order>,
}

struct Order {
    options: std::ffi::OsString,
    target: PathBuf,
    done: mpsc::Sender<io::Result<()>>,
}

impl FuseOverlay {
    /// Mounts one for trial.
    pub(crate) fn probe(root: &Path) -> Result<Self> {
        let (orders, taken) = mpsc::channel();
        std::thread::Builder::new()
            .name(PROGRAM.into())
            .spawn(move || keep(&taken))
            .map_err(|e| Error::file("starting a thread for", PROGRAM, e))?;
        let driver = Self { orders };
        in_trial_folder(root, |dir| driver.try_in(dir))?;
        Ok(driver)
    }

    fn try_in(&self, dir: &Path) -> Result<()> {
        let [lower, upper, work, target] = ["lower", "upper", "work", "target"].map(|name| dir.join(name));
        for path in [&lower, &upper, &work, &target] {
            std::fs::create_dir_all(path).map_err(|e| Error::file("making folder", path, e))?;
        }
        let file = lower.join("file");
        std::fs::write(&file, "").map_err(|e| Error::file("writing", &file, e))?;
        self.mount(&MountPlan { lowers: &[lower], upper: Some((&upper, &work)), target: &target })?;
        let removed = std::fs::remove_file(target.join("file"));
        rustix::mount::unmount(&target, UnmountFlags::DETACH)
            .map_err(|e| Error::file("unmounting", &target, e))?;
        removed.map_err(|e| Error::file("removing", &target, e))?;
        let mark = upper.join("file");
        let marked = rustix::fs::lstat(&mark).map_err(|e| Error::file("looking at", &mark, e))?;
        if FileType::from_raw_mode(marked.st_mode) != FileType::CharacterDevice {
            let why = "removals are not marked by whiteouts: that needs Linux 5.8";
            return Err(Error::file("looking at", &mark, io::Error::other(why)));
        }
        Ok(())
    }
}

/// The thread that has started every program, and so must not end before the daemon does.
fn keep(orders: &mpsc::Receiver<Order>) {
    let mut running: Vec<Child> = Vec::new();
    while let Ok(order) = orders.recv() {
        running.retain_mut(|child| !matches!(child.try_wait(), Ok(Some(_))));
        let mounted = start(&order).map(|child| running.push(child));
        let _ = order.done.send(mounted);
    }
}

fn start(order: &Order) -> io::Result<Child> {
    let mut command = Command::new(PROGRAM);
    command
        .args(["-f", "-o"])
        .arg(&order.options)
        .arg(&order.target)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .process_group(0);
    // SAFETY: one system call without allocation between fork and exec.
    unsafe {
        command.pre_exec(|| {
            let signal = Some(rustix::process::Signal::KILL);
            Ok(rustix::process::set_parent_process_death_signal(signal)?)
        });
    }
    let mut child = command.spawn()?;
    let deadline = Instant::now() + UNTIL_MOUNTED;
    loop {
        if rustix::fs::statfs(&order.target).is_ok_and(|about| about.f_type as u64 == FUSE_SUPER_MAGIC) {
            return Ok(child);
        }
        let ended = child.try_wait()?;
        if ended.is_none() && Instant::now() < deadline {
            std::thread::sleep(LOOK_EVERY);
            continue;
        }
        let _ = child.kill();
        let _ = child.wait();
        let mut said = String::new();
        if let Some(mut stderr) = child.stderr.take() {
            let _ = stderr.read_to_string(&mut said);
        }
        let ended =
            ended.map_or("it did not mount in time".to_string(), |status| format!("it ended with {status}"));
        return Err(io::Error::other(format!("{ended}: {}", said.trim())));
    }
}

impl Driver for FuseOverlay {
    fn name(&self) -> &'static str {
        "fuse-overlayfs"
    }

    fn stacks(&self) -> bool {
        true
    }

    fn user_xattrs(&self) -> bool {
        true
    }

    fn mount(&self, plan: &MountPlan<'_>) -> Result<()> {
        let lowers: Vec<_> = plan.lowers.iter().rev().map(|path| path.as_os_str()).collect();
        let mut options = std::ffi::OsString::from("lowerdir=");
        options.push(lowers.join(std::ffi::OsStr::new(":")));
        if let Some((upper, work)) = plan.upper {
            for (name, path) in [(",upperdir=", upper), (",workdir=", work)] {
                options.push(name);
                options.push(path);
            }
        }
        let failed = |source| Error::Mount {
            path: plan.target.to_path_buf(),
            step: format!("starting {PROGRAM}"),
            source,
        };
        let (done, outcome) = mpsc::channel();
        let order = Order { options, target: plan.target.to_path_buf(), done };
        let gone = || failed(io::Error::other("its thread has ended"));
        self.orders.send(order).map_err(|_| gone())?;
        outcome.recv().map_err(|_| gone())?.map_err(failed)
    }

    fn marks_its_own_way(&self) -> bool {
        true
    }

    fn finish(&self, upper: &Path) -> Result<()> {
        let failed = |doing: &'static str, path: &Path| {
            let path = path.to_path_buf();
            move |source: io::Error| Error::file(doing, path, source)
        };
        let mut folders = vec![upper.to_path_buf()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).map_err(failed("listing", &folder))? {
                let entry = entry.map_err(failed("listing", &folder))?;
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    folders.push(entry.path());
                } else if entry.file_name() == OPAQUE_FILE {
                    rustix::fs::setxattr(&folder, KERNEL_ATTRIBUTE, b"y", XattrFlags::empty())
                        .map_err(|e| failed("marking", &folder)(e.into()))?;
                    let _ = rustix::fs::removexattr(&folder, OPAQUE_ATTRIBUTE);
                    let mark = entry.path();
                    std::fs::remove_file(&mark).map_err(failed("removing", &mark))?;
                    let _ = std::fs::remove_file(folder.join(OPAQUE_WHITEOUT));
                }
            }
        }
        Ok(())
    }
}
