//! This machine's own platform.

use std::sync::LazyLock;

use crate::{Architecture, Platform};

/// Operating system that this program was compiled for, by its OCI name.
pub(crate) const OS: &str = if cfg!(target_os = "macos") { "darwin" } else { std::env::consts::OS };

static NATIVE: LazyLock<Platform> = LazyLock::new(|| {
    let architecture = Architecture::native().map_or(std::env::consts::ARCH, |known| known.name.as_str());
    let variant = if architecture == "arm" { arm_variant() } else { String::new() };
    Platform::new(OS, architecture, variant)
});

/// The platform that programs of this machine are made for, in normal form, without a level of the instruction set.
pub fn native() -> Platform {
    NATIVE.clone()
}

/// The platforms that this processor runs by itself: [`native`] first, then the levels of its instruction set
/// (`linux/amd64/v2`, `/v3`, `/v4`) that it has. Whether the kernel runs programs of the 32-bit sibling
/// has to be tried: that is the qemu crate's part.
pub fn host() -> Vec<Platform> {
    let native = native();
    let mut all = vec![native.clone()];
    for level in 2..=amd64_level() {
        all.push(Platform { variant: format!("v{level}"), ..native.clone() });
    }
    all
}

/// Level of the x86-64 psABI that this processor has: 1 to 4; 0 on other architectures.
#[cfg(target_arch = "x86_64")]
fn amd64_level() -> u8 {
    use std::arch::is_x86_feature_detected as has;
    // LAHF and SAHF in 64-bit mode: bit 0 of ECX of leaf 0x8000_0001.
    let lahf = std::arch::x86_64::__cpuid(0x8000_0001).ecx & 1 == 1;
    let v2 = lahf
        && has!("cmpxchg16b")
        && has!("popcnt")
        && has!("sse3")
        && has!("ssse3")
        && has!("sse4.1")
        && has!("sse4.2");
    let v3 = v2
        && has!("avx")
        && has!("avx2")
        && has!("bmi1")
        && has!("bmi2")
        && has!("f16c")
        && has!("fma")
        && has!("lzcnt")
        && has!("movbe")
        && has!("xsave");
    let v4 =
        v3 && has!("avx512f") && has!("avx512bw") && has!("avx512cd") && has!("avx512dq") && has!("avx512vl");
    1 + u8::from(v2) + u8::from(v3) + u8::from(v4)
}

#[cfg(not(target_arch = "x86_64"))]
fn amd64_level() -> u8 {
    0
}

/// Variant of a 32-bit ARM machine, from what the kernel says; `v7` where it says nothing.
fn arm_variant() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let said = info.lines().find_map(|line| line.strip_prefix("CPU architecture")?.split_once(':'));
    match said.map(|(_, value)| value.trim().to_ascii_lowercase()).as_deref() {
        Some("aarch64" | "8") => "v8",
        // ARM1176 (the first Raspberry Pi) says 7 here while its model says v6l.
        Some("7") if info.contains("ARMv6-compatible") => "v6",
        Some("6" | "6tej") => "v6",
        Some("5" | "5t" | "5te" | "5tej") => "v5",
        _ => "v7",
    }
    .to_owned()
}
