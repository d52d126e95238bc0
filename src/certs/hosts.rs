//! Names and addresses that a daemon is reached by.

use crate::error::CertsError;
use std::fmt;
use std::net::IpAddr;

/// Characters of a name in the whole, and of each of its labels (RFC 1035).
const LONGEST_NAME: usize = 253;
const LONGEST_LABEL: usize = 63;

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    /// By name, the first label of which may be a star.
    Name(String),
    /// By address.
    Address(IpAddr),
}

impl Host {
    /// Reads a name or an address, which may be in brackets.
    pub(crate) fn parse(text: &str) -> Result<Host, CertsError> {
        let wrong = |why: &str| CertsError::Argument(format!("--for {text:?}: {why}"));
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        if let Ok(address) = bare.parse() {
            return Ok(Host::Address(address));
        }
        if text.is_empty() {
            return Err(wrong("a name or an address is wanted"));
        }
        if text.contains("://") || text.contains('/') {
            return Err(wrong("only the host of an address is wanted, without scheme and path"));
        }
        if text.contains(':') {
            return Err(wrong("only the host is wanted, without a port"));
        }
        if !text.is_ascii() {
            return Err(wrong("a name with other letters is written in its form that begins with xn--"));
        }
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        let mut labels = name.strip_prefix("*.").unwrap_or(&name).split('.').peekable();
        let letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        let fits = |label: &str| {
            (1..=LONGEST_LABEL).contains(&label.len())
                && label.chars().all(letter)
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        // Those who check certificates take no star for all names of a domain such as com.
        if name.starts_with("*.") && name.matches('.').count() < 2 {
            return Err(wrong("after a star a name has at least two parts"));
        }
        let last = name.rsplit('.').next().unwrap_or_default();
        // What ends in a number would be an address (RFC 3696), and is none.
        if name.len() > LONGEST_NAME || !labels.all(fits) || last.chars().all(|c| c.is_ascii_digit()) {
            return Err(wrong("this is neither a host's name nor an IP address"));
        }
        Ok(Host::Name(name))
    }

    /// Whether it stands for many.
    pub(crate) fn is_wildcard(&self) -> bool {
        matches!(self, Host::Name(name) if name.starts_with('*'))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Name(name) => out.write_str(name),
            Host::Address(address) => address.fmt(out),
        }
    }
}
