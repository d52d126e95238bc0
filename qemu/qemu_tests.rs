use crosskit_platforms::{Architecture, Endian};

use crate::{
    Emulators, Magic, Registration, Version,
    emulators::{is_static, parse_version},
    entries::parse_entry,
    flags::{self, Stop},
    magic, probe, program,
};

fn architecture(name: &str) -> &'static Architecture {
    Architecture::by_name(name).expect(name)
}

/// Written down from QEMU's own table (scripts/qemu-binfmt-conf.sh): bytes 4 to 20.
const KNOWN: &[(&str, [u8; 16])] = &[
    ("amd64", [2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0x3e, 0]),
    ("386", [1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 3, 0]),
    ("arm64", [2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0xb7, 0]),
    ("arm", [1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0x28, 0]),
    ("s390x", [2, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0x16]),
    ("ppc64le", [2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0x15, 0]),
    ("ppc64", [2, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0x15]),
    ("riscv64", [2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0xf3, 0]),
    ("mips64le", [2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 8, 0]),
    ("mips64", [2, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 8]),
    ("loong64", [2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 2, 1]),
    ("sparc64", [2, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0x2b]),
    ("alpha", [2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0x26, 0x90]),
    ("m68k", [1, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 4]),
    ("ppc", [1, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0x14]),
    ("mips", [1, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 8]),
    ("mipsle", [1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 8, 0]),
    ("riscv32", [1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0xf3, 0]),
    ("hppa", [1, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0x0f]),
    ("sh4", [1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0x2a, 0]),
    ("or1k", [1, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0x5c]),
    ("microblaze", [1, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0xbd]),
];

#[test]
fn magics_are_those_of_qemu() {
    assert_eq!(KNOWN.len(), Architecture::all().len());
    for (name, bytes) in KNOWN {
        let known = architecture(name);
        let Magic { bytes: found, mask } = magic(known);
        assert_eq!((&found[..4], &found[4..]), (b"\x7fELF".as_slice(), bytes.as_slice()), "{name}");
        let kind = if known.endian == Endian::Big { 17 } else { 16 };
        assert_eq!(mask[kind], 0xfe, "{name}: executables and position-independent ones");
        assert_eq!(mask.iter().filter(|byte| **byte != 0xff).count(), 3, "{name}");
    }
}

#[test]
fn every_architectures_program_has_its_own_magic_and_no_others() {
    for known in Architecture::all() {
        let image = program(known).unwrap_or_else(|| panic!("no program for {}", known.name));
        for other in Architecture::all() {
            let Magic { bytes, mask } = magic(other);
            let fits = (0..20).all(|at| image[at] & mask[at] == bytes[at] & mask[at]);
            assert_eq!(fits, known.name == other.name, "{} by the magic of {}", known.name, other.name);
        }
    }
}

#[test]
fn the_native_program_runs() {
    let native = Architecture::native().expect("this machine is in the table");
    assert!(probe::run(native).expect("runs") >= 1);
}

#[test]
fn a_registration_is_the_kernels_line() {
    let line = Registration::new(architecture("arm64"), "/usr/bin/qemu-aarch64".as_ref(), false).line();
    let line = String::from_utf8(line).expect("text");
    assert_eq!(
        line,
        r":qemu-aarch64:M:0:\x7f\x45\x4c\x46\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00:\xff\xff\xff\xff\xff\xff\xff\x00\x00\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:/usr/bin/qemu-aarch64:CF"
    );
    let odd = Registration::new(architecture("arm"), "/a:b/qemu-arm".as_ref(), true).line();
    assert!(odd.starts_with(b"|qemu-arm|M|0|") && odd.ends_with(b"|/a:b/qemu-arm|CFP"));
}

#[test]
fn entries_are_read() {
    let text =
        "enabled\ninterpreter /opt/my qemu/qemu-arm\nflags: OCF\noffset 0\nmagic 7f454c46\nmask ffffffff\n";
    let entry = parse_entry("qemu-arm".to_owned(), text);
    assert!(entry.enabled);
    assert_eq!(entry.interpreter.to_str(), Some("/opt/my qemu/qemu-arm"));
    assert_eq!(entry.flags, "OCF");
    assert!(!parse_entry("x".to_owned(), "disabled\ninterpreter /x\n").enabled);
}

#[test]
fn versions_are_read() {
    let table = [
        ("qemu-aarch64 version 7.2.9 (Debian 1:7.2+dfsg-7+deb12u5)\nCopyright", Some(Version(7, 2, 9))),
        ("qemu-arm version 11.1.0 (Debian 1:11.1.0+ds-1)", Some(Version(11, 1, 0))),
        ("qemu-arm version 9.0", Some(Version(9, 0, 0))),
        ("something else", None),
    ];
    for (said, version) in table {
        assert_eq!(parse_version(said), version, "{said}");
    }
    assert!(Version(8, 2, 9) < Version(9, 0, 0));
}

#[test]
fn a_dynamic_program_is_no_emulator() {
    let folder = tempfile::tempdir().expect("a folder");
    // The test program itself is dynamically linked.
    std::fs::copy(std::env::current_exe().expect("known"), folder.path().join("qemu-aarch64"))
        .expect("copied");
    std::fs::write(folder.path().join("qemu-arm"), "no program, and not executable").expect("written");
    let found = Emulators::in_folders(vec![folder.path().to_owned()]);
    let error = found.get(architecture("arm64")).expect("found").check().expect_err("dynamic").to_string();
    assert!(error.contains("qemu-aarch64 cannot be used: it needs a dynamic linker"), "{error}");
    let error = found.get(architecture("arm")).expect_err("not executable").to_string();
    assert!(error.contains("none of qemu-arm, qemu-arm-static, buildkit-qemu-arm is in"), "{error}");
}

#[test]
fn our_own_programs_count_as_static() {
    let folder = tempfile::tempdir().expect("a folder");
    for known in Architecture::all() {
        let path = folder.path().join(&known.name);
        std::fs::write(&path, program(known).expect("known")).expect("written");
        assert!(is_static(&path).expect("read"), "{}", known.name);
    }
}

#[test]
fn flags_are_read_in_gos_manner() {
    let parse = |line: &str| flags::parse(&line.split(' ').map(str::to_owned).collect::<Vec<_>>());
    let read = parse("--install arm64,riscv64 -uninstall=qemu-* --mount /m").expect("reads");
    assert_eq!(read.install, ["arm64", "riscv64"]);
    assert_eq!(read.uninstall, ["qemu-*"]);
    assert_eq!((read.mount.as_str(), read.version), ("/m", false));
    assert!(parse("-version").expect("reads").version);
    assert_eq!(parse("--help"), Err(Stop::Help));
    assert_eq!(parse("--install"), Err(Stop::Wrong("flag needs an argument: -install".to_owned())));
    assert_eq!(parse("--frob"), Err(Stop::Wrong("flag provided but not defined: -frob".to_owned())));
    assert!(matches!(parse("install all"), Err(Stop::Wrong(_))));
}
