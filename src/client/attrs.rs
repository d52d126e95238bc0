//! Lists of `key=value` that become frontend options, build arguments and names of folders.

use crate::error::ClientError;
use std::collections::BTreeMap;
use std::env;

/// Variables of the caller that every build gets as an argument.
const HANDED_ON: [&str; 1] = ["SOURCE_DATE_EPOCH"];
const BUILD_ARG: &str = "build-arg:";

/// Reads `key=value` pairs; of a key given twice, the last one counts.
///
/// # Errors
/// Something that is no pair.
pub(crate) fn pairs(list: &[String]) -> Result<BTreeMap<String, String>, ClientError> {
    list.iter()
        .map(|pair| match pair.split_once('=') {
            Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
            None => Err(ClientError::invalid(format!("invalid value {pair}"))),
        })
        .collect()
}

/// Reads frontend options. `build-arg:NAME` without a value takes it from the environment, and is
/// left out if there is none.
///
/// # Errors
/// As [`pairs`].
pub(crate) fn options(list: &[String]) -> Result<BTreeMap<String, String>, ClientError> {
    let mut all: Vec<String> = HANDED_ON
        .iter()
        .filter_map(|name| env::var(name).ok().map(|value| format!("{BUILD_ARG}{name}={value}")))
        .collect();
    for option in list {
        match option.strip_prefix(BUILD_ARG) {
            Some(name) if !name.is_empty() && !name.contains('=') => {
                all.extend(env::var(name).ok().map(|value| format!("{option}={value}")));
            }
            _ => all.push(option.clone()),
        }
    }
    pairs(&all)
}

/// Says what is wrong in front of a mistake.
pub(crate) fn about(what: &str) -> impl FnOnce(ClientError) -> ClientError {
    move |error| ClientError::invalid(format!("{what}: {error}"))
}

/// Checks `--allow` values.
///
/// # Errors
/// A privilege that there isn't.
pub(crate) fn check_entitlements(list: &[String]) -> Result<(), ClientError> {
    for allowed in list {
        let name = allowed.split('=').next().unwrap_or_default();
        if !["security.insecure", "network.host", "device"].contains(&name) {
            return Err(ClientError::invalid(format!("unknown entitlement {name}")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(words: &[&str]) -> Vec<String> {
        words.iter().map(|w| (*w).to_owned()).collect()
    }

    #[test]
    fn pairs_split_at_the_first_sign() {
        let all = pairs(&list(&["a=b=c", "x=", "a=d"])).unwrap();
        assert_eq!(all, BTreeMap::from([("a".into(), "d".into()), ("x".into(), String::new())]));
        assert_eq!(pairs(&list(&["ctx"])).unwrap_err().to_string(), "invalid value ctx");
    }

    #[test]
    fn build_arguments_without_a_value_come_from_the_environment() {
        let home = env::var("PATH").unwrap();
        let all = options(&list(&["build-arg:PATH", "build-arg:CROSSKIT_SURELY_UNSET", "target=x"])).unwrap();
        assert_eq!(all["build-arg:PATH"], home);
        assert_eq!(all["target"], "x");
        assert!(!all.contains_key("build-arg:CROSSKIT_SURELY_UNSET"));
    }

    #[test]
    fn privileges_are_checked_by_name() {
        check_entitlements(&list(&["network.host", "device=gpu,alias=x"])).unwrap();
        assert_eq!(check_entitlements(&list(&["x"])).unwrap_err().to_string(), "unknown entitlement x");
    }
}
