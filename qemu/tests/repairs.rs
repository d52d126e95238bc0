//! Verifying, repairing, restoring and keeping entries, each test in a binfmt_misc of its own.

mod own_binfmt;

use std::path::{Path, PathBuf};

use crosskit_platforms::Architecture;
use crosskit_qemu::{Binfmt, Emulators, Registration, binfmt::Environment, probe};
use own_binfmt::{architecture, call, environment, qemu, with_own_binfmt};
use serde_json::Value;

/// The program's environment on a machine whose files are in a folder.
fn machine(root: &Path) -> Environment {
    Environment { root: root.to_owned(), ..environment() }
}

fn registration(name: &str, flags: &str) -> Registration {
    let known = architecture(name);
    let path = Emulators::in_folders(vec![qemu()]).get(known).expect("an emulator").path.clone();
    Registration { flags: flags.to_owned(), ..Registration::new(known, &path, true) }
}

/// The status of one architecture, as JSON tells it.
fn status(name: &str, dir: &Path, env: &Environment) -> Value {
    let (code, out, err) = call(&["--status", "--format=json"], dir, env);
    assert_eq!((code, err.as_str()), (0, ""));
    let all: Vec<Value> = serde_json::from_str(&out).expect("JSON");
    all.into_iter().find(|one| one["architecture"] == name).unwrap_or_else(|| panic!("no {name:?} in {out}"))
}

