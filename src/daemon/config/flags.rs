//! The flags of `buildkitd`. What a flag says wins over the file.

use super::{Config, Space, check_snapshotter, network};
use clap::{Arg, ArgAction, ArgMatches, Command};
use crosskit_exec::networks::NetworkMode;
use crosskit_rootless::Folders;
use std::path::{Path, PathBuf};

/// Where the config file is looked for where `--config` doesn't say; it may be missing there.
pub fn usual_file() -> PathBuf {
    let users = Folders::usual().and_then(|folders| folders.config);
    users.unwrap_or_else(|| PathBuf::from("/etc/buildkit")).join("buildkitd.toml")
}

/// The flag for a daemon without the machine's rights.
const ROOTLESS: &str = "rootless";

/// Flags whose features are not there yet: using one is an error.
const UNSUPPORTED: &[(&str, &str)] = &[
    ("oci-worker-proxy-snapshotter-path", "proxy snapshotters are not available"),
    ("oci-worker-apparmor-profile", "AppArmor profiles are not applied yet"),
    ("oci-worker-selinux", "SELinux labels are not applied yet"),
];

/// Flags that change nothing here.
const WITHOUT_EFFECT: &[&str] = &[
    "debugaddr",
    "save-cache-debug",
    "otel-socket-path",
    "containerd-worker-addr",
    "containerd-worker-labels",
    "containerd-worker-platform",
    "containerd-worker-snapshotter",
    "containerd-worker-net",
    "containerd-worker-gc-keepstorage",
    "containerd-worker-gc",
    "containerd-cni-config-path",
    "containerd-cni-binary-dir",
    "containerd-cni-pool-size",
    "containerd-max-parallelism",
    "containerd-worker-namespace",
    "containerd-worker-rootless",
    "containerd-worker-selinux",
    "containerd-worker-apparmor-profile",
];

/// The command line of `buildkitd`.
pub fn command() -> Command {
    let text = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).help(help).num_args(1).action(ArgAction::Append)
    };
    let switch = |name: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .help(help)
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .action(ArgAction::Append)
    };
    let mut command = Command::new("buildkitd")
        .about("build daemon")
        .version(crosskit_api::version::SHOWN.as_str())
        .disable_version_flag(true)
        .arg(
            Arg::new("version")
                .long("version")
                .short('v')
                .help("print the version")
                .action(ArgAction::Version),
        )
        .arg(text("config", "path to config file"))
        .arg(switch("debug", "enable debug output in logs"))
        .arg(
            switch("trace", "enable trace output in logs (highly verbose, could affect performance)")
                .hide(true),
        )
        .arg(text("root", "path to state directory"))
        .arg(switch(
            ROOTLESS,
            "run without the machine's rights; an ordinary user's daemon makes its user namespace itself",
        ))
        .arg(switch("proxy-network", "let the steps of all builds reach the network through a proxy only"))
        .arg(text("addr", "listening address (socket or tcp); may be given several times"))
        .arg(text("log-format", "log formatter: json or text"))
        .arg(text("log-level", "set the log level").env("BUILDKITD_LOG_LEVEL"))
        .arg(text("group", "group (name or gid) which will own all Unix socket listening addresses"))
        .arg(text("tlscert", "certificate file to use"))
        .arg(text("tlskey", "key file to use"))
        .arg(text("tlscacert", "ca certificate to verify clients"))
        .arg(text(
            "allow-insecure-entitlement",
            "allows insecure entitlements e.g. network.host, security.insecure, device",
        ))
        .arg(switch("cdi-disabled", "disables support of the Container Device Interface (CDI)"))
        .arg(text("cdi-spec-dir", "directory to scan for CDI spec files; may be given several times"))
        .arg(text("oci-worker", "enable oci workers (true/false/auto)"))
        .arg(text("oci-worker-labels", "user-specific annotation labels (com.example.foo=bar)"))
        .arg(switch("oci-worker-rootless", "as --rootless"))
        .arg(switch(
            "oci-worker-no-process-sandbox",
            "let steps have the daemon's process ids, where they can have none of their own",
        ))
        .arg(text("oci-worker-snapshotter", "name of snapshotter (auto, overlayfs, fuse-overlayfs, native)"))
        .arg(text("oci-worker-platform", "override supported platforms for worker"))
        .arg(text("oci-worker-net", "worker network type (auto, bridge, cni or host)"))
        .arg(text("oci-cni-config-path", "path of cni config file"))
        .arg(text("oci-cni-binary-dir", "path of cni binary files"))
        .arg(text("oci-cni-pool-size", "size of cni network namespace pool"))
        .arg(text("oci-worker-binary", "name of specified oci worker binary"))
        .arg(text(
            "oci-max-parallelism",
            "limit the number of parallel build steps that can run at the same time",
        ))
        .arg(switch("oci-worker-gc", "enable automatic garbage collection on worker"))
        .arg(text(
            "oci-worker-gc-keepstorage",
            "amount of storage GC keeps locally, format \"Reserved[,Free[,Maximum]]\" (MB)",
        ))
        .arg(text(
            "containerd-worker",
            "containerd workers are not available; only false and auto are taken",
        ));
    for (name, why) in UNSUPPORTED {
        command = command.arg(switch(name, why).hide(true).require_equals(false));
    }
    for name in WITHOUT_EFFECT {
        command =
            command.arg(Arg::new(*name).long(*name).num_args(0..=1).action(ArgAction::Append).hide(true));
    }
    command
}

