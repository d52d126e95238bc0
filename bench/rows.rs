//! One promise, what was measured for it, and the table of them.

use std::fmt;

/// What a number counts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Unit {
    /// Milliseconds.
    Milliseconds,
    /// Millions of bytes, 1024 · 1024 each.
    Megabytes,
}

/// What was promised.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Target {
    /// At most this much.
    AtMost(f64),
    /// At most this much above the floor.
    AboveFloor(f64),
    /// At most this many times the floor.
    TimesFloor(f64),
}

/// One line of the table.
#[derive(Debug, Clone)]
pub struct Row {
    /// What was done.
    pub what: String,
    /// In which unit the numbers are.
    pub unit: Unit,
    /// What it took.
    pub measured: f64,
    /// What the plain tool took for the same, and its name.
    pub floor: Option<(String, f64)>,
    /// The promise.
    pub target: Target,
    /// What somebody else's programs took.
    pub peer: Option<f64>,
}

impl Row {
    /// A line with a promise that stands by itself.
    pub fn new(what: &str, unit: Unit, measured: f64, target: Target) -> Row {
        Row { what: what.to_owned(), unit, measured, floor: None, target, peer: None }
    }

    /// With the floor it is to be seen beside.
    pub fn beside(mut self, name: &str, floor: f64) -> Row {
        self.floor = Some((name.to_owned(), floor));
        self
    }

    /// How much is allowed, in the row's unit.
    fn allowed(&self) -> f64 {
        let floor = self.floor.as_ref().map_or(f64::NAN, |(_, value)| *value);
        match self.target {
            Target::AtMost(most) => most,
            Target::AboveFloor(more) => floor + more,
            Target::TimesFloor(times) => floor * times,
        }
    }

    fn number(&self, value: f64) -> String {
        match self.unit {
            Unit::Milliseconds if value >= 1000.0 => format!("{:.2} s", value / 1000.0),
            Unit::Milliseconds if value >= 100.0 => format!("{value:.0} ms"),
            Unit::Milliseconds => format!("{value:.1} ms"),
            Unit::Megabytes => format!("{value:.1} MB"),
        }
    }

    fn cells(&self) -> [String; 7] {
        let floor = self.floor.as_ref();
        let target = match self.target {
            Target::AtMost(most) => self.number(most),
            Target::AboveFloor(more) => format!("floor + {}", self.number(more)),
            Target::TimesFloor(times) => format!("{times} × floor"),
        };
        let share = self.measured / self.allowed();
        let verdict = if share <= 1.0 { "kept" } else { "**missed**" };
        [
            self.what.clone(),
            self.number(self.measured),
            floor.map_or_else(|| "–".into(), |(name, value)| format!("{} ({name})", self.number(*value))),
            floor.map_or_else(|| "–".into(), |(_, value)| format!("{:.2}", self.measured / value)),
            target,
            format!("{share:.2} {verdict}"),
            self.peer.map_or_else(|| "–".into(), |peer| self.number(peer)),
        ]
    }
}

impl fmt::Display for Row {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [what, measured, floor, ratio, target, verdict, peer] = self.cells();
        write!(
            out,
            "{what}: {measured}; floor {floor}, ratio {ratio}; target {target}: {verdict}; peer {peer}"
        )
    }
}

/// The table, in Markdown.
pub fn table(rows: &[Row]) -> String {
    let mut text = String::from(
        "| what | measured | floor | measured / floor | target | measured / target | peer |\n|---|---|---|---|---|---|---|\n",
    );
    for row in rows {
        text.push_str(&format!("| {} |\n", row.cells().join(" | ")));
    }
    text
}
