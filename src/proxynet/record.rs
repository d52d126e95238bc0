//! What a step has asked for, and what came.

use http::{Method, StatusCode};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Requests that are kept of one step; of more only their number.
const LIMIT: usize = 10_000;

/// A request that has been answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Its method.
    pub method: String,
    /// The address that was used in the end, without a user.
    pub url: String,
    /// The answer's status; None where nothing could be answered.
    pub status: Option<u16>,
    /// Why it was not what the step wanted, where the proxy is the one who knows.
    pub note: Option<String>,
    /// Where the answer sends the step to.
    redirect: Option<String>,
}

/// A file that the step has got, as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Material {
    /// Its address.
    pub url: String,
    /// Its digest: `sha256:…`.
    pub digest: String,
}

/// A request of which it is not known what the step has got from it, or whether that can be had again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incomplete {
    /// Its method.
    pub method: String,
    /// Its address.
    pub url: String,
    /// In a word, as provenance says it.
    pub reason: &'static str,
}

/// What a step has asked for, and what came.
#[derive(Debug, Default)]
pub struct Record(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    requests: Vec<Request>,
    materials: Vec<Material>,
    incomplete: Vec<Incomplete>,
    /// Requests that were not kept.
    more: usize,
}

/// A request on its way to the record.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) url: String,
}

impl Record {
    /// All requests in the order of their answers, as far as they are kept.
    pub fn requests(&self) -> Vec<Request> {
        self.seen().requests.clone()
    }

    /// The files that came, each once. An address that led to a file by way of others counts as well.
    pub fn materials(&self) -> Vec<Material> {
        let seen = self.seen();
        let mut known = BTreeSet::new();
        let mut all: Vec<Material> = Vec::new();
        for material in &seen.materials {
            if known.insert((&material.url, &material.digest)) {
                all.push(material.clone());
            }
        }
        let digests: BTreeMap<&str, &str> =
            seen.materials.iter().map(|m| (m.url.as_str(), m.digest.as_str())).collect();
        let onwards: BTreeMap<&str, &str> = seen
            .requests
            .iter()
            .filter_map(|r| Some((r.url.as_str(), r.redirect.as_deref()?)))
            .filter(|(from, _)| !digests.contains_key(from))
            .collect();
        for start in onwards.keys() {
            let mut at = *start;
            // A way longer than all there is goes in a circle.
            for _ in 0..onwards.len() {
                match onwards.get(at) {
                    Some(next) => at = next,
                    None => break,
                }
            }
            if let Some(digest) = digests.get(at) {
                all.push(Material { url: (*start).to_owned(), digest: (*digest).to_owned() });
            }
        }
        all
    }

    /// The requests that leave it open what the step has got.
    pub fn incomplete(&self) -> Vec<Incomplete> {
        let seen = self.seen();
        let mut all = seen.incomplete.clone();
        if seen.more > 0 {
            let reason = "too_many_requests";
            all.push(Incomplete { method: String::new(), url: String::new(), reason });
        }
        all
    }

    /// For the step's log; None if it has asked for nothing.
    pub fn summary(&self) -> Option<String> {
        let seen = self.seen();
        if seen.requests.is_empty() {
            return None;
        }
        let mut text = "proxy network requests:\n".to_owned();
        for Request { method, url, status, note, .. } in &seen.requests {
            let _ = write!(text, "- {method} {url}");
            if let Some(status) = status {
                let _ = write!(text, " -> {status}");
            }
            if let Some(note) = note {
                let _ = write!(text, " ({note})");
            }
            text.push('\n');
        }
        if seen.more > 0 {
            let _ = writeln!(text, "- and {} more", seen.more);
        }
        Some(text)
    }

    /// Notes an answer that came from where it was asked for.
    pub(crate) fn answered(&self, asked: &Asked, status: StatusCode, redirect: Option<String>) {
        self.add(asked, Some(status), redirect, None);
    }

    /// Notes that the proxy itself had to answer, and why.
    pub(crate) fn refused(&self, asked: &Asked, status: Option<StatusCode>, why: String) {
        self.add(asked, status, None, Some(why));
    }

    fn add(&self, asked: &Asked, status: Option<StatusCode>, redirect: Option<String>, note: Option<String>) {
        let mut seen = self.seen();
        if seen.requests.len() >= LIMIT {
            seen.more += 1;
            return;
        }
        let (method, url) = (asked.method.to_string(), asked.url.clone());
        seen.requests.push(Request { method, url, status: status.map(|s| s.as_u16()), note, redirect });
    }

    pub(crate) fn got(&self, asked: &Asked, digest: String) {
        let mut seen = self.seen();
        if seen.materials.len() < LIMIT {
            seen.materials.push(Material { url: asked.url.clone(), digest });
        }
    }

    pub(crate) fn lacks(&self, asked: &Asked, reason: &'static str) {
        let mut seen = self.seen();
        if seen.incomplete.len() < LIMIT {
            let (method, url) = (asked.method.to_string(), asked.url.clone());
            seen.incomplete.push(Incomplete { method, url, reason });
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(url: &str) -> Asked {
        Asked { method: Method::GET, url: url.to_owned() }
    }

    #[test]
    fn an_address_that_leads_to_a_file_is_a_material_too() {
        let record = Record::default();
        let onward = |from: &str, to: &str| {
            record.answered(&get(from), StatusCode::FOUND, Some(to.to_owned()));
        };
        onward("http://a/", "http://b/");
        onward("http://b/", "http://c/");
        onward("http://round/", "http://about/");
        onward("http://about/", "http://round/");
        record.answered(&get("http://c/"), StatusCode::OK, None);
        record.got(&get("http://c/"), "sha256:1".to_owned());
        record.got(&get("http://c/"), "sha256:1".to_owned());
        let mut urls: Vec<_> = record.materials().into_iter().map(|m| (m.url, m.digest)).collect();
        urls.sort();
        let file = |url: &str| (url.to_owned(), "sha256:1".to_owned());
        assert_eq!(urls, [file("http://a/"), file("http://b/"), file("http://c/")]);
    }

    #[test]
    fn what_is_told_of_requests_has_a_limit() {
        let record = Record::default();
        assert_eq!(record.summary(), None);
        for _ in 0..LIMIT + 2 {
            record.answered(&get("http://a/"), StatusCode::OK, None);
        }
        let told = record.summary().expect("there were requests");
        assert!(told.starts_with("proxy network requests:\n- GET http://a/ -> 200\n"), "{}", &told[..80]);
        assert!(told.ends_with("- and 2 more\n"));
        assert_eq!(record.incomplete().len(), 1);
    }
}
