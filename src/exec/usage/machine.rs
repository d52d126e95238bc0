//! What the whole machine did: figures of procfs, by the names of provenance (BuildKit `executor/resources/types`).

use std::{
    fs,
    io::Read,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use serde::{Serialize, Serializer};

use super::{
    Pressure,
    figures::moment,
    parse::{counters, pressure},
};

/// How old what is known of the processors may be when a step begins. Beside the two seconds at least of a step that is told
/// of, it does not count, and short steps one after the other do not read it each time.
const FRESH: Duration = Duration::from_millis(100);
/// Bytes of the first line of `/proc/stat` at most: ten numbers of twenty digits.
const FIRST_LINE: usize = 256;

/// What the whole machine did by some moment.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MachineSample {
    /// The moment.
    #[serde(serialize_with = "moment")]
    pub timestamp: SystemTime,
    /// Time of processors since the machine's start.
    #[serde(rename = "cpuStat", skip_serializing_if = "Option::is_none")]
    pub processors: Option<Processors>,
    /// Processes.
    #[serde(rename = "procStat", skip_serializing_if = "Option::is_none")]
    pub processes: Option<MachineProcesses>,
    /// Memory.
    #[serde(rename = "memoryStat", skip_serializing_if = "Option::is_none")]
    pub memory: Option<MachineMemory>,
    /// How much was waited for processors.
    #[serde(rename = "cpuPressure", skip_serializing_if = "Option::is_none")]
    pub processor_pressure: Option<Pressure>,
    /// How much was waited for memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_pressure: Option<Pressure>,
    /// How much was waited for disks.
    #[serde(rename = "ioPressure", skip_serializing_if = "Option::is_none")]
    pub disk_pressure: Option<Pressure>,
}

/// What all processors together did, in hundredths of a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the kernel's own names, explained in proc_stat(5)")]
pub struct Processors {
    pub user: u64,
    pub nice: u64,
    pub system: u64,
    pub idle: u64,
    pub iowait: u64,
    pub irq: u64,
    pub softirq: u64,
    pub steal: u64,
    pub guest: u64,
    pub guest_nice: u64,
}

impl Processors {
    /// What they did since an earlier moment. Some of the kernel's counters go back now and then.
    pub(crate) fn since(self, earlier: Processors) -> Self {
        Processors {
            user: self.user.saturating_sub(earlier.user),
            nice: self.nice.saturating_sub(earlier.nice),
            system: self.system.saturating_sub(earlier.system),
            idle: self.idle.saturating_sub(earlier.idle),
            iowait: self.iowait.saturating_sub(earlier.iowait),
            irq: self.irq.saturating_sub(earlier.irq),
            softirq: self.softirq.saturating_sub(earlier.softirq),
            steal: self.steal.saturating_sub(earlier.steal),
            guest: self.guest.saturating_sub(earlier.guest),
            guest_nice: self.guest_nice.saturating_sub(earlier.guest_nice),
        }
    }
}

impl Serialize for Processors {
    /// In seconds.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let seconds = |hundredths: u64| hundredths as f64 / 100.0;
        let mut all = serializer.serialize_struct("Processors", 10)?;
        all.serialize_field("user", &seconds(self.user))?;
        all.serialize_field("nice", &seconds(self.nice))?;
        all.serialize_field("system", &seconds(self.system))?;
        all.serialize_field("idle", &seconds(self.idle))?;
        all.serialize_field("iowait", &seconds(self.iowait))?;
        all.serialize_field("irq", &seconds(self.irq))?;
        all.serialize_field("softirq", &seconds(self.softirq))?;
        all.serialize_field("steal", &seconds(self.steal))?;
        all.serialize_field("guest", &seconds(self.guest))?;
        all.serialize_field("guestNice", &seconds(self.guest_nice))?;
        all.end()
    }
}

/// Processes of the machine since its start, and how many are running.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct MachineProcesses {
    pub context_switches: u64,
    pub process_created: u64,
    pub processes_running: u64,
}