#[test]
fn what_is_wrong_is_told_and_put_right() {
    let said = with_own_binfmt(|dir| {
        let root = tempfile::tempdir().expect("a folder");
        let env = machine(root.path());
        let binfmt = Binfmt::at(dir);
        let _kept = binfmt.mount().expect("mounted").expect("was not");
        assert_eq!(status("arm64", dir, &env)["state"], "missing");
        let gone = root.path().join("qemu-aarch64");
        std::fs::copy(qemu().join("qemu-aarch64"), &gone).expect("copied");
        let wide = |mut wrong: Registration| {
            wrong.magic.mask = [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            wrong
        };
        // What somebody has made of it, the state that is shown, and a part of the reason.
        let cases: [(&str, Vec<Registration>, &str, &str); 7] = [
            ("as it should be", vec![registration("arm64", "CFP")], "ok", ""),
            ("no flag F", vec![registration("arm64", "CP")], "loose", "flag F is missing"),
            (
                "another emulator",
                vec![Registration { emulator: qemu().join("qemu-s390x"), ..registration("arm64", "CF") }],
                "broken",
                "does not run: exit code",
            ),
            (
                "the file is gone",
                vec![Registration { emulator: gone.clone(), ..registration("arm64", "CFP") }],
                "stale",
                "until the next restart",
            ),
            (
                "the file is gone, and not held open",
                vec![Registration { emulator: gone.clone(), ..registration("arm64", "CP") }],
                "broken",
                "is gone",
            ),
            (
                "two of them",
                vec![
                    registration("arm64", "CFP"),
                    Registration { name: "qemu-aarch64-static".into(), ..registration("arm64", "CP") },
                ],
                "loose",
                "qemu-aarch64-static takes its programs as well",
            ),
            ("switched off", vec![registration("arm64", "CFP")], "disabled", "qemu-aarch64 is switched off"),
        ];
        for (what, entries, state, reason) in cases {
            if !gone.exists() {
                std::fs::copy(qemu().join("qemu-aarch64"), &gone).expect("copied");
            }
            for entry in &entries {
                binfmt.register(entry).unwrap_or_else(|error| panic!("{what}: {error}"));
            }
            if what.contains("is gone") {
                std::fs::remove_file(&gone).expect("removed");
            }
            if state == "disabled" {
                binfmt.enable("qemu-aarch64", false).expect("switched off");
            }
            let found = status("arm64", dir, &env);
            assert_eq!(found["state"], state, "{what}: {found}");
            assert!(found["problems"].to_string().contains(reason), "{what}: {found}");
            let good = state == "ok";
            let (code, _, err) = call(&["--verify=arm64"], dir, &env);
            assert_eq!(
                (code, err.starts_with("verifying: arm64 OK\n")),
                (i32::from(!good), good),
                "{what}: {err}"
            );

            let (code, _, err) = call(&["--repair=arm64"], dir, &env);
            assert_eq!(code, 0, "{what}: {err}");
            assert_eq!(err == "repairing: arm64 nothing to do\n", good, "{what}: {err}");
            let found = status("arm64", dir, &env);
            assert_eq!((&found["state"], &found["argv0"]), (&"ok".into(), &true.into()), "{what}: {found}");
            assert_eq!(found["interpreter"], qemu().join("qemu-aarch64").to_str().expect("text"));
            let names: Vec<String> = binfmt.entries().expect("read").into_iter().map(|e| e.name).collect();
            assert_eq!(names, ["qemu-aarch64"], "{what}");
            binfmt.unregister("qemu-aarch64").expect("removed");
        }

        // What takes everything belongs to nobody known: only with force.
        let thief = Registration { name: "thief".into(), ..wide(registration("arm64", "CF")) };
        binfmt.register(&thief).expect("registered");
        let (code, _, err) = call(&["--repair=riscv64"], dir, &env);
        assert_eq!(code, 1, "{err}");
        assert!(
            err.contains("the entry thief, which starts ") && err.contains("--force removes it"),
            "{err}"
        );
        let (code, _, err) = call(&["--repair=riscv64", "--force"], dir, &env);
        assert_eq!(code, 0, "{err}");
        assert!(binfmt.entry("thief").expect("read").is_none());
        assert!(probe::run(architecture("riscv64")).is_ok());

        // An emulator for the processor's own programs.
        let native = Architecture::native().expect("known");
        let own = Registration { name: format!("qemu-{}", native.qemu), ..registration(&native.name, "CF") };
        binfmt.register(&own).expect("registered");
        assert_eq!(status(&native.name, dir, &env)["state"], "shadowed");
        let (code, _, err) = call(&[&format!("--repair={}", native.name)], dir, &env);
        assert_eq!(code, 0, "{err}");
        assert_eq!(status(&native.name, dir, &env)["state"], "native");
        "done".to_owned()
    });
    assert_eq!(said, "done");
}

/// A container sees the machine's entries and not the files of their emulators, which the kernel holds open.
#[test]
fn emulators_that_a_container_does_not_see_are_good_as_long_as_they_work() {
    let said = with_own_binfmt(|dir| {
        let root = tempfile::tempdir().expect("a folder");
        let env = machine(root.path());
        let binfmt = Binfmt::at(dir);
        let _kept = binfmt.mount().expect("mounted").expect("was not");
        let elsewhere = root.path().join("qemu-aarch64");
        std::fs::copy(qemu().join("qemu-aarch64"), &elsewhere).expect("copied");
        let registered = Registration { emulator: elsewhere.clone(), ..registration("arm64", "CFP") };
        binfmt.register(&registered).expect("registered");
        std::fs::remove_file(&elsewhere).expect("removed");
        assert_eq!(status("arm64", dir, &env)["state"], "stale", "on the machine itself");
        std::fs::write(root.path().join(".dockerenv"), "").expect("written");
        assert_eq!(status("arm64", dir, &env)["state"], "ok");
        let before = binfmt.entries().expect("read");
        let (code, _, err) = call(&["--repair=all", "--verify=all"], dir, &env);
        assert_eq!((code, err.as_str()), (0, "repairing: arm64 nothing to do\nverifying: arm64 OK\n"));
        assert_eq!(binfmt.entries().expect("read"), before);
        "done".to_owned()
    });
    assert_eq!(said, "done");
}

#[test]
fn a_repair_that_fails_leaves_the_entry_alone() {
    let said = with_own_binfmt(|dir| {
        let root = tempfile::tempdir().expect("a folder");
        let binfmt = Binfmt::at(dir);
        let _kept = binfmt.mount().expect("mounted").expect("was not");
        binfmt.register(&registration("arm64", "CP")).expect("registered");
        let before = binfmt.entries().expect("read");
        // The only emulator that is found is one of another architecture.
        let folder = root.path().join("emulators");
        std::fs::create_dir(&folder).expect("made");
        std::os::unix::fs::symlink(qemu().join("qemu-s390x"), folder.join("qemu-aarch64")).expect("linked");
        let env = Environment { binary_path: Some(folder.into()), ..machine(root.path()) };
        let (code, _, err) = call(&["--repair=arm64"], dir, &env);
        assert_eq!(code, 1);
        assert!(err.contains("repairing: arm64 a program for arm64 does not run"), "{err}");
        assert_eq!(binfmt.entries().expect("read"), before);
        "done".to_owned()
    });
    assert_eq!(said, "done");
}

#[test]
fn what_was_there_before_comes_back() {
    let said = with_own_binfmt(|dir| {
        let root = tempfile::tempdir().expect("a folder");
        let env = machine(root.path());
        let binfmt = Binfmt::at(dir);
        let _kept = binfmt.mount().expect("mounted").expect("was not");
        let (code, _, err) = call(&["--restore"], dir, &env);
        assert_eq!(code, 1);
        assert!(err.contains("nothing to restore"), "{err}");

        binfmt.register(&registration("s390x", "CP")).expect("registered");
        binfmt.register(&registration("riscv64", "CF")).expect("registered");
        binfmt.enable("qemu-riscv64", false).expect("switched off");
        let before = binfmt.entries().expect("read");
        let (code, _, err) = call(&["--install=arm64", "--repair=all"], dir, &env);
        assert_eq!(code, 0, "{err}");
        let (code, _, err) = call(&["--uninstall=arm64,s390x", "--install=loong64"], dir, &env);
        assert_eq!(code, 0, "{err}");
        assert_eq!(status("loong64", dir, &env)["owner"], "crosskit");
        let (code, _, err) = call(&["--restore"], dir, &env);
        assert_eq!(code, 0, "{err}");
        assert!(err.contains("restoring: qemu-loongarch64 removed\n"), "{err}");
        assert!(err.contains("restoring: qemu-s390x is back\n"), "{err}");
        assert_eq!(binfmt.entries().expect("read"), before);
        let (code, _, _) = call(&["--restore"], dir, &env);
        assert_eq!(code, 1, "once is enough");
        "done".to_owned()
    });
    assert_eq!(said, "done");
}

#[test]
fn entries_that_are_to_stay_are_written_down_for_the_next_start() {
    let said = with_own_binfmt(|dir| {
        let root = tempfile::tempdir().expect("a folder");
        let env = machine(root.path());
        let file: PathBuf = root.path().join("etc/binfmt.d/crosskit.conf");
        let binfmt = Binfmt::at(dir);
        let _kept = binfmt.mount().expect("mounted").expect("was not");
        let (code, _, err) = call(&["--persist"], dir, &env);
        assert_eq!(code, 1);
        assert!(err.contains("no emulator is registered: --install comes first"), "{err}");
        let (code, _, err) = call(&["--install=arm64,s390x", "--persist"], dir, &env);
        assert_eq!(code, 0, "{err}");
        assert!(err.ends_with(&format!("persisting: 2 entries in {}\n", file.display())), "{err}");

        // The lines are those that the kernel takes.
        let before = binfmt.entries().expect("read");
        let text = std::fs::read_to_string(&file).expect("written");
        for entry in &before {
            binfmt.unregister(&entry.name).expect("removed");
        }
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            std::fs::write(dir.join("register"), line).expect("taken");
        }
        assert_eq!(binfmt.entries().expect("read"), before);

        call(&["--uninstall=arm64"], dir, &env);
        let text = std::fs::read_to_string(&file).expect("written");
        assert!(!text.contains("qemu-aarch64") && text.contains(":qemu-s390x:M:"), "{text}");
        assert_eq!(
            status("s390x", dir, &Environment { root: root.path().into(), ..environment() })["owner"],
            "crosskit"
        );
        call(&["--uninstall=s390x"], dir, &env);
        assert!(!file.exists(), "nothing is left to start");

        std::fs::write(root.path().join(".dockerenv"), "").expect("written");
        let (code, _, err) = call(&["--install=arm64", "--persist"], dir, &env);
        assert_eq!(code, 1);
        assert!(err.contains("this is a container"), "{err}");
        "done".to_owned()
    });
    assert_eq!(said, "done");
}

