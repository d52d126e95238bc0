//! What a worker does not let steps do: known from its kind, or learnt when it refuses.

use super::{RemoteError, RemoteWorker};
use crosskit_api::pb;
use crosskit_scheduler::Entitlements;
use std::sync::PoisonError;

/// How a daemon says that it does not let a build do something (BuildKit `util/entitlements`).
const REFUSAL: &str = "granting entitlement";

impl RemoteWorker {
    /// Why a step must not go to this worker though it could run it; none if it may.
    ///
    /// # Errors
    /// A worker that can't be asked what it is.
    pub async fn unfit_for(&self, exec: &pb::ExecOp) -> Result<Option<String>, RemoteError> {
        let asked = Entitlements::of(exec);
        let lacking = asked.without(asked.without(self.lacks()));
        if !lacking.is_empty() {
            return Ok(Some(format!("it does not allow {lacking}")));
        }
        if exec.secretenv.is_empty() || self.options().allow_secret_env || self.facts().await?.is_crosskit {
            return Ok(None);
        }
        Ok(Some(
            "a daemon that is not crosskit's writes secret environment variables into a file on its disk: \
             set allow-secret-env = true to let it, or mount the secret as a file"
                .to_string(),
        ))
    }

    /// What it has turned out not to let steps do since it was last seen to come up.
    pub fn lacks(&self) -> Entitlements {
        *self.0.lacks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Learns from a refusal what the worker does not let steps do, so that such steps do not go there again.
    pub(super) fn learn_refusal(&self, message: &str, asked: &[String]) {
        if !message.contains(REFUSAL) {
            return;
        }
        let mut refused = Entitlements::NONE;
        for name in asked.iter().filter(|name| message.contains(name.as_str())) {
            refused |= match name.as_str() {
                "network.host" => Entitlements::HOST_NETWORK,
                "security.insecure" => Entitlements::INSECURE,
                _ => Entitlements::DEVICES,
            };
        }
        *self.0.lacks.lock().unwrap_or_else(PoisonError::into_inner) |= refused;
        // Those who follow it look at it anew.
        self.0.watch.nudge();
    }
}

#[cfg(test)]
mod tests {
    use super::super::RemoteOptions;
    use super::*;

    #[tokio::test]
    async fn what_a_worker_refuses_once_does_not_go_there_again() {
        let worker = RemoteWorker::new(RemoteOptions::new("w", "unix:///nowhere.sock")).unwrap();
        let mut exec = pb::ExecOp::default();
        exec.set_network(pb::NetMode::Host);
        assert_eq!(worker.unfit_for(&exec).await.unwrap(), None);
        let mut seen = worker.watch();
        seen.borrow_and_update();
        let asked = ["network.host", "security.insecure"].map(str::to_string);
        worker.learn_refusal("network.host: no such device", &asked);
        assert_eq!(worker.lacks(), Entitlements::NONE);
        let refusal = "granting entitlement network.host is not allowed by build daemon configuration";
        worker.learn_refusal(refusal, &asked);
        assert_eq!(worker.lacks(), Entitlements::HOST_NETWORK);
        assert!(seen.has_changed().unwrap());
        assert_eq!(worker.unfit_for(&exec).await.unwrap().unwrap(), "it does not allow network.host");
        exec.set_network(pb::NetMode::Unset);
        assert_eq!(worker.unfit_for(&exec).await.unwrap(), None);
    }
}
