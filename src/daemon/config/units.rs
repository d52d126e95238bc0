//! Durations and amounts of disk as `buildkitd.toml` and the flags write them.

use std::time::Duration;

/// An amount of disk, in bytes or as a share of the whole disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// Bytes.
    Bytes(i64),
    /// Percent of the disk's size.
    Percent(i64),
}

impl Space {
    /// Bytes, given the size of the disk in bytes. Shares are rounded up to whole gigabytes, as
    /// BuildKit does: one gigabyte (10⁹) for each begun 2³⁰ bytes.
    pub fn bytes(self, disk: i64) -> i64 {
        match self {
            Space::Bytes(bytes) => bytes,
            Space::Percent(0) => 0,
            Space::Percent(percent) => ((disk.saturating_mul(percent) / 100) / (1 << 30) + 1) * 1_000_000_000,
        }
    }

    /// Reads `512MB`, `10GiB`, `20%` or plain bytes. Units are powers of 1024, as in Docker's tools.
    pub fn parse(text: &str) -> Option<Space> {
        let text = text.trim();
        if let Some(percent) = text.strip_suffix('%') {
            return percent.trim().parse().ok().filter(|p| (0..=100).contains(p)).map(Space::Percent);
        }
        let split = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
        let number: f64 = text[..split].parse().ok()?;
        let unit = text[split..].trim().to_ascii_lowercase();
        let unit = unit.strip_suffix('b').unwrap_or(&unit);
        let power = match unit.strip_suffix('i').unwrap_or(unit) {
            "" => 0,
            "k" => 1,
            "m" => 2,
            "g" => 3,
            "t" => 4,
            "p" => 5,
            _ => return None,
        };
        let bytes = number * 1024f64.powi(power);
        (bytes <= i64::MAX as f64).then_some(Space::Bytes(bytes as i64))
    }
}

/// Reads `48h`, `1h30m`, `500ms` or plain seconds.
pub fn duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let mut rest = text;
    let mut total = 0f64;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        total += number
            * match &rest[..unit] {
                "ns" => 1e-9,
                "us" | "µs" => 1e-6,
                "ms" => 1e-3,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                _ => return None,
            };
        rest = &rest[unit..];
    }
    Duration::try_from_secs_f64(total).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts() {
        for (text, expected) in [
            ("512MB", Some(Space::Bytes(512 << 20))),
            ("1.5g", Some(Space::Bytes(3 << 29))),
            ("10GiB", Some(Space::Bytes(10 << 30))),
            ("1000", Some(Space::Bytes(1000))),
            ("20%", Some(Space::Percent(20))),
            ("200%", None),
            ("lots", None),
            ("", None),
        ] {
            assert_eq!(Space::parse(text), expected, "{text}");
        }
        assert_eq!(Space::Percent(10).bytes(100 << 30), 11_000_000_000);
    }

    #[test]
    fn durations() {
        for (text, expected) in [
            ("48h", Some(Duration::from_secs(172_800))),
            ("1h30m", Some(Duration::from_secs(5400))),
            ("250ms", Some(Duration::from_millis(250))),
            ("3600", Some(Duration::from_secs(3600))),
            ("1 fortnight", None),
            ("", None),
        ] {
            assert_eq!(duration(text), expected, "{text}");
        }
    }
}
