//! What a step has used of the machine, under crun and runc alike.

mod lab;

use std::time::Duration;

use crosskit_exec::{Mount, Process, Stdio, usage::Meter};
use lab::{Lab, RUNTIMES, native_rootfs, sh};
use tokio_util::sync::CancellationToken;

#[tokio::test]
async fn what_a_step_has_used_is_known_however_short_it_was() {
    for runtime in RUNTIMES {
        let (lab, rootfs) = (Lab::new(runtime), native_rootfs());
        // Only what is written to a disk counts.
        let disk = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
        let meter = Meter::default();
        let script = "dd if=/dev/zero of=/disk/file bs=24M count=2 2>/dev/null; dd if=/dev/zero of=/dev/null bs=300M count=1 2>/dev/null; for i in $(seq 20000); do : $i; done";
        let step = Process {
            meter: Some(meter.clone()),
            mounts: vec![Mount::bind(disk.path(), "/disk", false)],
            ..sh(&rootfs, script)
        };
        assert_eq!(lab.run(step).await.exit.code, 0, "{runtime}");
        let usage = meter.usage().expect("measured");
        let last = usage.samples.last().expect("a sample at the end");
        let processor = last.processor.as_ref().expect("told");
        assert!(processor.user_nanos > Some(0) && processor.system_nanos > Some(0), "{runtime}: {last:?}");
        assert!(processor.usage_nanos >= processor.user_nanos.max(processor.system_nanos));
        let memory = last.memory.as_ref().expect("told");
        assert!(memory.peak > Some(300 << 20) && memory.peak < Some(1 << 30), "{runtime}: {last:?}");
        assert!(memory.pgfault > Some(1000), "{runtime}: {last:?}");
        let written = last.disks.as_ref().and_then(|disks| disks.write_bytes);
        assert!(written >= Some(48 << 20) && written < Some(1 << 30), "{runtime}: {last:?}");
        assert_eq!(last.network, None, "it has the machine's");

        let idle = Meter::default();
        let step = Process { meter: Some(idle.clone()), ..sh(&rootfs, "exit 3") };
        assert_eq!(lab.run(step).await.exit.code, 3);
        let usage = idle.usage().expect("measured");
        let last = usage.samples.last().expect("a sample at the end");
        assert_eq!(last.memory.as_ref().and_then(|memory| memory.peak), None, "{runtime}: {last:?}");
        lab.assert_clean();
    }
}

#[tokio::test]
async fn a_step_that_takes_longer_is_looked_at_meanwhile() {
    for runtime in RUNTIMES {
        let (lab, rootfs) = (Lab::new(runtime), native_rootfs());
        let meter = Meter::every(Duration::from_millis(5));
        let step = Process { meter: Some(meter.clone()), ..sh(&rootfs, "echo up; cat > /dev/null") };
        let (stdin, mut typing) = tokio::io::duplex(1);
        let out = lab::Collected::default();
        let io = Stdio { stdin: Some(Box::pin(stdin)), stdout: out.output(), ..Stdio::default() };
        let container = lab.executor.start(step, io, CancellationToken::new()).await.expect("started");
        out.wait_for("up").await;
        let up = std::time::SystemTime::now();
        let before = meter.looks();
        lab::until("looked at", || meter.looks() >= before + 12).await;
        assert_eq!(meter.usage(), None, "it runs");
        let runs_still = std::time::SystemTime::now();
        // That look may not be over.
        let before = meter.looks();
        lab::until("looked at once more", || meter.looks() > before).await;
        tokio::io::AsyncWriteExt::shutdown(&mut typing).await.expect("closed");
        drop(typing);
        assert_eq!(container.wait().await.expect("ended").code, 0, "{runtime}");
        let usage = meter.usage().expect("measured");
        let (last, looks) = usage.samples.split_last().expect("samples");
        assert!((5..10).contains(&looks.len()), "{runtime}: every second one has gone: {usage:?}");
        // Earlier and later ones may have found a cgroup with nothing in it.
        let of_step: Vec<_> =
            looks.iter().filter(|look| look.timestamp >= up && look.timestamp <= runs_still).collect();
        assert!(!of_step.is_empty(), "{runtime}: {usage:?}");
        for look in of_step {
            assert!(
                look.processor.as_ref().and_then(|told| told.usage_nanos) > Some(0),
                "{runtime}: {look:?}"
            );
            assert!(look.memory.as_ref().and_then(|told| told.anon).is_some(), "{runtime}: {look:?}");
            assert!(look.processes.as_ref().and_then(|told| told.current) >= Some(1), "{runtime}: {look:?}");
        }
        assert!(usage.samples.windows(2).all(|two| two[0].timestamp <= two[1].timestamp));
        let used = |sample: &crosskit_exec::usage::Sample| sample.processor.as_ref()?.usage_nanos;
        assert!(used(last) >= used(looks.last().expect("looks")), "{runtime}: {usage:?}");
        assert!(usage.processors.is_some(), "what the machine did meanwhile");
        lab.assert_clean();
    }
}
