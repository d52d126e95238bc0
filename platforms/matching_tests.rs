use std::cmp::Ordering;

use crate::{Matcher, Platform};

fn platform(specifier: &str) -> Platform {
    Platform::parse(specifier).unwrap_or_else(|error| panic!("{error}"))
}

/// Wanted platform, and all it takes, best first.
const RUNNABLE: &[(&str, &[&str])] = &[
    ("linux/amd64", &["linux/amd64", "linux/386"]),
    ("linux/amd64/v3", &["linux/amd64/v3", "linux/amd64/v2", "linux/amd64", "linux/386"]),
    ("linux/386", &["linux/386"]),
    ("linux/arm", &["linux/arm/v7", "linux/arm/v6", "linux/arm/v5"]),
    ("linux/arm/v6", &["linux/arm/v6", "linux/arm/v5"]),
    ("linux/arm64", &["linux/arm64", "linux/arm/v8", "linux/arm/v7", "linux/arm/v6", "linux/arm/v5"]),
    (
        "linux/arm64/v8.2",
        &[
            "linux/arm64/v8.2",
            "linux/arm64/v8.1",
            "linux/arm64",
            "linux/arm/v8",
            "linux/arm/v7",
            "linux/arm/v6",
            "linux/arm/v5",
        ],
    ),
    (
        "linux/arm64/v9",
        &[
            "linux/arm64/v9",
            "linux/arm64/v8.5",
            "linux/arm64/v8.4",
            "linux/arm64/v8.3",
            "linux/arm64/v8.2",
            "linux/arm64/v8.1",
            "linux/arm64",
            "linux/arm/v8",
            "linux/arm/v7",
            "linux/arm/v6",
            "linux/arm/v5",
        ],
    ),
    ("linux/riscv64", &["linux/riscv64"]),
    ("linux/s390x", &["linux/s390x"]),
    ("darwin/arm64", &["darwin/arm64", "darwin/arm/v8", "darwin/arm/v7", "darwin/arm/v6", "darwin/arm/v5"]),
];

#[test]
fn a_platform_takes_what_it_runs_in_order() {
    let every: Vec<&str> = RUNNABLE.iter().flat_map(|(_, list)| list.iter().copied()).collect();
    for (wanted, list) in RUNNABLE {
        let matcher = Matcher::only(&platform(wanted));
        for candidate in &every {
            assert_eq!(
                matcher.matches(&platform(candidate)),
                list.contains(candidate),
                "{wanted} takes {candidate}"
            );
        }
        for pair in list.windows(2) {
            assert!(matcher.better(&platform(pair[0]), &platform(pair[1])), "{wanted}: {pair:?}");
            assert!(!matcher.better(&platform(pair[1]), &platform(pair[0])), "{wanted}: {pair:?}");
        }
        let reversed: Vec<Platform> = list.iter().rev().map(|name| platform(name)).collect();
        let best = matcher.best(&reversed).map(|(place, best)| (place, best.normalize().format()));
        assert_eq!(best, Some((list.len() - 1, list[0].to_owned())), "{wanted}");
    }
}

#[test]
fn strict_takes_only_itself_in_any_spelling() {
    let matcher = Matcher::strict(&platform("linux/arm64"));
    assert!(matcher.matches(&platform("linux/aarch64/8")));
    assert!(!matcher.matches(&platform("linux/arm/v7")));
    assert!(!matcher.matches(&platform("windows/arm64")));
}

#[test]
fn features_of_a_candidate_must_be_there_and_more_of_them_is_better() {
    let matcher = Matcher::only(&platform("linux(+a+b)/amd64"));
    assert!(matcher.matches(&platform("linux/amd64")));
    assert!(matcher.matches(&platform("linux(+b)/amd64")));
    assert!(!matcher.matches(&platform("linux(+c)/amd64")));
    assert!(matcher.better(&platform("linux(+b)/amd64"), &platform("linux/amd64")));
    assert_eq!(matcher.compare(&platform("linux/amd64"), &platform("linux/amd64")), Ordering::Equal);
}

#[test]
fn windows_versions_follow_the_abi() {
    let takes = |host: &str, image: &str| {
        Matcher::only(&platform(&format!("windows({host})/amd64")))
            .matches(&platform(&format!("windows({image})/amd64")))
    };
    assert!(takes("10.0.17763.55", "10.0.17763.1"));
    assert!(!takes("10.0.17763", "10.0.20348"));
    assert!(takes("10.0.26100", "10.0.20348"));
    assert!(!takes("10.0.26200", "10.0.20348"));
    assert!(takes("10.0.26200", "10.0.26100"));
    assert!(takes("10.0.17763", "+win32k"));
    assert!(takes("", "10.0.17763"));
}
