//! Workers that nobody names: found through the name service, and in Kubernetes.

#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

#[path = "farm/certificates.rs"]
mod certificates;
#[path = "farm/cluster.rs"]
mod cluster;
#[path = "farm/machines.rs"]
mod machines;

use cluster::Cluster;
use crosskit_multiarch::{Daemon, DaemonOptions, Line, Ran, Running, Scene, Tree, until};
use machines::{LONG, UNTIL_TOLD, all_listed, farm, tell_to_go_on, until_state};
use rustix::process::Signal;
use std::process::Command;

/// A daemon at an address of its own, native for one platform.
fn machine(
    scene: &Scene,
    line: Option<&Line>,
    name: &str,
    platform: &str,
    at: &str,
    nameserver: &str,
) -> Daemon {
    scene.daemon_with(DaemonOptions {
        name: name.into(),
        config: format!("[dns]\n  nameservers = [\"{nameserver}\"]\n"),
        arguments: vec![format!("--oci-worker-platform={platform}"), format!("--addr=tcp://{at}")],
        through: line.map(Line::through).unwrap_or_default(),
        ..Default::default()
    })
}

/// A name server at the far end of a line, that knows these services.
fn name_server(scene: &Scene, line: &Line, services: &[(&str, u16)]) -> Running {
    let through = line.through();
    let mut command = Command::new(&through[0]);
    command.args(&through[1..]).arg(scene.parts.on_machine("dnsmasq"));
    command.args([
        "--no-daemon",
        "--no-resolv",
        "--no-hosts",
        "--conf-file=/dev/null",
        "--user=root",
        "--pid-file=",
    ]);
    command.args([
        "--bind-interfaces",
        &format!("--listen-address={}", line.address),
        "--local=/farm.example/",
    ]);
    for (host, port) in services {
        command.arg(format!("--srv-host=_buildkit._tcp.farm.example,{host}.farm.example,{port}"));
        command.arg(format!("--host-record={host}.farm.example,{}", line.address));
    }
    let mut running = Running::start(&mut command);
    running.wait_for("started", LONG);
    running
}

fn names(scene: &Scene, daemon: &Daemon) -> Vec<String> {
    let rows = all_listed(scene, daemon);
    rows.iter().map(|row| row["name"].as_str().expect("a name").to_owned()).collect()
}

fn until_listed(scene: &Scene, daemon: &Daemon, text: &str) -> Ran {
    until(&format!("farm ls to say {text:?}"), LONG, || {
        let ran = farm(scene, daemon, &["ls"]).ok();
        ran.said().contains(text).then_some(ran)
    })
}

/// Waits until one is not there any more.
fn until_gone(scene: &Scene, daemon: &Daemon, name: &str) {
    until(&format!("{name} to be gone"), LONG, || {
        (!names(scene, daemon).iter().any(|known| known == name)).then_some(())
    });
}

