//! Variables in the order in which they were set.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use crosskit_platforms::Platform;
use indexmap::IndexMap;

use crate::text::expand::Variables;

/// Variables. Setting one again moves it behind the others.
#[derive(Debug, Clone, Default)]
pub(crate) struct Env {
    values: Arc<IndexMap<Arc<str>, Arc<str>>>,
    /// Bytes of all values.
    bytes: usize,
}

impl Env {
    pub(crate) fn set(&mut self, key: &str, value: &str) {
        let before = self.values.get(key).map_or(0, |old| old.len());
        self.bytes = self.bytes - before + value.len();
        let values = Arc::make_mut(&mut self.values);
        let last = values.len().wrapping_sub(1);
        match values.get_full_mut(key) {
            Some((position, _, old)) if position == last => *old = value.into(),
            _ => {
                values.shift_remove(key);
                values.insert(key.into(), value.into());
            }
        }
    }

    pub(crate) fn remove(&mut self, key: &str) {
        if let Some(old) = Arc::make_mut(&mut self.values).shift_remove(key) {
            self.bytes -= old.len();
        }
    }

    pub(crate) fn value(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(|value| &**value)
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(|key| &**key)
    }

    /// `NAME=value` each.
    pub(crate) fn pairs(&self) -> Vec<String> {
        let pair = |(key, value): (&Arc<str>, &Arc<str>)| {
            let mut pair = String::with_capacity(key.len() + value.len() + 1);
            pair.push_str(key);
            pair.push('=');
            pair.push_str(value);
            pair
        };
        self.values.iter().map(pair).collect()
    }
}

impl Variables for Env {
    fn get(&self, name: &str) -> Option<Cow<'_, str>> {
        self.value(name).map(Cow::Borrowed)
    }

    fn bytes(&self) -> usize {
        self.bytes
    }
}

/// The name and value of a pair.
pub(crate) fn split_pair(pair: &str) -> (&str, &str) {
    pair.split_once('=').unwrap_or((pair, ""))
}

/// The arguments that are there without being declared.
pub(crate) fn automatic_args(
    build: &Platform,
    target: &Platform,
    stage: &str,
    overrides: &BTreeMap<String, String>,
) -> Env {
    let stage = if stage.is_empty() { "default" } else { stage };
    let mut env = Env::default();
    let (build_text, target_text) = (build.format(), target.format_all());
    for (key, value) in [
        ("BUILDPLATFORM", build_text.as_str()),
        ("BUILDOS", &build.os),
        ("BUILDOSVERSION", &build.os_version),
        ("BUILDARCH", &build.architecture),
        ("BUILDVARIANT", &build.variant),
        ("TARGETPLATFORM", target_text.as_str()),
        ("TARGETOS", &target.os),
        ("TARGETOSVERSION", &target.os_version),
        ("TARGETARCH", &target.architecture),
        ("TARGETVARIANT", &target.variant),
        ("TARGETSTAGE", stage),
    ] {
        env.set(key, overrides.get(key).map_or(value, String::as_str));
    }
    env
}
