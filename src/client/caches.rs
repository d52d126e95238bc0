//! Remote caches: `--export-cache` and `--import-cache` values.

use crate::csv;
use crate::error::ClientError;
use crate::flags::parse_bool;
use crosskit_api::control::CacheOptionsEntry;
use std::collections::BTreeMap;
use std::env;

/// Which way a cache is used.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Export,
    Import,
}

impl Way {
    fn flag(self) -> &'static str {
        match self {
            Way::Export => "--export-cache",
            Way::Import => "--import-cache",
        }
    }
}

/// Reads `type=…,key=value`, or the old form of a bare image name.
///
/// # Errors
/// A form that can't be read, or a key that the type needs is missing.
pub(crate) fn parse(text: &str, way: Way) -> Result<CacheOptionsEntry, ClientError> {
    let flag = way.flag();
    let (kind, mut attrs) = if text.contains("type=") {
        csv::typed(text)?
    } else {
        tracing::warn!(
            "{flag} <ref> is deprecated. Please use {flag} type=registry,ref=<ref>,<opt>=<optval>[,<opt>=<optval>] instead"
        );
        ("registry".to_owned(), BTreeMap::from([("ref".to_owned(), text.to_owned())]))
    };
    if kind.is_empty() {
        return Err(ClientError::invalid(format!("{flag} requires type=<type>")));
    }
    if way == Way::Export {
        attrs.entry("mode".into()).or_insert_with(|| "min".into());
    }
    let lacks = |key: &str| attrs.get(key).is_none_or(|value| value.is_empty());
    match (kind.as_str(), way) {
        ("gha", _) => from_github(&mut attrs)?,
        ("local", Way::Export) if lacks("dest") => {
            return Err(ClientError::invalid("local cache exporter requires dest"));
        }
        ("local", Way::Import) if lacks("src") => {
            return Err(ClientError::invalid("local cache importer requires src"));
        }
        ("registry", Way::Export) if lacks("ref") => {
            return Err(ClientError::invalid("registry cache exporter requires ref"));
        }
        ("registry", Way::Import) if lacks("ref") => {
            return Err(ClientError::invalid("registry cache importer requires ref"));
        }
        _ => {}
    }
    Ok(CacheOptionsEntry { r#type: kind, attrs })
}

/// Fills in what a GitHub runner tells in its environment.
fn from_github(attrs: &mut BTreeMap<String, String>) -> Result<(), ClientError> {
    let second = match attrs.get("version") {
        Some(version) => version == "2",
        None => env::var("ACTIONS_CACHE_SERVICE_V2").is_ok_and(|v| parse_bool(&v) == Some(true)),
    };
    let mut fill = |key: &str, variables: &[&str]| {
        if !attrs.contains_key(key)
            && let Some(value) = variables.iter().find_map(|name| env::var(name).ok())
        {
            attrs.insert(key.to_owned(), value);
        }
    };
    if second {
        fill("url_v2", &["ACTIONS_RESULTS_URL"]);
    }
    fill("url", &["ACTIONS_CACHE_URL", "ACTIONS_RESULTS_URL"]);
    fill("token", &["ACTIONS_RUNTIME_TOKEN"]);
    if !attrs.contains_key("url") && !attrs.contains_key("url_v2") {
        return Err(ClientError::invalid("cache with type gha requires url parameter to be set"));
    }
    if !attrs.contains_key("token") {
        return Err(ClientError::invalid(
            "cache with type gha requires token parameter or $ACTIONS_RUNTIME_TOKEN",
        ));
    }
    Ok(())
}

/// What AWS calls its keys, here and in the environment.
const AWS_KEYS: [(&str, &str); 3] = [
    ("access_key_id", "AWS_ACCESS_KEY_ID"),
    ("secret_access_key", "AWS_SECRET_ACCESS_KEY"),
    ("session_token", "AWS_SESSION_TOKEN"),
];

/// Lends the daemon the keys that the environment has for S3, where none are told: a person's own daemon has no others.
pub(crate) fn lend_keys(
    entries: Vec<CacheOptionsEntry>,
    environment: impl Fn(&str) -> Option<String>,
) -> Vec<CacheOptionsEntry> {
    let lend = |mut entry: CacheOptionsEntry| {
        let told = AWS_KEYS.iter().any(|(key, _)| entry.attrs.contains_key(*key));
        let known = |name: &str| environment(name).filter(|value| !value.is_empty());
        let whole = AWS_KEYS[..2].iter().all(|(_, name)| known(name).is_some());
        if entry.r#type == "s3" && !told && whole {
            let keys = AWS_KEYS.iter().filter_map(|(key, name)| Some(((*key).to_owned(), known(name)?)));
            entry.attrs.extend(keys);
        }
        entry
    };
    entries.into_iter().map(lend).collect()
}

/// The form in which frontends take imports: a JSON list.
pub(crate) fn as_frontend_option(imports: &[CacheOptionsEntry]) -> String {
    #[derive(serde::Serialize)]
    struct Entry<'a> {
        #[serde(rename = "Type", skip_serializing_if = "str::is_empty")]
        kind: &'a str,
        #[serde(rename = "Attrs", skip_serializing_if = "BTreeMap::is_empty")]
        attrs: &'a BTreeMap<String, String>,
    }
    let list: Vec<Entry<'_>> = imports.iter().map(|i| Entry { kind: &i.r#type, attrs: &i.attrs }).collect();
    crosskit_api::json::to_vec(&list).ok().and_then(|json| String::from_utf8(json).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_and_the_old_form() {
        let entry = parse("type=registry,ref=a/b,mode=max", Way::Export).unwrap();
        assert_eq!((entry.r#type.as_str(), entry.attrs["mode"].as_str()), ("registry", "max"));
        let old = parse("a/b", Way::Export).unwrap();
        assert_eq!(old.attrs, BTreeMap::from([("ref".into(), "a/b".into()), ("mode".into(), "min".into())]));
        let import = parse("type=local,src=x", Way::Import).unwrap();
        assert_eq!(as_frontend_option(&[import]), r#"[{"Type":"local","Attrs":{"src":"x"}}]"#);
    }

    #[test]
    fn keys_of_the_environment_are_lent_to_caches_in_s3_that_have_none() {
        let environment = |name: &str| match name {
            "AWS_ACCESS_KEY_ID" => Some("id".to_owned()),
            "AWS_SECRET_ACCESS_KEY" => Some("secret".to_owned()),
            _ => None,
        };
        let entries = |text: &str| vec![parse(text, Way::Import).unwrap()];
        let lent = lend_keys(entries("type=s3,bucket=b"), environment);
        let keys = ["access_key_id", "secret_access_key", "session_token"]
            .map(|key| lent[0].attrs.get(key).cloned());
        assert_eq!(keys, [Some("id".to_owned()), Some("secret".to_owned()), None]);
        for other in ["type=s3,bucket=b,access_key_id=a,secret_access_key=s", "type=registry,ref=a"] {
            assert_eq!(lend_keys(entries(other), environment), entries(other));
        }
        let half = |name: &str| environment(name).filter(|_| name == "AWS_ACCESS_KEY_ID");
        assert_eq!(lend_keys(entries("type=s3,bucket=b"), half), entries("type=s3,bucket=b"));
    }

    #[test]
    fn what_a_type_needs_is_asked_for() {
        let told = |text: &str, way| parse(text, way).unwrap_err().to_string();
        assert_eq!(told("type=local", Way::Export), "local cache exporter requires dest");
        assert_eq!(told("type=registry", Way::Import), "registry cache importer requires ref");
        assert_eq!(told("type=", Way::Import), "--import-cache requires type=<type>");
    }
}
