//! Which platforms' programs run here, and how.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use crosskit_platforms::{Architecture, Matcher, Platform};
use crosskit_qemu::{
    Detection, Emulators, PrivateBinfmt, Support,
    detect::{Ways, detect},
};
use tokio_util::task::TaskTracker;

use crate::{Error, Result};

/// How long what was found out counts: as long as stock BuildKit believes it.
const BELIEVED: Duration = Duration::from_secs(20);
/// How long it counts that a platform does not run: somebody may just have installed an emulator.
const DOUBTED: Duration = Duration::from_millis(500);

/// How programs of a platform run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum How {
    /// By the processor itself.
    Native,
    /// By an emulator.
    Emulated(Emulation),
}

/// Where the emulator comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Emulation {
    /// The machine's own binfmt_misc entry.
    Kernel,
    /// An entry in the user namespace of the step.
    Private {
        /// The emulator.
        emulator: PathBuf,
    },
}

impl From<&Support> for How {
    fn from(support: &Support) -> Self {
        match support {
            Support::Native => Self::Native,
            Support::Kernel => Self::Emulated(Emulation::Kernel),
            Support::Private { emulator } => {
                Self::Emulated(Emulation::Private { emulator: emulator.clone() })
            }
        }
    }
}

/// What this machine runs, asked again now and then. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Platforms {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    folders: Vec<PathBuf>,
    ways: Ways,
    /// Those that are waited for when the executor shuts down: finding out runs programs.
    tasks: TaskTracker,
    /// The lock is held while finding out, so that many that ask at once wait for one answer.
    found: tokio::sync::Mutex<Option<(Instant, Arc<Detection>)>>,
}

impl Platforms {
    pub(crate) fn new(folders: Vec<PathBuf>, ways: Ways, tasks: TaskTracker) -> Self {
        let found = tokio::sync::Mutex::new(None);
        Self { shared: Arc::new(Shared { folders, ways, tasks, found }) }
    }

    /// What runs here, found out at most this long ago.
    async fn detection(&self, max_age: Duration) -> Arc<Detection> {
        let mut found = self.shared.found.lock().await;
        if let Some((when, detection)) = &*found
            && when.elapsed() < max_age
        {
            return detection.clone();
        }
        let (folders, ways) = (self.shared.folders.clone(), self.shared.ways);
        let fresh = self.shared.tasks.spawn_blocking(move || detect(&Emulators::find(&folders), ways)).await;
        let fresh = Arc::new(fresh.unwrap_or_else(|_| Detection {
            platforms:
                crosskit_platforms::host().into_iter().map(|platform| (platform, Support::Native)).collect(),
            private: None,
            problems: Vec::new(),
        }));
        *found = Some((Instant::now(), fresh.clone()));
        fresh
    }

    /// What was found out last, however long ago; if that is too long, finds out again behind the caller's back.
    async fn last(&self) -> Arc<Detection> {
        let detection = self.detection(Duration::MAX).await;
        let old = self
            .shared
            .found
            .try_lock()
            .is_ok_and(|found| found.as_ref().is_some_and(|(when, _)| when.elapsed() > BELIEVED));
        if old {
            let platforms = self.clone();
            tokio::spawn(async move { platforms.detection(BELIEVED).await });
        }
        detection
    }

    pub(crate) async fn list(&self) -> Vec<(Platform, How)> {
        let detection = self.last().await;
        detection.platforms.iter().map(|(platform, support)| (platform.clone(), support.into())).collect()
    }

    /// How a platform's programs run, as far as was found out last; asks again before it says no.
    pub(crate) async fn how(&self, wanted: &Platform) -> Result<How> {
        let wanted = wanted.normalize();
        if let Some(support) = support(&*self.last().await, &wanted) {
            return Ok(support.into());
        }
        Ok(self.way(&wanted).await?.how)
    }

    /// How a platform's programs run, to run some now: with the private binfmt_misc to join if that is how.
    pub(crate) async fn way(&self, wanted: &Platform) -> Result<Way> {
        let wanted = wanted.normalize();
        if wanted == crosskit_platforms::native() {
            return Ok(Way { how: How::Native, detection: None });
        }
        for max_age in [BELIEVED, DOUBTED] {
            let detection = self.detection(max_age).await;
            if let Some(support) = support(&detection, &wanted) {
                let private = matches!(support, Support::Private { .. });
                return Ok(Way { how: support.into(), detection: private.then_some(detection) });
            }
        }
        let detection = self.detection(Duration::MAX).await;
        let known = Architecture::by_name(&wanted.architecture);
        let problem = detection.problems.iter().find(|(name, _)| *name == wanted.architecture);
        let reason = match (problem, known) {
            (Some((_, problem)), _) => problem.clone(),
            (None, Some(known)) if wanted.os == "linux" => {
                format!("the kernel has no working binfmt_misc entry and there is no qemu-{}", known.qemu)
            }
            _ => "no emulator for it is known".to_owned(),
        };
        Err(Error::CannotRun { platform: wanted.format(), architecture: wanted.architecture, reason })
    }
}

/// How a step's programs run.
#[derive(Debug)]
pub(crate) struct Way {
    pub(crate) how: How,
    detection: Option<Arc<Detection>>,
}

impl Way {
    /// The binfmt_misc that the step has to join.
    pub(crate) fn private(&self) -> Option<&PrivateBinfmt> {
        self.detection.as_ref()?.private.as_ref()
    }
}

/// The first listed platform of the same architecture that runs what is wanted. Emulators take any variant: their
/// processor has everything.
fn support<'a>(detection: &'a Detection, wanted: &Platform) -> Option<&'a Support> {
    let runs = |listed: &Platform, support: &Support| {
        let same = listed.os == wanted.os && listed.architecture == wanted.architecture;
        same && (*support != Support::Native || Matcher::only(listed).matches(wanted))
    };
    detection.platforms.iter().find(|(listed, support)| runs(listed, support)).map(|(_, support)| support)
}
