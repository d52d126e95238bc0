//! What a graph has to fulfil before any of it runs: entitlements that the build was granted,
//! capabilities that are there.

use crate::{GatewayError, caps};
use crosskit_api::pb::{self, op::Op};
use crosskit_exec::devices::{DeviceError, Registry, Wanted};
use crosskit_llb::Graph;
use std::collections::{BTreeMap, BTreeSet};

/// Steps may use the machine's own network.
pub const NETWORK_HOST: &str = "network.host";

/// Steps may do what the machine's administrator may.
pub const SECURITY_INSECURE: &str = "security.insecure";

/// Steps may use devices.
pub const DEVICE: &str = "device";

/// What a build was granted.
#[derive(Clone, Debug, Default)]
pub struct Entitlements {
    names: BTreeSet<String>,
    devices: DeviceGrants,
}

/// Which devices a build was granted.
#[derive(Clone, Debug, Default)]
struct DeviceGrants {
    /// Whatever there is.
    all: bool,
    /// Those it may have, as names that mean devices, and under which of them steps get another.
    named: BTreeMap<String, Option<String>>,
}

impl DeviceGrants {
    /// Takes what stands behind `device=`: a name, or a name and `alias=` with the name that steps use.
    fn add(&mut self, config: &str) -> Result<(), GatewayError> {
        let refused = |why: String| GatewayError::plain(format!("invalid device config {why}"));
        let fields =
            crosskit_dockerfile::csv_fields(config).map_err(|why| refused(format!("{config:?}: {why}")))?;
        let (name, options) = fields.split_first().ok_or_else(|| refused(format!("{config:?}")))?;
        let mut alias = None;
        for field in options {
            match field.split_once('=') {
                Some(("alias", value)) => alias = Some(value.to_string()).filter(|v| !v.is_empty()),
                Some((key, _)) => {
                    return Err(GatewayError::plain(format!("unknown device config key {key:?}")));
                }
                None => return Err(refused(format!("{field:?}"))),
            }
        }
        match alias {
            Some(alias) => self.named.insert(alias, Some(name.clone())),
            None => self.named.insert(name.clone(), None),
        };
        Ok(())
    }
}

impl Entitlements {
    /// Grants what is asked for, if the daemon's config allows it.
    ///
    /// # Errors
    /// An entitlement that doesn't exist or isn't allowed.
    pub fn grant(asked: &[String], allowed: &[String]) -> Result<Self, GatewayError> {
        let mut granted = Entitlements::default();
        for entitlement in asked {
            let (name, config) = match entitlement.split_once('=') {
                Some((DEVICE, config)) => (DEVICE, config),
                _ => (entitlement.as_str(), ""),
            };
            if ![NETWORK_HOST, SECURITY_INSECURE, DEVICE].contains(&name) {
                return Err(GatewayError::plain(format!("unknown entitlement {entitlement}")));
            }
            if !allowed.iter().any(|a| a == name) {
                return Err(GatewayError::plain(format!(
                    "granting entitlement {name} is not allowed by build daemon configuration"
                )));
            }
            match (name, config) {
                (DEVICE, "") => granted.devices.all = true,
                (DEVICE, config) => granted.devices.add(config)?,
                _ => {}
            }
            granted.names.insert(name.to_string());
        }
        Ok(granted)
    }

    /// Checks what a process asks for.
    ///
    /// # Errors
    /// The first entitlement that is missing.
    pub fn check(&self, network: pb::NetMode, security: pb::SecurityMode) -> Result<(), GatewayError> {
        let missing = if network == pb::NetMode::Host && !self.names.contains(NETWORK_HOST) {
            NETWORK_HOST
        } else if security == pb::SecurityMode::Insecure && !self.names.contains(SECURITY_INSECURE) {
            SECURITY_INSECURE
        } else {
            return Ok(());
        };
        Err(GatewayError::plain(format!("{missing} is not allowed")))
    }
}

