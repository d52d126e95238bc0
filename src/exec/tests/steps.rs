//! What a step sees, is allowed and leaves behind, under crun and runc alike.

mod lab;

use std::os::unix::fs::MetadataExt;

use crosskit_exec::{ExecConfig, ExtraHost, LinuxResources, Mount, Network, Process, Security, Ulimit};
use lab::{Lab, RUNTIMES, native_rootfs, process, sh};
use std::os::unix::fs::PermissionsExt;

#[tokio::test]
async fn output_and_exit_codes_come_through() {
    for runtime in RUNTIMES {
        let (lab, rootfs) = (Lab::new(runtime), native_rootfs());
        let said = lab.run(sh(&rootfs, "echo out; echo err >&2; exit 7")).await;
        assert_eq!(
            (said.exit.code, said.out.as_str(), said.err.as_str()),
            (7, "out\n", "err\n"),
            "{runtime}"
        );
        assert_eq!(said.exit.runtime_message, None);
        let said = lab.run(sh(&rootfs, "sh -c 'kill -9 $$'; exit $?")).await;
        assert_eq!(said.exit.code, 137, "{runtime}");
        let said = lab.run(sh(&rootfs, "dd if=/dev/zero bs=1M count=20 2>/dev/null | tr '\\0' x")).await;
        assert_eq!(said.out.len(), 20 << 20, "{runtime}: to the last byte");
        lab.assert_clean();
    }
}

#[tokio::test]
async fn a_missing_program_is_said_on_standard_error() {
    for runtime in RUNTIMES {
        let (lab, rootfs) = (Lab::new(runtime), native_rootfs());
        let said = lab.run(process(&rootfs, &["/no/such/program"])).await;
        assert_ne!(said.exit.code, 0);
        let lines = said.err.lines().filter(|line| line.contains("/no/such/program"));
        assert_eq!(lines.count(), 1, "{runtime}: {said:?}");
        assert!(said.exit.runtime_message.expect("the runtime failed").contains("/no/such/program"));
        lab.assert_clean();
    }
}

#[tokio::test]
async fn a_step_is_confined_as_in_buildkit() {
    for runtime in RUNTIMES {
        let (lab, rootfs) = (Lab::new(runtime), native_rootfs());
        // As recorded in a step of stock BuildKit on the same kind of machine.
        let status =
            lab.sh(&rootfs, "grep -E '^(Cap|NoNewPrivs|Seccomp|Umask|Groups)' /proc/self/status").await;
        let expected = [
            "Umask:\t0022",
            "CapInh:\t0000000000000000",
            "CapPrm:\t00000000a80425fb",
            "CapEff:\t00000000a80425fb",
            "CapBnd:\t00000000a80425fb",
            "CapAmb:\t0000000000000000",
            "NoNewPrivs:\t0",
            "Seccomp:\t2",
            "Seccomp_filters:\t1",
        ];
        for line in expected {
            assert!(status.lines().any(|other| other == line), "{runtime}: no {line:?} in\n{status}");
        }
        let tries = "touch /sys/x 2>&1; mount -t tmpfs t /tmp 2>&1; cat /proc/kcore | head -c1 | wc -c; \
                     [ -e /proc/sys/kernel/panic ] && echo 1 > /proc/sys/kernel/panic; true";
        let said = lab.run(sh(&rootfs, tries)).await;
        let all = said.out + &said.err;
        for text in ["Read-only file system", "permission denied", "\n0\n"] {
            assert!(all.contains(text), "{runtime}: no {text:?} in {all}");
        }
        let namespaces = lab.sh(&rootfs, "for ns in net pid user; do readlink /proc/self/ns/$ns; done").await;
        let own = |name: &str| {
            std::fs::read_link(format!("/proc/self/ns/{name}")).expect("there").display().to_string()
        };
        let seen: Vec<&str> = namespaces.lines().collect();
        assert_eq!((seen[0], seen[2]), (own("net").as_str(), own("user").as_str()), "{runtime}");
        assert_ne!(seen[1], own("pid"));
    }
}

