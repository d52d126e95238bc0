//! What a worker says of itself.

use super::connection::Line;
use super::{RemoteError, RemoteWorker};
use crate::workers::from_message;
use crosskit_api::control::{InfoRequest, ListWorkersRequest};
use crosskit_api::types::BuildkitVersion;
use crosskit_platforms::Platform;
use std::collections::BTreeMap;
use std::sync::PoisonError;
use tonic::Status;

/// How our own daemon names its package.
const OUR_PACKAGE: &str = "crosskit";

/// The label by which our own daemon says how many steps it runs at once.
pub(crate) const PARALLELISM: &str = "dev.crosskit.worker.parallelism";

/// What our own daemon's labels for platforms begin with.
pub(crate) const PLATFORM: &str = "dev.crosskit.platform.";

/// The value of such a label where an emulator runs the platform.
pub(crate) const EMULATED: &str = "emulated";

/// What a worker says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Its id, which stays the same over restarts.
    pub id: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// What it runs, the first natively; in normal form.
    pub platforms: Vec<Platform>,
    /// Its version, `package version`.
    pub version: String,
    /// Whether it is a daemon of ours.
    pub is_crosskit: bool,
    /// How many steps it runs at once, if it says so.
    pub slots: Option<usize>,
}

impl Facts {
    /// What its processor runs by itself. Our daemon tells what it emulates; of others, which do
    /// not, only the first platform and its variants are taken for native.
    pub fn native_platforms(&self) -> Vec<Platform> {
        let emulated = |platform: &Platform| {
            let label = self.labels.get(&format!("{PLATFORM}{}", platform.folder_name()));
            label.is_some_and(|how| how == EMULATED)
        };
        let Some(first) = self.platforms.first() else { return Vec::new() };
        let like_first =
            |platform: &Platform| platform.os == first.os && platform.architecture == first.architecture;
        let native = |platform: &&Platform| match self.is_crosskit {
            true => !emulated(platform),
            false => like_first(platform),
        };
        self.platforms.iter().filter(native).cloned().collect()
    }
}

impl RemoteWorker {
    /// What it is to run: as configured, else what it says is native.
    pub fn platforms(&self, facts: &Facts) -> Vec<Platform> {
        match self.options().platforms.as_slice() {
            [] => facts.native_platforms(),
            configured => configured.to_vec(),
        }
    }

    /// Asks the worker what it is. A passed probe is remembered for later steps.
    ///
    /// # Errors
    /// [`RemoteError::Worker`] that says plainly why it can't be used: nobody answers, a
    /// certificate is refused, it has no worker.
    pub async fn probe(&self) -> Result<Facts, RemoteError> {
        let limit = self.options().dead_after;
        let asked = tokio::time::timeout(limit, self.ask()).await;
        let facts = asked.map_err(|_| self.fault(format!("no answer within {limit:?}")))??;
        *self.0.facts.lock().unwrap_or_else(PoisonError::into_inner) = Some(facts.clone());
        Ok(facts)
    }

    /// What the worker said when it was last asked.
    pub(super) async fn facts(&self) -> Result<Facts, RemoteError> {
        let known = self.0.facts.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match known {
            Some(facts) => Ok(facts),
            None => self.probe().await,
        }
    }

    async fn ask(&self) -> Result<Facts, RemoteError> {
        let line = self.0.target.connect().await.map_err(|why| self.fault(why))?;
        let mut control = line.control();
        let listed = control.list_workers(ListWorkersRequest::default()).await;
        let records = listed.map_err(|status| self.refused(&line, &status))?.into_inner().record;
        let record =
            records.into_iter().next().ok_or_else(|| self.fault("the daemon there has no worker"))?;
        let version = match record.buildkit_version {
            Some(version) => version,
            // Old daemons say it only when asked; very old ones do not say it at all.
            None => match control.info(InfoRequest {}).await {
                Ok(info) => info.into_inner().buildkit_version.unwrap_or_default(),
                Err(_) => BuildkitVersion::default(),
            },
        };
        Ok(Facts {
            id: record.id,
            slots: record.labels.get(PARALLELISM).and_then(|text| text.parse().ok()),
            labels: record.labels,
            platforms: record.platforms.iter().map(|p| from_message(p).normalize()).collect(),
            is_crosskit: version.package == OUR_PACKAGE,
            version: format!("{} {}", version.package, version.version).trim().to_string(),
        })
    }

    fn refused(&self, line: &Line, status: &Status) -> RemoteError {
        let plain = || crosskit_api::errors::describe(status.code(), status.message());
        self.fault(line.broken(status).unwrap_or_else(plain))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(is_crosskit: bool, labels: &[(&str, &str)]) -> Facts {
        let platforms = ["linux/amd64", "linux/amd64/v2", "linux/386", "linux/arm64"];
        Facts {
            id: "id".into(),
            labels: labels.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
            platforms: platforms.map(|text| Platform::parse(text).unwrap().normalize()).to_vec(),
            version: String::new(),
            is_crosskit,
            slots: None,
        }
    }

    #[test]
    fn emulated_platforms_are_not_native_whether_they_are_told_or_not() {
        let names =
            |facts: Facts| facts.native_platforms().iter().map(Platform::format_all).collect::<Vec<_>>();
        assert_eq!(names(facts(false, &[])), ["linux/amd64", "linux/amd64/v2"]);
        let labels = [("dev.crosskit.platform.linux_arm64", "emulated")];
        assert_eq!(names(facts(true, &labels)), ["linux/amd64", "linux/amd64/v2", "linux/386"]);
    }
}