#[test]
fn owners_are_found() {
    let said = with_own_binfmt(|dir| {
        let root = tempfile::tempdir().expect("a folder");
        let env = machine(root.path());
        let binfmt = Binfmt::at(dir);
        let _kept = binfmt.mount().expect("mounted").expect("was not");
        for name in ["arm64", "s390x", "riscv64"] {
            binfmt.register(&registration(name, "CFP")).expect("registered");
        }
        let fragment = root.path().join("usr/lib/binfmt.d/qemu-aarch64.conf");
        std::fs::create_dir_all(fragment.parent().expect("a folder")).expect("made");
        std::fs::write(&fragment, registration("arm64", "CFP").line()).expect("written");
        std::fs::create_dir_all(root.path().join("var/lib/binfmts")).expect("made");
        std::fs::write(root.path().join("var/lib/binfmts/qemu-s390x"), "").expect("written");
        assert_eq!(status("arm64", dir, &env)["owner"], "/usr/lib/binfmt.d/qemu-aarch64.conf");
        assert_eq!(status("s390x", dir, &env)["owner"], "binfmt-support");
        assert_eq!(status("riscv64", dir, &env)["owner"], Value::Null);
        let (_, out, _) = call(&["--status"], dir, &env);
        let line = out.lines().find(|line| line.starts_with("arm64 ")).expect("a line").to_owned();
        let words: Vec<&str> = line.split_whitespace().collect();
        let emulator = qemu().join("qemu-aarch64");
        assert_eq!(words[..4], ["arm64", "ok", "qemu-aarch64", emulator.to_str().expect("text")]);
        assert_eq!(words[6..], ["kept", "/usr/lib/binfmt.d/qemu-aarch64.conf"]);
        "done".to_owned()
    });
    assert_eq!(said, "done");
}

