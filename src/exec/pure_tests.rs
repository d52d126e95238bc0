use std::collections::BTreeSet;

use crosskit_platforms::Platform;
use serde_json::{Value, json};

use crate::{
    DnsConfig, ExecConfig, Executor, Exit, ExtraHost, LinuxResources, Mount, Network, Process, Security,
    Ulimit,
    bundle::{Bundle, Joined, resources, rlimit},
    emulation::{Platforms, Way},
    executor::Shared,
    hosts,
    resolv::ResolvConf,
    seccomp,
};

#[test]
fn hosts_name_the_container_and_what_the_step_adds() {
    assert_eq!(
        hosts::contents("", &[]),
        "127.0.0.1\tlocalhost buildkitsandbox\n::1\tlocalhost ip6-localhost ip6-loopback\n"
    );
    let extra = [ExtraHost { host: "some.host".to_owned(), ip: "1.2.3.4".parse().expect("address") }];
    let text = hosts::contents("testtest", &extra);
    assert_eq!(
        text,
        "127.0.0.1\tlocalhost testtest\n::1\tlocalhost ip6-localhost ip6-loopback\n1.2.3.4\tsome.host\n"
    );
    assert!(hosts::is_common("buildkitsandbox", &[]) && !hosts::is_common("", &extra));
}

#[test]
fn resolv_conf_is_adapted_to_the_network() {
    let text = "# made by hand\nnameserver 127.0.0.53\nnameserver 10.0.0.1\nnameserver fe80::1%eth0\nnameserver ::1\n\
                domain old.example\nsearch a.example b.example\nsearch\noptions ndots:2\noptions edns0\nsortlist 1.2.3.0\n";
    let conf = ResolvConf::parse(text);
    let dns = DnsConfig::default();
    assert_eq!(
        conf.clone().adapt(&dns, false).text(),
        "nameserver 10.0.0.1\nsearch a.example b.example\noptions ndots:2 edns0\nsortlist 1.2.3.0\n"
    );
    let on_host = conf.clone().adapt(&dns, true).text();
    assert!(on_host.starts_with("nameserver 127.0.0.53\nnameserver 10.0.0.1\nnameserver ::1\n"), "{on_host}");
    let nothing = ResolvConf::parse("nameserver 127.0.0.1\n").adapt(&dns, false).text();
    assert_eq!(
        nothing,
        "nameserver 8.8.8.8\nnameserver 8.8.4.4\nnameserver 2001:4860:4860::8888\nnameserver 2001:4860:4860::8844\n"
    );
    let own = DnsConfig {
        nameservers: vec!["127.0.0.2".parse().expect("address")],
        options: vec!["edns0".to_owned()],
        search: vec![".".to_owned(), "c.example".to_owned()],
    };
    assert_eq!(
        conf.adapt(&own, false).text(),
        "nameserver 127.0.0.2\nsearch c.example\noptions edns0\nsortlist 1.2.3.0\n"
    );
}

#[test]
fn the_seccomp_profile_is_stock() {
    // It was recorded on amd64.
    let profile = serde_json::to_value(seccomp::profile_of("x86_64")).expect("serialises");
    let words = |list: &Value| {
        list.as_array().expect("a list").iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" ")
    };
    let mut calls = Vec::new();
    for group in profile["syscalls"].as_array().expect("a list") {
        for name in group["names"].as_array().expect("a list") {
            let mut line =
                format!("{} {}", name.as_str().expect("text"), group["action"].as_str().expect("text"));
            if let Some(errno) = group["errnoRet"].as_u64() {
                line.push_str(&format!(" errno={errno}"));
            }
            for arg in group["args"].as_array().into_iter().flatten() {
                let second = arg["valueTwo"].as_u64().unwrap_or(0);
                let op = arg["op"].as_str().expect("text");
                line.push_str(&format!(" arg{} {op} {} {second}", arg["index"], arg["value"]));
            }
            calls.push(line);
        }
    }
    calls.sort();
    let default =
        format!("{} {}", profile["defaultAction"].as_str().expect("text"), profile["defaultErrnoRet"]);
    let found =
        [default, words(&profile["architectures"])].into_iter().chain(calls).collect::<Vec<_>>().join("\n");
    assert_eq!(found + "\n", include_str!("tests/stock/seccomp.txt"));
}

