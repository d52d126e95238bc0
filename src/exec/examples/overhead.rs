//! What a step costs beside the runtime's own `run` of the same bundle, one after the other in one run.
//!
//! `overhead ROOTFS [N]`: runs `/bin/true` of the root filesystem N times each way and prints the medians and the best. On a machine
//! with hybrid cgroups start it in a mount namespace without /sys/fs/cgroup/unified, where crun works by itself; else the
//! runtime's own time is 0.
#![allow(clippy::print_stdout)]

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio as Null},
    time::{Duration, Instant},
};

use crosskit_exec::{ExecConfig, Executor, Process, Stdio};
use tokio_util::sync::CancellationToken;

/// Processor time of this process and of those it has waited for: says more than the clock on a busy machine.
fn processor_time() -> Duration {
    let used = |who| {
        let used = nix::sys::resource::getrusage(who).ok();
        used.map_or(0, |used| {
            let (user, system) = (used.user_time(), used.system_time());
            (user.tv_sec() + system.tv_sec()) * 1_000_000 + user.tv_usec() + system.tv_usec()
        })
    };
    use nix::sys::resource::UsageWho::{RUSAGE_CHILDREN, RUSAGE_SELF};
    Duration::from_micros((used(RUSAGE_SELF) + used(RUSAGE_CHILDREN)).unsigned_abs())
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn run_bundle(runtime: &Path, bundle: &Path, id: &str) -> Duration {
    let began = Instant::now();
    let mut command = Command::new(runtime);
    command.arg("--root").arg(bundle.join("state")).args(["run", "--bundle"]).arg(bundle).arg(id);
    let status = command.stdin(Null::null()).stdout(Null::null()).stderr(Null::null()).status();
    let alone = status.is_ok_and(|status| status.success());
    if alone { began.elapsed() } else { Duration::ZERO }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let rootfs: PathBuf = args.next().ok_or("usage: overhead ROOTFS [N]")?.into();
    let count: usize = args.next().map_or(Ok(30), |n| n.parse())?;
    let root = PathBuf::from(format!("/dev/shm/crosskit-overhead-{}", std::process::id()));
    let executor = Executor::new(ExecConfig { root: root.clone(), ..ExecConfig::default() })?;
    executor.warm().await;
    let chosen = executor.runtime().await?;
    let step = |args: &[&str]| Process {
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        rootfs: rootfs.clone(),
        ..Process::default()
    };

    // A step's own bundle, copied while it runs.
    let bundle = root.join("bundle");
    std::fs::create_dir_all(&bundle)?;
    let container =
        executor.start(step(&["/bin/sleep", "100"]), Stdio::default(), CancellationToken::new()).await?;
    container.access().pid().await?;
    let text = std::fs::read_to_string(root.join("containers").join(container.id()).join("config.json"))?;
    let text = text.replace(r#""/bin/sleep","100""#, r#""/bin/true""#).replace(container.id(), "overhead");
    std::fs::write(bundle.join("config.json"), text)?;
    drop(container);

    let (mut ours, mut floor) = (Vec::new(), Vec::new());
    let (mut our_work, mut floor_work) = (Duration::ZERO, Duration::ZERO);
    for number in 0..count {
        let (began, worked) = (Instant::now(), processor_time());
        let exit = executor.run(step(&["/bin/true"]), Stdio::default(), CancellationToken::new()).await?;
        ours.push(began.elapsed());
        our_work += processor_time() - worked;
        assert_eq!(exit.code, 0);
        let worked = processor_time();
        let (runtime, bundle) = (chosen.path.clone(), bundle.clone());
        let alone = move || run_bundle(&runtime, &bundle, &format!("floor{number}"));
        floor.push(tokio::task::spawn_blocking(alone).await?);
        floor_work += processor_time() - worked;
    }
    let each = u32::try_from(count)?;
    println!("processor time {:?} and {:?}", our_work / each, floor_work / each);
    executor.shutdown().await;
    std::fs::remove_dir_all(&root)?;
    let (ours_best, floor_best) = (ours.iter().min().copied(), floor.iter().min().copied());
    let (ours, floor) = (median(&mut ours), median(&mut floor));
    println!("{} {}: {}", chosen.name, chosen.version, chosen.why);
    println!("step {ours:?}, {} run {floor:?}, difference {:?}", chosen.name, ours.saturating_sub(floor));
    println!("at best {:?} and {:?}", ours_best.unwrap_or_default(), floor_best.unwrap_or_default());
    Ok(())
}
