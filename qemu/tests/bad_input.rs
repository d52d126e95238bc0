//! What machines and emulators refuse or get wrong is said, with what to do, and changes nothing. Each test in a
//! binfmt_misc of its own.

mod own_binfmt;

use std::{os::unix::fs::symlink, path::Path, process::Command};

use crosskit_platforms::Platform;
use crosskit_qemu::{
    Binfmt, Emulators, Registration,
    binfmt::Environment,
    detect::{Ways, detect},
};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use own_binfmt::{architecture, call, environment, qemu, with_own_binfmt};

const NOTHING: Option<&str> = None;

/// Makes the kernel refuse one system call of this process and its children from now on.
fn refuse(call: libc::c_long, errno: i32) {
    let load = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    let (compare, answer) = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, libc::BPF_RET | libc::BPF_K);
    let step = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let mut steps = [
        step(load, 0, 0, 0),
        step(compare, 0, 1, u32::try_from(call).expect("a number of a system call")),
        step(answer, 0, 0, libc::SECCOMP_RET_ERRNO | errno as u32),
        step(answer, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let filter = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_mut_ptr() };
    // SAFETY: the filter is read during the call only.
    let set = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &filter)
    };
    assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
}

#[test]
fn a_kernel_that_has_no_binfmt_misc_is_named_with_what_to_do() {
    for (errno, advice) in [
        (libc::ENODEV, "No such device (os error 19); this kernel has no binfmt_misc: load its module"),
        (
            libc::EPERM,
            "Operation not permitted (os error 1); CAP_SYS_ADMIN is needed: run this as root, its container with",
        ),
        (libc::ENOENT, "make that folder, or, where it is the usual one, load binfmt_misc first"),
    ] {
        let said = with_own_binfmt(|dir| {
            refuse(libc::SYS_mount, errno);
            let (code, out, err) = call(&["--install=arm64"], dir, &environment());
            assert_eq!((code, out.as_str()), (1, ""));
            let begin = format!("error: cannot mount binfmt_misc filesystem at {}: ", dir.display());
            assert!(err.starts_with(&begin) && err.contains(advice), "{err}");
            "done".to_owned()
        });
        assert_eq!(said, "done");
    }
}

#[test]
fn a_read_only_binfmt_misc_is_named_with_what_to_do() {
    let said = with_own_binfmt(|dir| {
        let root = tempfile::tempdir().expect("a folder");
        let env = Environment { root: root.path().to_owned(), ..environment() };
        let binfmt = Binfmt::at(dir);
        let _kept = binfmt.mount().expect("mounted").expect("was not");
        let known = architecture("riscv64");
        binfmt.register(&Registration::new(known, &qemu().join("qemu-riscv64"), true)).expect("registered");
        let before = binfmt.entries().expect("read");
        let again = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
        mount(NOTHING, dir, NOTHING, again, NOTHING).expect("made read-only");
        for args in [&["--install=arm64"][..], &["--uninstall=riscv64"]] {
            let (code, _, err) = call(args, dir, &env);
            assert_eq!(code, 1, "{err}");
            assert!(err.contains("binfmt_misc is mounted read-only there: mount -o remount,rw it"), "{err}");
        }
        // Looking works.
        let (code, _, err) = call(&["--verify=riscv64"], dir, &env);
        assert_eq!((code, err.as_str()), (0, "verifying: riscv64 OK\n"));
        assert_eq!(binfmt.entries().expect("read"), before);
        "done".to_owned()
    });
    assert_eq!(said, "done");
}

/// Compiles a program in the place of an emulator: one that may say its version, and crashes when there is more to do.
fn emulator(file: &Path, version: Option<&str>) {
    let source = file.with_extension("c");
    let answer = version.map(|version| format!("puts(\"qemu-any version {version}\"); return 0;"));
    let text = format!(
        "#include <stdio.h>\n#include <stdlib.h>\n\
         int main(int count, char **words) {{ if (count > 1 && words[1][0] == '-') {{ {} }} abort(); }}\n",
        answer.unwrap_or_default()
    );
    std::fs::write(&source, text).expect("written");
    let mut compiler = Command::new("cc");
    let ran = compiler.args(["-static", "-o"]).arg(file).arg(&source).output();
    let ran = ran.expect("cc, which Rust links with, is on this machine");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
}

#[test]
fn an_emulator_that_is_no_good_is_named_and_not_registered() {
    for (architecture, version, reason) in [
        (
            "arm64",
            Some("9.9.9"),
            "a program for arm64 does not run: killed by signal 6 (SIGABRT); its emulator is ",
        ),
        (
            "arm64",
            None,
            "cannot be used: it was killed by signal 6 (SIGABRT) when it was asked for its version; install another",
        ),
        ("loong64", Some("8.2.0"), "cannot be used: QEMU 8.2.0 kills loong64 programs"),
        ("loong64", Some("8.2.0"), "; 9.0.0 or newer is needed"),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join(format!("qemu-{}", own_binfmt::architecture(architecture).qemu));
        emulator(&file, version);
        let said = with_own_binfmt(|dir| {
            let env = Environment {
                binary_path: Some(folder.path().into()),
                root: folder.path().to_owned(),
                ..Environment::default()
            };
            let (code, out, err) = call(&[&format!("--install={architecture}")], dir, &env);
            assert_eq!(code, 1);
            assert!(
                err.starts_with(&format!("installing: {architecture} ")) && err.contains(reason),
                "{err}"
            );
            assert!(err.contains(&file.display().to_string()), "{err}");
            assert!(out.contains("\"emulators\": null"), "{out}");

            // A daemon that looks for what it can run goes on without it, and knows why.
            let found = detect(&Emulators::in_folders(vec![folder.path().into()]), Ways::All);
            assert_eq!(found.support(&Platform::linux(architecture)), None);
            let [(of, problem)] = found.problems.as_slice() else { panic!("{:?}", found.problems) };
            assert!(of == architecture && problem.contains(reason), "{problem}");
            "done".to_owned()
        });
        assert_eq!(said, "done");
    }
}

