//! Filters of the build history: `status==error,startedAt>24h`.
//!
//! Parts are separated by commas, and all of a filter must hold; of several filters any suffices. `ref`, `status`
//! (`running`, `completed`, `error`, `canceled`) and `repository` are compared as filters of the cache are; `startedAt`,
//! `completedAt` (a time, or how long ago) and `duration` by `>`, `>=`, `<` and `<=`.

use crate::config::units::duration;
use crosskit_api::control::BuildHistoryRecord;
use crosskit_snapshots::filters::{Fields, Filters};
use std::cmp::Ordering;
use std::time::{Duration, SystemTime};

/// What a client wants to see of the history.
pub struct HistoryFilters(Vec<Vec<Part>>);

enum Part {
    /// Words.
    Fields(Filters),
    /// A time or duration in nanoseconds.
    Amount { of: Amount, allowed: &'static [Ordering], value: i128 },
}

#[derive(Clone, Copy)]
enum Amount {
    Started,
    Completed,
    Duration,
}

const COMPARISONS: [(&str, &[Ordering]); 4] = [
    (">=", &[Ordering::Greater, Ordering::Equal]),
    ("<=", &[Ordering::Less, Ordering::Equal]),
    (">", &[Ordering::Greater]),
    ("<", &[Ordering::Less]),
];

const SECOND: i128 = 1_000_000_000;

impl HistoryFilters {
    /// Reads filters; none lets everything pass. `now` is what times of the form `24h` are before.
    ///
    /// # Errors
    /// What is none, in words for the client.
    pub fn parse(filters: &[String], now: SystemTime) -> Result<Self, String> {
        filters.iter().map(|filter| parts(filter, now)).collect::<Result<_, _>>().map(HistoryFilters)
    }

    /// Whether any of them wants a record.
    pub fn want(&self, record: &BuildHistoryRecord) -> bool {
        self.0.is_empty() || self.0.iter().any(|parts| parts.iter().all(|part| part.holds(record)))
    }
}

fn parts(filter: &str, now: SystemTime) -> Result<Vec<Part>, String> {
    let fields = crosskit_dockerfile::csv_fields(filter)?;
    let mut parts = Vec::new();
    let mut words = Vec::new();
    for field in fields {
        match amount(&field, now)? {
            Some(part) => parts.push(part),
            None => words.push(field),
        }
    }
    if !words.is_empty() {
        let words = Filters::parse([words.join(",")])
            .map_err(|e| format!("failed to parse history filters {filter}: {e}"))?;
        parts.push(Part::Fields(words));
    }
    Ok(parts)
}

fn amount(field: &str, now: SystemTime) -> Result<Option<Part>, String> {
    let found = COMPARISONS.iter().find_map(|(sign, allowed)| Some((field.split_once(sign)?, *allowed)));
    let Some(((key, text), allowed)) = found else { return Ok(None) };
    let length = || duration(text).filter(|_| text.parse::<u64>().is_err());
    let (of, value) = match key {
        "startedAt" | "completedAt" => {
            let of = if key == "startedAt" { Amount::Started } else { Amount::Completed };
            let ago = length().map(|ago| nanoseconds(now) - nanoseconds_of(ago));
            let at = || text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_nanosecond);
            // Times are compared by the second.
            (of, ago.or_else(at).ok_or_else(|| format!("invalid time {text}"))?.div_euclid(SECOND) * SECOND)
        }
        "duration" => {
            let length = length().ok_or_else(|| format!("invalid duration {text}"))?;
            (Amount::Duration, nanoseconds_of(length))
        }
        _ => return Ok(None),
    };
    Ok(Some(Part::Amount { of, allowed, value }))
}

