//! The options of a build, as clients send them.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;

use crosskit_api::pb;
use crosskit_llb::ResolveMode;
use crosskit_platforms::Platform;

use crate::error::{DockerfileError, Result};
use crate::instruction::parse::go_parse_int_error;
use crate::lint::LintConfig;
use crate::text::quote::go_quote;
use crate::text::{csv, units};

/// What the daemon says about itself and the build, beside the client's options.
#[derive(Debug, Clone)]
pub struct Environment {
    /// The client's session.
    pub session: String,
    /// The platform of the first worker: what runs without emulation.
    pub build_platform: Platform,
    /// A text that no other build has, for ids.
    pub unique: String,
}

/// The options of a build, checked.
#[derive(Debug, Clone)]
pub struct Options {
    /// As they came.
    pub raw: BTreeMap<String, String>,
    /// `build-arg:`.
    pub build_args: BTreeMap<String, String>,
    /// `label:`.
    pub labels: BTreeMap<String, String>,
    /// `platform`, in the order asked for; none for the build platform.
    pub platforms: Vec<Platform>,
    /// Whether the result is per platform even for one.
    pub multi_platform: bool,
    /// `target`.
    pub target: String,
    /// `no-cache`: none, these stages, or with an empty list all.
    pub no_cache: Option<Vec<String>>,
    /// `image-resolve-mode`.
    pub resolve_mode: ResolveMode,
    /// `add-hosts`.
    pub extra_hosts: Vec<pb::HostIp>,
    /// `force-network-mode`.
    pub network: pb::NetMode,
    /// `shm-size`, bytes.
    pub shm_size: i64,
    /// `ulimit`.
    pub ulimits: Vec<pb::Ulimit>,
    /// `memory` and its siblings.
    pub resources: Option<pb::LinuxResources>,
    /// `cgroup-parent`.
    pub cgroup_parent: String,
    /// `hostname`.
    pub hostname: String,
    /// In front of the ids of cache mounts.
    pub cache_namespace: String,
    /// Rules of the checks, when the request sets them.
    pub lint: Option<LintConfig>,
    /// What the daemon says.
    pub environment: Environment,
}

fn fail<T>(message: impl Into<String>) -> Result<T> {
    Err(DockerfileError::user(message))
}

impl Options {
    /// Checks options.
    pub fn parse(mut raw: BTreeMap<String, String>, environment: Environment) -> Result<Options> {
        let removed = "was removed in BuildKit 0.11";
        if raw.get("override-copy-image").is_some_and(|value| !value.is_empty()) {
            return fail(format!("support for \"override-copy-image\" {removed}"));
        }
        if raw.get("build-arg:BUILDKIT_DISABLE_FILEOP").and_then(|v| units::go_bool(v)) == Some(true) {
            return fail(format!("support for \"BUILDKIT_DISABLE_FILEOP\" build-arg {removed}"));
        }
        for (arg, option) in
            [("BUILDKIT_MULTI_PLATFORM", "multi-platform"), ("BUILDKIT_SANDBOX_HOSTNAME", "hostname")]
        {
            let value = raw.get(&format!("build-arg:{arg}")).filter(|value| !value.is_empty()).cloned();
            if let Some(value) = value {
                raw.insert(option.to_owned(), value);
            }
        }
        let get = |name: &str| raw.get(name).map_or("", String::as_str);
        let with_prefix = |prefix: &str| -> BTreeMap<String, String> {
            let cut = |(key, value): (&String, &String)| {
                Some((key.strip_prefix(prefix)?.to_owned(), value.clone()))
            };
            raw.iter().filter_map(cut).collect()
        };
        let platforms = parse_platforms(get("platform"))?;
        let resolve_mode = match get("image-resolve-mode") {
            "" | "default" => ResolveMode::Default,
            "pull" => ResolveMode::ForcePull,
            "local" => ResolveMode::PreferLocal,
            other => return fail(format!("invalid image-resolve-mode: {other}")),
        };
        let extra_hosts = parse_hosts(get("add-hosts"))?;
        let shm_size = match get("shm-size") {
            "" => 0,
            value => value.parse().map_err(|error| {
                let why = go_parse_int_error(value, &error);
                DockerfileError::user(format!("failed to parse shm size: {why}"))
            })?,
        };
        let ulimits = parse_ulimits(get("ulimit"))?;
        let resources =
            parse_resources(&raw).map_err(|error| error.while_doing("failed to parse resource limits"))?;
        let network = match get("force-network-mode") {
            "" | "sandbox" => pb::NetMode::Unset,
            "none" => pb::NetMode::None,
            "host" => pb::NetMode::Host,
            other => return fail(format!("invalid netmode {other}")),
        };
        let multi_platform = match get("multi-platform") {
            "" => platforms.len() > 1,
            value => match units::go_bool(value) {
                None => return fail(format!("invalid boolean value for multi-platform: {value}")),
                Some(false) if platforms.len() > 1 => {
                    return fail("conflicting config: returning multiple target platforms is not allowed");
                }
                Some(on) => on,
            },
        };
        let no_cache = raw.get("no-cache").map(|stages| match stages.as_str() {
            "" => Vec::new(),
            stages => stages.split(',').map(str::to_owned).collect(),
        });
        let lint =
            match raw.get("build-arg:BUILDKIT_DOCKERFILE_CHECK") {
                None => None,
                Some(text) => Some(LintConfig::parse(text).map_err(|error| {
                    error.while_doing("failed to parse build-arg:BUILDKIT_DOCKERFILE_CHECK")
                })?),
            };
        Ok(Options {
            build_args: with_prefix("build-arg:"),
            labels: with_prefix("label:"),
            platforms,
            multi_platform,
            target: get("target").to_owned(),
            no_cache,
            resolve_mode,
            extra_hosts,
            network,
            shm_size,
            ulimits,
            resources,
            cgroup_parent: get("cgroup-parent").to_owned(),
            hostname: get("hostname").to_owned(),
            cache_namespace: get("build-arg:BUILDKIT_CACHE_MOUNT_NS").to_owned(),
            lint,
            environment,
            raw,
        })
    }

