//! What the fields of a process do to it.

use crate::graphs::{changed_exec, native};
use crate::stage::{Ask, Stage, talk};
use crosskit_api::pb;
use crosskit_llb::{Constraints, Exec, ExecMount};

type Change = Box<dyn FnOnce(&mut Exec, &mut Constraints)>;

fn change(of: impl FnOnce(&mut Exec) + 'static) -> Change {
    Box::new(|exec, _| of(exec))
}

#[test]
fn each_field_is_what_the_step_sees() {
    let stage = Stage::set();
    let tmpfs = |size| ExecMount { target: "/dev/shm".into(), tmpfs: Some(size), ..ExecMount::default() };
    let limits = pb::LinuxResources { memory: 96 << 20, cpu_shares: 512, ..pb::LinuxResources::default() };
    let cases: Vec<(&str, Change, &str, &str)> = vec![
        ("exit codes", change(|e| e.valid_exit_codes = vec![0, 7]), "echo so; exit 7", "so\n"),
        (
            "environment",
            change(|e| e.env = vec!["A=1".into(), "B=two words".into()]),
            "echo $A $B; echo $PATH",
            "1 two words\n/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n",
        ),
        (
            "proxies",
            change(|e| {
                let (http_proxy, no_proxy) = ("http://127.0.0.1:1".to_string(), "here".to_string());
                e.proxy = Some(pb::ProxyEnv { http_proxy, no_proxy, ..pb::ProxyEnv::default() });
            }),
            "echo $HTTP_PROXY $http_proxy $NO_PROXY $no_proxy ${HTTPS_PROXY-none} ${ftp_proxy-none}",
            "http://127.0.0.1:1 http://127.0.0.1:1 here here none none\n",
        ),
        (
            "ulimits",
            change(|e| e.ulimits = vec![pb::Ulimit { name: "nofile".into(), soft: 77, hard: 99 }]),
            "ulimit -Sn; ulimit -Hn",
            "77\n99\n",
        ),
        (
            "the cgroup above",
            change(|e| e.cgroup_parent = "crosskit-llb".into()),
            "grep -c :/crosskit-llb/buildkit/ /proc/self/cgroup > /dev/null && echo below",
            "below\n",
        ),
        (
            "hosts",
            change(|e| {
                e.extra_hosts = vec![pb::HostIp { host: "there.example".into(), ip: "10.1.2.3".into() }]
            }),
            "grep there /etc/hosts",
            "10.1.2.3\tthere.example\n",
        ),
        (
            "host name",
            change(|e| e.hostname = "me.example".into()),
            "hostname; grep -c me.example /etc/hosts",
            "me.example\n1\n",
        ),
        ("working directory", change(|e| e.cwd = "var/here".into()), "pwd", "/var/here\n"),
        ("user", change(|e| e.user = "builder:extra".into()), "id -u; id -g", "1000\n2000\n"),
        (
            "shared memory",
            change(move |e| e.mounts = vec![tmpfs(1 << 20)]),
            "df -k /dev/shm | tail -n 1 | awk '{print $2}'",
            "1024\n",
        ),
        (
            "shared memory unless said",
            change(|_| {}),
            "df -k /dev/shm | tail -n 1 | awk '{print $2}'",
            "65536\n",
        ),
        (
            "limits",
            Box::new(move |_, constraints| constraints.metadata.linux_resources = Some(limits)),
            "cd /sys/fs/cgroup; cat memory.max memory/memory.limit_in_bytes 2> /dev/null; cat cpu/cpu.shares 2> /dev/null || echo 512",
            "100663296\n512\n",
        ),
        ("no network", change(|e| e.network = pb::NetMode::None), "ls /sys/class/net", "lo\n"),
        (
            "privileges",
            change(|e| e.security = pb::SecurityMode::Insecure),
            "mount -t tmpfs t /tmp && echo mounted",
            "mounted\n",
        ),
    ];
    talk(async {
        for (what, change, script, expected) in cases {
            let definition = stage.step(script, change);
            let ask = stage.ask(definition).granted(&["security.insecure", "network.host"]);
            assert_eq!(ask.solve().await.ok().said(), expected, "{what}");
        }
        // As the daemon itself: what it sees under the same name.
        let ours = std::fs::read_link(format!("/proc/{}/ns/net", stage.daemon.id())).unwrap();
        for (network, same) in [(pb::NetMode::Host, true), (pb::NetMode::None, false)] {
            let definition = stage.step("readlink /proc/self/ns/net", |e, _| e.network = network);
            let said = stage.ask(definition).granted(&["network.host"]).solve().await.ok().said();
            assert_eq!(said.trim() == ours.to_str().unwrap(), same, "{network:?}: {said}");
        }
        let refused =
            stage.solve(stage.step("echo failing; exit 3", |e, _| e.valid_exit_codes = vec![7])).await;
        assert!(refused.said().contains("failing"));
        refused.refused(
            "process \"/bin/sh -c echo failing; exit 3\" did not complete successfully: exit code: 3",
        );
        let refused = stage.solve(stage.step("true", |e, _| e.valid_exit_codes = vec![7])).await;
        refused.refused("exit code: 0");
    });
    stage.daemon.stop();
}

