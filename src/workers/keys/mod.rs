//! How operations are found in the cache: the digests that BuildKit computes for them, so that
//! a cache written by one is hit by the other.

mod exec;
mod file;

pub use exec::{exec_digest, exec_inputs};
pub use file::{file_digest, file_inputs};

use crosskit_api::pb;
use crosskit_cache::KeyDigest;
use crosskit_llb::json;

/// Files of an input that count.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Selector {
    /// The path in the input; empty for all of it.
    pub path: String,
    /// The path may hold wildcards.
    pub wildcard: bool,
    /// Symbolic links at the end of the path are followed.
    pub follow_links: bool,
    /// Patterns of files that count.
    pub include: Vec<String>,
    /// Patterns of files that don't.
    pub exclude: Vec<String>,
    /// Paths that have to be there.
    pub required: Vec<String>,
}

impl Selector {
    /// Whether more than the path says what counts.
    pub fn is_filtered(&self) -> bool {
        self.wildcard || !self.include.is_empty() || !self.exclude.is_empty()
    }
}

/// How an input takes part in the key of an operation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InputKey {
    /// Goes with the input's own keys.
    pub selector: Option<KeyDigest>,
    /// The files by which the input is known besides; None if only its own keys count.
    pub content: Option<Vec<Selector>>,
}

/// An operation whose key can't be computed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidOp(pub String);

/// The digest of a merge.
pub fn merge_digest(op: &pb::MergeOp) -> KeyDigest {
    typed("buildkit.merge.v0", "Merge", &json::to_string(op))
}

/// The digest of a difference.
pub fn diff_digest(op: &pb::DiffOp) -> KeyDigest {
    typed("buildkit.diff.v0", "Diff", &json::to_string(op))
}

/// The digest of a nested build.
pub fn build_digest(op: &pb::BuildOp) -> KeyDigest {
    typed("buildkit.build.v0", "Exec", &json::to_string(op))
}

/// The digest of a source that names itself by `key`. A key that starts with `session:` holds
/// for one session only.
pub fn source_digest(key: &str) -> KeyDigest {
    let digest = KeyDigest::of(format!("buildkit.source.v0:{key}").as_bytes());
    if key.starts_with("session:") { digest.into_random() } else { digest }
}

fn typed(kind: &str, field: &str, value: &str) -> KeyDigest {
    KeyDigest::of(format!("{{\"Type\":\"{kind}\",\"{field}\":{value}}}").as_bytes())
}

/// Sorted, without what lies below another one.
fn without_nested(mut paths: Vec<String>) -> Vec<String> {
    if paths.len() <= 1 {
        return paths;
    }
    paths.sort();
    paths.dedup();
    let all = paths.clone();
    paths.retain(|path| {
        !all.iter().any(|parent| {
            parent != path
                && path.strip_prefix(parent.trim_end_matches('/')).is_some_and(|rest| rest.starts_with('/'))
        })
    });
    paths
}

#[cfg(test)]
mod keys_tests;
