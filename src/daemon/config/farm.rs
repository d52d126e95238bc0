//! The workers on other machines, and how one is chosen.

use super::Settings;
use crosskit_gateway::platforms::OnFailure;
use crosskit_platforms::Platform;
use crosskit_scheduler::{Kind, Policy};
use crosskit_workers::discover::{DiscoverOptions, Place, Selection};
use crosskit_workers::remote::{DEAD_AFTER, PROBE_INTERVAL, RemoteOptions, Tls};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

/// What is wrong with a key.
type Wrong = (String, String);

/// The workers on other machines, and how one is chosen.
#[derive(Clone, Debug)]
pub struct Farm {
    /// The kinds of workers that may be used, the one that is liked best first.
    pub prefer: Vec<Kind>,
    /// How many emulated steps run on this machine at a time; None for no limit.
    pub emulated_slots: Option<usize>,
    /// How often a worker is asked whether it is there.
    pub probe_interval: Duration,
    /// How long a worker may be silent before it counts as gone.
    pub dead_after: Duration,
    /// What becomes of other platforms when one has failed.
    pub on_failure: OnFailure,
    /// The workers.
    pub workers: Vec<RemoteOptions>,
    /// Where to look for more.
    pub searches: Vec<DiscoverOptions>,
}

impl Default for Farm {
    fn default() -> Self {
        Farm {
            prefer: Policy::default().prefer,
            emulated_slots: None,
            probe_interval: PROBE_INTERVAL,
            dead_after: DEAD_AFTER,
            on_failure: OnFailure::Fail,
            workers: Vec::new(),
            searches: Vec::new(),
        }
    }
}

fn wrong<T>(key: &str, why: impl Into<String>) -> Result<T, Wrong> {
    Err((key.to_string(), why.into()))
}

impl Farm {
    /// From the `[farm]` section.
    pub(super) fn read(s: &Settings) -> Result<Farm, Wrong> {
        let usual = Farm::default();
        let named = s.list("farm/prefer");
        let mut prefer = Vec::new();
        for name in &named {
            let kinds = [Kind::Native, Kind::Remote, Kind::Emulated];
            match kinds.into_iter().find(|kind| kind.name() == name) {
                Some(kind) if !prefer.contains(&kind) => prefer.push(kind),
                Some(_) => return wrong("farm.prefer", format!("{name:?} is there twice")),
                None => {
                    let why = format!("{name:?} is none of \"native\", \"remote\" and \"emulated\"");
                    return wrong("farm.prefer", why);
                }
            }
        }
        let (probe, dead) = (s.time("farm/probe-interval"), s.time("farm/dead-after"));
        let mut farm = Farm {
            prefer: if named.is_empty() { usual.prefer } else { prefer },
            emulated_slots: slots(s.int("farm/emulated-slots"), "farm.emulated-slots")?,
            probe_interval: probe.unwrap_or(usual.probe_interval),
            dead_after: dead.unwrap_or(usual.dead_after),
            on_failure: on_failure(s)?,
            workers: s.groups("farm/worker").iter().map(worker).collect::<Result<_, _>>()?,
            searches: s.groups("farm/discover").iter().map(search).collect::<Result<_, _>>()?,
        };
        if farm.probe_interval.is_zero() {
            return wrong("farm.probe-interval", "must be longer than nothing");
        }
        if farm.dead_after <= farm.probe_interval {
            return wrong("farm.dead-after", "must be longer than farm.probe-interval");
        }
        let like = farm.searches.iter_mut().map(|search| &mut search.like);
        for worker in farm.workers.iter_mut().chain(like) {
            (worker.probe_interval, worker.dead_after) = (farm.probe_interval, farm.dead_after);
        }
        let mut names = BTreeSet::from(["native", "emulated"]);
        for worker in &farm.workers {
            if !names.insert(&worker.name) {
                return wrong("farm.worker.name", format!("two workers are called {:?}", worker.name));
            }
        }
        Ok(farm)
    }
}

fn on_failure(s: &Settings) -> Result<OnFailure, Wrong> {
    let allow_partial = s.bool("farm/allow-partial").unwrap_or(false);
    match s.text("farm/on-platform-failure").unwrap_or("fail") {
        "keep-going" => Ok(OnFailure::KeepGoing { allow_partial }),
        "fail" if allow_partial => wrong("farm.allow-partial", "needs on-platform-failure = \"keep-going\""),
        "fail" => Ok(OnFailure::Fail),
        other => {
            wrong("farm.on-platform-failure", format!("{other:?} is neither \"fail\" nor \"keep-going\""))
        }
    }
}

