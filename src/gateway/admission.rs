//! What a graph has to fulfil before any of it runs: entitlements that the build was granted,
//! capabilities that are there.

use crate::{GatewayError, caps};
use crosskit_api::pb::{self, op::Op};
use crosskit_llb::Graph;
use std::collections::BTreeSet;

/// Steps may use the machine's own network.
pub const NETWORK_HOST: &str = "network.host";

/// Steps may do what the machine's administrator may.
pub const SECURITY_INSECURE: &str = "security.insecure";

/// Steps may use devices.
pub const DEVICE: &str = "device";

/// What a build was granted.
#[derive(Clone, Debug, Default)]
pub struct Entitlements(BTreeSet<String>);

impl Entitlements {
    /// Grants what is asked for, if the daemon's config allows it.
    ///
    /// # Errors
    /// An entitlement that doesn't exist or isn't allowed.
    pub fn grant(asked: &[String], allowed: &[String]) -> Result<Self, GatewayError> {
        let mut granted = BTreeSet::new();
        for entitlement in asked {
            let name = entitlement.split_once('=').map_or(entitlement.as_str(), |(name, _)| name);
            if ![NETWORK_HOST, SECURITY_INSECURE, DEVICE].contains(&name) {
                return Err(GatewayError::plain(format!("unknown entitlement {entitlement}")));
            }
            if !allowed.iter().any(|a| a == name) {
                return Err(GatewayError::plain(format!(
                    "granting entitlement {name} is not allowed by build daemon configuration"
                )));
            }
            granted.insert(name.to_string());
        }
        Ok(Entitlements(granted))
    }

    /// Checks what a process asks for.
    ///
    /// # Errors
    /// The first entitlement that is missing.
    pub fn check(&self, network: pb::NetMode, security: pb::SecurityMode) -> Result<(), GatewayError> {
        let missing = if network == pb::NetMode::Host && !self.0.contains(NETWORK_HOST) {
            NETWORK_HOST
        } else if security == pb::SecurityMode::Insecure && !self.0.contains(SECURITY_INSECURE) {
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
            if let Some(device) = exec.cdi_devices.iter().find(|d| !d.optional) {
                return Err(GatewayError::unimplemented(format!(
                    "device {} is requested by the build, and CDI devices are not available yet",
                    device.name
                )));
            }
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
        assert_eq!(modes(0, 2).unwrap_err().message(), "invalid security mode 2");
        assert_eq!(modes(3, 0).unwrap_err().message(), "unknown network mode 3");
    }
}
