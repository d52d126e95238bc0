//! Programs of other processors: through the machine's binfmt_misc, through a private one, and not at all.

mod lab;

use std::os::unix::fs::PermissionsExt;

use crosskit_exec::{Emulation, ExecConfig, How, Network, Process, Security, Ways};
use crosskit_platforms::{Architecture, Platform, native};
use crosskit_qemu::{Binfmt, Registration, TemporaryMount};
use lab::{Lab, RUNTIMES, parts, process, rootfs, sh};
use tempfile::TempDir;

const FOREIGN: [&str; 6] = ["arm64", "arm", "riscv64", "ppc64le", "s390x", "loong64"];

fn lab(runtime: &str, ways: Ways) -> Lab {
    let emulator_folders = vec![parts().join("qemu")];
    Lab::with(ExecConfig { runtime: Some(runtime.into()), emulator_folders, ways, ..ExecConfig::default() })
}

/// An entry of the machine's for the time of the test. The kernel prefers it to older ones.
struct KernelEntry {
    binfmt: Binfmt,
    name: String,
    _mounted: Option<TemporaryMount>,
}

impl KernelEntry {
    fn of(name: &str) -> Self {
        let architecture = Architecture::by_name(name).expect("known");
        let binfmt = Binfmt::at("/proc/sys/fs/binfmt_misc");
        let mounted = binfmt.mount().expect("mounted");
        let emulator = parts().join("qemu").join(format!("qemu-{}", architecture.qemu));
        let entry = format!("crosskit-test-{name}-{}", std::process::id());
        let registration =
            Registration { name: entry.clone(), ..Registration::new(architecture, &emulator, true) };
        binfmt.register(&registration).expect("registered");
        Self { binfmt, name: entry, _mounted: mounted }
    }
}

impl Drop for KernelEntry {
    fn drop(&mut self) {
        self.binfmt.unregister(&self.name).expect("removed");
    }
}

fn machine(name: &str) -> &'static str {
    let names = &Architecture::by_name(name).expect("known").uname;
    if name == "arm" { "armv7l" } else { &names[0] }
}

/// A step that needs its children emulated too: a second program of another name, a script, a pipeline.
fn step(root: &TempDir, name: &str) -> Process {
    let busybox = std::fs::read(root.path().join("bin/busybox")).expect("read");
    std::fs::write(root.path().join("bin/busybox-second"), busybox).expect("written");
    let script = root.path().join("bin/script");
    std::fs::write(&script, "#!/bin/sh\necho script $0 $1\n").expect("written");
    for file in ["bin/busybox-second", "bin/script"] {
        std::fs::set_permissions(root.path().join(file), PermissionsExt::from_mode(0o755)).expect("set");
    }
    let text = "uname -m; /bin/busybox-second echo second; script arg; echo piped | cat | tr a-z A-Z; \
                touch /made && chown 1234:5678 /made && stat -c %u:%g /made; id -u; grep NoNewPrivs: /proc/self/status";
    let _ = std::fs::remove_file(root.path().join("made"));
    Process { platform: Some(Platform::linux(name)), ..sh(root, text) }
}

fn expected(name: &str) -> String {
    let machine = machine(name);
    format!("{machine}\nsecond\nscript /bin/script arg\nPIPED\n1234:5678\n0\nNoNewPrivs:\t0\n")
}

#[tokio::test]
async fn a_private_binfmt_misc_runs_programs_and_their_children() {
    for runtime in RUNTIMES {
        let lab = lab(runtime, Ways::PrivateOnly);
        for name in FOREIGN {
            let root = rootfs(name);
            let how = lab.executor.can_run(&Platform::linux(name)).await.expect("runs");
            assert!(matches!(how, How::Emulated(Emulation::Private { .. })), "{how:?}");
            let said = lab.run(step(&root, name)).await;
            assert_eq!(said.out, expected(name), "{runtime} {name}: {said:?}");
            use std::os::unix::fs::MetadataExt;
            let made = root.path().join("made").metadata().expect("there");
            assert_eq!((made.uid(), made.gid()), (1234, 5678), "owners stay as they are");
            lab.assert_clean();
        }
    }
}

#[tokio::test]
async fn the_machines_entry_runs_programs_and_their_children() {
    let _entry = KernelEntry::of("arm64");
    for runtime in RUNTIMES {
        let lab = lab(runtime, Ways::All);
        let how = lab.executor.can_run(&Platform::linux("arm64")).await.expect("runs");
        assert_eq!(how, How::Emulated(Emulation::Kernel));
        let root = rootfs("arm64");
        let said = lab.run(step(&root, "arm64")).await;
        assert_eq!(said.out, expected("arm64"), "{runtime}: {said:?}");
    }
}

#[tokio::test]
async fn emulated_steps_can_be_isolated_and_unconfined_too() {
    for runtime in RUNTIMES {
        let lab = lab(runtime, Ways::PrivateOnly);
        let root = rootfs("arm64");
        let platform = Some(Platform::linux("arm64"));
        let none = Process {
            network: Network::None,
            platform: platform.clone(),
            ..sh(&root, "ip addr | grep -c ': <'; ls /sys/class/net")
        };
        assert_eq!(lab.run(none).await.out, "1\nlo\n", "{runtime}");
        let insecure = Process {
            security: Security::Insecure,
            platform,
            ..sh(&root, "mount -t tmpfs t /tmp && echo mounted; uname -m")
        };
        let said = lab.run(insecure).await;
        assert_eq!(said.out, "mounted\naarch64\n", "{runtime}: {said:?}");
    }
}

#[tokio::test]
async fn nothing_starts_where_nothing_runs_it() {
    let lab = Lab::with(ExecConfig { ways: Ways::KernelOnly, ..ExecConfig::default() });
    let root = rootfs("arm64");
    let step = Process {
        platform: Some(Platform::linux("mips64le")),
        cwd: "/new".to_owned(),
        ..process(&root, &["/bin/true"])
    };
    let error = lab.try_run(step).await.expect_err("nobody runs it").to_string();
    assert!(error.starts_with("nothing on this machine can run linux/mips64le: "), "{error}");
    assert!(error.ends_with("get an emulator with: binfmt --install mips64le"), "{error}");
    assert!(!root.path().join("new").exists(), "nothing was done yet");
}

#[tokio::test]
async fn platforms_are_listed_with_how_they_run() {
    let lab = lab("crun", Ways::PrivateOnly);
    let list = lab.executor.platforms().await;
    assert_eq!(list[0], (native(), How::Native));
    for name in FOREIGN {
        let platform = Platform::linux(name).normalize();
        let how = &list.iter().find(|(listed, _)| *listed == platform).expect(name).1;
        assert!(
            matches!(how, How::Emulated(Emulation::Private { emulator }) if emulator.starts_with(parts())),
            "{how:?}"
        );
    }
    // Variants that are not listed but that the emulated processor has.
    for specifier in ["linux/arm64/v8", "linux/arm64/v8.2", "linux/arm/v5"] {
        let platform = Platform::parse(specifier).expect("a platform");
        assert!(lab.executor.can_run(&platform).await.is_ok(), "{specifier}");
    }
}
