use std::collections::BTreeSet;

use crosskit_api::pb;

/// Adds what `more` says about a vertex to `base`: flags and capabilities accumulate, single
/// values of `more` win.
pub fn merge_metadata(base: &mut pb::OpMetadata, more: pb::OpMetadata) {
    base.ignore_cache |= more.ignore_cache;
    base.description.extend(more.description);
    base.caps.extend(more.caps);
    if more.export_cache.is_some() {
        base.export_cache = more.export_cache;
    }
    if more.progress_group.is_some() {
        base.progress_group = more.progress_group;
    }
    if more.linux_resources.is_some() {
        base.linux_resources = more.linux_resources;
    }
}

/// The looser of the limits that two builds have for one vertex: neither is held back by the other. A build without any
/// leaves the other's (BuildKit `solver/llbsolver/linuxresources`).
pub fn looser_resources(
    one: Option<&pb::LinuxResources>,
    other: Option<&pb::LinuxResources>,
) -> Option<pb::LinuxResources> {
    let (Some(one), Some(other)) = (one, other) else { return one.or(other).cloned() };
    let memory = match (one.memory, other.memory) {
        (0, _) | (_, 0) => 0,
        (one, other) => one.max(other),
    };
    let memory_swap = match (one.memory_swap, other.memory_swap) {
        // Not given; -1 is unlimited.
        (0, given) | (given, 0) => given,
        (-1, _) | (_, -1) => -1,
        (one, other) => one.max(other),
    };
    let (cpu_period, cpu_quota) =
        looser_bandwidth((one.cpu_period, one.cpu_quota), (other.cpu_period, other.cpu_quota));
    Some(pb::LinuxResources {
        memory,
        memory_swap,
        // 0 is not given, which is no more than any number.
        cpu_shares: one.cpu_shares.max(other.cpu_shares),
        cpu_period,
        cpu_quota,
        cpuset_cpus: either_set(&one.cpuset_cpus, &other.cpuset_cpus),
        cpuset_mems: either_set(&one.cpuset_mems, &other.cpuset_mems),
    })
}

/// Of two periods with their quotas the one that gives more time; of equal ones that with the shorter period. A quota of
/// 0 is no limit.
fn looser_bandwidth(one: (u64, i64), other: (u64, i64)) -> (u64, i64) {
    let ((one_period, one_quota), (other_period, other_quota)) = (one, other);
    match (one_quota, other_quota) {
        (0, 0) => return (0, 0),
        (0, _) => return one,
        (_, 0) => return other,
        _ => {}
    }
    let order = match (one_period, other_period) {
        (0, _) | (_, 0) => one_quota.cmp(&other_quota).then(one_period.cmp(&other_period)),
        _ => {
            let share = |quota: i64, period: u64| i128::from(quota) * i128::from(period);
            let by_share = share(one_quota, other_period).cmp(&share(other_quota, one_period));
            by_share.then(other_period.cmp(&one_period))
        }
    };
    if order.is_lt() { other } else { one }
}

/// The highest number in a list of processors or memory nodes that is taken apart.
const HIGHEST_IN_SET: u32 = 8192;

/// Two lists such as `0-3,7` as one. An empty one is no limit; of two the one that is no list is left out.
fn either_set(one: &str, other: &str) -> String {
    if one.is_empty() || other.is_empty() {
        return String::new();
    }
    let (ours, theirs) = match (members(one), members(other)) {
        (Some(ours), Some(theirs)) => (ours, theirs),
        (None, Some(_)) => return other.to_owned(),
        _ => return one.to_owned(),
    };
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for number in ours.union(&theirs).copied() {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => ranges.push((number, number)),
        }
    }
    let written = ranges.iter().map(|(first, last)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    });
    written.collect::<Vec<_>>().join(",")
}

fn members(list: &str) -> Option<BTreeSet<u32>> {
    let number = |text: &str| text.trim().parse::<u32>().ok().filter(|n| *n <= HIGHEST_IN_SET);
    let mut all = BTreeSet::new();
    for part in list.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first)?, number(last)?);
        if last < first {
            return None;
        }
        all.extend(first..=last);
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_looser_limit_of_two_builds_holds() {
        let limits = |memory, memory_swap, cpu_shares, cpu_period, cpu_quota, cpus: &str| {
            let (cpuset_cpus, cpuset_mems) = (cpus.to_owned(), String::new());
            pb::LinuxResources {
                memory,
                memory_swap,
                cpu_shares,
                cpu_period,
                cpu_quota,
                cpuset_cpus,
                cpuset_mems,
            }
        };
        for (one, other, both) in [
            (limits(1, 0, 0, 0, 0, "0"), limits(2, 5, 7, 0, 0, "1"), limits(2, 5, 7, 0, 0, "0-1")),
            (
                limits(1, -1, 3, 0, 0, "0-2,7"),
                limits(0, 5, 7, 0, 0, "9,3"),
                limits(0, -1, 7, 0, 0, "0-3,7,9"),
            ),
            // Unlimited beside limited, a larger share in a longer period, the same share in a shorter one.
            (limits(0, 0, 0, 10, 5, "x"), limits(0, 0, 0, 20, 0, "1"), limits(0, 0, 0, 20, 0, "1")),
            (limits(0, 0, 0, 100, 50, ""), limits(0, 0, 0, 1000, 900, "1"), limits(0, 0, 0, 1000, 900, "")),
            (limits(0, 0, 0, 100, 50, ""), limits(0, 0, 0, 10, 5, ""), limits(0, 0, 0, 10, 5, "")),
            (limits(0, 0, 0, 0, 50, "1"), limits(0, 0, 0, 10, 50, "1"), limits(0, 0, 0, 10, 50, "1")),
        ] {
            assert_eq!(looser_resources(Some(&one), Some(&other)).as_ref(), Some(&both), "{one:?} {other:?}");
            assert_eq!(looser_resources(Some(&other), Some(&one)).as_ref(), Some(&both), "{other:?} {one:?}");
            assert_eq!(looser_resources(Some(&one), None).as_ref(), Some(&one));
        }
        assert_eq!(looser_resources(None, None), None);
    }
}
