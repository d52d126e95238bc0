//! What each state of a machine is judged as, and that this machine, on which builds work, passes.

use crate::files::Room;
use crate::rootless::Group;
use crate::{Finding, Verdict, examine, judged, rootless, run};

const ALL: [&str; 8] = [
    "CAP_CHOWN",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_NET_ADMIN",
    "CAP_SYS_CHROOT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_RESOURCE",
    "CAP_MKNOD",
];

fn all_but(name: &str) -> Vec<&'static str> {
    ALL.into_iter().filter(|own| *own != name).collect()
}

#[test]
fn judgements() {
    let v2 = "30 24 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec - cgroup2 cgroup2 rw\n";
    let read_only = "30 24 0:26 / /sys/fs/cgroup ro,nosuid - cgroup2 cgroup2 rw\n";
    let v1 = "31 24 0:27 / /sys/fs/cgroup/memory rw,nosuid - cgroup cgroup rw,memory\n";
    let hybrid = format!("{v1}{}", v2.replace("/sys/fs/cgroup", "/sys/fs/cgroup/unified"));
    let room = Room {
        folder: "/var/lib".into(),
        free: 50 << 30,
        all: 100 << 30,
        free_files: 1000,
        all_files: 2000,
        kind: 0xef53,
        no_exec: false,
    };
    let cases: [(Finding, Verdict, &str); 26] = [
        (judged::kernel("6.18.0-1-amd64"), Verdict::Ok, "Linux 6.18.0-1-amd64"),
        (judged::kernel("6.1.0"), Verdict::Warn, "6.7"),
        (judged::kernel("5.4.0-100-generic"), Verdict::Fail, "openat2"),
        (judged::rights(&ALL), Verdict::Ok, "root"),
        (judged::rights(&all_but("CAP_SYS_RESOURCE")), Verdict::Warn, "CAP_SYS_RESOURCE"),
        (judged::rights(&all_but("CAP_SYS_ADMIN")), Verdict::Fail, "CAP_SYS_ADMIN"),
        (judged::cgroups(v2), Verdict::Ok, "version 2"),
        (judged::cgroups(v1), Verdict::Ok, "version 1"),
        (judged::cgroups(read_only), Verdict::Fail, "read-only"),
        (judged::cgroups(&hybrid), Verdict::Warn, "hybrid"),
        (judged::cgroups("22 1 0:20 / / rw - ext4 /dev/vda rw\n"), Verdict::Fail, "none is mounted"),
        (judged::names("search x\nnameserver 10.0.0.1\n", ""), Verdict::Ok, "1 name server"),
        (judged::names("nameserver 127.0.0.53\n", "nameserver 10.0.0.1\n"), Verdict::Ok, "1 name server"),
        (judged::names("nameserver 127.0.0.1\nnameserver ::1\n", ""), Verdict::Warn, "127.0.0.1, ::1"),
        (judged::names("# nothing\n", ""), Verdict::Warn, "no name server"),
        (judged::disk(&room), Verdict::Ok, "50.0 GB of 100.0 GB free at /var/lib"),
        (judged::disk(&Room { free: 1 << 20, ..room.clone() }), Verdict::Fail, "make room"),
        (judged::disk(&Room { free: 5 << 30, ..room.clone() }), Verdict::Warn, "little"),
        (judged::disk(&Room { free_files: 10, ..room.clone() }), Verdict::Fail, "10 of 2000 inodes"),
        (judged::disk(&Room { all_files: 0, free_files: 0, ..room.clone() }), Verdict::Ok, "free"),
        (judged::disk(&Room { kind: 0x794c_7630, ..room.clone() }), Verdict::Warn, "volume"),
        (judged::disk(&Room { no_exec: true, ..room }), Verdict::Fail, "noexec"),
        (judged::clock(0, Some(true)), Verdict::Fail, "before 2025"),
        (judged::clock(1_800_000_000, Some(false)), Verdict::Warn, "chrony"),
        (judged::descriptors(1024), Verdict::Warn, "LimitNOFILE"),
        (judged::programs(&["git"]), Verdict::Warn, "git not on PATH"),
    ];
    cases.into_iter().for_each(is_judged);
}

fn is_judged((finding, verdict, part): (Finding, Verdict, &str)) {
    assert_eq!(finding.verdict, verdict, "{finding:?}");
    assert!(format!("{finding:?}").contains(part), "{finding:?} says nothing of {part:?}");
    assert_eq!(
        finding.advice.is_some(),
        verdict != Verdict::Ok,
        "{finding:?}: only what is wrong has advice"
    );
}