/// What a process asks for, from the numbers of its message.
///
/// # Errors
/// A number that stands for nothing.
pub fn modes(network: i32, security: i32) -> Result<(pb::NetMode, pb::SecurityMode), GatewayError> {
    let network = pb::NetMode::try_from(network)
        .map_err(|_| GatewayError::invalid(format!("unknown network mode {network}")))?;
    let security = pb::SecurityMode::try_from(security)
        .map_err(|_| GatewayError::invalid(format!("invalid security mode {security}")))?;
    Ok((network, security))
}

/// Checks a whole graph.
///
/// # Errors
/// The first vertex that asks for what isn't granted or isn't there.
pub fn admit(graph: &Graph, entitlements: &Entitlements) -> Result<(), GatewayError> {
    for vertex in graph.vertices() {
        if let Some(Op::Exec(exec)) = &vertex.op.op {
            let (network, security) = modes(exec.network, exec.security)?;
            entitlements.check(network, security)?;
        }
        for cap in vertex.metadata.caps.keys() {
            if !caps::graph_has(cap) {
                return Err(GatewayError::unimplemented(format!(
                    "unknown API capability {cap}: this daemon does not have it, and the graph's vertex {} needs it",
                    vertex.digest
                )));
            }
        }
    }
    Ok(())
}

/// Whether a step of a graph asks for devices.
pub fn asks_for_devices(graph: &Graph) -> bool {
    graph
        .vertices()
        .iter()
        .any(|vertex| matches!(&vertex.op.op, Some(Op::Exec(e)) if !e.cdi_devices.is_empty()))
}

/// Replaces the devices that steps ask for by those that they get, by their full names.
///
/// # Errors
/// The first step that needs a device that isn't there, or asks for those that the build may not have.
pub fn give_devices(
    graph: &mut Graph,
    entitlements: &Entitlements,
    devices: &Registry,
) -> Result<(), GatewayError> {
    if entitlements.devices.all {
        return Ok(());
    }
    let mut given = Vec::new();
    for vertex in graph.vertices() {
        if let Some(Op::Exec(exec)) = &vertex.op.op
            && !exec.cdi_devices.is_empty()
        {
            given.push((vertex.digest, given_of(&exec.cdi_devices, &entitlements.devices, devices)?));
        }
    }
    for (digest, devices) in given {
        graph.set_devices(&digest, devices);
    }
    Ok(())
}

