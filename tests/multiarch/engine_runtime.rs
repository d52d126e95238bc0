//! runc for Docker's engine on machines that lack capabilities which the engine asks for: takes out of a bundle, and out of a
//! process that joins one, what this process could not give either, and becomes runc.

use serde_json::Value;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// By number (include/uapi/linux/capability.h).
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let exec = arguments.iter().any(|word| word == "exec");
    for pair in arguments.windows(2) {
        match pair[0].as_str() {
            "--bundle" | "-b" => {
                trim(&Path::new(&pair[1]).join("config.json"), |config| &mut config["process"])
            }
            "--process" | "-p" if exec => trim(Path::new(&pair[1]), |process| process),
            _ => {}
        }
    }
    let error = Command::new("runc").args(&arguments).exec();
    panic!("start runc: {error}");
}

fn trim(file: &Path, process: impl Fn(&mut Value) -> &mut Value) {
    let status = std::fs::read_to_string("/proc/self/status").expect("read the own status");
    let bounding = status.lines().find_map(|line| line.strip_prefix("CapBnd:")).expect("a bounding set");
    let bounding = u64::from_str_radix(bounding.trim(), 16).expect("a number");
    let lacks = |name: &str| {
        let plain = name.trim_start_matches("CAP_");
        NAMES.iter().position(|known| *known == plain).is_some_and(|number| bounding >> number & 1 == 0)
    };
    let text = std::fs::read(file).unwrap_or_else(|error| panic!("read {}: {error}", file.display()));
    let mut whole: Value = serde_json::from_slice(&text).expect("JSON");
    if let Some(sets) = process(&mut whole)["capabilities"].as_object_mut() {
        for set in sets.values_mut().filter_map(Value::as_array_mut) {
            set.retain(|name| !name.as_str().is_some_and(lacks));
        }
    }
    std::fs::write(file, whole.to_string())
        .unwrap_or_else(|error| panic!("write {}: {error}", file.display()));
}
