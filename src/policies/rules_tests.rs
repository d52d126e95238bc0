use super::*;
use crosskit_api::sourcepolicy::{AttrConstraint, AttrMatch, MatchType, Selector as WireSelector};
use std::collections::BTreeMap;

const ALLOW: PolicyAction = PolicyAction::Allow;
const DENY: PolicyAction = PolicyAction::Deny;
const CONVERT: PolicyAction = PolicyAction::Convert;

fn selector(kind: MatchType, identifier: &str) -> WireSelector {
    WireSelector { identifier: identifier.into(), match_type: kind.into(), constraints: Vec::new() }
}

fn rule(action: PolicyAction, identifier: &str) -> WireRule {
    WireRule {
        action: action.into(),
        selector: Some(selector(MatchType::Wildcard, identifier)),
        updates: None,
    }
}

fn convert(kind: MatchType, from: &str, to: &str) -> WireRule {
    let updates = Some(Update { identifier: to.into(), attrs: BTreeMap::new() });
    WireRule { action: CONVERT.into(), selector: Some(selector(kind, from)), updates }
}

fn policies(told: Vec<Vec<WireRule>>) -> Policies {
    Policies::new(told.into_iter().map(|rules| Policy { version: 1, rules }).collect()).unwrap()
}

fn source(identifier: &str) -> SourceOp {
    SourceOp { identifier: identifier.into(), attrs: BTreeMap::new() }
}

/// What becomes of a source, or the error's text.
fn outcome(told: Vec<Vec<WireRule>>, identifier: &str) -> String {
    let mut source = source(identifier);
    match policies(told).apply(&mut source) {
        Ok(changed) => {
            assert_eq!(changed, source.identifier != identifier);
            source.identifier
        }
        Err(e) => format!("! {e}"),
    }
}

#[test]
fn sources_are_selected_by_text_wildcard_and_expression() {
    use MatchType::{Exact, Regex, Wildcard};
    for (kind, selector_text, identifier, selected) in [
        (Wildcard, "x://a/b:1", "x://a/b:1", true),
        (Wildcard, "*", "x://a/b:1", true),
        (Wildcard, "x://a/*:1", "x://a/b/c:1", true),
        (Wildcard, "x://a/*:1", "x://a/b:10", false),
        (Wildcard, "x://a.b/*", "x://aXb/c", false),
        (Wildcard, "x://a/b", "y://x://a/b", false),
        (Wildcard, "x://ä*", "x://äö", true),
        (Exact, "x://a/*", "x://a/b", false),
        (Exact, "x://a/*", "x://a/*", true),
        (Regex, "a/.", "x://a/b:1", true),
        (Regex, "^a/", "x://a/b:1", false),
        (Regex, r"^x\-?://[\w/]+:\d$", "x://a/b:1", true),
    ] {
        let told =
            WireRule { action: DENY.into(), selector: Some(selector(kind, selector_text)), updates: None };
        let denied = policies(vec![vec![told]]).apply(&mut source(identifier)).is_err();
        assert_eq!(denied, selected, "{kind:?} {selector_text} {identifier}");
    }
}

#[test]
fn attributes_are_conditions_that_all_have_to_hold() {
    use AttrMatch::{Equal, Matches, Notequal};
    for (conditions, selected) in [
        (&[("k", "v", Equal)][..], true),
        (&[("k", "w", Equal)], false),
        (&[("none", "", Equal)], true),
        (&[("k", "w", Notequal), ("k", "^v$", Matches)], true),
        (&[("k", "w", Notequal), ("k", "^w", Matches)], false),
        (&[("none", "x", Notequal)], true),
    ] {
        let mut told = rule(DENY, "*");
        let constraint = |(key, value, condition): &(&str, &str, AttrMatch)| AttrConstraint {
            key: (*key).into(),
            value: (*value).into(),
            condition: (*condition).into(),
        };
        told.selector.as_mut().unwrap().constraints = conditions.iter().map(constraint).collect();
        let mut source = source("x://a");
        source.attrs.insert("k".into(), "v".into());
        assert_eq!(policies(vec![vec![told]]).apply(&mut source).is_err(), selected, "{conditions:?}");
    }
}

#[test]
fn the_last_rule_of_a_policy_counts_and_every_policy_has_to_agree() {
    let denied = "! source \"a\" denied by policy: source denied by policy";
    for (told, expected) in [
        (vec![vec![rule(ALLOW, "a"), rule(DENY, "a")]], denied),
        (vec![vec![rule(DENY, "*"), rule(ALLOW, "a")]], "a"),
        (vec![vec![rule(ALLOW, "a")], vec![rule(DENY, "a")]], denied),
        (vec![vec![rule(DENY, "a")], vec![rule(ALLOW, "a")]], denied),
        (vec![vec![rule(DENY, "b")], vec![]], "a"),
        (vec![], "a"),
    ] {
        assert_eq!(outcome(told, "a"), expected);
    }
}

