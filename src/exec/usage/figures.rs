//! What is told of what a step has used, by the names of provenance (BuildKit `executor/resources/types`).

use std::time::SystemTime;

use serde::{Serialize, Serializer};

use super::Processors;

/// What a step has used.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    /// Moments while it ran, and its end.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub samples: Vec<Sample>,
    /// What all processors of the machine did meanwhile. None for a step that was too short for that to say something.
    #[serde(rename = "sysCPUStat", skip_serializing_if = "Option::is_none")]
    pub processors: Option<Processors>,
}

/// What a step had used by some moment.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Sample {
    /// The moment.
    #[serde(serialize_with = "moment")]
    pub timestamp: SystemTime,
    /// Time of processors.
    #[serde(rename = "cpuStat", skip_serializing_if = "Option::is_none")]
    pub processor: Option<Processor>,
    /// Memory.
    #[serde(rename = "memoryStat", skip_serializing_if = "Option::is_none")]
    pub memory: Option<Memory>,
    /// Disks.
    #[serde(rename = "ioStat", skip_serializing_if = "Option::is_none")]
    pub disks: Option<Disks>,
    /// Processes.
    #[serde(rename = "pidsStat", skip_serializing_if = "Option::is_none")]
    pub processes: Option<Processes>,
    /// Its network, if it has one of its own.
    #[serde(rename = "netStat", skip_serializing_if = "Option::is_none")]
    pub network: Option<Traffic>,
}

impl Sample {
    /// One that tells nothing yet.
    pub(crate) fn at(timestamp: SystemTime) -> Self {
        Sample { timestamp, processor: None, memory: None, disks: None, processes: None, network: None }
    }
}

/// Processor time of a step, in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Processor {
    #[allow(missing_docs)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage_nanos: Option<u64>,
    /// Of it in programs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_nanos: Option<u64>,
    /// Of it in the kernel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system_nanos: Option<u64>,
    /// Periods in which its share was counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nr_periods: Option<u64>,
    /// Of them those in which it had used its share up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nr_throttled: Option<u64>,
    /// How long it had to wait then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub throttled_nanos: Option<u64>,
    /// How much it waited for processors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pressure: Option<Pressure>,
}

/// Memory of a step, in bytes, and how often something happened to it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs, reason = "the kernel's own names, explained in its admin-guide/cgroup-v2.rst")]
pub struct Memory {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub anon: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel_stack: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub page_tables: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sock: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shmem: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_mapped: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_dirty: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_writeback: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slab: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pgscan: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pgsteal: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pgfault: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pgmajfault: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak: Option<u64>,
    #[serde(skip_serializing_if = "is_zero")]
    pub low_events: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub high_events: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub max_events: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub oom_events: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub oom_kill_events: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pressure: Option<Pressure>,
}

/// What a step has read from disks and written to them: bytes, and operations.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct Disks {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub write_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub discard_bytes: Option<u64>,
    #[serde(rename = "readIOs", skip_serializing_if = "Option::is_none")]
    pub reads: Option<u64>,
    #[serde(rename = "writeIOs", skip_serializing_if = "Option::is_none")]
    pub writes: Option<u64>,
    #[serde(rename = "discardIOs", skip_serializing_if = "Option::is_none")]
    pub discards: Option<u64>,
    /// How much it waited for disks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pressure: Option<Pressure>,
}

/// Processes of a step.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Processes {
    /// How many there are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current: Option<u64>,
}

/// What has gone through the interfaces of a step's network, seen from the step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct Traffic {
    #[serde(skip_serializing_if = "is_zero")]
    pub rx_bytes: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub rx_packets: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub rx_errors: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub rx_dropped: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub tx_bytes: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub tx_packets: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub tx_errors: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub tx_dropped: u64,
}

/// How much was waited for something (Linux `accounting/psi.rst`).
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Pressure {
    /// By some.
    pub some: Option<Waited>,
    /// By all at the same time.
    pub full: Option<Waited>,
}

/// Percentages of the last 10, 60 and 300 seconds, and microseconds in all.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct Waited {
    pub avg10: Option<f64>,
    pub avg60: Option<f64>,
    pub avg300: Option<f64>,
    pub total: Option<u64>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// RFC 3339, in UTC.
pub(super) fn moment<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    let time = jiff::Timestamp::try_from(*time).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    serializer.collect_str(&time)
}
