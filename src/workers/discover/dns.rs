//! Workers named by the SRV records of a name (RFC 2782). Priorities and weights are left aside:
//! the scheduler knows better who is free.

use super::{Found, News, pause};
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{LookupIpStrategy, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{RData, Record};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// How soon a name is asked for again, however short its records live.
const SOONEST: Duration = Duration::from_secs(2);

/// How late, however long they live: workers that are new want work.
const LATEST: Duration = Duration::from_secs(300);

/// When to ask again for a name that has no records.
const NOTHING_AGAIN: Duration = Duration::from_secs(10);

/// How long one nameserver has for an answer, and how often it is asked.
const PATIENCE: (Duration, usize) = (Duration::from_secs(2), 2);

/// Asks for a name each time that the answer has become old.
pub(super) async fn search(name: &str, nameservers: &[IpAddr], tell: &(dyn Fn(News) + Send + Sync)) {
    let mut failures = 0;
    let mut before = Vec::new();
    loop {
        let answer = match resolver(nameservers) {
            Ok(resolver) => ask(&resolver, name, &before).await,
            Err(why) => Err(why),
        };
        let again = match answer {
            Ok(Answer { found, remark, fresh }) => {
                failures = 0;
                before.clone_from(&found);
                tell(News::Found(found, remark));
                fresh
            }
            Err(why) => {
                failures += 1;
                tell(News::Failed(why));
                pause(failures)
            }
        };
        tokio::time::sleep(again).await;
    }
}

/// One for each question, as `/etc/resolv.conf` may change. Nothing is kept: who asks again wants
/// to know.
fn resolver(nameservers: &[IpAddr]) -> Result<TokioResolver, String> {
    let failed = |e: NetError| format!("setting up the name service: {e}");
    let mut builder = match nameservers {
        [] => TokioResolver::builder_tokio().map_err(failed)?,
        given => {
            let servers = given.iter().map(|ip| NameServerConfig::udp_and_tcp(*ip)).collect();
            let config = ResolverConfig::from_name_servers(servers);
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        }
    };
    let options = builder.options_mut();
    options.cache_size = 0;
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    (options.timeout, options.attempts) = PATIENCE;
    builder.build().map_err(failed)
}

struct Answer {
    found: Vec<Found>,
    /// What is wrong with some of it.
    remark: Option<String>,
    /// How long it holds.
    fresh: Duration,
}

async fn ask(resolver: &TokioResolver, name: &str, before: &[Found]) -> Result<Answer, String> {
    let looked_up = match resolver.srv_lookup(absolute(name)).await {
        Ok(looked_up) => looked_up,
        Err(e) => {
            let why = absent(&e).ok_or_else(|| format!("asking for the SRV records of {name}: {e}"))?;
            let remark = Some(format!("{name} {why}"));
            return Ok(Answer { found: Vec::new(), remark, fresh: NOTHING_AGAIN });
        }
    };
    let mut fresh = freshness(looked_up.answers());
    let mut targets = BTreeMap::new();
    for record in looked_up.answers() {
        if let RData::SRV(srv) = &record.data
            // A lone dot says that the service is not offered.
            && !srv.target.is_root()
        {
            targets.insert((srv.target.to_ascii().trim_end_matches('.').to_lowercase(), srv.port), ());
        }
    }
    let mut answer = Answer { found: Vec::new(), remark: None, fresh };
    let asked = targets.into_keys().map(|(host, port)| async move {
        let addresses = resolver.lookup_ip(absolute(&host)).await;
        (host, port, addresses)
    });
    for (host, port, addresses) in futures::future::join_all(asked).await {
        let name = format!("{host}:{port}");
        let known = before.iter().find(|known| known.name == name);
        match addresses {
            Ok(addresses) => {
                fresh = fresh.min(freshness(addresses.as_lookup().answers()));
                // It may have several; the one that is used is as good as any other.
                let used =
                    known.map(|known| known.ip).filter(|ip| addresses.iter().any(|other| other == *ip));
                let ip = used.or_else(|| addresses.iter().min());
                answer.found.extend(ip.map(|ip| Found { name, ip, port, host }));
            }
            Err(e) => {
                let why = absent(&e).map_or_else(|| format!("no address: {e}"), str::to_string);
                // What is certainly gone is left out; of others nothing is known that is new.
                answer.found.extend(known.filter(|_| absent(&e).is_none()).cloned());
                answer.remark.get_or_insert_with(|| format!("{host} {why}"));
                fresh = SOONEST;
            }
        }
    }
    answer.fresh = fresh;
    Ok(answer)
}

/// Not to be looked for in search domains.
fn absolute(name: &str) -> String {
    format!("{}.", name.trim_end_matches('.'))
}

/// How long records hold, within sane bounds.
fn freshness(records: &[Record]) -> Duration {
    let shortest = records.iter().map(|record| record.ttl).min().unwrap_or(0);
    Duration::from_secs(shortest.into()).clamp(SOONEST, LATEST)
}

/// What an answer says by which a nameserver knows that there is nothing.
fn absent(error: &NetError) -> Option<&'static str> {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(nothing)) => match nothing.response_code {
            ResponseCode::NXDomain => Some("does not exist"),
            ResponseCode::NoError => Some("has no such records"),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_resolver::proto::rr::Name;
    use hickory_resolver::proto::rr::rdata::A;

    #[test]
    fn records_hold_as_long_as_they_say_within_bounds() {
        let hold = |ttls: &[u32]| {
            let record = |ttl: &u32| Record::from_rdata(Name::root(), *ttl, RData::A(A::new(10, 0, 0, 1)));
            freshness(&ttls.iter().map(record).collect::<Vec<_>>()).as_secs()
        };
        assert_eq!([hold(&[60, 30]), hold(&[0]), hold(&[86_400]), hold(&[])], [30, 2, 300, 2]);
    }

    #[test]
    fn names_are_not_looked_for_in_search_domains() {
        assert_eq!(absolute("_buildkit._tcp.arm.example"), "_buildkit._tcp.arm.example.");
        assert_eq!(absolute("arm-1.example."), "arm-1.example.");
    }
}
