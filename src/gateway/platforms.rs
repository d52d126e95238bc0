//! Platforms of one build that fail while others do not.

use crate::GatewayError;
use crate::bridge::Bridge;
use crate::result::{FrontendResult, Handle, Refs};
use indexmap::IndexMap;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::PoisonError;
use tonic::Code;

/// What becomes of a build's other platforms when one has failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFailure {
    /// They are stopped.
    #[default]
    Fail,
    /// They go on to their ends.
    KeepGoing {
        /// Whether those that finish are a result without the others.
        allow_partial: bool,
    },
}

/// Platforms that have failed, and why.
pub type Failed = IndexMap<String, GatewayError>;

impl Bridge {
    /// Whether platforms go on when one has failed.
    pub(crate) fn keeps_going(&self) -> bool {
        self.shared().on_failure != OnFailure::Fail
    }

    /// The platforms of this build that have failed so far.
    pub fn failed(&self) -> Failed {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes that a platform has failed; the first reason counts.
    pub(crate) fn platform_failed(&self, id: &str, error: GatewayError) {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.entry(id.to_string()).or_insert(error);
    }

    /// Computes everything that a result needs. Where platforms go on when one has failed, that is
    /// noted, and an error only if nothing is left.
    ///
    /// # Errors
    /// The first failure of a vertex, or those of all platforms.
    pub async fn compute(&self, result: &FrontendResult) -> Result<(), GatewayError> {
        let handles = match &result.refs {
            Refs::ByPlatform(handles) if self.keeps_going() => handles,
            _ => {
                let all = result.handles().into_iter().map(Handle::result);
                return Ok(futures::future::try_join_all(all).await.map(drop)?);
            }
        };
        let each = handles.iter().map(|(id, handle)| async move {
            match handle {
                Some(handle) => (id, handle.result().await.map(drop)),
                None => (id, Ok(())),
            }
        });
        let mut finished = 0;
        for (id, outcome) in futures::future::join_all(each).await {
            match outcome.map_err(GatewayError::from) {
                Ok(()) => finished += 1,
                // Not a platform's failure.
                Err(canceled) if canceled.code() == Code::Cancelled => return Err(canceled),
                Err(error) => self.platform_failed(id, error),
            }
        }
        match finished {
            0 if !handles.is_empty() => Err(failure(&self.failed(), &[])),
            _ => Ok(()),
        }
    }
}

/// One error for all platforms that have failed, with the details of each.
pub fn failure(failed: &Failed, finished: &[&str]) -> GatewayError {
    let mut each = failed.iter();
    let Some((_, first)) = each.next() else { return GatewayError::plain("no platform has failed") };
    if finished.is_empty() && each.clone().all(|(_, other)| other.message() == first.message()) {
        return first.clone();
    }
    let mut text = match finished {
        [] => format!("all {} platforms failed", failed.len()),
        _ => format!("{} of {} platforms failed", failed.len(), failed.len() + finished.len()),
    };
    for (at, (id, error)) in failed.iter().enumerate() {
        let mark = if at == 0 { ": " } else { "; " };
        text.push_str(&format!("{mark}{id}: {}", error.message()));
    }
    if !finished.is_empty() {
        let finished = finished.join(", ");
        text.push_str(&format!(
            "; finished: {finished}; nothing is published, as farm.allow-partial is not set"
        ));
    }
    let error = GatewayError::new(first.code(), text).with_details(first.details().clone());
    each.fold(error, |error, (_, other)| error.with_details(other.details().clone()))
}

/// Takes away what is said of platforms that are no part of a result.
pub fn forget(metadata: &mut BTreeMap<String, Vec<u8>>, failed: &Failed) {
    let of_failed = |key: &str| key.split_once('/').is_some_and(|(_, id)| failed.contains_key(id));
    metadata.retain(|key, _| !of_failed(key));
    let Some(listed) = metadata.get_mut("refs.platforms") else { return };
    // What is no list of platforms is told of when it is read.
    let Ok(mut value) = serde_json::from_slice::<Value>(listed) else { return };
    if let Some(platforms) = value.get_mut("Platforms").and_then(Value::as_array_mut) {
        platforms.retain(|platform| platform["ID"].as_str().is_none_or(|id| !failed.contains_key(id)));
        *listed = value.to_string().into_bytes();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(all: &[(&str, &str)]) -> Failed {
        all.iter().map(|(id, why)| (id.to_string(), GatewayError::plain(*why))).collect()
    }

    #[test]
    fn every_failed_platform_is_named_and_what_finished() {
        let two = failed(&[("linux/riscv64", "exit code: 1"), ("linux/s390x", "no match")]);
        assert_eq!(
            failure(&two, &["linux/amd64"]).message(),
            "2 of 3 platforms failed: linux/riscv64: exit code: 1; linux/s390x: no match; finished: linux/amd64; \
             nothing is published, as farm.allow-partial is not set"
        );
        let all = "all 2 platforms failed: linux/riscv64: exit code: 1; linux/s390x: no match";
        assert_eq!(failure(&two, &[]).message(), all);
        let same = failed(&[("linux/amd64", "unknown instruction"), ("linux/arm64", "unknown instruction")]);
        assert_eq!(failure(&same, &[]).message(), "unknown instruction");
    }

    #[test]
    fn nothing_is_said_of_platforms_that_are_gone() {
        let mut metadata = BTreeMap::from([
            ("containerimage.config/linux/arm/v7".to_string(), b"{}".to_vec()),
            ("containerimage.config/linux/arm".to_string(), b"{}".to_vec()),
            ("frontend.x".to_string(), b"y".to_vec()),
            (
                "refs.platforms".to_string(),
                br#"{"Platforms":[{"ID":"linux/arm","Platform":{}},{"ID":"linux/arm/v7","Platform":{}}]}"#
                    .to_vec(),
            ),
        ]);
        forget(&mut metadata, &failed(&[("linux/arm", "why")]));
        let keys: Vec<_> = metadata.keys().map(String::as_str).collect();
        assert_eq!(keys, ["containerimage.config/linux/arm/v7", "frontend.x", "refs.platforms"]);
        assert_eq!(metadata["refs.platforms"], br#"{"Platforms":[{"ID":"linux/arm/v7","Platform":{}}]}"#);
    }
}
