//! Whether a step has failed or the emulator that ran it.

use std::sync::{Arc, Mutex, PoisonError};

/// How much of the end of a step's output is looked at, in bytes.
const KEPT: usize = 4096;

/// The end of what a step writes to standard error.
#[derive(Clone, Default)]
pub struct Tail(Arc<Mutex<Vec<u8>>>);

impl Tail {
    /// More of it.
    pub fn add(&self, text: &[u8]) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend_from_slice(&text[text.len().saturating_sub(KEPT)..]);
        let much = kept.len().saturating_sub(KEPT);
        kept.drain(..much);
    }

    /// The line by which QEMU says that it has crashed itself, if a step that ended with `code`
    /// has left one.
    pub fn crash(&self, code: u32) -> Option<String> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        crash(code, &String::from_utf8_lossy(&kept))
    }
}

/// A signal that hits the program is said by QEMU in other words ("uncaught target signal"), and
/// is the program's own affair.
fn crash(code: u32, said: &str) -> Option<String> {
    // What a shell makes of a signal.
    if code <= 128 {
        return None;
    }
    let tells = |line: &&str| {
        let own = line.starts_with("qemu-") || line.starts_with("qemu:");
        (own && (line.contains("QEMU internal SIG") || line.contains(": Assertion `")))
            || line.starts_with("Bail out! ERROR:")
    };
    said.lines().rev().find(tells).map(|line| line.trim_end().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_emulator_that_crashes_is_told_from_a_program_that_does() {
        let tail = Tail::default();
        tail.add(&[b'x'; 10_000]);
        tail.add(b"\ncc: working\nqemu-riscv64: QEMU internal SIGSEGV {code=MAPERR, addr=0x20}\nSegmentation fault\n");
        assert_eq!(tail.crash(139).unwrap(), "qemu-riscv64: QEMU internal SIGSEGV {code=MAPERR, addr=0x20}");
        assert_eq!(tail.crash(1), None, "the step went on and ended in another way");
        for (said, told) in [
            ("qemu: uncaught target signal 11 (Segmentation fault) - core dumped\n", false),
            ("qemu-arm: ../tcg/tcg.c:10: tcg_out: Assertion `ok' failed.\n", true),
            ("Bail out! ERROR:../accel/tcg/cpu-exec.c:1: assertion failed: (cpu)\n", true),
            ("program: Assertion `ok' failed.\n", false),
        ] {
            assert_eq!(crash(134, said).is_some(), told, "{said}");
        }
    }
}