fn given_of(
    asked: &[pb::CdiDevice],
    grants: &DeviceGrants,
    devices: &Registry,
) -> Result<Vec<pb::CdiDevice>, GatewayError> {
    let mut given = Vec::new();
    let mut own = Vec::new();
    for device in asked {
        match grants.named.get(&device.name) {
            Some(Some(name)) => given.push(pb::CdiDevice { name: name.clone(), optional: device.optional }),
            _ => own.push(Wanted { name: device.name.clone(), optional: device.optional }),
        }
    }
    let refused = |e: DeviceError| GatewayError::plain(e.to_string());
    let found = devices.find(&own).map_err(refused)?;
    if found.is_empty() {
        return Ok(given);
    }
    let granted = grants.named.iter().filter(|(_, alias)| alias.is_none());
    let granted: Vec<_> = granted.map(|(name, _)| Wanted { name: name.clone(), optional: false }).collect();
    let granted = devices.find(&granted).map_err(refused)?;
    let mut forbidden = Vec::new();
    for name in found {
        let allowed = granted.contains(&name) || devices.get(&name).is_some_and(|device| device.auto_allow);
        match allowed {
            true => given.push(pb::CdiDevice { name, optional: false }),
            false => forbidden.push(name),
        }
    }
    match forbidden.as_slice() {
        [] => Ok(given),
        [one] => Err(GatewayError::plain(format!("device {one} is requested by the build but not allowed"))),
        several => Err(GatewayError::plain(format!(
            "devices {} are requested by the build but not allowed",
            several.join(", ")
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(names: &[&str]) -> Vec<String> {
        names.iter().map(|n| (*n).to_string()).collect()
    }

    #[test]
    fn entitlements_need_the_config_and_the_build() {
        let refused = Entitlements::grant(&list(&[NETWORK_HOST]), &[]).unwrap_err();
        assert_eq!(
            refused.message(),
            "granting entitlement network.host is not allowed by build daemon configuration"
        );
        assert_eq!(
            Entitlements::grant(&list(&["root"]), &[]).unwrap_err().message(),
            "unknown entitlement root"
        );
        let granted =
            Entitlements::grant(&list(&[NETWORK_HOST]), &list(&[NETWORK_HOST, SECURITY_INSECURE])).unwrap();
        granted.check(pb::NetMode::Host, pb::SecurityMode::Sandbox).unwrap();
        let refused = granted.check(pb::NetMode::Host, pb::SecurityMode::Insecure).unwrap_err();
        assert_eq!(refused.message(), "security.insecure is not allowed");
        let refused =
            Entitlements::default().check(pb::NetMode::Host, pb::SecurityMode::Sandbox).unwrap_err();
        assert_eq!(refused.message(), "network.host is not allowed");
        assert_eq!(modes(0, 2).unwrap_err().message(), "invalid security mode 2");
        assert_eq!(modes(3, 0).unwrap_err().message(), "unknown network mode 3");
    }

    fn devices() -> (tempfile::TempDir, Registry) {
        let folder = tempfile::tempdir().unwrap();
        let text = "cdiVersion: 0.6.0\nkind: acme.example/gpu\ndevices:\n\
            - {name: a, containerEdits: {env: [GPU=a]}}\n\
            - {name: b, containerEdits: {env: [GPU=b]}}\n\
            - {name: free, containerEdits: {env: [GPU=f]}, \
               annotations: {org.mobyproject.buildkit.device.autoallow: true}}\n";
        std::fs::write(folder.path().join("acme.yaml"), text).unwrap();
        let found = crosskit_exec::devices::Devices::new(vec![folder.path().into()], Vec::new());
        (folder, found.read().unwrap())
    }

    fn given(entitlements: &[&str], asked: &[(&str, bool)]) -> Result<Vec<String>, String> {
        let granted = Entitlements::grant(&list(entitlements), &list(&[DEVICE]))
            .map_err(|e| e.message().to_string())?;
        let asked: Vec<_> = asked
            .iter()
            .map(|(name, optional)| pb::CdiDevice { name: (*name).into(), optional: *optional })
            .collect();
        let given = given_of(&asked, &granted.devices, &devices().1).map_err(|e| e.message().to_string())?;
        Ok(given.into_iter().map(|device| device.name).collect())
    }

    #[test]
    fn devices_need_a_grant_by_name_kind_or_alias() {
        let (a, b) = ("acme.example/gpu=a", "acme.example/gpu=b");
        assert_eq!(given(&[], &[("acme.example/gpu=free", false)]).unwrap(), ["acme.example/gpu=free"]);
        assert_eq!(
            given(&[], &[(a, false)]).unwrap_err(),
            "device acme.example/gpu=a is requested by the build but not allowed"
        );
        assert_eq!(
            given(&[], &[(a, false), (b, true)]).unwrap_err(),
            "devices acme.example/gpu=a, acme.example/gpu=b are requested by the build but not allowed"
        );
        assert_eq!(given(&["device=acme.example/gpu=b"], &[(b, false)]).unwrap(), [b]);
        assert!(given(&["device=acme.example/gpu=b"], &[(a, false)]).is_err());
        // The kind stands for its first device.
        assert_eq!(given(&["device=acme.example/gpu"], &[(a, false)]).unwrap(), [a]);
        assert_eq!(given(&["device=acme.example/gpu=a,alias=card"], &[("card", false)]).unwrap(), [a]);
        assert_eq!(given(&[], &[("acme.example/none", true)]).unwrap(), Vec::<String>::new());
        assert_eq!(
            given(&[], &[("acme.example/none", false)]).unwrap_err(),
            "required device \"acme.example/none\" is not registered"
        );
        assert_eq!(given(&["device=a,color=red"], &[]).unwrap_err(), "unknown device config key \"color\"");
        assert_eq!(given(&["device=a,red"], &[]).unwrap_err(), "invalid device config \"red\"");
    }
}
