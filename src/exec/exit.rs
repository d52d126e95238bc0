//! How a process ended.

use std::fmt;

/// How a process ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exit {
    /// Its exit code; 128 and the signal's number if a signal ended it.
    pub code: i32,
    /// Whether the kernel killed something of it because its memory limit was reached.
    pub out_of_memory: bool,
    /// What the runtime had to say, if it could not even start the process. Has been written to standard error too.
    pub runtime_message: Option<String>,
}

impl Exit {
    /// Whether the code is 0, or one of those that the step declares valid.
    pub fn is_success(&self, valid_codes: &[i32]) -> bool {
        if valid_codes.is_empty() { self.code == 0 } else { valid_codes.contains(&self.code) }
    }

    /// What clients are told when a step failed (BuildKit solver/llbsolver/ops/exec.go).
    pub fn failure(&self, args: &[String]) -> String {
        format!("process {:?} did not complete successfully: {self}", args.join(" "))
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.out_of_memory {
            // The text of ENOMEM, which clients look for.
            return f.write_str("cannot allocate memory");
        }
        write!(f, "exit code: {}", self.code)
    }
}