/// Memory of the machine. BuildKit tells the kernel's numbers as they are, in KiB.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the kernel's own names, explained in proc_meminfo(5)")]
pub struct MachineMemory {
    pub total: Option<u64>,
    pub free: Option<u64>,
    pub available: Option<u64>,
    pub buffers: Option<u64>,
    pub cached: Option<u64>,
    pub active: Option<u64>,
    pub inactive: Option<u64>,
    pub swap: Option<u64>,
    pub dirty: Option<u64>,
    pub writeback: Option<u64>,
    pub slab: Option<u64>,
}

/// What the machine does now. None if the kernel does not tell.
pub fn machine() -> Option<MachineSample> {
    let (timestamp, stat) = (SystemTime::now(), fs::read_to_string("/proc/stat").ok()?);
    let memory = fs::read_to_string("/proc/meminfo").ok();
    let waited = |what: &str| fs::read_to_string(format!("/proc/pressure/{what}")).ok();
    let waited = |what: &str| waited(what).map(|text| pressure(&text));
    Some(MachineSample {
        timestamp,
        processors: Processors::parse(&stat),
        processes: Some(MachineProcesses::parse(&stat)),
        memory: memory.map(|text| MachineMemory::parse(&text)),
        processor_pressure: waited("cpu"),
        memory_pressure: waited("memory"),
        disk_pressure: waited("io"),
    })
}

/// What all processors have done so far.
pub(super) fn processors() -> Option<Processors> {
    // The first line has it all; what follows is as long as the machine has processors and interrupts.
    let mut first = [0; FIRST_LINE];
    let read = fs::File::open("/proc/stat").and_then(|mut file| file.read(&mut first)).ok()?;
    Processors::parse(&String::from_utf8_lossy(first.get(..read)?))
}

/// The same, of a moment ago.
pub(super) fn recent_processors() -> Option<Processors> {
    static KNOWN: Mutex<Option<(Instant, Processors)>> = Mutex::new(None);
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    match *known {
        Some((at, found)) if at.elapsed() < FRESH => Some(found),
        _ => {
            let found = processors()?;
            *known = Some((Instant::now(), found));
            Some(found)
        }
    }
}

impl Processors {
    /// Of `/proc/stat`.
    fn parse(stat: &str) -> Option<Self> {
        let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
        let mut columns = line.split_whitespace().map(|column| column.parse().unwrap_or(0));
        let mut next = || columns.next().unwrap_or(0);
        Some(Processors {
            user: next(),
            nice: next(),
            system: next(),
            idle: next(),
            iowait: next(),
            irq: next(),
            softirq: next(),
            steal: next(),
            guest: next(),
            guest_nice: next(),
        })
    }
}

impl MachineProcesses {
    /// Of `/proc/stat`.
    fn parse(stat: &str) -> Self {
        let mut all = MachineProcesses::default();
        for (key, value) in counters(stat) {
            match key {
                "ctxt" => all.context_switches = value,
                "processes" => all.process_created = value,
                "procs_running" => all.processes_running = value,
                _ => {}
            }
        }
        all
    }
}

impl MachineMemory {
    /// Of `/proc/meminfo`.
    fn parse(meminfo: &str) -> Self {
        let mut all = MachineMemory::default();
        for (key, value) in counters(meminfo) {
            let place = match key {
                "MemTotal:" => &mut all.total,
                "MemFree:" => &mut all.free,
                "MemAvailable:" => &mut all.available,
                "Buffers:" => &mut all.buffers,
                "Cached:" => &mut all.cached,
                "Active:" => &mut all.active,
                "Inactive:" => &mut all.inactive,
                "SwapTotal:" => &mut all.swap,
                "Dirty:" => &mut all.dirty,
                "Writeback:" => &mut all.writeback,
                "Slab:" => &mut all.slab,
                _ => continue,
            };
            *place = Some(value);
        }
        all
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
