//! Registering and proving emulators, each test in a binfmt_misc of its own: nothing of the machine is touched.

mod own_binfmt;

use std::{collections::BTreeSet, ffi::CString, os::fd::AsRawFd};

use crosskit_platforms::{Architecture, Platform, native};
use crosskit_qemu::{
    Binfmt, Emulator, Emulators, PrivateBinfmt, Registration, Support,
    binfmt::Environment,
    detect::{Ways, detect},
    probe,
};
use nix::sched::{CloneFlags, setns};
use own_binfmt::{architecture, call, environment, qemu, with_own_binfmt};

const EMULATED: [&str; 6] = ["arm64", "arm", "riscv64", "ppc64le", "s390x", "loong64"];

fn emulators() -> Emulators {
    Emulators::in_folders(vec![qemu()])
}

#[test]
fn every_architecture_runs_in_a_private_binfmt_misc() {
    let found = Emulators::in_folders(vec![qemu(), qemu().with_file_name("qemu-others")]);
    let host = Architecture::native().expect("known");
    let foreign: Vec<_> = Architecture::all().iter().filter(|known| !host.may_run_natively(known)).collect();
    assert!(foreign.len() >= 20);
    let registrations: Vec<Registration> = foreign
        .iter()
        .map(|known| {
            let emulator: &Emulator = found.get(known).expect("an emulator");
            emulator.check().expect("usable");
            Registration::new(known, &emulator.path, true)
        })
        .collect();
    let private = PrivateBinfmt::new(&registrations).expect("made");
    let none = PrivateBinfmt::new(&[]).expect("made");
    for known in foreign {
        assert_eq!(probe::run_in(&private, known).expect(&known.name), 1, "{}", known.name);
        let error = probe::run_in(&none, known).expect_err(&known.name).to_string();
        assert!(error.contains("no emulator is registered"), "{error}");
    }
}

#[test]
fn every_architecture_keeps_argv0_and_runs_scripts() {
    let said = with_own_binfmt(|dir| {
        let both = tempfile::tempdir().expect("a folder");
        for folder in [qemu(), qemu().with_file_name("qemu-others")] {
            for file in std::fs::read_dir(folder).expect("read").map(|file| file.expect("read")) {
                std::os::unix::fs::symlink(file.path(), both.path().join(file.file_name())).expect("linked");
            }
        }
        let env = Environment {
            binary_path: Some(both.path().into()),
            root: both.path().to_owned(),
            ..Environment::default()
        };
        let _kept = Binfmt::at(dir).mount().expect("mounted").expect("was not");
        let (code, _, err) = call(&["--install=all", "--verify=all"], dir, &env);
        let verified = err.lines().filter(|line| line.starts_with("verifying: ")).count();
        assert!(code == 0 && verified >= 20 && !err.contains("is not kept"), "{code}\n{err}");
        "done".to_owned()
    });
    assert_eq!(said, "done");
}

#[test]
fn a_missing_emulator_file_is_named() {
    let registration = Registration::new(architecture("arm64"), "/nonexistent/qemu-aarch64".as_ref(), false);
    let error = PrivateBinfmt::new(&[registration]).expect_err("refused").to_string();
    assert!(error.contains("registering an emulator: No such file or directory"), "{error}");
}

#[test]
fn detection_finds_what_the_emulators_give() {
    let found = detect(&emulators(), Ways::PrivateOnly);
    assert_eq!(found.problems, []);
    assert_eq!(found.platforms[0], (native(), Support::Native));
    let listed: Vec<String> = found.platforms.iter().map(|(platform, _)| platform.format()).collect();
    assert!(listed.windows(2).any(|pair| pair == ["linux/arm/v7", "linux/arm/v6"]), "{listed:?}");
    for name in EMULATED {
        let support = found.support(&Platform::linux(name));
        assert!(
            matches!(support, Some(Support::Private { emulator }) if emulator.starts_with(qemu())),
            "{name}"
        );
    }
    let unique: BTreeSet<&String> = listed.iter().collect();
    assert_eq!(unique.len(), listed.len(), "{listed:?}");
    assert_eq!(found.support(&Platform::linux("sparc64")), None);
}

