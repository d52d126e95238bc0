//! What the kernel has counted of a process that has ended, and of those that it has waited for.

use std::time::{Duration, SystemTime};

use super::{Disks, Memory, Processor, Sample};

/// Bytes of a block as the kernel counts them (getrusage(2)).
const BLOCK: u64 = 512;

/// What a process has used, with all below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Accounted {
    user: Duration,
    system: Duration,
    /// Bytes of memory of the largest of them.
    largest: u64,
    minor_faults: u64,
    major_faults: u64,
    read: u64,
    written: u64,
}

/// The most memory that this process has had, in bytes.
pub(super) fn own_peak() -> u64 {
    let used = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF);
    used.map_or(u64::MAX, |used| u64::try_from(used.max_rss()).unwrap_or(0) * 1024)
}

/// The kernel's `struct rusage` (include/uapi/linux/resource.h): two times of seconds and microseconds, and fourteen numbers.
/// That of some C libraries has wider times.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Raw {
    user: [libc::c_long; 2],
    system: [libc::c_long; 2],
    numbers: [libc::c_long; 14],
}

impl Accounted {
    /// Of a child that has ended and nobody has waited for yet; it stays so. None if it runs.
    pub(crate) fn of_ended(child: i32) -> Option<Self> {
        let mut raw = Raw::default();
        // SAFETY: all zero is valid.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        // SAFETY: both places are writable, and of the form that this call fills in.
        let waited = unsafe {
            libc::syscall(
                libc::SYS_waitid,
                libc::P_PID as libc::c_long,
                libc::c_long::from(child),
                &raw mut info,
                libc::c_long::from(options),
                &raw mut raw,
            )
        };
        // Zero as well while it runs, but then nothing is told.
        (waited == 0 && info.si_signo == libc::SIGCHLD).then(|| Self::from_raw(&raw))
    }

    fn from_raw(raw: &Raw) -> Self {
        let number = |number: libc::c_long| u64::try_from(number).unwrap_or(0);
        let time = |[seconds, micros]: [libc::c_long; 2]| {
            Duration::from_secs(number(seconds)) + Duration::from_micros(number(micros))
        };
        // ru_maxrss (KiB), ixrss, idrss, isrss, minflt, majflt, nswap, inblock, oublock …
        let [largest, _, _, _, minor, major, _, read, written, ..] = raw.numbers.map(number);
        Accounted {
            user: time(raw.user),
            system: time(raw.system),
            largest: largest * 1024,
            minor_faults: minor,
            major_faults: major,
            read: read * BLOCK,
            written: written * BLOCK,
        }
    }

    /// The same as a sample. A cgroup may have counted what nobody has waited for: what it said last counts where it is
    /// more. A process begins as a copy of the one that starts it: what is not larger than this one (`own`, in bytes) says
    /// nothing of it.
    pub(super) fn sample(&self, timestamp: SystemTime, last: Option<&Sample>, own: u64) -> Sample {
        let most = |counted: u64, said: Option<u64>| Some(counted.max(said.unwrap_or(0)));
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let processor = last.and_then(|last| last.processor.clone()).unwrap_or_default();
        let memory = last.and_then(|last| last.memory.clone()).unwrap_or_default();
        let disks = last.and_then(|last| last.disks.clone()).unwrap_or_default();
        Sample {
            processor: Some(Processor {
                usage_nanos: most(nanos(self.user + self.system), processor.usage_nanos),
                user_nanos: most(nanos(self.user), processor.user_nanos),
                system_nanos: most(nanos(self.system), processor.system_nanos),
                ..Processor::default()
            }),
            memory: Some(Memory {
                peak: memory.peak.max(Some(self.largest).filter(|largest| *largest > own)),
                pgfault: most(self.minor_faults + self.major_faults, memory.pgfault),
                pgmajfault: most(self.major_faults, memory.pgmajfault),
                ..Memory::default()
            }),
            disks: Some(Disks {
                read_bytes: most(self.read, disks.read_bytes),
                write_bytes: most(self.written, disks.write_bytes),
                ..Disks::default()
            }),
            ..Sample::at(timestamp)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_child_s_children_are_counted_until_it_is_waited_for() {
        let mut child = Command::new("sh")
            .args(["-c", "read line; dd if=/dev/zero of=/dev/null bs=32M count=4 2>/dev/null; exit 3"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        assert_eq!(Accounted::of_ended(pid), None, "it runs");
        drop(child.stdin.take());
        let counted = loop {
            match Accounted::of_ended(pid) {
                Some(counted) => break counted,
                None => std::thread::yield_now(),
            }
        };
        assert!(counted.largest > 32 << 20, "{counted:?}");
        assert!(counted.minor_faults > 1000 && !(counted.user + counted.system).is_zero(), "{counted:?}");
        assert_eq!(child.wait().unwrap().code(), Some(3), "it was there to be waited for");
        assert_eq!(Accounted::of_ended(pid), None, "it is gone");
    }

    #[test]
    fn the_kernel_s_numbers_are_told_in_the_units_of_provenance() {
        let mut raw = Raw { user: [1, 500_000], system: [0, 250_000], ..Raw::default() };
        raw.numbers[0] = 2048;
        raw.numbers[4] = 5;
        raw.numbers[5] = 2;
        raw.numbers[7] = 8;
        raw.numbers[8] = 16;
        let counted = Accounted::from_raw(&raw);
        let told = |last: Option<&Sample>| {
            let mut told =
                serde_json::to_value(counted.sample(SystemTime::UNIX_EPOCH, last, 1 << 20)).unwrap();
            assert_eq!(told["timestamp"].take(), "1970-01-01T00:00:00Z");
            told
        };
        let alone = told(None);
        assert_eq!(
            alone["cpuStat"],
            serde_json::json!({"usageNanos": 1_750_000_000u64, "userNanos": 1_500_000_000u64, "systemNanos": 250_000_000u64})
        );
        assert_eq!(alone["memoryStat"], serde_json::json!({"peak": 2 << 20, "pgfault": 7, "pgmajfault": 2}));
        assert_eq!(alone["ioStat"], serde_json::json!({"readBytes": 4096, "writeBytes": 8192}));
        let memory = Memory { peak: Some(3 << 20), anon: Some(1), ..Memory::default() };
        let last = Sample { memory: Some(memory), ..Sample::at(SystemTime::UNIX_EPOCH) };
        assert_eq!(
            told(Some(&last))["memoryStat"],
            serde_json::json!({"peak": 3 << 20, "pgfault": 7, "pgmajfault": 2})
        );
    }
}