#[test]
fn the_seccomp_profile_knows_each_machine_s_own_calls_and_the_architectures_it_runs() {
    // By the conditions of moby's profile (arches and archMap).
    let machines = [
        ("x86_64", "SCMP_ARCH_X86_64 SCMP_ARCH_X86 SCMP_ARCH_X32", "arch_prctl modify_ldt"),
        (
            "aarch64",
            "SCMP_ARCH_AARCH64 SCMP_ARCH_ARM",
            "arm_fadvise64_64 arm_sync_file_range sync_file_range2 breakpoint cacheflush set_tls",
        ),
        ("riscv64", "SCMP_ARCH_RISCV64", "riscv_flush_icache"),
        ("loongarch64", "SCMP_ARCH_LOONGARCH64", ""),
    ];
    let calls = |machine: &str| -> BTreeSet<&'static str> {
        let profile = seccomp::profile_of(machine);
        let allowed = profile.syscalls.into_iter().filter(|group| group.args.is_empty());
        allowed.flat_map(|group| group.names).collect()
    };
    let of_all = calls("loongarch64");
    assert!(
        ["clone3", "openat2", "statx", "riscv_hwprobe", "ptrace"].iter().all(|name| of_all.contains(name))
    );
    for (machine, architectures, own) in machines {
        assert_eq!(seccomp::profile_of(machine).architectures.join(" "), architectures);
        let found: BTreeSet<&str> = calls(machine).difference(&of_all).copied().collect();
        assert_eq!(found, own.split_ascii_whitespace().collect(), "{machine}");
    }
}

/// What an executor tells a runtime about a process, without running it.
fn configured(process: Process) -> Value {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let root = tempfile::tempdir().expect("a folder");
    let executor =
        Executor::new(ExecConfig { root: root.path().into(), ..ExecConfig::default() }).expect("set up");
    let way: Way = runtime.block_on(async {
        let platforms = Platforms::new(Vec::new(), crate::Ways::KernelOnly, Default::default());
        platforms.way(&crosskit_platforms::native()).await.expect("native")
    });
    let shared: &Shared = executor.shared();
    let bundle =
        Bundle::make(shared, &process, &way, &Joined { path: None, proxy: None }, None, None).expect("made");
    let text = std::fs::read(bundle.dir.join("config.json")).expect("written");
    // The standard's own types read it.
    let _: oci_spec::runtime::Spec = serde_json::from_slice(&text).expect("an OCI runtime configuration");
    serde_json::from_slice(&text).expect("JSON")
}

/// The same facts of a configuration as were recorded of stock BuildKit's.
fn facts(config: &Value, security: Security) -> Value {
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mounts: Vec<String> = list(&config["mounts"])
        .iter()
        .map(|mount| {
            let source = text(&mount["source"]).rsplit('/').next().expect("a name").to_owned();
            let mut options: Vec<String> = list(&mount["options"]).iter().map(text).collect();
            options.sort();
            format!("{} {} {source} {}", text(&mount["destination"]), text(&mount["type"]), options.join(","))
        })
        .collect();
    let linux = &config["linux"];
    let process = &config["process"];
    let nodes: Vec<String> = list(&linux["devices"])
        .iter()
        .map(|node| {
            format!("{} {} {}:{}", text(&node["path"]), text(&node["type"]), node["major"], node["minor"])
        })
        .filter(|node| !node.contains("/dev/loop") || node.contains("control"))
        .collect();
    let mut facts = json!({
        "user": process["user"],
        "noNewPrivileges": process.get("noNewPrivileges").cloned().unwrap_or(json!(false)),
        "hostname": config["hostname"],
        "mounts": mounts,
        "devices": linux["resources"]["devices"],
        "device nodes": nodes,
        "namespaces": list(&linux["namespaces"]).iter().map(|ns| text(&ns["type"])).collect::<Vec<_>>(),
        "masked": list(&linux["maskedPaths"]),
        "readonly": list(&linux["readonlyPaths"]),
    });
    match security {
        Security::Sandbox => facts["capabilities"] = process["capabilities"].clone(),
        Security::Insecure => {
            let mut sets: Vec<String> =
                process["capabilities"].as_object().expect("sets").keys().cloned().collect();
            sets.sort();
            facts["capability sets"] = json!(sets);
        }
    }
    facts
}

#[test]
fn configurations_have_the_facts_of_stock_ones() {
    let rootfs = tempfile::tempdir().expect("a folder");
    let etc = rootfs.path().join("etc");
    std::fs::create_dir(&etc).expect("made");
    std::fs::write(etc.join("passwd"), "root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n")
        .expect("written");
    std::fs::write(etc.join("group"), "root:x:0:\nwheel:x:10:root\nnobody:x:65534:\n").expect("written");
    let process =
        || Process { args: vec!["true".to_owned()], rootfs: rootfs.path().into(), ..Process::default() };
    let cases = [
        ("default", include_str!("tests/stock/default.json"), process()),
        (
            "hostnet",
            include_str!("tests/stock/hostnet.json"),
            Process { network: Network::Host, ..process() },
        ),
        ("nonet", include_str!("tests/stock/nonet.json"), Process { network: Network::None, ..process() }),
        ("user", include_str!("tests/stock/user.json"), Process { user: "nobody".to_owned(), ..process() }),
        (
            "insecure",
            include_str!("tests/stock/insecure.json"),
            Process { security: Security::Insecure, ..process() },
        ),
    ];
    for (name, stock, process) in cases {
        let security = process.security;
        let mut stock: Value = serde_json::from_str(stock).expect("JSON");
        if crate::cgroups::is_unified() {
            // Recorded on version 1.
            stock["namespaces"].as_array_mut().expect("a list").push(json!("cgroup"));
        }
        let found = facts(&configured(process), security);
        assert_eq!(found, stock, "{name}\n{found:#}\n{stock:#}");
    }
}

