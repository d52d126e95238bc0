use serde_json::json;

use super::*;

const STAT: &str = "cpu  100 1 50 9000 7 2 3 4 5 6\ncpu0 100 1 50 9000 7 2 3 4 5 6\nintr 12 0 3\nctxt 77\nbtime 1\n\
    processes 12\nprocs_running 2\nprocs_blocked 0\n";

#[test]
fn the_machine_s_files_are_read() {
    let told = serde_json::to_value(Processors::parse(STAT).unwrap()).unwrap();
    assert_eq!(
        told,
        json!({"user": 1.0, "nice": 0.01, "system": 0.5, "idle": 90.0, "iowait": 0.07, "irq": 0.02,
            "softirq": 0.03, "steal": 0.04, "guest": 0.05, "guestNice": 0.06})
    );
    // Kernels before 2.6.33 tell less.
    assert_eq!(Processors::parse("cpu  1 2 3 4\n").unwrap().guest_nice, 0);
    assert_eq!(Processors::parse("intr 1\n"), None);
    let told = serde_json::to_value(MachineProcesses::parse(STAT)).unwrap();
    assert_eq!(told, json!({"contextSwitches": 77, "processCreated": 12, "processesRunning": 2}));
    let text = "MemTotal:        4000 kB\nMemFree:         1000 kB\nMemAvailable:    3000 kB\nBuffers:           1 kB\n\
        Cached:            2 kB\nSwapCached:        9 kB\nActive:            3 kB\nInactive:          4 kB\nActive(anon):      9 kB\n\
        SwapTotal:         5 kB\nDirty:             6 kB\nWriteback:         7 kB\nSlab:              8 kB\n";
    let told = serde_json::to_value(MachineMemory::parse(text)).unwrap();
    assert_eq!(
        told,
        json!({"total": 4000, "free": 1000, "available": 3000, "buffers": 1, "cached": 2, "active": 3,
            "inactive": 4, "swap": 5, "dirty": 6, "writeback": 7, "slab": 8})
    );
}

#[test]
fn this_machine_tells_what_it_does() {
    let sample = machine().unwrap();
    assert!(sample.processors.unwrap().idle > 0);
    assert!(sample.memory.clone().unwrap().total.unwrap() > sample.memory.unwrap().free.unwrap());
    let earlier = recent_processors().unwrap();
    let later = processors().unwrap();
    assert!(later.since(earlier).user <= later.user);
}
