//! The network of steps: on a bridge, by plugins of a described network, the machine's own, none.
//!
//! The daemons run at the far end of a [`Line`], where bridges and packet filters are made and vanish with it, and with a
//! `/var/lib` of their own, where plugins remember addresses.

use crosskit_multiarch::{Daemon, DaemonOptions, Line, Running, Scene, until};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

/// The bridge of these tests, and its address.
const BRIDGE: &str = "\n[worker.oci]\n  networkMode = \"bridge\"\n  cniBinaryPath = \"/usr/lib/cni\"\n  \
                      bridgeName = \"steps0\"\n  bridgeSubnet = \"10.77.0.0/24\"\n[dns]\n  \
                      nameservers = [\"10.77.0.53\"]\n";
const GATEWAY: &str = "10.77.0.1";

/// A line is laid once at a time in a process.
static ONE_LINE: Mutex<()> = Mutex::new(());

struct Place {
    scene: Scene,
    line: Line,
    /// What `/var/lib` is to the daemon.
    memory: PathBuf,
    _alone: MutexGuard<'static, ()>,
}

impl Place {
    fn new() -> Place {
        let alone = ONE_LINE.lock().unwrap_or_else(PoisonError::into_inner);
        let scene = Scene::set();
        let memory = scene.path("memory");
        std::fs::create_dir(&memory).expect("create the daemon's /var/lib");
        Place { line: Line::lay(), scene, memory, _alone: alone }
    }

    fn options(&self, config: &str) -> DaemonOptions {
        let mut through = self.line.through();
        let script = format!("mount --bind {} /var/lib && exec \"$@\"", self.memory.display());
        through.extend(["unshare", "--mount", "sh", "-c", &script, "sh"].map(Into::into));
        let config = format!("insecure-entitlements = [\"network.host\"]\n{config}");
        DaemonOptions { through, config, ..DaemonOptions::default() }
    }

    fn daemon(&self, config: &str) -> Daemon {
        self.scene.daemon_with(self.options(config))
    }

    /// A context with a shell, for the registry is not to be reached from there. `FROM shell` has it.
    fn context(&self, name: &str, dockerfile: &str) -> PathBuf {
        let shell = "FROM scratch AS shell\nCOPY busybox /bin/busybox\nCOPY busybox /bin/sh\n";
        let context = self.scene.context(name, &[("Dockerfile", &format!("{shell}{dockerfile}"))]);
        let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        std::fs::copy(self.scene.parts.busybox(architecture), context.join("busybox")).expect("copy busybox");
        context
    }

    /// Builds; gives a file of the result.
    fn build(&self, daemon: &Daemon, name: &str, dockerfile: &str) -> Files {
        let out = self.scene.path(&format!("{name}-out"));
        let build = daemon.build(&self.context(name, dockerfile));
        build.argument("--allow=network.host").into(&out).run().ok();
        Files(out)
    }

    /// The addresses that are taken, as the plugin remembers them, of a network.
    fn taken(&self, network: &str) -> Vec<String> {
        let folder = self.memory.join("cni/networks").join(network);
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        names.filter(|name| name.starts_with("10.")).collect()
    }

    /// Panics unless nothing of networks is at the far end.
    fn is_empty(&self, network: &str) {
        until("the interfaces to be gone", LONG, || self.line.others().is_empty().then_some(()));
        assert_eq!(self.taken(network), Vec::<String>::new());
        let rules = self.line.run("iptables-save", &[]);
        assert!(!rules.contains("10.77.0."), "{rules}");
    }
}

struct Files(PathBuf);

impl Files {
    fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.0.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }
}

/// The notes about namespaces in a daemon's root.
fn notes(root: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(root.join("networks")).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| !name.contains('.')).collect()
}

/// A step that meets another: it tells its address, waits for the other's, and pings it, the gateway and the outside.
const MEETING: &str = r#"
FROM shell AS step
RUN --mount=type=cache,id=meet,target=/meet <<EOF
  set -e
  met() { i=0; until [ -e /meet/$1 ]; do [ $((i += 1)) -lt 3000 ]; busybox usleep 10000; done; }
  busybox ip -4 -o addr show eth0 | busybox awk '{print $4}' > /address
  busybox cut -d/ -f1 /address > /meet/MINE.new
  busybox mv /meet/MINE.new /meet/MINE
  met OTHER
  busybox ping -c 1 -W 20 "$(busybox cat /meet/OTHER)"
  busybox ping -c 1 -W 20 GATEWAY
  busybox ping -c 1 -W 20 OUTSIDE
  busybox touch /meet/MINE-done
  met OTHER-done
  busybox cat /etc/resolv.conf > /names