    /// An option as it came.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.raw.get(name).map(String::as_str)
    }

    /// Whether the request has anything to put in the place of stages or images.
    pub(crate) fn has_contexts(&self) -> bool {
        let first = self.raw.range("context:".to_owned()..).next();
        first.is_some_and(|(name, _)| name.starts_with("context:"))
    }

    /// Whether a stage is built without what is known of it.
    pub(crate) fn ignores_cache(&self, stage: &str) -> bool {
        self.no_cache.as_ref().is_some_and(|stages| {
            stages.is_empty() || stages.iter().any(|name| name.eq_ignore_ascii_case(stage))
        })
    }

    /// The session that lends a folder.
    pub(crate) fn local_session(&self, folder: &str) -> &str {
        self.get(&format!("local-sessionid:{folder}")).unwrap_or(&self.environment.session)
    }

    /// The proxies of the build arguments.
    pub(crate) fn proxy(&self) -> Option<pb::ProxyEnv> {
        let mut proxy = pb::ProxyEnv::default();
        let mut any = false;
        for (name, value) in &self.build_args {
            let slot = match name.to_ascii_lowercase().as_str() {
                "http_proxy" => &mut proxy.http_proxy,
                "https_proxy" => &mut proxy.https_proxy,
                "ftp_proxy" => &mut proxy.ftp_proxy,
                "no_proxy" => &mut proxy.no_proxy,
                "all_proxy" => &mut proxy.all_proxy,
                _ => continue,
            };
            value.clone_into(slot);
            any = true;
        }
        any.then_some(proxy)
    }
}

fn parse_platforms(list: &str) -> Result<Vec<Platform>> {
    if list.is_empty() {
        return Ok(Vec::new());
    }
    let parse = |specifier: &str| match Platform::parse(specifier) {
        Ok(platform) => Ok(platform.normalize()),
        Err(error) => fail(format!("failed to parse target platform {specifier}: {error}")),
    };
    list.split(',').map(parse).collect()
}

fn parse_hosts(list: &str) -> Result<Vec<pb::HostIp>> {
    let doing =
        |message: String| DockerfileError::user(format!("failed to parse additional hosts: {message}"));
    if list.is_empty() {
        return Ok(Vec::new());
    }
    let fields = csv::fields(list).map_err(doing)?;
    let parse = |field: &String| {
        let lower = field.to_lowercase();
        let (host, ip) =
            lower.split_once('=').ok_or_else(|| doing(format!("invalid key-value pair {field}")))?;
        let ip: IpAddr = ip.parse().map_err(|_| doing(format!("failed to parse IP {ip}")))?;
        Ok(pb::HostIp { host: host.to_owned(), ip: ip.to_canonical().to_string() })
    };
    fields.iter().map(parse).collect()
}