/// Both do all of it, at the same time, and both are told that it was done.
#[test]
fn two_installers_at_once() {
    let said = with_own_binfmt(|dir| {
        let root = tempfile::tempdir().expect("a folder");
        let binfmt = Binfmt::at(dir);
        let _kept = binfmt.mount().expect("mounted").expect("was not");
        binfmt.register(&registration("arm64", "CP")).expect("registered");
        let both: Vec<(i32, String, String)> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..2)
                .map(|_| scope.spawn(|| call(&["--install=all", "--repair=all"], dir, &machine(root.path()))))
                .collect();
            threads.into_iter().map(|thread| thread.join().expect("ended")).collect()
        });
        for (code, _, err) in both {
            assert_eq!(code, 0, "{err}");
        }
        let (code, _, err) = call(&["--verify=all"], dir, &machine(root.path()));
        assert_eq!(code, 0, "{err}");
        let names: Vec<String> = binfmt.entries().expect("read").into_iter().map(|e| e.name).collect();
        assert!(names.iter().all(|name| !name.ends_with("-trial")) && names.len() >= 6, "{names:?}");
        "done".to_owned()
    });
    assert_eq!(said, "done");
}

#[test]
fn options_that_say_nothing_together_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    for (args, reason) in [
        (&["--force"][..], "-force says how to -repair"),
        (&["--format=json"], "-format says how to show -status"),
        (&["--status", "--format=xml"], "-format is table or json, not \"xml\""),
        (&["--restore", "--install=arm64"], "-restore goes with neither"),
    ] {
        let (code, _, err) = call(args, folder.path(), &environment());
        assert_eq!(code, 2, "{args:?}");
        assert!(err.contains(reason), "{args:?}: {err}");
    }
}
