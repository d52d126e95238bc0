use serde_json::{Value, json};

use super::*;

/// A folder with files as the kernel has them, and what is told of them.
fn told(files: &[(&str, &str)], unified: bool) -> Option<Value> {
    let root = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let file = root.path().join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }
    let sample = Folders::new(root.path(), "/buildkit/a", unified).sample()?;
    let mut told = serde_json::to_value(sample).unwrap();
    assert!(told["timestamp"].as_str().unwrap().ends_with('Z'), "{told}");
    told.as_object_mut().unwrap().remove("timestamp");
    Some(told)
}

const PRESSURE: &str =
    "some avg10=1.00 avg60=0.50 avg300=0.25 total=9\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=3\n";

#[test]
fn files_of_version_2_are_read() {
    let files = [
        (
            "buildkit/a/cpu.stat",
            "usage_usec 12\nuser_usec 7\nsystem_usec 5\nnice_usec 0\nnr_periods 3\nnr_throttled 2\nthrottled_usec 4\n",
        ),
        ("buildkit/a/cpu.pressure", PRESSURE),
        (
            "buildkit/a/memory.stat",
            "anon 1\nfile 2\nkernel 99\nkernel_stack 3\npagetables 4\nsock 5\nshmem 6\nfile_mapped 7\nfile_dirty 8\n\
            file_writeback 9\nslab 10\npgscan 11\npgsteal 12\npgfault 13\npgmajfault 14\n",
        ),
        ("buildkit/a/memory.events", "low 0\nhigh 1\nmax 2\noom 3\noom_kill 4\noom_group_kill 5\n"),
        ("buildkit/a/memory.peak", "4096\n"),
        ("buildkit/a/memory.swap.current", "8192\n"),
        (
            "buildkit/a/io.stat",
            "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n253:1 rbytes=10 wbytes=20 rios=30 wios=40 dbytes=50 dios=60\n8:16 \n",
        ),
        ("buildkit/a/pids.current", "2\n"),
    ];
    let pressure = json!({"some": {"avg10": 1.0, "avg60": 0.5, "avg300": 0.25, "total": 9},
        "full": {"avg10": 0.0, "avg60": 0.0, "avg300": 0.0, "total": 3}});
    assert_eq!(
        told(&files, true).unwrap(),
        json!({
            "cpuStat": {"usageNanos": 12000, "userNanos": 7000, "systemNanos": 5000, "nrPeriods": 3, "nrThrottled": 2,
                "throttledNanos": 4000, "pressure": pressure},
            "memoryStat": {"swapBytes": 8192, "anon": 1, "file": 2, "kernelStack": 3, "pageTables": 4, "sock": 5,
                "shmem": 6, "fileMapped": 7, "fileDirty": 8, "fileWriteback": 9, "slab": 10, "pgscan": 11, "pgsteal": 12,
                "pgfault": 13, "pgmajfault": 14, "peak": 4096, "highEvents": 1, "maxEvents": 2, "oomEvents": 3,
                "oomKillEvents": 4},
            "ioStat": {"readBytes": 11, "writeBytes": 22, "discardBytes": 55, "readIOs": 33, "writeIOs": 44,
                "discardIOs": 66},
            "pidsStat": {"current": 2},
        })
    );
    assert_eq!(told(&[], true), None, "its cgroup is gone");
    let few = told(&[("buildkit/a/cpu.stat", "usage_usec 1\n")], true).unwrap();
    assert_eq!(few, json!({"cpuStat": {"usageNanos": 1000}}), "controllers that are not switched on");
}

#[test]
fn files_of_version_1_are_read() {
    let files = [
        ("cpuacct/buildkit/a/cpuacct.usage", "123456789\n"),
        ("cpuacct/buildkit/a/cpuacct.stat", "user 7\nsystem 5\n"),
        ("cpu/buildkit/a/cpu.stat", "nr_periods 3\nnr_throttled 2\nthrottled_time 4\nnr_bursts 0\n"),
        (
            "memory/buildkit/a/memory.stat",
            "cache 0\nrss 0\ntotal_cache 2\ntotal_rss 1\ntotal_shmem 6\ntotal_mapped_file 7\ntotal_dirty 8\n\
            total_writeback 9\ntotal_swap 15\ntotal_pgfault 13\ntotal_pgmajfault 14\n",
        ),
        ("memory/buildkit/a/memory.max_usage_in_bytes", "4096\n"),
        ("memory/buildkit/a/memory.failcnt", "2\n"),
        ("memory/buildkit/a/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 4\n"),
        (
            "blkio/buildkit/a/blkio.throttle.io_service_bytes_recursive",
            "8:0 Read 1\n8:0 Write 2\n8:0 Sync 9\n8:0 Async 9\n8:0 Discard 5\n8:0 Total 8\n8:16 Read 10\n8:16 Write 20\nTotal 38\n",
        ),
        (
            "blkio/buildkit/a/blkio.throttle.io_serviced_recursive",
            "8:0 Read 3\n8:0 Write 4\n8:0 Discard 6\nTotal 13\n",
        ),
        ("pids/buildkit/a/pids.current", "2\n"),
    ];
    assert_eq!(
        told(&files, false).unwrap(),
        json!({
            "cpuStat": {"usageNanos": 123_456_789, "userNanos": 70_000_000, "systemNanos": 50_000_000, "nrPeriods": 3,
                "nrThrottled": 2, "throttledNanos": 4},
            "memoryStat": {"swapBytes": 15, "anon": 1, "file": 2, "shmem": 6, "fileMapped": 7, "fileDirty": 8,
                "fileWriteback": 9, "pgfault": 13, "pgmajfault": 14, "peak": 4096, "maxEvents": 2, "oomKillEvents": 4},
            "ioStat": {"readBytes": 11, "writeBytes": 22, "discardBytes": 5, "readIOs": 3, "writeIOs": 4,
                "discardIOs": 6},
            "pidsStat": {"current": 2},
        })
    );
    assert_eq!(told(&[], false), None, "its cgroup is gone");
    let idle = [("blkio/buildkit/a/blkio.throttle.io_service_bytes_recursive", "Total 0\n")];
    assert_eq!(told(&idle, false).unwrap(), json!({"ioStat": {}}));
}
