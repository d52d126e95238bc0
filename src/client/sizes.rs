//! Sizes for people, in decimal units.

use std::fmt;

/// Bytes; prints as `123B`, `1.23kB`, `991.68kB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size(pub(crate) i64);

const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];

impl Size {
    /// The number in its unit, or nothing for bare bytes.
    fn scaled(self) -> Option<(f64, &'static str)> {
        let size = self.0 as f64;
        let mut scaled = None;
        let mut divisor = 1.0;
        for unit in UNITS {
            divisor *= 1000.0;
            if size.abs() < divisor {
                break;
            }
            scaled = Some((size / divisor, unit));
        }
        scaled
    }

    /// With as many decimals as the number needs: `1.2GB`, `10GB`.
    pub(crate) fn exact(self) -> String {
        match self.scaled() {
            None => format!("{}B", self.0),
            Some((number, unit)) => format!("{number}{unit}"),
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.scaled() {
            None => write!(f, "{}B", self.0),
            Some((number, unit)) => write!(f, "{number:.2}{unit}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_decimal() {
        let shown: Vec<String> =
            [0, 999, 1000, 991_680, 4096, -2_500_000, i64::MAX].map(|n| Size(n).to_string()).into();
        assert_eq!(shown, ["0B", "999B", "1.00kB", "991.68kB", "4.10kB", "-2.50MB", "9.22EB"]);
        assert_eq!(Size(10_000_000_000).exact(), "10GB");
        assert_eq!(Size(1_200).exact(), "1.2kB");
    }
}