/// Reads the config file that the flags name, and lays the flags over it. Returns what should be
/// said in the log as well.
///
/// # Errors
/// A sentence that names the flag, or the file and line.
pub fn resolve(given: &ArgMatches) -> Result<(Config, Vec<String>), String> {
    let (mut config, mut warnings) = match last(given, "config") {
        // As BuildKit does it: images name a file that their users may mount.
        Some(path) if !Path::new(path).exists() => {
            let warning = format!("--config: {path} does not exist; going on with the defaults");
            (Config::default(), vec![warning])
        }
        Some(path) => Config::load(Path::new(path)).map_err(|e| e.to_string())?,
        None if usual_file().exists() => Config::load(&usual_file()).map_err(|e| e.to_string())?,
        None => (Config::default(), Vec::new()),
    };
    for (name, why) in UNSUPPORTED {
        if last(given, name).is_some_and(|v| v != "false" && !v.is_empty()) {
            return Err(format!("--{name} is not supported: {why}"));
        }
    }
    if std::env::var_os("BUILDKITD_DEBUGADDR").is_some_and(|address| !address.is_empty()) {
        warnings.push("BUILDKITD_DEBUGADDR has no effect here".to_string());
    }
    for name in WITHOUT_EFFECT {
        if given.value_source(name) == Some(clap::parser::ValueSource::CommandLine) {
            warnings.push(format!("--{name} has no effect here"));
        }
    }
    if let Some(root) = last(given, "root") {
        config.root = PathBuf::from(root);
    }
    config.root = std::path::absolute(&config.root).map_err(|e| format!("--root: {e}"))?;
    let addresses = all(given, "addr");
    if !addresses.is_empty() {
        config.addresses = addresses;
    }
    if let Some(level) = last(given, "log-level") {
        config.log_level = level.to_string();
    }
    if let Some(proxied) = switched(given, "proxy-network")? {
        config.proxy_network = proxied;
    }
    if switched(given, "debug")? == Some(true) {
        config.log_level = "debug".to_string();
    }
    if switched(given, "trace")? == Some(true) {
        config.log_level = "trace".to_string();
    }
    if let Some(format) = last(given, "log-format") {
        config.log_format = format.to_string();
    }
    if !matches!(config.log_format.as_str(), "text" | "json" | "") {
        return Err(format!("unsupported log type {:?}; use \"text\" or \"json\"", config.log_format));
    }
    if !matches!(
        config.log_level.as_str(),
        "error" | "fatal" | "panic" | "warn" | "warning" | "info" | "debug" | "trace"
    ) {
        return Err(format!(
            "unsupported log level {:?}; use error, warn, info, debug or trace",
            config.log_level
        ));
    }
    if let Some(group) = last(given, "group").filter(|g| !g.is_empty()) {
        config.gid = Some(group_id(group)?);
    }
    for (flag, place) in [
        ("tlscert", &mut config.tls.cert),
        ("tlskey", &mut config.tls.key),
        ("tlscacert", &mut config.tls.ca),
    ] {
        if let Some(path) = last(given, flag) {
            *place = Some(PathBuf::from(path));
        }
    }
    if let Some(disabled) = switched(given, "cdi-disabled")? {
        config.cdi.disabled = disabled;
    }
    let folders = all(given, "cdi-spec-dir");
    if !folders.is_empty() {
        config.cdi.spec_folders = folders.into_iter().map(PathBuf::from).collect();
    }
    let entitlements = all(given, "allow-insecure-entitlement");
    if !entitlements.is_empty() {
        config.entitlements = entitlements;
    }
    for entitlement in &config.entitlements {
        if !matches!(entitlement.as_str(), "network.host" | "security.insecure" | "device") {
            return Err(format!(
                "invalid entitlement: {entitlement:?}; use network.host, security.insecure or device"
            ));
        }
    }
    worker(given, &mut config)?;
    if !config.worker.enabled {
        return Err("the OCI worker is disabled (--oci-worker, worker.oci.enabled), and there is no other: \
                    results are kept and given away by it even where steps run at the workers of a farm"
            .to_string());
    }
    Ok((config, warnings))
}