fn slots(given: Option<i64>, key: &str) -> Result<Option<usize>, Wrong> {
    match given.map(usize::try_from) {
        None => Ok(None),
        Some(Ok(slots)) if slots > 0 => Ok(Some(slots)),
        Some(_) => wrong(key, "must be greater than zero"),
    }
}

/// A worker from its table, with the usual times.
fn worker(s: &Settings) -> Result<RemoteOptions, Wrong> {
    let name = s.text("name").unwrap_or_default().to_string();
    if name.is_empty() {
        return wrong("farm.worker.name", "every worker needs a name");
    }
    if !name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)) {
        return wrong("farm.worker.name", format!("{name:?} may have letters, digits, '-', '_' and '.'"));
    }
    let mut options = given(s, "farm.worker", &name)?;
    let address = s.text("addr").unwrap_or_default().to_string();
    match address.split_once("://") {
        Some(("unix", path)) if !path.is_empty() => {}
        Some(("tcp", host)) if !host.is_empty() => protected(&options, "farm.worker.addr", &name)?,
        _ => {
            let why = format!("{address:?} of {name:?} is neither tcp://HOST:PORT nor unix://PATH");
            return wrong("farm.worker.addr", why);
        }
    }
    (options.name, options.addr) = (name, address);
    Ok(options)
}

/// A search for workers from its table.
fn search(s: &Settings) -> Result<DiscoverOptions, Wrong> {
    let cluster = s.tables.iter().any(|table| table == "kubernetes");
    let place = match s.text("dns-srv") {
        Some(_) if cluster => {
            return wrong("farm.discover", "takes dns-srv or kubernetes, not both; write two");
        }
        Some(name) if name.trim_end_matches('.').is_empty() => {
            return wrong("farm.discover.dns-srv", "is empty; write _buildkit._tcp. and a domain");
        }
        Some(name) => Place::DnsSrv(name.trim_end_matches('.').to_string()),
        None if cluster => Place::Kubernetes(selection(s)?),
        None => return wrong("farm.discover", "needs dns-srv or kubernetes"),
    };
    let like = given(s, "farm.discover", &place.to_string())?;
    protected(&like, "farm.discover", &place.to_string())?;
    Ok(DiscoverOptions { place, like })
}

fn selection(s: &Settings) -> Result<Selection, Wrong> {
    let text = |key: &str| s.text(&format!("kubernetes/{key}")).map(str::to_string);
    let selector = text("selector").unwrap_or_default();
    if selector.is_empty() {
        let why =
            "says which services the workers are behind, such as \"kubernetes.io/service-name=buildkitd\"";
        return wrong("farm.discover.kubernetes.selector", why);
    }
    // Its name becomes a part of an address.
    let namespace = text("namespace");
    let fits = |name: &str| {
        !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
    };
    if let Some(namespace) = namespace.as_deref().filter(|name| !fits(name)) {
        let why = format!(
            "{namespace:?} may have small letters, digits and '-'; leave it out for the daemon's own"
        );
        return wrong("farm.discover.kubernetes.namespace", why);
    }
    Ok(Selection { namespace, selector, port: text("port") })
}

/// What may be said of a worker and of those that are found alike.
fn given(s: &Settings, table: &str, whose: &str) -> Result<RemoteOptions, Wrong> {
    let mut platforms = Vec::new();
    for text in s.list("platforms") {
        match Platform::parse(&text) {
            Ok(platform) => platforms.push(platform.normalize()),
            Err(e) => return wrong(&format!("{table}.platforms"), format!("{text:?} of {whose:?}: {e}")),
        }
    }
    let tls = s.tables.iter().any(|table| table == "tls").then(|| {
        let path = |key: &str| s.text(key).map(PathBuf::from);
        Tls {
            ca: path("tls/ca"),
            cert: path("tls/cert"),
            key: path("tls/key"),
            server_name: s.text("tls/server-name").unwrap_or_default().to_string(),
        }
    });
    if tls.as_ref().is_some_and(|tls| tls.cert.is_some() != tls.key.is_some()) {
        return wrong(&format!("{table}.tls"), format!("{whose:?} needs both cert and key, or neither"));
    }
    Ok(RemoteOptions {
        slots: slots(s.int("slots"), &format!("{table}.slots"))?,
        allow_secret_env: s.bool("allow-secret-env").unwrap_or(false),
        insecure: s.bool("insecure").unwrap_or(false),
        platforms,
        tls,
        ..RemoteOptions::new("", "")
    })
}

/// Refuses plain TCP unless somebody allowed it.
fn protected(options: &RemoteOptions, key: &str, whose: &str) -> Result<(), Wrong> {
    if options.tls.is_some() || options.insecure {
        return Ok(());
    }
    let why = format!(
        "{whose:?} would be reached without TLS, and with it whatever builds hold; give it a tls table, or \
         say insecure = true"
    );
    wrong(key, why)
}
