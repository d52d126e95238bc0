//! What it costs to let a worker do it.

use super::time_build;
use crate::rows::{Row, Target, Unit};
use crate::stopwatch::median;
use crosskit_multiarch::{Daemon, DaemonOptions, Line, Scene, processes_of, until};
use rustix::process::Signal;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// Bits that come over the line of a chain of steps in a second.
const LINE: u64 = 400_000_000;

/// The steps of a chain, the bytes that each leaves, and the seconds that each works besides.
const CHAIN: (usize, u64, f64) = (6, 20_000_000, 0.5);

/// Steps at a worker of ours on this very machine, beside the same steps without it: one, with which the session at
/// the worker is opened, and each further one.
pub fn farm(scene: &Scene) -> Vec<Row> {
    let worker = scene.daemon_with(DaemonOptions { name: "worker".into(), ..Default::default() });
    let config = format!(
        "[farm]\n  prefer = [\"remote\"]\n[[farm.worker]]\n  name = \"near\"\n  addr = \"{}\"\n",
        worker.address()
    );
    // Somebody else's daemon knows of no farm, and does everything itself.
    let config = if scene.programs.are_foreign() { String::new() } else { config };
    let endpoint = scene.daemon_with(DaemonOptions { name: "endpoint".into(), config, ..Default::default() });
    let alone = scene.daemon_with(DaemonOptions { name: "alone".into(), ..Default::default() });
    let [there, here] = [&endpoint, &alone].map(|daemon| [1, 11].map(|steps| time(scene, daemon, steps)));
    let gone = cancel(scene, &endpoint);
    for daemon in [endpoint, alone, worker] {
        daemon.stop();
    }
    let [two, one] = [2, 1].map(|workers| two_builds(scene, workers));
    let kind = Unit::Milliseconds;
    let further = |times: [f64; 2]| (times[1] - times[0]) / 10.0;
    let (steps, bytes, work) = CHAIN;
    let on_the_line = (bytes * 8) as f64 / LINE as f64;
    let least = (steps as f64 * work.max(on_the_line) + work.min(on_the_line)) * 1000.0;
    vec![
        Row::new("one step at a worker, its session opened", kind, there[0], Target::AboveFloor(60.0))
            .beside("here", here[0]),
        Row::new("each further step at a worker", kind, further(there), Target::AboveFloor(30.0))
            .beside("here", further(here)),
        Row::new("a step at a worker is gone after its client", kind, gone, Target::AtMost(1000.0)),
        Row::new("two builds of two platforms, two workers", kind, two, Target::TimesFloor(0.6))
            .beside("one worker", one),
        Row::new("6 steps of 20 MB at 400 Mbit/s", kind, chain(scene), Target::TimesFloor(1.5))
            .beside("their work, then a layer", least),
    ]
}

/// How long a step lasts after its client has been killed.
fn cancel(scene: &Scene, endpoint: &Daemon) -> f64 {
    let context =
        scene.context("cancel", &[("Dockerfile", "FROM BASE\nRUN echo it-runs && /bin/sleep 987\n")]);
    let long = Duration::from_secs(60);
    let runs = || {
        let processes = processes_of(&scene.path(""));
        processes.iter().any(|(_, command)| command.contains("987"))
    };
    median(5, || {
        let mut building = endpoint.build(&context).argument("--no-cache").start();
        building.wait_for(" it-runs", long);
        until("the step to run", long, || runs().then_some(()));
        let begun = Instant::now();
        building.signal(Signal::KILL);
        until("the step to be gone", long, || (!runs()).then_some(()));
        begun.elapsed().as_secs_f64() * 1000.0
    })
}

/// Two builds at once, each of two platforms that so many workers run, one step at a time. The steps sleep, as all
/// workers are on this machine and share its processors.
fn two_builds(scene: &Scene, workers: usize) -> f64 {
    let platforms = ["linux/arm64", "linux/riscv64"];
    let name = |number: usize| format!("one-of-{workers}-{number}");
    let started: Vec<_> = (0..workers)
        .map(|number| scene.daemon_with(DaemonOptions { name: name(number), ..Default::default() }))
        .collect();
    let mut config = String::from("[farm]\n  prefer = [\"remote\"]\n");
    for (number, daemon) in started.iter().enumerate() {
        config.push_str(&format!(
            "[[farm.worker]]\n  name = \"{}\"\n  addr = \"{}\"\n  platforms = [\"{}\"]\n  slots = 1\n",
            name(number),
            daemon.address(),
            platforms.join("\", \"")
        ));
    }
    let config = if scene.programs.are_foreign() { String::new() } else { config };
    let endpoint =
        scene.daemon_with(DaemonOptions { name: format!("of-{workers}"), config, ..Default::default() });
    let contexts = ["first", "second"].map(|build| {
        let dockerfile = format!("FROM BASE\nENV BUILD={build}\nRUN /bin/sleep 3\n");
        scene.context(&format!("sleeps-{workers}-{build}"), &[("Dockerfile", &dockerfile)])
    });
    let both = || {
        let begun = Instant::now();
        let builds = contexts.each_ref().map(|context| {
            let build = endpoint.build(context).platforms(&platforms).argument("--no-cache");
            build.command().stderr(Stdio::null()).spawn().expect("start a client")
        });
        for mut build in builds {
            assert!(build.wait().expect("wait for a client").success(), "a build that sleeps");
        }
        begun.elapsed().as_secs_f64() * 1000.0
    };
    both();
    let took = median(3, both);
    for daemon in started.into_iter().chain([endpoint]) {
        daemon.stop();
    }
    took
}

/// A chain of steps at a worker whose layers take about as long on the line as the steps work.
fn chain(scene: &Scene) -> f64 {
    let line = Line::lay();
    let worker = scene.daemon_with(DaemonOptions {
        name: "far".into(),
        arguments: vec![format!("--addr=tcp://{}:1234", line.address)],
        through: line.through(),
        ..Default::default()
    });
    let config = format!(
        "[farm]\n  prefer = [\"remote\"]\n[[farm.worker]]\n  name = \"far\"\n  addr = \"tcp://{}:1234\"\n  insecure = true\n",
        line.address
    );
    let config = if scene.programs.are_foreign() { String::new() } else { config };
    let endpoint = scene.daemon_with(DaemonOptions { name: "chained".into(), config, ..Default::default() });
    let (steps, bytes, work) = CHAIN;
    let mut dockerfile = String::from("FROM BASE\n");
    for number in 0..steps {
        dockerfile.push_str(&format!(
            "RUN /bin/sleep {work}; /bin/head -c {bytes} /dev/urandom > /made-{number}\n"
        ));
    }
    let context = scene.context("chain", &[("Dockerfile", &dockerfile)]);
    let build = || endpoint.build(&context).argument("--no-cache");
    time_build(build());
    line.slow(LINE);
    let took = median(3, || time_build(build()));
    for daemon in [endpoint, worker] {
        daemon.stop();
    }
    took
}

fn time(scene: &Scene, daemon: &Daemon, steps: usize) -> f64 {
    let mut dockerfile = String::from("FROM BASE\n");
    for number in 0..steps {
        dockerfile.push_str(&format!("RUN echo {number} > /made-{number}\n"));
    }
    let context = scene.context(&format!("farm-{steps}"), &[("Dockerfile", &dockerfile)]);
    let build = || daemon.build(&context).argument("--no-cache");
    time_build(build());
    median(5, || time_build(build()))
}