/// Whether the flags say that this daemon does without the machine's rights.
///
/// # Errors
/// A flag that is neither true nor false.
pub fn wants_rootless(given: &ArgMatches) -> Result<Option<bool>, String> {
    Ok(switched(given, "oci-worker-rootless")?.or(switched(given, ROOTLESS)?))
}

fn worker(given: &ArgMatches, config: &mut Config) -> Result<(), String> {
    let worker = &mut config.worker;
    worker.rootless = wants_rootless(given)?.unwrap_or(worker.rootless);
    if let Some(shared) = switched(given, "oci-worker-no-process-sandbox")? {
        worker.no_process_sandbox = shared;
    }
    if worker.no_process_sandbox && !worker.rootless {
        return Err(
            "can't enable NoProcessSandbox without Rootless: steps could end processes of this machine"
                .to_string(),
        );
    }
    match last(given, "oci-worker") {
        None | Some("auto") => {}
        Some("true") => worker.enabled = true,
        Some("false") => worker.enabled = false,
        Some(other) => return Err(format!("--oci-worker takes true, false or auto, not {other:?}")),
    }
    if last(given, "containerd-worker") == Some("true") {
        return Err(
            "--containerd-worker: there is no containerd worker; use the oci worker, which is the default"
                .to_string(),
        );
    }
    for label in all(given, "oci-worker-labels") {
        let (name, value) = label
            .split_once('=')
            .ok_or_else(|| format!("--oci-worker-labels: expected name=value, not {label:?}"))?;
        worker.labels.insert(name.to_string(), value.to_string());
    }
    if let Some(name) = last(given, "oci-worker-snapshotter") {
        worker.snapshotter = check_snapshotter(name).map_err(|e| format!("--oci-worker-snapshotter: {e}"))?;
    }
    let platforms: Vec<String> = all(given, "oci-worker-platform")
        .iter()
        .flat_map(|p| p.split(','))
        .map(|p| p.trim().to_string())
        .filter(|p| !p.is_empty())
        .collect();
    if !platforms.is_empty() {
        worker.platforms = platforms;
    }
    network::apply_flags(&mut worker.network, |name| last(given, &format!("oci-{name}")))?;
    if worker.rootless && worker.network.mode == NetworkMode::Auto {
        worker.network.mode = NetworkMode::Host;
    }
    if let Some(binary) = last(given, "oci-worker-binary").filter(|b| !b.is_empty()) {
        worker.binary = Some(binary.to_string());
    }
    if let Some(limit) = last(given, "oci-max-parallelism") {
        worker.max_parallelism = match limit {
            "num-cpu" => std::thread::available_parallelism().map_or(1, usize::from),
            number => {
                number.parse().map_err(|_| format!("--oci-max-parallelism takes a number, not {number:?}"))?
            }
        };
    }
    if let Some(on) = switched(given, "oci-worker-gc")? {
        worker.gc = on;
    }
    if let Some(amounts) = last(given, "oci-worker-gc-keepstorage").filter(|a| !a.is_empty()) {
        let places = [&mut worker.reserved_space, &mut worker.min_free_space, &mut worker.max_used_space];
        for (amount, place) in amounts.split(',').zip(places) {
            let amount = amount.trim();
            let parsed = match amount.parse::<i64>() {
                Ok(megabytes) => Some(Space::Bytes(megabytes.saturating_mul(1_000_000))),
                Err(_) => Space::parse(amount),
            };
            *place =
                Some(parsed.ok_or_else(|| {
                    format!("--oci-worker-gc-keepstorage: {amount:?} is no amount of disk")
                })?);
        }
    }
    Ok(())
}

/// The last value of a flag; flags may be repeated.
fn last<'a>(given: &'a ArgMatches, name: &str) -> Option<&'a str> {
    given.get_many::<String>(name)?.next_back().map(String::as_str)
}

fn all(given: &ArgMatches, name: &str) -> Vec<String> {
    given.get_many::<String>(name).map(|v| v.cloned().collect()).unwrap_or_default()
}

fn switched(given: &ArgMatches, name: &str) -> Result<Option<bool>, String> {
    match last(given, name) {
        None => Ok(None),
        Some("true" | "1" | "t" | "T" | "TRUE" | "True") => Ok(Some(true)),
        Some("false" | "0" | "f" | "F" | "FALSE" | "False") => Ok(Some(false)),
        Some(other) => Err(format!("--{name} takes true or false, not {other:?}")),
    }
}

