//! Steps that reach the network through a proxy only: whose rules count for their requests.

use crosskit_proxynet::{Judge, Record, Rules};
use crosskit_solver::JobGroup;
use futures::future::BoxFuture;
use std::sync::Arc;

/// The name of no rules: whatever is asked for may pass.
pub const NO_RULES: &str = "none";

/// What a build keeps for rules under [`key`].
pub struct Decides(pub Arc<dyn Judge>);

/// The name under which a build keeps who decides by rules.
pub fn key(rules: &str) -> String {
    format!("proxy rules {rules}")
}

/// The rules of this name, for a step that these builds want.
pub(crate) fn rules(name: &str, jobs: &JobGroup, record: &Arc<Record>) -> Rules {
    let judge = (name != NO_RULES).then(|| {
        let jobs = jobs.clone();
        Arc::new(ByBuilds { jobs, key: key(name) }) as Arc<dyn Judge>
    });
    Rules { judge, record: Arc::clone(record) }
}

/// Lets any of the builds decide that want a step: they do so by the same rules, and each may leave.
struct ByBuilds {
    jobs: JobGroup,
    key: String,
}

impl Judge for ByBuilds {
    fn judge<'a>(&'a self, url: &'a str) -> BoxFuture<'a, Result<Option<String>, String>> {
        Box::pin(async move {
            let decides = self.jobs.value::<Decides>(&self.key);
            let decides = decides.ok_or_else(|| format!("{url}: no build is left that could allow it"))?;
            decides.0.judge(url).await
        })
    }
}