#[test]
fn what_a_step_asks_for_is_in_its_configuration() {
    let rootfs = tempfile::tempdir().expect("a folder");
    let config = configured(Process {
        id: "my-step".to_owned(),
        args: vec!["/bin/sh".to_owned(), "-c".to_owned(), "true".to_owned()],
        env: vec!["A=b".to_owned()],
        cwd: "work/here".to_owned(),
        user: "12:34".to_owned(),
        hostname: "other".to_owned(),
        ulimits: vec![Ulimit { name: "nofile".to_owned(), soft: 1024, hard: -1 }],
        cgroup_parent: "my-parent".to_owned(),
        resources: LinuxResources {
            cpu_shares: 512,
            cpuset_cpus: "0".to_owned(),
            ..LinuxResources::default()
        },
        shm_size: 1 << 20,
        rootfs: rootfs.path().into(),
        readonly_rootfs: true,
        mounts: vec![
            Mount::bind("/some/where", "data", true),
            Mount::tmpfs("/dev/shm", 4096),
            Mount { options: vec!["noexec".to_owned()], ..Mount::tmpfs("/scratch", 0) },
        ],
        ..Process::default()
    });
    assert_eq!(
        config["process"]["env"],
        json!(["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "A=b"])
    );
    assert_eq!(config["process"]["cwd"], "/work/here");
    assert!(rootfs.path().join("work/here").is_dir());
    assert_eq!(config["process"]["user"], json!({"uid": 12, "gid": 34, "additionalGids": [34]}));
    assert_eq!(
        config["process"]["rlimits"],
        json!([{"type": "RLIMIT_NOFILE", "hard": u64::MAX, "soft": 1024}])
    );
    assert_eq!(config["hostname"], "other");
    assert_eq!(config["root"]["readonly"], true);
    assert_eq!(config["linux"]["cgroupsPath"], "/my-parent/buildkit/my-step");
    assert_eq!(config["linux"]["resources"]["cpu"], json!({"shares": 512, "cpus": "0"}));
    let mounts = config["mounts"].as_array().expect("a list");
    let at = |dest: &str| mounts.iter().filter(|mount| mount["destination"] == dest).collect::<Vec<_>>();
    assert_eq!(
        at("/data"),
        [
            &json!({"destination": "/data", "type": "bind", "source": "/some/where", "options": ["rbind", "ro"]})
        ]
    );
    let shm = json!({"destination": "/dev/shm", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "size=4096"]});
    assert_eq!(at("/dev/shm"), [&shm], "in place of the one that every container has");
    assert_eq!(at("/scratch")[0]["options"], json!(["nosuid", "noexec"]));
}

#[test]
fn limits_that_mean_nothing_are_refused() {
    let error = rlimit(&Ulimit { name: "fish".to_owned(), soft: 1, hard: 1 }).expect_err("no such limit");
    assert!(
        error.to_string().starts_with("ulimit \"fish\" is not valid: the limits are as, core, "),
        "{error}"
    );
    assert_eq!(error.kind(), crate::Kind::User);
    let none = serde_json::to_value(resources(&[], &LinuxResources::default())).expect("JSON");
    assert_eq!(none, json!({"devices": []}));
}

#[test]
fn failures_read_as_clients_expect() {
    let args = ["/bin/sh".to_owned(), "-c".to_owned(), "exit 7".to_owned()];
    let exit = Exit { code: 7, ..Exit::default() };
    assert_eq!(
        exit.failure(&args),
        "process \"/bin/sh -c exit 7\" did not complete successfully: exit code: 7"
    );
    let killed = Exit { code: 137, out_of_memory: true, ..Exit::default() };
    assert!(killed.failure(&args).ends_with("did not complete successfully: cannot allocate memory"));
    assert!(!exit.is_success(&[]) && exit.is_success(&[0, 7]));
}

#[tokio::test]
async fn a_platform_that_nothing_runs_is_named_with_what_to_do() {
    let platforms = Platforms::new(Vec::new(), crate::Ways::KernelOnly, Default::default());
    let error = platforms.way(&Platform::linux("mips64")).await.expect_err("nobody runs it");
    assert_eq!(
        error.to_string(),
        "nothing on this machine can run linux/mips64: the kernel has no working binfmt_misc entry and there is no \
         qemu-mips64; get an emulator with: binfmt --install mips64"
    );
    let error = platforms.way(&Platform::linux("pdp11")).await.expect_err("nobody runs it").to_string();
    assert!(error.contains("can run linux/pdp11: no emulator for it is known"), "{error}");
}