/// A group by number or by name in /etc/group.
fn group_id(group: &str) -> Result<u32, String> {
    if let Ok(id) = group.parse() {
        return Ok(id);
    }
    match nix::unistd::Group::from_name(group) {
        Ok(Some(found)) => Ok(found.gid.as_raw()),
        Ok(None) => Err(format!("--group: there is no group {group:?} on this machine")),
        Err(e) => Err(format!("--group: looking up {group:?}: {e}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<(Config, Vec<String>), String> {
        let mut line = vec!["buildkitd"];
        line.extend(args);
        resolve(&command().try_get_matches_from(line).map_err(|e| e.to_string())?)
    }

    #[test]
    fn both_forms_of_flags_and_repeats_are_taken() {
        let (config, warnings) = parse(&[
            "--oci-worker=true",
            "--containerd-worker=false",
            "--oci-worker-gc=false",
            "--oci-worker-labels=org.mobyproject.buildkit.worker.sandbox=true",
            "--root",
            "/a",
            "--root",
            "/b",
            "--addr",
            "unix:///x.sock",
            "--addr=tcp://127.0.0.1:9",
            "--debug",
        ])
        .unwrap();
        assert_eq!(config.root, PathBuf::from("/b"));
        assert_eq!(config.addresses, ["unix:///x.sock", "tcp://127.0.0.1:9"]);
        assert_eq!(config.log_level, "debug");
        assert!(!config.worker.gc);
        assert_eq!(config.worker.labels["org.mobyproject.buildkit.worker.sandbox"], "true");
        assert_eq!(warnings, Vec::<String>::new());
    }

    #[test]
    fn networks_are_told_by_flags() {
        let (config, warnings) = parse(&[
            "--oci-worker-net=cni",
            "--oci-cni-config-path=/etc/net.conflist",
            "--oci-cni-binary-dir=/plugins",
            "--oci-cni-pool-size=3",
        ])
        .unwrap();
        let network = config.worker.network;
        assert_eq!((network.mode, network.pool_size), (NetworkMode::Cni, 3));
        assert_eq!(network.config, PathBuf::from("/etc/net.conflist"));
        assert_eq!(network.plugins, Some(PathBuf::from("/plugins")));
        assert_eq!(warnings, Vec::<String>::new());
    }

    #[test]
    fn rights_are_given_up_by_flags() {
        let (config, _) = parse(&["--rootless", "--oci-worker-no-process-sandbox"]).unwrap();
        assert!(config.worker.rootless && config.worker.no_process_sandbox);
        assert!(parse(&["--oci-worker-rootless"]).unwrap().0.worker.rootless);
        assert!(!parse(&["--rootless=false"]).unwrap().0.worker.rootless);
        let refused = parse(&["--rootless=false", "--oci-worker-no-process-sandbox"]).unwrap_err();
        assert!(refused.starts_with("can't enable NoProcessSandbox without Rootless"), "{refused}");
    }

    #[test]
    fn what_is_not_there_is_said() {
        assert!(parse(&["--containerd-worker=true"]).unwrap_err().contains("no containerd worker"));
        assert!(parse(&["--oci-worker-net=wifi"]).unwrap_err().contains("unknown network mode"));
        assert!(parse(&["--oci-cni-pool-size=many"]).unwrap_err().contains("takes a number"));
        assert!(parse(&["--oci-worker=false"]).unwrap_err().contains("the OCI worker is disabled"));
        assert!(parse(&["--log-level=loud"]).unwrap_err().contains("unsupported log level"));
        assert!(parse(&["--allow-insecure-entitlement=root"]).unwrap_err().contains("invalid entitlement"));
        let (_, warnings) = parse(&["--otel-socket-path", "/x"]).unwrap();
        assert_eq!(warnings, ["--otel-socket-path has no effect here"]);
        let (_, warnings) = parse(&["--config", "/nowhere/buildkitd.toml"]).unwrap();
        assert_eq!(
            warnings,
            ["--config: /nowhere/buildkitd.toml does not exist; going on with the defaults"]
        );
    }

    #[test]
    fn entitlements_of_flags_take_the_place_of_those_in_the_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "insecure-entitlements = [\"security.insecure\"]\n").unwrap();
        let path = file.path().to_str().unwrap();
        let (config, _) = parse(&["--config", path]).unwrap();
        assert_eq!(config.entitlements, ["security.insecure"]);
        let (config, _) = parse(&["--config", path, "--allow-insecure-entitlement=network.host"]).unwrap();
        assert_eq!(config.entitlements, ["network.host"]);
    }
}