#[test]
fn judgements_of_what_a_daemon_without_root_needs() {
    let refused = || Err("refused".to_owned());
    let namespaces =
        |most, allowed, restricted| rootless::user_namespaces(&refused(), most, allowed, restricted);
    let ids = |users, groups| rootless::ids("ann", 1000, users, groups);
    let group = |path: &str, writable, controllers: &str| Group {
        path: path.into(),
        writable,
        controllers: controllers.split_whitespace().map(str::to_owned).collect(),
    };
    let (session, manager) =
        (group("/session", false, "cpu memory pids"), group("/manager", true, "cpu memory pids"));
    let cases: [(Finding, Verdict, &str); 22] = [
        (rootless::user_namespaces(&Ok(()), "0", "0", "1"), Verdict::Ok, "without root"),
        (namespaces("0\n", "", ""), Verdict::Fail, "user.max_user_namespaces=15000"),
        (namespaces("96365\n", "0\n", ""), Verdict::Fail, "kernel.unprivileged_userns_clone=1"),
        (namespaces("96365\n", "", "1\n"), Verdict::Fail, "kernel.apparmor_restrict_unprivileged_userns=0"),
        (namespaces("96365\n", "1\n", "0\n"), Verdict::Fail, "seccomp"),
        (ids("bob:1:9\nann:100000:65536\n", "1000:100000:65536\n"), Verdict::Ok, "65536 users"),
        (ids("ann:100000:30000\nann:200000:40000\n", "ann:100000:65536\n"), Verdict::Ok, "70000 users"),
        (ids("ann:100000:65536\n", "bob:100000:65536\n"), Verdict::Fail, "0 groups in /etc/subgid"),
        (ids("", ""), Verdict::Fail, "usermod --add-subuids 100000-165535 --add-subgids 100000-165535 ann"),
        (rootless::mappers(Some(true), Some(true), false, "ann"), Verdict::Ok, "newuidmap"),
        (rootless::mappers(Some(true), None, false, "ann"), Verdict::Fail, "Debian: uidmap"),
        (rootless::mappers(Some(false), Some(true), false, "ann"), Verdict::Fail, "chmod u+s"),
        (rootless::mappers(Some(true), Some(true), true, "ann"), Verdict::Fail, "no-new-privileges"),
        (rootless::snapshots(Ok(()), refused(), &[]), Verdict::Ok, "overlay in a user namespace"),
        (rootless::snapshots(refused(), Ok(()), &[]), Verdict::Warn, "fuse-overlayfs takes its place"),
        (
            rootless::snapshots(refused(), Ok(()), &["fuse-overlayfs"]),
            Verdict::Warn,
            "install fuse-overlayfs",
        ),
        (rootless::snapshots(refused(), refused(), &[]), Verdict::Warn, "modprobe fuse"),
        (rootless::delegation(&manager, &Group::default()), Verdict::Ok, "/manager is delegated"),
        (rootless::delegation(&session, &manager), Verdict::Warn, "systemd-run --user --scope"),
        (rootless::delegation(&session, &group("/m", true, "memory pids")), Verdict::Warn, "without cpu"),
        (rootless::delegation(&session, &Group::default()), Verdict::Warn, "Delegate=cpu"),
        (rootless::sockets(None, "ann"), Verdict::Warn, "loginctl enable-linger ann"),
    ];
    cases.into_iter().for_each(is_judged);
}

/// Here builds work, as other tests show: nothing may be said to make that impossible.
#[test]
fn this_machine_can_build() {
    let folder = std::env::temp_dir().join(format!("crosskit-doctor-test-{}", std::process::id()));
    std::fs::create_dir(&folder).expect("a folder");
    let all = examine(&folder.join("not/there/yet"));
    let failed: Vec<&Finding> = all.iter().filter(|finding| finding.verdict == Verdict::Fail).collect();
    assert!(failed.is_empty(), "{failed:?}");
    for check in
        ["kernel", "rights", "cgroups", "namespaces", "runtime", "snapshots", "platforms", "disk", "clock"]
    {
        assert!(all.iter().any(|finding| finding.check == check), "nothing about {check}");
    }
    // Only an empty folder can be removed: trials have left nothing.
    std::fs::remove_dir(&folder).expect("nothing is left");
}

#[test]
fn a_program_gets_json_and_a_person_a_table() {
    let call = |args: &[&str]| {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        let code = run(&args, &mut out, &mut err);
        (code, String::from_utf8(out).expect("text"), String::from_utf8(err).expect("text"))
    };
    let folder = std::env::temp_dir();
    let root = format!("--root={}", folder.display());
    let (code, out, _) = call(&[&root, "--format", "json"]);
    assert_eq!(code, 0, "{out}");
    let all: Vec<serde_json::Value> = serde_json::from_str(&out).expect("JSON");
    assert_eq!((&all[0]["check"], &all[0]["verdict"]), (&"kernel".into(), &"ok".into()), "{out}");
    let (code, out, _) = call(&[&root]);
    assert_eq!(code, 0);
    assert!(out.lines().any(|line| line.starts_with("ok    runtime ")), "{out}");
    for (args, reason) in [
        (&["--format=xml"][..], "--format is table or json, not \"xml\""),
        (&["--root"], "--root wants a folder"),
        (&["--fix"], "unknown argument \"--fix\""),
    ] {
        let (code, _, err) = call(args);
        assert!(code == 2 && err.contains(reason), "{args:?}: {err}");
    }
}
