//! What a step's cgroup says of it: one folder on machines with the unified hierarchy (version 2), one for each kind of
//! resource on others (version 1). Files that are not there tell nothing.

use std::{
    fs,
    path::{Path, PathBuf},
    time::SystemTime,
};

use super::{
    Disks, Memory, Pressure, Processes, Processor, Sample,
    parse::{counters, number, pressure},
};

/// Nanoseconds of a hundredth of a second, in which version 1 tells times of programs and of the kernel.
const HUNDREDTH: u64 = 10_000_000;

/// Where a step's cgroup is.
#[derive(Clone, Debug)]
pub(super) enum Folders {
    /// Version 2.
    Unified(PathBuf),
    /// Version 1: the folder with the hierarchies, and the path in each of them.
    Separate { hierarchies: PathBuf, path: PathBuf },
}

impl Folders {
    /// Of a cgroup by its path.
    pub(super) fn new(hierarchies: &Path, path: &str, unified: bool) -> Self {
        let path = path.trim_start_matches('/');
        match unified {
            true => Folders::Unified(hierarchies.join(path)),
            false => Folders::Separate { hierarchies: hierarchies.to_owned(), path: path.into() },
        }
    }

    /// What it says now. None if it is gone.
    pub(super) fn sample(&self) -> Option<Sample> {
        let mut sample = Sample::at(SystemTime::now());
        match self {
            Folders::Unified(folder) => {
                let read = |name: &str| fs::read_to_string(folder.join(name)).ok();
                sample.processor = read("cpu.stat").map(|stat| unified::processor(&stat, &read));
                sample.memory = read("memory.stat").map(|stat| unified::memory(&stat, &read));
                sample.disks = read("io.stat").map(|stat| unified::disks(&stat, &read));
                sample.processes = read("pids.current").map(|text| Processes { current: number(&text) });
            }
            Folders::Separate { hierarchies, path } => {
                let read = |hierarchy: &str, name: &str| {
                    fs::read_to_string(hierarchies.join(hierarchy).join(path).join(name)).ok()
                };
                sample.processor =
                    read("cpuacct", "cpuacct.usage").map(|usage| separate::processor(&usage, &read));
                sample.memory = read("memory", "memory.stat").map(|stat| separate::memory(&stat, &read));
                sample.disks = separate::disks(&read);
                sample.processes =
                    read("pids", "pids.current").map(|text| Processes { current: number(&text) });
            }
        }
        let told = sample.processor.is_some()
            || sample.memory.is_some()
            || sample.disks.is_some()
            || sample.processes.is_some();
        told.then_some(sample)
    }
}

/// Version 2 (Linux `admin-guide/cgroup-v2.rst`).
mod unified {
    use super::*;

    fn waited(read: &impl Fn(&str) -> Option<String>, name: &str) -> Option<Pressure> {
        read(name).map(|text| pressure(&text))
    }

    pub(super) fn processor(stat: &str, read: &impl Fn(&str) -> Option<String>) -> Processor {
        let mut all = Processor { pressure: waited(read, "cpu.pressure"), ..Processor::default() };
        for (key, value) in counters(stat) {
            let nanos = value.saturating_mul(1000);
            match key {
                "usage_usec" => all.usage_nanos = Some(nanos),
                "user_usec" => all.user_nanos = Some(nanos),
                "system_usec" => all.system_nanos = Some(nanos),
                "nr_periods" => all.nr_periods = Some(value),
                "nr_throttled" => all.nr_throttled = Some(value),
                "throttled_usec" => all.throttled_nanos = Some(nanos),
                _ => {}
            }
        }
        all
    }

    pub(super) fn memory(stat: &str, read: &impl Fn(&str) -> Option<String>) -> Memory {
        let one = |name: &str| read(name).and_then(|text| number(&text));
        let mut all = Memory {
            peak: one("memory.peak"),
            swap_bytes: one("memory.swap.current"),
            pressure: waited(read, "memory.pressure"),
            ..Memory::default()
        };
        for (key, value) in counters(stat) {
            let place = match key {
                "anon" => &mut all.anon,
                "file" => &mut all.file,
                "kernel_stack" => &mut all.kernel_stack,
                "pagetables" => &mut all.page_tables,
                "sock" => &mut all.sock,
                "shmem" => &mut all.shmem,
                "file_mapped" => &mut all.file_mapped,
                "file_dirty" => &mut all.file_dirty,
                "file_writeback" => &mut all.file_writeback,
                "slab" => &mut all.slab,
                "pgscan" => &mut all.pgscan,
                "pgsteal" => &mut all.pgsteal,
                "pgfault" => &mut all.pgfault,
                "pgmajfault" => &mut all.pgmajfault,
                _ => continue,
            };
            *place = Some(value);
        }
        for (key, value) in counters(&read("memory.events").unwrap_or_default()) {
            match key {
                "low" => all.low_events = value,
                "high" => all.high_events = value,
                "max" => all.max_events = value,
                "oom" => all.oom_events = value,
                "oom_kill" => all.oom_kill_events = value,
                _ => {}
            }
        }
        all
    }

