//! Times as Go programs print and read them.

use prost_types::Timestamp;

/// `2026-11-21T09:43:16.2618493Z`: UTC, with as many decimals as the time needs.
pub(crate) fn rfc3339(at: &Timestamp) -> String {
    format!("{}{}Z", civil(at, "%Y-%m-%dT%H:%M:%S"), decimals(at))
}

/// `2026-11-21 09:43:20.726594794 +0000 UTC`.
pub(crate) fn verbose(at: &Timestamp) -> String {
    format!("{}{} +0000 UTC", civil(at, "%Y-%m-%d %H:%M:%S"), decimals(at))
}

/// `2026-11-21T09:43:16Z` or `…+01:00`: local time in whole seconds.
pub(crate) fn local(at: &Timestamp) -> String {
    let Ok(at) = jiff::Timestamp::from_second(at.seconds) else { return String::new() };
    let zoned = at.to_zoned(jiff::tz::TimeZone::system());
    let offset =
        if zoned.offset().seconds() == 0 { "Z".to_owned() } else { zoned.strftime("%:z").to_string() };
    format!("{}{offset}", zoned.strftime("%Y-%m-%dT%H:%M:%S"))
}

fn civil(at: &Timestamp, format: &str) -> String {
    jiff::Timestamp::from_second(at.seconds).map(|at| at.strftime(format).to_string()).unwrap_or_default()
}

fn decimals(at: &Timestamp) -> String {
    if at.nanos == 0 {
        return String::new();
    }
    let digits = format!(".{:09}", at.nanos);
    digits.trim_end_matches('0').to_owned()
}

/// Nanoseconds of a duration such as `1h30m`, `1.5s` or `100ms`.
pub(crate) fn parse_duration(text: &str) -> Option<i64> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total = 0.0;
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let unit = rest[number..]
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .map_or(rest.len(), |at| number + at);
        let factor = match &rest[number..unit] {
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        total += rest[..number].parse::<f64>().ok()? * factor;
        rest = &rest[unit..];
    }
    (total <= i64::MAX as f64).then_some((sign * total) as i64)
}

/// A duration in nanoseconds as `48h0m0s`, `1m30s`, `1.5s`, `100ms`.
pub(crate) fn format_duration(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let all = nanos.unsigned_abs();
    let small = |unit: u64, name: &str| format!("{sign}{}{name}", all as f64 / unit as f64);
    match all {
        0 => return "0s".to_owned(),
        1..1_000 => return small(1, "ns"),
        1_000..1_000_000 => return small(1_000, "µs"),
        1_000_000..1_000_000_000 => return small(1_000_000, "ms"),
        _ => {}
    }
    let (hours, minutes) = (all / 3_600_000_000_000, all / 60_000_000_000 % 60);
    let seconds = (all % 60_000_000_000) as f64 / 1e9;
    match (hours, minutes) {
        (0, 0) => format!("{sign}{seconds}s"),
        (0, _) => format!("{sign}{minutes}m{seconds}s"),
        _ => format!("{sign}{hours}h{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_printed() {
        assert_eq!(parse_duration("1h30m"), Some(5_400_000_000_000));
        assert_eq!(parse_duration("-1.5s"), Some(-1_500_000_000));
        assert_eq!(parse_duration("100ms"), Some(100_000_000));
        assert_eq!(parse_duration("0"), Some(0));
        for bad in ["", "x", "5", "5x", "h", "1h5"] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
        let shown = [172_800_000_000_000, 90_000_000_000, 1_500_000_000, 100_000_000, 0].map(format_duration);
        assert_eq!(shown, ["48h0m0s", "1m30s", "1.5s", "100ms", "0s"]);
    }

    #[test]
    fn zeros_at_the_end_are_left_out() {
        let at = Timestamp { seconds: 1_795_254_196, nanos: 261_849_300 };
        assert_eq!(rfc3339(&at), "2026-11-21T09:43:16.2618493Z");
        assert_eq!(verbose(&Timestamp { nanos: 0, ..at }), "2026-11-21 09:43:16 +0000 UTC");
    }
}
