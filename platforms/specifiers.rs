//! Reading and writing specifiers such as `linux/arm/v7`.

use std::{fmt, str::FromStr};

use crate::{Architecture, Error, Platform, host, normal};

/// The pattern of a specifier's first component, as error messages quote it.
pub(crate) const OS_PATTERN: &str = r"^([A-Za-z0-9_-]+)(?:\(([A-Za-z0-9_.%-]*)((?:\+[A-Za-z0-9_.%-]+)*)\))?$";
/// The pattern of the others.
pub(crate) const COMPONENT_PATTERN: &str = r"^[A-Za-z0-9_.-]+$";

/// Systems that Go knows: a lone component of this list is a system, else it is an architecture.
const SYSTEMS: &[&str] = &[
    "aix",
    "android",
    "darwin",
    "dragonfly",
    "freebsd",
    "hurd",
    "illumos",
    "ios",
    "js",
    "linux",
    "nacl",
    "netbsd",
    "openbsd",
    "plan9",
    "solaris",
    "windows",
    "zos",
];
/// Architectures that Go knows and `platforms.toml` has no facts about.
const OTHER_ARCHITECTURES: &[&str] = &[
    "amd64p32",
    "armbe",
    "arm64be",
    "mips",
    "mipsle",
    "mips64p32",
    "mips64p32le",
    "ppc",
    "riscv",
    "s390",
    "sparc",
    "sparc64",
    "wasm",
];

impl Platform {
    /// Reads a specifier: `os`, `architecture`, `os/architecture` or `os/architecture/variant`, where the system may
    /// carry a version and features, `windows(10.0.17763+win32k)`. What is left out is this machine's.
    ///
    /// Aliases become their OCI names. The variant stays as written where it says more than the normal form does
    /// (`linux/arm64/v8`) and stays out where it was not written (`linux/arm`); use [`Platform::normalize`] to compare.
    pub fn parse(specifier: &str) -> Result<Platform, Error> {
        let given = || specifier.to_owned();
        if specifier.contains('*') {
            return Err(Error::Wildcard { specifier: given() });
        }
        let parts: Vec<&str> = specifier.splitn(4, '/').collect();
        let mut platform = parse_system(parts[0], specifier)?;
        for part in &parts[1..] {
            let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
            if part.is_empty() || !part.chars().all(allowed) {
                return Err(Error::Component { component: (*part).to_owned(), specifier: given() });
            }
        }
        match parts[1..] {
            [] => single(parts[0], platform).ok_or_else(|| Error::Unknown { specifier: given() }),
            [architecture] => {
                (platform.architecture, platform.variant) = unless_said(architecture);
                Ok(platform)
            }
            [architecture, variant] => {
                (platform.architecture, platform.variant) = normal::architecture(architecture, variant);
                if platform.architecture == "arm64" && platform.variant.is_empty() {
                    platform.variant = "v8".to_owned();
                }
                Ok(platform)
            }
            _ => Err(Error::TooManyComponents { specifier: given() }),
        }
    }

    /// The specifier of this platform without the system's version and features: `linux/arm/v7`.
    pub fn format(&self) -> String {
        self.to_string()
    }

    /// The specifier with version and features: `windows(10.0.17763)/amd64`.
    pub fn format_all(&self) -> String {
        if self.os.is_empty() || (self.os_version.is_empty() && self.os_features.is_empty()) {
            return if self.os.is_empty() { "unknown".to_owned() } else { self.plain() };
        }
        let mut features: Vec<&str> =
            self.os_features.iter().map(String::as_str).filter(|f| !f.is_empty()).collect();
        features.sort_unstable();
        features.dedup();
        let mut options = escape(&self.os_version);
        for feature in features {
            options.push('+');
            options.push_str(&escape(feature));
        }
        let os = if options.is_empty() { self.os.clone() } else { format!("{}({options})", self.os) };
        joined([&os, &self.architecture, &self.variant])
    }

    fn plain(&self) -> String {
        joined([&self.os, &self.architecture, &self.variant])
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.os.is_empty() {
            return f.write_str("unknown");
        }
        f.write_str(&self.plain())
    }
}

impl FromStr for Platform {
    type Err = Error;

    fn from_str(specifier: &str) -> Result<Self, Error> {
        Self::parse(specifier)
    }
}

fn joined(parts: [&str; 3]) -> String {
    let mut text = String::with_capacity(parts.iter().map(|part| part.len() + 1).sum());
    for part in parts.into_iter().filter(|part| !part.is_empty()) {
        if !text.is_empty() {
            text.push('/');
        }
        text.push_str(part);
    }
    text
}

/// `os`, `os(version)`, `os(version+feature+feature)`.
fn parse_system(component: &str, specifier: &str) -> Result<Platform, Error> {
    let malformed =
        || Error::OsComponent { component: component.to_owned(), specifier: specifier.to_owned() };
    let (name, options) = match component.split_once('(') {
        Some((name, rest)) => (name, rest.strip_suffix(')').ok_or_else(malformed)?),
        None => (component, ""),
    };
    let name_is_plain = name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
    if name.is_empty() || !name_is_plain {
        return Err(malformed());
    }
    let mut pieces = options.split('+');
    let version = pieces.next().unwrap_or_default();
    let features: Vec<&str> = pieces.collect();
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '%' | '-');
    if !version.chars().all(allowed) || features.iter().any(|f| f.is_empty() || !f.chars().all(allowed)) {
        return Err(malformed());
    }
    let decode = |option: &str| {
        unescape(option)
            .ok_or_else(|| Error::OsOption { option: option.to_owned(), specifier: specifier.to_owned() })
    };
    Ok(Platform {
        os: normal::os(name),
        os_version: decode(version)?,
        os_features: features.into_iter().map(decode).collect::<Result<_, _>>()?,
        ..Platform::default()
    })
}

/// A lone component: a system with this machine's architecture, or an architecture with this machine's system.
fn single(component: &str, mut platform: Platform) -> Option<Platform> {
    if SYSTEMS.contains(&platform.os.as_str()) {
        let native = host::native();
        platform.architecture = native.architecture;
        if platform.architecture == "arm" && native.variant != "v7" {
            platform.variant = native.variant;
        }
        return Some(platform);
    }
    let (architecture, variant) = unless_said(component);
    let known = Architecture::by_name(&architecture).is_some()
        || OTHER_ARCHITECTURES.contains(&architecture.as_str());
    known.then(|| Platform::new(host::OS, architecture, variant))
}

/// Normal architecture and variant, but not a variant that is only the default.
fn unless_said(architecture: &str) -> (String, String) {
    let (architecture, variant) = normal::architecture(architecture, "");
    let default = Architecture::by_name(&architecture).map_or("", |known| known.default.as_str());
    let variant = if variant == default { String::new() } else { variant };
    (architecture, variant)
}

/// Escapes what would read as syntax.
fn escape(option: &str) -> String {
    let mut out = String::with_capacity(option.len());
    for c in option.chars() {
        match c {
            '%' | '+' | '(' | ')' | '/' => out.push_str(&format!("%{:02X}", u32::from(c))),
            other => out.push(other),
        }
    }
    out
}

/// The reverse of [`escape`], for any percent escape. None if one is broken or the result is not UTF-8.
fn unescape(option: &str) -> Option<String> {
    let mut out = Vec::with_capacity(option.len());
    let mut bytes = option.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digit = |b: Option<u8>| char::from(b?).to_digit(16);
            let (high, low) = (digit(bytes.next())?, digit(bytes.next())?);
            out.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).ok()
}