/// A step whose mount points are not in its root: what of them stays is a matter of who made the graph.
#[test]
fn folders_of_mount_points_go_with_the_mounts_if_asked() {
    let stage = Stage::set();
    talk(async {
        for (all, left) in [(true, vec![]), (false, vec!["deep", "deep/er"])] {
            let deep = ExecMount { target: "/deep/er/est".into(), tmpfs: Some(0), ..ExecMount::default() };
            let definition = stage.step("test -d /deep/er/est", |e, _| e.mounts = vec![deep]);
            let definition = changed_exec(definition, |exec| {
                exec.meta.as_mut().unwrap().remove_mount_stubs_recursive = all;
            });
            let tree = stage.files(definition).await;
            let found: Vec<&String> = tree.0.keys().filter(|path| path.starts_with("deep")).collect();
            assert_eq!(found, left, "{all}");
        }
    });
    stage.daemon.stop();
}

/// Two builds want one step, one of them with limits that are looser: those hold.
#[test]
fn the_looser_limit_of_two_builds_holds_for_their_step() {
    let stage = Stage::set();
    talk(async {
        let mut llb = stage.graph();
        // Holds the step back until both builds have asked for it.
        let gate = stage.scene.path("gate");
        std::fs::create_dir(&gate).unwrap();
        let waits = "echo waiting; until test -e /gate/open; do /bin/sleep 0.02; done";
        let cache = crosskit_llb::CacheMount { id: "gate".into(), ..Default::default() };
        let mount = ExecMount { target: "/gate".into(), cache: Some(cache), ..ExecMount::default() };
        let exec = Exec { mounts: vec![mount.clone()], ..llb.sh(waits) };
        let first = llb.exec(exec);
        let limited = |memory: i64| {
            let mut llb = llb.clone();
            let mut constraints = native();
            let limits = pb::LinuxResources { memory, ..pb::LinuxResources::default() };
            constraints.metadata.linux_resources = Some(limits);
            let script = "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2> /dev/null; true";
            let exec = Exec { root: Some(first), ..llb.sh(script) };
            let root = llb.builder.exec(exec, constraints).root;
            llb.definition(root)
        };
        let strict = stage.ask(limited(64 << 20)).start().await;
        strict.hear("waiting").await;
        let loose = stage.ask(limited(128 << 20)).start().await;
        loose.hear("waiting").await;
        let open = stage.step("touch /gate/open", |exec, _| exec.mounts = vec![mount]);
        stage.solve(open).await.ok();
        for build in [strict, loose] {
            let said = build.end().await.ok().said();
            assert!(said.contains("134217728") && !said.contains("67108864"), "{said}");
        }
    });
    stage.daemon.stop();
}

#[test]
fn what_a_step_may_not_have_is_refused() {
    let stage = Stage::set();
    talk(async {
        let host = stage.step("true", |exec, _| exec.network = pb::NetMode::Host);
        stage.solve(host).await.refused("network.host is not allowed");
        let insecure = stage.step("true", |exec, _| exec.security = pb::SecurityMode::Insecure);
        stage.solve(insecure).await.refused("security.insecure is not allowed");
        let request = crosskit_api::control::SolveRequest::default();
        Ask::new(&stage.daemon, request).granted(&["root"]).solve().await.refused("unknown entitlement root");
    });
    stage.daemon.stop();
}
