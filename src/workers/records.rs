//! What workers say of themselves.

use crate::{Listed, WorkerError};
use crosskit_api::{pb, types};
use crosskit_exec::devices::{Device, Registry};
use crosskit_platforms::Platform;
use rand::Rng;
use std::collections::BTreeMap;
use std::path::Path;

/// The file that keeps a worker's id between starts.
const ID_FILE: &str = "workerid";

/// The worker's id: made at the first start, then kept.
pub fn worker_id(root: &Path) -> Result<String, WorkerError> {
    let path = root.join(ID_FILE);
    if let Ok(known) = std::fs::read_to_string(&path)
        && !known.trim().is_empty()
    {
        return Ok(known.trim().to_string());
    }
    const DIGITS: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let mut random = rand::rng();
    let id: String = (0..25).map(|_| char::from(DIGITS[random.random_range(0..DIGITS.len())])).collect();
    std::fs::write(&path, &id).map_err(|source| WorkerError::Folder { path, source })?;
    Ok(id)
}

/// Labels by which clients and filters know a worker.
pub fn labels(snapshotter: &str, network: &str, process_mode: &str) -> BTreeMap<String, String> {
    let hostname = rustix::system::uname().nodename().to_string_lossy().into_owned();
    [
        ("org.mobyproject.buildkit.worker.executor", "oci"),
        ("org.mobyproject.buildkit.worker.hostname", hostname.as_str()),
        ("org.mobyproject.buildkit.worker.network", network),
        ("org.mobyproject.buildkit.worker.oci.process-mode", process_mode),
        ("org.mobyproject.buildkit.worker.selinux.enabled", "false"),
        ("org.mobyproject.buildkit.worker.snapshotter", snapshotter),
    ]
    .into_iter()
    .map(|(k, v)| (k.to_string(), v.to_string()))
    .collect()
}

/// A platform as a message.
pub fn message(platform: &Platform) -> pb::Platform {
    pb::Platform {
        os: platform.os.clone(),
        architecture: platform.architecture.clone(),
        variant: platform.variant.clone(),
        os_version: platform.os_version.clone(),
        os_features: platform.os_features.clone(),
    }
}

/// Devices as clients see them.
pub fn devices(known: &Registry) -> Vec<types::CdiDevice> {
    let device = |device: &Device| types::CdiDevice {
        name: device.name.clone(),
        auto_allow: device.auto_allow,
        annotations: device.annotations.clone(),
        on_demand: false,
    };
    known.list().map(device).collect()
}

/// A worker on another machine as clients see it.
pub fn of_remote(worker: Listed) -> types::WorkerRecord {
    let mut labels = worker.facts.as_ref().map(|facts| facts.labels.clone()).unwrap_or_default();
    let mut say = |key: &str, value: String| {
        labels.insert(format!("dev.crosskit.farm.{key}"), value);
    };
    say("worker", worker.view.state.name.clone());
    say("state", worker.state.to_string());
    if let Some(slots) = worker.view.state.slots {
        say("slots", slots.to_string());
    }
    if let Some(why) = worker.why {
        say("why", why);
    }
    types::WorkerRecord {
        id: worker.facts.map(|facts| facts.id).unwrap_or_else(|| worker.view.state.name.clone()),
        labels,
        platforms: worker.view.state.platforms.iter().map(message).collect(),
        ..types::WorkerRecord::default()
    }
}
