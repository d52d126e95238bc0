use proptest::prelude::*;

use crate::{Architecture, Endian, Platform, host, native};

fn parsed(specifier: &str) -> Platform {
    Platform::parse(specifier).unwrap_or_else(|error| panic!("{error}"))
}

/// Specifier, what parsing gives, what normalising that gives.
const SPECIFIERS: &[(&str, &str, &str)] = &[
    ("linux/amd64", "linux/amd64", "linux/amd64"),
    ("linux/x86_64", "linux/amd64", "linux/amd64"),
    ("Linux/X86-64", "linux/amd64", "linux/amd64"),
    ("linux/amd64/v1", "linux/amd64", "linux/amd64"),
    ("linux/amd64/v3", "linux/amd64/v3", "linux/amd64/v3"),
    ("linux/i386", "linux/386", "linux/386"),
    ("linux/i386/v5", "linux/386", "linux/386"),
    ("linux/aarch64", "linux/arm64", "linux/arm64"),
    ("linux/arm64/v8", "linux/arm64/v8", "linux/arm64"),
    ("linux/arm64/8", "linux/arm64/v8", "linux/arm64"),
    ("linux/arm64/v8.0", "linux/arm64/v8", "linux/arm64"),
    ("linux/arm64/v8.2", "linux/arm64/v8.2", "linux/arm64/v8.2"),
    ("linux/arm64/9", "linux/arm64/v9", "linux/arm64/v9"),
    ("linux/arm", "linux/arm", "linux/arm/v7"),
    ("linux/arm/7", "linux/arm/v7", "linux/arm/v7"),
    ("linux/arm/v6", "linux/arm/v6", "linux/arm/v6"),
    ("linux/arm/5", "linux/arm/v5", "linux/arm/v5"),
    ("linux/armhf", "linux/arm", "linux/arm/v7"),
    ("linux/armel", "linux/arm/v6", "linux/arm/v6"),
    ("linux/armel/v7", "linux/arm/v6", "linux/arm/v6"),
    ("linux/mips64el", "linux/mips64le", "linux/mips64le"),
    ("linux/loongarch64", "linux/loong64", "linux/loong64"),
    ("linux/ppc64le", "linux/ppc64le", "linux/ppc64le"),
    ("linux/unheard-of", "linux/unheard-of", "linux/unheard-of"),
    ("macos/arm64", "darwin/arm64", "darwin/arm64"),
    ("windows(10.0.17763)/amd64", "windows(10.0.17763)/amd64", "windows(10.0.17763)/amd64"),
    (
        "windows(10.0.17763+win32k+a)/amd64",
        "windows(10.0.17763+a+win32k)/amd64",
        "windows(10.0.17763+a+win32k)/amd64",
    ),
    ("linux(+gpu)/amd64", "linux(+gpu)/amd64", "linux(+gpu)/amd64"),
    ("linux(1%2B2)/arm/v7", "linux(1%2B2)/arm/v7", "linux(1%2B2)/arm/v7"),
    ("linux()/arm/v7", "linux/arm/v7", "linux/arm/v7"),
    ("arm64", "linux/arm64", "linux/arm64"),
    ("armhf", "linux/arm", "linux/arm/v7"),
    ("riscv64", "linux/riscv64", "linux/riscv64"),
    ("wasm", "linux/wasm", "linux/wasm"),
];

#[test]
fn specifiers_are_read_and_normalised() {
    for (specifier, read, normal) in SPECIFIERS {
        let platform = parsed(specifier);
        assert_eq!(platform.format_all(), *read, "{specifier}");
        assert_eq!(platform.normalize().format_all(), *normal, "{specifier}");
    }
}

#[test]
fn a_lone_system_is_of_this_machines_architecture() {
    assert_eq!(parsed("linux").architecture, native().architecture);
    assert_eq!(parsed("windows").os, "windows");
}

