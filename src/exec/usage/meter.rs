//! Looks at a step while it runs.

use std::{
    fs,
    os::unix::fs::FileExt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use super::{
    Accounted, Processors, Rhythm, Sample, Traffic, Usage,
    accounted::own_peak,
    cgroups::Folders,
    machine::{processors, recent_processors},
    traffic,
};
use crate::cgroups;

/// Samples of a step at most, without the last (BuildKit executor/resources).
const MOST: usize = 10;
/// Bytes of a file about interfaces at most: some hundreds of them.
const TRAFFIC_BYTES: usize = 64 << 10;

/// Has it found out what a process uses: given to it before it runs, asked after it has ended. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Meter(Arc<Known>);

#[derive(Debug, Default)]
struct Known {
    usage: Mutex<Option<Arc<Usage>>>,
    /// Something else than the usual time between two looks.
    every: Option<Duration>,
    /// How many looks there were.
    looks: AtomicUsize,
}

impl Meter {
    /// One that looks at other times than every two seconds.
    pub fn every(every: Duration) -> Self {
        Meter(Arc::new(Known { every: Some(every), ..Known::default() }))
    }

    /// How often the process was looked at so far.
    pub fn looks(&self) -> usize {
        self.0.looks.load(Ordering::Relaxed)
    }

    /// What the process has used. None if it has not ended, or nothing could be found out.
    pub fn usage(&self) -> Option<Arc<Usage>> {
        self.0.usage.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Counters of the interfaces of a network namespace: its `/proc/net/dev`, opened in it.
pub(crate) type Interfaces = Arc<fs::File>;

/// What they say now.
fn passed(interfaces: &Interfaces) -> Option<Traffic> {
    let mut bytes = vec![0; TRAFFIC_BYTES];
    let mut at = 0;
    loop {
        match interfaces.read_at(bytes.get_mut(at..)?, at as u64).ok()? {
            0 => break,
            read => at += read,
        }
    }
    Some(traffic(&String::from_utf8_lossy(bytes.get(..at)?)))
}

/// A process that is looked at.
pub(crate) struct Metering {
    meter: Meter,
    folders: Option<Folders>,
    interfaces: Option<Interfaces>,
    /// What they said before.
    passed: Option<Traffic>,
    /// What the processors had done before.
    before: Option<Processors>,
    taken: Rhythm<Sample>,
}

impl Metering {
    /// Of a process that is about to start. Blocks on files in memory only.
    pub(crate) fn start(meter: Meter, cgroup: Option<&str>, interfaces: Option<Interfaces>) -> Self {
        let hierarchies = std::path::Path::new(cgroups::MOUNT);
        let rhythm = Rhythm::new(MOST);
        Metering {
            folders: cgroup.map(|path| Folders::new(hierarchies, path, cgroups::is_unified())),
            passed: interfaces.as_ref().and_then(passed),
            interfaces,
            before: recent_processors(),
            taken: match meter.0.every {
                Some(every) => rhythm.every(every),
                None => rhythm,
            },
            meter,
        }
    }

    /// Looks at the process until it has ended.
    pub(crate) async fn until<T>(&mut self, ended: impl Future<Output = T>) -> T {
        tokio::pin!(ended);
        loop {
            tokio::select! {
                ended = &mut ended => return ended,
                () = self.look() => {}
            }
        }
    }

    /// Waits until the next look is due, and looks.
    async fn look(&mut self) {
        tokio::time::sleep(self.taken.pause()).await;
        let (folders, interfaces, before) = (self.folders.clone(), self.interfaces.clone(), self.passed);
        let looking = move || {
            let told = folders.and_then(|folders| folders.sample());
            let network = interfaces.and_then(|interfaces| passed(&interfaces));
            if told.is_none() && network.is_none() {
                return None;
            }
            let told = told.unwrap_or_else(|| Sample::at(SystemTime::now()));
            Some(Sample { network: network.map(|now| now.since(before.unwrap_or_default())), ..told })
        };
        if let Ok(Some(sample)) = tokio::task::spawn_blocking(looking).await {
            self.taken.add(sample);
            self.meter.0.looks.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Notes what it has used. Blocks on files in memory only.
    pub(crate) fn end(self, accounted: Option<Accounted>) {
        let network = self.interfaces.as_ref().and_then(passed);
        let mut samples = self.taken.samples().to_vec();
        // The clock of the machine and its cores tell nothing of what takes less than their steps.
        let processors = match (samples.is_empty(), self.before) {
            (false, Some(before)) => processors().map(|now| now.since(before)),
            _ => None,
        };
        if let Some(accounted) = accounted {
            let last = accounted.sample(SystemTime::now(), samples.last(), own_peak());
            let before = self.passed.unwrap_or_default();
            samples.push(Sample { network: network.map(|now| now.since(before)), ..last });
        }
        if samples.is_empty() {
            return;
        }
        let usage = Arc::new(Usage { samples, processors });
        *self.meter.0.usage.lock().unwrap_or_else(PoisonError::into_inner) = Some(usage);
    }
}
