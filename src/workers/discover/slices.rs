//! EndpointSlices (`discovery.k8s.io/v1`): who is ready behind a service.

use super::Found;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// The answer to a list.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SliceList {
    pub metadata: Metadata,
    #[serde(default)]
    pub items: Vec<Slice>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
pub(super) struct Metadata {
    #[serde(default)]
    pub name: String,
    #[serde(default)]
    pub resource_version: String,
    #[serde(default, rename = "continue")]
    pub more: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Slice {
    pub metadata: Metadata,
    #[serde(default)]
    endpoints: Option<Vec<Endpoint>>,
    #[serde(default)]
    ports: Option<Vec<Port>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Endpoint {
    #[serde(default)]
    addresses: Vec<String>,
    #[serde(default)]
    conditions: Option<Conditions>,
    #[serde(default)]
    target_ref: Option<Target>,
}

#[derive(Deserialize, Default)]
struct Conditions {
    #[serde(default)]
    ready: Option<bool>,
}

#[derive(Deserialize)]
struct Target {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    name: String,
}

#[derive(Deserialize)]
struct Port {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    port: Option<u16>,
}

impl Slice {
    /// The port that is meant.
    fn port(&self, wanted: Option<&str>) -> Result<u16, String> {
        let ports = self.ports.as_deref().unwrap_or_default();
        let number = |port: &Port| port.port.map(|number| number.to_string());
        let is = |port: &&Port, wanted| {
            port.name.as_deref() == Some(wanted) || number(port).as_deref() == Some(wanted)
        };
        let listed = || {
            let named = |port: &Port| match port.name.as_deref().filter(|name| !name.is_empty()) {
                Some(name) => format!("{name} ({})", number(port).unwrap_or_default()),
                None => number(port).unwrap_or_default(),
            };
            ports.iter().map(named).collect::<Vec<_>>().join(", ")
        };
        let found = match (wanted, ports) {
            (Some(wanted), _) => ports.iter().find(|port| is(port, wanted)),
            (None, [only]) => Some(only),
            (None, _) => return Err(format!("has the ports {}: say which by port", listed())),
        };
        let missing = || format!("has no port {}; it has {}", wanted.unwrap_or_default(), listed());
        found.and_then(|port| port.port).ok_or_else(missing)
    }
}

/// Everybody who is ready, in slices that hold together, and what is wrong with one of them. A
/// pod may be in several slices, one for each family of addresses; it keeps the address that it
/// had, else gets one of the older family.
pub(super) fn ready<'a>(
    slices: impl Iterator<Item = &'a Slice>,
    namespace: &str,
    port: Option<&str>,
    before: &[Found],
) -> (Vec<Found>, Option<String>) {
    let mut remark = None;
    let mut all: BTreeMap<String, Vec<(IpAddr, u16)>> = BTreeMap::new();
    for slice in slices {
        let endpoints = slice.endpoints.as_deref().unwrap_or_default();
        // Nothing said counts as ready.
        let ready = |endpoint: &&Endpoint| endpoint.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true);
        let mut endpoints = endpoints.iter().filter(ready).peekable();
        if endpoints.peek().is_none() {
            continue;
        }
        let port = match slice.port(port) {
            Ok(port) => port,
            Err(why) => {
                remark.get_or_insert_with(|| format!("the EndpointSlice {} {why}", slice.metadata.name));
                continue;
            }
        };
        for endpoint in endpoints {
            // All addresses of one endpoint lead to the same; the first one is enough.
            let Some(ip) = endpoint.addresses.first().and_then(|text| text.parse::<IpAddr>().ok()) else {
                continue;
            };
            let pod =
                endpoint.target_ref.as_ref().filter(|target| target.kind == "Pod" && !target.name.is_empty());
            let name = match pod {
                Some(pod) => format!("{namespace}/{}", pod.name),
                None => format!("{namespace}/{}", std::net::SocketAddr::from((ip, port))),
            };
            all.entry(name).or_default().push((ip, port));
        }
    }
    let found = all.into_iter().filter_map(|(name, mut places)| {
        places.sort();
        let known = before.iter().find(|known| known.name == name).map(|known| (known.ip, known.port));
        let (ip, port) = known.filter(|known| places.contains(known)).or(places.first().copied())?;
        Some(Found { name, ip, port, host: ip.to_string() })
    });
    (found.collect(), remark)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn slice(value: serde_json::Value) -> Slice {
        serde_json::from_value(value).unwrap()
    }

    fn names(found: &[Found]) -> Vec<String> {
        found.iter().map(|found| format!("{} {}:{}", found.name, found.ip, found.port)).collect()
    }

    #[test]
    fn only_ready_endpoints_count_and_a_pod_counts_once() {
        let pod = |name: &str| json!({"kind": "Pod", "name": name});
        let four = slice(json!({
            "metadata": {"name": "four"}, "addressType": "IPv4", "ports": [{"name": "grpc", "port": 1234}],
            "endpoints": [
                {"addresses": ["10.0.0.2"], "conditions": {"ready": true}, "targetRef": pod("arm-1")},
                {"addresses": ["10.0.0.1"], "conditions": {"ready": true}, "targetRef": pod("arm-0")},
                {"addresses": ["10.0.0.3"], "conditions": {"ready": false, "serving": true}, "targetRef": pod("arm-2")},
                {"addresses": ["10.0.0.4"], "conditions": {}},
            ],
        }));
        let six = slice(json!({
            "metadata": {"name": "six"}, "addressType": "IPv6", "ports": [{"name": "grpc", "port": 1234}],
            "endpoints": [{"addresses": ["fd00::1"], "conditions": {"ready": true}, "targetRef": pod("arm-0")}],
        }));
        let empty = slice(json!({"metadata": {"name": "empty"}, "endpoints": null, "ports": null}));
        let all = [four, six, empty];
        let (found, remark) = ready(all.iter(), "ci", None, &[]);
        let expected = ["ci/10.0.0.4:1234 10.0.0.4:1234", "ci/arm-0 10.0.0.1:1234", "ci/arm-1 10.0.0.2:1234"];
        assert_eq!((names(&found), remark), (expected.map(String::from).to_vec(), None));
        // What is used stays.
        let used = Found { ip: "fd00::1".parse().unwrap(), ..found[1].clone() };
        let (found, _) = ready(all.iter(), "ci", Some("grpc"), &[used]);
        assert_eq!(names(&found)[1], "ci/arm-0 fd00::1:1234");
    }

    #[test]
    fn a_port_that_is_not_there_or_not_clear_is_said() {
        let two = slice(json!({
            "metadata": {"name": "w-abc"}, "ports": [{"name": "grpc", "port": 1234}, {"name": "metrics", "port": 9090}],
            "endpoints": [{"addresses": ["10.0.0.1"]}],
        }));
        let ask = |port| {
            let (found, remark) = ready(std::iter::once(&two), "ci", port, &[]);
            (found.first().map(|found| found.port), remark.unwrap_or_default())
        };
        assert_eq!(ask(Some("9090")), (Some(9090), String::new()));
        assert_eq!(ask(Some("grpc")), (Some(1234), String::new()));
        let which = "the EndpointSlice w-abc has the ports grpc (1234), metrics (9090): say which by port";
        assert_eq!(ask(None), (None, which.to_string()));
        let missing = "the EndpointSlice w-abc has no port http; it has grpc (1234), metrics (9090)";
        assert_eq!(ask(Some("http")), (None, missing.to_string()));
    }
}
