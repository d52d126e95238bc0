//! Devices that steps can be given, by the Container Device Interface (CDI 1.1): files in some folders say which there
//! are, and what has to be changed in a container for each.

mod edits;
mod registry;
mod spec_file;
mod unread;

#[cfg(test)]
mod devices_tests;

pub(crate) use edits::apply;
pub use edits::{DeviceNode, Edits, Hook, MountEdit};
pub use registry::{Device, DeviceError, Registry, Wanted};

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

/// Where specifications are looked for if nothing else is said, the last folder first in rank (BuildKit `appdefaults`).
pub const SPEC_FOLDERS: [&str; 3] = ["/etc/cdi", "/var/run/cdi", "/etc/buildkit/cdi"];

/// The devices of this machine. Cheap to clone; the files are read when something is asked, so that new ones count at
/// once.
#[derive(Clone, Debug, Default)]
pub struct Devices(Option<Arc<Source>>);

#[derive(Debug)]
struct Source {
    folders: Vec<PathBuf>,
    auto_allowed: Vec<String>,
    /// What was last found wrong, so that it is said once.
    told: Mutex<Vec<String>>,
}

impl Devices {
    /// Devices of the specifications in some folders, the last folder first in rank. Those named in `auto_allowed`, by
    /// name or by kind, are for every build.
    pub fn new(folders: Vec<PathBuf>, auto_allowed: Vec<String>) -> Self {
        Self(Some(Arc::new(Source { folders, auto_allowed, told: Mutex::default() })))
    }

    /// No devices, and an error for those who ask for one.
    pub fn disabled() -> Self {
        Self(None)
    }

    /// Reads the files. Blocks on them. What is wrong with one is logged and makes that one not count.
    ///
    /// # Errors
    /// Devices are disabled.
    pub fn read(&self) -> Result<Registry, DeviceError> {
        let source = self.0.as_ref().ok_or(DeviceError::Disabled)?;
        let registry = Registry::read(&source.folders, &source.auto_allowed);
        let mut told = source.told.lock().unwrap_or_else(PoisonError::into_inner);
        for problem in registry.problems().iter().filter(|problem| !told.contains(problem)) {
            tracing::warn!("CDI: {problem}");
        }
        told.clear();
        told.extend_from_slice(registry.problems());
        Ok(registry)
    }
}