#[test]
fn installing_lists_and_uninstalling() {
    let said = with_own_binfmt(|dir| {
        let env = environment();
        let (code, out, err) = call(&["--install", "arm64,linux/riscv64"], dir, &env);
        assert_eq!((code, err.as_str()), (0, "installing: arm64 OK\ninstalling: riscv64 OK\n"));
        let listing: serde_json::Value = serde_json::from_str(&out).expect("JSON");
        assert_eq!(listing["emulators"], serde_json::json!(["qemu-aarch64", "qemu-riscv64"]));
        let supported = listing["supported"].as_array().expect("a list");
        assert_eq!(supported[0], native().format());
        for platform in ["linux/arm64", "linux/riscv64"] {
            assert!(supported.contains(&platform.into()), "{platform}");
        }
        assert!(!supported.contains(&"linux/s390x".into()));
        assert!(Binfmt::at(dir).is_mounted(), "else the kernel would forget what was installed");
        assert!(out.starts_with("{\n  \"supported\": [\n    \"linux/"), "{out}");
        "done".to_owned()
    });
    assert_eq!(said, "done");
}

#[test]
fn entries_stay_while_mounted_and_are_repaired() {
    let said = with_own_binfmt(|dir| {
        let env = environment();
        let binfmt = Binfmt::at(dir);
        let _kept = binfmt.mount().expect("mounted").expect("was not");
        let (code, _, err) = call(&["--install=all"], dir, &env);
        assert_eq!(code, 0, "{err}");
        assert!(err.contains("installing: loong64 OK\n"), "{err}");
        let (code, _, err) = call(&["--install=arm64"], dir, &env);
        assert_eq!((code, err.as_str()), (0, "installing: arm64 qemu-aarch64 already registered\n"));

        // An entry that starts the wrong emulator is there but does not work.
        binfmt.unregister("qemu-aarch64").expect("removed");
        let wrong = qemu().join("qemu-s390x");
        binfmt.register(&Registration::new(architecture("arm64"), &wrong, false)).expect("registered");
        let (code, _, err) = call(&["--install=arm64"], dir, &env);
        assert_eq!((code, err.as_str()), (0, "installing: arm64 OK\n"));
        let entry = binfmt.entry("qemu-aarch64").expect("read").expect("there");
        assert_eq!((entry.interpreter, entry.enabled), (qemu().join("qemu-aarch64"), true));
        assert!(entry.flags.contains('F') && entry.flags.contains('C') && entry.flags.contains('P'));

        let (code, _, err) = call(&["--uninstall=arm64,qemu-riscv64,s390x"], dir, &env);
        let lines =
            "uninstalling: qemu-aarch64 OK\nuninstalling: qemu-riscv64 OK\nuninstalling: qemu-s390x OK\n";
        assert_eq!((code, err.as_str()), (0, lines));
        let (code, out, err) = call(&["--uninstall=qemu-*"], dir, &env);
        assert_eq!(code, 0, "{err}");
        assert!(out.ends_with("  \"emulators\": null\n}\n"), "{out}");
        let (code, _, err) = call(&["--uninstall=arm64"], dir, &env);
        assert_eq!((code, err.as_str()), (1, "uninstalling: arm64 not found\n"));
        "done".to_owned()
    });
    assert_eq!(said, "done");
}

