use std::time::Duration;

use crate::{Histogram, Plan, simulate};

/// Two hundred workers that die every hour.
fn small() -> Plan {
    Plan {
        workers: 200,
        builds: 4000,
        projects: 100,
        load: 0.5,
        lifetime: Some(Duration::from_secs(3600)),
        ..Plan::default()
    }
}

#[test]
fn a_farm_with_churn_runs_all_builds_in_little_more_than_the_least_time() {
    let report = simulate(&small());
    assert_eq!((report.builds, report.refused), (4000, 0));
    assert!(report.deaths > 0 && report.lost > 0, "{report}");
    assert!(report.overhead() < 1.3, "{report}");
    assert!(report.warm_share() > 0.8, "{report}");
}

#[test]
fn the_same_plan_gives_the_same_decisions() {
    let plan = Plan { builds: 500, ..small() };
    let (one, two) = (simulate(&plan), simulate(&plan));
    assert_eq!((one.makespan, one.steps, one.warm), (two.makespan, two.steps, two.warm));
    let other = simulate(&Plan { seed: 2, ..plan });
    assert_ne!(one.makespan, other.makespan);
}

#[test]
fn endpoints_that_know_nothing_of_each_other_send_equal_work_to_the_same_workers() {
    let alone = Plan { workers: 60, builds: 1500, projects: 60, lifetime: None, ..small() };
    let two = Plan { endpoints: 2, share: 0.5, ..alone.clone() };
    let (one, two) = (simulate(&alone), simulate(&two));
    assert_eq!((two.builds, two.refused), (1500, 0));
    assert!(two.overhead() < one.overhead() * 1.2, "{one}\n{two}");
    // Each has to find out for itself who else is warm, but that is all.
    assert!(two.warm_share() > one.warm_share() - 0.1, "{one}\n{two}");
}

#[test]
fn large_builds_do_not_keep_small_ones_waiting() {
    let report = simulate(&Plan { load: 0.95, lifetime: None, ..small() });
    assert!(report.large.stretch.count() > 0, "{report}");
    assert!(report.small.waits.mean() <= report.large.waits.mean(), "{report}");
}

#[test]
fn arguments_make_a_plan() {
    let plan = |text: &str| Plan::from_args(text.split_whitespace().map(str::to_owned));
    assert_eq!(plan("--workers 20 --load 0.5").unwrap(), Plan { workers: 20, load: 0.5, ..Plan::default() });
    assert_eq!(plan("--builds many").unwrap_err(), "--builds many: not a number");
    assert!(plan("--what 1").unwrap_err().starts_with("--what: no such option"));
}

#[test]
fn a_histogram_knows_its_quantiles() {
    let mut histogram = Histogram::default();
    (1..=10_000).for_each(|value| histogram.add(value));
    for (part, value) in [(0.5, 5000.0), (0.99, 9900.0), (1.0, 10_000.0)] {
        let found = histogram.quantile(part) as f64;
        assert!((found / value - 1.0).abs() < 0.04, "{part}: {found}");
    }
    assert_eq!((histogram.count(), histogram.most()), (10_000, 10_000));
}