fn nanoseconds(at: SystemTime) -> i128 {
    nanoseconds_of(at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}

fn nanoseconds_of(duration: Duration) -> i128 {
    i128::try_from(duration.as_nanos()).unwrap_or(i128::MAX)
}

impl Part {
    fn holds(&self, record: &BuildHistoryRecord) -> bool {
        match self {
            Part::Fields(filters) => filters.matches(&RecordFields(record)),
            Part::Amount { of, allowed, value } => allowed.contains(&of.in_record(record).cmp(value)),
        }
    }
}

impl Amount {
    /// What does not have it yet has none of it.
    fn in_record(self, record: &BuildHistoryRecord) -> i128 {
        let seconds = |t: &Option<prost_types::Timestamp>| t.map_or(0, |t| i128::from(t.seconds) * SECOND);
        let whole = |t: prost_types::Timestamp| i128::from(t.seconds) * SECOND + i128::from(t.nanos);
        match self {
            Amount::Started => seconds(&record.created_at),
            Amount::Completed => seconds(&record.completed_at),
            Amount::Duration => match (record.created_at, record.completed_at) {
                (Some(from), Some(to)) => whole(to) - whole(from),
                _ => 0,
            },
        }
    }
}

struct RecordFields<'a>(&'a BuildHistoryRecord);

impl Fields for RecordFields<'_> {
    fn field(&self, path: &[String]) -> Option<String> {
        let record = self.0;
        match path.first()?.as_str() {
            "ref" => Some(record.r#ref.clone()).filter(|text| !text.is_empty()),
            "status" => Some(status(record).to_string()),
            "repository" => {
                let source = record.frontend_attrs.get("vcs:source").cloned();
                source.or_else(|| crosskit_dockerfile::git_remote(record.frontend_attrs.get("context")?))
            }
            _ => None,
        }
    }
}

fn status(record: &BuildHistoryRecord) -> &'static str {
    match (&record.completed_at, &record.error) {
        (None, _) => "running",
        (Some(_), None) => "completed",
        (Some(_), Some(error)) if error.message.contains("context canceled") => "canceled",
        (Some(_), Some(_)) => "error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crosskit_api::rpc;

    fn record(seconds: i64, error: Option<&str>) -> BuildHistoryRecord {
        let at = |seconds| Some(prost_types::Timestamp { seconds, nanos: 500_000_000 });
        let message = |text: &str| rpc::Status { message: text.to_string(), ..rpc::Status::default() };
        BuildHistoryRecord {
            r#ref: "one".into(),
            created_at: at(1000),
            completed_at: at(1000 + seconds),
            error: error.map(message),
            frontend_attrs: [("context".to_string(), "https://git.example/a/b.git#main:sub".to_string())]
                .into(),
            ..BuildHistoryRecord::default()
        }
    }

    fn wants(filters: &[&str], record: &BuildHistoryRecord) -> Result<bool, String> {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(5000);
        let filters: Vec<String> = filters.iter().map(|filter| (*filter).to_string()).collect();
        Ok(HistoryFilters::parse(&filters, now)?.want(record))
    }

    #[test]
    fn records_are_chosen_by_words_times_and_durations() {
        let done = record(60, None);
        for (filters, wanted) in [
            (&[][..], true),
            (&["ref==one"], true),
            (&["ref==two"], false),
            (&["ref==two", "status==completed"], true),
            (&["status==completed,duration>1m"], false),
            (&["status==completed,duration>=1m"], true),
            (&["status==completed,duration<1m1s"], true),
            (&["startedAt>1970-01-01T00:16:40Z"], false),
            (&["startedAt>=1970-01-01T00:16:40Z"], true),
            (&["completedAt<1h"], true),
            (&["completedAt>66m"], true),
            (&["repository==https://git.example/a/b.git"], true),
            (&["repository~=other"], false),
            (&["nothing"], false),
        ] {
            assert_eq!(wants(filters, &done), Ok(wanted), "{filters:?}");
        }
        let running = BuildHistoryRecord { completed_at: None, ..record(60, None) };
        assert_eq!(wants(&["status==running"], &running), Ok(true));
        assert_eq!(wants(&["status==canceled"], &record(1, Some("rpc: context canceled"))), Ok(true));
        assert_eq!(wants(&["status==error"], &record(1, Some("no such file"))), Ok(true));
    }

    #[test]
    fn what_is_no_filter_is_said() {
        let done = record(60, None);
        assert_eq!(wants(&["startedAt>yesterday"], &done), Err("invalid time yesterday".to_string()));
        assert_eq!(wants(&["duration<5"], &done), Err("invalid duration 5".to_string()));
        assert!(wants(&["status==,"], &done).unwrap_err().starts_with("failed to parse history filters"));
    }
}
