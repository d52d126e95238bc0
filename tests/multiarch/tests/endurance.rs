//! Many builds in a row: a daemon is after them what it was before.

use crosskit_multiarch::{Daemon, DaemonOptions, Scene, mounts_below, processes_of, until};
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

/// Builds before memory counts: pools, caches and the history have their sizes then.
const WARM: usize = 50;

/// Builds in all.
const BUILDS: usize = 200;

/// Bytes by which memory may grow after the first [`WARM`] builds.
const GROWTH: u64 = 10 << 20;

/// The daemon's history and caches would grow with every build, as they should: they are bounded here.
const CONFIG: &str = "[history]\n  maxEntries = 20\n\
    [worker.oci]\n  gc = true\n  [[worker.oci.gcpolicy]]\n    all = true\n    maxUsedSpace = \"40MB\"\n";

/// What a daemon holds of the machine.
#[derive(Debug, PartialEq, Eq)]
struct Held {
    /// Open files, by what they are.
    files: BTreeMap<String, usize>,
    mounts: usize,
    processes: usize,
}

impl Held {
    fn by(daemon: &Daemon, folder: &Path) -> Held {
        let mut files = BTreeMap::new();
        for file in
            std::fs::read_dir(format!("/proc/{}/fd", daemon.id())).expect("the daemon's files").flatten()
        {
            let Ok(target) = std::fs::read_link(file.path()) else { continue };
            // Numbers of sockets and pipes are never the same again.
            let kind = target.to_string_lossy().split(":[").next().unwrap_or_default().to_string();
            *files.entry(kind).or_default() += 1;
        }
        // The daemon's mounts are in a namespace of its own.
        let table = std::fs::read_to_string(format!("/proc/{}/mountinfo", daemon.id())).expect("its mounts");
        let below = folder.display().to_string();
        let mounts = table.lines().filter(|line| line.contains(&below)).count() + mounts_below(folder).len();
        Held { files, mounts, processes: processes_of(folder).len() }
    }
}

/// Resident memory in bytes.
fn memory(daemon: &Daemon) -> u64 {
    let status =
        std::fs::read_to_string(format!("/proc/{}/status", daemon.id())).expect("the daemon's status");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("its memory");
    let kilobytes = line.split_whitespace().nth(1).and_then(|word| word.parse::<u64>().ok());
    kilobytes.expect("a number") << 10
}

#[test]
fn two_hundred_builds_leave_a_daemon_as_it_was() {
    let scene = Scene::set();
    let daemon = scene.daemon_with(DaemonOptions { config: CONFIG.into(), ..Default::default() });
    let folder = scene.path("daemon");
    let mut run = Mix::of(&scene);
    // The first of each kind starts what stays: connections to the registry, the database's files.
    for _ in 0..KINDS {
        run.next(&daemon);
    }
    let start = settled(&daemon, &folder);
    while run.done < WARM {
        run.next(&daemon);
    }
    let warm = memory(&daemon);
    while run.done < BUILDS {
        run.next(&daemon);
    }
    let now = memory(&daemon);
    let grown = now.saturating_sub(warm);
    assert!(grown < GROWTH, "memory grew by {} KiB from {} KiB", grown >> 10, warm >> 10);
    until("files, mounts and processes to be what they were", LONG, || {
        let held = Held::by(&daemon, &folder);
        let more =
            held.files.iter().any(|(kind, count)| start.files.get(kind).is_none_or(|before| count > before));
        if std::env::var_os("CROSSKIT_TEST_SHOW").is_some() {
            eprintln!("{start:?}\n{held:?}\nwarm {warm} now {now}");
        }
        (!more && held.mounts <= start.mounts && held.processes <= start.processes).then_some(())
    });
    daemon.stop();
}

/// What is held when nothing is under way any more: twice the same.
fn settled(daemon: &Daemon, folder: &Path) -> Held {
    let mut before = Held::by(daemon, folder);
    let mut same = 0;
    until("the daemon to be at rest", LONG, || {
        let now = Held::by(daemon, folder);
        same = if now == before { same + 1 } else { 0 };
        before = now;
        (same > 100).then_some(())
    });
    before
}

/// Kinds of builds in the mix.
const KINDS: usize = 10;

/// Builds one after the other.
struct Mix<'a> {
    scene: &'a Scene,
    done: usize,
}

impl Mix<'_> {
    fn of(scene: &Scene) -> Mix<'_> {
        scene.context("run", &[("Dockerfile", "FROM BASE\nARG N\nRUN echo $N > /n\n")]);
        scene.context("copy", &[("Dockerfile", "FROM BASE\nCOPY . /in/\nRUN cat /in/n\n"), ("n", "")]);
        scene.context("out", &[("Dockerfile", "FROM scratch\nCOPY . /\n"), ("n", "")]);
        scene.context("fail", &[("Dockerfile", "FROM BASE\nARG N\nRUN echo $N && exit 3\n")]);
        scene.context("slow", &[("Dockerfile", "FROM BASE\nARG N\nRUN echo runs-$N && /bin/sleep 987\n")]);
        let both = "FROM BASE\nARG N\nRUN echo $N > /n\n";
        scene.context("both", &[("Dockerfile", both)]);
        Mix { scene, done: 0 }
    }

    fn next(&mut self, daemon: &Daemon) {
        let number = self.done.to_string();
        let context = |name: &str| self.scene.path(name);
        let build = |name: &str| daemon.build(&context(name)).opt("build-arg:N", &number);
        match self.done % KINDS {
            0 | 5 => drop(build("run").run().ok()),
            1 | 6 => {
                self.scene.write("copy", "n", &number);
                build("copy").run().ok();
            }
            2 | 7 => {
                self.scene.write("out", "n", &number);
                let out = context("made");
                build("out").into(&out).run().ok();
                assert_eq!(std::fs::read_to_string(out.join("n")).expect("the result"), number);
            }
            3 => drop(build("fail").run().fails().says("exit code: 3")),
            4 => {
                let mut building = build("slow").start();
                building.wait_for(&format!(" runs-{number}"), LONG);
                building.signal(Signal::TERM);
                building.wait(LONG);
            }
            8 => drop(build("both").platforms(&["linux/amd64", "linux/arm64"]).run().ok()),
            _ => {
                let archive = context("made.tar");
                build("run").output(&format!("type=oci,dest={}", archive.display())).run().ok();
            }
        }
        self.done += 1;
    }
}