#[test]
fn what_is_converted_is_judged_again_from_the_beginning() {
    use MatchType::Wildcard;
    let to_b = || convert(Wildcard, "a", "b");
    let denied = "! source \"b\" denied by policy: source denied by policy";
    for (told, expected) in [
        (vec![vec![to_b()]], "b"),
        (vec![vec![to_b(), rule(DENY, "a")]], "b"),
        (vec![vec![rule(DENY, "a"), to_b()]], "b"),
        (vec![vec![to_b(), rule(ALLOW, "b"), rule(DENY, "b*")]], denied),
        (vec![vec![rule(DENY, "b")], vec![to_b()]], denied),
        (vec![vec![to_b()], vec![convert(Wildcard, "b", "c")]], "c"),
        (
            vec![vec![to_b(), convert(Wildcard, "b", "a")]],
            "! too many mutations on a single source: too many operations",
        ),
    ] {
        assert_eq!(outcome(told, "a"), expected);
    }
    let steps = |count: usize| {
        let step = |n: usize| convert(MatchType::Exact, &n.to_string(), &(n + 1).to_string());
        outcome(vec![(0..count).map(step).collect()], "0")
    };
    assert_eq!(steps(MAX_CONVERSIONS), "20");
    assert!(steps(MAX_CONVERSIONS + 1).starts_with("! too many mutations"));
}

#[test]
fn conversions_refer_to_what_was_matched() {
    use MatchType::{Exact, Regex, Wildcard};
    for (kind, from, to, identifier, expected) in [
        (Wildcard, "x://hub/*:*", "x://own/${1}:${2}-alpine", "x://hub/go:1.19", "x://own/go:1.19-alpine"),
        (Wildcard, "x://hub/*", "x://own/$1", "x://hub/go:1", "x://own/go:1"),
        (
            Wildcard,
            "x://hub/go:1*",
            "x://hub/go:1@sha256:aa",
            "x://hub/go:1@sha256:bb",
            "x://hub/go:1@sha256:aa",
        ),
        (Exact, "x://hub/go", "x://own/${1}", "x://hub/go", "x://own/${1}"),
        (Regex, r"^x://hub/(\w+):(.*)$", "x://own/${1}-$2", "x://hub/go:1", "x://own/go-1"),
        (Regex, "hub/(.*)", "own/${1}", "x://hub/go", "x://own/go"),
        (Regex, "(?P<what>go)", "${what}lang", "x://hub/go", "x://hub/golang"),
    ] {
        // Some of these would match their own result for ever; one pass tells what it is.
        let mut source = source(identifier);
        assert!(policies(vec![vec![convert(kind, from, to)]]).pass(&mut source).unwrap());
        assert_eq!(source.identifier, expected, "{from}");
    }
}

#[test]
fn a_conversion_may_change_attributes_alone() {
    let mut told = convert(MatchType::Wildcard, "https://*", "");
    let attrs = &mut told.updates.as_mut().unwrap().attrs;
    attrs.insert("http.checksum".into(), "sha256:aa".into());
    let mut source = source("https://host/file");
    assert!(policies(vec![vec![told]]).apply(&mut source).unwrap());
    assert_eq!(
        (source.identifier.as_str(), source.attrs["http.checksum"].as_str()),
        ("https://host/file", "sha256:aa")
    );
}

#[test]
fn rules_that_make_no_sense_are_refused_when_they_would_decide() {
    let none = Policy { version: 1, rules: vec![WireRule { selector: None, ..rule(DENY, "a") }] };
    assert_eq!(Policies::new(vec![none]).unwrap_err().to_string(), "invalid nil selector in policy");
    let unknown = WireRule { action: 9000, ..rule(DENY, "a") };
    assert_eq!(outcome(vec![vec![unknown.clone()]], "a"), "! source policy: rule 9000 a: unknown type \"a\"");
    assert_eq!(outcome(vec![vec![unknown]], "b"), "b");
    assert_eq!(
        outcome(vec![vec![rule(CONVERT, "a")]], "a"),
        "! error mutating source policy: missing destination for convert rule"
    );
    assert_eq!(
        outcome(vec![vec![rule(DENY, "a**")]], "a"),
        "! error matching source policy: failed to translate wildcard \"a**\" to regexp: invalid wildcard: \"**\""
    );
    let bad = WireRule { selector: Some(selector(MatchType::Regex, "a(")), ..rule(DENY, "") };
    assert!(outcome(vec![vec![bad]], "a").starts_with("! error matching source policy: regex parse error"));
}