EOF
FROM scratch
COPY --from=step /address /names /
"#;

/// Steps that ask for another network.
const OTHERS: &str = "
FROM shell AS host
RUN --network=host busybox ip -o link > /links
FROM shell AS none
RUN --network=none busybox ip -o link > /links
FROM scratch
COPY --from=host /links /host
COPY --from=none /links /none
";

#[test]
fn steps_on_a_bridge_have_addresses_of_their_own_and_leave_nothing() {
    let place = Place::new();
    let daemon = place.daemon(BRIDGE);
    let workers = daemon.buildctl(&["debug", "workers", "-v"]).ok();
    let label = workers.stdout.lines().find(|line| line.contains("org.mobyproject.buildkit.worker.network:"));
    assert!(label.is_some_and(|label| label.ends_with("\tcni")), "{workers}");
    let meeting = MEETING.replace("GATEWAY", GATEWAY).replace("OUTSIDE", &place.line.near_address);
    let step = |mine: &str, other: &str| {
        let dockerfile = meeting.replace("MINE", mine).replace("OTHER", other);
        place.build(&daemon, mine, &dockerfile)
    };
    let (one, two) = std::thread::scope(|scope| {
        let one = scope.spawn(|| step("one", "two"));
        let two = step("two", "one");
        (one.join().expect("the first step"), two)
    });
    assert!(one.text("address") != two.text("address"), "{}", one.text("address"));
    for files in [&one, &two] {
        let address = files.text("address");
        assert!(address.starts_with("10.77.0.") && address.ends_with("/24\n"), "{address}");
        assert_eq!(files.text("names"), "nameserver 10.77.0.53\n");
    }
    let files = place.build(&daemon, "others", OTHERS);
    let host = files.text("host");
    assert!(host.contains(" steps0: ") && host.contains(" cf"), "{host}");
    let none = files.text("none");
    assert!(none.contains(" lo: ") && !none.contains("eth0"), "{none}");
    // Both namespaces are kept for the next steps.
    assert_eq!(place.taken("buildkit").len(), 2);
    let root = daemon.root.clone();
    daemon.stop();
    place.is_empty("buildkit");
    assert!(!root.join("networks").exists());
}

#[test]
fn what_a_killed_daemon_left_is_taken_away_by_the_next() {
    let place = Place::new();
    let daemon = place.daemon(BRIDGE);
    let slow = "FROM shell\nRUN echo it-ru''ns && busybox sleep 987\n";
    let mut building = daemon.build(&place.context("slow", slow)).start();
    building.wait_for(" it-runs", LONG);
    let (root, left) = (daemon.root.clone(), notes(&daemon.root));
    assert!(!left.is_empty() && place.line.others().len() == left.len() + 1);
    daemon.kill();
    building.finish(LONG).fails();
    assert_eq!(place.taken("buildkit").len(), left.len());

    let daemon = place.daemon(BRIDGE);
    until("what was left to be gone", LONG, || {
        notes(&root).iter().all(|note| !left.contains(note)).then_some(())
    });
    // One namespace, which was made to see whether it can be done, and the bridge.
    until("its interfaces to be gone", LONG, || (place.line.others().len() == 2).then_some(()));
    assert_eq!(place.taken("buildkit").len(), 1);
    let files = place.build(
        &daemon,
        "after",
        "FROM shell AS a\nRUN busybox ping -c 1 -W 20 10.77.0.1 > /ping\nFROM scratch\nCOPY --from=a /ping /\n",
    );
    assert!(files.text("ping").contains("1 packets received"));
    daemon.stop();
    until("the interfaces to be gone", LONG, || place.line.others().is_empty().then_some(()));
    assert_eq!(place.taken("buildkit"), Vec::<String>::new());
}

