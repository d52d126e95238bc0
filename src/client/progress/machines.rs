//! Where steps of a platform run: natively, emulated, or on another machine.

use crosskit_api::types::WorkerRecord;
use crosskit_platforms::{Architecture, Platform};

/// How a platform's steps are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Running {
    /// By this machine's own processor.
    Native,
    /// By a machine of that architecture elsewhere.
    Remote,
    /// By this machine under an emulator.
    Emulated,
}

impl Running {
    /// The word for people.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Running::Native => "native",
            Running::Remote => "remote",
            Running::Emulated => "emulated",
        }
    }
}

/// The label by which a worker says that it is another machine (`remote`), or only this one
/// under an emulator (`emulated`).
pub(crate) const KIND_LABEL: &str = "crosskit.worker.kind";

/// The best way in which one of the workers runs a platform, if any does.
pub(crate) fn running(workers: &[WorkerRecord], platform: &Platform) -> Option<Running> {
    let wanted = platform.normalize();
    workers.iter().filter_map(|worker| by_worker(worker, &wanted)).min()
}

fn by_worker(worker: &WorkerRecord, wanted: &Platform) -> Option<Running> {
    let of =
        |p: &crosskit_api::pb::Platform| Platform::new(&*p.os, &*p.architecture, &*p.variant).normalize();
    let listed =
        worker.platforms.iter().map(of).any(|p| p.os == wanted.os && p.architecture == wanted.architecture);
    if !listed {
        return None;
    }
    match worker.labels.get(KIND_LABEL).map(String::as_str) {
        Some("remote") => return Some(Running::Remote),
        Some("emulated") => return Some(Running::Emulated),
        _ => {}
    }
    // The first platform in a worker's list is its machine's own.
    let own = worker.platforms.first().map(of)?;
    let (own, wanted) =
        (Architecture::by_name(&own.architecture)?, Architecture::by_name(&wanted.architecture)?);
    let native = own.may_run_natively(wanted);
    Some(if native { Running::Native } else { Running::Emulated })
}

/// The platform in front of a step's name, as in `[linux/arm64 build 2/3] RUN make`.
pub(crate) fn platform_of(step: &str) -> Option<&str> {
    let inside = step.strip_prefix('[')?.split(']').next()?;
    let first = inside.split(' ').next()?;
    let (os, architecture) = first.split_once('/')?;
    // Not `1/3`, nor a path.
    let known = Architecture::by_name(architecture.split('/').next()?).is_some();
    (known && os.chars().all(|c| c.is_ascii_lowercase())).then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crosskit_api::pb;

    fn worker(kind: Option<&str>, platforms: &[&str]) -> WorkerRecord {
        let platform = |text: &&str| {
            let parsed = Platform::parse(text).unwrap();
            pb::Platform {
                os: parsed.os,
                architecture: parsed.architecture,
                variant: parsed.variant,
                ..Default::default()
            }
        };
        WorkerRecord {
            labels: kind.map(|k| (KIND_LABEL.to_owned(), k.to_owned())).into_iter().collect(),
            platforms: platforms.iter().map(platform).collect(),
            ..Default::default()
        }
    }

    #[test]
    fn the_best_worker_counts() {
        let local = worker(None, &["linux/amd64", "linux/arm64", "linux/386", "linux/s390x"]);
        let remote = worker(Some("remote"), &["linux/arm64"]);
        let how =
            |workers: &[WorkerRecord], platform: &str| running(workers, &Platform::parse(platform).unwrap());
        let local_only = [local.clone()];
        assert_eq!(how(&local_only, "linux/amd64"), Some(Running::Native));
        assert_eq!(how(&local_only, "linux/arm64"), Some(Running::Emulated));
        assert_eq!(how(&local_only, "linux/riscv64"), None);
        let both = [local, remote];
        assert_eq!(how(&both, "linux/arm64"), Some(Running::Remote));
        assert_eq!(how(&both, "linux/amd64"), Some(Running::Native));
    }

    #[test]
    fn names_tell_the_platform() {
        assert_eq!(platform_of("[linux/arm64 build 2/3] RUN x"), Some("linux/arm64"));
        assert_eq!(platform_of("[linux/arm/v7 internal] load metadata"), Some("linux/arm/v7"));
        assert_eq!(platform_of("[linux/amd64] RUN x"), Some("linux/amd64"));
        for none in ["[build 2/3] RUN x", "[2/3] RUN x", "[internal] load", "exporting to image", "[a/b c] x"]
        {
            assert_eq!(platform_of(none), None, "{none}");
        }
    }
}