#[test]
fn workers_come_and_go_with_the_records_of_a_name() {
    let scene = Scene::set();
    let line = Line::lay();
    let at = |port: u16| format!("{}:{port}", line.address);
    let riscv = machine(&scene, Some(&line), "riscv", "linux/riscv64", &at(1234), "10.77.0.2");
    let arm = machine(&scene, Some(&line), "arm", "linux/arm64", &at(1235), "10.77.0.3");
    let mut server = name_server(&scene, &line, &[("riscv-1", 1234)]);
    let config = format!(
        "[dns]\n  nameservers = [\"{}\"]\n[[farm.discover]]\n  dns-srv = \"_buildkit._tcp.farm.example\"\n  insecure = true\n",
        line.address
    );
    let daemon = scene.daemon_with(DaemonOptions { config, ..Default::default() });
    let (one, two) = ("riscv-1.farm.example:1234", "arm-1.farm.example:1235");
    until_state(&scene, &daemon, one, "up");
    let replace = |server: &mut Running, services: &[(&str, u16)]| {
        server.signal(Signal::TERM);
        server.wait(LONG);
        *server = name_server(&scene, &line, services);
    };
    replace(&mut server, &[("riscv-1", 1234), ("arm-1", 1235)]);
    until_listed(&scene, &daemon, two);
    until_state(&scene, &daemon, two, "up");
    assert_eq!(names(&scene, &daemon).len(), 4);
    until_listed(&scene, &daemon, "dns-srv _buildkit._tcp.farm.example: 2 workers\n");

    // One that is not named any more finishes what it has, and gets nothing new.
    let context = scene.context("long", &[("Dockerfile", &format!("FROM BASE\n{UNTIL_TOLD}"))]);
    let out = scene.path("out");
    let mut building = daemon.build(&context).platforms(&["linux/riscv64"]).into(&out).start();
    building.wait_for("it-runs", LONG);
    replace(&mut server, &[("arm-1", 1235)]);
    until_listed(&scene, &daemon, "dns-srv _buildkit._tcp.farm.example does not name it any more");
    until_state(&scene, &daemon, one, "draining");
    tell_to_go_on(&scene, "riscv");
    building.finish(LONG).ok().never_says("going on elsewhere");
    assert!(Tree::of_folder(&out).text("where").contains("10.77.0.2"));
    until_gone(&scene, &daemon, one);

    // A name server that is away takes nobody away, and is said once.
    until_listed(&scene, &daemon, "dns-srv _buildkit._tcp.farm.example: 1 worker\n");
    let complaints = || daemon.log().matches("why=\"asking for the SRV").count();
    // It may have been asked while another one took its place.
    let before = complaints();
    server.signal(Signal::TERM);
    server.wait(LONG);
    until("a question without an answer", LONG, || (complaints() > before).then_some(()));
    let said = "1 worker; asking for the SRV records of _buildkit._tcp.farm.example";
    until_listed(&scene, &daemon, said);
    until_state(&scene, &daemon, two, "up");
    let context = scene.context("where", &[("Dockerfile", machines::WHERE)]);
    daemon.build(&context).platforms(&["linux/arm64"]).into(&out).run().ok();
    assert!(Tree::of_folder(&out).text("where").contains("10.77.0.3"));
    assert_eq!(complaints() - before, 1, "{}", daemon.log());

    // A name that has nobody is an answer.
    server = name_server(&scene, &line, &[]);
    until_gone(&scene, &daemon, two);
    until_listed(&scene, &daemon, "0 workers; _buildkit._tcp.farm.example does not exist");
    replace(&mut server, &[("riscv-1", 1234)]);
    until_listed(&scene, &daemon, one);
    until_state(&scene, &daemon, one, "up");
    for daemon in [daemon, riscv, arm] {
        daemon.stop();
    }
}

/// An endpoint in a pod, as far as it can tell: its service account is where pods have it, in a
/// mount namespace of its own.
fn in_a_pod(scene: &Scene, cluster: &Cluster) -> Daemon {
    let account = cluster.account.display();
    let place = "/run/secrets/kubernetes.io/serviceaccount";
    let script = format!(
        "mount -t tmpfs tmpfs /run && mkdir -p {place} && mount --bind {account} {place} && exec \"$@\""
    );
    let through = ["unshare", "--mount", "sh", "-c", &script, "sh"];
    let config = "[[farm.discover]]\n  kubernetes = { selector = \"app=builders\", port = \"grpc\" }\n  insecure = true\n";
    let environment = [
        ("KUBERNETES_SERVICE_HOST", "127.0.0.1".into()),
        ("KUBERNETES_SERVICE_PORT", cluster.port.to_string()),
    ];
    scene.daemon_with(DaemonOptions {
        config: format!("[dns]\n  nameservers = [\"10.77.0.1\"]\n{config}"),
        environment: environment.map(|(name, value)| (name.to_owned(), value)).to_vec(),
        through: through.map(Into::into).to_vec(),
        ..Default::default()
    })
}

/// Two pods: the same port at two addresses of this machine.
fn pods(scene: &Scene) -> (u16, Daemon, Daemon) {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let riscv = machine(scene, None, "riscv", "linux/riscv64", &format!("127.0.0.2:{port}"), "10.77.0.2");
    let arm = machine(scene, None, "arm", "linux/arm64", &format!("127.0.0.3:{port}"), "10.77.0.3");
    (port, riscv, arm)
}