#[test]
fn bad_specifiers_say_what_is_wrong() {
    let table = [
        ("linux/*", r#""linux/*": wildcards not yet supported: invalid argument"#),
        ("", r#""" is an invalid OS component of "": OSAndVersion specifier component must match"#),
        ("lin ux/amd64", r#""lin ux" is an invalid OS component of "lin ux/amd64""#),
        ("windows(10/amd64", r#""windows(10" is an invalid OS component"#),
        ("windows(10++a)/amd64", r#""windows(10++a)" is an invalid OS component"#),
        ("windows(%zz)/amd64", r#"has an invalid OS option "%zz""#),
        (
            "linux/",
            r#""" is an invalid component of "linux/": platform specifier component must match "^[A-Za-z0-9_.-]+$""#,
        ),
        ("linux/&arm", r#""&arm" is an invalid component of "linux/&arm""#),
        ("linux/arm/foo/bar", r#""linux/arm/foo/bar": cannot parse platform specifier: invalid argument"#),
        ("unheard-of", r#""unheard-of": unknown operating system or architecture: invalid argument"#),
    ];
    for (specifier, message) in table {
        let error = Platform::parse(specifier).expect_err(specifier).to_string();
        // The two patterns hold backslashes, which {:?} doubles: compare without.
        assert!(error.replace(r"\\", r"\").contains(message), "{specifier}: {error}");
    }
}

#[test]
fn json_is_that_of_an_oci_index() {
    let plain = serde_json::to_string(&parsed("linux/arm/v7")).expect("serialises");
    assert_eq!(plain, r#"{"architecture":"arm","os":"linux","variant":"v7"}"#);
    let full = serde_json::to_string(&parsed("windows(10.0.1+b)/amd64")).expect("serialises");
    assert_eq!(full, r#"{"architecture":"amd64","os":"windows","os.version":"10.0.1","os.features":["b"]}"#);
    let sloppy: Platform =
        serde_json::from_str(r#"{"os":"linux","os.features":null,"extra":1}"#).expect("parses");
    assert_eq!(sloppy, Platform::linux(""));
}

#[test]
fn folder_names_and_unknown() {
    assert_eq!(Platform::linux("arm64").folder_name(), "linux_arm64");
    assert_eq!(parsed("linux/arm/v7").folder_name(), "linux_arm_v7");
    assert_eq!(Platform::default().format(), "unknown");
}

#[test]
fn host_lists_the_native_platform_first() {
    let all = host();
    assert_eq!(all[0], native());
    assert_eq!(native().normalize(), native());
    for (place, level) in all.iter().skip(1).enumerate() {
        assert_eq!(level.variant, format!("v{}", place + 2), "levels are listed one after the other");
    }
}

/// Rust's targets know bits and byte order of each architecture: the table must agree with all of them.
#[test]
fn the_table_agrees_with_rusts_targets() {
    for known in Architecture::all() {
        let mut seen = 0;
        for target in platforms::Platform::ALL.iter().filter(|t| t.target_arch.as_str() == known.rust) {
            let little = target.target_endian == platforms::Endian::Little;
            if little != (known.endian == Endian::Little) || target.target_os != platforms::Os::Linux {
                continue;
            }
            let bits: u8 = target.target_pointer_width.as_str().parse().expect("a number");
            // x32 and ILP32 targets have narrow pointers on a wide machine.
            let narrow = target.target_triple.contains("x32") || target.target_triple.contains("ilp32");
            if !narrow {
                assert_eq!(bits, known.bits, "{} and {}", known.name, target.target_triple);
                seen += 1;
            }
        }
        assert!(seen > 0 || known.rust.is_empty(), "Rust has no Linux target for {}", known.name);
    }
}

#[test]
fn the_table_is_consistent() {
    let all = Architecture::all();
    for (place, known) in all.iter().enumerate() {
        assert!(
            all[..place].iter().all(|other| other.name != known.name && other.qemu != known.qemu),
            "{}",
            known.name
        );
        for other in &all[..place] {
            let same_elf =
                (other.machine, other.bits, other.endian) == (known.machine, known.bits, known.endian);
            assert!(!same_elf, "{} and {} have the same ELF header", other.name, known.name);
        }
        if let Some(sibling) = &known.sibling {
            let sibling = Architecture::by_name(sibling).expect("a sibling is in the table");
            assert_eq!((sibling.bits, sibling.endian), (32, known.endian));
            assert!(known.may_run_natively(sibling) && !sibling.may_run_natively(known));
        }
        assert!(known.default.is_empty() || known.variants.contains(&known.default), "{}", known.name);
    }
    assert_eq!(Architecture::native().map(|known| known.name.as_str()), Some(native().architecture.as_str()));
}

proptest! {
    #[test]
    fn no_specifier_panics_and_normal_forms_stay(specifier in "[a-z0-9/%()+.*-]{0,24}") {
        if let Ok(platform) = Platform::parse(&specifier) {
            let normal = platform.normalize();
            prop_assert_eq!(normal.normalize(), normal.clone());
            prop_assert_eq!(Platform::parse(&normal.format_all()).map(|p| p.normalize()), Ok(normal));
        }
    }
}