    /// A line for each disk: `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6`.
    pub(super) fn disks(stat: &str, read: &impl Fn(&str) -> Option<String>) -> Disks {
        let mut all = Disks { pressure: waited(read, "io.pressure"), ..Disks::default() };
        for (key, value) in stat.lines().flat_map(str::split_whitespace).filter_map(|w| w.split_once('=')) {
            let place = match key {
                "rbytes" => &mut all.read_bytes,
                "wbytes" => &mut all.write_bytes,
                "dbytes" => &mut all.discard_bytes,
                "rios" => &mut all.reads,
                "wios" => &mut all.writes,
                "dios" => &mut all.discards,
                _ => continue,
            };
            *place = Some(place.unwrap_or(0) + value.parse::<u64>().unwrap_or(0));
        }
        all
    }
}

/// Version 1 (Linux `admin-guide/cgroup-v1`).
mod separate {
    use super::*;

    pub(super) fn processor(usage: &str, read: &impl Fn(&str, &str) -> Option<String>) -> Processor {
        let mut all = Processor { usage_nanos: number(usage), ..Processor::default() };
        for (key, value) in counters(&read("cpuacct", "cpuacct.stat").unwrap_or_default()) {
            match key {
                "user" => all.user_nanos = Some(value.saturating_mul(HUNDREDTH)),
                "system" => all.system_nanos = Some(value.saturating_mul(HUNDREDTH)),
                _ => {}
            }
        }
        for (key, value) in counters(&read("cpu", "cpu.stat").unwrap_or_default()) {
            match key {
                "nr_periods" => all.nr_periods = Some(value),
                "nr_throttled" => all.nr_throttled = Some(value),
                "throttled_time" => all.throttled_nanos = Some(value),
                _ => {}
            }
        }
        all
    }

    pub(super) fn memory(stat: &str, read: &impl Fn(&str, &str) -> Option<String>) -> Memory {
        let one = |name: &str| read("memory", name).and_then(|text| number(&text));
        let mut all = Memory {
            peak: one("memory.max_usage_in_bytes"),
            max_events: one("memory.failcnt").unwrap_or(0),
            ..Memory::default()
        };
        for (key, value) in counters(stat) {
            let place = match key {
                "total_rss" => &mut all.anon,
                "total_cache" => &mut all.file,
                "total_shmem" => &mut all.shmem,
                "total_mapped_file" => &mut all.file_mapped,
                "total_dirty" => &mut all.file_dirty,
                "total_writeback" => &mut all.file_writeback,
                "total_swap" => &mut all.swap_bytes,
                "total_pgfault" => &mut all.pgfault,
                "total_pgmajfault" => &mut all.pgmajfault,
                _ => continue,
            };
            *place = Some(value);
        }
        for (key, value) in counters(&read("memory", "memory.oom_control").unwrap_or_default()) {
            if key == "oom_kill" {
                all.oom_kill_events = value;
            }
        }
        all
    }

    /// Lines for each disk and what was done to it: `8:0 Read 4096`.
    pub(super) fn disks(read: &impl Fn(&str, &str) -> Option<String>) -> Option<Disks> {
        let sums = |name: &str| {
            let text = read("blkio", name)?;
            let (mut reads, mut writes, mut discards) = (None, None, None);
            for line in text.lines() {
                let mut words = line.split_whitespace().skip(1);
                let place = match words.next() {
                    Some("Read") => &mut reads,
                    Some("Write") => &mut writes,
                    Some("Discard") => &mut discards,
                    _ => continue,
                };
                let value = words.next().and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
                *place = Some(place.unwrap_or(0) + value);
            }
            Some((reads, writes, discards))
        };
        let (read_bytes, write_bytes, discard_bytes) = sums("blkio.throttle.io_service_bytes_recursive")?;
        let (reads, writes, discards) = sums("blkio.throttle.io_serviced_recursive").unwrap_or_default();
        Some(Disks { read_bytes, write_bytes, discard_bytes, reads, writes, discards, pressure: None })
    }
}

#[cfg(test)]
#[path = "cgroups_tests.rs"]
mod tests;
