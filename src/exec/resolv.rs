//! `/etc/resolv.conf` of a container: the machine's, without name servers that only the machine itself reaches.

use std::{
    fmt::Write,
    fs, io,
    net::IpAddr,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Mutex,
};

use crate::{Result, error::file_error};

/// The `[dns]` section of the daemon's configuration; what is empty is taken from the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DnsConfig {
    /// Name servers.
    pub nameservers: Vec<IpAddr>,
    /// Options.
    pub options: Vec<String>,
    /// Domains to search.
    pub search: Vec<String>,
}

/// Where the machine's own file is.
const HOST_FILE: &str = "/etc/resolv.conf";
/// Where systemd-resolved keeps the servers behind its local stub.
const RESOLVED_FILE: &str = "/run/systemd/resolve/resolv.conf";
/// The stub's address.
const RESOLVED_STUB: &str = "127.0.0.53";
/// Used where no reachable server is left (Google's, as Docker and BuildKit do).
const FALLBACK: [&str; 4] = ["8.8.8.8", "8.8.4.4", "2001:4860:4860::8888", "2001:4860:4860::8844"];
/// More than any real file has, in bytes.
const LIMIT: usize = 1 << 20;

/// What a resolv.conf says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ResolvConf {
    pub(crate) nameservers: Vec<IpAddr>,
    pub(crate) search: Vec<String>,
    pub(crate) options: Vec<String>,
    /// Lines of other kinds, kept as they are.
    pub(crate) other: Vec<String>,
}

/// The name servers of a resolv.conf's text; those that are no addresses are left out.
pub fn name_servers(text: &str) -> Vec<IpAddr> {
    ResolvConf::parse(text).nameservers
}

impl ResolvConf {
    /// Reads a file's text. The last `search` line counts, options add up, servers that are no addresses are left out.
    pub(crate) fn parse(text: &str) -> Self {
        let mut conf = Self::default();
        for line in text.lines().filter(|line| !line.starts_with(['#', ';'])) {
            let mut words = line.split_whitespace();
            let rest = |words: std::str::SplitWhitespace<'_>| words.map(str::to_owned).collect::<Vec<_>>();
            match words.next() {
                None => {}
                Some("nameserver") => {
                    // A zone (fe80::1%eth0) means nothing in another network namespace, but is kept out of addresses.
                    let address: Option<IpAddr> = words.next().and_then(|word| word.parse().ok());
                    conf.nameservers.extend(address);
                }
                Some("domain" | "search") => {
                    let domains = rest(words);
                    if !domains.is_empty() {
                        conf.search = domains;
                    }
                }
                Some("options") => conf.options.extend(rest(words)),
                Some(_) => conf.other.push(line.to_owned()),
            }
        }
        conf
    }

    /// Puts the configured values in place of the file's, and drops servers on loopback addresses unless the network is
    /// the machine's own or they were configured.
    pub(crate) fn adapt(mut self, dns: &DnsConfig, host_network: bool) -> Self {
        if !dns.search.is_empty() {
            self.search = dns.search.iter().filter(|domain| *domain != ".").cloned().collect();
        }
        if !dns.options.is_empty() {
            self.options.clone_from(&dns.options);
        }
        if !dns.nameservers.is_empty() {
            self.nameservers.clone_from(&dns.nameservers);
            return self;
        }
        if !host_network {
            self.nameservers.retain(|address| !address.is_loopback());
        }
        if self.nameservers.is_empty() {
            self.nameservers = FALLBACK.iter().filter_map(|address| address.parse().ok()).collect();
        }
        self
    }

    /// The text of a file.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        for server in &self.nameservers {
            let _ = writeln!(text, "nameserver {server}");
        }
        for (word, list) in [("search", &self.search), ("options", &self.options)] {
            if !list.is_empty() {
                let _ = writeln!(text, "{word} {}", list.join(" "));
            }
        }
        for line in &self.other {
            let _ = writeln!(text, "{line}");
        }
        text
    }
}

/// Identity of a version of a file: inode, size, modification time.
type Stamp = Option<(u64, u64, i64, i64)>;

fn stamp(path: &str) -> Stamp {
    let about = fs::metadata(path).ok()?;
    Some((about.ino(), about.size(), about.mtime(), about.mtime_nsec()))
}

/// The files that containers are given, written anew when the machine's changes.
#[derive(Debug)]
pub(crate) struct ResolvFiles {
    folder: PathBuf,
    dns: DnsConfig,
    /// Of which version each file was made: for sandboxes, for the machine's network.
    made: Mutex<[Option<Stamp>; 2]>,
}

impl ResolvFiles {
    pub(crate) fn new(folder: PathBuf, dns: DnsConfig) -> Self {
        Self { folder, dns, made: Mutex::new([None; 2]) }
    }

    /// Path of the file for a container, up to date.
    pub(crate) fn path(&self, host_network: bool) -> Result<PathBuf> {
        let (slot, name) = if host_network { (1, "resolv-host.conf") } else { (0, "resolv.conf") };
        let path = self.folder.join(name);
        let now = stamp(HOST_FILE);
        let mut made = self.made.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if made[slot] == Some(now) {
            return Ok(path);
        }
        let mut conf = ResolvConf::parse(&read(HOST_FILE)?);
        let stub = RESOLVED_STUB.parse().ok();
        if !host_network && conf.nameservers.len() == 1 && conf.nameservers.first() == stub.as_ref() {
            conf = ResolvConf::parse(&read(RESOLVED_FILE)?);
        }
        replace(&path, conf.adapt(&self.dns, host_network).text().as_bytes())?;
        made[slot] = Some(now);
        Ok(path)
    }
}

/// The file's text; empty if there is none.
fn read(path: &str) -> Result<String> {
    match fs::read(path) {
        Ok(mut bytes) => {
            bytes.truncate(LIMIT);
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(file_error("reading", Path::new(path))(error)),
    }
}

/// Puts a new file in place of an old one: containers that have the old one mounted keep it.
pub(crate) fn replace(path: &Path, text: &[u8]) -> Result<()> {
    let new = path.with_extension("new");
    fs::write(&new, text).map_err(file_error("writing", &new))?;
    fs::rename(&new, path).map_err(file_error("renaming to", path))
}