#[test]
fn a_full_disk_is_named_and_what_was_written_down_stays() {
    let said = with_own_binfmt(|dir| {
        let root = tempfile::tempdir().expect("a folder");
        let env = Environment { root: root.path().to_owned(), ..environment() };
        let options = Some("size=64k,nr_inodes=64");
        mount(Some("tmpfs"), root.path(), Some("tmpfs"), MsFlags::empty(), options).expect("a small disk");
        let binfmt = Binfmt::at(dir);
        let _kept = binfmt.mount().expect("mounted").expect("was not");
        let (code, _, err) = call(&["--install=arm64", "--persist"], dir, &env);
        assert_eq!(code, 0, "{err}");
        let file = root.path().join("etc/binfmt.d/crosskit.conf");
        let before = std::fs::read(&file).expect("written");
        // To the last byte.
        let _ = std::fs::write(root.path().join("full"), vec![1; 1 << 20]);
        let (code, _, err) = call(&["--install=s390x", "--persist"], dir, &env);
        assert_eq!(code, 1);
        assert!(err.contains("installing: s390x OK\n"), "{err}");
        let reason = "No space left on device (os error 28); make room on that disk";
        assert!(err.contains(&format!("error: writing {}: {reason}", file.display())), "{err}");
        assert_eq!(std::fs::read(&file).expect("still there"), before);
        let names = std::fs::read_dir(file.parent().expect("a folder")).expect("listed").count();
        assert_eq!(names, 1, "nothing half-written is left");
        std::fs::remove_file(root.path().join("full")).expect("made room");
        let (code, _, err) = call(&["--persist"], dir, &env);
        assert_eq!(code, 0, "{err}");
        assert!(std::fs::read_to_string(&file).expect("written").contains(":qemu-s390x:M:"));
        "done".to_owned()
    });
    assert_eq!(said, "done");
}

/// What a container installs where nobody else has binfmt_misc mounted is forgotten with the container.
#[test]
fn what_does_not_last_is_told() {
    let install = |dir: &Path| {
        let root = tempfile::tempdir().expect("a folder");
        let env = Environment { root: root.path().to_owned(), ..environment() };
        std::fs::write(root.path().join(".dockerenv"), "").expect("written");
        let (code, out, err) = call(&["--install=arm64"], dir, &env);
        assert_eq!(code, 0, "as long as the container: {err}");
        assert!(out.contains("qemu-aarch64") && !out.contains("crosskit-mark"), "{out}");
        err
    };
    // Somebody else, who made the namespace, has it mounted too.
    assert_eq!(with_own_binfmt(install), "installing: arm64 OK\n");
    let told = with_own_binfmt(|dir| {
        unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS).expect("one that nobody else knows");
        for (file, text) in [("setgroups", "deny"), ("uid_map", "0 0 1"), ("gid_map", "0 0 1")] {
            std::fs::write(format!("/proc/self/{file}"), text).expect("mapped");
        }
        install(dir)
    });
    let begin =
        "installing: arm64 OK\nwarning: binfmt_misc is mounted nowhere else, so that the kernel forgets";
    assert!(told.starts_with(begin), "{told}");
}

/// One that does it already under another name is left to do it.
#[test]
fn nothing_is_put_in_the_way_of_an_entry_that_works() {
    let said = with_own_binfmt(|dir| {
        let root = tempfile::tempdir().expect("a folder");
        let env = Environment { root: root.path().to_owned(), ..environment() };
        let binfmt = Binfmt::at(dir);
        let _kept = binfmt.mount().expect("mounted").expect("was not");
        let debians = Registration {
            name: "qemu-aarch64-static".into(),
            ..Registration::new(architecture("arm64"), &qemu().join("qemu-aarch64"), true)
        };
        binfmt.register(&debians).expect("registered");
        let before = binfmt.entries().expect("read");
        let (code, _, err) = call(&["--install=arm64"], dir, &env);
        assert_eq!((code, err.as_str()), (0, "installing: arm64 qemu-aarch64-static already registered\n"));
        assert_eq!(binfmt.entries().expect("read"), before);
        // But a name that is asked for is given.
        let folder = tempfile::tempdir().expect("a folder");
        symlink(qemu().join("qemu-aarch64"), folder.path().join("my-qemu-aarch64")).expect("linked");
        let mine = Environment {
            binary_path: Some(folder.path().into()),
            binary_prefix: Some("my-".into()),
            ..env.clone()
        };
        let (code, out, err) = call(&["--install=arm64"], dir, &mine);
        assert_eq!((code, err.as_str()), (0, "installing: arm64 OK\n"));
        assert!(out.contains("\"my-qemu-aarch64\""), "{out}");
        "done".to_owned()
    });
    assert_eq!(said, "done");
}

#[test]
fn who_looks_does_not_wait_for_others_who_look() {
    let said = with_own_binfmt(|dir| {
        let binfmt = Binfmt::at(dir);
        let _kept = binfmt.mount().expect("mounted").expect("was not");
        let _first = binfmt.lock(false).expect("locked");
        let (code, _, err) = call(&["--status"], dir, &environment());
        assert_eq!((code, err.as_str()), (0, ""));
        "done".to_owned()
    });
    assert_eq!(said, "done");
}