#[test]
fn a_described_network_is_taken_by_itself_and_its_pool_is_filled() {
    let place = Place::new();
    let description = place.scene.path("net.json");
    let range = r#"[[{"subnet": "10.77.0.0/24"}]]"#;
    std::fs::write(
        &description,
        format!(
            r#"{{"cniVersion": "0.4.0", "name": "lines", "type": "ptp", "ipMasq": false,
                "ipam": {{"type": "host-local", "ranges": {range}, "routes": [{{"dst": "0.0.0.0/0"}}]}}}}"#
        ),
    )
    .expect("describe a network");
    let flags = [
        format!("--oci-cni-config-path={}", description.display()),
        "--oci-cni-binary-dir=/usr/lib/cni".into(),
        "--oci-cni-pool-size=3".into(),
    ];
    let daemon = place.scene.daemon_with(DaemonOptions { arguments: flags.into(), ..place.options("") });
    until("the pool to be filled", LONG, || (place.taken("lines").len() == 3).then_some(()));
    let step = "FROM shell AS a\nRUN busybox ip -4 -o addr show eth0 > /address && busybox ping -c 1 -W 20 10.77.0.1\n\
                FROM scratch\nCOPY --from=a /address /\n";
    assert!(place.build(&daemon, "step", step).text("address").contains(" 10.77.0."));
    assert_eq!(place.taken("lines").len(), 3);
    daemon.stop();
    place.is_empty("lines");

    let missing = "[worker.oci]\n  networkMode = \"cni\"\n  cniConfigPath = \"/nonexistent/net.json\"\n  \
                   cniBinaryPath = \"/usr/lib/cni\"\n";
    Daemon::fails_to_start(&place.scene, place.options(missing))
        .says("reading the network configuration /nonexistent/net.json");
}

/// Steps behind a proxy: what each may reach, and by itself nothing. LOOPBACK and GATEWAY stand for pages.
const BEHIND: &str = r#"
FROM shell AS own
RUN <<EOF
  set -e
  busybox ip -o link > /links
  unset no_proxy NO_PROXY
  ! busybox wget -q -O- LOOPBACK
  busybox wget -q -O /page GATEWAY
  unset http_proxy HTTP_PROXY
  ! busybox wget -q -O- GATEWAY
EOF
FROM shell AS host
RUN --network=host <<EOF
  set -e
  busybox ip -o link > /links
  unset no_proxy NO_PROXY
  busybox wget -q -O /page LOOPBACK
  unset http_proxy HTTP_PROXY
  ! busybox wget -q -O- LOOPBACK
EOF
FROM scratch
COPY --from=own /links /page /own/
COPY --from=host /links /page /host/
"#;

#[test]
fn requests_behind_a_proxy_leave_by_the_network_of_the_step() {
    let place = Place::new();
    let daemon = place.daemon(&format!("proxyNetwork = true\n{BRIDGE}"));
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let (pages, busybox) = (place.scene.path("pages"), place.scene.parts.busybox(architecture));
    std::fs::create_dir(&pages).expect("make a folder");
    std::fs::write(pages.join("page"), "of this machine").expect("write a page");
    // One on the far end's loopback interface only; the other's address is there once the bridge is.
    let mut servers = ["127.0.0.1:8001", "8002"].map(|address| {
        let through = place.line.through();
        let mut command = std::process::Command::new(&through[0]);
        command.args(&through[1..]).arg(&busybox).args(["httpd", "-f", "-p", address, "-h"]).arg(&pages);
        Running::start(&mut command)
    });
    for address in ["127.0.0.1:8001", "10.77.0.1:8002"] {
        until("the pages to be served", LONG, || {
            let ended = servers.iter_mut().find_map(|server| server.has_ended().then(|| server.said()));
            assert_eq!(ended, None, "a server has ended");
            let script = format!("{} wget -q -O- http://{address}/page; true", busybox.display());
            (place.line.run("sh", &["-c", &script]) == "of this machine").then_some(())
        });
    }
    let steps = BEHIND.replace("LOOPBACK", "http://127.0.0.1:8001/page");
    let files = place.build(&daemon, "behind", &steps.replace("GATEWAY", "http://10.77.0.1:8002/page"));
    for mode in ["own", "host"] {
        let links = files.text(&format!("{mode}/links"));
        assert!(links.contains(" lo: ") && links.lines().count() == 1, "{links}");
        assert_eq!(files.text(&format!("{mode}/page")), "of this machine");
    }
    for mut server in servers {
        server.signal(rustix::process::Signal::KILL);
        server.wait(LONG);
    }
    daemon.stop();
    place.is_empty("buildkit");
}
