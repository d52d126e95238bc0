//! Where steps run, in words: on which machine, and whether by its processor or an emulator.

use crate::Workers;
use crosskit_exec::{Emulation, How};
use crosskit_platforms::{Architecture, Matcher, Platform};
use crosskit_qemu::{Binfmt, DEFAULT_MOUNT, Emulator};
use crosskit_scheduler::Kind;
use crosskit_solver::VertexProgress;
use crosskit_solver::progress::Part;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

/// How a processor runs the programs of its own platform.
pub const NATIVE: &str = "native";

/// What emulators have said of themselves. Each is asked once, and again when it is another file.
#[derive(Default)]
pub(crate) struct Versions(Mutex<HashMap<(PathBuf, SystemTime), String>>);

impl Versions {
    /// Name and version of an emulator. Runs it, unless that has been done.
    fn of(&self, architecture: &Architecture, path: &Path) -> Option<String> {
        let written = std::fs::metadata(path).and_then(|file| file.modified()).ok()?;
        let key = (path.to_path_buf(), written);
        let known = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(text) = known().get(&key) {
            return Some(text.clone());
        }
        let emulator = Emulator { architecture: architecture.name.clone(), path: path.to_path_buf() };
        let text = format!("qemu-{} {}", architecture.qemu, emulator.version().ok()?);
        known().insert(key, text.clone());
        Some(text)
    }
}

/// Where a step has run, and by what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran {
    /// The platform of its programs, formatted.
    pub platform: String,
    /// The worker; none if it was this machine.
    pub worker: Option<String>,
    /// `native`, `emulated`, or by which emulator.
    pub how: String,
}

impl Ran {
    /// Tells those who watch the step. It is a status of the step; its name and output stay what they are.
    pub(crate) fn tell(&self, progress: &VertexProgress) -> Part {
        let Ran { platform, worker, how } = self;
        let place = worker.as_ref().map_or("here".to_string(), |worker| format!("on {worker}"));
        progress.part(format!("{platform} {place} ({how})"))
    }
}

impl Workers {
    /// Where a step runs, if that is not a matter of course: there is a farm, or an emulator.
    pub(crate) async fn ran(&self, worker: &str, kind: Kind, platform: &Platform) -> Option<Ran> {
        if kind == Kind::Native && !self.is_farm() {
            return None;
        }
        let how = self.how(worker, kind, platform).await;
        let worker = Some(worker.to_string()).filter(|_| kind == Kind::Remote);
        Some(Ran { platform: platform.format(), worker, how })
    }

    /// How a worker runs the programs of a platform: `native`, `emulated`, or here by which emulator.
    pub async fn how(&self, worker: &str, kind: Kind, platform: &Platform) -> String {
        match kind {
            Kind::Native => NATIVE.to_string(),
            Kind::Remote => {
                // Of those that say nothing more, what they run natively is what they were asked to run.
                let native = self.facts(worker).is_none_or(|facts| {
                    facts.native_platforms().iter().any(|known| Matcher::only(known).matches(platform))
                });
                if native { NATIVE.to_string() } else { "emulated".to_string() }
            }
            Kind::Emulated => self.emulator(platform).await,
        }
    }

    /// Which emulator runs the programs of a platform here, with its version if that can be known.
    async fn emulator(&self, platform: &Platform) -> String {
        let Some(architecture) = Architecture::by_name(&platform.architecture) else {
            return "emulated".into();
        };
        let named = format!("qemu-{}", architecture.qemu);
        let path = match self.local().executor.can_run(platform).await {
            Ok(How::Emulated(Emulation::Private { emulator })) => Some(emulator),
            Ok(How::Emulated(Emulation::Kernel)) => None,
            _ => return "emulated".to_string(),
        };
        let workers = self.clone();
        let found = tokio::task::spawn_blocking(move || {
            let kernels = || Some(Binfmt::at(DEFAULT_MOUNT).entry(&named).ok()??.interpreter);
            let path = path.or_else(kernels);
            let version = path.and_then(|path| workers.versions().of(architecture, &path));
            // The kernel may have opened it in another root.
            version.unwrap_or_else(|| format!("{named} of the kernel"))
        });
        found.await.unwrap_or_else(|_| "emulated".to_string())
    }
}
