//! Workers that nobody names: found through the name service, or in Kubernetes.
//!
//! A search ends only with the daemon. Whatever it finds is told as a whole, again each time that
//! it may have changed; a search that fails tells why and goes on, and what it found before stays.

mod account;
mod dns;
mod kubernetes;
mod slices;

use crate::remote::RemoteOptions;
pub use kubernetes::Selection;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

/// How long a search that fails waits at first until it tries again; longer each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// How long it waits at most.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A search for workers.
#[derive(Debug, Clone)]
pub struct DiscoverOptions {
    /// Where to look.
    pub place: Place,
    /// What holds for each that is found. Name and address are empty.
    pub like: RemoteOptions,
}

/// Where workers are looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// The SRV records of a name.
    DnsSrv(String),
    /// What is ready behind services in the Kubernetes cluster that the daemon is in.
    Kubernetes(Selection),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::DnsSrv(name) => write!(f, "dns-srv {name}"),
            Place::Kubernetes(selection) => selection.fmt(f),
        }
    }
}

/// A worker that was found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Found {
    /// What people call it. No worker that is named in the config can have such a name.
    pub name: String,
    /// Where it is.
    pub ip: IpAddr,
    /// Where it listens.
    pub port: u16,
    /// What its certificate names, if nobody says anything else.
    pub host: String,
}

impl Found {
    /// How it is reached and what it may be given.
    pub(crate) fn options(&self, like: &RemoteOptions) -> RemoteOptions {
        let mut options = like.clone();
        options.name = self.name.clone();
        options.addr = format!("tcp://{}", std::net::SocketAddr::from((self.ip, self.port)));
        if let Some(tls) = options.tls.as_mut().filter(|tls| tls.server_name.is_empty()) {
            tls.server_name = self.host.clone();
        }
        options
    }
}

/// What a search has to tell.
#[derive(Debug)]
pub(crate) enum News {
    /// These are all that there are. What is wrong with others, if something is.
    Found(Vec<Found>, Option<String>),
    /// It can't be said who is there, and why.
    Failed(String),
}

impl Place {
    /// Searches as long as the future lives.
    pub(crate) async fn search(&self, nameservers: &[IpAddr], tell: &(dyn Fn(News) + Send + Sync)) {
        match self {
            Place::DnsSrv(name) => dns::search(name, nameservers, tell).await,
            Place::Kubernetes(selection) => selection.search(tell).await,
        }
    }
}

/// How long to wait before the next try, after so many failures.
fn pause(failures: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(LONGEST_PAUSE)
}

/// An error with what is behind it, where that says more.
fn whole(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let more = cause.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remote::Tls;

    #[test]
    fn what_is_found_is_reached_by_its_address_and_known_by_its_host() {
        let found = Found {
            name: "arm-1.example:1234".into(),
            ip: "fd00::1".parse().unwrap(),
            port: 1234,
            host: "arm-1.example".into(),
        };
        let mut like =
            RemoteOptions { tls: Some(Tls::default()), slots: Some(3), ..RemoteOptions::new("", "") };
        let options = found.options(&like);
        assert_eq!(
            (options.name.as_str(), options.addr.as_str()),
            ("arm-1.example:1234", "tcp://[fd00::1]:1234")
        );
        assert_eq!((options.tls.unwrap().server_name.as_str(), options.slots), ("arm-1.example", Some(3)));
        like.tls.as_mut().unwrap().server_name = "builders".into();
        assert_eq!(found.options(&like).tls.unwrap().server_name, "builders");
    }

    #[test]
    fn tries_become_rarer_but_do_not_end() {
        assert_eq!([1, 2, 3].map(pause), [1, 2, 4].map(Duration::from_secs));
        assert_eq!(pause(u32::MAX), LONGEST_PAUSE);
    }
}