#[test]
fn what_cannot_be_installed_is_said_and_fails() {
    let said = with_own_binfmt(|dir| {
        let (code, out, err) = call(&["--install=pdp11,arm64"], dir, &environment());
        assert_eq!(code, 1);
        let known = "installing: pdp11 unsupported architecture: pdp11; known are amd64, arm64, ";
        assert!(err.starts_with(known) && err.ends_with("\ninstalling: arm64 OK\n"), "{err}");
        assert!(out.contains("qemu-aarch64"), "the rest is done");

        let empty = tempfile::tempdir().expect("a folder");
        let nothing = Environment { binary_path: Some(empty.path().into()), ..Environment::default() };
        let (code, _, err) = call(&["--install=s390x"], dir, &nothing);
        assert_eq!(code, 1);
        assert!(
            err.starts_with("installing: s390x no emulator for s390x found: none of qemu-s390x, "),
            "{err}"
        );

        // An emulator of another architecture under this name: registered, tried, taken back.
        std::os::unix::fs::symlink(qemu().join("qemu-arm"), empty.path().join("qemu-s390x")).expect("linked");
        let (code, out, err) = call(&["--install=s390x"], dir, &nothing);
        assert_eq!(code, 1);
        assert!(err.contains("installing: s390x a program for s390x does not run: exit code"), "{err}");
        let emulator = empty.path().join("qemu-s390x");
        assert!(err.contains(&format!("its emulator is {}: install another", emulator.display())), "{err}");
        assert!(!out.contains("qemu-s390x"), "{out}");

        // Prefix: the file and the entry have it.
        std::os::unix::fs::symlink(qemu().join("qemu-s390x"), empty.path().join("my-qemu-s390x"))
            .expect("linked");
        let prefixed = Environment { binary_prefix: Some("my-".to_owned()), preserve_argv0: true, ..nothing };
        let (code, out, err) = call(&["--install=s390x"], dir, &prefixed);
        assert_eq!((code, err.as_str()), (0, "installing: s390x OK\n"));
        assert!(out.contains("\"my-qemu-s390x\""), "{out}");
        "done".to_owned()
    });
    assert_eq!(said, "done");
}

/// The children of an emulated program are emulated too, and the first one keeps its name.
#[test]
fn argv0_is_kept_where_asked_for() {
    let busybox = qemu().parent().expect("parts").join("busybox/arm64/busybox");
    assert!(busybox.exists(), "no foreign busybox at {}", busybox.display());
    let registration = Registration::new(architecture("arm64"), &qemu().join("qemu-aarch64"), true);
    let private = PrivateBinfmt::new(&[registration]).expect("made");
    let path = CString::new(busybox.to_str().expect("text")).expect("no nul");
    let namespace = private.user_namespace().as_raw_fd();
    let mut command = std::process::Command::new(path.to_str().expect("text"));
    use std::os::unix::process::CommandExt;
    command.arg0("sh").args(["-c", "exec -a echo \"$0\" kept"]).arg(&busybox);
    // SAFETY: only a system call on a descriptor that stays open.
    unsafe {
        command.pre_exec(move || {
            let namespace = std::os::fd::BorrowedFd::borrow_raw(namespace);
            Ok(setns(namespace, CloneFlags::CLONE_NEWUSER)?)
        });
    }
    let output = command.output().expect("runs");
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "kept\n",
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Where the machine's own entry drops the name that a program is called by, a private one is used: shells need it.
#[test]
fn an_entry_that_drops_argv0_is_used_only_where_there_is_no_better() {
    let said = with_own_binfmt(|dir| {
        let binfmt = Binfmt::at(dir);
        let _kept = binfmt.mount().expect("mounted").expect("was not");
        let emulator = qemu().join("qemu-aarch64");
        binfmt.register(&Registration::new(architecture("arm64"), &emulator, false)).expect("registered");
        let how =
            |emulators: &Emulators| detect(emulators, Ways::All).support(&Platform::linux("arm64")).cloned();
        assert_eq!(how(&Emulators::default()), Some(Support::Kernel), "better than nothing");
        assert_eq!(how(&emulators()), Some(Support::Private { emulator: emulator.clone() }));
        binfmt.unregister("qemu-aarch64").expect("removed");
        binfmt.register(&Registration::new(architecture("arm64"), &emulator, true)).expect("registered");
        assert_eq!(how(&emulators()), Some(Support::Kernel));
        "done".to_owned()
    });
    assert_eq!(said, "done");
}