/// The limits that a process can be given.
const ULIMITS: [&str; 15] = [
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

fn parse_ulimits(list: &str) -> Result<Vec<pb::Ulimit>> {
    let doing = |message: String| DockerfileError::user(format!("failed to parse ulimit: {message}"));
    if list.is_empty() {
        return Ok(Vec::new());
    }
    let fields = csv::fields(list).map_err(doing)?;
    let parse = |field: &String| {
        let (name, limits) =
            field.split_once('=').ok_or_else(|| doing(format!("invalid ulimit argument: {field}")))?;
        if !ULIMITS.contains(&name) {
            return Err(doing(format!("invalid ulimit type: {name}")));
        }
        let number =
            |text: &str| text.parse::<i64>().map_err(|error| doing(go_parse_int_error(text, &error)));
        let (soft, hard) = match limits.split_once(':') {
            Some((_, more)) if more.contains(':') => {
                return Err(doing(format!(
                    "too many limit value arguments - {limits}, can only have up to two, `soft[:hard]`"
                )));
            }
            Some((soft, hard)) => (number(soft)?, number(hard)?),
            None => (number(limits)?, number(limits)?),
        };
        if hard != -1 {
            if soft == -1 {
                return Err(doing(format!(
                    "ulimit soft limit must be less than or equal to hard limit: soft: -1 (unlimited), hard: {hard}"
                )));
            }
            if soft > hard {
                return Err(doing(format!(
                    "ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}"
                )));
            }
        }
        Ok(pb::Ulimit { name: name.to_owned(), soft, hard })
    };
    fields.iter().map(parse).collect()
}

fn parse_resources(raw: &BTreeMap<String, String>) -> Result<Option<pb::LinuxResources>> {
    let given = |key: &str| raw.get(key).filter(|value| !value.is_empty());
    let number = |key: &str, least: i64, unlimited: bool| -> Result<i64> {
        let Some(value) = given(key) else {
            return Ok(0);
        };
        let n: i64 = value.parse().map_err(|error| {
            let why = go_parse_int_error(value, &error);
            DockerfileError::user(format!("invalid {key} value: {value}: {why}"))
        })?;
        match n {
            -1 if unlimited => Ok(n),
            n if n >= least => Ok(n),
            _ if unlimited => fail(format!("invalid {key} value: {value}: must be -1 (unlimited) or > 0")),
            _ => fail(format!("invalid {key} value: {value}: must be > 0")),
        }
    };
    let count = |key: &str| -> Result<u64> {
        let Some(value) = given(key) else {
            return Ok(0);
        };
        match value.parse::<u64>() {
            Ok(0) => fail(format!("invalid {key} value: {value}: must be > 0")),
            Ok(n) if !value.starts_with('+') => Ok(n),
            _ => {
                let digits = value.bytes().all(|byte| byte.is_ascii_digit());
                let why = if digits { "value out of range" } else { "invalid syntax" };
                let quoted = go_quote(value);
                fail(format!("invalid {key} value: {value}: strconv.ParseUint: parsing {quoted}: {why}"))
            }
        }
    };
    let list = |key: &str| match given(key) {
        None => Ok(String::new()),
        Some(value) => check_cpu_list(value)
            .map(|()| value.clone())
            .map_err(|why| DockerfileError::user(format!("invalid {key} value: {value}: {why}"))),
    };
    let resources = pb::LinuxResources {
        memory: number("memory", 1, false)?,
        memory_swap: number("memswap", 1, true)?,
        cpu_shares: count("cpushares")?,
        cpu_period: count("cpuperiod")?,
        cpu_quota: number("cpuquota", 1, false)?,
        cpuset_cpus: list("cpusetcpus")?,
        cpuset_mems: list("cpusetmems")?,
    };
    Ok((resources != pb::LinuxResources::default()).then_some(resources))
}

/// The highest number of a processor or a memory node, as BuildKit has it.
const MAX_CPU: i64 = 8192;

/// Checks a list such as `0-3,7`.
fn check_cpu_list(list: &str) -> std::result::Result<(), String> {
    let number = |text: &str| text.trim().parse::<i64>().ok().filter(|n| *n >= 0);
    for part in list.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let quoted = go_quote(part);
        let (kind, last) = match part.split_once('-') {
            Some((first, last)) => {
                let range = number(first).zip(number(last)).filter(|(first, last)| first <= last);
                ("range", range.map(|(_, last)| last))
            }
            None => ("element", number(part)),
        };
        match last {
            None => return Err(format!("invalid cpuset {kind} {quoted}")),
            Some(last) if last > MAX_CPU => {
                return Err(format!("cpuset {kind} {quoted} exceeds maximum {MAX_CPU}"));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// Capabilities of the frontend that clients may ask for.
const FRONTEND_CAPS: [&str; 4] = [
    "moby.buildkit.frontend.inputs",
    "moby.buildkit.frontend.subrequests",
    "moby.buildkit.frontend.contexts",
    "moby.buildkit.frontend.gitquerystring",
];

/// What `frontend.caps` asks for and is not there. `forward` says whether a frontend that the Dockerfile names may have
/// it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingCap {
    /// The capability.
    pub name: String,
    /// Whether the request may go on to another frontend.
    pub forward: bool,
}

/// Checks `frontend.caps`.
pub fn missing_frontend_cap(list: &str) -> Option<MissingCap> {
    let known: HashSet<&str> = FRONTEND_CAPS.into();
    let mut missing = None;
    for cap in list.split(',').filter(|cap| !cap.is_empty()) {
        let name = cap.split('+').next().unwrap_or_default();
        if known.contains(name) {
            continue;
        }
        let forward = cap.contains("+forward");
        missing = Some(MissingCap { name: name.to_owned(), forward });
        if !forward {
            return missing;
        }
    }
    missing
}
