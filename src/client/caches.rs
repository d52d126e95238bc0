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
    fn what_a_type_needs_is_asked_for() {
        let told = |text: &str, way| parse(text, way).unwrap_err().to_string();
        assert_eq!(told("type=local", Way::Export), "local cache exporter requires dest");
        assert_eq!(told("type=registry", Way::Import), "registry cache importer requires ref");
        assert_eq!(told("type=", Way::Import), "--import-cache requires type=<type>");
    }
}