#[test]
fn workers_come_and_go_with_the_pods_behind_a_service() {
    let scene = Scene::set();
    let (port, riscv, arm) = pods(&scene);
    let cluster = Cluster::start(scene.folder());
    let daemon = in_a_pod(&scene, &cluster);
    until_listed(&scene, &daemon, "0 workers; namespace ci has no EndpointSlice with app=builders");
    let (first, second) = ("ci/riscv-0", "ci/arm-0");
    cluster.have(port, &[("riscv-0", "127.0.0.2", true), ("arm-0", "127.0.0.3", false)]);
    until_listed(&scene, &daemon, "kubernetes app=builders: 1 worker\n");
    until_state(&scene, &daemon, first, "up");
    assert_eq!(names(&scene, &daemon), ["native", "emulated", first], "what is not ready does not count");
    cluster.have(port, &[("riscv-0", "127.0.0.2", true), ("arm-0", "127.0.0.3", true)]);
    until_listed(&scene, &daemon, "2 workers\n");
    until_state(&scene, &daemon, second, "up");
    assert_eq!(cluster.asked(), (1, 1), "changes came by one watch");

    let context = scene.context("long", &[("Dockerfile", &format!("FROM BASE\n{UNTIL_TOLD}"))]);
    let out = scene.path("out");
    let mut building = daemon.build(&context).platforms(&["linux/riscv64"]).into(&out).start();
    building.wait_for("it-runs", LONG);
    cluster.have(port, &[("riscv-0", "127.0.0.2", false), ("arm-0", "127.0.0.3", true)]);
    until_state(&scene, &daemon, first, "draining");
    tell_to_go_on(&scene, "riscv");
    building.finish(LONG).ok().never_says("going on elsewhere");
    assert!(Tree::of_folder(&out).text("where").contains("10.77.0.2"));
    until_gone(&scene, &daemon, first);

    // Where it may not be watched, it is listed.
    cluster.forbid(&["watch"]);
    until_listed(&scene, &daemon, "allows the verbs list and watch on the resource endpointslices");
    cluster.have(port, &[("arm-0", "127.0.0.3", true), ("riscv-0", "127.0.0.2", true)]);
    until_listed(&scene, &daemon, first);
    until_listed(&scene, &daemon, "cannot watch");
    cluster.forbid(&[]);
    until_listed(&scene, &daemon, "2 workers\n");
    // A pod that comes back elsewhere is the same worker.
    cluster.have(port, &[("arm-0", "127.0.0.3", true), ("riscv-0", "127.0.0.3", true)]);
    until("the new address", LONG, || {
        (machines::listed(&scene, &daemon, first)["address"] == format!("tcp://127.0.0.3:{port}"))
            .then_some(())
    });
    for daemon in [daemon, riscv, arm] {
        daemon.stop();
    }
}

#[test]
fn whoever_may_not_look_or_is_in_no_cluster_is_told_what_is_missing() {
    let scene = Scene::set();
    let cluster = Cluster::start(scene.folder());
    cluster.forbid(&["list", "watch"]);
    let daemon = in_a_pod(&scene, &cluster);
    let said = until_listed(&scene, &daemon, "cannot list");
    said.says("a Role in namespace ci that allows the verbs list and watch on the resource endpointslices of the API group discovery.k8s.io");
    std::fs::write(cluster.account.join("token"), "an-old-token").unwrap();
    until_listed(&scene, &daemon, "the token of the service account is not accepted: Unauthorized");
    // Nobody who could run it was found, and why.
    let dockerfile =
        "FROM --platform=$BUILDPLATFORM BASE AS native\nFROM scratch\nCOPY --from=native / /\nRUN true\n";
    let context = scene.context("nowhere", &[("Dockerfile", dockerfile)]);
    let ran = daemon.build(&context).platforms(&["linux/mips64le"]).run().fails();
    ran.says("linux/mips64le").says("searching for workers by kubernetes app=builders: listing");
    daemon.stop();
    let config = "[[farm.discover]]\n  kubernetes = { selector = \"app=builders\" }\n  insecure = true\n";
    let daemon = scene.daemon_with(DaemonOptions { config: config.into(), ..Default::default() });
    until_listed(&scene, &daemon, "this daemon is in no Kubernetes cluster: KUBERNETES_SERVICE_HOST");
    daemon.stop();
}