#[tokio::test]
async fn mounts_are_those_of_buildkit() {
    for runtime in RUNTIMES {
        let (lab, rootfs) = (Lab::new(runtime), native_rootfs());
        let mounts = lab.sh(&rootfs, "cat /proc/self/mounts").await;
        let at = |path: &str| {
            let line = mounts.lines().find(|line| line.split(' ').nth(1) == Some(path));
            let line = line.unwrap_or_else(|| panic!("{runtime}: nothing at {path} in\n{mounts}"));
            line.split(' ').skip(2).take(2).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(at("/proc"), "proc rw,nosuid,nodev,noexec,relatime");
        assert_eq!(at("/dev"), "tmpfs rw,nosuid,size=65536k,mode=755");
        assert_eq!(at("/dev/pts"), "devpts rw,nosuid,noexec,relatime,gid=5,mode=620,ptmxmode=666");
        assert_eq!(at("/dev/shm"), "tmpfs rw,nosuid,nodev,noexec,relatime,size=65536k");
        assert_eq!(at("/dev/mqueue"), "mqueue rw,nosuid,nodev,noexec,relatime");
        assert_eq!(at("/sys"), "sysfs ro,nosuid,nodev,noexec,relatime");
        for file in ["/etc/resolv.conf", "/etc/hosts"] {
            assert!(at(file).contains("ro,nosuid,nodev,noexec"), "{runtime}");
        }
    }
}

#[tokio::test]
async fn files_and_names_of_the_machine() {
    for runtime in RUNTIMES {
        let (lab, rootfs) = (Lab::new(runtime), native_rootfs());
        let script = "hostname; cat /etc/hosts; pwd; env | grep -v -E '^(HOME|PWD|SHLVL|OLDPWD)=' | sort";
        let plain = lab.sh(&rootfs, script).await;
        let default = "buildkitsandbox\n127.0.0.1\tlocalhost buildkitsandbox\n::1\tlocalhost ip6-localhost ip6-loopback\n/\n\
                       PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n";
        assert_eq!(plain, default, "{runtime}");
        let asked = Process {
            hostname: "mine".to_owned(),
            extra_hosts: vec![ExtraHost {
                host: "other".to_owned(),
                ip: "10.1.2.3".parse().expect("address"),
            }],
            env: vec!["PATH=/bin".to_owned(), "A=b c".to_owned()],
            cwd: "/new/folder".to_owned(),
            ..sh(&rootfs, script)
        };
        let said = lab.run(asked).await;
        assert_eq!(
            said.out,
            "mine\n127.0.0.1\tlocalhost mine\n::1\tlocalhost ip6-localhost ip6-loopback\n10.1.2.3\tother\n/new/folder\n\
             A=b c\nPATH=/bin\n",
            "{runtime}"
        );
        let here = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        let resolv = lab.sh(&rootfs, "cat /etc/resolv.conf").await;
        let servers = |text: &str| {
            text.lines().filter(|line| line.starts_with("nameserver") && !line.contains(" 127.")).count()
        };
        assert!(servers(&resolv) >= servers(&here).max(1), "{runtime}: {resolv}");
        assert!(!rootfs.path().join("etc/hosts").exists(), "mount points are not part of the result");
        assert!(!rootfs.path().join("etc/resolv.conf").exists());
        let dev = std::fs::metadata(rootfs.path().join("dev")).expect("made, and part of the result");
        assert_eq!(dev.permissions().mode() & 0o7777, 0o755, "{runtime}: the same whatever runs it");
    }
}

#[tokio::test]
async fn users_and_their_groups() {
    for runtime in RUNTIMES {
        let (lab, rootfs) = (Lab::new(runtime), native_rootfs());
        std::fs::write(
            rootfs.path().join("etc/passwd"),
            "root:x:0:0::/root:/bin/sh\napp:x:1000:1001::/:/bin/sh\n",
        )
        .expect("written");
        std::fs::write(rootfs.path().join("etc/group"), "root:x:0:\nwheel:x:10:root,app\n").expect("written");
        let table = [
            ("", "uid=0 gid=0 groups=0,10"),
            ("app", "uid=1000 gid=1001 groups=10,1001"),
            ("app:wheel", "uid=1000 gid=10 groups=10"),
            ("5:6", "uid=5 gid=6 groups=6"),
        ];
        for (user, expected) in table {
            let script = "set -- $(grep -E '^(Uid|Gid):' /proc/self/status); echo uid=$2 gid=$7; \
                          grep Groups: /proc/self/status; pwd; stat -c %u:%g .";
            let said = lab
                .run(Process {
                    user: user.to_owned(),
                    cwd: format!("/work-{}", user.replace(':', "-")),
                    ..sh(&rootfs, script)
                })
                .await;
            let mut lines = said.out.lines();
            let ids = lines.next().unwrap_or_default();
            let mut groups: Vec<u32> = lines
                .next()
                .unwrap_or_default()
                .split_whitespace()
                .skip(1)
                .map(|id| id.parse().expect("a number"))
                .collect();
            groups.sort_unstable();
            let groups = groups.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
            assert_eq!(format!("{ids} groups={groups}"), expected, "{runtime} {user:?}: {said:?}");
            let owner = ids.replace("uid=", "").replace(" gid=", ":");
            assert_eq!(
                lines.nth(1),
                Some(owner.as_str()),
                "{runtime}: the new working directory is the user's"
            );
        }
        let error = lab
            .try_run(Process { user: "bar".to_owned(), ..sh(&rootfs, "true") })
            .await
            .expect_err("unknown");
        assert_eq!(error.to_string(), "unable to find user bar: no matching entries in passwd file");
        lab.assert_clean();
    }
}

#[tokio::test]
async fn networks() {
    for runtime in RUNTIMES {
        let (lab, rootfs) = (Lab::new(runtime), native_rootfs());
        let none = Process { network: Network::None, ..sh(&rootfs, "ip addr; ls /sys/class/net") };
        let said = lab.run(none).await;
        assert!(said.out.contains("1: lo: <LOOPBACK,UP,LOWER_UP>"), "{runtime}: {said:?}");
        assert!(!said.out.contains("2: "), "{runtime}: {said:?}");
        let host = Process { network: Network::Host, ..sh(&rootfs, "readlink /proc/self/ns/net") };
        let own = std::fs::read_link("/proc/self/ns/net").expect("there").display().to_string();
        assert_eq!(lab.run(host).await.out.trim(), own);
    }
}

#[tokio::test]
async fn mounts_asked_for() {
    for runtime in RUNTIMES {
        let (lab, rootfs) = (Lab::new(runtime), native_rootfs());
        let data = tempfile::tempdir().expect("a folder");
        std::fs::write(data.path().join("in"), "hello\n").expect("written");
        let script = "cat /data/in; echo back > /data/out; cat /ro/in; touch /ro/x 2>&1; df -k /scratch | grep -o ' 1024 ' | head -n1; \
                      grep ' /dev/shm ' /proc/mounts; cat /one";
        let asked = Process {
            mounts: vec![
                Mount::bind(data.path(), "/data", false),
                Mount::bind(data.path(), "/ro", true),
                Mount::tmpfs("/scratch", 1 << 20),
                Mount::bind(data.path().join("in"), "/one", true),
            ],
            shm_size: 2 << 20,
            ..sh(&rootfs, script)
        };
        let said = lab.run(asked).await;
        for text in ["hello\nhello\n", "Read-only file system", " 1024 \n", "size=2048k"] {
            assert!(said.out.contains(text), "{runtime}: no {text:?} in {said:?}");
        }
        assert_eq!(std::fs::read_to_string(data.path().join("out")).expect("written"), "back\n");
        for stub in ["data", "ro", "scratch", "one"] {
            assert!(!rootfs.path().join(stub).exists(), "{runtime}: {stub} is left");
        }
        let readonly = Process { readonly_rootfs: true, ..sh(&rootfs, "touch /x 2>&1; true") };
        for dir in ["etc/hosts", "etc/resolv.conf"] {
            std::fs::write(rootfs.path().join(dir), "").expect("written");
        }
        assert!(lab.run(readonly).await.out.contains("Read-only file system"), "{runtime}");
    }
}

#[tokio::test]
async fn limits() {
    for runtime in RUNTIMES {
        let (lab, rootfs) = (Lab::new(runtime), native_rootfs());
        let asked = Process {
            ulimits: vec![Ulimit { name: "nofile".to_owned(), soft: 128, hard: 256 }],
            resources: LinuxResources { memory: 64 << 20, cpu_shares: 512, ..LinuxResources::default() },
            cgroup_parent: "crosskit-test".to_owned(),
            ..sh(
                &rootfs,
                "ulimit -n; ulimit -Hn; cat /proc/self/cgroup; \
                 cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null",
            )
        };
        let said = lab.run(asked).await;
        assert!(said.out.starts_with("128\n256\n"), "{runtime}: {said:?}");
        assert!(said.out.contains("67108864"), "{runtime}: {said:?}");
        if !std::path::Path::new("/sys/fs/cgroup/cgroup.subtree_control").exists() {
            assert!(said.out.contains(":/crosskit-test/buildkit/"), "{runtime}: {said:?}");
        }
    }
}

#[tokio::test]
async fn insecure_steps_may_what_the_daemon_may() {
    let status = std::fs::read_to_string("/proc/self/status").expect("there");
    let field = |status: &str, name: &str| {
        status.lines().find_map(|line| line.strip_prefix(name)).expect("a field").trim().to_owned()
    };
    for runtime in RUNTIMES {
        let (lab, rootfs) = (Lab::new(runtime), native_rootfs());
        let script = "cat /proc/self/status; mount -t tmpfs t /tmp && echo mounted; ls /dev/fuse; \
                      grep ' /sys ' /proc/mounts";
        let said = lab.run(Process { security: Security::Insecure, ..sh(&rootfs, script) }).await;
        assert_eq!(field(&said.out, "CapEff:"), field(&status, "CapEff:"), "{runtime}: {said:?}");
        assert_eq!(field(&said.out, "CapAmb:"), field(&status, "CapEff:"));
        assert_eq!(field(&said.out, "Seccomp:"), "0");
        for text in ["\nmounted\n", "/dev/fuse\n", " /sys sysfs rw,"] {
            assert!(said.out.contains(text), "{runtime}: no {text:?} in {said:?}");
        }
    }
}

#[tokio::test]
async fn the_runtime_is_chosen_by_running_it() {
    let lab = Lab::with(ExecConfig::default());
    let chosen = lab.executor.runtime().await.expect("one works");
    assert_eq!(chosen.name, "crun", "{chosen:?}");
    assert!(chosen.version.starts_with(|c: char| c.is_ascii_digit()), "{chosen:?}");
    assert!(chosen.why.starts_with("it is the fastest and it runs containers here"), "{chosen:?}");
    for runtime in RUNTIMES {
        let chosen = Lab::new(runtime).executor.runtime().await.expect("works");
        assert_eq!(chosen.name, runtime);
        assert!(chosen.why.starts_with("it is named in the configuration"), "{chosen:?}");
    }
    let error = Lab::new("no-such-runtime").executor.runtime().await.expect_err("is not there").to_string();
    assert!(
        error.starts_with("no OCI runtime works here: no-such-runtime: there is no such program on PATH;"),
        "{error}"
    );
    let error = Lab::new("/bin/true").executor.runtime().await.expect_err("is no runtime").to_string();
    assert!(
        error
            .contains("/bin/true: running a container with /bin/true: a container ended with exit status: 0"),
        "{error}"
    );
}

#[tokio::test]
async fn names_of_containers_are_checked_and_unique() {
    let (lab, rootfs) = (Lab::with(ExecConfig::default()), native_rootfs());
    for id in ["../x", "-x", "a/b", ".."] {
        let error = lab
            .try_run(Process { id: id.to_owned(), ..sh(&rootfs, "true") })
            .await
            .expect_err(id)
            .to_string();
        assert!(error.contains("container id"), "{error}");
    }
    let said = lab.run(Process { id: "my-step.1".to_owned(), ..sh(&rootfs, "cat /proc/self/cgroup") }).await;
    assert!(said.out.contains("my-step.1") || said.out.contains("0::/"), "{said:?}");
}

#[tokio::test]
async fn what_a_step_holds_is_let_go_when_all_is_gone() {
    struct Told(std::sync::Arc<std::sync::atomic::AtomicBool>);
    impl Drop for Told {
        fn drop(&mut self) {
            self.0.store(true, std::sync::atomic::Ordering::SeqCst);
        }
    }
    let (lab, rootfs) = (Lab::with(ExecConfig::default()), native_rootfs());
    let gone = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let mut step = sh(&rootfs, "true");
    step.hold.add(Told(gone.clone()));
    lab.run(step).await;
    assert!(gone.load(std::sync::atomic::Ordering::SeqCst));
    assert_eq!(
        rootfs.path().metadata().expect("there").nlink(),
        8,
        "six folders, itself and its parent's entry"
    );
}
