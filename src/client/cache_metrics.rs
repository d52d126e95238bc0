//! How many steps of a build came from the cache, as `--debug-json-cache-metrics` tells.

use crosskit_api::control::StatusResponse;
use indexmap::IndexMap;
use std::time::Instant;

/// Collects what the numbers are made of.
pub(crate) struct CacheMetrics {
    since: Instant,
    steps: IndexMap<String, Step>,
}

#[derive(Default)]
struct Step {
    name: String,
    cached: bool,
    completed: bool,
}

#[derive(Default, serde::Serialize)]
struct Numbers {
    total: u64,
    completed: u64,
    user_total: u64,
    user_cached: u64,
    user_completed: u64,
    user_cacheable: u64,
    from: u64,
    miss: u64,
    client_duration_ms: u64,
}

impl CacheMetrics {
    /// Nothing yet; time counts from now.
    pub(crate) fn new() -> CacheMetrics {
        CacheMetrics { since: Instant::now(), steps: IndexMap::new() }
    }

    /// Takes a report in.
    pub(crate) fn update(&mut self, status: &StatusResponse) {
        for vertex in &status.vertexes {
            let step = self.steps.entry(vertex.digest.clone()).or_default();
            if step.name.is_empty() {
                step.name.clone_from(&vertex.name);
            }
            step.cached |= vertex.cached;
            step.completed |= vertex.completed.is_some();
        }
    }

    /// A line for each step that ran, and a line of JSON.
    pub(crate) fn render(&self) -> String {
        let mut out = String::new();
        let mut n = Numbers {
            client_duration_ms: u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX),
            ..Numbers::default()
        };
        for step in self.steps.values() {
            n.total += 1;
            n.completed += u64::from(step.completed);
            let own = ["[internal]", "[auth]", "importing cache", "exporting "]
                .iter()
                .any(|p| step.name.starts_with(p));
            if own {
                continue;
            }
            // Base images are looked up, not built.
            let from = step.name.starts_with('[') && step.name.contains("] FROM");
            n.user_total += 1;
            n.user_completed += u64::from(step.completed);
            n.user_cached += u64::from(step.cached);
            n.from += u64::from(from);
            n.user_cacheable += u64::from(!from);
            if !step.cached && !from {
                n.miss += 1;
                out += &format!("cache miss: {}\n", step.name);
            }
        }
        out + &serde_json::to_string(&n).unwrap_or_default() + "\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crosskit_api::control::Vertex;

    #[test]
    fn steps_are_counted() {
        let vertex = |digest: &str, name: &str, cached, done: bool| Vertex {
            digest: digest.into(),
            name: name.into(),
            cached,
            completed: done.then(Default::default),
            ..Default::default()
        };
        let mut metrics = CacheMetrics::new();
        metrics.update(&StatusResponse {
            vertexes: vec![
                vertex("1", "[internal] load", false, true),
                vertex("2", "[1/3] FROM x", false, true),
                vertex("3", "[2/3] RUN a", true, true),
                vertex("4", "[3/3] RUN b", false, false),
                vertex("4", "[3/3] RUN b", false, true),
            ],
            ..Default::default()
        });
        let text = metrics.render();
        let (miss, json) = text.split_once('\n').unwrap();
        assert_eq!(miss, "cache miss: [3/3] RUN b");
        assert!(json.starts_with(r#"{"total":4,"completed":4,"user_total":3,"user_cached":1,"user_completed":3,"user_cacheable":2,"from":1,"miss":1,"client_duration_ms":"#));
    }
}
