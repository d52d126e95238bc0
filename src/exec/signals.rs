//! Signals by name.

use std::str::FromStr;

use nix::sys::signal::Signal;

/// The first signal that programs may use as they like; the C library keeps two of the kernel's for itself.
const RTMIN: i32 = 34;
/// The last one.
const RTMAX: i32 = 64;
/// As far as names that count from `RTMIN` go; those behind count from `RTMAX`.
const NAMED_FROM_RTMIN: i32 = 15;

/// The number of a signal by its name without `SIG`: `TERM`, `RTMIN+3`, `RTMAX-1`; None if there is none of that name.
///
/// ```
/// assert_eq!(crosskit_exec::signal_number("TERM"), Some(15));
/// assert_eq!(crosskit_exec::signal_number("RTMAX-1"), Some(63));
/// assert_eq!(crosskit_exec::signal_number("SIGTERM"), None);
/// ```
pub fn signal_number(name: &str) -> Option<i32> {
    let steps = |text: &str, sign: char, most: i32| match text.strip_prefix(sign) {
        None => text.is_empty().then_some(0),
        Some(digits) => digits.parse().ok().filter(|steps| (1..=most).contains(steps)),
    };
    if let Some(rest) = name.strip_prefix("RTMIN") {
        return Some(RTMIN + steps(rest, '+', NAMED_FROM_RTMIN)?);
    }
    if let Some(rest) = name.strip_prefix("RTMAX") {
        return Some(RTMAX - steps(rest, '-', RTMAX - RTMIN - NAMED_FROM_RTMIN - 1)?);
    }
    let usual = match name {
        "CLD" => "CHLD",
        "IOT" => "ABRT",
        "POLL" => "IO",
        other => other,
    };
    Signal::from_str(&format!("SIG{usual}")).ok().map(|signal| signal as i32)
}

#[cfg(test)]
mod tests {
    use super::signal_number;

    #[test]
    fn names_have_the_kernels_numbers() {
        let known = [("HUP", 1), ("KILL", 9), ("CLD", 17), ("POLL", 29), ("RTMIN", 34), ("RTMIN+15", 49)];
        for (name, number) in known.into_iter().chain([("RTMAX-14", 50), ("RTMAX", 64)]) {
            assert_eq!(signal_number(name), Some(number), "{name}");
        }
        for name in ["", "term", "RTMIN+16", "RTMIN+0", "RTMIN-1", "RTMAX-15", "9"] {
            assert_eq!(signal_number(name), None, "{name}");
        }
    }
}
