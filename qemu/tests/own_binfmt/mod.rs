//! What tests share that need a binfmt_misc: one of their own each, so that nothing of the machine is touched.
#![allow(dead_code, reason = "each test program uses some of it")]

use std::{
    io::Read,
    path::{Path, PathBuf},
};

use crosskit_platforms::Architecture;
use crosskit_qemu::{
    PrivateBinfmt,
    binfmt::{Environment, run_with},
};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, setns, unshare},
    unistd::{ForkResult, fork},
};

/// The folder of real emulators that the test script prepares.
pub fn qemu() -> PathBuf {
    let parts = std::env::var_os("CROSSKIT_TEST_PARTS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/parts"), PathBuf::from);
    let folder = parts.join("qemu");
    assert!(folder.join("qemu-aarch64").exists(), "no emulators in {}: run tests/parts.sh", folder.display());
    folder.canonicalize().expect("there")
}

pub fn architecture(name: &str) -> &'static Architecture {
    Architecture::by_name(name).expect(name)
}

/// Runs `work` in a child that sees an empty binfmt_misc of its own, mounted at a folder given to it.
pub fn with_own_binfmt(work: impl FnOnce(&Path) -> String) -> String {
    let own = PrivateBinfmt::new(&[]).expect("a private binfmt_misc");
    let folder = tempfile::tempdir().expect("a folder");
    let (mut reader, writer) = std::io::pipe().expect("a pipe");
    // SAFETY: the test's process has no thread that holds a lock the child needs; it ends by _exit.
    match unsafe { fork() }.expect("forked") {
        ForkResult::Child => {
            drop(reader);
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                setns(own.user_namespace(), CloneFlags::CLONE_NEWUSER).expect("joined");
                unshare(CloneFlags::CLONE_NEWNS).expect("unshared");
                let none: Option<&str> = None;
                mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("made private");
                work(folder.path())
            }));
            let said = outcome.unwrap_or_else(|_| "PANICKED".to_owned());
            let _ = nix::unistd::write(&writer, said.as_bytes());
            // SAFETY: ends the child.
            unsafe { libc::_exit(0) }
        }
        ForkResult::Parent { child } => {
            drop(writer);
            let mut said = String::new();
            reader.read_to_string(&mut said).expect("read");
            nix::sys::wait::waitpid(child, None).expect("waited");
            assert_ne!(said, "PANICKED");
            said
        }
    }
}

/// Calls the program; gives exit code, output and messages.
pub fn call(args: &[&str], dir: &Path, env: &Environment) -> (i32, String, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut all = vec![format!("--mount={}", dir.display())];
    all.extend(args.iter().map(|arg| (*arg).to_owned()));
    let code = run_with(&all, env, &mut out, &mut err);
    (code, String::from_utf8(out).expect("text"), String::from_utf8(err).expect("text"))
}

pub fn environment() -> Environment {
    Environment { binary_path: Some(qemu().into()), ..Environment::default() }
}
