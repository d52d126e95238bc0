//! What workers say of themselves.

use crate::{Listed, WorkerError};
use crosskit_api::{pb, types};
use crosskit_exec::devices::{Device, Registry};
use crosskit_platforms::Platform;
use rand::Rng;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

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

/// A folder in memory for this daemon alone, named after its root folder so that a daemon that
/// was killed finds what it left there.
pub fn volatile_folder(base: &Path, root: &Path) -> Result<PathBuf, WorkerError> {
    use sha2::Digest;
    let name = hex::encode(&sha2::Sha256::digest(root.as_os_str().as_encoded_bytes())[..8]);
    let path = base.join(name);
    let make = || {
        use std::os::unix::fs::DirBuilderExt;
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&path)
    };
    let failed = |source| WorkerError::Folder { path: path.clone(), source };
    make().map_err(failed)?;
    in_memory(&path).map_err(|e| failed(e.into()))?;
    Ok(path)
}

/// The type of tmpfs in statfs(2).
const TMPFS_MAGIC: i64 = 0x0102_1994;

/// Makes sure that what is written to a folder never reaches a disk: secrets go there.
fn in_memory(path: &Path) -> rustix::io::Result<()> {
    use rustix::mount::MountFlags;
    #[allow(clippy::useless_conversion, reason = "other architectures have it as 32 bits")]
    let kind = i64::from(rustix::fs::statfs(path)?.f_type);
    if kind == TMPFS_MAGIC {
        return Ok(());
    }
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    rustix::mount::mount("tmpfs", path, "tmpfs", flags, Some(c"mode=0700"))
}

/// Where it is noted what runs: beside the daemon's folder in memory, for that may be a mount that
/// nobody but this daemon sees, and the next one has to find the notes.
pub fn ledger(volatile: &Path) -> PathBuf {
    volatile.with_extension("running")
}

/// Takes a daemon's folder in memory away, once nothing runs any more.
pub fn leave_memory(path: &Path) {
    let _ = rustix::mount::unmount(path, rustix::mount::UnmountFlags::DETACH);
    let _ = std::fs::remove_dir_all(path);
    // Only if nothing is noted in it.
    let _ = std::fs::remove_dir(ledger(path));
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
