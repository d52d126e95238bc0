//! `du` and `prune`: what the build cache takes, and making it smaller.

use super::{connect, control, print, print_formatted, template};
use crate::error::ClientError;
use crate::flags::Parsed;
use crate::sizes::Size;
use crate::tables::{Fill, align};
use crate::times;
use crate::values::{self, Value};
use crosskit_api::control::{DiskUsageRequest, PruneRequest, UsageRecord};

const HEADING: &str = "ID\tRECLAIMABLE\tSIZE\tLAST ACCESSED\n";

pub(super) async fn disk_usage(flags: &Parsed) -> Result<(), ClientError> {
    const ACTION: &str = "failed to call diskusage";
    let channel = connect(flags, ACTION).await?;
    let request = DiskUsageRequest { filter: flags.list("filter").to_vec(), age_limit: 0 };
    let answer = control(&channel).disk_usage(request).await.map_err(|s| ClientError::call(ACTION, s))?;
    let mut records = answer.into_inner().record;
    records.sort_by(|a, b| (a.size, &a.id).cmp(&(b.size, &b.id)));
    if let Some(template) = template(flags)? {
        return print_formatted(&template, &Value::List(records.iter().map(values::usage).collect()));
    }
    let mut out = if flags.on("verbose") {
        align(&records.iter().map(verbose).collect::<String>(), Fill::Tabs)
    } else {
        align(&(HEADING.to_owned() + &records.iter().map(row).collect::<String>()), Fill::Tabs)
    };
    if flags.list("filter").is_empty() {
        out += &align(&summary(&records), Fill::Tabs);
    }
    print(&out)
}

pub(super) async fn prune(flags: &Parsed) -> Result<(), ClientError> {
    const ACTION: &str = "failed to call prune";
    let channel = connect(flags, ACTION).await?;
    let request = PruneRequest {
        filter: flags.list("filter").to_vec(),
        all: flags.on("all"),
        keep_duration: flags.duration("keep-duration"),
        reserved_space: flags.megabytes("keep-storage-min"),
        max_used_space: flags.megabytes("keep-storage"),
        min_free_space: flags.megabytes("free-storage"),
    };
    let template = template(flags)?;
    let answer = control(&channel).prune(request).await.map_err(|s| ClientError::call(ACTION, s))?;
    let mut records = answer.into_inner();
    let (mut total, mut any) = (0, false);
    while let Some(record) = records.message().await.map_err(|s| ClientError::call("", s))? {
        total += record.size;
        let first = !std::mem::replace(&mut any, true);
        if let Some(template) = &template {
            // One record at a time, unlike `du`.
            print_formatted(template, &values::usage(&record))?;
        } else if flags.on("verbose") {
            print(&align(&verbose(&record), Fill::Tabs))?;
        } else {
            let heading = if first { HEADING } else { "" };
            print(&align(&(heading.to_owned() + &row(&record)), Fill::Tabs))?;
        }
    }
    if template.is_none() {
        print(&align(&format!("Total:\t{}\n", Size(total)), Fill::Tabs))?;
    }
    Ok(())
}

fn row(record: &UsageRecord) -> String {
    let star = |on: bool| if on { "*" } else { "" };
    let id = format!("{}{}", record.id, star(record.mutable));
    let reclaimable = !record.in_use;
    format!("{id:<71}\t{reclaimable:<11}\t{}{}\t\n", Size(record.size), star(record.shared))
}

fn verbose(record: &UsageRecord) -> String {
    let mut out = String::new();
    let mut line = |key: &str, value: &str| out += &format!("{key}:\t{value}\n");
    line("ID", &record.id);
    if !record.parents.is_empty() {
        line("Parents", &record.parents.join(";"));
    }
    line("Created at", &times::verbose(&record.created_at.unwrap_or_default()));
    line("Mutable", &record.mutable.to_string());
    line("Reclaimable", &(!record.in_use).to_string());
    line("Shared", &record.shared.to_string());
    line("Size", &Size(record.size).to_string());
    if !record.description.is_empty() {
        // A tab or line break in it would break the table.
        line("Description", &record.description.replace(['\n', '\t'], " "));
    }
    line("Usage count", &record.usage_count.to_string());
    if let Some(at) = &record.last_used_at {
        line("Last used", &times::verbose(at));
    }
    if !record.record_type.is_empty() {
        line("Type", &record.record_type);
    }
    out + "\n"
}

fn summary(records: &[UsageRecord]) -> String {
    let sum =
        |keep: fn(&UsageRecord) -> bool| records.iter().filter(|r| keep(r)).map(|r| r.size).sum::<i64>();
    let total = sum(|r| r.size > 0);
    let reclaimable = sum(|r| r.size > 0 && !r.in_use);
    let shared = sum(|r| r.shared);
    let mut out = String::new();
    if shared > 0 {
        out += &format!("Shared:\t{}\nPrivate:\t{}\n", Size(shared), Size(total - shared));
    }
    out + &format!("Reclaimable:\t{}\nTotal:\t{}\n", Size(reclaimable), Size(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: &str, size: i64) -> UsageRecord {
        UsageRecord {
            id: id.into(),
            size,
            created_at: Some(prost_types::Timestamp { seconds: 1, nanos: 500 }),
            ..Default::default()
        }
    }

    #[test]
    fn tables_are_padded() {
        let shared = UsageRecord { shared: true, mutable: true, in_use: true, ..record("b", 4096) };
        let text = align(&(HEADING.to_owned() + &row(&record("a", 12)) + &row(&shared)), Fill::Tabs);
        let wide = |id: &str| format!("{id:<71}");
        let expected = [
            format!("ID{}RECLAIMABLE\tSIZE\tLAST ACCESSED\n", "\t".repeat(9)),
            format!("{}\ttrue       \t12B\t\n", wide("a")),
            format!("{}\tfalse      \t4.10kB*\t\n", wide("b*")),
        ];
        assert_eq!(text, expected.concat());
    }

    #[test]
    fn a_record_in_full() {
        let record = UsageRecord {
            parents: vec!["p".into(), "q".into()],
            record_type: "regular".into(),
            ..record("a", 1500)
        };
        assert_eq!(
            align(&verbose(&record), Fill::Tabs),
            "ID:\t\ta\nParents:\tp;q\nCreated at:\t1970-01-01 00:00:01.0000005 +0000 UTC\nMutable:\tfalse\nReclaimable:\ttrue\nShared:\t\tfalse\nSize:\t\t1.50kB\nUsage count:\t0\nType:\t\tregular\n\n"
        );
    }

    #[test]
    fn sums() {
        let records = [
            record("a", 1000),
            UsageRecord { shared: true, ..record("b", 500) },
            UsageRecord { in_use: true, ..record("c", 2000) },
        ];
        assert_eq!(
            summary(&records),
            "Shared:\t500B\nPrivate:\t3.00kB\nReclaimable:\t1.50kB\nTotal:\t3.50kB\n"
        );
    }
}
