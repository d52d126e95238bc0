use crosskit_platforms::Platform;

use crate::{SchedulerError, merge};

fn platforms(list: &[&str]) -> Vec<Platform> {
    list.iter().map(|specifier| Platform::parse(specifier).unwrap()).collect()
}

fn merged(asked: &[&str], built: &[&str]) -> Result<String, SchedulerError> {
    let results = platforms(built).into_iter().zip(0..).collect();
    let plan = merge(&platforms(asked), results)?;
    Ok(plan.parts.iter().map(|(p, n)| format!("{} {n}", p.format())).collect::<Vec<_>>().join(", "))
}

#[test]
fn results_stand_in_the_order_asked_for() {
    for (asked, built, order) in [
        (
            &["linux/arm64", "linux/amd64"][..],
            &["linux/amd64", "linux/arm64"][..],
            "linux/arm64 1, linux/amd64 0",
        ),
        (&[], &["linux/s390x", "linux/386"], "linux/s390x 0, linux/386 1"),
        (&["linux/amd64", "linux/amd64"], &["linux/amd64"], "linux/amd64 0"),
        (&["linux/arm/v7"], &["linux/amd64", "linux/arm"], "linux/arm 1, linux/amd64 0"),
    ] {
        assert_eq!(merged(asked, built).unwrap(), order);
    }
}

#[test]
fn a_tag_needs_every_platform_once() {
    let error = merged(&["linux/amd64", "linux/arm64"], &["linux/amd64"]).unwrap_err();
    assert_eq!(error.to_string(), "there is no result for linux/arm64, which was asked for");
    let error = merged(&[], &["linux/arm64", "linux/arm64/v8"]).unwrap_err();
    assert!(matches!(error, SchedulerError::Twice(_)));
}
