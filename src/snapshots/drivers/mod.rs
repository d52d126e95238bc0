//! How the layers of a snapshot become one folder tree.
//!
//! A driver that *stacks* keeps only what a layer changed in the layer's folder, and joins the
//! folders by a mount. One that does not keeps the whole tree in each.

mod fuse;
mod native;
mod overlay;

pub(crate) use fuse::FuseOverlay;
pub(crate) use native::Native;
pub(crate) use overlay::Overlay;

use crate::Result;
use std::path::{Path, PathBuf};

/// Which driver to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DriverChoice {
    /// The first that works here: overlay, in a user namespace fuse-overlayfs, and native.
    #[default]
    Auto,
    /// The kernel's overlay filesystem, or an error.
    Overlay,
    /// fuse-overlayfs, or an error.
    FuseOverlay,
    /// Whole copies, which work everywhere.
    Native,
}

/// What a mount is made of.
pub(crate) struct MountPlan<'a> {
    /// Folders of the layers, bottom first. Never empty when there is no `upper`.
    pub(crate) lowers: &'a [PathBuf],
    /// For a mount that is written to: the folder that takes the changes, and an empty folder for
    /// the driver's own use beside it.
    pub(crate) upper: Option<(&'a Path, &'a Path)>,
    /// An empty folder to mount at.
    pub(crate) target: &'a Path,
}

pub(crate) trait Driver: Send + Sync {
    /// As users know it: the name of BuildKit's snapshotter.
    fn name(&self) -> &'static str;

    /// Whether a layer's folder holds only what the layer changed.
    fn stacks(&self) -> bool;

    /// Whether the driver's mark for opaque folders is in the `user.` namespace.
    fn user_xattrs(&self) -> bool {
        false
    }

    /// Mounts a stack of folders. Only asked of a driver that stacks, with more than one folder.
    fn mount(&self, plan: &MountPlan<'_>) -> Result<()>;

    /// Whether what takes a mount's changes has to be finished.
    fn marks_its_own_way(&self) -> bool {
        false
    }

    /// Brings the folder that took a mount's changes into the form of [`Driver::user_xattrs`], once it is unmounted.
    fn finish(&self, _upper: &Path) -> Result<()> {
        Ok(())
    }

    /// Fills an empty folder with the tree that a new layer starts from. Only asked of a driver
    /// that does not stack.
    fn copy_tree(&self, _from: &Path, _to: &Path) -> Result<()> {
        Ok(())
    }
}

/// Tries something in a new folder below another, which goes again.
fn in_trial_folder(root: &Path, try_it: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let dir = root.join(format!("probe-{}", crate::ids::new_id()));
    let outcome = try_it(&dir);
    if let Err(why) = std::fs::remove_dir_all(&dir) {
        tracing::warn!(path = %dir.display(), %why, "the folder of a trial mount remains");
    }
    outcome
}

/// Mounts an overlay below a folder that is there, for trial.
///
/// # Errors
/// Why that doesn't work.
pub fn try_overlay(root: &Path) -> Result<()> {
    Overlay::probe(root).map(drop)
}

/// Makes the chosen driver, for snapshots below `root`.
pub(crate) fn make(choice: DriverChoice, root: &Path) -> Result<Box<dyn Driver>> {
    let overlay = || Overlay::probe(root).map(|driver| Box::new(driver) as Box<dyn Driver>);
    let fuse = || FuseOverlay::probe(root).map(|driver| Box::new(driver) as Box<dyn Driver>);
    match choice {
        DriverChoice::Overlay => overlay(),
        DriverChoice::FuseOverlay => fuse(),
        DriverChoice::Native => Ok(Box::new(Native)),
        DriverChoice::Auto => overlay().or_else(|why| {
            // Only there the kernel's overlay fails and a program's may work all the same.
            let second = crosskit_rootless::is_inside().then(fuse);
            let why = match second {
                Some(Ok(driver)) => {
                    tracing::info!(%why, "overlay mounts do not work here: snapshots are mounted by fuse-overlayfs");
                    return Ok(driver);
                }
                Some(Err(second)) => format!("{why}; {second}"),
                None => why.to_string(),
            };
            tracing::warn!(%why, "overlay mounts do not work here: snapshots are whole copies, which takes more room and time");
            Ok(Box::new(Native))
        }),
    }
}
